package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// A keeper copies the write-ahead log into the database, on a connection of its own, so that no
// commit has to wait for it.
type keeper struct {
	db   *DB
	pool *sql.DB
	stop chan struct{}
	done chan struct{}

	failure atomic.Pointer[error] // of the last checkpoint; nil when it succeeded

	copied int64 // frames of the log that were in the database after the last checkpoint; owned by run
}

func newKeeper(db *DB, dsn string) (*keeper, error) {
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(1)
	if _, err := pool.Exec(fmt.Sprintf("PRAGMA busy_timeout = %d", keeperPatience.Milliseconds())); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	k := &keeper{db: db, pool: pool, stop: make(chan struct{}), done: make(chan struct{})}
	go k.run()
	return k, nil
}

func (k *keeper) run() {
	defer close(k.done)
	tick := time.NewTicker(checkpoint)
	defer tick.Stop()
	for { // at once: a process that was killed may have left a long log, and the next start reads it
		k.settle(k.tend())
		select {
		case <-tick.C:
		case <-k.stop:
			return
		}
	}
}

// settle remembers how a checkpoint has ended. One that fails is tried again for ever; the log hears of
// it once.
func (k *keeper) settle(err error) {
	was := k.failure.Load()
	switch {
	case err == nil && was != nil:
		k.failure.Store(nil)
		k.db.logger.Info("the write-ahead log can be copied into the database again")
	case err != nil:
		err = fmt.Errorf("the write-ahead log cannot be copied into the database: %w", err)
		k.failure.Store(&err)
		if was == nil {
			k.db.logger.Error("checkpoint failed", "error", err)
		}
	}
}

func (k *keeper) tend() error {
	size := bytesOf(k.db.path + "-wal")
	k.db.writer.metrics.walBytes.Set(float64(size))
	k.db.writer.metrics.bytes.Set(float64(bytesOf(k.db.path)))
	if size == 0 {
		return nil
	}
	before := k.copied
	frames, err := k.checkpoint("PASSIVE")
	// To cut the log back is to hold up the writer until all readers have let go of it. One that
	// has not moved since the last time, such as a backup, is not going to do so in a moment.
	if err == nil && size > walTruncateAt && (k.copied == frames || k.copied != before) {
		_, err = k.checkpoint("TRUNCATE")
	}
	return err
}

// bytesOf returns the size of a file; 0 if there is none.
func bytesOf(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// checkpoint returns how many frames the log has. That a reader or the writer kept it from
// finishing is no error.
func (k *keeper) checkpoint(mode string) (frames int64, err error) {
	start := time.Now()
	var busy bool
	err = k.pool.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &frames, &k.copied)
	k.db.writer.metrics.checkpoints.Observe(time.Since(start).Seconds())
	return frames, err
}

// close makes the last checkpoint. The writer has stopped by then.
func (k *keeper) close() error {
	close(k.stop)
	<-k.done
	_, err := k.checkpoint("TRUNCATE")
	return errors.Join(err, k.pool.Close())
}
