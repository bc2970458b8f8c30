// Package agent is for programs that answer messages: it connects to a coven gateway, registers,
// hands each message to a handler with a streaming writer, and comes back when the connection is
// lost.
//
// An agent is a set of [Options] with a [Handler]; [Run] does the rest. See the example for a whole
// program.
//
// What a handler sends arrives in the order in which it was sent, once. A turn (a message and its answer)
// outlives the connection: when that is lost, or the gateway is restarted, the handler goes on, what the
// gateway has not recorded is kept and sent again on the next connection, and the handler waits while too
// much is kept. With Options.NoResume, or at a gateway that knows no `resume`, the turn is reported as
// interrupted instead, and the handler's context ends.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
)

// MaxFile is the largest file an agent can send, in bytes.
const MaxFile = 10 << 20

// Options describe an agent. Only Server, ID and Handler are required.
type Options struct {
	// Server is where the gateway's gRPC listener is: host:port or http://host:port. Without a port
	// it is 50051. The connection is not encrypted; https is refused.
	Server  string
	ID      string // who the agent is to the world: unique at the gateway, at most 200 bytes
	Handler Handler

	Name         string   // for people; ID where empty
	Capabilities []string // what the agent asks for; base and chat where nil
	Features     []string // of the protocol, besides those this package speaks by itself
	Backend      string   // what answers the messages, for people
	WorkingDir   string   // the current one where empty
	Workspaces   []string // names by which clients can find the agent
	Tools        []Tool   // offered to others through the gateway

	// Credentials returns the headers that identify the agent. It is called for every connection,
	// because credentials expire. Its error is treated like a failure to connect. Gateways that are
	// open to everybody need none. See [KeyFile] and [Token].
	Credentials func(context.Context) (metadata.MD, error)

	Concurrency    int           // messages that are answered at once; 8 where 0
	Heartbeat      time.Duration // between heartbeats; 30 s where 0, none where negative
	BackoffMin     time.Duration // before the first reconnect; 200 ms where 0
	BackoffMax     time.Duration // between reconnects; 10 s where 0
	RetryTaken     int           // attempts more when the id is taken, perhaps by our own dying connection; 3 where 0, none where negative
	NoResume       bool          // end the turns when the connection is lost, instead of going on with them on the next one
	ExitOnShutdown bool          // return when the gateway shuts down instead of waiting for its return

	Logger      *slog.Logger // slog.Default where nil
	DialOptions []grpc.DialOption
	// OnWelcome is called after each registration and before any message. The agent waits for it,
	// so it cannot call tools.
	OnWelcome func(Welcome)
	// OnInject is called for what is injected: something for the agent to know that is no message. nil
	// accepts it, an error refuses it and is told whoever injects. Calls come one after the other, in
	// order, beside the handlers; the gateway waits for ten seconds. ctx ends with the connection.
	// Without it the agent does not say that it understands injections.
	OnInject func(ctx context.Context, i Injection) error
}

// A Welcome is what the gateway tells an agent that has registered.
type Welcome struct {
	ServerID    string
	AgentID     string
	InstanceID  string // of this connection, for bindings
	PrincipalID string // whom the credentials belong to
	Secrets     map[string]string
	Features    []string // of the protocol, that the gateway understands
	Tools       []Tool   // that CallTool can call; their Call is nil
	MCPEndpoint string   // URL of the same tools, with MCPToken as one more path segment; empty where there is none
	MCPToken    string
}

// A Message is what somebody said to the agent.
type Message struct {
	RequestID   string
	ThreadID    string // stable for a conversation: the key of the agent's own session
	Sender      string // for people; not an identity
	Content     string
	Attachments []Attachment
}

// An Attachment is a file that came with a message.
type Attachment struct {
	Name string
	Type string // media type
	Data []byte
}

// A Handler answers messages. Messages of one thread come one after the other, different threads
// side by side. ctx ends when somebody stops the turn (its cause is then a Cancelled), when the gateway
// has ended it while the agent was away (ErrForgotten), when the connection of a turn that cannot be gone on
// with is lost (ErrDisconnected) or when the agent stops (ErrStopped). A handler has to return
// then: neither does the agent reconnect before, nor does Run return.
//
// When it returns nil the turn is done; an error is reported to whoever asked. After a cancellation
// the turn is reported as cancelled, whatever it returns. A panic is not recovered.
type Handler interface {
	Handle(ctx context.Context, m *Message, w *Writer) error
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, m *Message, w *Writer) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, m *Message, w *Writer) error { return f(ctx, m, w) }

// Why the context of a handler ends.
var (
	ErrCancelled    = errors.New("the turn was cancelled")
	ErrDisconnected = errors.New("the connection to the gateway is lost")
	ErrStopped      = errors.New("the agent stops")
)

// Cancelled is the cause of a handler's context when somebody has stopped the turn. It is an
// ErrCancelled.
type Cancelled struct{ Reason string }

func (c Cancelled) Error() string {
	if c.Reason == "" {
		return ErrCancelled.Error()
	}
	return ErrCancelled.Error() + ": " + c.Reason
}

// Unwrap returns ErrCancelled.
func (c Cancelled) Unwrap() error { return ErrCancelled }

// Why Run gives up.
var (
	ErrTaken   = errors.New("another agent with this id is connected")
	ErrRefused = errors.New("the gateway refuses this agent")
)

// A RefusedError says that the gateway does not take the agent, and that trying again would not
// help. It is an ErrTaken or an ErrRefused.
type RefusedError struct {
	AgentID     string
	Code        codes.Code
	Reason      string // in the gateway's words
	SuggestedID string // an id that is free, where the gateway names one
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("agent %s: %v: %s", e.AgentID, e.Unwrap(), e.Reason)
}

// Unwrap returns ErrTaken or ErrRefused.
func (e *RefusedError) Unwrap() error {
	if e.Code == codes.AlreadyExists {
		return ErrTaken
	}
	return ErrRefused
}

// resumePause is the longest pause between attempts to connect while turns wait to be gone on with.
const resumePause = time.Second

// errShutdown says that the gateway is going away. To a handler it is a lost connection.
var errShutdown = fmt.Errorf("%w: the gateway shuts down", ErrDisconnected)

// An Agent is a program's presence at a gateway.
type Agent struct {
	opts Options // complete; fixed

	mu      sync.Mutex
	running bool
	session *session // the registered one; nil while there is none
	tools   []Tool   // that the gateway offers; not changed in place

	// Owned by Run and what it calls.
	run  context.Context
	desk *desk // of turns that outlive sessions; nil until a gateway resumes
}

// Features of the protocol that this package has to know.
const (
	featureResume      = "resume"
	featureToolUpdates = "tool_updates"
)

// Tools returns the gateway's tools that CallTool can call now, as the gateway has told last; their Call is
// nil.
func (a *Agent) Tools() []Tool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.tools)
}

func (a *Agent) setTools(list []*pb.ToolDefinition) {
	tools := make([]Tool, len(list))
	for i, d := range list {
		tools[i] = toolOf(d)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tools = tools
}

// leaveDesk ends the turns that outlive sessions, and waits for their handlers.
func (a *Agent) leaveDesk(why error) {
	if a.desk == nil {
		return
	}
	a.desk.close(why)
	a.desk.tasks.Wait()
	a.desk = nil
}

// Run connects an agent and answers messages until ctx ends. It is New and Agent.Run.
func Run(ctx context.Context, o Options) error {
	a, err := New(o)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// New checks the options. It does not connect.
func New(o Options) (*Agent, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return &Agent{opts: o}, nil
}

// Run connects and answers messages until ctx ends. It comes back by itself when the connection is
// lost. It returns nil when ctx has ended, or when the gateway shuts down and ExitOnShutdown is set,
// and a *RefusedError when there is no point in trying again. When it returns, no handler and no
// tool runs any more.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	if a.running {
		a.mu.Unlock()
		return errors.New("agent: it runs already")
	}
	a.running = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running = false
	}()

	a.run = context.WithoutCancel(ctx) // the desk hears of its end in order
	defer a.leaveDesk(ErrStopped)
	wait, taken := a.opts.BackoffMin, 0
	for {
		began := time.Now()
		welcome, err := a.connect(ctx)
		refused := a.refusal(err)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errShutdown) && a.opts.ExitOnShutdown:
			return nil
		case welcome:
			taken = 0
		case errors.Is(refused, ErrTaken) && taken < a.opts.RetryTaken:
			taken++
		case refused != nil:
			return refused
		}
		if time.Since(began) > a.opts.BackoffMax {
			wait = a.opts.BackoffMin
		}
		if a.desk != nil && len(a.desk.open()) > 0 {
			wait = min(wait, max(a.opts.BackoffMin, resumePause)) // the gateway waits only for a while
		}
		pause := wait/2 + rand.N(wait/2+1)
		a.opts.Logger.Info("not connected to the gateway", "agent_id", a.opts.ID, "error", err, "retry_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		wait = min(2*wait, a.opts.BackoffMax)
	}
}

// refusal returns what is definite about a failed registration, or nil.
func (a *Agent) refusal(err error) error {
	if e, ok := errors.AsType[*RefusedError](err); ok {
		return e
	}
	switch s := status.Convert(err); s.Code() {
	case codes.AlreadyExists, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return &RefusedError{AgentID: a.opts.ID, Code: s.Code(), Reason: s.Message()}
	}
	return nil
}

// CallTool runs one of the gateway's tools and returns its output. input is made JSON. With the context of a
// handler, or one below it, the call belongs to the turn of that handler. An error of
// the tool is a *ToolError; without a connection it is ErrDisconnected.
func (a *Agent) CallTool(ctx context.Context, name string, input any) (json.RawMessage, error) {
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s == nil {
		return nil, ErrDisconnected
	}
	return s.callTool(ctx, name, input)
}

// current sets the session that CallTool uses.
func (a *Agent) current(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.session = s
}

// complete checks the options and fills in what is left out.
func (o *Options) complete() error {
	if o.Server == "" || o.ID == "" || o.Handler == nil {
		return errors.New("the options Server, ID and Handler are required")
	}
	if strings.HasPrefix(o.Server, "https://") {
		return fmt.Errorf("server %s: the gateway does not speak TLS", o.Server)
	}
	o.Server = strings.TrimSuffix(strings.TrimPrefix(o.Server, "http://"), "/")
	if _, _, err := net.SplitHostPort(o.Server); err != nil {
		o.Server = net.JoinHostPort(strings.Trim(o.Server, "[]"), "50051")
	}
	for _, f := range o.Features {
		switch f {
		case featureResume:
			return fmt.Errorf("feature %s: it is there unless NoResume is set", f)
		case featureToolUpdates:
			return fmt.Errorf("feature %s: this package declares it by itself", f)
		case "injection":
			return fmt.Errorf("feature %s: set OnInject", f)
		}
	}
	if err := checkTools(o.Tools); err != nil {
		return err
	}
	if o.Concurrency < 0 || o.BackoffMin < 0 || o.BackoffMax < 0 {
		return errors.New("the options Concurrency, BackoffMin and BackoffMax must not be negative")
	}
	if o.Name == "" {
		o.Name = o.ID
	}
	if o.Capabilities == nil {
		o.Capabilities = []string{"base", "chat"}
	}
	if o.WorkingDir == "" {
		o.WorkingDir, _ = os.Getwd() // only told to people
	}
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 30 * time.Second
	}
	if o.BackoffMin == 0 {
		o.BackoffMin = 200 * time.Millisecond
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = 10 * time.Second
	}
	o.BackoffMax = max(o.BackoffMin, o.BackoffMax)
	if o.RetryTaken == 0 {
		o.RetryTaken = 3
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Tools = slices.Clone(o.Tools)
	return nil
}
