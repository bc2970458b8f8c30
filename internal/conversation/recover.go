package conversation

import (
	"context"
	"math"
	"slices"
	"time"
)

// recover ends what a gateway that died has left open: the blocks are closed from their
// increments, the turns end as interrupted. Nothing is run again. It returns the turns whose messages
// no agent was given.
func (s *Service) recover(ctx context.Context) (waiting []UnfinishedTurn, err error) {
	u, err := s.log.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	u.Turns = slices.DeleteFunc(u.Turns, func(t UnfinishedTurn) bool {
		if t.State == Queued {
			waiting = append(waiting, t)
		}
		return t.State == Queued
	})
	heads := make(map[string]int64)
	for _, t := range u.Turns {
		if _, ok := heads[t.AgentID]; !ok {
			conv, err := s.log.Conversation(ctx, t.AgentID)
			if err != nil {
				return nil, err
			}
			heads[t.AgentID] = conv.Head
		}
		for _, p := range u.Pieces[t.Ref.Turn] {
			heads[t.AgentID] = max(heads[t.AgentID], p.Seq)
		}
	}
	now := time.Now().UTC()
	err = s.log.Commit(ctx, func(tx Tx) error {
		for _, t := range u.Turns {
			first := time.Time{}
			for _, b := range blocks(u.Pieces[t.Ref.Turn]) {
				if first.IsZero() {
					first = b.at
				}
				if err := tx.Append(t.Ref, b.record(t.Ref)); err != nil {
					return err
				}
			}
			heads[t.AgentID]++
			seq := heads[t.AgentID]
			end := Ended{State: Interrupted, Cause: "the gateway was restarted"}
			rec, err := NewRecord(t.Ref, seq, now, end)
			if err != nil {
				return err
			}
			if err := tx.Append(t.Ref, rec); err != nil {
				return err
			}
			if err := tx.End(t.Ref, EndedTurn{State: end.State, Cause: end.Cause, Last: seq, FirstEventAt: first, At: now}); err != nil {
				return err
			}
		}
		return tx.Trim(math.MaxInt64)
	})
	if err == nil && len(u.Turns) > 0 {
		s.logger.Warn("ended turns that the last run left open", "turns", len(u.Turns))
	}
	return waiting, err
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
