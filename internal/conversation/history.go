package conversation

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"coven-gateway/internal/fault"
)

// An Entry is a line of the history that existing clients read: the questions, the answers in one
// piece, tool calls and their results, errors. Thinking, states and open turns are not in it.
type Entry struct {
	ID        string // unique; made of the conversation's UID and Seq
	Seq       int64
	AgentID   string
	ThreadID  string
	TurnID    string
	Inbound   bool   // to the agent
	Author    string // the sender, "agent:<id>" or "system"
	Type      EntryType
	Text      string // of tool entries JSON: {"name","id","input"} or {"id","output","is_error"}
	At        time.Time
	ToolName  string
	ToolID    string
	Principal string // of inbound entries
	Files     []File
}

// EntryType is the type of an Entry.
type EntryType string

// The types of entries.
const (
	EntryMessage    EntryType = "message"
	EntryToolCall   EntryType = "tool_call"
	EntryToolResult EntryType = "tool_result"
	EntrySystem     EntryType = "system"
	EntryError      EntryType = "error"
	EntryRemoved    EntryType = "removed" // events that were removed; only where HistoryQuery.Removed asks for it
)

var entryKinds = []Kind{KindMessage, KindToolCall, KindToolResult, KindFile, KindTrouble, KindEnded}

// A HistoryQuery names a part of the history of an agent.
type HistoryQuery struct {
	AgentID  string
	ThreadID string    // only this thread; "" for all
	After    int64     // entries with larger numbers; ignored with Newest
	Newest   bool      // the last Limit entries, still in ascending order
	Since    time.Time // unless zero: only entries at this time or later
	Until    time.Time // unless zero: only entries at this time or earlier
	Limit    int
	Removed  bool // tell what was removed behind After; not with Newest, Since or Until
}

// A HistoryPage is a part of the history in ascending order.
type HistoryPage struct {
	Entries []Entry
	Next    int64 // the After of the page that follows
	More    bool  // there are more entries behind; with Newest, before
}

// EventID returns the identity of an event outside of its conversation.
func (c Conversation) EventID(seq int64) string { return fmt.Sprintf("%s-%d", c.UID, seq) }

// seqOf returns the number of an event from its identity. That of the text of a failed turn is
// followed by one of the same number, so it is that of the event before.
func (c Conversation) seqOf(id string) (seq int64, ok bool) {
	id, text := strings.CutSuffix(id, textSuffix)
	digits, ok := strings.CutPrefix(id, c.UID+"-")
	if !ok || c.ID == 0 {
		return 0, false
	}
	seq, err := strconv.ParseInt(digits, 10, 64)
	ok = err == nil && seq > 0
	if text {
		seq--
	}
	return seq, ok
}

// textSuffix tells the text of a turn that has failed from its error, which comes behind it and has
// the same number.
const textSuffix = "-text"

// History returns a part of the history; of an agent that nobody has talked to, an empty one.
func (s *Service) History(ctx context.Context, q HistoryQuery) (HistoryPage, error) {
	whose, err := s.scope(ctx, q.AgentID)
	if err != nil {
		return HistoryPage{}, err
	}
	conv, err := s.log.Conversation(ctx, q.AgentID)
	if err != nil || conv.ID == 0 {
		return HistoryPage{}, err
	}
	page, err := s.log.Records(ctx, Query{
		Conversation: conv.ID, Thread: q.ThreadID, Principal: whose, After: q.After, Until: conv.Head,
		Limit: q.Limit, Backward: q.Newest, Only: entryKinds, Since: q.Since, UntilTime: q.Until, Removed: q.Removed && !q.Newest && q.Since.IsZero() && q.Until.IsZero(),
	})
	if err != nil {
		return HistoryPage{}, err
	}
	if q.Newest {
		slices.Reverse(page.Records)
	}
	h := HistoryPage{More: page.More, Next: page.Complete}
	for _, rec := range page.Records {
		es, err := s.entries(ctx, conv, q.AgentID, rec)
		if fault.CodeOf(err) == fault.NotFound {
			return s.History(ctx, q) // its turn was removed since the page was read
		}
		if err != nil {
			return HistoryPage{}, err
		}
		h.Entries = append(h.Entries, es...)
	}
	for _, r := range page.Removed {
		h.Entries = append(h.Entries, RemovedEntry(conv, q.AgentID, Event{First: r.First, Seq: r.Last}))
	}
	if len(page.Removed) > 0 {
		slices.SortStableFunc(h.Entries, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return h, nil
}

// RemovedEntry is what a Removed event is in the history of an agent.
func RemovedEntry(conv Conversation, agentID string, ev Event) Entry {
	text := fmt.Sprintf("events %d to %d were removed", ev.First, ev.Seq)
	if ev.First == ev.Seq {
		text = fmt.Sprintf("event %d was removed", ev.Seq)
	}
	return Entry{ID: conv.EventID(ev.Seq), Seq: ev.Seq, AgentID: agentID, Author: "system", Type: EntryRemoved, Text: text, At: time.Now().UTC()}
}

// entries turns a record into what existing clients call history.
func (s *Service) entries(ctx context.Context, conv Conversation, agentID string, rec Record) ([]Entry, error) {
	body, err := decode(rec.Kind, rec.Text, rec.Detail)
	if err != nil {
		return nil, err
	}
	return s.entriesOf(ctx, conv, agentID, Event{Seq: rec.Last, At: rec.At, TurnID: rec.TurnID, ThreadID: rec.ThreadID, Body: body})
}

// Entries returns what an event of an agent's conversation is in its history; nothing for most.
func (s *Service) Entries(ctx context.Context, agentID string, ev Event) ([]Entry, error) {
	removed := ev.Body == Removed{}
	if !removed && !slices.Contains(entryKinds, ev.Body.kind()) {
		return nil, nil
	}
	conv, err := s.log.Conversation(ctx, agentID)
	if err != nil {
		return nil, err
	}
	if removed {
		return []Entry{RemovedEntry(conv, agentID, ev)}, nil
	}
	return s.entriesOf(ctx, conv, agentID, ev)
}

func (s *Service) entriesOf(ctx context.Context, conv Conversation, agentID string, ev Event) ([]Entry, error) {
	e := Entry{
		ID: conv.EventID(ev.Seq), Seq: ev.Seq, AgentID: agentID, ThreadID: ev.ThreadID, TurnID: ev.TurnID,
		At: ev.At, Author: "agent:" + agentID,
	}
	var err error
	switch b := ev.Body.(type) {
	case Message:
		e.Inbound, e.Author, e.Type, e.Text, e.Files, e.Principal = true, b.Sender, EntryMessage, b.Text, b.Files, b.PrincipalID
	case ToolCall:
		e.Type, e.ToolName, e.ToolID = EntryToolCall, b.Name, b.ID
		e.Text, err = marshal(map[string]any{"name": b.Name, "id": b.ID, "input": jsonOr(b.Input)})
	case ToolResult:
		e.Type, e.ToolID = EntryToolResult, b.ID
		e.Text, err = marshal(map[string]any{"id": b.ID, "output": b.Output, "is_error": b.IsError})
	case FileSent:
		e.Type, e.Author, e.Text, e.Files = EntrySystem, "agent:"+agentID, "file: "+b.File.Name, []File{b.File}
	case Trouble:
		e.Type, e.Author, e.Text = EntryError, "system", b.Text
	case Ended:
		return s.endEntries(ctx, e, b)
	}
	return []Entry{e}, err
}

// endEntries is the answer of a turn in one piece, and the error where it ended with one.
func (s *Service) endEntries(ctx context.Context, e Entry, b Ended) ([]Entry, error) {
	text, err := s.log.Answer(ctx, e.TurnID)
	if err != nil {
		return nil, err
	}
	if text == "" && b.State == Done {
		text = b.Response
	}
	var es []Entry
	if text != "" {
		m := e
		m.Type, m.Text = EntryMessage, text
		if b.State != Done {
			m.ID += textSuffix
		}
		es = append(es, m)
	}
	if b.State != Done {
		e.Type, e.Author, e.Text = EntryError, "system", b.Cause
		es = append(es, e)
	}
	return es, nil
}

func marshal(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// jsonOr returns text as JSON where it is JSON, else as a string.
func jsonOr(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// maxPageBytes bounds a page of events. One read beyond it may be in the page too.
const maxPageBytes = 4 << 20

// An EventPage is a part of a conversation in order.
type EventPage struct {
	Events []Event
	Next   int64 // the position behind it
	More   bool  // there are events behind Next, though perhaps none that match
	Head   int64 // number of the newest event
}

// Events returns at most limit events after a position, merged, without waiting. A page of large
// events has fewer.
func (s *Service) Events(ctx context.Context, agentID string, f Filter, after int64, limit int) (EventPage, error) {
	r, err := s.Reader(ctx, agentID, f, after)
	if err != nil {
		return EventPage{}, err
	}
	defer r.Close()
	var p EventPage
	for size := 0; len(p.Events) < limit && size < maxPageBytes; {
		evs, err := r.take(ctx, limit-len(p.Events))
		if err != nil {
			return EventPage{}, err
		}
		if len(evs) == 0 {
			break
		}
		evs = slices.DeleteFunc(evs, func(e Event) bool { return e.Seq == 0 }) // what a live reader is told
		for _, e := range evs {
			size += sizeOf(e)
		}
		p.Events = merge(append(p.Events, evs...))
	}
	conv, _ := r.feed.snapshot()
	p.Next, p.Head = r.pos, conv.Head
	p.More = r.pos < conv.Head
	return p, nil
}

// Answer returns the text of a turn's answer so far.
func (s *Service) Answer(ctx context.Context, turnID string) (string, error) {
	if _, err := s.readTurn(ctx, turnID); err != nil {
		return "", err
	}
	return s.log.Answer(ctx, turnID)
}

// Thread returns a thread, or a NotFound fault.
func (s *Service) Thread(ctx context.Context, id string) (Thread, error) {
	t, _, err := s.readThread(ctx, id)
	return t, err
}

// ThreadTurns returns those turns of a thread that the caller may see and that began before the event with a
// number, the newest first; 0 is behind all. Where the oldest of them begins is where to read events from.
func (s *Service) ThreadTurns(ctx context.Context, threadID string, before int64, limit int) ([]Turn, error) {
	_, whose, err := s.readThread(ctx, threadID)
	if err != nil {
		return nil, err
	}
	return s.log.ThreadTurns(ctx, threadID, whose, before, limit)
}

// Threads returns threads in which the caller may see something, the most recently active first.
func (s *Service) Threads(ctx context.Context, q ThreadQuery) (_ []Thread, err error) {
	if q.PrincipalID, err = s.scope(ctx, q.AgentID); err != nil {
		return nil, err
	}
	return s.log.Threads(ctx, q)
}

// UsageReports returns the usage reports of a thread, or a NotFound fault.
func (s *Service) UsageReports(ctx context.Context, threadID string, after int64, limit int) ([]UsageReport, error) {
	_, whose, err := s.readThread(ctx, threadID)
	if err != nil {
		return nil, err
	}
	return s.log.UsageReports(ctx, threadID, whose, after, limit)
}

// UsageGroups sums usage reports by what they have in common, in the order of the keys; at most [MaxUsageGroups].
func (s *Service) UsageGroups(ctx context.Context, f UsageFilter, by UsageKey) ([]UsageGroup, error) {
	switch by {
	case ByAgent, ByPrincipal, ByDay:
	default:
		return nil, fault.New(fault.Invalid, "group_by must be %s, %s or %s", ByAgent, ByPrincipal, ByDay)
	}
	var err error
	if f.PrincipalID, err = s.scope(ctx, f.AgentID); err != nil {
		return nil, err
	}
	return s.log.UsageGroups(ctx, f, by, MaxUsageGroups)
}

// MaxActivitySpans is how many spans of time Activity counts at once.
const MaxActivitySpans = 60

// Activity counts what has happened at all agents until now: in n spans of time, the oldest first. The caller
// has to be one who may see everything. Faults: Invalid.
func (s *Service) Activity(ctx context.Context, span time.Duration, n int) ([]Activity, error) {
	if n < 1 || n > MaxActivitySpans || span < time.Minute {
		return nil, fault.New(fault.Invalid, "activity is counted in 1 to %d spans of at least a minute", MaxActivitySpans)
	}
	first := time.Now().Truncate(span).Add(-time.Duration(n-1) * span)
	return s.log.Activity(ctx, first, span, n)
}

// UsageTotal sums usage reports.
func (s *Service) UsageTotal(ctx context.Context, f UsageFilter) (UsageTotal, error) {
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		return UsageTotal{}, fault.New(fault.Invalid, "until must not be before since")
	}
	var err error
	if f.PrincipalID, err = s.scope(ctx, f.AgentID); err != nil {
		return UsageTotal{}, err
	}
	return s.log.UsageTotal(ctx, f)
}

// File returns what is known of a stored file, a NotFound fault, or a Removed fault where its content is
// not kept any more.
func (s *Service) File(ctx context.Context, id string) (File, error) {
	f, err := s.log.File(ctx, id)
	if err != nil {
		return File{}, err
	}
	if _, err := s.readTurn(ctx, f.TurnID); err != nil {
		return File{}, fault.Wrap(err, fault.CodeOf(err), "no file %q", id)
	}
	if !f.ExpiredAt.IsZero() {
		return File{}, f.explain()
	}
	return f.File, nil
}

// ThreadFiles returns the files of a thread in order, or a NotFound fault.
func (s *Service) ThreadFiles(ctx context.Context, threadID string, limit int) ([]ThreadFile, error) {
	_, whose, err := s.readThread(ctx, threadID)
	if err != nil {
		return nil, err
	}
	return s.log.Files(ctx, threadID, whose, limit)
}
