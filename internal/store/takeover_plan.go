package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"coven-gateway/internal/conversation"
)

// How the ledger of the public gateway becomes conversations.
//
// A message to an agent begins a turn. What the agent has said belongs to the last turn of the thread
// that began before it, until that has its answer: the public gateway stores one answer per request,
// after everything else. What is left over, because its message was never stored or because a later
// request was answered first, goes into a turn that begins without a message. No message is made up
// for it: the turn begins with what was said, has neither sender nor principal, and everybody who
// reads a log can cope with that, because a turn can be read from the middle, too. Verify accepts it
// from turns without a digest, which are those that no gateway of ours has begun.
//
// The timestamps have a resolution of a second, see arrange.

// An oldEvent is a row of ledger_events without its text.
type oldEvent struct {
	row    int64 // rowid: the order in which rows were inserted
	id     string
	at     time.Time
	kind   string // the type; a message may be a question or an answer
	asks   bool   // it is a message to the agent
	author string
	actor  string
	tool   string // id of the tool call, where the text has one

	strand *strand
	turn   *oldTurn
	spent  []oldUsage // that comes before it
}

func (e *oldEvent) answers() bool { return e.kind == "message" && !e.asks }

// oldUsage is a row of message_usage.
type oldUsage struct {
	at time.Time
	conversation.Usage
}

// A strand is a thread to be, with all its events.
type strand struct {
	conv     *oldConversation
	id       string
	frontend string
	external string
	created  time.Time

	events []*oldEvent
	turns  []*oldTurn
	key    int64 // in our table
}

// An oldTurn is a turn to be. It has at least one event.
type oldTurn struct {
	strand  *strand
	events  []*oldEvent
	answer  *oldEvent  // nil if there is none
	trouble *oldEvent  // the last one
	spent   []oldUsage // that comes after all events

	key   int64 // in our table
	first int64 // number of its first event
	ended time.Time
}

func (t *oldTurn) question() *oldEvent {
	if t.events[0].asks {
		return t.events[0]
	}
	return nil
}

func (t *oldTurn) last() *oldEvent { return t.events[len(t.events)-1] }

// An oldConversation is everything about one agent.
type oldConversation struct {
	agent   string
	events  []*oldEvent        // in order, once arranged
	strands map[string]*strand // by the thread id of the ledger; "" is what has none
}

// A ledger is all of it.
type ledger struct {
	conversations []*oldConversation // by agent
	turns         []*oldTurn         // in the order in which they begin
	threads       map[string]oldThread
	taken         map[string]bool    // ids of threads
	channels      map[[2]string]bool // frontends and external ids of threads
	events        map[string]*oldEvent
	ownThreads    int // threads without a row
	split         int // threads that a second agent has used
}

// An oldThread is a row of threads.
type oldThread struct {
	agent, frontend, external string
	created                   time.Time
}

// plan reads everything but the texts and decides where it goes.
func (t *takeover) plan() (*ledger, error) {
	l := &ledger{
		threads: make(map[string]oldThread), taken: make(map[string]bool), channels: make(map[[2]string]bool),
		events: make(map[string]*oldEvent),
	}
	err := t.old.each("threads", []string{"id", "frontend_name", "external_id", "agent_id", "created_at"}, "rowid", func(r oldRow) error {
		th := oldThread{r.text("agent_id"), r.text("frontend_name"), r.text("external_id"), t.at(r, "created_at")}
		l.threads[r.text("id")] = th
		l.taken[r.text("id")], l.channels[[2]string{th.frontend, th.external}] = true, true
		t.agents[th.agent] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	convs := make(map[string]*oldConversation)
	table := t.report.table("ledger_events")
	columns := []string{
		"rowid", "event_id", "conversation_key", "thread_id", "direction", "author", "timestamp", "type", "actor_principal_id",
		"tool=CASE WHEN type IN ('tool_call', 'tool_result') THEN CAST(text AS TEXT) END",
	}
	err = t.old.each("ledger_events", columns, "rowid", func(r oldRow) error {
		e := &oldEvent{id: r.text("event_id"), kind: r.text("type"), author: r.text("author"), actor: r.text("actor_principal_id")}
		if _, err := fmt.Sscan(r.text("rowid"), &e.row); err != nil {
			return err
		}
		agent := r.text("conversation_key")
		if id, old := strings.CutPrefix(agent, "thread:"); old {
			agent = l.threads[id].agent
			if agent == "" {
				table.leave("its conversation is that of a thread that does not exist, so that nobody knows the agent", e.id)
				return nil
			}
		}
		var ok bool
		e.at, ok = oldTime(r.text("timestamp"))
		switch {
		case agent == "":
			table.leave("it names no agent", e.id)
			return nil
		case !ok:
			table.leave("its time cannot be read", e.id)
			return nil
		}
		switch e.kind {
		case "message":
			e.asks = r.text("direction") == "inbound_to_agent"
		case "tool_call":
			e.tool = parseToolCall(r.text("tool"), e.author).ID
		case "tool_result":
			e.tool = parseToolResult(r.text("tool"), e.author).ID
		case "system", "error":
		default:
			table.leave("the type "+e.kind+" is unknown", e.id)
			return nil
		}
		c := convs[agent]
		if c == nil {
			c = &oldConversation{agent: agent, strands: make(map[string]*strand)}
			convs[agent] = c
			t.agents[agent] = true
		}
		thread := r.text("thread_id")
		if id, old := strings.CutPrefix(r.text("conversation_key"), "thread:"); old && thread == "" {
			thread = id
		}
		s := c.strands[thread]
		if s == nil {
			s = &strand{conv: c}
			c.strands[thread] = s
		}
		e.strand = s
		c.events = append(c.events, e)
		l.events[e.id] = e
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, agent := range slices.Sorted(maps.Keys(convs)) {
		c := convs[agent]
		l.conversations = append(l.conversations, c)
		c.join()
		for _, id := range slices.Sorted(maps.Keys(c.strands)) {
			l.name(c.strands[id], id)
		}
		c.arrange()
		for _, s := range c.strands {
			l.turns = append(l.turns, s.turns...)
		}
	}
	slices.SortFunc(l.turns, func(a, b *oldTurn) int { return compare(a.events[0], b.events[0]) })
	for i, turn := range l.turns {
		turn.key = int64(i + 1)
	}
	return l, nil
}

func compare(a, b *oldEvent) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.row, b.row)) }

// join finds the threads of events that have none: of what the agent has said it is that of the last
// message before it, else the one that the public gateway uses for gRPC clients, which is called like
// the agent. Older public gateways stored no threads.
func (c *oldConversation) join() {
	loose, home := c.strands[""], c.strands[c.agent]
	delete(c.strands, "")
	if home == nil && loose != nil {
		home = &strand{conv: c}
		c.strands[c.agent] = home
	}
	slices.SortFunc(c.events, compare)
	var last *oldEvent
	for i, e := range c.events {
		if e.strand == loose && e.asks {
			e.strand = home
		}
		if e.asks {
			last = e
		}
		if e.strand == loose {
			e.strand = home
			asked := last
			for j := i + 1; asked == nil && j < len(c.events) && c.events[j].at.Equal(e.at); j++ { // rows may be out of order
				if c.events[j].asks {
					asked = c.events[j]
				}
			}
			if asked != nil && asked.strand != loose {
				e.strand = asked.strand
			}
		}
		e.strand.events = append(e.strand.events, e)
	}
	maps.DeleteFunc(c.strands, func(_ string, s *strand) bool { return len(s.events) == 0 })
}

// name decides what the thread of a strand is called. The id is kept unless the thread is another
// agent's: here a thread belongs to one.
func (l *ledger) name(s *strand, thread string) {
	s.created = s.events[0].at
	row, ok := l.threads[thread]
	if ok && row.agent == s.conv.agent {
		s.id, s.frontend, s.external, s.created = thread, row.frontend, row.external, row.created
		return
	}
	s.id, s.frontend = thread, "direct"
	if ok {
		l.split++
		s.frontend = row.frontend
		s.id += "~" + s.conv.agent
	} else {
		l.ownThreads++
	}
	for l.taken[s.id] || l.channels[[2]string{s.frontend, s.id}] {
		s.id += "~" + s.conv.agent
	}
	s.external = s.id
	l.taken[s.id], l.channels[[2]string{s.frontend, s.external}] = true, true
}

// A moment is what happened in a strand at one time, as far as the timestamps can tell.
type moment []*oldEvent

// arrange puts the events of a conversation in order and makes turns of them. Inside a moment the
// order of the rows is kept where it can be what has happened; otherwise it is put right: messages to
// the agent before what they caused, a tool's call before its result, answers last. Strands know
// nothing of each other.
func (c *oldConversation) arrange() {
	var moments []moment
	for _, s := range c.strands {
		moments = append(moments, s.arrange()...)
	}
	slices.SortFunc(moments, func(a, b moment) int { return a[0].at.Compare(b[0].at) })
	c.events = c.events[:0]
	for len(moments) > 0 {
		n := 1
		for n < len(moments) && moments[n][0].at.Equal(moments[0][0].at) {
			n++
		}
		for same := moments[:n]; len(same) > 0; { // of different strands: by rows
			i := 0
			for j := range same {
				if same[j][0].row < same[i][0].row {
					i = j
				}
			}
			c.events = append(c.events, same[i][0])
			if same[i] = same[i][1:]; len(same[i]) == 0 {
				same = slices.Delete(same, i, i+1)
			}
		}
		moments = moments[n:]
	}
}

// arrange puts the events of a strand in order and makes turns of them.
func (s *strand) arrange() (moments []moment) {
	slices.SortFunc(s.events, compare)
	// Rows that are not in the order of their times were not inserted as things happened.
	inserted := slices.IsSortedFunc(s.events, func(a, b *oldEvent) int { return cmp.Compare(a.row, b.row) })
	var turn *oldTurn
	calls := make(map[string]int) // of the turn, that have no result so far
	for rest := s.events; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].at.Equal(rest[0].at) {
			n++
		}
		m := moment(rest[:n:n])
		rest = rest[n:]
		if !inserted || !m.possible(turn != nil && turn.answer == nil, calls) {
			m.putRight(calls)
		}
		for _, e := range m {
			e.count(calls)
			if e.asks || turn == nil || turn.answer != nil {
				turn = &oldTurn{strand: s}
				s.turns = append(s.turns, turn)
			}
			turn.events = append(turn.events, e)
			e.turn = turn
			switch {
			case e.answers():
				turn.answer = e
			case e.kind == "error":
				turn.trouble = e
			}
		}
		moments = append(moments, m)
	}
	return moments
}

// possible reports whether a moment can have happened in the order in which it is. open says that a
// message waits for its answer; calls are the calls that have no result so far, by id.
func (m moment) possible(open bool, calls map[string]int) bool {
	later := make(map[string]int) // calls that come later in the moment
	for _, e := range m {
		if e.kind == "tool_call" {
			later[e.tool]++
		}
	}
	calls = maps.Clone(calls)
	for _, e := range m {
		open = open || e.asks
		if !open || e.kind == "tool_result" && calls[e.tool] == 0 && later[e.tool] > 0 {
			return false
		}
		if e.kind == "tool_call" {
			later[e.tool]--
		}
		e.count(calls)
		open = open && !e.answers()
	}
	return true
}

// count keeps account of the calls of a turn that have no result. Ids are used again, and some texts
// have none.
func (e *oldEvent) count(calls map[string]int) {
	switch {
	case e.asks:
		clear(calls)
	case e.kind == "tool_call":
		calls[e.tool]++
	case e.kind == "tool_result" && calls[e.tool] > 0:
		calls[e.tool]--
	}
}

// callsOf finds the calls of the results in a moment, where both are in it: the nth result of an id is
// that of its nth call, but for those that are of earlier calls.
func (m moment) callsOf(earlier map[string]int) map[*oldEvent]*oldEvent {
	calls, results := make(map[string][]*oldEvent), make(map[string][]*oldEvent)
	for _, e := range m {
		switch e.kind {
		case "tool_call":
			calls[e.tool] = append(calls[e.tool], e)
		case "tool_result":
			results[e.tool] = append(results[e.tool], e)
		}
	}
	if slices.ContainsFunc(m, func(e *oldEvent) bool { return e.asks }) {
		earlier = nil
	}
	of := make(map[*oldEvent]*oldEvent)
	for id, rs := range results {
		for i, r := range rs[min(earlier[id], len(rs)):] {
			if i < len(calls[id]) {
				of[r] = calls[id][i]
			}
		}
	}
	return of
}

// putRight puts a moment in an order that can have happened. calls are the calls that have no result
// so far.
func (m moment) putRight(calls map[string]int) {
	callOf := m.callsOf(calls)
	rank := func(e *oldEvent) int {
		switch {
		case e.asks:
			return 0
		case e.answers():
			return 3
		case e.kind == "error":
			return 2
		}
		return 1
	}
	// A result that is before its call comes right behind it.
	row := func(e *oldEvent) int64 {
		if call := callOf[e]; call != nil {
			return max(e.row, call.row)
		}
		return e.row
	}
	slices.SortFunc(m, func(a, b *oldEvent) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(row(a), row(b)), cmp.Compare(b.row, a.row))
	})
}

// attach finds the turn of a usage report and its place in it: the turn of the answer that it names,
// else the nearest one of its thread.
func (l *ledger) attach(u oldUsage, thread, agent, message string) bool {
	var turn *oldTurn
	if e := l.events[message]; e != nil {
		turn = e.turn
	} else if turn = l.nearest(u.at, thread, agent); turn == nil {
		return false
	}
	for _, e := range turn.events {
		if !e.asks && (e.at.After(u.at) || e == turn.answer && !e.at.Before(u.at)) {
			e.spent = append(e.spent, u)
			return true
		}
	}
	turn.spent = append(turn.spent, u)
	return true
}

// nearest returns the turn of a thread that was under way at a time, or the one that was nearest; of
// several the one that began last. The agent decides where several agents have used the thread.
func (l *ledger) nearest(at time.Time, thread, agent string) (turn *oldTurn) {
	var turns []*oldTurn
	for _, c := range l.conversations {
		if s := c.strands[thread]; s != nil && (turns == nil || c.agent == agent) {
			turns = s.turns
		}
	}
	var least time.Duration
	for _, t := range turns {
		away := max(0, t.events[0].at.Sub(at), at.Sub(t.last().at))
		if turn == nil || away <= least {
			turn, least = t, away
		}
	}
	return turn
}
