package conversation

import (
	"context"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Bounds of one read.
const (
	// maxRead is how many stored increments or events a reader takes at once.
	maxRead = 512
	// maxReadBytes is how many bytes a reader takes at once; a single larger event is taken alone.
	maxReadBytes = 512 << 10
)

// A Filter selects events of a conversation. The zero value selects all.
type Filter struct {
	ThreadID  string
	TurnID    string
	principal string // only turns that it began: all that the reader may see; "" for all
}

func (f Filter) match(e Event) bool {
	if e.Body == (Removed{}) { // who reads a turn is told when it is gone, see Reader.tell
		return f.TurnID == "" && (f.ThreadID == "" || f.ThreadID == e.ThreadID)
	}
	return (f.TurnID == "" || f.TurnID == e.TurnID) && (f.ThreadID == "" || f.ThreadID == e.ThreadID) &&
		(f.principal == "" || f.principal == e.PrincipalID)
}

// A Reader follows a conversation from a position. It belongs to one goroutine; several readers
// know nothing of each other. A slow one costs nobody anything: it takes fewer, larger increments.
type Reader struct {
	service *Service
	feed    *feed
	caller  auth.Principal
	own     bool // it follows a turn of the caller, who needs no other rights for that
	filter  Filter
	who     watcher
	until   int64         // of an ended turn its last number, else 0
	ready   chan struct{} // capacity 1; a poke may be lost when one is pending already
	pos     int64

	// Guarded by feed.mu.
	notices []Event // beside what follows the position
	lost    int64   // of a turn that is gone its last number, else 0
}

// Reader returns a reader of what follows the event numbered after in the conversation of an
// agent, as far as the caller may see it; 0 is the beginning. A position beyond the end is a
// PositionLost fault. Where events that follow the position were removed there is a Removed one in
// their place. A reader of everybody's turns fails with a Forbidden fault when the caller may
// not see them any more. It must be closed.
func (s *Service) Reader(ctx context.Context, agentID string, f Filter, after int64) (*Reader, error) {
	var err error
	if f.principal, err = s.scope(ctx, agentID); err != nil {
		return nil, err
	}
	r := &Reader{service: s, filter: f, ready: make(chan struct{}, 1), pos: after}
	if r.caller, err = auth.From(ctx); err != nil {
		return nil, err
	}
	r.who = watcherOf(r.caller)
	if r.feed, err = s.acquire(ctx, agentID); err != nil {
		return nil, err
	}
	s.metrics.Readers.Inc()
	r.feed.attach(r) // before the turn is read: when it is removed behind that, the reader is told
	if err := r.begin(ctx, after); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// begin checks the position and what the reader is about.
func (r *Reader) begin(ctx context.Context, after int64) error {
	if r.filter.TurnID != "" {
		t, err := r.service.readTurn(ctx, r.filter.TurnID)
		if err != nil {
			return err
		}
		r.own = t.PrincipalID == r.caller.ID
		r.until = t.Last
		r.pos = max(after, t.First-1)
	}
	if after < 0 {
		return fault.New(fault.Invalid, "after must not be negative")
	}
	if conv, _ := r.feed.snapshot(); after > conv.Head {
		return fault.New(fault.PositionLost,
			"position %d is ahead of the conversation, whose newest event is %d: it comes from another conversation or from a database that was restored", after, conv.Head)
	}
	return nil
}

// Close ends the reader.
func (r *Reader) Close() {
	r.feed.detach(r)
	r.service.release(r.feed)
	r.service.metrics.Readers.Dec()
}

// Position is the number up to which the reader has seen everything.
func (r *Reader) Position() int64 { return r.pos }

// Over reports whether the reader follows a turn that has ended and has seen its end.
func (r *Reader) Over() bool { return r.until > 0 && r.pos >= r.until }

// Ready receives after something may have been committed that Poll has not returned yet.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

func (r *Reader) poke() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// Poll returns what follows the position, without waiting; nothing when there is nothing. Only
// when it returns nothing is it time to wait for Ready.
func (r *Reader) Poll(ctx context.Context) ([]Event, error) {
	return r.take(ctx, maxRead)
}

// Next waits until something follows the position and returns it.
func (r *Reader) Next(ctx context.Context) ([]Event, error) {
	for {
		if evs, err := r.Poll(ctx); err != nil || len(evs) > 0 {
			return evs, err
		}
		select {
		case <-r.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take returns at most limit events, merged, and moves the position behind them.
func (r *Reader) take(ctx context.Context, limit int) ([]Event, error) {
	evs, err := r.find(ctx, limit)
	if len(evs) == 0 || err != nil || r.own || r.filter.principal != "" {
		return evs, err
	}
	// Rights may have changed since the reader was opened. They are looked up behind the events, so
	// that none of those that came after a change is shown.
	switch all, err := r.service.opts.Policy.Oversees(ctx, r.caller, r.feed.agentID); {
	case err != nil:
		return nil, err
	case !all:
		return nil, fault.New(fault.Forbidden, "you may not see all of this conversation any more")
	}
	return evs, nil
}

// find is take without a look at the caller's rights.
func (r *Reader) find(ctx context.Context, limit int) ([]Event, error) {
	if evs := r.feed.told(r); len(evs) > 0 {
		return evs, nil
	}
	for {
		evs, complete, ok := r.feed.recent(r.pos, r.filter, limit)
		if !ok {
			var err error
			if evs, complete, err = r.older(ctx, limit); err != nil {
				return nil, err
			}
		}
		if len(evs) > 0 {
			if evs = merge(evs); len(evs) > limit { // a block came in several pieces
				evs = evs[:limit]
				complete = evs[limit-1].Seq
			}
			r.pos = complete
			return evs, nil
		}
		if complete <= r.pos {
			return nil, nil
		}
		r.pos = complete
		if ok {
			return nil, nil // the tail reaches to the head and has nothing for us
		}
	}
}

// older reads from the log what the tail does not have any more.
func (r *Reader) older(ctx context.Context, limit int) ([]Event, int64, error) {
	conv, open := r.feed.snapshot() // before the log, see snapshot
	until := conv.Head
	if r.until > 0 {
		until = min(until, r.until)
	}
	if r.pos >= until {
		return nil, conv.Head, nil
	}
	q := Query{Conversation: conv.ID, Thread: r.filter.ThreadID, Turn: r.filter.TurnID, Principal: r.filter.principal, After: r.pos, Until: until, Limit: limit, Removed: r.filter.TurnID == ""}
	evs, complete, err := r.service.read(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	for _, o := range open {
		if r.filter.match(Event{TurnID: o.turnID, ThreadID: o.threadID, PrincipalID: o.principalID}) {
			evs = o.pieces(evs, r.pos, complete)
		}
	}
	return inOrder(evs), complete, nil
}

// read returns the unmerged events of a query and the number up to which they are complete.
func (s *Service) read(ctx context.Context, q Query) ([]Event, int64, error) {
again:
	for {
		page, err := s.log.Records(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		if page.More && page.Complete <= q.After {
			q.Limit *= 2 // more open blocks lie across the position than were asked for
			continue
		}
		var evs []Event
		for _, rec := range page.Records {
			if rec.Kind == KindText || rec.Kind == KindThinking {
				cuts, err := decodeCuts(rec.Cuts, rec.Seq, rec.Last, len(rec.Text))
				if err != nil {
					return nil, 0, err
				}
				evs = run{rec.TurnID, rec.ThreadID, rec.PrincipalID, rec.Kind, rec.At, []byte(rec.Text), cuts}.pieces(evs, q.After, page.Complete)
				continue
			}
			if rec.Seq > page.Complete {
				continue
			}
			e, err := s.event(ctx, rec)
			if fault.CodeOf(err) == fault.NotFound {
				continue again // its turn was removed since, which is to be told instead
			}
			if err != nil {
				return nil, 0, err
			}
			evs = append(evs, e)
		}
		return withRemoved(evs, page.Removed), page.Complete, nil
	}
}

// event decodes a record that stands for itself.
func (s *Service) event(ctx context.Context, rec Record) (Event, error) {
	body, err := decode(rec.Kind, rec.Text, rec.Detail)
	if err != nil {
		return Event{}, err
	}
	if end, ok := body.(Ended); ok && end.SameText {
		if end.Response, err = s.log.Answer(ctx, rec.TurnID); err != nil {
			return Event{}, err
		}
		body = end
	}
	return Event{Seq: rec.Last, First: rec.Seq, At: rec.At, TurnID: rec.TurnID, ThreadID: rec.ThreadID, PrincipalID: rec.PrincipalID, Body: body}, nil
}
