package store

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/conversation"
)

// noAnswer is the cause of turns whose end nobody knows.
const noAnswer = "imported: no answer was recorded"

// takeLedger takes over threads, events and usage reports.
func (t *takeover) takeLedger() error {
	l, err := t.plan()
	if err != nil {
		return err
	}
	if err := t.attachUsage(l); err != nil {
		return err
	}
	w := ledgerWriter{takeover: t, ledger: l}
	for _, c := range l.conversations {
		if err := w.conversation(c); err != nil {
			return err
		}
	}
	t.accountThreads(l)
	w.notes()
	return nil
}

func (t *takeover) attachUsage(l *ledger) error {
	table := t.report.table("message_usage")
	columns := []string{
		"id", "thread_id", "message_id", "agent_id", "created_at",
		"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens",
	}
	return t.old.each("message_usage", columns, "rowid", func(r oldRow) error {
		var u oldUsage
		for column, n := range map[string]*int64{
			"input_tokens": &u.Input, "output_tokens": &u.Output, "cache_read_tokens": &u.CacheRead,
			"cache_write_tokens": &u.CacheWrite, "thinking_tokens": &u.Thinking,
		} {
			var err error
			if *n, err = strconv.ParseInt(r.text(column), 10, 64); err != nil && r.text(column) != "" {
				table.leave("its numbers cannot be read", r.text("id"))
				return nil
			}
		}
		var ok bool
		switch u.at, ok = oldTime(r.text("created_at")); {
		case !ok:
			table.leave("its time cannot be read", r.text("id"))
		case !l.attach(u, r.text("thread_id"), r.text("agent_id"), r.text("message_id")):
			table.leave("nothing was stored of its thread", r.text("id"))
		default:
			table.Taken++
			t.agents[r.text("agent_id")] = true
		}
		return nil
	})
}

// accountThreads says which rows of threads became threads.
func (t *takeover) accountThreads(l *ledger) {
	table := t.report.table("threads")
	agents := make(map[string]*oldConversation)
	for _, c := range l.conversations {
		agents[c.agent] = c
	}
	for _, id := range slices.Sorted(maps.Keys(l.threads)) {
		if c := agents[l.threads[id].agent]; c != nil && c.strands[id] != nil {
			table.Taken++
			continue
		}
		// A thread here is as active as its newest turn.
		table.leave("nobody has said anything in it", id)
	}
	if l.ownThreads > 0 {
		t.report.note("%d threads had no row in threads (gRPC clients made none): they were made, with the id that the events have", l.ownThreads)
	}
	if l.split > 0 {
		t.report.note("%d threads were used by an agent that they did not belong to: its part is a thread of its own, THREAD~AGENT", l.split)
	}
}

// A ledgerWriter writes what was planned.
type ledgerWriter struct {
	*takeover
	ledger *ledger

	verbatim, bare, interrupted, anonymous int // texts and turns to be noted
}

func (w *ledgerWriter) notes() {
	if w.bare > 0 {
		w.report.note("%d turns begin without a message: what was said in them answers no message that was stored", w.bare)
	}
	if w.interrupted > 0 {
		w.report.note("%d turns have no answer and are interrupted here: %q", w.interrupted, noAnswer)
	}
	if w.verbatim > 0 {
		w.report.note("%d tool calls and results were not in a form that is known: their text was kept as it is", w.verbatim)
	}
	if w.anonymous > 0 {
		w.report.note("of %d turns nobody knows which principal began them: administrators and the confirmed owner of the agent id see them, others do not", w.anonymous)
	}
}

// text reads the text of an event.
func (w *ledgerWriter) text(e *oldEvent) (text string, err error) {
	err = w.old.tx.QueryRowContext(w.ctx, `SELECT COALESCE(CAST(text AS TEXT), '') FROM ledger_events WHERE rowid = $1`, e.row).Scan(&text)
	return text, err
}

// conversation writes everything about one agent.
func (w *ledgerWriter) conversation(c *oldConversation) error {
	res, err := w.tx.exec(`INSERT INTO conversations (agent_id, uid, created_at) VALUES ($1, $2, $3)`, c.agent, newUID(), micros(c.events[0].at))
	if err != nil {
		return err
	}
	w.report.Conversations++
	cw := conversationWriter{ledgerWriter: w}
	if cw.key, err = res.LastInsertId(); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(c.strands)) {
		if err := cw.thread(c.strands[id]); err != nil {
			return err
		}
	}
	for _, e := range c.events {
		if err := cw.event(e); err != nil {
			return err
		}
	}
	return nil
}

// A conversationWriter numbers and writes the events of one conversation, as its committer would.
type conversationWriter struct {
	*ledgerWriter
	key  int64 // in our table
	head int64
}

func (w *conversationWriter) thread(s *strand) error {
	title := ""
	for _, t := range s.turns {
		if q := t.question(); q != nil {
			text, err := w.text(q)
			if err != nil {
				return err
			}
			title = conversation.TitleOf(text)
			break
		}
	}
	newest := s.turns[0].key
	for _, t := range s.turns {
		newest = max(newest, t.key)
	}
	res, err := w.tx.exec(`
		INSERT INTO threads (thread_id, agent_id, frontend, external_id, title, created_at, updated_at, activity)
		VALUES ($1, $2, $3, $4, $5, $6, $6, $7)`,
		s.id, s.conv.agent, s.frontend, s.external, title, micros(s.created), newest)
	if err != nil {
		return err
	}
	w.report.Threads++
	s.key, err = res.LastInsertId()
	return err
}

func (w *conversationWriter) event(e *oldEvent) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	t := e.turn
	if e == t.events[0] {
		if err := w.begin(t); err != nil {
			return err
		}
	}
	if err := w.usage(t, e.spent); err != nil {
		return err
	}
	text, err := w.text(e)
	if err != nil {
		return err
	}
	body, known := bodyOf(e, text)
	if !known {
		w.verbatim++
	}
	if body != nil {
		if err := w.append(t, e.at, body); err != nil {
			return err
		}
	}
	w.report.table("ledger_events").Taken++
	if e == t.last() {
		if err := w.usage(t, t.spent); err != nil {
			return err
		}
		return w.end(t)
	}
	return nil
}

// begin writes a turn that is open. It is called what its first event was called, so that whoever
// has kept the id of a message finds its turn.
func (w *conversationWriter) begin(t *oldTurn) error {
	first := t.events[0]
	sender, principal := "", ""
	if q := t.question(); q != nil {
		sender, principal = q.author, q.actor
	} else {
		w.bare++
	}
	if principal == "" {
		w.anonymous++
	}
	t.first = w.head + 1
	w.report.Turns++
	_, err := w.tx.exec(`
		INSERT INTO turns (id, request_id, conversation_id, thread_id, principal_id, sender, idempotency_key, digest,
			state, cause, first_seq, last_seq, started_at, first_event_at, ended_at)
		VALUES ($1, $2, $3, $4, $5, $6, NULL, x'', $7, '', $8, 0, $9, 0, 0)`,
		t.key, first.id, w.key, t.strand.key, principal, sender, string(conversation.Open), t.first, micros(first.at))
	return err
}

func (w *conversationWriter) append(t *oldTurn, at time.Time, b conversation.Body) error {
	rec, err := conversation.NewRecord(w.ref(t), w.head+1, at, b)
	if err != nil {
		return err
	}
	w.head++
	w.report.Events++
	if t.ended.Before(at) {
		t.ended = at
	}
	return logTx{Tx: w.tx.Tx}.Append(w.ref(t), rec)
}

func (w *conversationWriter) ref(t *oldTurn) conversation.Ref {
	return conversation.Ref{Conversation: w.key, Thread: t.strand.key, Turn: t.key}
}

func (w *conversationWriter) usage(t *oldTurn, us []oldUsage) error {
	for _, u := range us {
		if err := w.append(t, u.at, u.Usage); err != nil {
			return err
		}
		if err := (logTx{Tx: w.tx.Tx}).AddUsage(w.ref(t), w.head, u.at, u.Usage); err != nil {
			return err
		}
	}
	return nil
}

// end closes a turn as a live one would have been closed.
func (w *conversationWriter) end(t *oldTurn) error {
	e := conversation.Ended{State: conversation.Interrupted, Cause: noAnswer}
	switch {
	case t.answer != nil:
		e = conversation.Ended{State: conversation.Done, SameText: true}
	case t.trouble != nil:
		text, err := w.text(t.trouble)
		if err != nil {
			return err
		}
		e = conversation.Ended{State: conversation.Failed, Cause: text}
	default:
		w.interrupted++
	}
	if t.ended.IsZero() { // an empty answer and nothing else
		t.ended = t.last().at
	}
	at := t.ended
	if err := w.append(t, at, e); err != nil {
		return err
	}
	var sign time.Time // the agent's first
	for _, ev := range t.events {
		if !ev.asks && ev.author != "system" {
			sign = ev.at
			break
		}
	}
	return logTx{Tx: w.tx.Tx}.End(w.ref(t), conversation.EndedTurn{State: e.State, Cause: e.Cause, Last: w.head, FirstEventAt: sign, At: at})
}

// bodyOf makes an event of a row; nil for an answer without text, which is nothing but the end of its
// turn. known is false when the text of a tool has no form that is known, and was kept.
func bodyOf(e *oldEvent, text string) (b conversation.Body, known bool) {
	switch e.kind {
	case "tool_call":
		c := parseToolCall(text, e.author)
		return c.ToolCall, !c.verbatim
	case "tool_result":
		r := parseToolResult(text, e.author)
		return r.ToolResult, !r.verbatim
	case "error":
		return conversation.Trouble{Text: text}, true
	case "system": // a line about what happens; nothing has written any so far
		return conversation.Thinking{Text: text}, true
	}
	if e.asks {
		return conversation.Message{Sender: e.author, PrincipalID: e.actor, Text: text}, true
	}
	if text == "" {
		return nil, true
	}
	return conversation.Text{Text: text}, true
}

type (
	oldToolCall struct {
		conversation.ToolCall
		verbatim bool // in no form that is known: all of it is the input
	}
	oldToolResult struct {
		conversation.ToolResult
		verbatim bool // all of it is the output
	}
)

// grpcAuthor is the author of everything that an agent says to a message that came over gRPC. Texts of
// tools have forms of their own there (http.md 6.3).
const grpcAuthor = "agent"

// parseToolCall reads {"name":"n","id":"i","input":…}, in which the input is whatever the agent has
// sent, or tool:n input:….
func parseToolCall(text, author string) oldToolCall {
	var c struct {
		Name  *string         `json:"name"`
		ID    *string         `json:"id"`
		Input json.RawMessage `json:"input"`
	}
	if strict(text, &c) && c.Name != nil && c.ID != nil && c.Input != nil {
		return oldToolCall{ToolCall: conversation.ToolCall{ID: *c.ID, Name: *c.Name, Input: string(c.Input)}}
	}
	p := pseudoJSON{rest: text, ok: true}
	p.skip(`{"name":`)
	name := p.quoted()
	p.skip(`,"id":`)
	id := p.quoted()
	p.skip(`,"input":`)
	if input, ok := strings.CutSuffix(p.rest, "}"); ok && p.ok {
		return oldToolCall{ToolCall: conversation.ToolCall{ID: id, Name: name, Input: input}}
	}
	if rest, ok := strings.CutPrefix(text, "tool:"); ok && author == grpcAuthor {
		if name, input, ok := strings.Cut(rest, " input:"); ok {
			return oldToolCall{ToolCall: conversation.ToolCall{Name: name, Input: input}}
		}
	}
	return oldToolCall{ToolCall: conversation.ToolCall{Input: text}, verbatim: true}
}

// parseToolResult reads {"id":"i","output":"o","is_error":b}, quoted as JSON or as Go does it. Over
// gRPC the text is the output.
func parseToolResult(text, author string) oldToolResult {
	if author == grpcAuthor {
		return oldToolResult{ToolResult: conversation.ToolResult{Output: text}}
	}
	var r struct {
		ID      *string `json:"id"`
		Output  *string `json:"output"`
		IsError *bool   `json:"is_error"`
	}
	if strict(text, &r) && r.ID != nil && r.Output != nil && r.IsError != nil {
		return oldToolResult{ToolResult: conversation.ToolResult{ID: *r.ID, Output: *r.Output, IsError: *r.IsError}}
	}
	p := pseudoJSON{rest: text, ok: true}
	p.skip(`{"id":`)
	id := p.quoted()
	p.skip(`,"output":`)
	output := p.quoted()
	p.skip(`,"is_error":`)
	if p.ok && (p.rest == "true}" || p.rest == "false}") {
		return oldToolResult{ToolResult: conversation.ToolResult{ID: id, Output: output, IsError: p.rest == "true}"}}
	}
	return oldToolResult{ToolResult: conversation.ToolResult{Output: text}, verbatim: true}
}

// strict reads a JSON object that has no other fields than v.
func strict(text string, v any) bool {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	return utf8.ValidString(text) && dec.Decode(v) == nil && strings.TrimSpace(text[dec.InputOffset():]) == ""
}

// pseudoJSON reads what was put together with Go's %q.
type pseudoJSON struct {
	rest string
	ok   bool
}

func (p *pseudoJSON) skip(literal string) {
	var ok bool
	p.rest, ok = strings.CutPrefix(p.rest, literal)
	p.ok = p.ok && ok
}

func (p *pseudoJSON) quoted() string {
	q, err := strconv.QuotedPrefix(p.rest)
	if err != nil || q[0] != '"' {
		p.ok = false
		return ""
	}
	p.rest = p.rest[len(q):]
	s, err := strconv.Unquote(q)
	p.ok = p.ok && err == nil
	return s
}
