package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"coven-gateway/internal/fault"
)

const (
	// lookEvery is how often a Watch looks at the disk, and tries one that has failed.
	lookEvery = time.Second
	// stuckAfter is how long a transaction may take before the disk is said not to answer, slowAfter
	// how long before the log mentions it.
	stuckAfter = 10 * time.Second
	slowAfter  = time.Second
	// probeBytes is what is written to try a database that has failed: more than one page, so that
	// the room that small changes find in pages does not count.
	probeBytes = 64 << 10
)

// diskTrouble says in words what the disk did to a write, or "" when err comes from elsewhere.
func diskTrouble(err error) string {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the rest of an extended code says where in SQLite it was noticed
		case sqlite3.SQLITE_FULL:
			return "the disk is full"
		case sqlite3.SQLITE_READONLY:
			return "the database cannot be written: it, or its file system, is read-only"
		case sqlite3.SQLITE_IOERR:
			return "the disk reports an error"
		case sqlite3.SQLITE_CANTOPEN:
			return "the files of the database cannot be opened"
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return "the database is damaged (stop the gateway and run coven-gateway doctor)"
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return "another program holds the database"
		}
		return ""
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "the disk is full"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only"
	case errors.Is(err, syscall.EFBIG):
		return "the file would be larger than this process may write"
	case errors.Is(err, syscall.EIO):
		return "the disk reports an error"
	case errors.Is(err, fs.ErrPermission):
		return "the gateway may not write there"
	}
	return ""
}

// unstored returns the error of a write that was not done as one for its caller. It is an Unavailable
// fault where the disk is the reason. What is a fault already, or has another reason, stays as it is.
func unstored(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if trouble := diskTrouble(err); trouble != "" {
		return fault.Wrap(err, fault.Unavailable, "%s; nothing was stored", trouble)
	}
	return err
}

// healthy returns why the last transaction could not be written, or why the one under way may not be.
func (w *writer) healthy() error {
	if err := w.failure.Load(); err != nil {
		return *err
	}
	if since := w.since.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > stuckAfter {
			return fmt.Errorf("the disk does not answer: a write has been under way for %v", d.Round(time.Second))
		}
	}
	return nil
}

// settle remembers how a transaction has ended.
func (w *writer) settle(committed bool, errs []error) {
	for _, err := range errs {
		if trouble := diskTrouble(err); trouble != "" {
			err = fmt.Errorf("%s: %w", trouble, err)
			w.failure.Store(&err)
			return
		}
	}
	if committed {
		w.failure.Store(nil)
	}
}

// probe writes something and removes it again.
func (tx *Tx) probe() error {
	if _, err := tx.exec(`INSERT INTO disk_probe (data) VALUES (randomblob($1))`, probeBytes); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM disk_probe`)
	return err
}

// A Watch looks after the disk: how much room is left, and whether something that could not be written
// can be again. Nothing else needs to happen for a gateway to come back after its disk has.
type Watch struct {
	db     *DB
	blobs  *Blobs
	logger *slog.Logger
	least  int64 // bytes
	free   *prometheus.GaugeVec

	low     atomic.Pointer[error] // that there is too little room
	unknown bool                  // the room could not be asked for; owned by run
	stop    chan struct{}
	done    chan struct{}
}

// WatchOptions are what a Watch needs. All fields but MinFree are required.
type WatchOptions struct {
	DB         *DB
	Blobs      *Blobs
	MinFree    int64 // bytes of room below which the disk is not healthy; 0 for never
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// NewWatch begins to watch. It is to be closed before the database.
func NewWatch(o WatchOptions) *Watch {
	w := &Watch{
		db: o.DB, blobs: o.Blobs, logger: o.Logger, least: o.MinFree,
		free: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "coven_disk_free_bytes", Help: "Room in the file system of what is kept."}, []string{"kept"}),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	o.Registerer.MustRegister(w.free)
	w.look()
	go w.run()
	return w
}

// Close ends the watch.
func (w *Watch) Close() {
	close(w.stop)
	<-w.done
}

// Healthy returns why nothing can be stored, or why that is going to be so soon; nil while all is well.
// It does not wait for the disk.
func (w *Watch) Healthy() error {
	if err := w.db.writer.healthy(); err != nil {
		return err
	}
	if err := w.db.copying(); err != nil {
		return err
	}
	if err := w.blobs.failure.Load(); err != nil {
		return *err
	}
	if err := w.low.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *Watch) run() {
	defer close(w.done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
		w.look()
		if w.db.writer.failure.Load() != nil && w.db.Do(context.Background(), (*Tx).probe) == nil {
			w.logger.Info("the database can be written again")
		}
		if w.blobs.failure.Load() != nil && w.blobs.probe() == nil {
			w.logger.Info("files can be stored again")
		}
	}
}

// look measures the room that is left.
func (w *Watch) look() {
	dirs := map[string]string{"files": filepath.Dir(w.blobs.dir)} // where the folder is going to be
	if w.db.path != Memory {
		dirs["database"] = filepath.Dir(w.db.path)
	}
	var low error
	for kept, dir := range dirs {
		n, err := freeBytes(dir)
		if err != nil {
			if !w.unknown {
				w.logger.Warn("the room on the disk is not known", "folder", dir, "error", err)
			}
			w.unknown = true
			continue
		}
		w.free.WithLabelValues(kept).Set(float64(n))
		if n < w.least {
			low = fmt.Errorf("the disk is almost full: %d bytes are free in %s, database.min_free is %d", n, dir, w.least)
		}
	}
	was := w.low.Load()
	switch {
	case low == nil && was != nil:
		w.low.Store(nil)
		w.logger.Info("there is room on the disk again")
	case low != nil:
		w.low.Store(&low)
		if was == nil {
			w.logger.Warn("there is little room on the disk; the gateway says that it is not ready", "error", low)
		}
	}
}

// copying returns why the write-ahead log cannot be copied into the database, or nil.
func (db *DB) copying() error {
	if db.keeper == nil {
		return nil
	}
	if err := db.keeper.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// failed remembers that a content could not be written, and returns the error for the caller.
func (b *Blobs) failed(err error) error {
	trouble := diskTrouble(err)
	if trouble == "" {
		trouble = "the files cannot be written"
	}
	reason := fmt.Errorf("%s: %w", trouble, err)
	b.failure.Store(&reason)
	return fault.Wrap(err, fault.Unavailable, "%s; nothing was stored", trouble)
}

// probe writes a content that is no content and removes it again.
func (b *Blobs) probe() error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(b.dir, newPrefix+"probe")
	if err := errors.Join(writeDurably(path, make([]byte, probeBytes)), os.Remove(path)); err != nil {
		return err
	}
	b.failure.Store(nil)
	return nil
}
