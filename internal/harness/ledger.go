package harness

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// maxWrong bounds the differences that are kept; the first one matters.
	maxWrong = 50
	// maxShown bounds what is kept of the text of an event, in bytes: what is longer is kept as a hash.
	maxShown = 200
)

// An event is what a reader of a conversation is told, or a page of the log.
type event struct {
	Seq     int64  `json:"seq"`
	First   int64  `json:"first_seq"` // 0 where it is Seq
	Type    string `json:"type"`
	Turn    string `json:"request_id"`
	Text    string `json:"text"`
	Content string `json:"content"`
}

func (e event) first() int64 {
	if e.First == 0 {
		return e.Seq
	}
	return e.First
}

func (e event) ends() bool { return e.Type == "done" || e.Type == "error" || e.Type == "canceled" }

// A sight is what one client saw of the answer to one message.
type sight struct {
	agent, content string
	turn           string // "" until it was told
	last           int64  // number of the last event
	text           string
	ends           []string
	cancelled      bool // the client has stopped the turn
	began, ended   time.Time
	stall          time.Duration // the longest time without an event
}

// A tale is what a reader has seen of a conversation. Increments of several turns mix, and come merged in
// different ways, so text is kept for each turn, between its other events.
type tale struct {
	agent   string
	items   []string // all but text, in order
	last    int64    // number of the last event
	strands map[string]*strand
}

// A strand is what was seen of one turn.
type strand struct {
	items []string
	text  strings.Builder // since the last item
}

func newTale(agent string) *tale { return &tale{agent: agent, strands: make(map[string]*strand)} }

// tell adds an event. data is all that was said of it.
func (t *tale) tell(e event, data []byte) {
	t.last = e.Seq
	s := t.strands[e.Turn]
	if s == nil {
		s = &strand{}
		t.strands[e.Turn] = s
	}
	if e.Type == "text" {
		s.text.WriteString(e.Text)
		return
	}
	s.flush()
	s.items = append(s.items, fmt.Sprint(e.Type, " at ", e.Seq))
	t.items = append(t.items, short(string(data)))
}

func (s *strand) flush() {
	if s.text.Len() > 0 {
		s.items = append(s.items, "text "+short(s.text.String()))
		s.text.Reset()
	}
}

// differs says where a reader's tale differs from the log's, "" where it does not.
func (t *tale) differs(log *tale) string {
	if d := difference(t.items, log.items); d != "" {
		return d
	}
	for turn, want := range log.strands {
		got := t.strands[turn]
		if got == nil {
			return "there is nothing of turn " + turn
		}
		got.flush()
		want.flush()
		if d := difference(got.items, want.items); d != "" {
			return "in turn " + turn + " " + d
		}
	}
	if len(t.strands) != len(log.strands) {
		return fmt.Sprintf("it has %d turns, the log %d", len(t.strands), len(log.strands))
	}
	return ""
}

// short keeps the beginning of a text and what tells it from others.
func short(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes, %x)", s[:maxShown/2], len(s), sha256.Sum256([]byte(s)))
}

// A ledger remembers what agents were given and clients saw.
type ledger struct {
	resume bool // agents go on with their turns, so that nothing may be missing

	mu      sync.Mutex
	handled map[string]int // messages that agents were given, by their content
	recent  string         // a turn of an honest agent
	sights  []*sight       // of turns that are over for the client
	tales   []*tale
	streams int
	wrong   []string
}

func newLedger(resume bool) *ledger { return &ledger{resume: resume, handled: make(map[string]int)} }

// fault notes something that must not be.
func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < maxWrong {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) give(content, turn string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[content]++
	l.recent = turn
}

func (l *ledger) saw(s *sight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sights = append(l.sights, s)
}

func (l *ledger) stream() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams++
}

// failed reports whether something is wrong.
func (l *ledger) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wrong) > 0
}

// A turn is one message and its answer as the log has them.
type turn struct {
	id, content string
	text        string
	ends        []string
	last        int64
}

// A record is a conversation as the log has it at the end.
type record struct {
	agent  string
	honest bool // its agent answers by the script
	tale   *tale
	turns  map[string]*turn
	order  []string // of turns
}

// read takes the next event of the log, and notes what is wrong with it by itself.
func (r *record) read(l *ledger, e event, data []byte) {
	if e.first() != r.tale.last+1 || e.Seq < e.first() {
		l.fault("log of %s: after %d comes %d to %d", r.agent, r.tale.last, e.first(), e.Seq)
	}
	r.tale.tell(e, data)
	t := r.turns[e.Turn]
	switch {
	case t == nil && e.Type != "message":
		l.fault("log of %s: turn %s begins at %d with %q", r.agent, e.Turn, e.Seq, e.Type)
		t = &turn{id: e.Turn}
	case t == nil:
		t = &turn{id: e.Turn, content: e.Content}
	case e.Type == "message":
		l.fault("log of %s: turn %s has another message at %d", r.agent, e.Turn, e.Seq)
	case len(t.ends) > 0:
		l.fault("log of %s: %q at %d is behind the end of turn %s", r.agent, e.Type, e.Seq, e.Turn)
	}
	if r.turns[e.Turn] == nil {
		r.turns[e.Turn] = t
		r.order = append(r.order, e.Turn)
	}
	t.last = e.Seq
	if e.Type == "text" {
		t.text += e.Text
	}
	if e.ends() {
		t.ends = append(t.ends, e.Type)
	}
}

// check compares everything that was seen with the log.
func (l *ledger) check(records []*record) {
	turns := make(map[string]*turn)
	asked := make(map[string]*turn)
	cancelled := make(map[string]bool)
	for _, s := range l.sights {
		cancelled[s.content] = cancelled[s.content] || s.cancelled
	}
	for _, r := range records {
		for _, id := range r.order {
			t := r.turns[id]
			turns[id] = t
			if other := asked[t.content]; other != nil {
				l.fault("the message %q is in the log as turns %s and %s", t.content, other.id, id)
			}
			asked[t.content] = t
			if len(t.ends) != 1 {
				l.fault("turn %s of %s has the ends %q", id, r.agent, t.ends)
				continue
			}
			if r.honest {
				l.compareAnswer(r, t, cancelled[t.content])
			}
		}
		for _, seen := range l.tales {
			if seen.agent == r.agent {
				if d := seen.differs(r.tale); d != "" {
					l.fault("a reader of %s differs from the log: %s", r.agent, d)
				}
			}
		}
	}
	for content, n := range l.handled {
		if n > 1 {
			l.fault("the message %q reached its agent %d times", content, n)
		}
		if asked[content] == nil {
			l.fault("the message %q reached its agent and is not in the log", content)
		}
	}
	for _, s := range l.sights {
		t := turns[s.turn]
		switch {
		case s.turn == "":
		case t == nil:
			l.fault("turn %s, which a client was told, is not in the log", s.turn)
		case len(s.ends) == 0 && !strings.HasPrefix(t.text, s.text), len(s.ends) > 0 && t.text != s.text:
			l.fault("turn %s of %s: a client saw %s, the log has %s", s.turn, s.agent, excerpt(s.text, t.text), excerpt(t.text, s.text))
		case len(s.ends) > 0 && fmt.Sprint(s.ends) != fmt.Sprint(t.ends):
			l.fault("turn %s of %s: a client saw the ends %q, the log has %q", s.turn, s.agent, s.ends, t.ends)
		case s.content != t.content:
			l.fault("turn %s: a client sent %q, the log has %q", s.turn, s.content, t.content)
		case s.last > t.last:
			l.fault("turn %s: a client saw event %d, it ends at %d", s.turn, s.last, t.last)
		}
	}
}

// compareAnswer compares the text of a turn with the script of its agent.
func (l *ledger) compareAnswer(r *record, t *turn, cancelled bool) {
	want := scriptText(t.content)
	whole := t.ends[0] == "done" || l.resume && l.handled[t.content] > 0 && !cancelled
	switch {
	case !strings.HasPrefix(want, t.text), whole && want != t.text:
		l.fault("turn %s of %s ends with %q; the agent said %s, the log has %s", t.id, r.agent, t.ends[0], excerpt(want, t.text), excerpt(t.text, want))
	case t.ends[0] == "canceled" && !cancelled:
		l.fault("turn %s of %s ends as cancelled, and nobody has stopped it", t.id, r.agent)
	case l.resume && whole && t.ends[0] != "done":
		l.fault("turn %s of %s ends with %q; its agent can resume and was there", t.id, r.agent, t.ends[0])
	}
}

// excerpt shows a text from where it begins to differ from another one.
func excerpt(s, other string) string {
	i := 0
	for i < len(s) && i < len(other) && s[i] == other[i] {
		i++
	}
	return fmt.Sprintf("%d bytes with %.60q at %d", len(s), s[i:], i)
}

// difference names the first one of two lists, "" where there is none.
func difference(got, want []string) string {
	at := func(s []string, i int) string {
		if i < len(s) {
			return s[i]
		}
		return "nothing"
	}
	for i := range max(len(got), len(want)) {
		if g, w := at(got, i), at(want, i); g != w {
			return fmt.Sprintf("item %d of %d is %.300q, the log has %.300q and %d items", i, len(got), g, w, len(want))
		}
	}
	return ""
}
