package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/store"
	pb "coven-gateway/proto/coven"
)

var ctx = context.Background()

func placeAt(dir string) store.Place {
	return store.Place{DataDir: dir, Database: filepath.Join(dir, "gateway.db")}
}

func in(p store.Place) func(*config.Config) {
	return func(c *config.Config) {
		c.DataDir, c.Database.Path = p.DataDir, p.Database
		c.Server.ShutdownGrace = 10 * time.Millisecond
	}
}

// live runs a gateway with two turns of one agent whose answers interleave. The first has ended:
//
//	1 message with a file   3, 5 text   7 file   8 usage   9 end
//	2 message               4, 6 text, in an open block
func live(t *testing.T) (stop func(), p store.Place) {
	t.Helper()
	p = placeAt(t.TempDir())
	gw := gatewaytest.New(t, in(p))
	stop = sync.OnceFunc(gw.Stop)
	a := gw.Agent("a")
	s := gw.Conversations()
	r, err := s.Reader(gatewaytest.Ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	until := func(seq int64) {
		t.Helper()
		wait, cancel := context.WithTimeout(gatewaytest.Ctx(), gatewaytest.Patience)
		defer cancel()
		for r.Position() < seq {
			if _, err := r.Next(wait); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"ONE", "TWO", "THREE"} { // records of the audit log
		if _, err := gw.Identity().SetSecret(gatewaytest.Ctx(), "", name, "x"); err != nil {
			t.Fatal(err)
		}
	}
	var turns []string
	for i, files := range [][]conversation.FileData{{{Name: "q.txt", Type: "text/plain", Data: []byte("a question")}}, nil} {
		turn, err := s.Send(gatewaytest.Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: fmt.Sprint("message ", i), Files: files})
		if err != nil {
			t.Fatal(err)
		}
		turns = append(turns, turn.ID)
		a.Message()
	}
	for i, text := range []string{"one ", "eins ", "two ", "zwei "} {
		a.Text(turns[i%2], text)
		until(int64(3 + i))
	}
	a.Reply(&pb.MessageResponse{RequestId: turns[0], Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: "a.txt", MimeType: "text/plain", Data: []byte("an answer")}}})
	a.Reply(&pb.MessageResponse{RequestId: turns[0], Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 1}}})
	a.Done(turns[0], "one two ")
	until(9)
	t.Cleanup(stop) // before the agent leaves
	return stop, p
}

// backup makes a backup of a live gateway.
func backup(t *testing.T) (folder string) {
	t.Helper()
	_, p := live(t)
	folder = filepath.Join(t.TempDir(), "backups", "first")
	if _, err := store.Backup(ctx, p, folder, "v1"); err != nil {
		t.Fatal(err)
	}
	return folder
}

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("the error is %v, want %q in it", err, text)
		}
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	return err == nil
}

// filesBelow returns the files below a folder, with slashes.
func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBackupHasEverything: one folder, private, with all that identifies a gateway and nothing of
// the moment.
func TestBackupHasEverything(t *testing.T) {
	_, p := live(t)
	if err := os.WriteFile(filepath.Join(p.DataDir, "token"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "b")
	if err := os.Mkdir(folder, 0o755); err != nil { // empty
		t.Fatal(err)
	}
	m, err := store.Backup(ctx, p, folder+"/", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if want := (store.Counts{Conversations: 1, Threads: 2, Turns: 2, Events: 6, Files: 2}); m.Counts != want || m.Gateway != "v1" || m.Schema < 2 {
		t.Errorf("the manifest is %+v, want counts %+v", m, want)
	}
	names := filesBelow(t, folder)
	if got := strings.Join(names[2:], " "); got != "gateway.db manifest.json secret secrets.key server_id token" {
		t.Errorf("the backup has %v", names)
	}
	for _, name := range append(names, ".", "files") {
		want := fs.FileMode(0o600)
		fi, err := os.Stat(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.IsDir() {
			want = 0o700
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
	}
	if exists(t, folder+".partial") {
		t.Error("the partial backup is still there")
	}
}

func TestBackupRefuses(t *testing.T) {
	stop, p := live(t)
	stop()
	target := func(t *testing.T) string { return filepath.Join(t.TempDir(), "b") }
	blob := func(t *testing.T) string {
		t.Helper()
		for _, name := range filesBelow(t, p.DataDir) {
			if strings.HasPrefix(name, "files/") {
				return filepath.Join(p.DataDir, name)
			}
		}
		t.Fatal("no file")
		return ""
	}(t)
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, p *store.Place, target string)
		want    string
	}{
		{"a target with something in it", func(t *testing.T, _ *store.Place, target string) {
			if err := os.MkdirAll(filepath.Join(target, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not empty"},
		{"a second backup to the same place", func(t *testing.T, _ *store.Place, target string) {
			if err := os.Mkdir(target+".partial", 0o700); err != nil {
				t.Fatal(err)
			}
		}, "b.partial exists: a backup is being made there"},
		{"no database", func(_ *testing.T, p *store.Place, _ string) { p.Database += "x" }, "there is no database to copy"},
		{"memory", func(_ *testing.T, p *store.Place, _ string) { p.Database = store.Memory }, "nothing to copy"},
		{"a restore half-way", func(t *testing.T, p *store.Place, _ string) { change(t, p.Database+".restoring", 0) }, "a restore was interrupted"},
		{"a damaged file", func(t *testing.T, _ *store.Place, _ string) { change(t, blob, 0) }, blob + " is damaged"},
		{"a missing file", func(t *testing.T, _ *store.Place, _ string) {
			if err := os.Rename(blob, blob+"x"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Rename(blob+"x", blob) })
		}, blob + ": no such file"},
		{"a damaged log", func(t *testing.T, p *store.Place, _ string) {
			execute(t, p.Database, "DELETE FROM events WHERE kind = 8")
		}, "the copy is not good"},
		{"a newer schema", func(t *testing.T, p *store.Place, _ string) {
			execute(t, p.Database, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
		}, "newer gateway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, target := p, target(t)
			c.prepare(t, &p, target)
			before := exists(t, target+".partial")
			_, err := store.Backup(ctx, p, target, "v1")
			wantError(t, err, c.want)
			if exists(t, filepath.Join(target, "manifest.json")) || exists(t, target+".partial") != before {
				t.Error("it left something behind")
			}
		})
	}
}

// change changes a byte of a file until the test ends; a file that does not exist is made.
func change(t *testing.T, path string, at int) {
	t.Helper()
	old, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		t.Cleanup(func() { _ = os.Remove(path) })
		old = []byte("x")
	} else if err != nil {
		t.Fatal(err)
	} else {
		t.Cleanup(func() { _ = os.WriteFile(path, old, 0o600) })
	}
	b := bytes.Clone(old)
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// execute runs a statement on a database that nobody has open.
func execute(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// TestDamagedBackup: a byte that is not what it was is found, whichever it is, and so is a file
// that is not there.
func TestDamagedBackup(t *testing.T) {
	folder := backup(t)
	if _, err := store.VerifyBackup(ctx, folder); err != nil {
		t.Fatal(err)
	}
	for _, name := range filesBelow(t, folder) {
		path := filepath.Join(folder, name)
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		step := 1 // the manifest has to vouch for itself
		if name != "manifest.json" {
			step = max(1, int(fi.Size())/3)
		}
		for at := 0; at < int(fi.Size()); at += step {
			t.Run(fmt.Sprintf("%s/%d", name, at), func(t *testing.T) {
				change(t, path, at)
				_, err := store.VerifyBackup(ctx, folder)
				wantError(t, err, path)
			})
		}
		t.Run(name+"/missing", func(t *testing.T) {
			if err := os.Rename(path, path+"x"); err != nil {
				t.Fatal(err)
			}
			_, err := store.VerifyBackup(ctx, folder)
			wantError(t, err, filepath.Base(path))
			if err := os.Rename(path+"x", path); err != nil {
				t.Fatal(err)
			}
		})
		t.Run(name+"/longer", func(t *testing.T) {
			change(t, path, 0)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[0] ^= 1
			if err := os.WriteFile(path, append(b, ' '), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = store.VerifyBackup(ctx, folder)
			wantError(t, err, path+" is damaged")
		})
	}
}

// TestVerify: what must hold of the log is checked, each rule by itself.
func TestVerify(t *testing.T) {
	_, p := live(t)
	if err := store.Verify(ctx, p.Database); err != nil {
		t.Errorf("a database in use: %v", err)
	}
	folder := filepath.Join(t.TempDir(), "b")
	if _, err := store.Backup(ctx, p, folder, "v1"); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(folder, "gateway.db"))
	if err != nil {
		t.Fatal(err)
	}
	const copyEvent = `INSERT INTO events (conversation_id, thread_id, turn_id, seq, last_seq, at, kind, text, detail)
		SELECT conversation_id, thread_id, turn_id, 10, 10, at, kind, text, detail FROM events WHERE `
	verifyFinds(t, whole, []damage{
		// SQLite does not look for pages that nobody uses when the first table that it comes across is a
		// virtual one, so it is another damage that it has to find.
		{`PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE INDEX events_thread ON events (seq, thread_id)' WHERE name = 'events_thread'`, "missing from index events_thread"},
		{`UPDATE turns SET thread_id = 99 WHERE id = 1`, "row 1 of turns refers to a row of threads that does not exist"},
		{`DELETE FROM events WHERE kind = 1 AND turn_id = 2`, "has 0 messages, its first event is 0 instead of 2"},
		{copyEvent + `seq = 2`, "has 2 messages"},
		{`UPDATE turns SET first_seq = 1 WHERE id = 2`, "has 1 messages, its first event is 2 instead of 1"},
		{`DELETE FROM events WHERE kind = 13`, "is done and has 0 ends"},
		{copyEvent + `kind = 13`, "is done and has 2 ends"},
		{copyEvent + `kind = 13; UPDATE events SET turn_id = 2 WHERE seq = 10`, "is open and has 1 ends"},
		{`UPDATE turns SET last_seq = 10 WHERE id = 1`, "ended as done at 9, its record says done at 10"},
		{`UPDATE turns SET state = 'failed' WHERE id = 1`, "ended as done at 9, its record says failed at 9"},
		{`UPDATE turns SET ended_at = 1 WHERE id = 1`, "ended as done at 9, its record says done at 9"},
		{`UPDATE events SET thread_id = 2 WHERE seq = 7`, "event 7 of conversation 1 is not a part of its turn"},
		{`UPDATE events SET last_seq = 10 WHERE seq = 3`, "event 3 of conversation 1 is not a part of its turn"},
		{`UPDATE events SET last_seq = 8 WHERE seq = 7`, "event 7 of conversation 1 is of kind 9 and reaches to 8"},
		{`UPDATE turns SET state = 'done', last_seq = 6 WHERE id = 2`, "increment 4 of turn"},
		{`UPDATE threads SET agent_id = 'b' WHERE id = 2`, "of agent a is in thread"},
		{`UPDATE threads SET activity = 1 WHERE id = 2`, "is 2, its record says 1"},
		{`UPDATE usage SET seq = 7`, "usage report 1 belongs to no usage event"},
		{`DELETE FROM usage`, "there are 1 usage events and 0 usage reports"},
		{`UPDATE files SET seq = 8 WHERE seq = 7`, "belongs to no event with files"},
		{`DELETE FROM files WHERE seq = 1`, "events name 2 files, there are 1"},
		{`DELETE FROM events WHERE seq = 8`, "8 is missing"},
		{`DELETE FROM increments WHERE seq = 6`, "6 is missing"},
		{`DELETE FROM events WHERE seq > 6; UPDATE increments SET seq = 7 WHERE seq = 6`, "6 is missing"},
		{`UPDATE increments SET seq = 5 WHERE seq = 6`, "5 is there twice"},
		{`UPDATE events SET cuts = x'00' WHERE seq = 3`, "damaged cuts"},
		{`UPDATE events SET text = text || 'x' WHERE seq = 3`, "its cuts end at"},
		{`UPDATE audit_log SET actor = 'x' WHERE seq = 2`, "record 2 of the audit log is not as it was written"},
		{`DELETE FROM audit_log WHERE seq = 1`, "record 1 of the audit log is not as it was written"},
		{`UPDATE events SET last_seq = 2000 WHERE seq = 3`, "further than readers look"},
		{`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`, "newer gateway"},
	})
}

// A damage is what was done to a database, and what Verify says of it.
type damage struct{ damage, want string }

func verifyFinds(t *testing.T, whole []byte, damages []damage) {
	for _, c := range damages {
		t.Run(c.damage, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "gateway.db")
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := store.Verify(ctx, path); err != nil {
				t.Fatalf("undamaged: %v", err)
			}
			execute(t, path, c.damage)
			wantError(t, store.Verify(ctx, path), c.want)
		})
	}
}

// TestRestore: a gateway on a restored backup has the history and the files; what was open has
// been interrupted.
func TestRestore(t *testing.T) {
	folder := backup(t)
	for _, c := range []struct {
		name string
		at   func(dir string) store.Place
	}{
		{"one folder", func(dir string) store.Place { return placeAt(filepath.Join(dir, "new")) }},
		{"the database elsewhere", func(dir string) store.Place {
			return store.Place{DataDir: filepath.Join(dir, "data"), Database: filepath.Join(dir, "db", "my.db")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.at(t.TempDir())
			r, err := store.Restore(ctx, folder, p, false)
			if err != nil || len(r.Aside) > 0 {
				t.Fatalf("moved aside %v: %v", r.Aside, err)
			}
			for _, dir := range []string{p.DataDir, filepath.Dir(p.Database)} {
				if exists(t, filepath.Join(dir, ".restore")) || exists(t, p.Database+".restoring") {
					t.Error("it left something behind")
				}
			}
			for _, name := range []string{"secret", "server_id"} {
				was, err1 := os.ReadFile(filepath.Join(folder, name))
				is, err2 := os.ReadFile(filepath.Join(p.DataDir, name))
				if err1 != nil || err2 != nil || !bytes.Equal(was, is) {
					t.Errorf("%s is %q instead of %q", name, is, was)
				}
			}
			wantHistory(t, p)

			// A backup of the restored gateway has no less.
			if _, err := store.Backup(ctx, p, filepath.Join(t.TempDir(), "again"), "v2"); err != nil {
				t.Error(err)
			}
		})
	}
}

// wantHistory starts a gateway at a place and looks for what live said.
func wantHistory(t *testing.T, p store.Place) {
	t.Helper()
	gw := gatewaytest.New(t, in(p))
	page, err := gw.Conversations().Events(gatewaytest.Ctx(), "a", conversation.Filter{}, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page.Events {
		switch b := e.Body.(type) {
		case conversation.Message:
			got = append(got, b.Text)
		case conversation.Text:
			got = append(got, b.Text)
		case conversation.FileSent:
			resp, err := gw.Client.Get(gw.URL + "/api/files/" + b.File.ID)
			if err != nil {
				t.Fatal(err)
			}
			var content bytes.Buffer
			_, _ = content.ReadFrom(resp.Body)
			resp.Body.Close()
			got = append(got, content.String())
		case conversation.Ended:
			got = append(got, string(b.State))
		}
	}
	const want = "message 0|message 1|one |eins |two |zwei |an answer|done|interrupted"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("the history is %s, want %s", s, want)
	}
}

// TestRestoreKeepsWhatWasThere: nothing is replaced without being asked for, and nothing is lost
// then.
func TestRestoreKeepsWhatWasThere(t *testing.T) {
	folder := backup(t)
	for _, c := range []struct {
		name string
		at   func(dir string) store.Place
	}{
		{"one folder", placeAt},
		{"the database elsewhere", func(dir string) store.Place {
			return store.Place{DataDir: filepath.Join(dir, "data"), Database: filepath.Join(dir, "db", "my.db")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.at(t.TempDir())
			gw := gatewaytest.New(t, in(p))
			_, err := store.Restore(ctx, folder, p, true)
			wantError(t, err, fmt.Sprintf("another gateway (process %d) has it open", os.Getpid()))
			gw.Stop()
			for _, suffix := range []string{"-wal", "-shm"} { // of a gateway that was killed
				if err := os.WriteFile(p.Database+suffix, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(p.DataDir, "files", "aa"), 0o700); err != nil {
				t.Fatal(err)
			}
			before := contents(t, p)

			_, err = store.Restore(ctx, folder, p, false)
			wantError(t, err, "exists; with --force it is moved aside")
			if after := contents(t, p); after != before {
				t.Errorf("a refused restore has changed\n%s\nto\n%s", before, after)
			}
			r, err := store.Restore(ctx, folder, p, true)
			if err != nil {
				t.Fatal(err)
			}
			old := store.Place{DataDir: r.Aside[len(r.Aside)-1], Database: filepath.Join(r.Aside[0], filepath.Base(p.Database))}
			if got := contents(t, old); got != before || !exists(t, filepath.Join(old.DataDir, "files", "aa")) {
				t.Errorf("moved aside was\n%s\ninstead of\n%s", got, before)
			}
			for _, dir := range r.Aside {
				if !strings.HasPrefix(filepath.Base(dir), "before-restore-2") {
					t.Errorf("moved aside into %s", dir)
				}
			}
			wantHistory(t, p)
		})
	}
}

// contents is what a gateway keeps, apart from its lock.
func contents(t *testing.T, p store.Place) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{p.Database, p.Database + "-wal", p.Database + "-shm", filepath.Join(p.DataDir, "secret"), filepath.Join(p.DataDir, "server_id")} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %d bytes, %x\n", filepath.Base(path), len(data), data[:min(len(data), 32)])
	}
	return b.String()
}

func TestDamagedBackupIsNotRestored(t *testing.T) {
	folder := backup(t)
	change(t, filepath.Join(folder, "gateway.db"), 5000)
	p := placeAt(filepath.Join(t.TempDir(), "new"))
	_, err := store.Restore(ctx, folder, p, false)
	wantError(t, err, "the backup is not good", "gateway.db is damaged")
	if exists(t, p.DataDir) {
		t.Error("it has begun all the same")
	}
}

// TestInterruptedRestore: a place where a restore died does not start, until it is restored again.
func TestInterruptedRestore(t *testing.T) {
	folder := backup(t)
	p := placeAt(t.TempDir())
	if err := os.WriteFile(p.Database+".restoring", []byte("of x; what was there before is in y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(p.DataDir, ".restore", "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := tryOpen(p.Database)
	wantError(t, err, "a restore was interrupted: restore again, with --force (of x; what was there before is in y)")
	if _, err := store.Restore(ctx, folder, p, true); err != nil {
		t.Fatal(err)
	}
	wantHistory(t, p)
}

// TestMovesAreUndone: a restore that cannot make its last move has made none.
func TestMovesAreUndone(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"old", "new", "taken"} {
		if err := os.WriteFile(path(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, last := range []string{"missing", "taken"} {
		undone, err := store.MoveAll(path("old"), path("aside"), path("new"), path("old"), path(last), path("taken"))
		if err == nil || !undone {
			t.Errorf("last move from %s: undone %v: %v", last, undone, err)
		}
		for _, name := range []string{"old", "new", "taken"} {
			if b, err := os.ReadFile(path(name)); string(b) != name {
				t.Errorf("%s is %q: %v", name, b, err)
			}
		}
	}
}

// TestLongReader: a reader that does not move, as a backup of a large database, keeps the log from
// being cut back and holds nobody up.
func TestLongReader(t *testing.T) {
	t.Cleanup(store.CutBackAt(1)) // after the database is closed
	reg := prometheus.NewRegistry()
	path := filepath.Join(t.TempDir(), "gateway.db")
	db := openWith(t, path, reg)
	if err := createConversation(db, "first"); err != nil {
		t.Fatal(err)
	}
	reader, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	tx, err := reader.Begin()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT COUNT(*) FROM conversations").Scan(&n); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	var slowest time.Duration
	held := 0
	for i := 0; checkpoints(t, reg) < 8; i++ {
		begin := time.Now()
		if err := createConversation(db, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		slowest = max(slowest, took)
		if took > 200*time.Millisecond {
			held++
		}
	}
	if slowest > 2*time.Second || held > 2 {
		t.Errorf("%d commits were held up, the longest for %v", held, slowest)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	for { // now it is cut back again
		if fi, err := os.Stat(path + "-wal"); err == nil && fi.Size() == 0 {
			break
		}
		if checkpoints(t, reg) > 50 {
			t.Fatal("the log is not cut back")
		}
	}
}

// checkpoints returns how many there have been.
func checkpoints(t *testing.T, reg prometheus.Gatherer) uint64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "coven_store_checkpoint_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("no metric")
	return 0
}
