package conversation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Delivery says what becomes of a message whose agent is away, or busy with the same thread.
type Delivery string

// The ways to deliver.
const (
	// FailAway refuses a message whose agent is not connected. An agent that is busy gets it anyway.
	FailAway Delivery = "fail"
	// Queue keeps the message until the agent is connected and its thread has no turn under way.
	// The messages of a thread are delivered in their order.
	Queue Delivery = "queue"
	// Interrupt ends the turns of the thread that are under way before the message is delivered. An
	// agent that is not connected makes it fail.
	Interrupt Delivery = "interrupt"
)

// Bounds of messages that wait.
const (
	StandardWait = 24 * time.Hour
	MaxWait      = 30 * 24 * time.Hour
	maxWaiting   = 1000 // of one agent
)

// ParseDelivery returns the way that a word names; "" is "".
func ParseDelivery(word string) (Delivery, error) {
	switch d := Delivery(word); d {
	case "", FailAway, Queue, Interrupt:
		return d, nil
	}
	return "", fault.New(fault.Invalid, "delivery must be fail, queue or interrupt; got %q", word)
}

// An inbox is the messages that wait for one agent. A goroutine hands them over while there is
// something that can be; it belongs to the service, which waits for it in Close. All fields are
// guarded by Service.mu.
type inbox struct {
	turns   []*liveTurn // in the order of their messages
	running bool        // the goroutine lives
	again   bool        // something has changed since it looked
}

// Arrived says that an agent is connected, so that what waits for it is delivered. It does not wait
// for that.
func (s *Service) Arrived(agentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake(agentID)
}

// wake has the inbox of an agent looked at. s.mu is held.
func (s *Service) wake(agentID string) {
	in := s.inboxes[agentID]
	switch {
	case in == nil || s.closing:
	case in.running:
		in.again = true
	default:
		in.running = true
		s.deliveries.Go(func() { s.empty(agentID, in) })
	}
}

// empty hands over what can be, one message after the other.
func (s *Service) empty(agentID string, in *inbox) {
	for t := s.next(agentID, in, false); t != nil; {
		t = s.next(agentID, in, !s.hand(t))
	}
}

// next returns the first message whose thread is free. When there is none, or the agent is away, the
// goroutine of the inbox has to end; away says that the agent was, so that there must be a reason to
// look again.
func (s *Service) next(agentID string, in *inbox, away bool) *liveTurn {
	for {
		s.mu.Lock()
		again := in.again
		in.again = false
		s.mu.Unlock()
		here := false
		if !away || again {
			_, here = s.dispatcher.Resolve(agentID)
		}
		s.mu.Lock()
		var first *liveTurn
		if here && !s.closing {
			first = s.free(agentID, in)
		}
		if first == nil && in.again {
			s.mu.Unlock()
			continue
		}
		if first == nil {
			in.running = false
			if len(in.turns) == 0 && s.inboxes[agentID] == in {
				delete(s.inboxes, agentID)
			}
		}
		s.mu.Unlock()
		return first
	}
}

// free returns the first message of an inbox in whose thread nothing is under way. s.mu is held.
func (s *Service) free(agentID string, in *inbox) *liveTurn {
	if s.full(agentID) {
		return nil // the end of one of its turns has the inbox looked at
	}
	busy := make(map[string]bool)
	for _, t := range s.open {
		if t.feed.agentID == agentID && !t.waiting {
			busy[t.thread] = true
		}
	}
	for _, t := range in.turns {
		if !busy[t.thread] {
			return t
		}
	}
	return nil
}

// threadBusy reports whether a turn of a thread is under way.
func (s *Service) threadBusy(agentID, threadID string) bool {
	return len(s.underWay(agentID, threadID)) > 0
}

// underWay returns the turns of a thread that the agent works on.
func (s *Service) underWay(agentID, threadID string) (turns []*liveTurn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.open {
		if t.feed.agentID == agentID && t.thread == threadID && !t.waiting {
			turns = append(turns, t)
		}
	}
	return turns
}

// hand gives a message that waits to its agent. It is at most once: before the agent gets it the log
// says that it did, and when the gateway dies in between, nobody sends it again. It returns false
// when the agent was not there.
//
// For the same reason a message that makes the gateway die is read once: what comes after the log says
// that the agent has it is not tried again by the next run.
func (s *Service) hand(t *liveTurn) bool {
	if !s.enter() {
		return false
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(context.Background(), dispatchTimeout)
	defer cancel()
	release, err := s.inOrder(ctx, t.thread)
	if err != nil {
		return true // somebody else sends to the thread; it is tried again
	}
	defer release()
	if s.threadBusy(t.feed.agentID, t.thread) {
		return true
	}
	t.resumes.Store(s.dispatcher.Resumable(t.feed.agentID))
	handed, ok := s.depart(t)
	if !ok {
		s.afterEnd(t) // which takes it out of the inbox
		return true
	}
	select {
	case <-handed:
	case <-s.committer.stopped: // the log cannot be written and the gateway stops
		return true
	}
	// The log may have taken long, which is no fault of the agent.
	ctx, cancelGiving := context.WithTimeout(context.Background(), dispatchTimeout)
	defer cancelGiving()
	m, err := s.messageOf(ctx, t)
	if err != nil {
		s.logger.Error("a message that waited could not be read", "turn_id", t.id, "agent_id", t.feed.agentID, "error", err)
		t.end(Ended{State: Failed, Cause: "the message could not be read"})
		return true
	}
	err = s.give(ctx, t, m)
	if errors.Is(err, ErrAgentGone) && s.comeBack(t) {
		return false
	}
	if err != nil {
		_ = s.undelivered(t, err) // its end says so
	}
	return true
}

// afterEnd waits until the end of a turn is durable.
func (s *Service) afterEnd(t *liveTurn) {
	select {
	case <-t.done:
	case <-s.committer.stopped:
	}
}

// messageOf reads the message of a turn from the log.
func (s *Service) messageOf(ctx context.Context, t *liveTurn) (Dispatch, error) {
	page, err := s.log.Records(ctx, Query{Conversation: t.ref.Conversation, Turn: t.id, After: t.begins - 1, Until: t.begins, Limit: 1})
	if err != nil {
		return Dispatch{}, err
	}
	if len(page.Records) != 1 {
		return Dispatch{}, fault.New(fault.Internal, "turn %s has no message", t.id)
	}
	body, err := decode(page.Records[0].Kind, page.Records[0].Text, page.Records[0].Detail)
	msg, ok := body.(Message)
	if err != nil || !ok {
		return Dispatch{}, fault.Wrap(err, fault.Internal, "turn %s does not begin with a message", t.id)
	}
	d := Dispatch{TurnID: t.id, ThreadID: t.thread, Sender: msg.Sender, Text: msg.Text}
	for _, f := range msg.Files {
		data, err := s.opts.Files.Get(ctx, f.SHA256, f.Size)
		if err != nil {
			return Dispatch{}, err
		}
		d.Files = append(d.Files, FileData{Name: f.Name, Type: f.Type, Data: data})
	}
	return d, nil
}

// depart takes a message out of the inbox and has the log say that the agent has it. The channel is
// closed when the log does. ok is false when the turn has ended.
func (s *Service) depart(t *liveTurn) (handed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending {
		return nil, false
	}
	s.unlist(t)
	s.metrics.TurnsOpen.Inc()
	s.atWork[t.feed.agentID]++
	t.heard, t.warned = time.Now(), false
	t.silence.Reset(s.untilWarning())
	ch := make(chan struct{})
	t.handed = ch
	t.push(item{body: Delivered{}})
	return ch, true
}

// comeBack puts a message back to the front of the inbox when the agent left before it took it. It
// returns false when the turn has ended.
func (s *Service) comeBack(t *liveTurn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending {
		return false
	}
	t.silence.Stop()
	s.metrics.TurnsOpen.Dec()
	s.rest(t.feed.agentID)
	t.push(item{body: Enqueued{Until: t.until}})
	s.list(t, true)
	return true
}

// list puts a turn into the inbox of its agent. s.mu is held.
func (s *Service) list(t *liveTurn, front bool) {
	agentID := t.feed.agentID
	in := s.inboxes[agentID]
	if in == nil {
		in = &inbox{}
		s.inboxes[agentID] = in
	}
	if front {
		in.turns = slices.Insert(in.turns, 0, t)
	} else {
		in.turns = append(in.turns, t)
	}
	t.waiting = true
	s.waiting++
	s.metrics.TurnsWaiting.Inc()
	t.expiry = time.AfterFunc(time.Until(t.until), t.onExpiry)
}

// unlist takes a turn out of the inbox of its agent. s.mu is held.
func (s *Service) unlist(t *liveTurn) {
	t.waiting = false
	t.expiry.Stop()
	s.waiting--
	s.metrics.TurnsWaiting.Dec()
	if in := s.inboxes[t.feed.agentID]; in != nil {
		in.turns = slices.DeleteFunc(in.turns, func(x *liveTurn) bool { return x == t })
		if len(in.turns) == 0 && !in.running {
			delete(s.inboxes, t.feed.agentID)
		}
	}
}

// onExpiry ends a turn whose agent has not come in time.
func (t *liveTurn) onExpiry() {
	t.service.mu.Lock()
	defer t.service.mu.Unlock() // nobody hands it over meanwhile
	if t.waiting {
		t.end(Ended{State: Expired, Cause: "the agent did not take the message in time"})
	}
}

// roomFor refuses a message for which the inbox of an agent has no room.
func (s *Service) roomFor(agentID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.inboxes[agentID]; in != nil && len(in.turns) >= maxWaiting {
		return fault.TooOften(time.Minute, "%d messages wait for the agent; no more are taken", len(in.turns))
	}
	return nil
}

// addressee returns the agent for which a message may wait: one that is connected, that somebody owns or
// that has a conversation, or the only agent of a principal.
func (s *Service) addressee(ctx context.Context, id string) (string, error) {
	if agentID, ok := s.dispatcher.Resolve(id); ok {
		return agentID, nil
	}
	agentID, err := s.opts.Policy.AgentOf(ctx, id)
	if fault.CodeOf(err) != fault.NotFound {
		return agentID, err
	}
	if conv, err := s.log.Conversation(ctx, id); err != nil || conv.ID != 0 {
		return id, err
	}
	return "", fault.New(fault.NotFound, "agent not found")
}

// interrupt ends the turns of a thread that are under way, and waits until they have.
func (s *Service) interrupt(ctx context.Context, p auth.Principal, agentID, threadID string, oversees bool) error {
	turns := s.underWay(agentID, threadID)
	for _, t := range turns {
		if !oversees && t.principal != p.ID {
			return fault.New(fault.Forbidden, "the turn of this thread that is under way is somebody else's")
		}
	}
	for _, t := range turns {
		if err := t.cancel(ctx, "interrupted by another message", s.opts.CancelGrace); err != nil && fault.CodeOf(err) != fault.Conflict {
			return err
		}
	}
	for _, t := range turns {
		select {
		case <-t.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// restore puts a message back into the inbox that it was in when the last run of the gateway ended.
func (s *Service) restore(ctx context.Context, u UnfinishedTurn) error {
	f, err := s.acquire(ctx, u.AgentID)
	if err != nil {
		return err
	}
	t := s.newTurn(ctx, f, u.Turn, u.Ref, watcher{principal: u.PrincipalID, open: u.PrincipalID == auth.Anonymous.ID})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[t.id] = t
	s.list(t, false)
	return nil
}

// Live returns at most limit turns that are not over and that the caller may see, the oldest first;
// agentID "" means all agents, state "" both Queued and Open. more says that there are others.
func (s *Service) Live(ctx context.Context, agentID string, state TurnState, limit int) (turns []Turn, more bool, err error) {
	if id, ok := s.dispatcher.Resolve(agentID); ok {
		agentID = id
	}
	var live []*liveTurn
	s.mu.Lock()
	for _, t := range s.open {
		if (agentID == "" || t.feed.agentID == agentID) && (state == "" || t.waiting == (state == Queued)) {
			live = append(live, t)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(live, func(a, b *liveTurn) int { return cmp.Or(a.started.Compare(b.started), cmp.Compare(a.id, b.id)) })
	for _, t := range live {
		turn, err := s.Turn(ctx, t.id)
		switch {
		case fault.CodeOf(err) == fault.NotFound || err == nil && turn.State.Over(): // not the caller's, or over since
		case err != nil:
			return nil, false, err
		case len(turns) == limit:
			return turns, true, nil
		default:
			turns = append(turns, turn)
		}
	}
	return turns, false, nil
}
