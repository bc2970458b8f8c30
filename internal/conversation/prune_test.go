package conversation_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/store"
)

// said shows events in a line each: numbers, and what happened.
func said(evs []conversation.Event) string {
	var b strings.Builder
	for _, e := range evs {
		if e.First != e.Seq {
			fmt.Fprintf(&b, "%d-", e.First)
		}
		fmt.Fprintf(&b, "%d ", e.Seq)
		switch x := e.Body.(type) {
		case conversation.Message:
			b.WriteString("message " + x.Text)
		case conversation.Text:
			b.WriteString("text " + x.Text)
		case conversation.Ended:
			b.WriteString(string(x.State))
		case conversation.ThreadDeleted:
			b.WriteString("deleted " + x.ThreadID)
		default:
			fmt.Fprint(&b, strings.TrimPrefix(fmt.Sprintf("%T", x), "conversation."))
		}
		b.WriteString("\n")
	}
	return strings.TrimSpace(b.String())
}

func wantSaid(t testing.TB, what string, evs []conversation.Event, want string) {
	t.Helper()
	if got := said(evs); got != strings.TrimSpace(strings.ReplaceAll(want, "\t", "")) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, strings.ReplaceAll(want, "\t", ""))
	}
}

func (w *world) verify() {
	w.t.Helper()
	if err := store.Verify(context.Background(), w.path); err != nil {
		w.t.Error(err)
	}
}

func in(agent, thread, text string) conversation.SendRequest {
	return conversation.SendRequest{AgentID: agent, ThreadID: thread, Frontend: "direct", Sender: "me", Text: text}
}

// interleaved has two threads of one agent: "a" with the numbers 1, 3, 5, 7, 9 and "b" with the others.
func (w *world) interleaved() (a, b conversation.Turn) {
	a, b = w.send(in("x", "a", "of a")), w.send(in("x", "b", "of b"))
	done := conversation.Ended{State: conversation.Done}
	for _, s := range []struct {
		turn conversation.Turn
		body conversation.Body
	}{
		{a, conversation.Text{Text: "3 "}},
		{b, conversation.Text{Text: "4 "}},
		{a, conversation.Text{Text: "5"}},
		{b, conversation.Text{Text: "6"}},
		{a, conversation.FileData{Name: "f", Data: []byte("data")}},
		{b, done},
		{a, conversation.Usage{Input: 3, Output: 4}},
		{a, done},
	} {
		w.say(s.turn, s.body)
		synctest.Wait()
	}
	return a, b
}

// TestDeleteThread: whoever reads past a deleted thread is told, live and from disk, and gets the rest
// once; the numbers are not given again.
func TestDeleteThread(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := w.ctx()
		memory, err := w.service.Reader(ctx, "x", conversation.Filter{}, 0) // while somebody reads, what is new is in memory
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		a, b := w.interleaved()
		before := w.all("x")
		follow := func(f conversation.Filter, after int64) *conversation.Reader {
			t.Helper()
			r, err := w.service.Reader(ctx, "x", f, after)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		read := func(r *conversation.Reader) (all []conversation.Event) {
			t.Helper()
			for {
				evs, err := r.Poll(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if len(evs) == 0 {
					return all
				}
				all = append(all, evs...)
			}
		}
		live, behind, ofB := follow(conversation.Filter{}, 10), follow(conversation.Filter{}, 4), follow(conversation.Filter{ThreadID: "b"}, 10)
		slow, ended, ofTurnB := follow(conversation.Filter{TurnID: a.ID}, 3), follow(conversation.Filter{TurnID: a.ID}, 10), follow(conversation.Filter{TurnID: b.ID}, 0)
		read(ended)
		read(live)
		defer func() {
			for _, r := range []*conversation.Reader{live, behind, ofB, slow, ended, ofTurnB} {
				r.Close()
			}
		}()
		if err := w.service.DeleteThread(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		w.verify()
		for _, r := range []*conversation.Reader{live, slow} {
			select {
			case <-r.Ready():
			default:
				t.Error("a reader was not woken")
			}
		}
		wantSaid(t, "a live reader", read(live), "0 deleted a")
		wantSaid(t, "one that is behind", read(behind), "0 deleted a\n5 Removed\n6 text 6\n7 Removed\n8 done\n9-10 Removed")
		wantSaid(t, "one of the other thread", read(ofB), "")
		wantSaid(t, "one of the turn, in the middle", read(slow), "4-10 Removed")
		wantSaid(t, "one of the turn, at its end", read(ended), "")
		wantSaid(t, "one of the other turn", read(ofTurnB), "2 message of b\n4-6 text 4 6\n8 done")
		rest := "1 Removed\n2 message of b\n3 Removed\n4 text 4 \n5 Removed\n6 text 6\n7 Removed\n8 done\n9-10 Removed"
		wantSaid(t, "from memory", w.all("x"), rest)
		one := func(until int64) {
			t.Helper()
			for after := range until {
				p, err := w.service.Events(ctx, "x", conversation.Filter{}, after, 1)
				if err != nil || len(p.Events) != 1 || p.Events[0].First != after+1 {
					t.Errorf("behind %d is %v: %v", after, said(p.Events), err)
				}
			}
		}
		one(10)

		for what, err := range map[string]error{
			"turn":     errOf(w.service.Turn(ctx, a.ID)),
			"thread":   errOf(w.service.Thread(ctx, "a")),
			"answer":   errOf(w.service.Answer(ctx, a.ID)),
			"again":    w.service.DeleteThread(ctx, "a"),
			"a reader": errOf(w.service.Reader(ctx, "x", conversation.Filter{TurnID: a.ID}, 0)),
		} {
			if fault.CodeOf(err) != fault.NotFound {
				t.Errorf("%s: %v", what, err)
			}
		}
		if u, err := w.service.UsageTotal(ctx, conversation.UsageFilter{AgentID: "x"}); err != nil || u.Input != 3 || u.Output != 4 || u.Reports != 1 {
			t.Errorf("the usage of the past is %+v: %v", u, err)
		}
		synctest.Wait()
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(w.path), "files", "*", "*")); err != nil || len(left) != 0 {
			t.Errorf("contents are left: %v %v", left, err)
		}
		fresh := w.send(in("x", "a", "again"))
		if fresh.First != 11 {
			t.Errorf("the next number is %d", fresh.First)
		}
		w.say(fresh, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		w.stop(false)
		w.start()
		rest += "\n11 message again\n12 done"
		wantSaid(t, "from disk", w.all("x"), rest)
		wantSaid(t, "the thread from disk", readOnce(w, conversation.Filter{ThreadID: "b"}), "2 message of b\n4-6 text 4 6\n8 done")
		one(12)
		if len(before) == 0 || fresh.ThreadID != "a" {
			t.Error("nothing was said")
		}
		w.verify()
	})
}

func errOf[T any](_ T, err error) error { return err }

func readOnce(w *world, f conversation.Filter) []conversation.Event {
	w.t.Helper()
	p, err := w.service.Events(w.ctx(), "x", f, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Events
}

// TestDeleteNewest: when the newest events are removed their numbers are not given again, also by a
// gateway that has not seen them.
func TestDeleteNewest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(in("x", "a", "hello"))
		w.say(turn, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		if err := w.service.DeleteThread(w.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
		w.verify()
		w.stop(false)
		w.start()
		wantSaid(t, "what is left", w.all("x"), "1-2 Removed")
		turn = w.send(in("x", "a", "hello"))
		w.say(turn, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		wantSaid(t, "what came then", w.all("x"), "1-2 Removed\n3 message hello\n4 done")
		w.verify()
	})
}

func TestDeleteOpenThread(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := in("x", "a", "hello")
		r.Files = []conversation.FileData{{Name: "f", Data: []byte("data")}}
		turn := w.send(r)
		if err := w.service.DeleteThread(w.ctx(), "a"); fault.CodeOf(err) != fault.Conflict {
			t.Errorf("with an open turn: %v", err)
		}
		w.say(turn, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		if w.contents() != 1 {
			t.Error("the file is gone")
		}
		if err := w.service.DeleteThread(w.ctx(), "a"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if w.contents() != 0 {
			t.Error("the content of an attachment is left")
		}
	})
}

// TestHalfDeleted: once a deletion has begun nobody sees the thread or says something in it, also when
// the rest has to wait.
func TestHalfDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var turns []conversation.Turn
		for range 40 {
			turns = append(turns, w.answered("a", "needle"))
		}
		w.log.mu.Lock()
		w.log.dieIn = 2
		w.log.mu.Unlock()
		if err := w.service.DeleteThread(w.ctx(), "a"); err != nil {
			t.Error(err)
		}
		synctest.Wait() // the keeper has tried, too
		w.log.mu.Lock()
		w.log.dead = false
		w.log.mu.Unlock()
		w.verify()
		last := turns[len(turns)-1]
		if _, err := w.service.Turn(w.ctx(), last.ID); err != nil {
			t.Fatalf("nothing is left to be tested: %v", err)
		}
		if _, err := w.service.Thread(w.ctx(), "a"); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("the thread: %v", err)
		}
		if list, err := w.service.Threads(w.ctx(), conversation.ThreadQuery{Limit: 10}); err != nil || len(list) != 0 {
			t.Errorf("the list: %v %v", list, err)
		}
		if hits, _, err := w.service.Search(w.ctx(), "needle", conversation.SearchQuery{Limit: 10}); err != nil || len(hits) != 0 {
			t.Errorf("found: %v %v", hits, err)
		}
		if _, err := w.service.Send(w.ctx(), in("x", "a", "hello")); fault.CodeOf(err) != fault.Conflict {
			t.Errorf("a message: %v", err)
		}
		if err := conversation.FinishDeletions(w.service); err != nil {
			t.Error(err)
		}
		wantSaid(t, "what is left", w.all("x"), "1-80 Removed")
		w.verify()
	})
}

// TestRemovedWhileRead: a turn that is removed between two looks at it is told as removed, and not with
// half of what it said.
func TestRemovedWhileRead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		turn := w.send(in("x", "a", "hello"))
		w.say(turn, conversation.Text{Text: "an answer"}, conversation.Ended{State: conversation.Done, Response: "an answer"})
		synctest.Wait()
		w.stop(false)
		w.start() // so that it is read from disk
		remove := sync.OnceFunc(func() {
			if err := w.service.DeleteThread(w.ctx(), "a"); err != nil {
				t.Error(err)
			}
		})
		w.log.answering = remove
		wantSaid(t, "a reader", readOnce(w, conversation.Filter{}), "1-3 Removed")

		w.answered("b", "again")
		turn = w.send(in("x", "b", "hello"))
		w.say(turn, conversation.Text{Text: "an answer"}, conversation.Ended{State: conversation.Done, Response: "an answer"})
		synctest.Wait()
		w.log.answering = sync.OnceFunc(func() {
			if err := w.service.DeleteThread(w.ctx(), "b"); err != nil {
				t.Error(err)
			}
		})
		h, err := w.service.History(w.ctx(), conversation.HistoryQuery{AgentID: "x", After: 3, Limit: 10, Removed: true})
		if err != nil || len(h.Entries) != 1 || h.Entries[0].Type != conversation.EntryRemoved || h.Entries[0].Text != "events 4 to 8 were removed" {
			t.Errorf("the history: %+v %v", h.Entries, err)
		}
	})
}

// TestStray: a content that was stored for a message that never came is removed at the next start.
func TestStray(t *testing.T) {
	dir := t.TempDir()
	blobs := store.OpenBlobs(filepath.Join(dir, "files"))
	name, err := blobs.Put(t.Context(), []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	long := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // bubbles begin in 2000
	if err := os.Chtimes(filepath.Join(dir, "files", name[:2], name), long, long); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, filepath.Join(dir, "gateway.db"))
		synctest.Wait()
		if w.contents() != 0 {
			t.Error("it is still there")
		}
		w.stop(false)
	})
}

// TestDeleteLong: a long turn is removed in steps. A commit that fails, or whose outcome is not known,
// leaves everything as it was or as it is to be; what a gateway leaves half-way the next one removes.
func TestDeleteLong(t *testing.T) {
	for _, fail := range []string{"", "not done", "done", "killed"} {
		t.Run(fail, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				turn := w.send(in("x", "a", "hello"))
				for range 200 {
					w.say(turn, conversation.ToolCall{ID: "1", Name: "ls", Input: "{}"}, conversation.Text{Text: "so"})
					synctest.Wait() // so that the increments are stored by themselves
				}
				w.say(turn, conversation.FileData{Name: "f", Data: []byte("data")}, conversation.Ended{State: conversation.Done})
				synctest.Wait()
				w.log.mu.Lock()
				w.log.fail = fail
				if fail == "killed" {
					w.log.fail = ""
					w.log.dieIn = 3 // commits
				}
				w.log.mu.Unlock()
				err := w.service.DeleteThread(w.ctx(), "a")
				w.verify()
				switch fail {
				case "not done":
					if fault.CodeOf(err) != fault.Unavailable {
						t.Errorf("a commit that failed: %v", err)
					}
					if evs := w.all("x"); len(evs) != 403 || evs[0].Seq != 1 {
						t.Errorf("a deletion that failed has left %d events", len(evs))
					}
					err = w.service.DeleteThread(w.ctx(), "a")
				case "killed":
					w.stop(true)
					w.verify()
					w.start()
					synctest.Wait()
				}
				if err != nil {
					t.Error(err)
				}
				wantSaid(t, "what is left", w.all("x"), "1-403 Removed")
				synctest.Wait()
				if left, err := filepath.Glob(filepath.Join(filepath.Dir(w.path), "files", "*", "*")); err != nil || len(left) != 0 {
					t.Errorf("contents are left: %v %v", left, err)
				}
				w.verify()
			})
		})
	}
}

// TestReadDuringRemoval: whoever reads while threads are deleted gets every number once, as an event or as
// removed, from memory and from disk.
func TestReadDuringRemoval(t *testing.T) {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "gateway.db"), synchronous: "normal"}
	w.start()
	ctx, cancel := context.WithCancel(w.ctx())
	defer w.stop(false)
	var readers sync.WaitGroup
	var passes atomic.Int64
	read := func(until int64) error {
		r, err := w.service.Reader(ctx, "x", conversation.Filter{}, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		for pos := int64(0); pos < until; {
			evs, err := r.Next(ctx)
			if err != nil {
				return err
			}
			for _, e := range evs {
				if e.Seq == 0 {
					continue
				}
				if e.First != pos+1 {
					return fmt.Errorf("behind %d comes %d to %d, %T", pos, e.First, e.Seq, e.Body)
				}
				if b, ok := e.Body.(conversation.Ended); ok && b.Response != "an answer" {
					return fmt.Errorf("event %d has the answer %q", e.Seq, b.Response)
				}
				pos = e.Seq
			}
		}
		return nil
	}
	var head atomic.Int64
	for range 4 {
		readers.Go(func() {
			for {
				until := head.Load()
				err := read(until)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				passes.Add(1)
			}
		})
	}
	for round := range 60 {
		for i := range 4 {
			turn := w.send(in("x", fmt.Sprint(i), "hello"))
			w.say(turn, conversation.Text{Text: "an "}, conversation.ToolCall{ID: "1", Input: strings.Repeat("x", 4000)}, conversation.Text{Text: "answer"},
				conversation.Ended{State: conversation.Done, Response: "an answer"})
			r, err := w.service.Reader(ctx, "x", conversation.Filter{TurnID: turn.ID}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for over := false; !over; {
				evs, err := r.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				e := evs[len(evs)-1]
				_, over = e.Body.(conversation.Ended)
				head.Store(e.Seq)
			}
			r.Close()
		}
		if err := w.service.DeleteThread(w.ctx(), fmt.Sprint(round%4)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	readers.Wait()
	w.verify()
	if passes.Load() < 10 {
		t.Errorf("the conversation was read %d times meanwhile", passes.Load())
	}
}
