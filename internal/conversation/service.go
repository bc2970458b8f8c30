package conversation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/tracing"
)

// Limits of a message that do not depend on the configuration, in bytes.
const (
	MaxSender         = 200
	MaxThreadID       = 200
	MaxIdempotencyKey = 100
	MaxFileName       = 255
	MaxReason         = 1000
)

// The keys of the configuration that a refusal names.
const (
	KeyTurn        = "limits.turn"
	keyAgentTurns  = "limits.agent_turns"
	keyTurnsPerMin = "limits.turns_per_minute"
	keySilence     = "agents.turn_silence_timeout"
)

// dispatchTimeout bounds how long a message waits for an agent that takes nothing.
const dispatchTimeout = 30 * time.Second

var errShuttingDown = fault.New(fault.Unavailable, "the gateway is shutting down")

// Options are what a Service needs. All fields but Retention and Tracer are required.
type Options struct {
	Log        Log
	Dispatcher Dispatcher
	Files      Files
	Logger     *slog.Logger
	Metrics    *Metrics
	Tracer     *tracing.Tracer // nil to trace nothing
	Policy     Policy
	Bindings   Bindings
	Approvals  ApprovalPolicies
	// Audit writes a record into the audit log.
	Audit func(context.Context, auth.AuditRecord) error

	SilenceTimeout  time.Duration // a turn whose agent says nothing for so long fails
	ReconnectGrace  time.Duration // how long a turn that the last run left open waits for its agent
	CancelGrace     time.Duration // for an agent to acknowledge a cancellation
	MaxMessage      int64         // bytes of text
	MaxFile         int64         // bytes of one file
	ApprovalTimeout time.Duration // a question whether a tool may run is denied after that; 0 for never
	MaxFiles        int           // files of one message
	MaxTurn         int64         // bytes that an agent may answer in one turn; 0 for no limit
	AgentTurns      int           // turns that one agent works on; 0 for no limit
	TurnsPerMinute  int           // turns that one principal begins; 0 for no limit
	Retention       Retention     // what is kept
}

// A Service is everything that can be done with conversations.
type Service struct {
	opts       Options
	log        Log
	dispatcher Dispatcher
	logger     *slog.Logger
	metrics    *Metrics
	tracer     *tracing.Tracer
	committer  *committer
	keeper     *keeper
	policies   atomic.Pointer[map[string][]ToolRule] // of approvals, by agent id; not changed in place
	ruling     chan struct{}                         // capacity 1: full while somebody changes the policies
	beginning  *auth.Limiter                         // of principals that begin turns
	answers    sync.WaitGroup                        // to questions that people do not answer; started while their turn is open
	pruning    chan struct{}                         // capacity 1: full while somebody has something removed from a conversation

	feedsMu sync.Mutex
	feeds   map[string]*feed // by agent id; only those in use

	mu        sync.Mutex
	open      map[string]*liveTurn              // by turn id
	order     map[string]*order                 // by thread id; only those in use
	followers map[string]map[*Follower]struct{} // by agent id
	detached  map[string][]*detached            // by agent id, in the order of their beginning
	inboxes   map[string]*inbox                 // by agent id; only those in use
	waiting   int                               // turns in inboxes; they are in open, too
	atWork    map[string]int                    // turns that are in no inbox, by agent id, those included that begin
	closing   bool
	sending   int
	drained   chan struct{} // closed when closing and nothing is under way or being sent
	idle      bool          // drained is closed

	calm    *time.Timer // forgets what is counted of crashes; nil until New returns
	calming sync.WaitGroup

	deliveries sync.WaitGroup // the goroutines of inboxes; started with mu held and only while not closing
}

// New returns a Service over a log. What the last run has left open is ended first, as interrupted, but for
// the turns of agents that resume: those wait for their agents. The service must be drained and closed.
func New(ctx context.Context, o Options) (*Service, error) {
	s := &Service{
		opts: o, log: o.Log, dispatcher: o.Dispatcher, logger: o.Logger, metrics: o.Metrics, tracer: o.Tracer,
		feeds:     make(map[string]*feed),
		open:      make(map[string]*liveTurn),
		order:     make(map[string]*order),
		followers: make(map[string]map[*Follower]struct{}),
		detached:  make(map[string][]*detached),
		inboxes:   make(map[string]*inbox),
		atWork:    make(map[string]int),
		beginning: auth.NewLimiter(float64(o.TurnsPerMinute)/60, o.TurnsPerMinute),
		drained:   make(chan struct{}),
		pruning:   make(chan struct{}, 1),
		ruling:    make(chan struct{}, 1),
	}
	policies, err := o.Approvals.ApprovalPolicies(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the approval policies: %w", err)
	}
	s.policies.Store(&policies)
	waiting, held, err := s.recover(ctx)
	if err != nil {
		return nil, fmt.Errorf("end what the last run left open: %w", err)
	}
	s.committer = newCommitter(o.Log, o.Logger, o.Metrics)
	for _, t := range waiting {
		if err := s.restore(ctx, t); err != nil {
			return nil, errors.Join(fmt.Errorf("restore what waited for agents: %w", err), s.Close())
		}
	}
	for _, t := range held {
		if err := s.holdOpen(ctx, t); err != nil {
			return nil, errors.Join(fmt.Errorf("restore the turns of agents that resume: %w", err), s.Close())
		}
	}
	s.calming.Add(1)
	s.calm = time.AfterFunc(calmAfter, func() { defer s.calming.Done(); s.forgetCrashes() })
	s.keeper = newKeeper(s, o.Retention)
	return s, nil
}

// A SendRequest is a message for an agent.
type SendRequest struct {
	AgentID    string // or the instance id of its connection
	ChannelID  string // where AgentID is empty: a channel of the frontend, which is bound to an agent
	ThreadID   string // continues or names a thread; a new one is made where it is empty
	Frontend   string // where the message comes from, for the thread
	ExternalID string // what the frontend calls the thread; its id where empty
	Sender     string // on whose behalf, for people
	Text       string
	Files      []FileData
	Key        string        // idempotency key; empty for none
	Detached   bool          // the sender follows the turn in another call, see Follow
	Delivery   Delivery      // "" is that of the binding, or else FailAway
	Wait       time.Duration // with Queue: how long the message may wait; 0 for StandardWait
}

// Send stores a message, begins its turn and hands it to the agent. It returns when the agent's
// connection has taken the message; the message is durable before that. A repeated Send with the
// same principal and Key returns the turn of the first one and does nothing else.
//
// Faults: Invalid and TooLarge about the request; Unavailable when the agent is not connected or
// the gateway is shutting down (nothing is stored); Conflict when the thread belongs to another
// agent or the key to another message; NotFound when the agent vanished after the message was
// stored, TooLarge when it cannot be sent so much at once (the turn has ended then, as
// interrupted or failed).
//
// With [Queue] Send returns as soon as the message is durable; its turn is then Queued until the agent
// gets it. A NotFound fault says that nobody knows the agent, a Limited one that too many messages
// wait for it. With [Interrupt] a Forbidden fault says that what is under way is somebody else's.
func (s *Service) Send(ctx context.Context, r SendRequest) (Turn, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Turn{}, err
	}
	if err := s.check(r); err != nil {
		return Turn{}, err
	}
	digest := r.digest()
	if t, err := s.repeated(ctx, p, r.Key, digest); err != nil || t.Repeated {
		return t, err
	}
	if r.AgentID == "" {
		var usual Delivery
		if r.AgentID, usual, err = s.bound(ctx, r.Frontend, r.ChannelID); err != nil {
			return Turn{}, err
		}
		r.Delivery = cmp.Or(r.Delivery, usual)
	}
	agentID, ok := s.dispatcher.Resolve(r.AgentID)
	switch {
	case r.Delivery == Queue:
		if agentID, err = s.addressee(ctx, r.AgentID); err != nil {
			return Turn{}, err
		}
		if err := s.roomFor(agentID); err != nil {
			return Turn{}, err
		}
	case !ok:
		return Turn{}, fault.Wrap(ErrAgentGone, fault.Unavailable, "agent unavailable")
	}
	if r.ChannelID != "" && r.ThreadID == "" {
		r.ThreadID, r.ExternalID = channelThread(r.Frontend, r.ChannelID, agentID)
	}
	if !s.enter() {
		return Turn{}, errShuttingDown
	}
	defer s.leave()
	if r.ThreadID != "" {
		release, err := s.inOrder(ctx, r.ThreadID)
		if err != nil {
			return Turn{}, err
		}
		defer release()
	}
	oversees, err := s.opts.Policy.Oversees(ctx, p, agentID)
	if err != nil {
		return Turn{}, err
	}
	if r.Delivery == Interrupt && r.ThreadID != "" {
		if t, err := s.repeated(ctx, p, r.Key, digest); err != nil || t.Repeated {
			return t, err // another call has just begun it: it must not end its own turn
		}
		if err := s.interrupt(ctx, p, agentID, r.ThreadID, oversees); err != nil {
			return Turn{}, err
		}
	}
	if err := s.mayBegin(p); err != nil {
		return Turn{}, err
	}
	if r.Delivery != Queue {
		if err := s.reserve(agentID); err != nil {
			return Turn{}, err
		}
	}
	unreserve := func() {
		if r.Delivery != Queue {
			s.unreserve(agentID)
		}
	}
	f, err := s.acquire(ctx, agentID)
	if err != nil {
		unreserve()
		return Turn{}, err
	}
	msg := Message{Sender: r.Sender, PrincipalID: p.ID, Text: r.Text}
	defer func() { s.releaseFiles(msg.Files...) }()
	for _, a := range r.Files {
		stored, err := s.storeFile(ctx, a)
		if err != nil {
			s.release(f)
			unreserve()
			return Turn{}, err
		}
		msg.Files = append(msg.Files, stored)
	}
	b := &beginning{feed: f, body: msg, new: NewTurn{
		Turn: Turn{
			ID: newID(), AgentID: agentID, ThreadID: r.ThreadID, PrincipalID: p.ID, Sender: r.Sender,
			State: Open, StartedAt: time.Now().UTC(),
		},
		Frontend: r.Frontend, ExternalID: r.ExternalID, Title: TitleOf(r.Text), Key: r.Key, Digest: digest, Oversees: oversees,
		Resumable: r.Delivery != Queue && s.dispatcher.Resumable(agentID),
	}}
	if b.new.ThreadID == "" {
		b.new.ThreadID = newID()
	}
	if b.new.ExternalID == "" {
		b.new.ExternalID = b.new.ThreadID
	}
	if r.Delivery == Queue {
		b.new.State, b.new.WaitingUntil = Queued, b.new.StartedAt.Add(cmp.Or(r.Wait, StandardWait)).Truncate(time.Microsecond)
	}
	_, span := s.tracer.Start(ctx, "record", trace.SpanKindInternal)
	err = s.committer.begin(b)
	tracing.End(span, err, fault.Message)
	if err == nil {
		tracing.NoteTurn(ctx, b.turn.ID)
	}
	if err != nil || !b.fresh {
		s.release(f)
		unreserve()
		b.turn.Repeated = err == nil
		return b.turn, err
	}
	if r.Delivery == Queue {
		return b.turn, s.hold(ctx, p, b, r)
	}
	return b.turn, s.dispatch(ctx, p, b, r)
}

// mayBegin takes a turn from the allowance of a principal. In open mode there is nobody to tell apart.
func (s *Service) mayBegin(p auth.Principal) error {
	if p.Credential.Kind == auth.Open || s.opts.TurnsPerMinute == 0 {
		return nil
	}
	err := s.beginning.Allow(p.ID)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		s.metrics.Refusals.WithLabelValues(keyTurnsPerMin).Inc()
		return fault.TooOften(f.After, "a principal may begin %d turns in a minute (%s); come back in %s", s.opts.TurnsPerMinute, keyTurnsPerMin, max(f.After, time.Second).Round(time.Second))
	}
	return err
}

// reserve counts a turn that an agent is to work on, unless it has too many.
func (s *Service) reserve(agentID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full(agentID) {
		s.metrics.Refusals.WithLabelValues(keyAgentTurns).Inc()
		return fault.TooOften(time.Second, "the agent works on %d turns, as many as it may (%s); wait for one of them, or send with delivery queue", s.opts.AgentTurns, keyAgentTurns)
	}
	s.atWork[agentID]++
	return nil
}

func (s *Service) unreserve(agentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest(agentID)
	s.wake(agentID)
}

// full reports whether an agent works on as many turns as it may. s.mu is held.
func (s *Service) full(agentID string) bool {
	return s.opts.AgentTurns > 0 && s.atWork[agentID] >= s.opts.AgentTurns
}

// rest says that an agent works on one turn less. s.mu is held.
func (s *Service) rest(agentID string) {
	if s.atWork[agentID]--; s.atWork[agentID] == 0 {
		delete(s.atWork, agentID)
	}
}

// repeated returns the turn that a principal has begun with an idempotency key before.
func (s *Service) repeated(ctx context.Context, p auth.Principal, key string, digest []byte) (Turn, error) {
	if key == "" {
		return Turn{}, nil
	}
	t, d, err := s.log.TurnByKey(ctx, p.ID, key)
	if fault.CodeOf(err) == fault.NotFound {
		return Turn{}, nil
	}
	if err != nil {
		return Turn{}, err
	}
	t.Repeated = true
	tracing.NoteTurn(ctx, t.ID)
	return t, SameRequest(d, digest)
}

// dispatch hands a committed message to its agent. It belongs to no client connection any more.
func (s *Service) dispatch(ctx context.Context, p auth.Principal, b *beginning, r SendRequest) error {
	t, err := s.start(ctx, p, b, r.Detached)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchTimeout)
	defer cancel()
	if err := s.give(ctx, t, Dispatch{TurnID: t.id, ThreadID: t.thread, Sender: r.Sender, Text: r.Text, Files: r.Files}); err != nil {
		return s.undelivered(t, err)
	}
	return nil
}

// hold puts a committed message into the inbox of its agent.
func (s *Service) hold(ctx context.Context, p auth.Principal, b *beginning, r SendRequest) error {
	if _, err := s.start(ctx, p, b, r.Detached); err != nil {
		return err
	}
	s.Arrived(b.turn.AgentID) // perhaps long ago
	return nil
}

// start makes a turn live, in the inbox of its agent where its message waits. It takes over the user of
// the feed.
func (s *Service) start(ctx context.Context, p auth.Principal, b *beginning, detached bool) (*liveTurn, error) {
	t := s.newTurn(ctx, b.feed, b.turn, b.ref, watcherOf(p))
	t.resumes.Store(b.new.Resumable)
	s.mu.Lock()
	s.open[t.id] = t
	if detached {
		s.detach(t, t.begins)
	}
	if b.turn.State == Queued {
		s.list(t, false)
	} else {
		s.metrics.TurnsOpen.Inc()
	}
	s.mu.Unlock()
	s.metrics.Turns.Inc()
	return t, s.allowed(ctx, p, t)
}

// allowed ends a turn whose sender has lost its rights while it began. The caller may also have just
// left, which makes no difference. Who takes rights away looks for turns after that, so it sees this
// one unless we see the change.
func (s *Service) allowed(ctx context.Context, p auth.Principal, t *liveTurn) error {
	if ctx.Err() == nil || s.opts.Policy.Recheck(context.WithoutCancel(ctx), p) == nil {
		return nil
	}
	t.stop("the rights of the sender have ended")
	return fault.New(fault.Forbidden, "principal has been revoked")
}

// give has the agent's connection take a message, unless its turn has ended.
func (s *Service) give(ctx context.Context, t *liveTurn, m Dispatch) error {
	t.mu.Lock()
	over := t.ending
	t.mu.Unlock()
	if over {
		return nil
	}
	if t.span.SpanContext().IsValid() { // the agent's connection has what the agent does below the turn
		ctx = trace.ContextWithSpan(ctx, t.span)
	}
	_, span := s.tracer.Start(ctx, "dispatch", trace.SpanKindInternal)
	call, err := s.dispatcher.Dispatch(ctx, t.feed.agentID, m, t)
	tracing.End(span, err, fault.Message)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.call = call
	over = t.ending
	t.mu.Unlock()
	if over {
		call.Retire()
	}
	return nil
}

// undelivered ends a turn whose message could not be given to the agent, and returns the fault for the
// sender.
func (s *Service) undelivered(t *liveTurn, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		t.end(Ended{State: Failed, Cause: f.Msg})
		return f
	}
	t.end(Ended{State: Interrupted, Cause: "the message could not be handed to the agent: " + err.Error()})
	return fault.Wrap(err, fault.NotFound, "agent not found")
}

// newTurn returns a turn in memory. It takes over the user of the feed.
func (s *Service) newTurn(ctx context.Context, f *feed, turn Turn, ref Ref, by watcher) *liveTurn {
	t := &liveTurn{
		service: s, feed: f, id: turn.ID, thread: turn.ThreadID, principal: turn.PrincipalID, by: by, begins: turn.First,
		started: turn.StartedAt, until: turn.WaitingUntil, ref: ref,
		text: sha256.New(), heard: time.Now(), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	_, t.span = s.tracer.Start(ctx, "turn", trace.SpanKindInternal)
	if t.span.IsRecording() {
		t.span.SetAttributes(tracing.AgentID.String(f.agentID), tracing.TurnID.String(t.id), tracing.ThreadID.String(t.thread), tracing.PrincipalID.String(t.principal))
	}
	t.mu.Lock() // the timer may fire before it is assigned
	t.silence = time.AfterFunc(s.untilWarning(), t.onSilence)
	if turn.State == Queued {
		t.silence.Stop()
	}
	t.mu.Unlock()
	return t
}

// retire forgets a turn whose end is committed.
func (s *Service) retire(t *liveTurn, state TurnState) {
	close(t.done)
	s.release(t.feed)
	s.metrics.TurnsEnded.WithLabelValues(string(state)).Inc()
	s.metrics.TurnSeconds.Observe(time.Since(t.started).Seconds())
	s.report(t, state)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t.id)
	if t.waiting {
		s.unlist(t)
	} else {
		s.metrics.TurnsOpen.Dec()
		s.rest(t.feed.agentID)
	}
	s.settleDetached(t)
	s.wake(t.feed.agentID) // the thread is free
	s.settle()
}

// report says of a turn that has ended what it was: in the log, and to whoever follows its trace.
func (s *Service) report(t *liveTurn, state TurnState) {
	attrs := []slog.Attr{
		slog.String("turn_id", t.id), slog.String("agent_id", t.feed.agentID), slog.String("thread_id", t.thread), slog.String("principal", t.principal),
		slog.String("state", string(state)), slog.Duration("duration", time.Since(t.started)),
	}
	if first := t.firstSign(); !first.IsZero() {
		attrs = append(attrs, slog.Duration("first_event", first.Sub(t.started)))
	}
	if c := t.span.SpanContext(); c.IsValid() {
		attrs = append(attrs, slog.String("trace_id", c.TraceID().String()))
		t.span.SetAttributes(tracing.State.String(string(state)))
		if state != Done && state != Cancelled {
			t.span.SetStatus(codes.Error, string(state))
		}
	}
	t.span.End()
	s.logger.LogAttrs(context.Background(), slog.LevelInfo, "turn", attrs...)
}

// Cancel asks for the end of a turn. An agent that understands cancellation gets the grace to
// acknowledge; for others the turn ends at once. Faults: NotFound; Conflict when it has ended.
func (s *Service) Cancel(ctx context.Context, turnID, reason string) error {
	if len(reason) > MaxReason {
		return fault.New(fault.Invalid, "reason must not be longer than %d bytes", MaxReason)
	}
	if reason == "" {
		reason = "stopped by the user"
	}
	s.mu.Lock()
	t := s.open[turnID]
	s.mu.Unlock()
	if _, err := s.readTurn(ctx, turnID); err != nil {
		return err
	}
	tracing.NoteTurn(ctx, turnID)
	if t == nil {
		return fault.New(fault.Conflict, "the turn has already ended")
	}
	return t.cancel(ctx, reason, s.opts.CancelGrace)
}

// Turn returns a turn that the caller may see, or a NotFound fault.
func (s *Service) Turn(ctx context.Context, id string) (Turn, error) {
	t, err := s.readTurn(ctx, id)
	if err != nil {
		return Turn{}, err
	}
	s.mu.Lock()
	live := s.open[id]
	s.mu.Unlock()
	if live != nil {
		t.FirstEventAt = live.firstSign()
	}
	return t, nil
}

// Healthy returns why the log could not be written the last time, or nil.
func (s *Service) Healthy() error { return s.committer.healthy() }

// Closing reports whether the service takes no new messages any more.
func (s *Service) Closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Drain refuses new messages, leaves those that wait for agents where they are and the turns of agents that
// resume for the next run, lets other turns finish until ctx ends and then ends them as interrupted.
// It returns when all ends are recorded, or with the error that keeps the log from being written.
func (s *Service) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.settle()
	s.mu.Unlock()
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	var open []*liveTurn
	for _, t := range s.open {
		if !t.waiting && !t.resumes.Load() {
			open = append(open, t)
		}
	}
	s.mu.Unlock()
	for _, t := range open {
		t.end(Ended{State: Interrupted, Cause: "the gateway was shut down"})
	}
	check, late := time.NewTicker(drainTimeout), time.NewTimer(slowDrain)
	defer check.Stop()
	defer late.Stop()
	for {
		select {
		case <-s.drained:
			return nil
		case <-check.C:
			if err := s.Healthy(); err != nil {
				return fmt.Errorf("%d turns could not be ended: %w", len(open), err)
			}
		case <-late.C:
			return fmt.Errorf("%d turns could not be ended within %v", len(open), slowDrain)
		}
	}
}

// The wait for the last commits of a shutdown: where they fail, and where there is just much to write.
const (
	drainTimeout = 3 * time.Second
	slowDrain    = 10 * time.Second
)

// Close stops writing. Call it after Drain, when nothing uses the service any more.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closing = true
	for _, t := range s.open {
		if t.waiting {
			t.expiry.Stop()
		} else {
			t.rest()
		}
	}
	s.mu.Unlock()
	if s.calm != nil && s.calm.Stop() {
		s.calming.Done()
	}
	s.calming.Wait()
	if s.keeper != nil {
		s.keeper.close()
	}
	s.answers.Wait()
	s.committer.close()
	s.deliveries.Wait()
	if s.calm != nil {
		s.forgetCrashes() // this run ends well
	}
	return nil
}

func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.sending++
	return true
}

func (s *Service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending--
	s.settle()
}

// settle notes that nothing is left to drain. s.mu is held.
func (s *Service) settle() {
	if !s.closing || s.idle || s.sending > 0 {
		return
	}
	rest := len(s.open) - s.waiting
	for _, t := range s.open {
		if !t.waiting && t.resumes.Load() {
			rest--
		}
	}
	if rest == 0 {
		s.idle = true
		close(s.drained)
	}
}

// An order makes the messages of one thread reach the agent in the order in which they are stored.
type order struct {
	turn  chan struct{} // capacity 1, full while somebody sends
	users int
}

// inOrder waits for the other senders to a thread and returns what lets the next one go.
func (s *Service) inOrder(ctx context.Context, threadID string) (release func(), err error) {
	s.mu.Lock()
	o := s.order[threadID]
	if o == nil {
		o = &order{turn: make(chan struct{}, 1)}
		s.order[threadID] = o
	}
	o.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if o.users--; o.users == 0 {
			delete(s.order, threadID)
		}
	}
	select {
	case o.turn <- struct{}{}:
		return func() { <-o.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// acquire returns the feed of an agent's conversation; it must be released.
func (s *Service) acquire(ctx context.Context, agentID string) (*feed, error) {
	s.feedsMu.Lock()
	f := s.feeds[agentID]
	first := f == nil
	if first {
		f = newFeed(agentID)
		s.feeds[agentID] = f
	}
	f.users++
	s.feedsMu.Unlock()
	if first {
		f.conv, f.err = s.log.Conversation(context.WithoutCancel(ctx), agentID)
		f.tailFrom = f.conv.Head
		close(f.loaded)
	}
	select {
	case <-f.loaded:
	case <-ctx.Done():
		s.release(f)
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		s.release(f)
		return nil, f.err
	}
	return f, nil
}

func (s *Service) release(f *feed) {
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	if f.users--; f.users == 0 {
		delete(s.feeds, f.agentID)
	}
}

// check refuses a message that is out of bounds.
func (s *Service) check(r SendRequest) error {
	if _, err := ParseDelivery(string(r.Delivery)); err != nil {
		return err
	}
	switch {
	case r.Wait < 0 || r.Wait > MaxWait:
		return fault.New(fault.Invalid, "a message must not wait longer than %s; got %s", MaxWait, r.Wait)
	case r.Text == "" && len(r.Files) == 0:
		return fault.New(fault.Invalid, "content is required")
	case int64(len(r.Text)) > s.opts.MaxMessage:
		return fault.New(fault.TooLarge, "content must not be longer than %d bytes; this one has %d", s.opts.MaxMessage, len(r.Text))
	case !utf8.ValidString(r.Text):
		return fault.New(fault.Invalid, "content must be UTF-8")
	case len(r.Sender) > MaxSender:
		return fault.New(fault.Invalid, "sender must not be longer than %d bytes; this one has %d", MaxSender, len(r.Sender))
	case len(r.ThreadID) > MaxThreadID:
		return fault.New(fault.Invalid, "thread_id must not be longer than %d bytes; this one has %d", MaxThreadID, len(r.ThreadID))
	case len(r.Frontend) > MaxFrontend:
		return fault.New(fault.Invalid, "frontend must not be longer than %d bytes; this one has %d", MaxFrontend, len(r.Frontend))
	case len(r.ChannelID) > MaxChannelID:
		return fault.New(fault.Invalid, "channel_id must not be longer than %d bytes; this one has %d", MaxChannelID, len(r.ChannelID))
	case len(r.Key) > MaxIdempotencyKey:
		return fault.New(fault.Invalid, "the idempotency key must not be longer than %d bytes; this one has %d", MaxIdempotencyKey, len(r.Key))
	case len(r.Files) > s.opts.MaxFiles:
		return fault.New(fault.Invalid, "a message must not have more than %d attachments; this one has %d", s.opts.MaxFiles, len(r.Files))
	case !utf8.ValidString(r.Sender) || !utf8.ValidString(r.ThreadID) || !utf8.ValidString(r.Key):
		return fault.New(fault.Invalid, "sender, thread_id and the idempotency key must be UTF-8")
	}
	for i, f := range r.Files {
		if err := s.checkFile(f); err != nil {
			return fault.New(fault.CodeOf(err), "attachments[%d]: %s", i, fault.Message(err))
		}
	}
	return nil
}

func (s *Service) checkFile(f FileData) error {
	switch {
	case f.Name == "":
		return fault.New(fault.Invalid, "filename is required")
	case len(f.Name) > MaxFileName || len(f.Type) > MaxFileName:
		return fault.New(fault.Invalid, "filename and mime_type must not be longer than %d bytes", MaxFileName)
	case !utf8.ValidString(f.Name) || !utf8.ValidString(f.Type):
		return fault.New(fault.Invalid, "filename and mime_type must be UTF-8")
	case int64(len(f.Data)) > s.opts.MaxFile:
		return fault.New(fault.TooLarge, "a file must not be larger than %d bytes; %q has %d", s.opts.MaxFile, f.Name, len(f.Data))
	}
	return nil
}

// storeFile checks a file and stores its content, which stays at least until it is released.
func (s *Service) storeFile(ctx context.Context, f FileData) (File, error) {
	if err := s.checkFile(f); err != nil {
		return File{}, err
	}
	sum, err := s.opts.Files.Put(ctx, f.Data)
	if err != nil {
		return File{}, unstored(err, fmt.Sprintf("file %q", f.Name))
	}
	return File{ID: newID(), Name: f.Name, Type: f.Type, Size: int64(len(f.Data)), SHA256: sum}, nil
}

// digest identifies what a message says, to tell a repetition from a mistake.
func (r SendRequest) digest() []byte {
	h := sha256.New()
	put := func(b []byte) {
		h.Write(binary.AppendUvarint(nil, uint64(len(b))))
		h.Write(b)
	}
	for _, f := range []string{r.AgentID, r.ThreadID, r.Sender, r.Text} {
		put([]byte(f))
	}
	if r.AgentID == "" { // the same channel may be bound to another agent by now
		put([]byte(r.Frontend))
		put([]byte(r.ChannelID))
	}
	for _, f := range r.Files {
		put([]byte(f.Name))
		put([]byte(f.Type))
		put(f.Data)
	}
	return h.Sum(nil)
}

// SameRequest returns a Conflict fault when two requests with one idempotency key differ.
func SameRequest(stored, digest []byte) error {
	if string(stored) != string(digest) {
		return fault.New(fault.Conflict, "this idempotency key was used for another message")
	}
	return nil
}

// newID returns a random identity that sorts by time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
