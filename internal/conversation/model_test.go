package conversation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/store"
)

// agents is the other side of conversation.Dispatcher: it keeps the sinks, and the test plays the
// agents through them.
type agents struct {
	mu        sync.Mutex
	sinks     map[string]conversation.Sink // by turn
	order     []string                     // of the turns
	cancels   bool                         // the agents understand CancelRequest
	cancelled map[string]string
	approved  []string // answers, in order
	away      bool
	resumes   bool
}

func newAgents() *agents {
	return &agents{sinks: make(map[string]conversation.Sink), cancelled: make(map[string]string)}
}

func (a *agents) ResolvePrincipal(string, string) (string, bool) { return "", false }

func (a *agents) Injectable(string) bool { return false }

func (a *agents) Resumable(string) bool { return a.resumes }

func (a *agents) Inject(context.Context, conversation.Injection) (conversation.Injected, error) {
	return conversation.Injected{}, conversation.ErrAgentGone
}

func (a *agents) Resolve(id string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return id, !a.away
}

func (a *agents) Dispatch(_ context.Context, _ string, m conversation.Dispatch, to conversation.Sink) (conversation.Call, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return nil, conversation.ErrAgentGone
	}
	a.sinks[m.TurnID] = to
	a.order = append(a.order, m.TurnID)
	return &call{a, m.TurnID}, nil
}

func (a *agents) Approve(_, toolID string, approved, _ bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.approved = append(a.approved, fmt.Sprint(toolID, approved))
	return nil
}

func (a *agents) sink(turn string) conversation.Sink {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sinks[turn]
}

type call struct {
	agents *agents
	turn   string
}

func (c *call) Cancel(reason string) bool {
	c.agents.mu.Lock()
	defer c.agents.mu.Unlock()
	c.agents.cancelled[c.turn] = reason
	return c.agents.cancels
}

func (c *call) Ack(uint64) {}

func (c *call) Decide(uint64, conversation.Decision) {}

func (c *call) Retire() {}

// brittle is a log whose commits fail on demand: before anything is done, or after everything was
// done although the caller is told that it failed.
type brittle struct {
	conversation.Log
	mu    sync.Mutex
	fail  string // "", "not done", "done"
	dead  bool   // the process has died: nothing is committed any more
	dieIn int    // commits; 0 for never

	reading   func()        // before a message that waited is read; may be nil
	answering func()        // before an answer is read; may be nil
	hold      chan struct{} // commits wait until it is closed; nil for no waiting
}

func (b *brittle) Answer(ctx context.Context, turnID string) (string, error) {
	if b.answering != nil {
		b.answering()
	}
	return b.Log.Answer(ctx, turnID)
}

func (b *brittle) Records(ctx context.Context, q conversation.Query) (conversation.Page, error) {
	if b.reading != nil && q.Turn != "" && q.Limit == 1 {
		b.reading()
	}
	return b.Log.Records(ctx, q)
}

var errBroken = errors.New("broken on purpose")

func (b *brittle) Commit(ctx context.Context, write func(conversation.Tx) error) error {
	b.mu.Lock()
	if b.dieIn > 0 {
		b.dieIn--
		b.dead = b.dieIn == 0
	}
	fail, dead := b.fail, b.dead
	b.fail = ""
	hold := b.hold
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	switch {
	case dead:
		return errBroken
	case fail == "not done":
		return b.Log.Commit(ctx, func(tx conversation.Tx) error { return errors.Join(write(tx), errBroken) })
	case fail == "done":
		return errors.Join(b.Log.Commit(ctx, write), errBroken)
	}
	return b.Log.Commit(ctx, write)
}

// world is a service over a real store, with what the clients have seen.
type world struct {
	t       testing.TB
	path    string
	db      *store.DB
	log     *brittle
	agents  *agents
	service *conversation.Service

	synchronous string // "" for full
	retention   conversation.Retention
	auditMu     sync.Mutex
	audit       []auth.AuditRecord
}

// migrated is a database without content, so that not every world has to run the migrations.
var migrated = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "migrated")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "gateway.db")
	db, err := store.Open(context.Background(), store.Options{Path: path, Synchronous: "normal", Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func newWorld(t testing.TB, path string) *world {
	db, err := migrated()
	if err == nil {
		err = os.WriteFile(path, db, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, path: path}
	w.start()
	return w
}

func (w *world) start() {
	var err error
	w.db, err = store.Open(context.Background(), store.Options{Path: w.path, Synchronous: cmp.Or(w.synchronous, "full"), Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = &brittle{Log: w.db.Log(w.note)}
	w.agents = newAgents()
	w.service, err = conversation.New(context.Background(), conversation.Options{
		Log: w.log, Dispatcher: w.agents, Files: store.OpenBlobs(filepath.Join(filepath.Dir(w.path), "files")),
		Logger: slog.New(slog.DiscardHandler), Metrics: conversation.NewMetrics(prometheus.NewRegistry()), Policy: everything{}, Approvals: w.db.ApprovalPolicies(w.note), Audit: func(context.Context, auth.AuditRecord) error { return nil },
		SilenceTimeout: time.Hour, CancelGrace: time.Second, MaxMessage: 1 << 20, MaxFile: 10 << 20, MaxFiles: 10,
		Retention: w.retention,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) note(_ auth.Tx, r auth.AuditRecord) error {
	w.auditMu.Lock()
	defer w.auditMu.Unlock()
	w.audit = append(w.audit, r)
	return nil
}

// everything lets everybody see and steer everything.
type everything struct{}

func (everything) Oversees(context.Context, auth.Principal, string) (bool, error) { return true, nil }

func (everything) KnowsAgent(context.Context, string) (bool, error) { return true, nil }

func (everything) AgentOf(_ context.Context, id string) (string, error) { return id, nil }

func (everything) Recheck(context.Context, auth.Principal) error { return nil }

// stop ends the process: cleanly, or as if it were killed.
func (w *world) stop(kill bool) {
	if kill {
		w.log.mu.Lock()
		w.log.dead = true
		w.log.mu.Unlock()
	} else {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.service.Drain(ctx); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.service.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) ctx() context.Context { return auth.With(context.Background(), auth.Anonymous) }

// seen is what a reader has received: it checks the order and remembers.
type seen struct {
	pos    int64
	events []conversation.Event
}

func (s *seen) add(t testing.TB, evs []conversation.Event, whole bool) {
	for _, e := range evs {
		if e.First > e.Seq || e.First <= s.pos || (whole && e.First != s.pos+1) {
			t.Fatalf("after %d came an event from %d to %d", s.pos, e.First, e.Seq)
		}
		s.pos = e.Seq
		s.events = append(s.events, e)
	}
}

func (w *world) all(agent string) []conversation.Event {
	w.t.Helper()
	var s seen
	for {
		p, err := w.service.Events(w.ctx(), agent, conversation.Filter{}, s.pos, 100)
		if err != nil {
			w.t.Fatal(err)
		}
		s.add(w.t, p.Events, true)
		if !p.More {
			if s.pos != p.Head {
				w.t.Fatalf("the conversation ends at %d, its head is %d", s.pos, p.Head)
			}
			return s.events
		}
	}
}

// TestModel plays random schedules of messages, answers, readers and deaths, and compares the log
// and what readers saw with what was sent.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		w := newWorld(t, filepath.Join(dir, fmt.Sprintf("%d.db", run)))
		type turn struct {
			id, thread, agent string
			sent              strings.Builder
			over              bool // the agent has ended it
			lost              bool // a process died while it was open
		}
		type reader struct {
			r     *conversation.Reader
			agent string
			seen  seen
		}
		var turns []*turn
		var open []*turn
		var readers []*reader
		attach := func(r *reader) {
			var err error
			if r.r, err = w.service.Reader(w.ctx(), r.agent, conversation.Filter{}, r.seen.pos); err != nil {
				rt.Fatalf("reader at %d: %v", r.seen.pos, err)
			}
		}
		agent := rapid.SampledFrom([]string{"a", "b"})
		actions := map[string]func(*rapid.T){
			"send": func(rt *rapid.T) {
				id := agent.Draw(rt, "agent")
				tn, err := w.service.Send(w.ctx(), conversation.SendRequest{AgentID: id, Frontend: "direct", Sender: "me", Text: "hello"})
				if err != nil {
					if fault.CodeOf(err) == fault.Unavailable {
						return // a commit failed on purpose; nothing was stored
					}
					rt.Fatal(err)
				}
				nt := &turn{id: tn.ID, thread: tn.ThreadID, agent: id}
				turns, open = append(turns, nt), append(open, nt)
			},
			"text": func(rt *rapid.T) {
				if len(open) == 0 {
					return
				}
				tn := rapid.SampledFrom(open).Draw(rt, "turn")
				for range rapid.IntRange(1, 40).Draw(rt, "n") {
					text := rapid.SampledFrom([]string{"a", "bc ", "é\n", strings.Repeat("x", 700)}).Draw(rt, "text")
					if err := w.agents.sink(tn.id).On(context.Background(), conversation.Text{Text: text}); err != nil {
						rt.Fatal(err)
					}
					tn.sent.WriteString(text)
				}
			},
			"other": func(rt *rapid.T) {
				if len(open) == 0 {
					return
				}
				body := rapid.SampledFrom([]conversation.Body{
					conversation.Thinking{Text: "hm"},
					conversation.ToolCall{ID: "1", Name: "ls", Input: "{}"},
					conversation.ToolResult{ID: "1", Output: "."},
					conversation.Usage{Input: 3, Output: 4},
					conversation.FileData{Name: "f", Type: "text/plain", Data: []byte("data")},
				}).Draw(rt, "body")
				if err := w.agents.sink(rapid.SampledFrom(open).Draw(rt, "turn").id).On(context.Background(), body); err != nil {
					rt.Fatal(err)
				}
			},
			"end": func(rt *rapid.T) {
				if len(open) == 0 {
					return
				}
				tn := rapid.SampledFrom(open).Draw(rt, "turn")
				open = slices.DeleteFunc(open, func(o *turn) bool { return o == tn })
				tn.over = true
				body := rapid.SampledFrom([]conversation.Ended{
					{State: conversation.Done, Response: tn.sent.String()}, {State: conversation.Done}, {State: conversation.Cancelled},
				}).Draw(rt, "how")
				if err := w.agents.sink(tn.id).On(context.Background(), body); err != nil {
					rt.Fatal(err)
				}
				if err := w.agents.sink(tn.id).On(context.Background(), conversation.Text{Text: "late"}); !errors.Is(err, conversation.ErrTurnEnded) {
					rt.Fatalf("late text: %v", err)
				}
			},
			"attach": func(rt *rapid.T) {
				r := &reader{agent: agent.Draw(rt, "agent")}
				attach(r)
				readers = append(readers, r)
			},
			"reattach": func(rt *rapid.T) {
				if len(readers) == 0 {
					return
				}
				r := rapid.SampledFrom(readers).Draw(rt, "reader")
				r.r.Close()
				attach(r)
			},
			"read": func(rt *rapid.T) {
				if len(readers) == 0 {
					return
				}
				r := rapid.SampledFrom(readers).Draw(rt, "reader")
				evs, err := r.r.Poll(w.ctx())
				if err != nil {
					rt.Fatal(err)
				}
				r.seen.add(t, evs, true)
			},
			"fail": func(rt *rapid.T) {
				w.log.mu.Lock()
				w.log.fail = rapid.SampledFrom([]string{"not done", "done"}).Draw(rt, "how")
				w.log.mu.Unlock()
			},
			"restart": func(rt *rapid.T) {
				kill := rapid.Bool().Draw(rt, "kill")
				for _, r := range readers {
					r.r.Close()
				}
				w.stop(kill)
				w.start()
				for _, tn := range turns {
					tn.lost = tn.lost || kill || !tn.over
				}
				open = nil
				for _, r := range readers {
					attach(r)
				}
			},
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			names := slices.Sorted(maps.Keys(actions))
			actions[rapid.SampledFrom(append(names, "text", "text", "read", "send", "end")).Draw(rt, "action")](rt)
		}
		for _, r := range readers {
			r.r.Close()
		}
		w.stop(false)
		w.start() // from disk
		defer w.stop(false)

		logs := map[string][]conversation.Event{"a": w.all("a"), "b": w.all("b")}
		ends := map[string]int{}
		texts := map[string]string{}
		for _, evs := range logs {
			for _, e := range evs {
				switch b := e.Body.(type) {
				case conversation.Text:
					texts[e.TurnID] += b.Text
				case conversation.Ended:
					ends[e.TurnID]++
				}
			}
		}
		for _, tn := range turns {
			if ends[tn.id] != 1 {
				rt.Errorf("turn %s has %d ends", tn.id, ends[tn.id])
			}
			got, want := texts[tn.id], tn.sent.String()
			if !strings.HasPrefix(want, got) || (!tn.lost && got != want) {
				rt.Errorf("turn %s: stored %d bytes of %d", tn.id, len(got), len(want))
			}
			if answer, err := w.service.Answer(w.ctx(), tn.id); err != nil || answer != got {
				rt.Errorf("turn %s: answer has %d bytes, events %d: %v", tn.id, len(answer), len(got), err)
			}
		}
		for i, r := range readers { // shown implies stored, under the same number
			for _, e := range r.seen.events {
				p, err := w.service.Events(w.ctx(), r.agent, conversation.Filter{}, e.First-1, 1)
				if err != nil || len(p.Events) == 0 {
					rt.Fatalf("reader %d saw event %d, the log says %v", i, e.Seq, err)
				}
				if !agrees(e, p.Events[0]) {
					rt.Errorf("reader %d saw\n%#v\nbut the log has\n%#v", i, e, p.Events[0])
				}
			}
		}
	})
}

// agrees reports whether two readers saw the same, however increments were merged for them.
func agrees(a, b conversation.Event) bool {
	if a.First != b.First || a.TurnID != b.TurnID || a.ThreadID != b.ThreadID {
		return false
	}
	switch x := a.Body.(type) {
	case conversation.Text:
		y, ok := b.Body.(conversation.Text)
		return ok && (strings.HasPrefix(x.Text, y.Text) || strings.HasPrefix(y.Text, x.Text))
	case conversation.Thinking:
		y, ok := b.Body.(conversation.Thinking)
		return ok && (strings.HasPrefix(x.Text, y.Text) || strings.HasPrefix(y.Text, x.Text))
	}
	return a.Seq == b.Seq && reflect.DeepEqual(a.Body, b.Body)
}
