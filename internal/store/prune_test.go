package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/store"
)

// pruned runs a gateway with three threads of one agent, of which the second was deleted:
//
//	1 message with a file   2 end   3, 4 removed   5 message, of the thread of 1   6 end   7, 8 removed
func pruned(t *testing.T) (gw *gatewaytest.Gateway, p store.Place) {
	t.Helper()
	p = placeAt(t.TempDir())
	gw = gatewaytest.New(t, in(p))
	a := gw.Agent("a")
	for i, thread := range []string{"kept", "gone", "kept", "gone"} {
		turn, err := gw.Conversations().Send(gatewaytest.Ctx(), conversation.SendRequest{
			AgentID: "a", ThreadID: thread, Frontend: "direct", Sender: "me", Text: "hello",
			Files: []conversation.FileData{{Name: "f", Type: "text/plain", Data: fmt.Append(nil, "content ", i)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		a.Done(a.Message().RequestId, "")
		r, err := gw.Conversations().Reader(gatewaytest.Ctx(), "a", conversation.Filter{TurnID: turn.ID}, turn.First)
		if err != nil {
			t.Fatal(err)
		}
		wait, cancel := context.WithTimeout(gatewaytest.Ctx(), gatewaytest.Patience)
		_, err = r.Next(wait) // the end
		cancel()
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := gw.Conversations().DeleteThread(gatewaytest.Ctx(), "gone"); err != nil {
		t.Fatal(err)
	}
	return gw, p
}

// TestVerifyRemoved: what was removed on purpose is no gap, and nothing else is taken for it.
func TestVerifyRemoved(t *testing.T) {
	gw, p := pruned(t)
	gw.Stop()
	whole, err := os.ReadFile(p.Database)
	if err != nil {
		t.Fatal(err)
	}
	verifyFinds(t, whole, []damage{
		{`DELETE FROM pruned WHERE first = 3`, "3 is missing"},
		{`UPDATE pruned SET first = 4 WHERE first = 3`, "3 is missing"},
		{`UPDATE pruned SET last = 5 WHERE first = 3`, "5 is there twice"},
		{`UPDATE pruned SET first = 6 WHERE first = 7`, "6 was removed and is there"},
		{`DELETE FROM events WHERE seq = 2`, "2 is missing"},
		{`UPDATE pruned SET first = 8 WHERE first = 7; INSERT INTO pruned VALUES (1, 7, 7)`, "the removed events 7 to 7 of conversation 1 go on at 8"},
		{`UPDATE turns SET pruned = 1 WHERE first_seq = 5`, "is being removed, and event 5, its first one, is not"},
		{`UPDATE threads SET pruned_seq = 5`, "says that event 5 was removed, which is not so"},
		{`UPDATE turns SET pruned = 1, state = 'open' WHERE first_seq = 5`, "is being removed and is open"},
		{`UPDATE turns SET state = 'open' WHERE first_seq = 5; UPDATE threads SET deleted_at = 1`, "is being deleted and has an open turn"},
	})
}

// TestBackupOfRemoved: a backup has no content that has expired, and a gateway on it goes on counting.
func TestBackupOfRemoved(t *testing.T) {
	gw, p := pruned(t)
	gw.Stop()
	execute(t, p.Database, `UPDATE files SET expired_at = 1 WHERE seq = 1`)
	folder := filepath.Join(t.TempDir(), "b")
	m, err := store.Backup(ctx, p, folder, "v1")
	if err != nil {
		t.Fatal(err)
	}
	contents := 0
	for _, f := range m.Files {
		if filepath.Dir(filepath.Dir(f.Path)) == "files" {
			contents++
		}
		if f.Path == "files.lock" {
			t.Error("the lock was copied")
		}
	}
	if m.Counts.Files != 2 || contents != 1 {
		t.Errorf("%d files with %d contents", m.Counts.Files, contents)
	}
	to := placeAt(t.TempDir())
	if _, err := store.Restore(ctx, folder, to, false); err != nil {
		t.Fatal(err)
	}
	gw = gatewaytest.New(t, in(to))
	page, err := gw.Conversations().Events(gatewaytest.Ctx(), "a", conversation.Filter{}, 0, 100)
	if err != nil || len(page.Events) != 6 || page.Head != 8 {
		t.Errorf("restored: %+v %v", page, err)
	}
	files, err := gw.Conversations().ThreadFiles(gatewaytest.Ctx(), "kept", 10)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if _, err := gw.Conversations().File(gatewaytest.Ctx(), files[0].ID); fault.CodeOf(err) != fault.Removed {
		t.Errorf("a file that has expired: %v", err)
	}
	if _, err := gw.Conversations().File(gatewaytest.Ctx(), files[1].ID); err != nil {
		t.Errorf("one that has not: %v", err)
	}
}

// TestVerifyOlder: a database from before anything could be removed is verified as ever.
func TestVerifyOlder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("migrations"))
	if err == nil {
		_, err = p.UpTo(ctx, 4)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	execute(t, path, `
		INSERT INTO conversations VALUES (1, 'a', 'uid', 1);
		INSERT INTO threads (id, thread_id, agent_id, frontend, external_id, title, created_at, updated_at, activity) VALUES (1, 't', 'a', '', '', '', 1, 1, 1);
		INSERT INTO turns VALUES (1, 'r', 1, 1, '', '', NULL, x'00', 'done', '', 1, 2, 1, 1, 1);
		INSERT INTO events VALUES (1, 1, 1, 1, 1, 1, 1, 1, 'hello', '{}', NULL), (2, 1, 1, 1, 2, 2, 1, 13, '', '{"state":"done"}', NULL)`)
	if err := store.Verify(ctx, path); err != nil {
		t.Error(err)
	}
	execute(t, path, `DELETE FROM events WHERE seq = 1`)
	wantError(t, store.Verify(ctx, path), "1 is missing", "has 0 messages")
}

// TestContents: a content is removed when nobody needs it, and only then.
func TestContents(t *testing.T) {
	dir := t.TempDir()
	blobs := store.OpenBlobs(filepath.Join(dir, "files"))
	needed := false
	used := func() (bool, error) { return needed, nil }
	remove := func(what, name string, wantSettled bool, wantSize int64) {
		t.Helper()
		settled, size, err := blobs.Remove(name, used)
		if err != nil || settled != wantSettled || size != wantSize {
			t.Errorf("%s: settled %v, %d bytes: %v", what, settled, size, err)
		}
	}
	put := func(data string) string {
		t.Helper()
		name, err := blobs.Put(ctx, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	name := put("data")
	remove("while it is being stored", name, false, 0)
	put("data")
	blobs.Release(name)
	remove("while somebody else stores it", name, false, 0)
	blobs.Release(name)
	needed = true
	remove("while a file has it", name, true, 0)
	needed = false
	release, err := store.HoldContents(dir)
	if err != nil {
		t.Fatal(err)
	}
	remove("while a backup is made", name, false, 0)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	f, err := blobs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	remove("at last", name, true, 4)
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, []byte("data")) {
		t.Errorf("a download under way has got %q: %v", b, err)
	}
	if _, err := blobs.Open(name); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a content that is gone: %v", err)
	}
	remove("again", name, true, 0)

	// Whoever stores it again while it is being removed waits, and finds it gone.
	put("data")
	blobs.Release(name)
	started, stored := make(chan struct{}), make(chan error, 1)
	_, _, err = blobs.Remove(name, func() (bool, error) {
		go func() {
			close(started)
			_, err := blobs.Put(ctx, []byte("data"))
			stored <- err
		}()
		<-started
		return false, nil
	})
	if err := errors.Join(err, <-stored); err != nil {
		t.Error(err)
	}
	if f, err := blobs.Open(name); err != nil {
		t.Errorf("what was stored during its removal: %v", err)
	} else {
		f.Close()
	}
	blobs.Release(name)

	// What a process left that was killed.
	half := filepath.Join(dir, "files", name[:2], ".new-123")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	strays := func(before time.Time) (names []string) {
		t.Helper()
		if err := blobs.Strays(before, func(name string) error { names = append(names, name); return nil }); err != nil {
			t.Error(err)
		}
		return names
	}
	if got := strays(time.Now().Add(-time.Hour)); len(got) != 0 || !exists(t, half) {
		t.Errorf("what is new was taken for a stray: %v", got)
	}
	if got := strays(time.Now().Add(time.Hour)); len(got) != 1 || got[0] != name || exists(t, half) {
		t.Errorf("strays are %v", got)
	}
}

// TestOneMoment: what is there and what was removed is read as it was at one moment.
func TestOneMoment(t *testing.T) {
	log := open(t, filepath.Join(t.TempDir(), "gateway.db")).Log(nil)
	const turns = 400
	var id int64
	for from := 0; from < turns; from += 100 {
		err := log.Commit(ctx, func(tx conversation.Tx) error {
			c, err := tx.Conversation("a")
			if err != nil {
				return err
			}
			id = c.ID
			for i := from; i < from+100; i++ {
				name, at := fmt.Sprint(i), time.Now()
				_, ref, _, err := tx.Begin(conversation.NewTurn{
					Turn: conversation.Turn{ID: name, AgentID: "a", ThreadID: "t", StartedAt: at, First: int64(i) + 1}, Conversation: id, Digest: []byte{}, Oversees: true,
				})
				if err != nil {
					return err
				}
				if err := tx.Append(ref, conversation.Record{Ref: ref, Seq: int64(i) + 1, Last: int64(i) + 1, At: at, Kind: conversation.KindTrouble}); err != nil {
					return err
				}
				if err := tx.End(ref, conversation.EndedTurn{State: conversation.Done, Last: int64(i) + 1, At: at}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				page, err := log.Records(ctx, conversation.Query{Conversation: id, Until: turns, Limit: 2 * turns, Removed: true})
				if err != nil {
					t.Error(err)
					return
				}
				told := map[int64]int{}
				for _, r := range page.Records {
					told[r.Seq]++
				}
				for _, r := range page.Removed {
					for n := r.First; n <= r.Last; n++ {
						told[n]++
					}
				}
				for n := int64(1); n <= page.Complete; n++ {
					if told[n] != 1 {
						t.Errorf("%d was told %d times", n, told[n])
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range turns {
		err := log.Commit(ctx, func(tx conversation.Tx) error {
			_, err := tx.Prune(fmt.Sprint((i*7)%turns), 10)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}
