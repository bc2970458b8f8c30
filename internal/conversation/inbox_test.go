package conversation_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// come and leave are what an agent does.
func (w *world) come() {
	w.agents.mu.Lock()
	w.agents.away = false
	w.agents.mu.Unlock()
	w.service.Arrived("a")
}

func (w *world) leave() {
	w.agents.mu.Lock()
	w.agents.away = true
	w.agents.mu.Unlock()
}

// queue sends a message that may wait.
func (w *world) queue(thread, text string, wait time.Duration) conversation.Turn {
	w.t.Helper()
	t, err := w.service.Send(w.ctx(), conversation.SendRequest{
		AgentID: "a", ThreadID: thread, Frontend: "direct", Sender: "me", Text: text, Delivery: conversation.Queue, Wait: wait,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func (w *world) state(id string) conversation.TurnState {
	w.t.Helper()
	t, err := w.service.Turn(w.ctx(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.State
}

// given returns the turns whose messages agents were given, in order.
func (w *world) given() []string {
	w.agents.mu.Lock()
	defer w.agents.mu.Unlock()
	return slices.Clone(w.agents.order)
}

// A step is one of a random schedule; what it does not need is not used.
type step struct {
	Action string
	Thread string
	Wait   time.Duration
	Pick   int // which message
}

// TestInboxModel plays random schedules of messages that may wait, of an agent that comes and goes, of
// cancellations, deadlines and deaths of the process. Every message ends in exactly one way, no agent
// is given one twice, and the agent gets those of a thread in their order, one after the other.
func TestInboxModel(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				rapid.SampledFrom([]string{"send", "send", "send", "answer", "answer", "cancel", "come", "come", "leave", "time", "stop", "kill"}).Draw(rt, "action"),
				rapid.SampledFrom([]string{"x", "y", ""}).Draw(rt, "thread"),
				time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second,
				rapid.IntRange(0, 7).Draw(rt, "pick"),
			}
		}), 1, 40).Draw(rt, "steps")
		path := filepath.Join(dir, fmt.Sprintf("%d.db", run))
		if !t.Run("schedule", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playInbox(t, path, steps) })
		}) {
			rt.FailNow()
		}
	})
}

func playInbox(t *testing.T, path string, steps []step) {
	w := newWorld(t, path)
	var sent []conversation.Turn
	var given []string             // by processes that have died
	cancelled := map[string]bool{} // while it waited
	killed := map[string]bool{}    // with the process, when the agent had it
	ended := map[string]bool{}
	number := func(id string) int {
		return slices.IndexFunc(sent, func(x conversation.Turn) bool { return x.ID == id })
	}
	working := func() (ids []string) { // what the agent works on
		synctest.Wait()
		for _, id := range w.given() {
			if !ended[id] {
				ids = append(ids, id)
			}
		}
		return ids
	}
	answer := func(id string) {
		ended[id] = true
		if err := w.agents.sink(id).On(context.Background(), conversation.Ended{State: conversation.Done}); err != nil {
			t.Fatal(err)
		}
	}
	w.leave()
	for _, s := range steps {
		switch s.Action {
		case "send":
			sent = append(sent, w.queue(s.Thread, "hello", s.Wait))
		case "answer":
			if ids := working(); len(ids) > 0 {
				answer(ids[s.Pick%len(ids)])
			}
		case "cancel":
			if len(sent) == 0 {
				continue
			}
			m := sent[s.Pick%len(sent)]
			synctest.Wait()
			queued := w.state(m.ID) == conversation.Queued
			err := w.service.Cancel(w.ctx(), m.ID, "")
			if err != nil && fault.CodeOf(err) != fault.Conflict {
				t.Fatal(err)
			}
			if err == nil {
				cancelled[m.ID], ended[m.ID] = queued, true // the agent understands no cancellation
			}
		case "come":
			w.come()
		case "leave":
			w.leave()
		case "time":
			time.Sleep(s.Wait)
		case "stop", "kill":
			for _, id := range working() {
				killed[id] = true
			}
			given = append(given, w.given()...)
			w.stop(s.Action == "kill")
			w.start()
			w.leave()
		}
		busy := map[string]bool{}
		for _, id := range working() {
			thread := sent[number(id)].ThreadID
			if busy[thread] {
				t.Fatalf("the agent works on two messages of thread %s", thread)
			}
			busy[thread] = true
		}
	}
	w.come()
	for ids := working(); len(ids) > 0; ids = working() {
		answer(ids[0])
	}
	given = append(given, w.given()...)
	w.stop(false)
	w.start() // from disk
	defer w.stop(false)

	ends := map[string]int{}
	for _, e := range w.all("a") {
		if _, ok := e.Body.(conversation.Ended); ok {
			ends[e.TurnID]++
		}
	}
	times := map[string]int{}
	last := map[string]int{} // by thread: number of the message that was given last
	for _, id := range given {
		times[id]++
		n := number(id)
		if before, ok := last[sent[n].ThreadID]; ok && before > n {
			t.Errorf("thread %s: message %d was given after message %d", sent[n].ThreadID, n, before)
		}
		last[sent[n].ThreadID] = n
	}
	for n, m := range sent {
		state := w.state(m.ID)
		if !state.Over() || ends[m.ID] != 1 {
			t.Errorf("message %d is %s and has %d ends", n, state, ends[m.ID])
		}
		want := 1
		if state == conversation.Expired || state == conversation.Cancelled && cancelled[m.ID] {
			want = 0
		}
		if times[m.ID] != want {
			t.Errorf("message %d is %s and was given %d times", n, state, times[m.ID])
		}
		if state == conversation.Interrupted && !killed[m.ID] {
			t.Errorf("message %d is interrupted, and nobody died", n)
		}
	}
}
