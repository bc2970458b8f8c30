package conversation

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"coven-gateway/internal/auth"
)

// A Resumable is a turn that an agent goes on with after its stream broke.
type Resumable struct {
	TurnID   string
	Received uint64 // how much of what the agent has numbered is durable
	Sink     Sink
}

// Resume is called when an agent is back, with the ids of the turns that it still works on. It returns
// those that it may go on with; each waits for [Sink.Resumed]. Other turns whose agent was lost end.
func (s *Service) Resume(agentID string, working []string) []Resumable {
	var all []Resumable
	for _, t := range s.asking(agentID, "") {
		if !slices.Contains(working, t.id) {
			t.mu.Lock()
			lost := t.lost != nil && !t.ending
			t.mu.Unlock()
			if lost {
				t.Gone("the agent came back without the turn")
			}
			continue
		}
		if stored, ok := t.back(); ok {
			all = append(all, Resumable{TurnID: t.id, Received: stored, Sink: t})
		}
	}
	slices.SortFunc(all, func(a, b Resumable) int { return cmp.Compare(a.TurnID, b.TurnID) })
	return all
}

const (
	// restarted is why a turn ends that the last run of the gateway has left open.
	restarted = "the gateway was restarted"
	// calmAfter is how long a run lasts that no turn is to blame for the end of.
	calmAfter = time.Minute
)

// holdOpen restores a turn that the last run has left open, and waits for its agent as long as for one
// whose stream broke.
func (s *Service) holdOpen(ctx context.Context, u UnfinishedTurn) error {
	f, err := s.acquire(ctx, u.AgentID)
	if err != nil {
		return err
	}
	t := s.newTurn(ctx, f, u.Turn, u.Ref, watcher{principal: u.PrincipalID, open: u.PrincipalID == auth.Anonymous.ID})
	t.resumes.Store(true)
	t.received, t.stored, t.acked = u.Received, u.Received, u.Received
	if err := t.remember(ctx); err != nil {
		t.silence.Stop()
		s.release(f)
		return err
	}
	s.mu.Lock()
	s.open[t.id] = t
	s.metrics.TurnsOpen.Inc()
	s.mu.Unlock()
	t.Lost(restarted, s.opts.ReconnectGrace)
	return nil
}

// remember reads from the log what a turn has to know of itself.
func (t *liveTurn) remember(ctx context.Context) error {
	s := t.service
	text, err := s.log.Answer(ctx, t.id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock() // nobody else has the turn yet
	t.text.Write([]byte(text))
	t.hasText = text != ""
	q := Query{Conversation: t.ref.Conversation, Turn: t.id, After: t.begins, Until: math.MaxInt64, Limit: maxRead}
	for {
		page, err := s.log.Records(ctx, q)
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			body, err := decode(rec.Kind, rec.Text, rec.Detail)
			if err != nil {
				return err
			}
			t.recall(rec.At, body)
		}
		if !page.More {
			break
		}
		q.After = page.Complete
	}
	for _, q := range t.asked {
		switch number := q.number; {
		case t.decided != nil:
			t.asked[slices.IndexFunc(t.asked, func(x Question) bool { return x.number == number })].settled = true
			t.decideSoon(agentReady, q, Decision{ID: q.ToolID, Approved: t.decided.Approved, By: t.decided.By}, false)
		case !q.ExpiresAt.IsZero():
			t.asked[slices.IndexFunc(t.asked, func(x Question) bool { return x.number == number })].expiry = time.AfterFunc(time.Until(q.ExpiresAt), func() { t.expire(number) })
		}
	}
	return nil
}

// recall takes an event that the log has of the turn. t.mu is held.
func (t *liveTurn) recall(at time.Time, b Body) {
	switch b := b.(type) {
	case Enqueued, Delivered:
		return
	case Approval:
		if b.Number > 0 { // else a tool of the last run waited for the answer
			t.numbered++
			t.asked = append(t.asked, Question{
				AgentID: t.feed.agentID, TurnID: t.id, ThreadID: t.thread, ToolID: b.ID, Name: b.Name, Input: b.Input,
				AskedAt: at, ExpiresAt: b.ExpiresAt, number: t.numbered, asked: b.Number,
			})
		}
	case Decision:
		if b.All {
			t.decided = &b
		}
		if b.Number > 0 {
			t.asked = slices.DeleteFunc(t.asked, func(q Question) bool { return q.asked == b.Number })
			t.judge(verdict{decision: b, ready: true, durable: true})
		}
	case Trouble:
		t.trouble = b.Text
		if t.quiet == nil {
			t.quiet = time.AfterFunc(quietPeriod, t.afterTrouble)
			t.quiet.Stop()
		}
	}
	if t.first.IsZero() {
		t.first = at
	}
}

// rest stops the timers of a turn that is left for the next run.
func (t *liveTurn) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silence.Stop()
	for _, timer := range []*time.Timer{t.lost, t.quiet} {
		if timer != nil {
			timer.Stop()
		}
	}
	for _, q := range t.asked {
		q.stop()
	}
}

// forgetCrashes says that no turn has made this run of the gateway die.
func (s *Service) forgetCrashes() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.log.Commit(ctx, func(tx Tx) error { return tx.Calm() }); err != nil {
		s.logger.Warn("it could not be recorded that this run went well", "error", err)
	}
}
