package conversation_test

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// keeping runs a test with a service that does not keep everything.
func keeping(t *testing.T, r conversation.Retention, f func(*testing.T, *world)) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, path: path, retention: r}
		w.start()
		f(t, w)
		w.stop(false)
	})
}

// answered is a turn that has ended.
func (w *world) answered(thread, text string, bodies ...conversation.Body) conversation.Turn {
	w.t.Helper()
	turn := w.send(in("x", thread, text))
	w.say(turn, bodies...)
	w.say(turn, conversation.Ended{State: conversation.Done})
	synctest.Wait()
	return turn
}

// contents are the names of the contents on the disk.
func (w *world) contents() int {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(w.path), "files", "*", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(names)
}

func (w *world) audited(want ...string) {
	w.t.Helper()
	var got []string
	w.auditMu.Lock()
	for _, r := range w.audit {
		got = append(got, r.Action+" "+r.Detail)
	}
	w.audit = nil
	w.auditMu.Unlock()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("the audit log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestRetention: turns that ended too long ago go, whole, archived or not; those that have not ended
// stay, and so do the sums.
func TestRetention(t *testing.T) {
	keeping(t, conversation.Retention{Events: 4 * time.Hour}, func(t *testing.T, w *world) {
		w.answered("old", "1", conversation.Usage{Input: 5}, conversation.FileData{Name: "f", Data: []byte("x")})
		yes := true
		if _, err := w.service.EditThread(w.ctx(), "old", conversation.ThreadEdit{Archived: &yes}); err != nil {
			t.Fatal(err)
		}
		w.answered("both", "2")
		time.Sleep(30 * time.Minute)
		long := w.send(in("x", "long", "3"))
		time.Sleep(40 * time.Minute)
		w.answered("both", "4")
		w.say(long, conversation.Ended{State: conversation.Done})
		time.Sleep(3 * time.Hour) // a run has passed, 4 hours and 10 minutes
		if n := len(w.all("x")); n != 10 {
			t.Errorf("%d events", n)
		}
		w.audited()
		time.Sleep(time.Hour)
		wantSaid(t, "after 5 hours", w.all("x"), "1-6 Removed\n7 message 3\n8 message 4\n9 done\n10 done")
		w.audited(`retention {"began_at":"2000-01-01T05:00:00Z","bytes":318,"events":6,"files":0,"threads":1,"turns":2}`)
		if _, err := w.service.Thread(w.ctx(), "old"); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("a thread without turns: %v", err)
		}
		if th, err := w.service.Thread(w.ctx(), "both"); err != nil || th.Turns != 1 {
			t.Errorf("a thread with a turn left: %+v %v", th, err)
		}
		wantSaid(t, "of a thread that has lost something", readOnce(w, conversation.Filter{ThreadID: "both"}), "1-6 Removed\n8 message 4\n9 done")
		wantSaid(t, "of one that has not", readOnce(w, conversation.Filter{ThreadID: "long"}), "7 message 3\n10 done")
		if u, err := w.service.UsageTotal(w.ctx(), conversation.UsageFilter{AgentID: "x"}); err != nil || u.Input != 5 {
			t.Errorf("usage %+v: %v", u, err)
		}
		if w.contents() != 0 {
			t.Error("the content of a file is left")
		}
		w.verify()
		time.Sleep(time.Hour)
		wantSaid(t, "after 6 hours", w.all("x"), "1-10 Removed")
		w.verify()
	})
}

// TestRetentionOfNewest: a turn that began last may have ended first.
func TestRetentionOfNewest(t *testing.T) {
	keeping(t, conversation.Retention{}, func(t *testing.T, w *world) {
		long := w.send(in("x", "a", "1"))
		w.answered("a", "2")
		if err := conversation.Retain(w.service, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		w.verify()
		w.say(long, conversation.Ended{State: conversation.Done})
		synctest.Wait()
		wantSaid(t, "what is left", w.all("x"), "1 message 1\n2-3 Removed\n4 done")
		w.verify()
	})
}

// TestRetentionOfDamaged: a turn that cannot be removed keeps nothing else from being removed, and
// messages from being stored.
func TestRetentionOfDamaged(t *testing.T) {
	keeping(t, conversation.Retention{}, func(t *testing.T, w *world) {
		w.answered("a", "1")
		w.answered("b", "2")
		w.answered("c", "3")
		db, err := sql.Open("sqlite", "file:"+w.path)
		if err == nil {
			_, err = db.Exec(`UPDATE events SET cuts = x'00' WHERE seq = 3`)
		}
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if err := conversation.Retain(w.service, time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		for thread, want := range map[string]fault.Code{"a": fault.NotFound, "b": "", "c": fault.NotFound} {
			if _, err := w.service.Thread(w.ctx(), thread); err != nil != (want != "") || err != nil && fault.CodeOf(err) != want {
				t.Errorf("thread %s: %v", thread, err)
			}
		}
		w.answered("d", "4")
	})
}

func TestRetentionBySize(t *testing.T) {
	keeping(t, conversation.Retention{EventsBytes: 10_000}, func(t *testing.T, w *world) {
		for i := range 10 {
			w.answered(fmt.Sprint(i), strings.Repeat("x", 2500))
		}
		time.Sleep(2 * time.Hour)
		wantSaid(t, "what is left", w.all("x")[:1], "1-14 Removed")
		if n := len(w.all("x")); n != 1+6 {
			t.Errorf("%d events are left", n)
		}
		w.verify()
	})
}

// TestRetentionOfFiles: the content goes, unless a younger file has the same, and the file says so.
func TestRetentionOfFiles(t *testing.T) {
	for name, r := range map[string]conversation.Retention{"age": {Files: 4 * time.Hour}, "size": {FilesBytes: 2000}} {
		t.Run(name, func(t *testing.T) {
			keeping(t, r, func(t *testing.T, w *world) {
				file := func(name, data string) conversation.Body {
					return conversation.FileData{Name: name, Data: []byte(strings.Repeat(data, 1000))}
				}
				w.answered("a", "1", file("alone", "1"), file("shared", "2"))
				time.Sleep(90 * time.Minute)
				w.answered("b", "2", file("shared again", "2"), file("young", "3"))
				if w.contents() != 3 {
					t.Fatal("there are not three contents")
				}
				time.Sleep(210*time.Minute + time.Second)
				want := map[string]bool{"alone": false, "shared": r.Files == 0, "shared again": true, "young": true}
				for _, thread := range []string{"a", "b"} {
					files, err := w.service.ThreadFiles(w.ctx(), thread, 10)
					if err != nil || len(files) != 2 {
						t.Fatal(files, err)
					}
					for _, f := range files {
						_, err := w.service.File(w.ctx(), f.ID)
						if there := err == nil; there != want[f.Name] || f.ExpiredAt.IsZero() != there || !there && fault.CodeOf(err) != fault.Removed {
							t.Errorf("file %q: %v", f.Name, err)
						}
					}
				}
				if w.contents() != 2 {
					t.Errorf("there are %d contents", w.contents())
				}
				if n := len(w.all("x")); n != 8 {
					t.Errorf("%d events", n)
				}
				w.answered("c", "3", file("alone again", "1")) // what is gone can be stored again
				if w.contents() != 3 {
					t.Error("a content that was removed was not stored again")
				}
				w.verify()
				files := 2
				if r.Files == 0 {
					files = 1
				}
				w.auditMu.Lock()
				defer w.auditMu.Unlock()
				if len(w.audit) != 1 || !strings.Contains(w.audit[0].Detail, fmt.Sprintf(`"files":%d,`, files)) {
					t.Errorf("audited %v", w.audit)
				}
			})
		})
	}
}

// TestRetentionModel: whatever is sent, deleted, removed by age and interrupted, readers get the numbers
// in order, each once, with what the model has left or the word that it was removed, and the database
// is sound after each step that removes something.
func TestRetentionModel(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		w := &world{t: t, path: filepath.Join(dir, fmt.Sprint(run), "gateway.db"), synchronous: "normal"}
		w.start()
		conversation.Hurry(w.service)
		defer func() { w.stop(false) }()
		type turn struct {
			conversation.Turn
			text string
			gone bool
		}
		type reader struct {
			agent, thread string
			pos           int64
			r             *conversation.Reader
			text          map[string]string
		}
		turns := map[string]*turn{} // by id
		var open, ended []*turn
		owner := map[string][]string{"x": {""}, "y": {""}} // turn of each number
		var readers []*reader
		agent := rapid.SampledFrom([]string{"x", "y"})

		// check reads everything that follows a position and compares it with the model.
		check := func(agent, thread string, pos int64, evs []conversation.Event) int64 {
			for _, e := range evs {
				if _, ok := e.Body.(conversation.ThreadDeleted); ok {
					continue
				}
				if e.First <= pos || e.Seq < e.First || thread == "" && e.First != pos+1 {
					rt.Fatalf("behind %d of %s comes %d to %d", pos, agent, e.First, e.Seq)
				}
				for n := pos + 1; n <= e.Seq; n++ {
					id := ""
					if int(n) < len(owner[agent]) {
						id = owner[agent][n]
					}
					_, removed := e.Body.(conversation.Removed)
					switch {
					case n < e.First: // of another thread
						if tn := turns[id]; tn != nil && tn.ThreadID == thread && !tn.gone {
							rt.Fatalf("%d of %s was not shown", n, agent)
						}
					case removed && (turns[id] == nil || !turns[id].gone):
						rt.Fatalf("%d of %s was told to be removed, and is not", n, agent)
					case thread != "" && !removed && (id == "" || turns[id].ThreadID != thread):
						// Of a thread increments come merged across what other threads have between them.
					case !removed && id != "" && id != e.TurnID:
						rt.Fatalf("%d of %s is of turn %s, and was of %s", n, agent, e.TurnID, id)
					case !removed && turns[e.TurnID].gone:
						rt.Fatalf("%d of %s was removed, and is shown", n, agent)
					case !removed && id == "":
						owner[agent] = append(owner[agent], e.TurnID)
					}
				}
				pos = e.Seq
			}
			return pos
		}
		observe := func() {
			for _, a := range []string{"x", "y"} {
				evs := w.all(a)
				check(a, "", 0, evs)
				texts := map[string]string{}
				for _, e := range evs {
					if b, ok := e.Body.(conversation.Text); ok {
						texts[e.TurnID] += b.Text
					}
				}
				for id, text := range texts {
					if !strings.HasPrefix(turns[id].text, text) || turns[id].State != conversation.Open && turns[id].text != text {
						rt.Fatalf("turn %s has %d bytes, %d were said", id, len(text), len(turns[id].text))
					}
				}
				after := rapid.Int64Range(0, int64(len(owner[a])-1)).Draw(rt, "after")
				thread := rapid.SampledFrom([]string{"", a + "1", a + "2"}).Draw(rt, "thread")
				p, err := w.service.Events(w.ctx(), a, conversation.Filter{ThreadID: thread}, after, rapid.IntRange(1, 20).Draw(rt, "limit"))
				if err != nil {
					rt.Fatal(err)
				}
				check(a, thread, after, p.Events)
			}
		}
		end := func(tn *turn, whole bool) {
			open = slices.DeleteFunc(open, func(o *turn) bool { return o == tn })
			tn.State = conversation.Done
			if !whole {
				tn.text = "" // how much was stored is TestModel's business
				for _, e := range w.all(tn.AgentID) {
					if b, ok := e.Body.(conversation.Text); ok && e.TurnID == tn.ID {
						tn.text += b.Text
					}
				}
			}
			ended = append(ended, tn)
		}
		attach := func(r *reader) {
			var err error
			if r.r, err = w.service.Reader(w.ctx(), r.agent, conversation.Filter{ThreadID: r.thread}, r.pos); err != nil {
				rt.Fatalf("reader at %d: %v", r.pos, err)
			}
		}
		restart := func(kill bool) {
			for _, r := range readers {
				r.r.Close()
			}
			w.stop(kill)
			w.verify()
			w.start()
			conversation.Hurry(w.service)
			for _, tn := range slices.Clone(open) {
				end(tn, false)
			}
			if err := conversation.FinishDeletions(w.service); err != nil {
				rt.Fatal(err)
			}
			for _, r := range readers {
				attach(r)
			}
		}
		retain := func(cut time.Time) {
			err := conversation.Retain(w.service, cut)
			for _, tn := range ended {
				now, turnErr := w.service.Turn(w.ctx(), tn.ID)
				if turnErr == nil && now.EndedAt.Before(cut) && err == nil {
					rt.Fatalf("turn %s is kept for too long", tn.ID)
				}
			}
			if err != nil {
				restart(true)
				if err := conversation.Retain(w.service, cut); err != nil {
					rt.Fatal(err)
				}
			}
			for _, tn := range ended {
				if _, err := w.service.Turn(w.ctx(), tn.ID); err != nil && !tn.gone {
					if !tn.EndedAt.IsZero() && !tn.EndedAt.Before(cut) {
						rt.Fatalf("turn %s was removed too early", tn.ID)
					}
					tn.gone = true
				}
			}
		}
		actions := map[string]func(){
			"send": func() {
				a := agent.Draw(rt, "agent")
				tn := w.send(in(a, a+rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "thread"), "hello"))
				turns[tn.ID] = &turn{Turn: tn}
				open = append(open, turns[tn.ID])
			},
			"say": func() {
				if len(open) == 0 {
					return
				}
				tn := rapid.SampledFrom(open).Draw(rt, "turn")
				for range rapid.SampledFrom([]int{1, 3, 70}).Draw(rt, "n") {
					w.say(tn.Turn, conversation.Text{Text: "word "})
					tn.text += "word "
					if rapid.Bool().Draw(rt, "tool") {
						w.say(tn.Turn, conversation.ToolCall{ID: "1", Name: "ls", Input: "{}"})
					}
				}
				if rapid.Bool().Draw(rt, "file") {
					w.say(tn.Turn, conversation.FileData{Name: "f", Data: []byte(rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "data"))}, conversation.Usage{Input: 1})
				}
			},
			"end": func() {
				if len(open) == 0 {
					return
				}
				tn := rapid.SampledFrom(open).Draw(rt, "turn")
				r, err := w.service.Reader(w.ctx(), tn.AgentID, conversation.Filter{TurnID: tn.ID}, 0)
				if err != nil {
					rt.Fatal(err)
				}
				defer r.Close()
				w.say(tn.Turn, conversation.Ended{State: conversation.Done})
				for over := false; !over; {
					evs, err := r.Next(w.ctx())
					if err != nil {
						rt.Fatal(err)
					}
					_, over = evs[len(evs)-1].Body.(conversation.Ended)
				}
				end(tn, true)
				now, err := w.service.Turn(w.ctx(), tn.ID)
				if err != nil {
					rt.Fatal(err)
				}
				tn.Turn = now
			},
			"delete": func() {
				a := agent.Draw(rt, "agent")
				thread := a + rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "thread")
				fails := rapid.SampledFrom([]string{"", "", "not done", "done"}).Draw(rt, "fail")
				w.log.mu.Lock()
				w.log.fail = fails
				w.log.mu.Unlock()
				var busy, there bool
				for _, tn := range turns {
					there = there || tn.ThreadID == thread && !tn.gone
				}
				busy = slices.ContainsFunc(open, func(tn *turn) bool { return tn.ThreadID == thread })
				switch err := w.service.DeleteThread(w.ctx(), thread); {
				case err == nil && there && !busy:
					if err := conversation.FinishDeletions(w.service); err != nil {
						rt.Fatal(err)
					}
					for _, tn := range turns {
						tn.gone = tn.gone || tn.ThreadID == thread
					}
				case fault.CodeOf(err) == fault.NotFound && !there, fault.CodeOf(err) == fault.Conflict && busy:
				case fault.CodeOf(err) == fault.Unavailable && fails != "":
				default:
					rt.Fatalf("deletion of %s (there: %v, busy: %v): %v", thread, there, busy, err)
				}
				w.log.mu.Lock()
				w.log.fail = ""
				w.log.mu.Unlock()
			},
			"retain": func() {
				if len(ended) > 0 {
					retain(rapid.SampledFrom(ended).Draw(rt, "turn").EndedAt)
				}
			},
			"retain and die": func() {
				if len(ended) > 0 {
					cut := rapid.SampledFrom(ended).Draw(rt, "turn").EndedAt
					w.log.mu.Lock()
					w.log.dieIn = rapid.IntRange(1, 4).Draw(rt, "commits")
					w.log.mu.Unlock()
					retain(cut)
					restart(true)
				}
			},
			"attach": func() {
				a := agent.Draw(rt, "agent")
				r := &reader{agent: a, thread: rapid.SampledFrom([]string{"", "", a + "1"}).Draw(rt, "thread"), pos: rapid.Int64Range(0, int64(len(owner[a])-1)).Draw(rt, "pos")}
				attach(r)
				readers = append(readers, r)
			},
			"read": func() {
				if len(readers) == 0 {
					return
				}
				r := rapid.SampledFrom(readers).Draw(rt, "reader")
				evs, err := r.r.Poll(w.ctx())
				if err != nil {
					rt.Fatal(err)
				}
				r.pos = check(r.agent, r.thread, r.pos, evs)
			},
			"restart": func() { restart(rapid.Bool().Draw(rt, "kill")) },
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			names := slices.Sorted(maps.Keys(actions))
			action := rapid.SampledFrom(append(names, "send", "say", "end", "end", "read")).Draw(rt, "action")
			actions[action]()
			observe()
			if slices.Contains([]string{"delete", "retain", "retain and die", "restart"}, action) { // it takes long
				w.verify()
			}
		}
		w.verify()
		for _, r := range readers {
			r.r.Close()
		}
	})
}
