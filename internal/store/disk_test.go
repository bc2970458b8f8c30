package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/store"
)

func watch(t *testing.T, db *store.DB, minFree int64, reg prometheus.Registerer) *store.Watch {
	t.Helper()
	w := store.NewWatch(store.WatchOptions{
		DB: db, Blobs: store.OpenBlobs(filepath.Join(t.TempDir(), "files")), MinFree: minFree,
		Logger: slog.New(slog.DiscardHandler), Registerer: reg,
	})
	t.Cleanup(w.Close)
	return w
}

// until waits until a condition of something that other goroutines do holds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("%s: not in ten seconds", what)
}

// TestFullDatabase: while the database cannot grow, what is acknowledged is there and what is refused is
// not, and each caller hears which; when it can grow again it is healthy without anybody's doing.
func TestFullDatabase(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
	w := watch(t, db, 0, prometheus.NewRegistry())
	if err := w.Healthy(); err != nil {
		t.Fatal(err)
	}
	limit := func(pages int64) {
		t.Helper()
		if err := db.Do(t.Context(), store.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages))); err != nil {
			t.Fatal(err)
		}
	}
	limit(200) // it has about a hundred
	var mu sync.Mutex
	outcomes := map[string]error{}
	var load sync.WaitGroup
	for i := range 16 {
		load.Go(func() {
			for j := range 40 {
				id := fmt.Sprintf("%d-%d-%s", i, j, strings.Repeat("x", 2000))
				err := createConversation(db, id)
				mu.Lock()
				outcomes[id] = err
				mu.Unlock()
			}
		})
	}
	load.Wait()
	refused := 0
	for id, err := range outcomes {
		conv, readErr := db.Log(nil).Conversation(t.Context(), id)
		if readErr != nil || (conv.ID != 0) != (err == nil) {
			t.Fatalf("%s…: said %v, found %+v, %v", id[:8], err, conv, readErr)
		}
		if err != nil {
			refused++
			if got, want := fault.Message(err), "the disk is full; nothing was stored"; fault.CodeOf(err) != fault.Unavailable || got != want {
				t.Fatalf("a caller hears %q (%v)", got, err)
			}
		}
	}
	if refused == 0 || refused == len(outcomes) {
		t.Fatalf("%d of %d refused", refused, len(outcomes))
	}
	if err := w.Healthy(); err == nil || !strings.HasPrefix(err.Error(), "the disk is full") {
		t.Errorf("healthy: %v", err)
	}
	if err := db.Probe(); err == nil {
		t.Error("a database that cannot grow passes for one that can be written")
	}
	limit(math.MaxInt32)
	until(t, "healthy again", func() bool { return w.Healthy() == nil })
}

// TestDiskError: an error of the disk fails those whose commit it was, in words, and is over when the
// next commit succeeds.
func TestDiskError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.EIO, "the disk reports an error; nothing was stored"},
		{syscall.EROFS, "the file system is read-only; nothing was stored"},
		{syscall.ENOSPC, "the disk is full; nothing was stored"},
	} {
		db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
		w := watch(t, db, 0, prometheus.NewRegistry())
		db.Interfere(func() error { return c.err })
		if err := createConversation(db, "a"); fault.CodeOf(err) != fault.Unavailable || fault.Message(err) != c.want {
			t.Errorf("%v: a caller hears %v", c.err, err)
		}
		if w.Healthy() == nil {
			t.Errorf("%v: healthy", c.err)
		}
		db.Interfere(nil)
		if err := createConversation(db, "b"); err != nil {
			t.Error(err)
		}
		if err := w.Healthy(); err != nil {
			t.Errorf("after a commit: %v", err)
		}
		if conv, err := db.Log(nil).Conversation(t.Context(), "a"); err != nil || conv.ID != 0 {
			t.Errorf("what was refused is there: %+v, %v", conv, err)
		}
	}
}

// TestReadOnlyDatabase: SQLite's own word for it.
func TestReadOnlyDatabase(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
	w := watch(t, db, 0, prometheus.NewRegistry())
	err := db.Do(t.Context(), func(tx *store.Tx) error {
		return errors.Join(store.Exec("PRAGMA query_only = 1")(tx), store.Exec("DELETE FROM disk_probe")(tx), store.Exec("PRAGMA query_only = 0")(tx))
	})
	if want := "the database cannot be written: it, or its file system, is read-only; nothing was stored"; fault.Message(err) != want {
		t.Errorf("a caller hears %v", err)
	}
	if w.Healthy() == nil {
		t.Error("healthy")
	}
	until(t, "healthy again", func() bool { return w.Healthy() == nil })
}

// TestDiskDoesNotAnswer: a commit that hangs is seen from outside, and is only slow once it is done.
func TestDiskDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
		w := watch(t, db, 0, prometheus.NewRegistry())
		answer := make(chan struct{})
		db.Interfere(func() error { <-answer; return nil })
		done := make(chan error, 1)
		go func() { done <- createConversation(db, "a") }()
		time.Sleep(9 * time.Second) // takes no time
		if err := w.Healthy(); err != nil {
			t.Errorf("after 9 s: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := w.Healthy(); err == nil || !strings.HasPrefix(err.Error(), "the disk does not answer") {
			t.Errorf("after 11 s: %v", err)
		}
		if conv, err := db.Log(nil).Conversation(context.Background(), "a"); err != nil || conv.ID != 0 {
			t.Errorf("a reader sees what is not committed: %+v, %v", conv, err)
		}
		close(answer)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

func TestLittleRoom(t *testing.T) {
	for minFree, want := range map[int64]bool{0: true, 1: true, math.MaxInt64: false} {
		reg := prometheus.NewRegistry()
		w := watch(t, open(t, filepath.Join(t.TempDir(), "gateway.db")), minFree, reg)
		err := w.Healthy()
		if (err == nil) != want {
			t.Errorf("database.min_free %d: %v", minFree, err)
		}
		if err != nil && !strings.Contains(err.Error(), "database.min_free is") {
			t.Error(err)
		}
		if n, err := testutil.GatherAndCount(reg, "coven_disk_free_bytes"); err != nil || n != 2 {
			t.Errorf("%d figures: %v", n, err)
		}
	}
}
