package conversation

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"coven-gateway/internal/fault"
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
	ArchivedAt time.Time // zero while it is not
}

// TurnState is where a turn is in its life. All but Queued and Open are final.
type TurnState string

// The states of a turn.
const (
	Queued      TurnState = "queued" // its message waits for the agent
	Open        TurnState = "open"
	Done        TurnState = "done"
	Failed      TurnState = "failed"      // the agent reported an error, or a deadline passed
	Cancelled   TurnState = "cancelled"   // somebody stopped it
	Interrupted TurnState = "interrupted" // the agent or the gateway went away; worth a retry
	Expired     TurnState = "expired"     // its message waited for the agent for too long; the agent never got it
)

// Over reports whether a turn in this state has ended.
func (s TurnState) Over() bool { return s != Open && s != Queued }

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
	WaitingUntil time.Time // how long its message waits for the agent; zero unless it is Queued
	FirstEventAt time.Time // of the agent's first sign; zero until then
	EndedAt      time.Time // zero while open
	Usage        Usage
	UsageReports int64
	Repeated     bool // it was found by its idempotency key; set by Service.Send
}

// A ThreadEdit is a change of a thread; nil leaves things as they are.
type ThreadEdit struct {
	Title    *string
	Archived *bool // out of sight: not in lists, unless asked for
}

// MaxTitle is the length of a title that somebody gives a thread, in characters.
const MaxTitle = 200

// EditThread changes a thread that the caller may see, and returns it.
func (s *Service) EditThread(ctx context.Context, id string, e ThreadEdit) (Thread, error) {
	if e.Title != nil {
		title := strings.TrimSpace(*e.Title)
		if title == "" || !utf8.ValidString(title) || utf8.RuneCountInString(title) > MaxTitle || strings.ContainsFunc(title, unicode.IsControl) {
			return Thread{}, fault.New(fault.Invalid, "title must have 1 to %d characters, in one line", MaxTitle)
		}
		e.Title = &title
	}
	if _, _, err := s.readThread(ctx, id); err != nil {
		return Thread{}, err
	}
	if err := s.log.EditThread(ctx, id, e); err != nil {
		return Thread{}, err
	}
	return s.log.Thread(ctx, id)
}

// maxTitle is the length of a thread's title, in characters.
const maxTitle = 80

// TitleOf makes a thread's title from its first message: the first line that says something.
func TitleOf(text string) string {
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
