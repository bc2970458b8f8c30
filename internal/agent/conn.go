package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// Limits of a connection.
const (
	// MaxDispatch bounds a message to an agent, in bytes on the wire: existing agents decode at
	// most 4 MiB.
	MaxDispatch = 4<<20 - 4<<10
	// maxWaiting is how many messages and answers are queued for an agent that does not read;
	// whoever has one more waits with it. gRPC takes some before the first has to be queued.
	maxWaiting = 16
	// maxUnread is how long the queue may become with the messages that do not wait for room.
	maxUnread = 256
	// unreadTimeout is how long an agent may call tools and not read the results.
	unreadTimeout = 30 * time.Second
	// flushTimeout is how long an agent that has half-closed has to read what is queued for it.
	flushTimeout = 500 * time.Millisecond
	// registerTimeout is how long a stream may live without RegisterAgent.
	registerTimeout = 30 * time.Second
)

// Bounds of what is logged about messages that nobody can use.
const (
	keptNotes = 8   // told apart
	maxNotes  = 100 // of one connection
)

// featureCancellation is what an agent declares that understands CancelRequest.
const featureCancellation = "cancellation"

// featureResume is what an agent declares that goes on with its turns after its stream broke.
const featureResume = "resume"

// An ending is why a stream ends.
type ending struct {
	cause  string // for the people whose turns end with it
	broke  bool   // an agent that can resume may go on with its turns on another stream
	status error  // for the agent; nil is OK
}

func (e *ending) Error() string { return e.cause }

var (
	errLeft     = &ending{cause: "the agent disconnected"}
	errLost     = &ending{cause: "the agent disconnected", broke: true}
	errShutDown = &ending{cause: "the gateway was shut down", broke: true} // the next run waits for the agent
)

// endingOf returns the ending that an error is.
func endingOf(err error) *ending {
	if e, ok := errors.AsType[*ending](err); ok {
		return e
	}
	return &ending{errLeft.cause, true, err}
}

// A Conn is one agent's stream.
//
// Two goroutines belong to it while it is idle: the handler, which only waits for the end, and
// receive. A third one, write, lives as long as there is something to send; at most one does. Each
// tool that the agent calls has one, too, until it has returned (see callTool). gRPC
// ends a Recv or Send that is under way only when the handler returns, so the handler can be in
// neither of them: that is how the gateway can end a stream whose agent does not send or read.
// The registry waits for receive, and receive for write and the tools. When gRPC has ended the
// stream, the handler waits for receive, too.
type Conn struct {
	// Fixed when the stream begins.
	registry *Registry
	stream   grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]
	ctx      context.Context // ends with the stream; its cause is the *ending, or the agent left
	end      context.CancelCauseFunc
	room     chan struct{} // a token for each queued message that takesRoom; capacity maxWaiting

	info    Info              // fixed before it is published; without what changes, see snapshot
	secrets map[string]string // for Welcome; owned by receive
	working []string          // turns that the agent says it still works on; likewise
	waits   []string          // its tool calls that it says it still waits for; likewise

	contested atomic.Bool  // a newcomer waits for the id; written under registry.mu
	busy      atomic.Bool  // receive handles a message, so it is not the agent who is silent
	seen      atomic.Int64 // when it had handled the last one, since registry.started

	// Guarded by registry.mu.
	next     *newcomer // waits for the id
	welcomed bool      // clients can see it

	// Owned by receive.
	notes    []note // the last ones
	noted    int
	why      *ending             // the handler may read it after receiver.Wait
	withdraw func()              // of the tool that asks the agent; nil for none
	pack     *packs.Registration // of the tools that the agent hosts; nil for none

	receiver sync.WaitGroup // receive
	tools    sync.WaitGroup // the tools that the agent calls; started by receive
	writer   sync.WaitGroup // write; started with mu held and only while open

	// Guarded by mu, which is never held across a Send, a Recv or a call of a sink.
	mu      sync.Mutex
	state   state
	calls   map[string]*call                        // by request id; nil before the first
	queue   []*pb.ServerMessage                     // for write, in order
	writing bool                                    // write runs, or has failed
	retell  bool                                    // the agent is to be told of its tools again
	asked   map[string]struct{}                     // the agent's request ids of the tools that it calls; nil before the first
	hosted  map[string]chan *pb.ExecuteToolResponse // by the ids of the calls of the tools that it hosts; nil before the first
	acks    map[string]chan *pb.InjectionAck        // by the ids of the injections that it has to answer; nil before the first
	pulse   *time.Timer                             // checks for silence; nil until the agent sends a heartbeat
}

func newConn(r *Registry, stream grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]) *Conn {
	c := &Conn{registry: r, stream: stream, room: make(chan struct{}, maxWaiting)}
	c.ctx, c.end = context.WithCancelCause(stream.Context())
	return c
}

// A state is how far a connection is.
type state int8

const (
	unregistered state = iota
	open               // Welcome is queued and the queue takes messages
	closed             // every call has its end
)

// A note identifies something that was logged.
type note struct{ what, requestID string }

// A call is a message that the agent has not answered to the end.
type call struct {
	conn      *Conn
	requestID string
	sink      conversation.Sink
	span      trace.SpanContext // of the turn
	cancelled bool              // guarded by conn.mu
}

// receive reads the stream to its end and cleans up after it.
func (c *Conn) receive() {
	defer c.registry.finished(c)
	c.why = c.reason(c.read())
	if c.why.status == nil && c.registry.shuttingDown() {
		c.why = errShutDown
	}
	c.close(c.why)
	c.unhost() // before the id is free, because the names of the tools have to be, too
	c.registry.leave(c)
	if c.ctx.Err() == nil && c.why.status == nil { // it has half-closed, and may still read
		late := time.AfterFunc(flushTimeout, func() { c.end(c.why) })
		c.writer.Wait()
		late.Stop()
	}
	c.end(c.why)
	c.tools.Wait()
	c.writer.Wait()
}

// reason returns why the stream ends, where a goroutine of it fails with err.
func (c *Conn) reason(err error) *ending {
	if ours, ok := c.ended(); ok {
		return ours // what came after it is its consequence
	}
	return endingOf(err)
}

// ended returns why the gateway has ended the stream: a decision of ours, or the caller has lost
// its rights. ok is false while it goes on or when the agent has left.
func (c *Conn) ended() (_ *ending, ok bool) {
	cause := context.Cause(c.ctx)
	if e, ok := errors.AsType[*ending](cause); ok {
		return e, true
	}
	if f, ok := errors.AsType[*fault.Error](cause); ok {
		return &ending{"the agent has lost its access", false, f}, true
	}
	return nil, false
}

// read returns why the stream has ended, or has to end.
func (c *Conn) read() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
	}()
	// Stacks grow and hardly shrink. What needs a deep one once runs on a goroutine of its own, so
	// that those that live as long as an idle agent stay small: 7 KiB less for each.
	joined := make(chan error, 1)
	go func() { joined <- c.join() }()
	if err := <-joined; err != nil {
		return err
	}
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return receiveFailed("receiving message", err)
		}
		if c.ctx.Err() != nil {
			return errLost // or we have ended it
		}
		c.busy.Store(true)
		c.registry.metrics.received.Inc()
		if c.contested.Load() {
			c.registry.alive(c)
		}
		if err := c.handle(m); err != nil {
			return err
		}
		c.seen.Store(int64(time.Since(c.registry.started)))
		c.busy.Store(false)
	}
}

// join sends the headers, registers the agent and welcomes it.
func (c *Conn) join() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
	}()
	if err := c.stream.SendHeader(nil); err != nil { // existing agents register only when they have them
		return receiveFailed("sending headers", err)
	}
	if err := c.register(); err != nil {
		c.registry.metrics.refused(c.reason(err))
		return err
	}
	c.registry.metrics.accepted()
	c.welcome()
	return nil
}

// panicked is why a stream ends whose messages we cannot handle.
func (c *Conn) panicked(p any) error {
	c.log().Error("a message of an agent caused a panic", "error", p, "stack", string(debug.Stack()))
	return &ending{"the gateway failed", true, fault.New(fault.Internal, "internal server error")}
}

// register waits for the first message and gives the connection its id.
func (c *Conn) register() error {
	late := time.AfterFunc(registerTimeout, func() {
		c.end(&ending{errLeft.cause, false, fault.New(fault.Invalid, "first message must be RegisterAgent; none came within %s", registerTimeout)})
	})
	defer late.Stop()
	m, err := c.stream.Recv()
	if err != nil {
		return receiveFailed("receiving first message", err)
	}
	c.registry.metrics.received.Inc()
	info, err := registration(m)
	if err != nil {
		return err
	}
	p, err := auth.From(c.ctx)
	if err != nil {
		return err
	}
	info.PrincipalID = p.ID
	c.info, c.working, c.waits = info, m.GetRegister().GetOpenRequests(), m.GetRegister().GetOpenToolCalls()
	late.Stop() // enter has a bound of its own
	if c.info.Capabilities, c.secrets, err = c.registry.opts.Admit(c.ctx, info.ID, info.Capabilities); err != nil {
		return err
	}
	return c.registry.enter(c.ctx, c)
}

// welcome queues Welcome, makes the agent visible and only then lets the writer go. So nothing can
// precede Welcome, and an agent that has read it can be reached.
func (c *Conn) welcome() {
	c.info.ConnectedAt = time.Now().UTC()
	c.seen.Store(int64(time.Since(c.registry.started)))
	c.log().Info("agent connected", "name", c.info.Name)
	welcome := welcomeMessage(c.registry.opts.ServerID, c.info, c.secrets)
	welcome.GetWelcome().AvailableTools = c.available(c.ctx)
	back := c.resume(welcome.GetWelcome())
	welcome.GetWelcome().McpEndpoint, welcome.GetWelcome().McpToken = c.grant()
	c.mu.Lock()
	c.state = open
	c.queue = append(c.queue, welcome)
	c.secrets = nil
	c.mu.Unlock()
	for _, call := range back { // what they are told comes behind Welcome
		call.sink.Resumed(call)
	}
	c.returnErrands()
	c.registry.publish(c)
	c.host()
	c.mu.Lock()
	c.startWriter()
	c.mu.Unlock()
	if arrived := c.registry.opts.Arrived; arrived != nil {
		arrived(c.info.ID)
	}
}

// handle takes one message. An error ends the stream.
func (c *Conn) handle(m *pb.AgentMessage) error {
	switch p := m.GetPayload().(type) {
	case *pb.AgentMessage_Response:
		seq := p.Response.GetResponseSeq()
		if !c.resumes() {
			seq = 0
		}
		return c.deliver(p.Response.GetRequestId(), seq, responseBody(p.Response))
	case *pb.AgentMessage_ToolState:
		return c.deliver(p.ToolState.GetRequestId(), 0, toolState(p.ToolState.GetUpdate()))
	case *pb.AgentMessage_Cancelled:
		return c.deliver(p.Cancelled.GetRequestId(), 0, cancelled(p.Cancelled.GetReason()))
	case *pb.AgentMessage_Heartbeat:
		c.heartbeat()
	case *pb.AgentMessage_ExecutePackTool:
		return c.callTool(p.ExecutePackTool)
	case *pb.AgentMessage_PackToolResult:
		c.hostedResult(p.PackToolResult)
	case *pb.AgentMessage_InjectionAck:
		c.injectionAck(p.InjectionAck)
	case *pb.AgentMessage_Register:
		c.note("an agent registered a second time on its stream; ignored", "")
	default:
		c.note("an agent sent a message of an unknown kind; ignored", "")
	}
	return nil
}

// deliver hands an event to its turn. A nil body is an event of an unknown kind.
func (c *Conn) deliver(requestID string, seq uint64, b conversation.Body) error {
	if b == nil {
		c.note("an agent sent an event of an unknown kind; ignored", requestID)
		if seq == 0 {
			return nil
		}
		b = conversation.Text{} // nothing, but it has a number
	}
	c.mu.Lock()
	t := c.calls[requestID]
	c.mu.Unlock()
	if t == nil {
		c.note("an agent sent an event for a request that is not open; ignored", requestID)
		if seq > 0 {
			c.ack(requestID, seq) // it need not be kept
		}
		return nil
	}
	var err error
	if seq > 0 {
		err = t.sink.OnNumbered(c.ctx, seq, b)
	} else {
		err = t.sink.On(c.ctx, b)
	}
	_, last := b.(conversation.Ended)
	switch {
	case errors.Is(err, conversation.ErrTurnEnded) || err == nil && last:
		t.Retire()
	case err == nil:
	case c.ctx.Err() != nil:
		return errLost // or we have ended it
	default:
		c.log().Error("an agent's answer could not be taken; its stream is ended", "turn_id", requestID, "error", err)
		return &ending{"the gateway could not take the agent's answer", false, err}
	}
	return nil
}

// dispatch queues a message and opens its call, both or neither: whoever gets no error gets an end.
func (c *Conn) dispatch(ctx context.Context, requestID string, m *pb.ServerMessage, to conversation.Sink) (conversation.Call, error) {
	if err := c.waitForRoom(ctx); err != nil {
		return nil, err
	}
	t := &call{conn: c, requestID: requestID, sink: to, span: trace.SpanContextFromContext(ctx)}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != open:
		<-c.room
		return nil, conversation.ErrAgentGone
	case c.calls[requestID] != nil:
		<-c.room
		return nil, fault.New(fault.Conflict, "request %s is open", requestID)
	case c.calls == nil:
		c.calls = make(map[string]*call)
	}
	c.calls[requestID] = t
	c.push(m)
	return t, nil
}

// answer queues the answer to what the agent asked. The agent is not read while it waits for room:
// whoever asks faster than it reads is slowed down, and whoever does not read has to go.
func (c *Conn) answer(m *pb.ServerMessage) error { return c.finishTool("", m) }

// finishTool is answer for the result of a call that was open.
func (c *Conn) finishTool(id string, m *pb.ServerMessage) error {
	ctx, cancel := context.WithTimeout(c.ctx, unreadTimeout)
	defer cancel()
	switch err := c.waitForRoom(ctx); {
	case err == nil:
	case c.ctx.Err() != nil:
		return errLost // or we have ended it
	default:
		return &ending{"the agent does not read its stream", true, fault.New(fault.Unavailable, "the answers to tool calls were not read for %s", unreadTimeout)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, id)
	if c.state != open {
		<-c.room
		return nil
	}
	c.push(m)
	return nil
}

// waitForRoom takes a token for the queue. The writer returns it.
func (c *Conn) waitForRoom(ctx context.Context) error {
	select {
	case c.room <- struct{}{}:
		return nil
	case <-c.ctx.Done():
		return conversation.ErrAgentGone
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell queues what must not wait for room.
func (c *Conn) tell(m *pb.ServerMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != open:
		return conversation.ErrAgentGone
	case len(c.queue) >= maxUnread:
		return fault.New(fault.Unavailable, "the agent does not read its stream")
	}
	c.push(m)
	return nil
}

// bye announces a shutdown. A stream that is not registered ends at once.
func (c *Conn) bye(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case unregistered:
		c.end(endingOf(errClosing))
	case open:
		c.push(shutdownMessage(reason))
	}
}

// push queues a message. c.mu is held and the connection is open.
func (c *Conn) push(m *pb.ServerMessage) {
	c.queue = append(c.queue, m)
	c.startWriter()
}

// startWriter starts the writer unless it runs. c.mu is held and the connection is open.
func (c *Conn) startWriter() {
	if !c.writing {
		c.writing = true
		c.writer.Go(c.write)
	}
}

// write sends what is queued and returns when nothing is left. It is the only sender.
func (c *Conn) write() {
	for {
		m, retell := c.pop()
		if retell {
			m = toolUpdate(c.available(c.ctx))
		}
		if m == nil {
			return
		}
		if err := c.stream.Send(m); err != nil {
			what := "sending message"
			if m.GetWelcome() != nil {
				what = "sending welcome"
			}
			if f, ok := errors.AsType[*fault.Error](err); ok {
				c.end(&ending{"the agent does not read its stream", true, f})
			} else if c.stream.Context().Err() == nil { // else the agent has left, and receive knows
				c.end(&ending{errLeft.cause, true, fault.Wrap(err, fault.Internal, "%s: %s", what, status.Convert(err).Message())})
			}
			return // and stay the writer, so that there is no other
		}
		c.registry.metrics.sent.Inc()
		if takesRoom(m) {
			<-c.room
		}
	}
}

// pop returns the next message to send, or says that the next one is the list of tools; neither when
// nothing is left, and the writer has to return.
func (c *Conn) pop() (m *pb.ServerMessage, retell bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && c.ctx.Err() == nil {
		m := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		if !c.stale(m) {
			return m, false
		}
		<-c.room
	}
	c.queue = nil
	if c.retell && c.ctx.Err() == nil {
		c.retell = false
		return nil, true
	}
	c.writing = false
	return nil, false
}

// close refuses further messages and tells every open call that the agent is gone.
func (c *Conn) close(why *ending) {
	c.mu.Lock()
	was, calls := c.state, c.calls
	c.state, c.calls = closed, nil
	for _, ack := range c.acks {
		close(ack)
	}
	c.acks = nil
	if c.pulse != nil {
		c.pulse.Stop()
	}
	c.mu.Unlock()
	if was == open {
		c.log().Info("agent disconnected", "cause", why.cause, "open_turns", len(calls), "duration", time.Since(c.info.ConnectedAt))
	}
	if was == open && c.resumes() {
		c.registry.errands.lost(c, why.broke && !c.registry.shuttingDown(), c.registry.opts.ReconnectGrace)
	}
	for _, t := range calls {
		if why.broke && c.resumes() {
			t.sink.Lost(why.cause, c.registry.opts.ReconnectGrace)
		} else {
			t.sink.Gone(why.cause)
		}
	}
}

// resumes reports whether the agent goes on with its turns after its stream broke.
func (c *Conn) resumes() bool { return slices.Contains(c.info.Features, featureResume) }

// resume opens the calls of the turns that the agent goes on with, says so in Welcome, and returns them.
func (c *Conn) resume(w *pb.Welcome) map[string]*call {
	if c.registry.opts.Resume == nil {
		return nil
	}
	working := c.working
	c.working = nil
	if !c.resumes() {
		working = nil
	}
	back := c.registry.opts.Resume(c.info.ID, working)
	calls := make(map[string]*call, len(back))
	for _, t := range back {
		calls[t.TurnID] = &call{conn: c, requestID: t.TurnID, sink: t.Sink}
		w.OpenRequests = append(w.OpenRequests, &pb.OpenRequest{RequestId: t.TurnID, Received: t.Received})
	}
	c.mu.Lock()
	c.calls = calls
	c.mu.Unlock()
	return maps.Clone(calls) // the connection's own changes
}

// returnErrands takes up the tool calls of the stream before, and has the agent told what has become of them.
func (c *Conn) returnErrands() {
	waits := c.waits
	c.waits = nil
	if !c.resumes() {
		return
	}
	running, ended := c.registry.errands.returned(c, waits)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range running {
		if c.asked == nil {
			c.asked = make(map[string]struct{})
		}
		c.asked[id] = struct{}{}
	}
	if len(ended) > 0 {
		c.tools.Go(func() { // it may have to wait for room
			for _, m := range ended {
				if err := c.answer(m); err != nil {
					c.end(endingOf(err))
					return
				}
			}
		})
	}
}

// heartbeat notes that the agent sends heartbeats, and is expected to go on.
func (c *Conn) heartbeat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulse == nil {
		c.pulse = time.AfterFunc(c.registry.opts.HeartbeatTimeout, c.checkPulse)
	}
}

// checkPulse ends a stream that has been silent for too long. Any message is a sign of life, and
// while we are busy with one we cannot know of the next.
func (c *Conn) checkPulse() {
	limit := c.registry.opts.HeartbeatTimeout
	left := limit
	if !c.busy.Load() {
		left -= time.Since(c.registry.started) - time.Duration(c.seen.Load())
	}
	if left <= 0 {
		c.end(&ending{
			"the agent sent no heartbeat for " + limit.String(), true,
			fault.New(fault.Unavailable, "no heartbeat for %s", limit),
		})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == open {
		c.pulse.Reset(left)
	}
}

// snapshot returns what is known of the agent now.
func (c *Conn) snapshot() Info {
	info := c.info
	info.LastSeen = c.registry.started.Add(time.Duration(c.seen.Load())).UTC()
	c.mu.Lock()
	defer c.mu.Unlock()
	info.OpenTurns, info.Queue, info.ToolCalls, info.HostedCalls = len(c.calls), len(c.queue), len(c.asked), len(c.hosted)
	return info
}

// waiting returns how many messages wait for the agent.
func (c *Conn) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

func (c *Conn) log() *slog.Logger {
	return c.registry.logger.With("agent_id", c.info.ID, "instance_id", c.info.InstanceID, "principal", c.info.PrincipalID)
}

// note logs what an agent sends and nobody can use: once for each of the last few requests, and not
// more than maxNotes times, so that a flood on the stream is no flood in the log.
func (c *Conn) note(what, requestID string) {
	n := note{what, requestID[:min(len(requestID), 64)]}
	if c.noted >= maxNotes || slices.Contains(c.notes, n) {
		return
	}
	n.requestID = strings.Clone(n.requestID) // do not keep the rest of the message
	if len(c.notes) == keptNotes {
		c.notes = slices.Delete(c.notes, 0, 1)
	}
	c.notes = append(c.notes, n)
	c.noted++
	c.log().Info(what, "turn_id", n.requestID)
}

// Cancel implements [conversation.Call].
func (t *call) Cancel(reason string) bool {
	c := t.conn
	if !slices.Contains(c.info.Features, featureCancellation) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.calls[t.requestID] != t || len(c.queue) >= maxUnread:
		return false // there is nothing to stop, or the agent would not hear of it
	case !t.cancelled:
		t.cancelled = true
		c.push(cancelRequest(t.requestID, reason))
	}
	return true
}

// Ack implements [conversation.Call].
func (t *call) Ack(received uint64) { t.conn.ack(t.requestID, received) }

// ack tells the agent how much of an answer it need not send again. An ack that waits takes the new
// number; one for which there is no room is lost, and a later one says the same.
func (c *Conn) ack(requestID string, received uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	if n := len(c.queue); n > 0 {
		if last := c.queue[n-1].GetResponseAck(); last.GetRequestId() == requestID {
			last.Received = max(last.Received, received)
			return
		}
	}
	if len(c.queue) < maxUnread {
		c.push(&pb.ServerMessage{Payload: &pb.ServerMessage_ResponseAck{ResponseAck: &pb.ResponseAck{RequestId: requestID, Received: received}}})
	}
}

// Decide implements [conversation.Call]. An agent that leaves no room for it has to come back for it.
func (t *call) Decide(asked uint64, d conversation.Decision) {
	err := t.conn.tell(decision(t.requestID, asked, d))
	if err != nil && !errors.Is(err, conversation.ErrAgentGone) {
		t.conn.end(&ending{"the agent does not read its stream", true, err})
	}
}

// Retire implements [conversation.Call].
func (t *call) Retire() {
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[t.requestID] == t {
		delete(c.calls, t.requestID)
	}
}

var _ conversation.Call = (*call)(nil)

// takesRoom reports whether a message had to wait for room in the queue.
func takesRoom(m *pb.ServerMessage) bool {
	return m.GetSendMessage() != nil || m.GetPackToolResult() != nil || m.GetExecutePackTool() != nil || m.GetInjectContext() != nil
}

// receiveFailed says what the failure of a Recv means.
func receiveFailed(what string, err error) *ending {
	if errors.Is(err, io.EOF) {
		return errLeft
	}
	s := status.Convert(err)
	code := fault.Internal
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return errLost
	case codes.ResourceExhausted:
		code = fault.TooLarge
	}
	return &ending{"the agent's stream failed: " + s.Message(), true, fault.Wrap(err, code, "%s: %s", what, s.Message())}
}
