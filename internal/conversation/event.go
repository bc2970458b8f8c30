// Package conversation is the heart of the gateway: the log of every agent, the turns that write
// to it and the readers that follow it.
//
// A conversation is an append-only log of events, numbered 1, 2, 3 … in commit order. A message
// begins a turn; everything the agent answers to it is appended; an Ended event closes it. Whoever
// wants to see a conversation holds a position, the number of the last event it has, and asks for
// what follows: catching up and following live are the same loop.
//
// Ordering a reader may rely on: events come in the order of their numbers, each exactly once, and
// only after they are durable. Neighbouring increments of one block may arrive merged into one
// event, which then carries the number of the last of them.
package conversation

import (
	"time"
)

// An Event is one record of a conversation.
type Event struct {
	Seq         int64     // its number; of merged increments the last one
	First       int64     // of merged increments the first one, else Seq
	At          time.Time // when the gateway took it in, UTC
	TurnID      string
	ThreadID    string
	PrincipalID string // who began the turn
	Body        Body
}

// A Body is what happened. The set is closed: the types of this file.
type Body interface{ kind() Kind }

// Kind names the type of a body where it is stored. The values are stable.
type Kind int

// The kinds.
const (
	KindMessage Kind = iota + 1
	KindText
	KindThinking
	KindToolCall
	KindToolState
	KindToolResult
	KindApproval
	KindUsage
	KindFile
	KindSession
	KindSessionOrphaned
	KindTrouble
	KindEnded
	KindDecision
	KindEnqueued
	KindDelivered
	KindAsked
	KindAnswered
	KindToolRun
)

// Message is what somebody said to the agent; it begins a turn.
type Message struct {
	Sender      string `json:"sender"`              // on whose behalf, for people
	PrincipalID string `json:"principal,omitempty"` // who sent it, from credentials
	Text        string `json:"-"`
	Files       []File `json:"files,omitempty"`
}

// Text is an increment of the agent's answer.
type Text struct{ Text string }

// Thinking is an increment of the agent's reasoning, or a status line.
type Thinking struct{ Text string }

// ToolCall says that the agent calls a tool. Input is JSON text as the agent wrote it and may
// still be "{}" when the call starts.
type ToolCall struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Input string `json:"-"`
}

// ToolState is a step in the life of a tool call.
type ToolState struct {
	ID     string `json:"id"`
	State  string `json:"state"` // one of the words of http.md 2.1
	Detail string `json:"detail,omitempty"`
}

// ToolResult is what a tool returned.
type ToolResult struct {
	ID      string `json:"id"`
	Output  string `json:"-"`
	IsError bool   `json:"is_error,omitempty"`
}

// ToolRun says that the gateway has run a tool in the turn, whatever the agent tells of it. It comes when the
// call has ended.
type ToolRun struct {
	ID       string        `json:"id"` // of the call, given by the gateway
	Name     string        `json:"name"`
	Pack     string        `json:"pack,omitempty"` // "" where there is no such tool
	Result   string        `json:"result"`         // "ok", or the code of the fault
	Duration time.Duration `json:"duration"`
}

// Approval is the agent's question whether it may run a tool.
type Approval struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Input     string    `json:"-"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // when it is denied; zero for never
	Number    uint64    `json:"number,omitempty"`    // of an agent that numbers its events, which waits for the answer on any stream
}

// Decision is the answer to an Approval, or stands for both where nobody was asked. There is one for
// each that was answered before its turn ended.
type Decision struct {
	ID          string `json:"id"`
	Approved    bool   `json:"approved,omitempty"`
	All         bool   `json:"all,omitempty"`       // it holds for the rest of the turn
	By          string `json:"by"`                  // for people
	PrincipalID string `json:"principal,omitempty"` // who decided; "" when an earlier decision held, a policy, or the time
	Number      uint64 `json:"number,omitempty"`    // of the question, see Approval

	// What the agent wanted to run, where nobody was asked. There is no Approval then.
	Name  string `json:"name,omitempty"`
	Input string `json:"-"`
}

// Who has decided where no person did; Decision.By.
const (
	byPolicy  = "policy"
	byTimeout = "timeout"
)

// Enqueued says that the message of the turn waits for its agent.
type Enqueued struct {
	Until time.Time `json:"until"` // then the turn ends as Expired
}

// Delivered says that a message that has waited is given to the agent.
type Delivered struct{}

// Asked is a question of the agent to people.
type Asked struct {
	ID       string    `json:"id"`
	Question string    `json:"question"`
	Header   string    `json:"header,omitempty"`
	Options  []Option  `json:"options"`
	Multi    bool      `json:"multi,omitempty"` // more than one may be chosen
	Seconds  int       `json:"seconds"`         // how long the agent waits
	Until    time.Time `json:"until"`
}

// Answered settles a question. There is one for each that was settled before its turn ended.
type Answered struct {
	ID          string   `json:"id"`
	Selected    []string `json:"selected,omitempty"` // labels of options
	Text        string   `json:"text,omitempty"`
	By          string   `json:"by,omitempty"`        // for people
	PrincipalID string   `json:"principal,omitempty"` // who answered
	Reason      string   `json:"reason,omitempty"`    // why nobody did: timeout or no_response
}

// Usage is an increment of tokens spent; an agent may report several per turn.
type Usage struct {
	Input      int64 `json:"input,omitempty"`
	Output     int64 `json:"output,omitempty"`
	CacheRead  int64 `json:"cache_read,omitempty"`
	CacheWrite int64 `json:"cache_write,omitempty"`
	Thinking   int64 `json:"thinking,omitempty"`
}

// Add returns the sum of two reports.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.Input + v.Input, u.Output + v.Output, u.CacheRead + v.CacheRead, u.CacheWrite + v.CacheWrite, u.Thinking + v.Thinking}
}

// File is a stored file: an attachment of a message or something the agent produced.
type File struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Type   string `json:"type"` // media type
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// FileSent says that the agent produced a file.
type FileSent struct{ File File }

// FileData is a file on its way in, from the agent or with a message. It is stored under the data
// directory and becomes a File before it is an event.
type FileData struct {
	Name string
	Type string
	Data []byte
}

// Session says which session of its backend the agent uses for the thread.
type Session struct {
	ID string `json:"id"`
}

// SessionOrphaned says that the backend's session is lost; the turn goes on.
type SessionOrphaned struct {
	Reason string `json:"reason"`
}

// Trouble is an error that the agent reported. Real agents go on after it, so it does not end the
// turn by itself (grpc.md 4.7).
type Trouble struct {
	Text string
}

// Ended closes a turn. Each turn has exactly one.
type Ended struct {
	State TurnState `json:"state"`
	Cause string    `json:"cause,omitempty"` // for people; empty when done
	// Response is the full_response of the agent's done. SameText says that it equals the text
	// events of the turn; it is then not stored a second time.
	Response string `json:"-"`
	SameText bool   `json:"same_text,omitempty"`
}

// Removed stands where events were, First to Seq, that were removed before the reader had them. It is
// not stored. Of a reader of a turn it says that the turn is gone, of one of a thread that there may have
// been events of it.
type Removed struct{}

// ThreadDeleted says that a thread was deleted while the reader followed it. It is not stored and has
// no number. ThreadID is "" for one who has missed some: more were deleted than those that follow.
type ThreadDeleted struct{ ThreadID string }

func (Removed) kind() Kind         { return 0 }
func (ThreadDeleted) kind() Kind   { return 0 }
func (Message) kind() Kind         { return KindMessage }
func (Text) kind() Kind            { return KindText }
func (Thinking) kind() Kind        { return KindThinking }
func (ToolCall) kind() Kind        { return KindToolCall }
func (ToolState) kind() Kind       { return KindToolState }
func (ToolResult) kind() Kind      { return KindToolResult }
func (ToolRun) kind() Kind         { return KindToolRun }
func (Approval) kind() Kind        { return KindApproval }
func (Usage) kind() Kind           { return KindUsage }
func (FileSent) kind() Kind        { return KindFile }
func (FileData) kind() Kind        { return KindFile }
func (Session) kind() Kind         { return KindSession }
func (SessionOrphaned) kind() Kind { return KindSessionOrphaned }
func (Trouble) kind() Kind         { return KindTrouble }
func (Ended) kind() Kind           { return KindEnded }
func (Enqueued) kind() Kind        { return KindEnqueued }
func (Delivered) kind() Kind       { return KindDelivered }
func (Asked) kind() Kind           { return KindAsked }
func (Answered) kind() Kind        { return KindAnswered }
func (Decision) kind() Kind        { return KindDecision }
