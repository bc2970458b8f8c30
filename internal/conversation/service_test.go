package conversation_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// bubble runs a test in which time is free.
func bubble(t *testing.T, f func(*testing.T, *world)) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, path)
		f(t, w)
		w.stop(false)
	})
}

func (w *world) send(r conversation.SendRequest) conversation.Turn {
	w.t.Helper()
	t, err := w.service.Send(w.ctx(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func (w *world) say(turn conversation.Turn, bodies ...conversation.Body) {
	w.t.Helper()
	for _, b := range bodies {
		if err := w.agents.sink(turn.ID).On(context.Background(), b); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) turn(id string) conversation.Turn {
	w.t.Helper()
	synctest.Wait()
	t, err := w.service.Turn(w.ctx(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func hello(agent string) conversation.SendRequest {
	return conversation.SendRequest{AgentID: agent, Frontend: "direct", Sender: "me", Text: "hello"}
}

// TestEnds: how a turn ends, by what the agent sent (grpc.md 4.7).
func TestEnds(t *testing.T) {
	text, trouble := conversation.Text{Text: "so far"}, conversation.Trouble{Text: "model error"}
	done := func(full string) conversation.Ended {
		return conversation.Ended{State: conversation.Done, Response: full}
	}
	for name, c := range map[string]struct {
		bodies []conversation.Body
		state  conversation.TurnState
		cause  string
		wait   time.Duration
	}{
		"done":                             {[]conversation.Body{text, done("so far")}, conversation.Done, "", 0},
		"done without text":                {[]conversation.Body{done("")}, conversation.Done, "", 0},
		"error after text":                 {[]conversation.Body{text, trouble, done("Error: model error")}, conversation.Done, "", 0},
		"error and then more text":         {[]conversation.Body{trouble, text, done("so far")}, conversation.Done, "", 0},
		"error without text":               {[]conversation.Body{trouble, done("Error: model error")}, conversation.Failed, "model error", 0},
		"error without text, empty done":   {[]conversation.Body{trouble, done("")}, conversation.Failed, "model error", 0},
		"error, then an answer in one go":  {[]conversation.Body{trouble, done("fine")}, conversation.Done, "", 0},
		"error and then nothing":           {[]conversation.Body{trouble}, conversation.Failed, "model error", 5 * time.Second},
		"text, error and then nothing":     {[]conversation.Body{text, trouble}, conversation.Done, "", 5 * time.Second},
		"error, not quiet for long enough": {[]conversation.Body{trouble}, conversation.Open, "", 5*time.Second - 1},
		"silence":                          {[]conversation.Body{text}, conversation.Failed, "the agent has been silent for 1h0m0s", time.Hour},
		"not silent for long enough":       {[]conversation.Body{text}, conversation.Open, "", time.Hour - 1},
		"cancelled by the agent":           {[]conversation.Body{text, conversation.Ended{State: conversation.Cancelled, Cause: "no"}}, conversation.Cancelled, "no", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				turn := w.send(hello("a"))
				w.say(turn, c.bodies...)
				time.Sleep(c.wait)
				got := w.turn(turn.ID)
				if got.State != c.state || got.Cause != c.cause {
					t.Errorf("the turn is %s (%s), want %s (%s)", got.State, got.Cause, c.state, c.cause)
				}
				if got.State != conversation.Open {
					if err := w.agents.sink(turn.ID).On(context.Background(), text); !errors.Is(err, conversation.ErrTurnEnded) {
						t.Errorf("late output: %v", err)
					}
					w.agents.sink(turn.ID).Gone("the agent disconnected")
					if again := w.turn(turn.ID); again != got {
						t.Errorf("after its end the turn became %v", again)
					}
				}
			})
		})
	}
}

func TestAgentGone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(hello("a"))
		w.say(turn, conversation.Text{Text: "half of"})
		w.agents.sink(turn.ID).Gone("the agent disconnected")
		if got := w.turn(turn.ID); got.State != conversation.Interrupted || got.Cause != "the agent disconnected" {
			t.Errorf("the turn is %s (%s)", got.State, got.Cause)
		}
		p, err := w.service.History(w.ctx(), conversation.HistoryQuery{AgentID: "a", Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range p.Entries {
			lines = append(lines, fmt.Sprintf("%s %s %s", e.Author, e.Type, e.Text))
		}
		want := "me message hello|agent:a message half of|system error the agent disconnected"
		if got := strings.Join(lines, "|"); got != want {
			t.Errorf("history is %s, want %s", got, want)
		}
	})
}

func TestCancel(t *testing.T) {
	for _, understands := range []bool{false, true} {
		t.Run(fmt.Sprintf("understands=%v", understands), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.agents.cancels = understands
				turn := w.send(hello("a"))
				if err := w.service.Cancel(w.ctx(), turn.ID, "enough"); err != nil {
					t.Fatal(err)
				}
				if got := w.agents.cancelled[turn.ID]; got != "enough" {
					t.Errorf("the agent was asked to stop because of %q", got)
				}
				if understands {
					if got := w.turn(turn.ID); got.State != conversation.Open {
						t.Errorf("before the agent has acknowledged the turn is %s", got.State)
					}
					if err := w.service.Cancel(w.ctx(), turn.ID, "again"); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second) // the grace
				}
				if got := w.turn(turn.ID); got.State != conversation.Cancelled || got.Cause != "enough" {
					t.Errorf("the turn is %s (%s)", got.State, got.Cause)
				}
				if err := w.service.Cancel(w.ctx(), turn.ID, "late"); fault.CodeOf(err) != fault.Conflict {
					t.Errorf("cancelling a turn that has ended: %v", err)
				}
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		if err := w.service.Cancel(w.ctx(), "nobody", ""); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("cancelling an unknown turn: %v", err)
		}
	})
}

// TestIdempotency: one turn per key, however many send at once, and also after a restart.
func TestIdempotency(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	defer func() { w.stop(false) }()
	r := hello("a")
	r.Key = "k"
	ids := make([]string, 50)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			turn, err := w.service.Send(w.ctx(), r)
			if err != nil {
				t.Error(err)
			}
			ids[i] = turn.ID
		})
	}
	wg.Wait()
	w.stop(true)
	w.start()
	w.agents.away = true // a repetition is answered also when the agent is not there
	ids = append(ids, w.send(r).ID)
	for _, id := range ids {
		if id != ids[0] || id == "" {
			t.Fatalf("one key made the turns %v", ids)
		}
	}
	if n := len(w.all("a")); n != 2 {
		t.Errorf("the conversation has %d events, want the message and its end", n)
	}
	other := r
	other.Text = "something else"
	if _, err := w.service.Send(w.ctx(), other); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("the same key with another message: %v", err)
	}
}

func TestThreadBelongsToItsAgent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := hello("a")
		r.ThreadID = "t1"
		first := w.send(r)
		before, err := w.service.Thread(w.ctx(), "t1")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.say(first, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		after, err := w.service.Thread(w.ctx(), "t1")
		if err != nil || after.UpdatedAt.Sub(before.UpdatedAt) != time.Minute || after.Title != "hello" || after.CreatedAt != before.CreatedAt {
			t.Errorf("the thread was %+v and is %+v: %v", before, after, err)
		}
		r.AgentID = "b"
		if _, err := w.service.Send(w.ctx(), r); fault.CodeOf(err) != fault.Conflict || !strings.Contains(err.Error(), `belongs to agent "a"`) {
			t.Errorf("the thread of another agent: %v", err)
		}
		if n := len(w.all("b")); n != 0 {
			t.Errorf("the refused message left %d events", n)
		}
	})
}

// TestRecordFirst: when the store cannot take a message, nobody is told about it.
func TestRecordFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.log.fail = "not done"
		if _, err := w.service.Send(w.ctx(), hello("a")); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("send: %v", err)
		}
		if len(w.agents.sinks) != 0 {
			t.Error("the agent was given a message that is not stored")
		}
		if w.service.Healthy() == nil {
			t.Error("the service calls itself healthy")
		}
		w.send(hello("a"))
		if err := w.service.Healthy(); err != nil {
			t.Errorf("after a good commit the service says: %v", err)
		}
	})
}

// TestReadyAgain: a log that could not be written is tried until it can be, though nobody sends anything:
// whoever asks whether the gateway is ready may be the one who sends messages only then.
func TestReadyAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.log.mu.Lock()
		w.log.dead = true
		w.log.mu.Unlock()
		if _, err := w.service.Send(w.ctx(), hello("a")); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("send: %v", err)
		}
		time.Sleep(time.Minute) // takes no time
		if w.service.Healthy() == nil {
			t.Error("healthy while the log is dead")
		}
		w.log.mu.Lock()
		w.log.dead = false
		w.log.mu.Unlock()
		time.Sleep(2 * time.Second)
		if err := w.service.Healthy(); err != nil {
			t.Errorf("the log can be written: %v", err)
		}
	})
}

// TestDiskFull: while nothing can be stored nothing is shown, the agent is slowed down, and nothing
// is lost once the store works again.
func TestDiskFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(hello("a"))
		r, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, turn.First)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		w.log.mu.Lock()
		w.log.dead = true
		w.log.mu.Unlock()
		var sent strings.Builder
		blocked := make(chan struct{})
		go func() {
			defer close(blocked)
			for i := range 1000 {
				text := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 1000))
				sent.WriteString(text)
				w.say(turn, conversation.Text{Text: text})
			}
		}()
		synctest.Wait()
		select {
		case <-blocked:
			t.Error("a megabyte was taken although nothing can be stored")
		default:
		}
		if evs, err := r.Poll(w.ctx()); err != nil || len(evs) > 0 {
			t.Errorf("a reader saw %v: %v", evs, err)
		}
		w.log.mu.Lock()
		w.log.dead = false
		w.log.mu.Unlock()
		<-blocked
		w.say(turn, conversation.Ended{State: conversation.Done, Response: sent.String()})
		synctest.Wait()
		if got, err := w.service.Answer(w.ctx(), turn.ID); err != nil || got != sent.String() {
			t.Errorf("stored %d bytes of %d: %v", len(got), sent.Len(), err)
		}
	})
}

// TestOrderInThread: messages of one thread reach the agent in the order of the log.
func TestOrderInThread(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	defer w.stop(false)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			r := hello("a")
			r.ThreadID = "t"
			if _, err := w.service.Send(w.ctx(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var stored []string
	for _, e := range w.all("a") {
		stored = append(stored, e.TurnID)
	}
	if got, want := strings.Join(w.agents.order, " "), strings.Join(stored, " "); got != want {
		t.Errorf("dispatched %s\nstored %s", got, want)
	}
}

func TestPositionAhead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.send(hello("a"))
		if _, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 2); fault.CodeOf(err) != fault.PositionLost {
			t.Errorf("a position from nowhere: %v", err)
		}
		if _, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, -1); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("a negative position: %v", err)
		}
	})
}

// TestDrain: what is open may finish within the grace and is ended after it.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		finishes, hangs := w.send(hello("a")), w.send(hello("a"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- w.service.Drain(ctx) }()
		synctest.Wait()
		if _, err := w.service.Send(w.ctx(), hello("a")); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("a message during the shutdown: %v", err)
		}
		w.say(finishes, conversation.Ended{State: conversation.Done})
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		if got := w.turn(finishes.ID); got.State != conversation.Done {
			t.Errorf("the turn that finished is %s", got.State)
		}
		if got := w.turn(hangs.ID); got.State != conversation.Interrupted {
			t.Errorf("the turn that did not is %s", got.State)
		}
	})
}

// TestHungUpReader: a reader that leaves, or never reads, changes nothing for the turn.
func TestHungUpReader(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(hello("a"))
		r, err := w.service.Reader(w.ctx(), "a", conversation.Filter{TurnID: turn.ID}, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.say(turn, conversation.Text{Text: "one "})
		if _, err := r.Next(w.ctx()); err != nil {
			t.Fatal(err)
		}
		r.Close()
		for range 20_000 {
			w.say(turn, conversation.Text{Text: "two "})
		}
		w.say(turn, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		if got, err := w.service.Answer(w.ctx(), turn.ID); err != nil || got != "one "+strings.Repeat("two ", 20_000) {
			t.Errorf("stored %d bytes: %v", len(got), err)
		}
	})
}

// TestResumeAnywhere reads a conversation with interleaved turns from every position: what follows
// a position is always the same, live, from memory or from disk.
func TestResumeAnywhere(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	defer func() { w.stop(false) }()
	a, b := w.send(hello("a")), w.send(hello("a"))
	live, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	var got seen
	read := func(until int64) {
		for got.pos < until {
			evs, err := live.Next(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			got.add(t, evs, true)
		}
	}
	read(2)
	for i := range 200 { // every increment is read at once, so that none is merged
		for _, turn := range []conversation.Turn{a, b} {
			w.say(turn, conversation.Text{Text: fmt.Sprintf("%s%d ", turn.ID[:1], i)})
			read(got.pos + 1)
		}
		if i%50 == 49 {
			w.say(a, conversation.ToolCall{ID: "x", Name: "ls", Input: "{}"})
			read(got.pos + 1)
		}
	}
	check := func(when string) {
		for pos := int64(0); pos < got.pos; pos++ {
			p, err := w.service.Events(w.ctx(), "a", conversation.Filter{}, pos, 1)
			if err != nil {
				t.Fatal(err)
			}
			if want := got.events[pos]; len(p.Events) != 1 || !agrees(want, p.Events[0]) {
				t.Fatalf("%s: after %d come %d events, want 1: %#v", when, pos, len(p.Events), want)
			}
		}
	}
	check("while open")
	w.say(a, conversation.Ended{State: conversation.Done})
	w.say(b, conversation.Ended{State: conversation.Done})
	read(got.pos + 2)
	check("when ended")
	live.Close()
	w.stop(false)
	w.start()
	check("from disk")
	for _, f := range []conversation.Filter{{TurnID: a.ID}, {ThreadID: b.ThreadID}} {
		p, err := w.service.Events(w.ctx(), "a", f, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, e := range p.Events {
			if x, ok := e.Body.(conversation.Text); ok {
				text.WriteString(x.Text)
			}
		}
		if n := strings.Count(text.String(), " "); n != 200 {
			t.Errorf("filter %v shows %d increments", f, n)
		}
	}
	live, err = w.service.Reader(w.ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
}

// TestFarBehind: a reader whose position is older than what is in memory finds everything, also
// the block that is still open and was begun long ago.
func TestFarBehind(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	defer w.stop(false)
	slow, fast := w.send(hello("a")), w.send(hello("a"))
	lagging, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lagging.Close()
	leading, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer leading.Close()
	var ahead, behind seen
	read := func(r *conversation.Reader, s *seen, until int64) {
		for s.pos < until {
			evs, err := r.Next(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			s.add(t, evs, true)
		}
	}
	// In one commit the turn closes a block and opens the next one.
	hold := make(chan struct{})
	w.log.mu.Lock()
	w.log.hold = hold
	w.log.mu.Unlock()
	w.say(fast, conversation.Thinking{Text: "keeps the committer busy"})
	w.say(slow, conversation.Text{Text: "zero "}, conversation.ToolCall{ID: "1", Name: "ls", Input: "{}"}, conversation.Text{Text: "one "})
	w.log.mu.Lock()
	w.log.hold = nil
	w.log.mu.Unlock()
	close(hold)
	read(leading, &ahead, 6)
	for range 400 {
		w.say(fast, conversation.Text{Text: strings.Repeat("x", 1000)})
		read(leading, &ahead, ahead.pos+1)
	}
	read(lagging, &behind, ahead.pos)
	w.say(slow, conversation.Text{Text: "two "})
	read(leading, &ahead, ahead.pos+1)
	read(lagging, &behind, ahead.pos)
	for _, turn := range []conversation.Turn{slow, fast} {
		if got, want := textOf(behind.events, turn.ID), textOf(ahead.events, turn.ID); got != want {
			t.Errorf("the reader that lagged has %d bytes of a turn, the one that led %d", len(got), len(want))
		}
	}
	if got := textOf(behind.events, slow.ID); got != "zero one two " {
		t.Errorf("the turn that is open says %q", got)
	}
}

func textOf(evs []conversation.Event, turnID string) string {
	var b strings.Builder
	for _, e := range evs {
		if x, ok := e.Body.(conversation.Text); ok && e.TurnID == turnID {
			b.WriteString(x.Text)
		}
	}
	return b.String()
}

// TestApprove: the first answer to an open question reaches the agent, no other does.
func TestApprove(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(hello("a"))
		w.say(turn, conversation.Approval{ID: "t1", Name: "bash", Input: "{}"}, conversation.Approval{ID: "t2", Name: "bash", Input: "{}"})
		for _, c := range []struct {
			agent, tool string
			approved    bool
			want        fault.Code
		}{{"a", "t3", true, fault.NotFound}, {"b", "t1", true, fault.NotFound}, {"a", "t1", true, ""}, {"a", "t1", false, fault.NotFound}, {"a", "t2", false, ""}} {
			err := w.service.Approve(w.ctx(), conversation.Verdict{AgentID: c.agent, ToolID: c.tool, Approved: c.approved})
			if (err == nil) != (c.want == "") || (err != nil && fault.CodeOf(err) != c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if got := strings.Join(w.agents.approved, " "); got != "t1true t2false" {
			t.Errorf("the agent heard %s", got)
		}
		w.say(turn, conversation.Approval{ID: "t4", Name: "bash", Input: "{}"}, conversation.Ended{State: conversation.Done})
		if err := w.service.Approve(w.ctx(), conversation.Verdict{AgentID: "a", ToolID: "t4", Approved: true}); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestTrimKeepsOpenBlocks: increments that closed blocks cover are forgotten while a slow turn has an
// open block that is older than all of them; after a death its text is complete.
func TestTrimKeepsOpenBlocks(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	defer func() { w.stop(false) }()
	slow, fast := w.send(hello("a")), w.send(hello("a"))
	r, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got seen
	got.pos = 2
	say := func(turn conversation.Turn, text string) { // each increment is committed alone
		w.say(turn, conversation.Text{Text: text})
		for next := got.pos + 1; got.pos < next; {
			evs, err := r.Next(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			got.add(t, evs, true)
		}
	}
	say(slow, "first ")
	say(slow, "second ")
	for range 1500 {
		say(fast, "x")
	}
	r.Close() // nothing more of the slow turn, which would close its block
	w.stop(true)
	w.start()
	if got, err := w.service.Answer(w.ctx(), slow.ID); err != nil || got != "first second " {
		t.Errorf("the slow turn says %q: %v", got, err)
	}
	if got, err := w.service.Answer(w.ctx(), fast.ID); err != nil || len(got) != 1500 {
		t.Errorf("the fast turn has %d bytes: %v", len(got), err)
	}
}
