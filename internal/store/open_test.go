package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/store"
)

func open(t testing.TB, path string) *store.DB {
	t.Helper()
	return openWith(t, path, prometheus.NewRegistry())
}

func openWith(t testing.TB, path string, reg prometheus.Registerer) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), store.Options{Path: path, Synchronous: "full", Logger: slog.New(slog.DiscardHandler), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func tryOpen(path string) (*store.DB, error) {
	return store.Open(context.Background(), store.Options{Path: path, Synchronous: "full", Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	db, err := tryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another gateway (process %d) has it open", os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	path := filepath.Join(dir, "gateway.db")
	db := open(t, path)
	if err := db.Do(context.Background(), func(*store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, path + ".lock": 0o600} {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(name), fi.Mode(), want)
		}
	}
}

// TestMemory: a database in memory is one database for all connections, also when many use it.
func TestMemory(t *testing.T) {
	db := open(t, store.Memory)
	other := open(t, store.Memory)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			agent := fmt.Sprintf("agent-%d", i)
			if err := createConversation(db, agent); err != nil {
				t.Error(err)
			}
			c, err := db.Log(nil).Conversation(context.Background(), agent)
			if err != nil || c.ID == 0 {
				t.Errorf("conversation %d: %v", c.ID, err)
			}
		})
	}
	wg.Wait()
	if c, err := other.Log(nil).Conversation(context.Background(), "agent-1"); err != nil || c.ID != 0 {
		t.Errorf("another database in memory has conversation %d: %v", c.ID, err)
	}
}

// TestFailureIsAlone: of operations that share a transaction one fails, the others are kept.
func TestFailureIsAlone(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
	failure := errors.New("no")
	var wg sync.WaitGroup
	running, start := make(chan struct{}), make(chan struct{})
	wg.Go(func() { // holds the writer until everybody is queued
		_ = db.Do(context.Background(), func(*store.Tx) error { close(running); <-start; return nil })
	})
	<-running
	for i := range 20 {
		wg.Go(func() {
			err := db.Do(context.Background(), store.CreateConversation(fmt.Sprint(i), func() error {
				if i%2 == 1 {
					return failure
				}
				return nil
			}))
			if (i%2 == 1) != errors.Is(err, failure) {
				t.Errorf("operation %d: %v", i, err)
			}
		})
	}
	for db.Queued() < 20 {
		runtime.Gosched()
	}
	close(start)
	wg.Wait()
	for i := range 20 {
		c, err := db.Log(nil).Conversation(context.Background(), fmt.Sprint(i))
		if err != nil || (c.ID != 0) != (i%2 == 0) {
			t.Errorf("conversation %d has id %d: %v", i, c.ID, err)
		}
	}
}

func TestClosedDatabaseRefuses(t *testing.T) {
	db, err := tryOpen(filepath.Join(t.TempDir(), "gateway.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Do(context.Background(), func(*store.Tx) error { return nil }); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("operation after Close: %v", err)
	}
}

func TestEditedMigrationIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	db, err := tryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Do(context.Background(), store.Exec(`UPDATE migration_checksums SET sha256 = 'other' WHERE version = 1`)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(path); err == nil || !strings.Contains(err.Error(), "migration 1 was changed") {
		t.Errorf("open: %v", err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	db, err := tryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Do(context.Background(), store.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(path); err == nil || !strings.Contains(err.Error(), "newer gateway") {
		t.Errorf("open: %v", err)
	}
}

func createConversation(db *store.DB, agent string) error {
	return db.Do(context.Background(), store.CreateConversation(agent, func() error { return nil }))
}

// TestPragmas: what makes commits durable and readers fast holds on every connection.
func TestPragmas(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "gateway.db"))
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "mmap_size": "1073741824", "wal_autocheckpoint": "0", "query_only": "0"}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	write, read, err := db.Pragmas(names...)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(write, want) {
		t.Errorf("the writer has %v, want %v", write, want)
	}
	want["query_only"] = "1"
	if !maps.Equal(read, want) {
		t.Errorf("a reader has %v, want %v", read, want)
	}
}
