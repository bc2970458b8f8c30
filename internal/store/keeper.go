package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"time"
)

// A keeper copies the write-ahead log into the database, on a connection of its own, so that no
// commit has to wait for it.
type keeper struct {
	db   *DB
	pool *sql.DB
	stop chan struct{}
	done chan struct{}
}

func newKeeper(db *DB, dsn string) (*keeper, error) {
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(1)
	k := &keeper{db, pool, make(chan struct{}), make(chan struct{})}
	go k.run()
	return k, nil
}

func (k *keeper) run() {
	defer close(k.done)
	tick := time.NewTicker(checkpoint)
	defer tick.Stop()
	for { // at once: a process that was killed may have left a long log, and the next start reads it
		if err := k.tend(); err != nil {
			k.db.logger.Error("checkpoint failed", "error", err)
		}
		select {
		case <-tick.C:
		case <-k.stop:
			return
		}
	}
}

func (k *keeper) tend() error {
	size := k.size()
	k.db.writer.metrics.walBytes.Set(float64(size))
	switch {
	case size == 0:
		return nil
	case size > walTruncateAt:
		return k.checkpoint("TRUNCATE")
	}
	return k.checkpoint("PASSIVE")
}

func (k *keeper) size() int64 {
	fi, err := os.Stat(k.db.path + "-wal")
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (k *keeper) checkpoint(mode string) error {
	start := time.Now()
	_, err := k.pool.ExecContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")")
	k.db.writer.metrics.checkpoints.Observe(time.Since(start).Seconds())
	return err
}

// close makes the last checkpoint. The writer has stopped by then.
func (k *keeper) close() error {
	close(k.stop)
	<-k.done
	return errors.Join(k.checkpoint("TRUNCATE"), k.pool.Close())
}
