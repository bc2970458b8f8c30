package conversation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Who owns what when something is removed:
//
// The committer removes, in its own transaction, because it owns the numbers: the rows go, their
// numbers become removed ranges, and with the publication of that commit the tail of the feed and the
// readers change. One caller at a time has something removed (Service.pruning), in steps of maxPrune
// rows, so that messages wait for one step at most. The content of files is removed behind the commit,
// by the keeper (retention.go), which is told by rows that the same transaction has written.

// maxPrune bounds what one commit removes, in rows of events of PruneUnit bytes. A larger row is removed
// alone.
const (
	maxPrune  = 32
	PruneUnit = 4 << 10
)

// A Range is a run of numbers.
type Range struct{ First, Last int64 }

// A Deletion is the removal of a thread that somebody wants.
type Deletion struct {
	Thread string
	OnlyOf string // unless "": a Forbidden fault where somebody else has begun a turn of the thread
	Record auth.AuditRecord
}

// A Removal is what one step has removed of a turn.
type Removal struct {
	TurnID, ThreadID, PrincipalID string
	Last                          int64   // number of the turn's end
	Ranges                        []Range // numbers of the events, in order
	Rows                          int     // of events; a block of increments is one
	Cost                          int     // in rows of PruneUnit bytes
	Events                        int64
	Bytes                         int64 // of text
	Gone                          bool  // nothing is left of the turn
	ThreadGone                    bool  // nor of its thread
}

// newest is the largest number that was removed, 0 for none.
func (r Removal) newest() int64 {
	if len(r.Ranges) == 0 {
		return 0
	}
	return r.Ranges[len(r.Ranges)-1].Last
}

// A pruning is something to be removed from one conversation. Who asks for it waits for ready.
type pruning struct {
	feed  *feed
	doom  *Deletion // comes first; may be nil
	turns []string  // that have ended, in the order in which they go
	run   bool      // it is part of the run of retention
	ready chan struct{}

	// Set before ready is closed.
	removals []Removal
	err      error
}

// prune removes what there is room for in one commit. A fault concerns this pruning alone.
func (cm *commit) prune(p *pruning) error {
	ch := cm.change(p.feed)
	p.removals, p.err = nil, nil
	if p.doom != nil {
		err := cm.tx.Doom(*p.doom)
		if f, ok := errors.AsType[*fault.Error](err); ok {
			p.err = f
			return nil
		}
		if err != nil {
			return err
		}
	}
	sum := Run{BeganAt: time.Now()}
	for left := maxPrune; left > 0 && len(p.removals) < len(p.turns); {
		r, err := cm.tx.Prune(p.turns[len(p.removals)], left)
		if f, ok := errors.AsType[*fault.Error](err); ok {
			r = Removal{}
			if f.Code == fault.Internal {
				cm.c.logger.Error("a turn cannot be removed", "error", err)
			}
		} else if err != nil {
			return err
		}
		p.removals = append(p.removals, r) // of a turn that is gone or open an empty one
		left -= max(r.Cost, 1)
		sum.add(r)
	}
	ch.removals = append(ch.removals, p.removals...)
	if p.run && sum.Events > 0 {
		return cm.tx.AddRun(sum)
	}
	return nil
}

// prune has something removed and returns when that is committed and shown.
func (c *committer) prune(p *pruning) error {
	p.ready = make(chan struct{})
	if !c.enqueue(work{prune: p}) {
		return errShuttingDown
	}
	<-p.ready
	return p.err
}

// remove applies removals to the live end of a conversation. f.mu is held.
func (f *feed) remove(removals []Removal) {
	upTo := make(map[string]int64) // by turn
	for _, r := range removals {
		upTo[r.TurnID] = max(upTo[r.TurnID], r.newest())
	}
	tail := f.tail[:0]
	f.tailSize = 0
	for _, e := range f.tail {
		if last, ok := upTo[e.TurnID]; ok && e.Seq <= last {
			e = Event{Seq: e.Seq, First: e.First, ThreadID: e.ThreadID, Body: Removed{}}
			if n := len(tail) - 1; n >= 0 && tail[n].Body == (Removed{}) && tail[n].ThreadID == e.ThreadID && tail[n].Seq == e.First-1 {
				tail[n].Seq = e.Seq
				continue
			}
		}
		tail = append(tail, e)
		f.tailSize += sizeOf(e)
	}
	clear(f.tail[len(tail):])
	f.tail = tail
	for r := range f.readers {
		if r.tell(removals) {
			r.poke()
		}
	}
}

// maxNotices bounds the deleted threads that a reader is told of one by one.
const maxNotices = 64

// tell notes what a reader has to be told beside what follows its position. It reports false when
// there is nothing. feed.mu is held.
func (r *Reader) tell(removals []Removal) (news bool) {
	for _, x := range removals {
		e := Event{TurnID: x.TurnID, ThreadID: x.ThreadID, PrincipalID: x.PrincipalID}
		if len(x.Ranges) == 0 || !r.filter.match(e) {
			continue
		}
		if r.filter.TurnID != "" && r.lost == 0 {
			r.lost, news = x.Last, true
		}
		if r.filter.TurnID == "" && x.ThreadGone {
			if len(r.notices) == maxNotices {
				r.notices = []Event{{Body: ThreadDeleted{}}}
			}
			r.notices = append(r.notices, Event{ThreadID: x.ThreadID, Body: ThreadDeleted{x.ThreadID}})
			news = true
		}
	}
	return news
}

// told returns what tell has noted. What is lost of a turn is everything behind the position.
func (f *feed) told(r *Reader) []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	evs := r.notices
	r.notices = nil
	if r.lost > r.pos {
		evs = append(evs, Event{First: r.pos + 1, Seq: r.lost, Body: Removed{}})
		r.pos = r.lost
	}
	return evs
}

// DeleteThread removes a thread with all that belongs to it. From the first commit on nobody sees it;
// what is not removed when the gateway dies is removed by the next one. What was used is still
// counted.
//
// Faults: NotFound; Forbidden where the caller is no administrator and others have taken part in the
// thread; Conflict while a turn of it is open.
func (s *Service) DeleteThread(ctx context.Context, id string) error {
	p, err := auth.From(ctx)
	if err != nil {
		return err
	}
	t, _, err := s.readThread(ctx, id)
	if err != nil {
		return err
	}
	d := &Deletion{Thread: id, Record: auth.NewRecord(p, "delete_thread", "thread", id, map[string]any{"agent_id": t.AgentID, "turns": t.Turns})}
	switch all, err := s.opts.Policy.Oversees(ctx, p, ""); {
	case err != nil:
		return err
	case !all:
		d.OnlyOf = p.ID
	}
	if !s.enter() {
		return errShuttingDown
	}
	defer s.leave()
	select {
	case s.pruning <- struct{}{}:
		defer func() { <-s.pruning }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f, err := s.acquire(ctx, t.AgentID)
	if err != nil {
		return err
	}
	defer s.release(f)
	turns, err := s.log.TurnsOf(ctx, id, maxPrune)
	if err != nil {
		return err
	}
	if err := s.committer.prune(&pruning{feed: f, doom: d, turns: turns}); err != nil {
		return err
	}
	defer s.keeper.poke() // the contents of its files, and the rest if there is one
	if err := s.removeDoomed(context.WithoutCancel(ctx), f, id); err != nil {
		s.logger.Error("a thread is not seen any more, and could not be removed: it will be tried again", "thread_id", id, "error", err)
	}
	return nil
}

// removeDoomed removes the turns of a thread whose deletion has begun, until the gateway stops. The
// caller has s.pruning.
func (s *Service) removeDoomed(ctx context.Context, f *feed, id string) error {
	for !s.Closing() {
		turns, err := s.log.TurnsOf(ctx, id, maxPrune)
		if err != nil || len(turns) == 0 {
			return err
		}
		p := &pruning{feed: f, turns: turns}
		if err := s.committer.prune(p); err != nil {
			return err
		}
		if r := p.removals[0]; r.Rows == 0 && !r.Gone {
			return fmt.Errorf("turn %s of thread %s cannot be removed", turns[0], id)
		}
	}
	return nil
}

// withRemoved puts ranges between events, in order.
func withRemoved(evs []Event, removed []Range) []Event {
	for _, r := range removed {
		evs = append(evs, Event{First: r.First, Seq: r.Last, Body: Removed{}})
	}
	return evs
}

// releaseFiles lets go of the contents of files once their rows are committed, or never will be.
func (s *Service) releaseFiles(files ...File) {
	for _, f := range files {
		s.opts.Files.Release(f.SHA256)
	}
}
