package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxOperations bounds the operations of one transaction, and those that wait for the next one.
const maxOperations = 256

var errClosed = errors.New("the database is closed")

// A writer runs operations on the only connection that writes. It has no goroutine: the caller who
// finds the connection free leads, and runs what others have queued meanwhile together with its own
// operation. Under light load a commit costs no switch of goroutines, under heavy load batches form.
type writer struct {
	ops     chan *operation
	metrics *metrics
	logger  *slog.Logger

	mu     sync.RWMutex // held for reading while an operation is being queued
	closed bool

	failure   atomic.Pointer[error]        // what the disk did to the last transaction; nil when it was written
	since     atomic.Int64                 // when the transaction under way began, in nanoseconds since 1970; 0 while there is none
	interfere atomic.Pointer[func() error] // what tests do instead of a disk, before each COMMIT

	lead chan struct{} // capacity 1, full while somebody leads; what is below belongs to the leader

	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

type operation struct {
	run  func(*Tx) error
	done chan error // capacity 1
}

// A Tx is the writer's open transaction. It is valid until the operation returns.
type Tx struct{ w *writer }

func newWriter(conn *sql.Conn, m *metrics, logger *slog.Logger) *writer {
	return &writer{
		ops: make(chan *operation, maxOperations), metrics: m, logger: logger,
		lead: make(chan struct{}, 1), conn: conn, stmts: make(map[string]*sql.Stmt),
	}
}

func (w *writer) do(ctx context.Context, run func(*Tx) error) error {
	op := &operation{run, make(chan error, 1)}
	if err := w.queue(ctx, op); err != nil {
		return err
	}
	// It is going to be run, so its outcome is worth the wait.
	select {
	case err := <-op.done:
		return err
	case w.lead <- struct{}{}:
		defer func() { <-w.lead }()
	}
	for {
		select {
		case err := <-op.done: // by us, or by an earlier leader
			return err
		default:
			w.runQueued()
		}
	}
}

func (w *writer) queue(ctx context.Context, op *operation) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errClosed
	}
	select {
	case w.ops <- op:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close waits until everybody has their outcome and closes the connection.
func (w *writer) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.lead <- struct{}{} // for ever
	for len(w.ops) > 0 {
		w.runQueued()
	}
	var errs []error
	for _, s := range w.stmts { // SQLite keeps a connection open for as long as it has statements
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// runQueued runs what is queued, at most maxOperations, in one transaction.
func (w *writer) runQueued() {
	var batch []*operation
	for range min(len(w.ops), maxOperations) {
		batch = append(batch, <-w.ops)
	}
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	w.since.Store(start.UnixNano())
	errs, committed := w.commit(batch)
	w.settle(committed, errs)
	w.since.Store(0)
	took := time.Since(start)
	w.metrics.transactions.Observe(took.Seconds())
	w.metrics.operations.Observe(float64(len(batch)))
	if took > slowAfter {
		w.logger.Warn("a write took long: the disk is slow, or another program keeps it busy", "duration", took, "operations", len(batch))
	}
	for i, op := range batch {
		op.done <- unstored(errs[i])
	}
}

// commit runs operations in one transaction and returns the outcome of each, and whether those that
// succeeded were committed.
func (w *writer) commit(batch []*operation) (errs []error, committed bool) {
	errs = make([]error, len(batch))
	tx := &Tx{w}
	fail := func(err error) ([]error, bool) {
		_, rollback := tx.exec("ROLLBACK")
		if diskTrouble(err) != "" {
			rollback = nil // mostly that SQLite has done it by itself; if not, the next BEGIN says so
		}
		for i := range errs {
			if errs[i] == nil {
				errs[i] = errors.Join(err, rollback)
			}
		}
		return errs, false
	}
	if _, err := tx.exec("BEGIN IMMEDIATE"); err != nil {
		for i := range errs {
			errs[i] = fmt.Errorf("begin: %w", err)
		}
		return errs, false
	}
	if len(batch) == 1 {
		if err := batch[0].run(tx); err != nil {
			return fail(err)
		}
	} else {
		for i, op := range batch {
			if err := tx.savepoint(op.run, &errs[i]); err != nil {
				return fail(err)
			}
		}
	}
	if f := w.interfere.Load(); f != nil {
		if err := (*f)(); err != nil {
			return fail(fmt.Errorf("commit: %w", err))
		}
	}
	if _, err := tx.exec("COMMIT"); err != nil {
		return fail(fmt.Errorf("commit: %w", err))
	}
	return errs, true
}

// savepoint runs an operation and undoes it alone when it fails.
func (tx *Tx) savepoint(run func(*Tx) error, outcome *error) error {
	if _, err := tx.exec("SAVEPOINT operation"); err != nil {
		return err
	}
	if *outcome = run(tx); *outcome != nil {
		if _, err := tx.exec("ROLLBACK TO operation"); err != nil {
			// SQLite has undone the whole transaction, as it may when the disk fails.
			return errors.Join(*outcome, err)
		}
	}
	_, err := tx.exec("RELEASE operation")
	return err
}

// stmt returns a statement that is prepared once.
func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	s := tx.w.stmts[query]
	if s == nil {
		var err error
		if s, err = tx.w.conn.PrepareContext(context.Background(), query); err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		tx.w.stmts[query] = s
	}
	return s, nil
}

// The statements of a transaction run without a context: one that is cancelled half-way would
// fail the others in the transaction.

func (tx *Tx) exec(query string, args ...any) (sql.Result, error) {
	s, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.Background(), args...)
}

func (tx *Tx) queryRow(query string, args []any, dest ...any) error {
	s, err := tx.stmt(query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(context.Background(), args...).Scan(dest...)
}

// metrics are the figures of this package.
type metrics struct {
	transactions prometheus.Histogram
	operations   prometheus.Histogram
	walBytes     prometheus.Gauge
	bytes        prometheus.Gauge
	checkpoints  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		transactions: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_store_transaction_seconds", Help: "Duration of write transactions.", Buckets: prometheus.ExponentialBuckets(0.00005, 2, 15)}),
		operations:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_store_operations", Help: "Operations per write transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		walBytes:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_store_wal_bytes", Help: "Size of the write-ahead log."}),
		bytes:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_store_bytes", Help: "Size of the database, without its write-ahead log."}),
		checkpoints:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_store_checkpoint_seconds", Help: "Duration of checkpoints.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}),
	}
	reg.MustRegister(m.transactions, m.operations, m.walBytes, m.bytes, m.checkpoints)
	return m
}
