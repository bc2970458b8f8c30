package conversation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/tracing"
)

const (
	// maxPending bounds what an agent has sent for one turn and the log has not taken yet, in
	// bytes. Beyond it the agent's stream is not read, so that flow control slows the agent down.
	maxPending = 256 << 10
	// quietPeriod is how long a turn stays open after an error that nothing follows (grpc.md 4.7).
	quietPeriod = 5 * time.Second
	// warnAfter is at which part of the silence time-out a warning says so.
	warnAfter = 0.75
	// maxAsked bounds the approvals of one turn that nobody has answered.
	maxAsked = 100
)

// ErrTurnEnded is the answer to an event for a turn that has ended. The event is not recorded.
var ErrTurnEnded = errors.New("the turn has ended")

// A Sink takes what an agent answers to one message.
type Sink interface {
	// On takes the next event. It blocks while the log is too far behind, at most until ctx ends.
	// Increments are visible once they are durable, in the order of the calls; On does not wait
	// for that. After ErrTurnEnded the caller may forget the sink. It is called by one goroutine
	// at a time.
	On(ctx context.Context, b Body) error
	// OnNumbered is On of an agent that can resume: its events are numbered 1, 2, 3 … within the turn.
	// One that is there already is ignored; a gap is an Invalid fault, and nothing is recorded.
	OnNumbered(ctx context.Context, seq uint64, b Body) error
	// Gone says that the agent cannot answer any more. The cause is for people.
	Gone(cause string)
	// Lost says that the agent's stream broke and that it may resume. The turn ends as Gone ends it when
	// the grace is over.
	Lost(cause string, grace time.Duration)
	// Resumed says that the agent goes on with the turn, and gives its new call.
	Resumed(call Call)
}

// liveTurn is an open turn in memory.
type liveTurn struct {
	service   *Service
	feed      *feed
	id        string // of the turn
	thread    string
	principal string     // who began it
	by        watcher    // likewise, and how it was connected
	detached  *detached  // guarded by Service.mu; nil unless the sender follows in another call
	begins    int64      // number of its message
	span      trace.Span // of its trace, from its beginning to its end
	started   time.Time
	until     time.Time   // how long its message may wait for the agent; zero if it may not
	resumes   atomic.Bool // its agent can go on with it on another stream
	call      Call        // set before the agent can answer; nil until dispatched, guarded by mu

	// Owned by the committer.
	ref   Ref
	block *block

	waiting bool        // its message is in an inbox; guarded by Service.mu
	expiry  *time.Timer // ends it when the message has waited too long; likewise, nil unless it has been in an inbox

	silence *time.Timer // ends the turn when the agent says nothing for too long; set before it is shared

	mu        sync.Mutex
	pending   []item // what the committer has not taken; nil bodies are increments
	size      int    // bytes in pending and in the commit under way
	queued    bool   // the committer knows
	ending    bool   // the Ended event is pending or committed: nothing is accepted any more
	trouble   string // the last error the agent reported
	hasText   bool
	text      hash.Hash // of all text increments
	taken     int64     // bytes that the agent has answered
	first     time.Time // first event of the agent
	heard     time.Time // last event of the agent
	asking    time.Time // when it was last known that somebody has to answer the agent
	warned    bool      // that the agent is silent
	quiet     *time.Timer
	received  uint64             // number of the newest event of an agent that numbers them
	stored    uint64             // that of the newest that is durable
	last      uint64             // that of the one with which the agent ended the turn; 0 while it has not
	acked     uint64             // that of the newest that the agent knows to be
	unacked   int                // bytes of events that became durable since
	lost      *time.Timer        // ends the turn of a lost agent; nil while the agent is here
	handed    chan struct{}      // closed when the log says that the agent has the message; nil unless somebody waits for that
	asked     []Question         // approvals that the agent waits for
	verdicts  []verdict          // answers to questions that the agent has numbered, the last maxAsked
	questions []*PendingQuestion // that people have not answered
	numbered  int                // approvals so far
	decided   *Decision          // one that holds for the rest of the turn; nil if there is none
	cancelled string             // why somebody asked to stop it; empty if nobody did
	room      chan struct{}      // capacity 1: size may have shrunk, or the turn has ended
	done      chan struct{}      // closed when the Ended event is committed
}

// An item is something the committer has to store: an increment, or any other body.
type item struct {
	at   time.Time
	kind Kind   // of an increment, else 0
	text []byte // of an increment
	body Body   // else
	seq  uint64 // number of the newest event in it, of an agent that numbers them
}

// On implements Sink.
func (t *liveTurn) On(ctx context.Context, b Body) error { return t.on(ctx, 0, b) }

// OnNumbered implements Sink.
func (t *liveTurn) OnNumbered(ctx context.Context, seq uint64, b Body) error {
	t.mu.Lock()
	known, gap := seq <= t.received, seq > t.received+1
	t.mu.Unlock()
	switch { // nobody else sends events of the turn meanwhile
	case known:
		return nil
	case gap:
		return fault.New(fault.Invalid, "response_seq %d of request %s does not follow the one before", seq, t.id)
	}
	return t.on(ctx, seq, b)
}

// on takes an event; seq is 0 where the agent numbers none.
func (t *liveTurn) on(ctx context.Context, seq uint64, b Body) error {
	if f, ok := b.(FileData); ok {
		stored, err := t.service.storeFile(ctx, f)
		switch code := fault.CodeOf(err); {
		case err == nil:
			b = FileSent{stored}
		case code == fault.Invalid || code == fault.TooLarge:
			b = Trouble{"a file of the agent was refused: " + fault.Message(err)}
		default:
			t.service.logger.Error("cannot store a file of an agent", "turn_id", t.id, "agent_id", t.feed.agentID, "error", err)
			b = Trouble{fault.Message(err)}
		}
	}
	var rule *Decision
	if a, ok := b.(Approval); ok && seq > 0 {
		rule = t.ruled(ctx, a, seq)
	}
	for {
		t.mu.Lock()
		if t.ending {
			t.mu.Unlock()
			t.signalRoom()
			t.discard(b)
			return ErrTurnEnded
		}
		if t.tooMuch(b) {
			call := t.call
			t.mu.Unlock()
			t.discard(b)
			if call != nil {
				call.Cancel("the answer is too large")
			}
			return ErrTurnEnded
		}
		if t.size < maxPending {
			break
		}
		t.mu.Unlock()
		select {
		case <-t.room:
		case <-ctx.Done():
			t.discard(b)
			return context.Cause(ctx)
		}
	}
	t.signalRoom() // others may wait as well
	defer t.mu.Unlock()
	t.taken += answered(b)
	t.heard, t.warned = time.Now(), false
	t.received = max(t.received, seq)
	if t.first.IsZero() {
		t.first = t.heard
		t.service.metrics.FirstEventSeconds.Observe(t.heard.Sub(t.started).Seconds())
		t.span.AddEvent(tracing.FirstEvent)
	}
	if t.quiet != nil {
		t.quiet.Reset(quietPeriod)
	}
	switch b := b.(type) {
	case Text:
		if b.Text != "" {
			t.hasText = true
			text := []byte(b.Text)
			t.text.Write(text)
			t.push(item{seq: seq, kind: KindText, text: text})
		}
	case Thinking:
		if b.Text != "" {
			t.push(item{seq: seq, kind: KindThinking, text: []byte(b.Text)})
		}
	case Trouble:
		t.trouble = b.Text
		if t.quiet == nil {
			t.quiet = time.AfterFunc(quietPeriod, t.afterTrouble)
		}
		t.push(item{seq: seq, body: b})
	case Ended:
		t.finish(t.outcome(b), seq)
	case Approval:
		t.ask(b, nil, seq, rule)
	default:
		t.push(item{seq: seq, body: b})
	}
	return nil
}

// tooMuch ends the turn of an agent that answers more than it may. t.mu is held and the turn is open.
func (t *liveTurn) tooMuch(b Body) bool {
	limit := t.service.opts.MaxTurn
	if _, last := b.(Ended); last || limit == 0 || t.taken+answered(b) <= limit {
		return false
	}
	t.service.metrics.Refusals.WithLabelValues(KeyTurn).Inc()
	t.finish(Ended{State: Failed, Cause: fmt.Sprintf("the answer of the agent has more than %d bytes (%s)", limit, KeyTurn)}, 0)
	return true
}

// answered is how many bytes of a turn an event takes, its overhead included.
func answered(b Body) int64 {
	n := int64(sizeOf(Event{Body: b}))
	if f, ok := b.(FileSent); ok {
		n += f.File.Size
	}
	return n
}

// discard lets go of what belongs to an event that is not recorded.
func (t *liveTurn) discard(b Body) {
	if f, ok := b.(FileSent); ok {
		t.service.releaseFiles(f.File)
	}
}

// Lost implements Sink.
func (t *liveTurn) Lost(cause string, grace time.Duration) {
	closing := t.service.Closing()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.call = nil
	if t.ending {
		return
	}
	t.silence.Stop()
	if t.quiet != nil {
		t.quiet.Stop()
	}
	t.lost = time.AfterFunc(grace, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.lost != nil && !t.ending { // else the agent came back at the last moment
			t.finish(Ended{State: Interrupted, Cause: cause}, 0)
		}
	})
	if closing {
		t.lost.Stop() // the next run of the gateway waits for the agent
	}
}

// Resumed implements Sink.
func (t *liveTurn) Resumed(call Call) {
	t.mu.Lock()
	over, cancelled := t.ending && t.last == 0, t.cancelled
	var verdicts []verdict
	news := uint64(0)
	if !over {
		t.call = call
		if t.stored > t.acked { // since Welcome was written
			t.acked, news = t.stored, t.stored
		}
	}
	if !t.ending {
		for _, v := range t.verdicts {
			if v.ready && v.durable {
				verdicts = append(verdicts, v)
			}
		}
		t.heard, t.warned = time.Now(), false
		t.silence.Reset(t.service.untilWarning())
		if t.quiet != nil {
			t.quiet.Reset(quietPeriod)
		}
	}
	t.mu.Unlock()
	if over {
		call.Cancel("the turn has ended")
		call.Retire()
		return
	}
	if news > 0 {
		call.Ack(news)
	}
	for _, v := range verdicts {
		call.Decide(v.decision.Number, v.decision)
	}
	if cancelled != "" {
		call.Cancel(cancelled)
	}
}

// back stops the grace of a turn whose agent has returned. It returns what is durable of the answer, and
// false when the turn has ended or was not lost. One that the agent has ended itself is its own until
// that is durable.
func (t *liveTurn) back() (stored uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending && t.last == 0 || !t.ending && t.lost == nil {
		return 0, false
	}
	if t.lost != nil {
		t.lost.Stop()
		t.lost = nil
	}
	t.acked = t.stored
	return t.stored, true
}

// An agent that resumes hears what is recorded after so many events, or bytes of them, or a file: it bounds what
// it keeps, and must not wait for an acknowledgement that waits for more.
const (
	ackEvery      = 32
	ackEveryBytes = 64 << 10
)

// durable says that the events of an agent are durable up to a number, size bytes more than before, and tells
// the agent now and then, or now.
func (t *liveTurn) durable(seq uint64, size int, now bool) {
	t.mu.Lock()
	t.unacked += size
	t.stored = max(t.stored, seq)
	call := t.call
	due := call != nil && t.stored > t.acked && (now || t.stored >= t.acked+ackEvery || t.unacked >= ackEveryBytes)
	if due {
		t.acked, t.unacked = t.stored, 0
	}
	seq = t.stored
	t.mu.Unlock()
	if due {
		call.Ack(seq)
	}
}

// Gone implements Sink.
func (t *liveTurn) Gone(cause string) { t.end(Ended{State: Interrupted, Cause: cause}) }

// push queues an item for the committer. t.mu is held.
func (t *liveTurn) push(i item) {
	i.at = time.Now().UTC()
	if n := len(t.pending); i.kind != 0 && n > 0 && t.pending[n-1].kind == i.kind && len(t.pending[n-1].text)+len(i.text) <= MaxBlockBytes {
		t.pending[n-1].text = append(t.pending[n-1].text, i.text...)
		t.pending[n-1].seq = i.seq
	} else {
		t.pending = append(t.pending, i)
	}
	t.size += len(i.text)
	if i.body != nil {
		t.size += sizeOf(Event{Body: i.body})
	}
	if !t.queued {
		t.queued = true
		t.service.committer.post(t)
	}
}

// outcome judges a turn that the agent says has ended. t.mu is held.
func (t *liveTurn) outcome(e Ended) Ended {
	if e.State != Done {
		if e.State == Cancelled && e.Cause == "" {
			e.Cause = t.cancelled
		}
		return e
	}
	e.SameText = bytes.Equal(t.text.Sum(nil), sum(e.Response))
	nothing := !t.hasText && (e.Response == "" || strings.HasPrefix(e.Response, "Error: "))
	if t.trouble != "" && nothing {
		e.State, e.Cause = Failed, t.trouble
	}
	return e
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// finish queues the Ended event; nothing is accepted after it. t.mu is held and the turn is open.
func (t *liveTurn) finish(e Ended, seq uint64) {
	t.ending, t.last = true, seq
	t.silence.Stop()
	if t.lost != nil {
		t.lost.Stop()
	}
	if t.quiet != nil {
		t.quiet.Stop()
	}
	for _, q := range t.asked {
		q.stop()
	}
	t.push(item{seq: seq, body: e})
	t.signalRoom()
}

// signalRoom wakes one of those who wait for room.
func (t *liveTurn) signalRoom() {
	select {
	case t.room <- struct{}{}:
	default:
	}
}

// end ends the turn for a reason that is not the agent's own; without effect when it has ended.
func (t *liveTurn) end(e Ended) bool {
	t.mu.Lock()
	if t.ending {
		t.mu.Unlock()
		return false
	}
	t.finish(e, 0)
	call := t.call
	t.mu.Unlock()
	if call != nil {
		call.Retire()
	}
	return true
}

// afterTrouble ends a turn whose agent reported an error and then nothing more.
func (t *liveTurn) afterTrouble() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending || time.Since(t.heard) < quietPeriod {
		return // the timer was reset while we waited for the lock
	}
	t.finish(t.outcome(Ended{State: Done}), 0)
}

// untilWarning is how long a turn may be silent before its readers are warned.
func (s *Service) untilWarning() time.Duration {
	return time.Duration(warnAfter * float64(s.opts.SilenceTimeout))
}

// onSilence warns the readers of a turn whose agent has said nothing for a part of the silence time-out,
// and ends it after the whole. While somebody has to answer the agent, it is not the agent that is
// silent.
func (t *liveTurn) onSilence() {
	limit, warning := t.service.opts.SilenceTimeout, t.service.untilWarning()
	t.mu.Lock()
	if t.ending {
		t.mu.Unlock()
		return
	}
	if len(t.asked)+len(t.questions) > 0 {
		t.asking, t.warned = time.Now(), false
	}
	since := t.heard
	if t.asking.After(since) {
		since = t.asking
	}
	silent := time.Since(since)
	switch {
	case silent < warning:
		t.silence.Reset(warning - silent)
	case silent < limit:
		if !t.warned {
			t.warned = true
			t.push(item{body: Trouble{fmt.Sprintf("the agent has been silent for %s; after %s its turn fails (%s)", warning, limit, keySilence)}})
		}
		t.silence.Reset(limit - silent)
	}
	t.mu.Unlock()
	if silent >= limit {
		t.end(Ended{State: Failed, Cause: "the agent has been silent for " + limit.String()})
	}
}

// answeredNow says that one answer that the agent has waited for has come. t.mu is held.
func (t *liveTurn) answeredNow() { t.asking, t.warned = time.Now(), false }

// cancel asks the agent to stop. An agent that understands gets the grace to acknowledge; for
// others the turn ends at once, cancel returns when that is durable, and late output is ignored.
func (t *liveTurn) cancel(ctx context.Context, reason string, grace time.Duration) error {
	t.mu.Lock()
	if t.ending {
		t.mu.Unlock()
		return fault.New(fault.Conflict, "the turn has already ended")
	}
	again := t.cancelled != ""
	t.cancelled = reason
	call := t.call
	t.mu.Unlock()
	if again {
		return nil
	}
	if call == nil || !call.Cancel(reason) {
		t.end(Ended{State: Cancelled, Cause: reason})
		select {
		case <-t.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	time.AfterFunc(grace, func() { t.end(Ended{State: Cancelled, Cause: reason}) })
	return nil
}

// onHanded says that the log says that the agent has the message.
func (t *liveTurn) onHanded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handed != nil {
		close(t.handed)
		t.handed = nil
	}
}

func (t *liveTurn) firstSign() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first
}

// take hands everything pending to the committer.
func (t *liveTurn) take() (items []item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queued = false
	items, t.pending = t.pending, nil
	return items
}

// putBack returns items whose commit failed. They will be taken again, before anything newer.
func (t *liveTurn) putBack(items []item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(items, t.pending...)
	if !t.queued {
		t.queued = true
		t.service.committer.post(t)
	}
}

// committed says that items of a size are durable.
func (t *liveTurn) committed(size int) {
	t.mu.Lock()
	t.size -= size
	t.mu.Unlock()
	t.signalRoom()
}

// NoteTool records that a tool was run in a turn; without effect when the turn has ended. It waits, like the
// agent's own events, while the log is too far behind, at most until ctx ends.
func (s *Service) NoteTool(ctx context.Context, agentID, turnID string, run ToolRun) error {
	t := s.working(agentID, turnID)
	if t == nil || turnID == "" {
		return nil
	}
	if err := t.on(ctx, 0, run); !errors.Is(err, ErrTurnEnded) {
		return err
	}
	return nil
}

var _ Sink = (*liveTurn)(nil)
