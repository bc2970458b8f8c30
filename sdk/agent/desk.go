package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "coven-gateway/proto/coven"
)

// What is kept of the answer of one turn until the gateway has recorded it. A handler that is further ahead
// waits; a message that alone is larger is kept, too.
const (
	maxKept      = 256
	maxKeptBytes = 1 << 20
)

// ErrForgotten is the cause of a handler's context when the gateway does not know its turn any more: it has
// ended while the agent was away.
var ErrForgotten = errors.New("the gateway has ended the turn while the agent was away")

// A desk is where turns are answered. Where the gateway knows no `resume` it belongs to one session and sends
// through that. Else it belongs to the agent and outlives sessions: answers are numbered and kept until they
// are recorded, the writer of the session that is connected takes them from there, and the next one begins
// behind what the gateway has.
type desk struct {
	// Fixed.
	opts    Options
	resumes bool
	home    *session        // of one that does not resume
	ctx     context.Context // that handlers work under
	end     context.CancelCauseFunc
	slots   chan struct{} // one for each turn that is answered
	wake    chan struct{} // capacity 1: there is something to send; for the session's writer

	active atomic.Int64   // turns that are not answered
	tasks  sync.WaitGroup // threads; started with mu held and only while not closed

	mu        sync.Mutex // never held while something waits
	closed    bool       // nothing new is started
	session   *session   // that is connected; nil while there is none
	turns     map[string]*turn
	threads   map[string][]*turn // the waiting turns of each thread that is being answered
	waiting   int                // turns that wait
	bytes     int                // what they occupy
	approvals map[string]*asked  // that are waited for, by tool id
	errands   map[string]*errand // likewise, calls of the gateway's tools, by request id
}

// An errand is a call of one of the gateway's tools.
type errand struct {
	listed bool                    // the gateway was told that we wait; guarded by the desk's mutex
	result chan *pb.PackToolResult // capacity 1; closed without one when nobody knows of the call
}

// asked is a question of a handler whether a tool may run.
type asked struct {
	turn   *turn
	number uint64 // of the response that asks; 0 where they are not numbered
	answer chan bool
}

func newDesk(o Options, home *session, ctx context.Context) *desk {
	d := &desk{
		opts: o, resumes: home == nil, home: home, session: home,
		slots: make(chan struct{}, o.Concurrency), wake: make(chan struct{}, 1),
		turns: make(map[string]*turn), threads: make(map[string][]*turn), approvals: make(map[string]*asked), errands: make(map[string]*errand),
	}
	d.ctx, d.end = context.WithCancelCause(ctx)
	return d
}

// close starts nothing new and ends what is being done.
func (d *desk) close(why error) {
	d.mu.Lock()
	d.closed = true
	clear(d.threads)
	d.mu.Unlock()
	d.end(why)
}

// open returns the turns that the agent works on, and those whose end is not recorded.
func (d *desk) open() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.turns))
	for id := range d.turns {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// waits returns the calls of tools whose results are waited for, to tell the gateway.
func (d *desk) waits() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.errands))
	for id, e := range d.errands {
		ids = append(ids, id)
		e.listed = true
	}
	slices.Sort(ids)
	return ids
}

// await prepares for the result of a call. Whoever waits calls forget when done.
func (d *desk) await(id string) (result <-chan *pb.PackToolResult, forget func()) {
	e := &errand{result: make(chan *pb.PackToolResult, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errands[id] = e
	return e.result, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.errands, id)
	}
}

// arrived hands a result to whoever waits for it, if anybody does.
func (d *desk) arrived(r *pb.PackToolResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.errands[r.GetRequestId()]; e != nil {
		e.result <- r // there is room, as it comes once
		delete(d.errands, r.GetRequestId())
	}
}

// attach makes a session the one that is connected. The gateway has said how much it has of which turns; the
// others are over.
func (d *desk) attach(s *session, known []*pb.OpenRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = s
	for id, e := range d.errands {
		if !e.listed { // made on the stream before while this one began
			delete(d.errands, id)
			close(e.result)
		}
		e.listed = false
	}
	has := make(map[string]uint64, len(known))
	for _, r := range known {
		has[r.GetRequestId()] = r.GetReceived()
	}
	for id, t := range d.turns {
		received, ok := has[id]
		if !ok {
			d.forget(t)
			t.cancel(ErrForgotten)
			continue
		}
		t.recorded(received)
		t.sent = 0
	}
	d.poke()
}

// detach says that a session is not connected any more.
func (d *desk) detach(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == s {
		d.session = nil
	}
}

// connected returns the session that is connected, or nil.
func (d *desk) connected() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

func (d *desk) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// forget lets go of a turn. d.mu is held.
func (d *desk) forget(t *turn) {
	id, thread := t.message.RequestID, t.message.ThreadID
	if d.turns[id] == t {
		delete(d.turns, id)
	}
	if !t.started && !t.over {
		if queue, ok := d.threads[thread]; ok {
			d.threads[thread] = slices.DeleteFunc(queue, func(other *turn) bool { return other == t })
		}
		d.waiting--
		d.bytes -= t.size
		d.active.Add(-1)
	}
	t.over, t.gone = true, true
	t.kept, t.keptBytes, t.sent = nil, 0, 0
	t.signal()
}

// ack takes the word that a part of an answer is recorded.
func (d *desk) ack(requestID string, received uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.turns[requestID]
	if t == nil {
		return
	}
	t.recorded(received)
	if t.over && len(t.kept) == 0 {
		delete(d.turns, requestID)
	}
}

// unsent returns the next message that the connected session has not sent; turns take turns.
func (d *desk) unsent() *pb.AgentMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	var next *turn
	for _, t := range d.turns {
		if t.sent < len(t.kept) && (next == nil || t.served < next.served) {
			next = t
		}
	}
	if next == nil {
		return nil
	}
	next.served++
	next.sent++
	return next.kept[next.sent-1]
}

// respond sends a piece of an answer. With last it ends the turn, and does not wait for room. numbered is
// called with its number before it is sent; it may be nil.
func (d *desk) respond(ctx context.Context, t *turn, m *pb.AgentMessage, last bool, numbered func(uint64)) error {
	if !d.resumes {
		if last {
			ctx = d.home.ctx // t.ctx may have ended
		}
		return d.home.send(ctx, m)
	}
	size := proto.Size(m)
	if size > maxMessage {
		return fmt.Errorf("a message of %d bytes cannot be sent; %d is the limit", size, maxMessage)
	}
	for {
		d.mu.Lock()
		switch {
		case t.gone:
			d.mu.Unlock()
			return ErrForgotten
		case t.over && !last:
			d.mu.Unlock()
			return ErrEnded
		case !last && ctx.Err() != nil:
			d.mu.Unlock()
			return context.Cause(ctx)
		case last || len(t.kept) == 0 || len(t.kept) < maxKept && t.keptBytes+size <= maxKeptBytes:
			t.number++
			m.GetResponse().ResponseSeq = t.number
			if numbered != nil {
				numbered(t.number)
			}
			t.kept = append(t.kept, m)
			t.keptBytes += size
			d.poke()
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		select {
		case <-t.room:
		case <-ctx.Done():
		}
	}
}

// ask prepares for the answer to a question. It reports false where somebody waits for one with that id.
func (d *desk) ask(t *turn, id string) (q *asked, forget func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.approvals[id] != nil {
		return nil, nil, false
	}
	q = &asked{turn: t, answer: make(chan bool, 1)}
	d.approvals[id] = q
	return q, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.approvals[id] == q {
			delete(d.approvals, id)
		}
	}, true
}

// approval hands an answer to whoever waits for it. One that is told again answers nothing new.
func (d *desk) approval(a *pb.ToolApprovalResponse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.approvals[a.GetId()]
	if q == nil || d.resumes && a.GetResponseSeq() > 0 && (a.GetRequestId() != q.turn.message.RequestID || a.GetResponseSeq() != q.number) {
		return
	}
	q.answer <- a.GetApproved() // there is room, as it comes once
	delete(d.approvals, a.GetId())
}

// answered says that a turn needs its handler no more.
func (d *desk) answered(t *turn) {
	d.mu.Lock()
	s := d.session
	t.over = true
	if id := t.message.RequestID; d.turns[id] == t && (!d.resumes || len(t.kept) == 0) {
		delete(d.turns, id)
	}
	d.mu.Unlock()
	d.active.Add(-1)
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.noteIdle()
	}
}

// recorded lets go of what the gateway has. The desk's mutex is held.
func (t *turn) recorded(received uint64) {
	n := 0
	for n < len(t.kept) && t.kept[n].GetResponse().GetResponseSeq() <= received {
		t.keptBytes -= proto.Size(t.kept[n])
		n++
	}
	t.kept = slices.Delete(t.kept, 0, n)
	t.sent = max(0, t.sent-n)
	t.signal()
}

func (t *turn) signal() {
	select {
	case t.room <- struct{}{}:
	default:
	}
}
