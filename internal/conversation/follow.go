package conversation

import (
	"context"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Bounds of what is remembered of turns whose senders are expected to follow in another call.
const (
	// followLater is how long after its end a turn is still shown to its sender.
	followLater = time.Minute
	// maxDetached bounds the turns of one conversation that are remembered.
	maxDetached = 256
)

// A watcher is who follows a conversation, or began a turn, and how it is connected.
type watcher struct {
	principal  string
	open       bool   // everybody is the same principal
	connection uint64 // 0 if it is not known
}

func watcherOf(p auth.Principal) watcher {
	return watcher{p.ID, p.Credential.Kind == auth.Open, p.Credential.Connection}
}

// sameConnection reports whether two are on one connection, sure enough.
func (w watcher) sameConnection(v watcher) bool {
	return w.connection != 0 && w.connection == v.connection
}

// samePrincipal reports whether two are the same somebody.
func (w watcher) samePrincipal(v watcher) bool { return !w.open && w.principal == v.principal }

// A detached turn is one whose sender follows it in another call, before or after the one that sent
// it. Guarded by Service.mu.
type detached struct {
	turn  string
	first int64
	by    watcher
	ended time.Time // zero while open

	// Whether a follower has been shown it: one on the sender's connection, one of the sender.
	connection, principal bool
}

// A Follower sees what happens in a conversation from now on, and the turns that its caller has just
// begun from their beginning, whichever call came first. It belongs to one goroutine.
type Follower struct {
	*Reader
	agentID string
	from    int64           // what is not newer is shown only of some turns
	begun   map[string]bool // these; nil for all
}

// Follow returns a follower. With after 0 or more it sees everything behind that event instead; see
// [Service.Reader]. It must be closed.
func (s *Service) Follow(ctx context.Context, agentID string, after int64) (*Follower, error) {
	if after >= 0 {
		r, err := s.Reader(ctx, agentID, Filter{}, after)
		if err != nil {
			return nil, err
		}
		f := &Follower{Reader: r, agentID: agentID}
		s.attach(f)
		return f, nil
	}
	r, err := s.Reader(ctx, agentID, Filter{}, 0)
	if err != nil {
		return nil, err
	}
	// The order matters: a turn that begins behind the head is seen live, whatever follows; one that
	// began before is in the list. A turn can be answered only once it is in the list.
	conv, _ := r.feed.snapshot()
	f := &Follower{Reader: r, agentID: agentID, from: conv.Head, begun: make(map[string]bool)}
	f.pos = conv.Head
	for _, d := range s.attach(f) {
		f.begun[d.turn] = true
		f.pos = min(f.pos, d.first-1)
	}
	return f, nil
}

// attach notes a follower and returns the detached turns that it has to be shown.
func (s *Service) attach(f *Follower) (show []detached) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followers[f.agentID] == nil {
		s.followers[f.agentID] = make(map[*Follower]struct{})
	}
	s.followers[f.agentID][f] = struct{}{}
	for _, d := range s.detached[f.agentID] {
		if d.by.sameConnection(f.who) && !d.connection || d.by.samePrincipal(f.who) && !d.principal {
			show = append(show, *d)
		}
		d.shownTo(f.who)
	}
	return show
}

// shownTo notes that somebody sees the turn.
func (d *detached) shownTo(w watcher) {
	d.connection = d.connection || d.by.sameConnection(w)
	d.principal = d.principal || d.by.samePrincipal(w)
}

// Close ends the follower.
func (f *Follower) Close() {
	s := f.service
	s.mu.Lock()
	delete(s.followers[f.agentID], f)
	if len(s.followers[f.agentID]) == 0 {
		delete(s.followers, f.agentID)
	}
	s.mu.Unlock()
	f.Reader.Close()
}

// Head returns the number of the newest event.
func (f *Follower) Head() int64 {
	conv, _ := f.feed.snapshot()
	return conv.Head
}

// Busy reports whether a turn of the conversation is open.
func (f *Follower) Busy() bool {
	s := f.service
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.open {
		if t.feed == f.feed {
			return true
		}
	}
	return false
}

// Poll returns what follows, without waiting, and whether there may be more at once.
func (f *Follower) Poll(ctx context.Context) (evs []Event, more bool, err error) {
	read, err := f.Reader.Poll(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, e := range read {
		if f.begun == nil || e.Seq > f.from || e.Seq == 0 || f.begun[e.TurnID] {
			evs = append(evs, e)
		}
	}
	return evs, len(read) > 0, nil
}

// detach remembers a turn that has just begun and whose sender follows it in another call. s.mu is
// held.
func (s *Service) detach(t *liveTurn, first int64) {
	d := &detached{turn: t.id, first: first, by: t.by}
	for f := range s.followers[t.feed.agentID] {
		d.shownTo(f.who)
	}
	kept := s.detached[t.feed.agentID][:0]
	for _, x := range s.detached[t.feed.agentID] {
		if x.ended.IsZero() || time.Since(x.ended) < followLater {
			kept = append(kept, x)
		}
	}
	if len(kept) == maxDetached {
		kept = append(kept[:0], kept[1:]...)
	}
	s.detached[t.feed.agentID] = append(kept, d)
	t.detached = d
}

// settleDetached notes that a turn has ended, and forgets what is old. s.mu is held.
func (s *Service) settleDetached(t *liveTurn) {
	if t.detached == nil {
		return
	}
	t.detached.ended = time.Now()
	agentID := t.feed.agentID
	time.AfterFunc(followLater, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		kept := s.detached[agentID][:0]
		for _, x := range s.detached[agentID] {
			if x != t.detached {
				kept = append(kept, x)
			}
		}
		if s.detached[agentID] = kept; len(kept) == 0 {
			delete(s.detached, agentID)
		}
	})
}

// Asks reports whether the follower is to be asked for an approval, or a question, in a turn: it is still open, and
// its caller began the turn, or nobody who did is following. Some programs answer whatever they
// are asked (grpc.md 6.4).
func (f *Follower) Asks(turnID, id string) bool {
	s := f.service
	s.mu.Lock()
	t := s.open[turnID]
	s.mu.Unlock()
	if t == nil || !t.asks(id) && !t.questioned(id) {
		return false
	}
	if t.begunBy(f.Reader) {
		return true
	}
	f.feed.mu.Lock()
	defer f.feed.mu.Unlock()
	for r := range f.feed.readers {
		if t.begunBy(r) {
			return false
		}
	}
	return true
}

// begunBy reports whether a reader is that of whoever began the turn.
func (t *liveTurn) begunBy(r *Reader) bool {
	return r.filter.TurnID == t.id || t.by.samePrincipal(r.who) || t.by.principal == r.who.principal && t.by.connection == r.who.connection
}

// EventID returns the identity of an event of an agent's conversation outside of it.
func (s *Service) EventID(ctx context.Context, agentID string, seq int64) (string, error) {
	conv, err := s.log.Conversation(ctx, agentID)
	return conv.EventID(seq), err
}

// TurnOf returns the id of the turn that a message of an agent's conversation has begun. A message
// that is not there, or not for the caller to see, is a NotFound fault.
func (s *Service) TurnOf(ctx context.Context, agentID, messageID string) (string, error) {
	none := fault.New(fault.NotFound, "no message %q", messageID)
	conv, err := s.log.Conversation(ctx, agentID)
	if err != nil {
		return "", err
	}
	seq, ok := conv.seqOf(messageID)
	if !ok {
		return "", none
	}
	page, err := s.log.Records(ctx, Query{Conversation: conv.ID, After: seq - 1, Until: seq, Limit: 1, Only: []Kind{KindMessage}})
	if err != nil {
		return "", err
	}
	if len(page.Records) == 0 {
		return "", none
	}
	t, err := s.readTurn(ctx, page.Records[0].TurnID)
	if fault.CodeOf(err) == fault.NotFound {
		err = none
	}
	return t.ID, err
}

// Position returns the number of an event by its identity, where a reader of what follows it begins.
// Of the text of a failed turn, which shares its number with the error behind it, it is that of the
// event before: the reader finds the text again and has to leave it out. An event of another
// conversation is a PositionLost fault.
func (s *Service) Position(ctx context.Context, agentID, eventID string) (int64, error) {
	conv, err := s.log.Conversation(ctx, agentID)
	if err != nil {
		return 0, err
	}
	seq, ok := conv.seqOf(eventID)
	if !ok {
		return 0, fault.New(fault.PositionLost, "event %q is not an event of this conversation", eventID)
	}
	return seq, nil
}
