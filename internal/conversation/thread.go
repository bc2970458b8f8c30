package conversation

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Conversation is the log of one agent.
type Conversation struct {
	ID   int64  // 0 until the first message
	UID  string // random, part of event ids: a position only means something in the log it came from
	Head int64  // number of the newest event
}

// A Thread is a strand inside a conversation. It belongs to one agent for ever.
type Thread struct {
	ID         string
	AgentID    string
	Frontend   string
	ExternalID string
	Title      string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Activity   int64 // grows with each turn of any thread; the order and cursor of lists
	Turns      int64
}

// TurnState is where a turn is in its life. All but Open are final.
type TurnState string

// The states of a turn.
const (
	Open        TurnState = "open"
	Done        TurnState = "done"
	Failed      TurnState = "failed"      // the agent reported an error, or a deadline passed
	Cancelled   TurnState = "cancelled"   // somebody stopped it
	Interrupted TurnState = "interrupted" // the agent or the gateway went away; worth a retry
)

// A Turn is one message and everything the agent answers to it. On the wire its id is request_id.
type Turn struct {
	ID           string
	AgentID      string
	ThreadID     string
	PrincipalID  string
	Sender       string
	State        TurnState
	Cause        string
	First        int64 // number of its message
	Last         int64 // number of its Ended event; 0 while open
	StartedAt    time.Time
	FirstEventAt time.Time // of the agent's first sign; zero until then
	EndedAt      time.Time // zero while open
	Usage        Usage
	UsageReports int64
	Repeated     bool // it was found by its idempotency key; set by Service.Send
}

// maxTitle is the length of a thread's title, in characters.
const maxTitle = 80

// titleOf makes a thread's title from its first message: the first line that says something.
func titleOf(text string) string {
	for line := range strings.Lines(text) {
		line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
		if line == "" {
			continue
		}
		if utf8.RuneCountInString(line) <= maxTitle {
			return line
		}
		r := []rune(line)[:maxTitle-1]
		if i := strings.LastIndexByte(string(r), ' '); i > maxTitle/2 {
			return string(r)[:i] + "…"
		}
		return string(r) + "…"
	}
	return ""
}
