package conversation_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/conversation"
)

// edit changes the database of a world that is stopped.
func (w *world) edit(query string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	res, err := db.Exec(query)
	if err != nil {
		w.t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		w.t.Fatalf("%s changed %d rows: %v", query, n, err)
	}
}

// TestPoisonedTurn: a turn that cannot be recovered as it is ends as interrupted, and neither the start nor
// the other turns suffer from it.
func TestPoisonedTurn(t *testing.T) {
	for name, damage := range map[string]string{
		"a number that is taken":   `UPDATE increments SET seq = 1 WHERE turn_id = 1`,
		"a kind that is none":      `UPDATE increments SET kind = 1 WHERE turn_id = 1`,
		"a kind that is no number": `UPDATE increments SET kind = 'x' WHERE turn_id = 1`,
		"a time that is no number": `UPDATE increments SET at = 'x', kind = 99 WHERE turn_id = 1`,
		"the same number twice":    `INSERT INTO increments (turn_id, seq, kind, text, at) SELECT turn_id, seq, kind, text, at FROM increments WHERE turn_id = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
			bad, good := w.send(hello("a")), w.send(hello("a"))
			r, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.say(bad, conversation.Text{Text: "lost"})
			w.say(good, conversation.Text{Text: "kept"})
			pos := int64(0)
			for pos < 4 {
				evs, err := r.Next(w.ctx())
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range evs {
					pos = e.Seq
				}
			}
			r.Close()
			w.stop(true)
			w.edit(damage)
			for range 2 { // also the start after that
				w.start()
				for _, turn := range []conversation.Turn{bad, good} {
					if got := w.state(turn.ID); got != conversation.Interrupted {
						t.Errorf("turn %s is %s", turn.ID, got)
					}
				}
				if text, err := w.service.Answer(w.ctx(), good.ID); err != nil || text != "kept" {
					t.Errorf("the answer of the other turn: %q, %v", text, err)
				}
				if _, err := w.service.History(w.ctx(), conversation.HistoryQuery{AgentID: "a", Limit: 10}); err != nil {
					t.Errorf("the conversation cannot be read: %v", err)
				}
				next := w.send(hello("a"))
				if next.First <= pos {
					t.Errorf("the number %d was shown before, and is given again", next.First)
				}
				w.say(next, conversation.Ended{State: conversation.Done})
				w.stop(true)
			}
		})
	}
}

// TestRecoverBehindBlock: a block that was closed while its turn went on reaches beyond the number that it
// has in the log; the end of the turn comes after all of it.
func TestRecoverBehindBlock(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "gateway.db"))
	turn := w.send(hello("a"))
	r, err := w.service.Reader(w.ctx(), "a", conversation.Filter{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x", "y"} { // two increments
		w.say(turn, conversation.Text{Text: text})
		if _, err := r.Next(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	w.stop(true)
	w.edit(`INSERT INTO events (conversation_id, thread_id, turn_id, seq, last_seq, at, kind, text, detail, cuts)
		SELECT conversation_id, thread_id, id, 2, 3, started_at, 2, 'xy', '', x'00010101' FROM turns`)
	w.edit(`DELETE FROM increments`)
	w.start()
	defer w.stop(false)
	got, err := w.service.Turn(w.ctx(), turn.ID)
	if err != nil || got.Last != 4 {
		t.Errorf("the turn ends at %d, want 4: %v", got.Last, err)
	}
}

// TestPoisonedMessage: a message that waits and kills the gateway when it is to be delivered is not tried
// by the next run.
func TestPoisonedMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, path)
		w.leave()
		turn := w.queue("x", "poison", time.Hour)
		deaths := 0
		for range 4 {
			w.log.reading = func() {
				deaths++
				w.log.mu.Lock()
				w.log.dead = true
				w.log.mu.Unlock()
			}
			w.come()
			synctest.Wait()
			w.stop(true)
			w.start()
		}
		if deaths != 1 {
			t.Errorf("the message killed %d runs", deaths)
		}
		got := w.turn(turn.ID)
		if got.State != conversation.Interrupted || got.Cause != "the gateway was restarted" {
			t.Errorf("the turn is %s (%s)", got.State, got.Cause)
		}
		w.stop(false)
	})
}
