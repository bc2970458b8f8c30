package conversation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"coven-gateway/internal/fault"
)

// recover ends what a gateway that died has left open: the blocks are closed from their
// increments, the turns end as interrupted, but for those that their agents can go on with. Nothing is run
// again. It returns the turns whose messages no agent was given, and those that wait for their agents.
//
// A turn whose increments make no sense does not keep the gateway from starting, now and at every start
// after that: it ends without them.
func (s *Service) recover(ctx context.Context) (waiting, held []UnfinishedTurn, err error) {
	u, err := s.log.Unfinished(ctx)
	if err != nil {
		return nil, nil, err
	}
	u.Turns = slices.DeleteFunc(u.Turns, func(t UnfinishedTurn) bool {
		if t.State == Queued {
			waiting = append(waiting, t)
		}
		return t.State == Queued
	})
	r := &recovery{broken: make(map[int64]bool), heads: make(map[int64]int64), now: time.Now().UTC(), pieces: u.Pieces}
	for _, t := range u.Turns {
		if r.heads[t.Ref.Conversation], err = s.log.Newest(ctx, t.Ref.Conversation); err != nil {
			return nil, nil, err
		}
	}
	err = s.log.Commit(ctx, func(tx Tx) error {
		for _, t := range u.Turns {
			if err := r.settle(tx, t); err != nil {
				return err
			}
		}
		return tx.Trim(math.MaxInt64)
	})
	if err != nil && len(u.Turns) > 0 && fault.CodeOf(err) != fault.Unavailable {
		s.logger.Error("the turns that the last run left open could not be ended together; each is tried by itself", "error", err)
		err = s.recoverEach(ctx, r, u.Turns)
	}
	for _, t := range u.Turns {
		if r.goesOn(t) {
			held = append(held, t)
		}
	}
	if ended := len(u.Turns) - len(held); err == nil && ended > 0 {
		s.logger.Warn("ended turns that the last run left open", "turns", ended)
	}
	if err == nil && len(held) > 0 {
		s.logger.Info("turns that the last run left open wait for their agents", "turns", len(held))
	}
	return waiting, held, err
}

// recoverEach ends each turn in a transaction of its own: with its increments, else without them. One that
// cannot be ended at all stays open in the log and is tried again by the next start.
func (s *Service) recoverEach(ctx context.Context, r *recovery, turns []UnfinishedTurn) error {
	for _, t := range turns {
		err := s.log.Commit(ctx, func(tx Tx) error { return r.settle(tx, t) })
		if err == nil {
			continue
		}
		if fault.CodeOf(err) == fault.Unavailable {
			return err // the disk is to blame
		}
		lost := len(r.pieces[t.Ref.Turn])
		delete(r.pieces, t.Ref.Turn)
		r.broken[t.Ref.Turn] = true
		again := s.log.Commit(ctx, func(tx Tx) error { return r.end(tx, t) })
		if fault.CodeOf(again) == fault.Unavailable {
			return again
		}
		if again != nil {
			s.logger.Error("a turn that the last run left open cannot be ended", "request_id", t.ID, "agent_id", t.AgentID, "error", errors.Join(err, again))
			continue
		}
		s.logger.Error("a turn that the last run left open was ended without the last of its text, which cannot be read",
			"request_id", t.ID, "agent_id", t.AgentID, "pieces", lost, "error", err)
	}
	return s.log.Commit(ctx, func(tx Tx) error { return tx.Trim(math.MaxInt64) })
}

// A recovery is what ends turns that were left open.
type recovery struct {
	heads  map[int64]int64 // the newest number of each conversation, with those of increments
	now    time.Time
	pieces map[int64][]Piece // by Ref.Turn
	broken map[int64]bool    // turns that cannot be gone on with; likewise
}

// maxFound is how many starts in a row may find the same turn open, without anything of it having been
// recorded meanwhile: it may be the turn that the gateway dies of.
const maxFound = 3

// goesOn reports whether a turn waits for its agent.
func (r *recovery) goesOn(t UnfinishedTurn) bool {
	return t.Resumable && t.Found < maxFound && !r.broken[t.Ref.Turn]
}

// settle closes the blocks of a turn, and ends it unless it waits for its agent.
func (r *recovery) settle(tx Tx, t UnfinishedTurn) error {
	if !r.goesOn(t) {
		return r.end(tx, t)
	}
	if _, err := r.close(tx, t); err != nil {
		return err
	}
	return tx.Found(t.Ref)
}

// close closes the blocks of a turn and returns when the first of them began.
func (r *recovery) close(tx Tx, t UnfinishedTurn) (first time.Time, err error) {
	for _, b := range blocks(r.pieces[t.Ref.Turn]) {
		rec := b.record(t.Ref)
		if b.kind != KindText && b.kind != KindThinking {
			return first, fmt.Errorf("an increment is of kind %d", b.kind)
		}
		if _, err := rec.Numbers(len(rec.Text)); err != nil { // as readers are going to
			return first, err
		}
		if first.IsZero() {
			first = b.at
		}
		if err := tx.Append(t.Ref, rec); err != nil {
			return first, err
		}
	}
	return first, nil
}

// end closes the blocks of a turn and ends it.
func (r *recovery) end(tx Tx, t UnfinishedTurn) error {
	first, err := r.close(tx, t)
	if err != nil {
		return err
	}
	seq := r.heads[t.Ref.Conversation] + 1
	end := Ended{State: Interrupted, Cause: restarted}
	if t.Resumable && t.Found >= maxFound {
		end.Cause = fmt.Sprintf("the gateway was restarted %d times while nothing came of the turn", t.Found+1)
	}
	rec, err := NewRecord(t.Ref, seq, r.now, end)
	if err != nil {
		return err
	}
	if err := tx.Append(t.Ref, rec); err != nil {
		return err
	}
	if err := tx.End(t.Ref, EndedTurn{State: end.State, Cause: end.Cause, Last: seq, FirstEventAt: first, At: r.now}); err != nil {
		return err
	}
	r.heads[t.Ref.Conversation] = seq
	return nil
}

// blocks builds the closed blocks of a turn from its increments.
func blocks(pieces []Piece) []*block {
	var bs []*block
	for _, p := range pieces {
		var b *block
		if n := len(bs); n > 0 && bs[n-1].fits(p.Kind, len(p.Text), p.Seq) {
			b = bs[n-1]
		} else {
			b = &block{kind: p.Kind, first: p.Seq, at: p.At}
			bs = append(bs, b)
		}
		b.add(p.Seq, []byte(p.Text))
	}
	return bs
}
