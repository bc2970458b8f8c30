package conversation

import (
	"context"
	"errors"
	"time"
)

// ErrAgentGone is the answer of a Dispatcher whose agent is not connected, or not any more.
var ErrAgentGone = errors.New("the agent is not connected")

// A Dispatcher hands messages to connected agents.
type Dispatcher interface {
	// Resolve returns the agent id that an id names: an agent id, or the instance id of a
	// connection. ok is false when no such agent is connected.
	Resolve(id string) (agentID string, ok bool)
	// ResolvePrincipal returns the first connected agent of a principal, in a working directory
	// unless that is "".
	ResolvePrincipal(principalID, workingDir string) (agentID string, ok bool)
	// Dispatch returns when the agent's connection has taken the message, in the order of the
	// calls. From then on everything the agent answers goes to the sink, in order, and Gone when
	// the agent disappears. It fails with ErrAgentGone, or with the context while the connection
	// takes nothing.
	Dispatch(ctx context.Context, agentID string, m Dispatch, to Sink) (Call, error)
	// Approve answers an agent's question whether it may run a tool. It does not wait; it fails
	// with ErrAgentGone, or with a fault when the agent reads nothing any more.
	Approve(agentID, toolID string, approved, all bool) error
	// Resumable reports whether an agent is connected and goes on with its turns when its stream breaks.
	Resumable(agentID string) bool
	// Injectable reports whether an agent is connected and understands injections.
	Injectable(agentID string) bool
	// Inject hands an agent an injection and waits for what it says. When nothing comes until ctx
	// ends, or the agent disappears, the outcome is InjectionUnknown. An error says that the agent
	// has got nothing: ErrAgentGone, a fault, or the context's while the connection takes nothing.
	Inject(ctx context.Context, i Injection) (Injected, error)
}

// A Dispatch is a message on its way to an agent.
type Dispatch struct {
	TurnID   string
	ThreadID string
	Sender   string
	Text     string
	Files    []FileData
}

// A Call is a message that an agent has taken and not answered to the end.
type Call interface {
	// Cancel asks the agent to stop. It returns false when the agent does not understand that.
	// It does not block.
	Cancel(reason string) bool
	// Ack says that an agent that resumes need not send again what it has numbered up to received.
	// It does not block, and may be lost.
	Ack(received uint64)
	// Decide answers the question whether the agent may run a tool, which was event number asked of the
	// turn. It does not block, and may be lost.
	Decide(asked uint64, d Decision)
	// Retire forgets the call; what the agent still sends for it is ignored.
	Retire()
}

// Files keeps the content of files.
type Files interface {
	// Put stores data durably under the hex SHA-256 it returns. Storing the same data twice keeps
	// it once. Until Release is called, once for each Put that succeeded, Remove leaves it alone.
	Put(ctx context.Context, data []byte) (sha256 string, err error)
	Release(sha256 string)
	// Get returns a content, which has size bytes.
	Get(ctx context.Context, sha256 string, size int64) ([]byte, error)
	// Remove removes a content unless used says that it is needed. It reports false when it has to
	// be tried again later: the content is being stored, or a backup is being made.
	Remove(sha256 string, used func() (bool, error)) (settled bool, removed int64, err error)
	// Strays calls each with everything that was stored before a time.
	Strays(before time.Time, each func(sha256 string) error) error
}
