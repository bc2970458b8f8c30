package conversation

import (
	"context"
	"errors"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Retention says what is kept; zero values keep everything.
type Retention struct {
	Events      time.Duration // turns that ended longer ago are removed
	EventsBytes int64         // beyond so much, the turns that ended first are removed, in bytes of their events
	Files       time.Duration // the content of files that came longer ago is removed
	FilesBytes  int64         // beyond so much, the oldest contents are removed
}

const (
	// retainEvery is how often it is looked for what is not kept any more.
	retainEvery = time.Hour
	// keeperPause is between two steps of the keeper, so that others come first.
	keeperPause = 20 * time.Millisecond
	// maxOutdated bounds the turns and files that are looked up at once.
	maxOutdated = 256
	// maxExpire bounds the files of one commit, and the contents that are removed between two pauses.
	maxExpire = 64
)

// A Run is what a run of retention has removed.
type Run struct {
	BeganAt time.Time
	Turns   int64 // that are gone
	Events  int64
	Bytes   int64 // of events
	Threads int64
	Files   int64 // whose content has expired
}

func (n *Run) add(r Removal) {
	n.Events += r.Events
	n.Bytes += r.Bytes
	if r.Gone {
		n.Turns++
	}
	if r.ThreadGone {
		n.Threads++
	}
}

// An OutdatedTurn is a turn that is not kept any more.
type OutdatedTurn struct{ ID, AgentID string }

// An OldFile is a file that has its content.
type OldFile struct {
	ID string
	At time.Time
}

// An Orphan is a content to which, perhaps, nothing refers.
type Orphan struct {
	Key    int64 // they grow
	SHA256 string
}

// A keeper removes what is not kept: the rest of threads whose deletion has begun, turns and files that
// are too old, and contents to which nothing refers. Its one goroutine works in small steps, with
// pauses. Nothing that it does has to be done at once, and everything it has begun is found again by
// the keeper of the next start.
type keeper struct {
	s     *Service
	keep  Retention
	pause time.Duration // between two steps
	start time.Time
	wake  chan struct{} // capacity 1
	ctx   context.Context
	stop  context.CancelFunc
	done  chan struct{} // closed when run returns
}

func newKeeper(s *Service, r Retention) *keeper {
	k := &keeper{s: s, keep: r, pause: keeperPause, start: time.Now(), wake: make(chan struct{}, 1), done: make(chan struct{})}
	k.ctx, k.stop = context.WithCancel(context.Background())
	go k.run()
	return k
}

// poke asks for a look at what was left to be removed.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// close ends the keeper behind its current step.
func (k *keeper) close() {
	k.stop()
	<-k.done
}

func (k *keeper) run() {
	defer close(k.done)
	k.try("what the last run left", k.strays)
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-k.wake:
		case <-next.C:
			k.try("what is not kept any more", k.retain)
			next.Reset(retainEvery)
		}
		k.try("deleted threads", k.finishDeletions)
		k.try("contents of files", k.collect)
	}
}

// try runs a part of the work. It is tried again the next time.
func (k *keeper) try(what string, work func() error) {
	if err := work(); err != nil && k.ctx.Err() == nil && !errors.Is(err, errShuttingDown) {
		k.s.logger.Error("cannot remove "+what, "error", err)
	}
}

// rest lets others go first. It fails when the keeper has to stop.
func (k *keeper) rest() error {
	select {
	case <-time.After(k.pause):
		return nil
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
}

// alone waits until nobody else removes something from conversations.
func (k *keeper) alone(agentID string, work func(*feed) error) error {
	select {
	case k.s.pruning <- struct{}{}:
		defer func() { <-k.s.pruning }()
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
	f, err := k.s.acquire(k.ctx, agentID)
	if err != nil {
		return err
	}
	defer k.s.release(f)
	return work(f)
}

// finishDeletions removes what is left of threads that nobody sees any more.
func (k *keeper) finishDeletions() error {
	threads, err := k.s.log.Doomed(k.ctx)
	if err != nil {
		return err
	}
	for _, t := range threads {
		if err := k.alone(t.AgentID, func(f *feed) error { return k.s.removeDoomed(k.ctx, f, t.ID) }); err != nil {
			return err
		}
	}
	return nil
}

// retain removes what is too old or too much, with one record in the audit log.
func (k *keeper) retain() error {
	err := errors.Join(k.retainEvents(ago(k.keep.Events), k.keep.EventsBytes), k.retainFiles(ago(k.keep.Files), k.keep.FilesBytes))
	if k.ctx.Err() != nil {
		return k.ctx.Err() // the next start goes on, and writes the record
	}
	if k.keep != (Retention{}) {
		k.s.metrics.LastRun.SetToCurrentTime()
	}
	if some, more := k.s.log.HasRun(k.ctx); more != nil || !some {
		return errors.Join(err, more)
	}
	return errors.Join(err, k.s.log.Commit(k.ctx, func(tx Tx) error {
		n, err := tx.TakeRun()
		if err != nil || n == (Run{}) {
			return err
		}
		return tx.Audit(auth.NewRecord(auth.Principal{}, "retention", "log", "", map[string]any{
			"began_at": n.BeganAt, "turns": n.Turns, "events": n.Events, "bytes": n.Bytes, "threads": n.Threads, "files": n.Files,
		}))
	}))
}

// ago is the time an age ago; zero, before which there was nothing, for none.
func ago(age time.Duration) time.Time {
	if age == 0 {
		return time.Time{}
	}
	return time.Now().Add(-age)
}

// retainEvents removes whole turns, the first ones to have ended first: those that ended before a time,
// and what is too much, unless keep is 0.
func (k *keeper) retainEvents(before time.Time, keep int64) error {
	for !before.IsZero() || keep > 0 {
		turns, err := k.s.log.Outdated(k.ctx, before, keep, maxOutdated)
		if err != nil || len(turns) == 0 {
			return err
		}
		some := false
		for len(turns) > 0 {
			p := &pruning{run: true}
			for _, t := range turns {
				if t.AgentID != turns[0].AgentID || len(p.turns) == maxPrune {
					break
				}
				p.turns = append(p.turns, t.ID)
			}
			err := k.alone(turns[0].AgentID, func(f *feed) error {
				p.feed = f
				return k.s.committer.prune(p)
			})
			if err != nil {
				return err
			}
			for _, r := range p.removals {
				some = some || r.Gone || r.Rows > 0
				if r.Gone || r.Rows == 0 {
					turns = turns[1:]
				}
			}
			if err := k.rest(); err != nil {
				return err
			}
		}
		if !some {
			return nil // what is left is damaged
		}
	}
	return nil
}

// retainFiles lets the content of files expire, the oldest first: of those that came before a time, and
// what is too much, unless keep is 0.
func (k *keeper) retainFiles(before time.Time, keep int64) error {
	var excess int64
	if keep > 0 {
		total, err := k.s.log.FileBytes(k.ctx)
		if err != nil {
			return err
		}
		excess = total - keep
	}
	for !before.IsZero() || excess > 0 {
		files, err := k.s.log.OldFiles(k.ctx, maxExpire)
		if err != nil {
			return err
		}
		left := excess
		n := Run{BeganAt: time.Now()}
		err = k.s.log.Commit(k.ctx, func(tx Tx) error {
			for _, f := range files {
				if !f.At.Before(before) && left <= 0 {
					break
				}
				freed, err := tx.Expire(f.ID, time.Now())
				if err != nil {
					return err
				}
				left -= freed
				n.Files++
			}
			if n.Files == 0 {
				return nil
			}
			return tx.AddRun(n)
		})
		if err != nil {
			return err
		}
		excess = left
		k.s.metrics.ExpiredFiles.Add(float64(n.Files))
		if int(n.Files) < maxExpire {
			return nil
		}
		if err := k.rest(); err != nil {
			return err
		}
	}
	return nil
}

// collect removes contents to which nothing refers any more. Those that are being stored again, and all
// while a backup is made, have to wait for the next time.
func (k *keeper) collect() error {
	var errs []error
	for after := int64(0); ; {
		orphans, err := k.s.log.Orphans(k.ctx, after, maxExpire)
		if err != nil {
			return err
		}
		var settled []int64
		for _, o := range orphans {
			after = o.Key
			ok, err := k.remove(o.SHA256)
			if ok {
				settled = append(settled, o.Key)
			}
			errs = append(errs, err)
		}
		if len(settled) > 0 {
			if err := k.s.log.Commit(k.ctx, func(tx Tx) error { return tx.DropOrphans(settled) }); err != nil {
				return err
			}
		}
		if len(orphans) < maxExpire {
			return errors.Join(errs...)
		}
		if err := k.rest(); err != nil {
			return err
		}
	}
}

func (k *keeper) remove(sha256 string) (settled bool, err error) {
	settled, n, err := k.s.opts.Files.Remove(sha256, func() (bool, error) { return k.s.log.ContentUsed(k.ctx, sha256) })
	if n > 0 {
		k.s.metrics.RemovedContents.Inc()
		k.s.metrics.RemovedFileBytes.Add(float64(n))
	}
	return settled, err
}

// strays removes contents that were stored for a row that never came, because the gateway died.
func (k *keeper) strays() error {
	n := 0
	return k.s.opts.Files.Strays(k.start, func(sha256 string) error {
		if n++; n%maxExpire == 0 {
			if err := k.rest(); err != nil {
				return err
			}
		}
		_, err := k.remove(sha256)
		return err
	})
}

// removed counts what was removed, once it is.
func (m *Metrics) removed(removals []Removal) {
	var n Run
	for _, r := range removals {
		n.add(r)
	}
	m.PrunedTurns.Add(float64(n.Turns))
	m.PrunedEvents.Add(float64(n.Events))
	m.PrunedBytes.Add(float64(n.Bytes))
}

// explain says that the content of a file is gone.
func (f ThreadFile) explain() error {
	return fault.New(fault.Removed, "the content of %q was removed on %s: files are not kept for longer", f.Name, f.ExpiredAt.Format(time.DateOnly))
}
