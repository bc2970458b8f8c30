// Package store keeps everything in one SQLite database and a folder of files.
//
// There is one connection that writes and a pool of connections that only read. Callers hand the
// writer operations and wait for the commit; all that are waiting are run in one transaction.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/google/uuid"
)

// Memory is the path of a database that lives as long as the process and leaves nothing behind.
const Memory = ":memory:"

// Options say which database to open. All fields are required.
type Options struct {
	Path        string // of the database file, or Memory
	Synchronous string // "full": a commit survives a power cut; "normal": it survives a crash of the process
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Settings of every connection.
const (
	busyTimeout  = 5 * time.Second
	mmapSize     = 1 << 30  // bytes; without it readers queue for the process-wide page cache
	cacheSize    = 16 << 10 // KiB per connection
	walLimit     = 64 << 20 // bytes the write-ahead log is cut back to
	maxReadConns = 8        // more starve the writer
	checkpoint   = 500 * time.Millisecond
	// keeperPatience is how long the writer may be held up for readers when the log is cut back.
	keeperPatience = 250 * time.Millisecond
)

var walTruncateAt int64 = 256 << 20 // changed by a test

// DB is an open database.
type DB struct {
	path   string
	logger *slog.Logger
	read   *sql.DB
	write  *sql.DB
	writer *writer
	keeper *keeper
	lock   *lock
}

// Open opens a database, creates it where it is missing (the folder with mode 0700, the file with
// 0600) and brings its schema up to date. A database that another process has open is refused.
func Open(ctx context.Context, o Options) (*DB, error) {
	db := &DB{path: o.Path, logger: o.Logger}
	err := db.open(ctx, o)
	if damaged(err) {
		err = fmt.Errorf("it is damaged: %w; look at it with coven-gateway doctor", err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", o.Path, err), db.Close())
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, o Options) error {
	var err error
	if o.Path != Memory {
		if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
			return err
		}
		if db.lock, err = acquireLock(o.Path + ".lock"); err != nil {
			return err
		}
		if err := interruptedRestore(o.Path); err != nil {
			return err
		}
		f, err := os.OpenFile(o.Path, os.O_RDWR|os.O_CREATE, 0o600) // before SQLite does it with another mode
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	dsn := dataSource(o)
	if db.write, err = sql.Open("sqlite", dsn("_txlock=immediate")); err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	if o.Path != Memory { // before anything is changed
		if err := sound(ctx, db.write, o.Logger); err != nil {
			return err
		}
	}
	if err := migrate(ctx, db.write); err != nil {
		return err
	}
	if db.read, err = sql.Open("sqlite", dsn("_pragma=query_only(1)")); err != nil {
		return err
	}
	db.read.SetMaxOpenConns(min(max(2, runtime.NumCPU()), maxReadConns))
	db.read.SetMaxIdleConns(maxReadConns)
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return err
	}
	db.writer = newWriter(conn, newMetrics(o.Registerer), db.logger)
	if o.Path != Memory {
		db.keeper, err = newKeeper(db, dsn(""))
	}
	return err
}

// dataSource returns a function that makes the driver's data source name with extra parameters.
func dataSource(o Options) func(extra string) string {
	pragmas := url.Values{}
	for _, p := range []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"foreign_keys(1)",
		"temp_store(MEMORY)",
		fmt.Sprintf("cache_size(-%d)", cacheSize),
	} {
		pragmas.Add("_pragma", p)
	}
	name := url.PathEscape("/coven-"+uuid.NewString()) + "?vfs=memdb&"
	if o.Path != Memory {
		name = (&url.URL{Path: o.Path}).EscapedPath() + "?"
		for _, p := range []string{
			"journal_mode(WAL)",
			"synchronous(" + o.Synchronous + ")",
			"mmap_size(" + strconv.Itoa(mmapSize) + ")",
			"journal_size_limit(" + strconv.Itoa(walLimit) + ")",
			"wal_autocheckpoint(0)",
		} {
			pragmas.Add("_pragma", p)
		}
	}
	return func(extra string) string { return "file:" + name + pragmas.Encode() + "&" + extra }
}

// Close waits for what has been handed to the writer, and closes the database.
func (db *DB) Close() error {
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.keeper != nil {
		errs = append(errs, db.keeper.close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.release())
	}
	return errors.Join(errs...)
}

// Do runs an operation in a transaction and returns when it is committed, with the operation's
// error or the reason why nothing was committed: an Unavailable fault when that is the disk. Operations of several callers may share a
// transaction; each has a savepoint of its own, so that one failure fails one caller.
func (db *DB) Do(ctx context.Context, op func(*Tx) error) error {
	return db.writer.do(ctx, op)
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
