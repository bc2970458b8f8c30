package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "coven-gateway/proto/coven"
)

// Limits of a connection.
const (
	// maxOut bounds the messages that wait for the stream; a handler that is faster waits.
	maxOut = 64
	// maxReplies bounds what receive has to say while the gateway does not read. A gateway that asks
	// for more is not worth talking to.
	maxReplies = 256
	// maxMessage bounds a message to the gateway in bytes; it takes 16 MiB.
	maxMessage = 15 << 20
	// large messages wait for the stream one at a time.
	large = 256 << 10
)

// Bounds of the phases of a connection.
const (
	registerTimeout = 30 * time.Second
	// shutdownGrace is how long turns may go on after the gateway has said that it shuts down. It
	// lets turns end before it says so; what is left can only finish something short.
	shutdownGrace = 300 * time.Millisecond
	// flushTimeout is how long the last messages have to reach the gateway.
	flushTimeout = 2 * time.Second
	// patience is how long handlers may take to return before somebody should know.
	patience = 5 * time.Second
)

// A session is one stream. The receive loop waits for nobody; one goroutine sends.
type session struct {
	// Fixed before the goroutines start.
	agent   *Agent
	desk    *desk // set by the registration, before the goroutines start
	opts    Options
	stream  pb.CovenControl_AgentStreamClient
	ctx     context.Context // ends with the stream
	end     context.CancelCauseFunc
	work    context.Context // a child of ctx, that handlers and tools work under; ends before the last messages are sent
	endWork context.CancelCauseFunc

	out     chan outgoing         // to the writer; who sends waits for room; never closed
	replies chan *pb.AgentMessage // to the writer, from receive; never closed
	last    chan struct{}         // closed when nobody but receive sends any more
	leaving chan struct{}         // closed by receive when the gateway shuts down
	idle    chan struct{}         // closed when it does and nothing is left to do
	calls   chan struct{}         // one for each tool that runs
	oneBig  chan struct{}         // one for the large message that is on its way

	writer   sync.WaitGroup
	receiver sync.WaitGroup
	tasks    sync.WaitGroup // heartbeats, tools; started with mu held and only while not closed

	mu    sync.Mutex // never held while something waits
	state state
}

// state is what the goroutines of a session share.
type state struct {
	closed    bool // nothing new is started
	leaving   bool
	idle      bool
	active    int // tool calls and injections that have not ended
	toolCalls int

	injections []*pb.InjectContext // that wait for OnInject
	injecting  bool                // takeInjections runs
}

// outgoing is a message for the writer.
type outgoing struct {
	message *pb.AgentMessage
	large   bool // it holds session.oneBig
}

// connect serves one stream to its end, and reports whether the gateway welcomed the agent.
func (a *Agent) connect(ctx context.Context) (welcome bool, err error) {
	// A new one for each attempt: the next one would have to wait for this one's own backoff.
	conn, err := dial(a.opts)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	s := &session{
		agent: a, opts: a.opts,
		out: make(chan outgoing, maxOut), replies: make(chan *pb.AgentMessage, maxReplies),
		last: make(chan struct{}), leaving: make(chan struct{}), idle: make(chan struct{}),
		calls: make(chan struct{}, maxCalls), oneBig: make(chan struct{}, 1),
	}
	// It outlives ctx by the time that the last messages take.
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	defer s.end(nil)
	s.work, s.endWork = context.WithCancelCause(s.ctx)
	defer s.endWork(nil)
	stopped := context.AfterFunc(ctx, func() { s.end(ErrStopped) })
	err = s.register(ctx, pb.NewCovenControlClient(conn))
	if !stopped() {
		return false, ErrStopped
	}
	if err != nil {
		return false, err
	}
	return true, s.serve(ctx)
}

func dial(o Options) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+o.Server, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
	}, o.DialOptions...)...)
}

// register opens the stream, introduces the agent and waits for its welcome.
func (s *session) register(ctx context.Context, client pb.CovenControlClient) error {
	late := time.AfterFunc(registerTimeout, func() { s.end(fmt.Errorf("no welcome within %v", registerTimeout)) })
	defer late.Stop()
	streamCtx := s.ctx
	if s.opts.Credentials != nil {
		md, err := s.opts.Credentials(ctx)
		if err != nil {
			return errors.New("credentials: " + err.Error()) // not wrapped: a status in it would not be the gateway's
		}
		streamCtx = metadata.NewOutgoingContext(streamCtx, md)
	}
	var err error
	if s.stream, err = client.AgentStream(streamCtx); err != nil {
		return s.because(err)
	}
	if err := s.stream.Send(s.agent.registration()); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv knows more
		return s.because(err)
	}
	m, err := s.stream.Recv()
	if err != nil {
		return s.because(err)
	}
	switch p := m.GetPayload().(type) {
	case *pb.ServerMessage_Welcome:
		s.agent.setTools(p.Welcome.GetAvailableTools())
		s.seat(p.Welcome)
		if s.opts.OnWelcome != nil {
			s.opts.OnWelcome(welcome(p.Welcome))
		}
		return nil
	case *pb.ServerMessage_RegistrationError:
		return &RefusedError{
			AgentID: s.opts.ID, Code: codes.AlreadyExists,
			Reason: p.RegistrationError.GetReason(), SuggestedID: p.RegistrationError.GetSuggestedId(),
		}
	default:
		return fmt.Errorf("the gateway answered the registration with %T", p)
	}
}

// because returns why the stream has ended, where one of its methods fails with err.
func (s *session) because(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	return err
}

func (a *Agent) registration() *pb.AgentMessage {
	o := a.opts
	host, _ := os.Hostname() // only told to people
	r := &pb.RegisterAgent{
		AgentId: o.ID, Name: o.Name, Capabilities: o.Capabilities,
		Metadata: &pb.AgentMetadata{
			WorkingDirectory: valid(o.WorkingDir), Hostname: valid(host), Os: runtime.GOOS, Workspaces: o.Workspaces, Backend: o.Backend,
		},
		ProtocolFeatures: append([]string{"cancellation", "token_usage", "tool_states", featureToolUpdates}, o.Features...),
	}
	if !o.NoResume {
		r.ProtocolFeatures = append(r.ProtocolFeatures, featureResume)
		if a.desk != nil {
			r.OpenRequests, r.OpenToolCalls = a.desk.open(), a.desk.waits()
		}
	}
	if o.OnInject != nil {
		r.ProtocolFeatures = append(r.ProtocolFeatures, "injection")
	}
	for _, t := range o.Tools {
		r.Tools = append(r.Tools, t.definition())
	}
	return &pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: r}}
}

// seat gives the session the desk where turns are answered: that of the agent where both sides resume.
func (s *session) seat(w *pb.Welcome) {
	a := s.agent
	if !a.opts.NoResume && slices.Contains(w.GetProtocolFeatures(), featureResume) {
		if a.desk == nil {
			a.desk = newDesk(a.opts, nil, a.run)
		}
		s.desk = a.desk
		s.desk.attach(s, w.GetOpenRequests())
		return
	}
	a.leaveDesk(ErrDisconnected) // the gateway is another one
	s.desk = newDesk(a.opts, s, s.work)
}

func welcome(w *pb.Welcome) Welcome {
	r := Welcome{
		ServerID: w.GetServerId(), AgentID: w.GetAgentId(), InstanceID: w.GetInstanceId(), PrincipalID: w.GetPrincipalId(),
		Secrets: w.GetSecrets(), Features: w.GetProtocolFeatures(), MCPEndpoint: w.GetMcpEndpoint(), MCPToken: w.GetMcpToken(),
	}
	for _, d := range w.GetAvailableTools() {
		r.Tools = append(r.Tools, toolOf(d))
	}
	return r
}

// serve runs the registered session to its end and returns why it ended.
//
// The stream is lost, or the gateway shuts down, or ctx ends. In the latter cases the stream still
// works: handlers and tools are told, what they have to say last is sent, and then we half-close.
func (s *session) serve(ctx context.Context) error {
	s.writer.Go(s.write)
	s.receiver.Go(s.receive)
	if s.opts.Heartbeat > 0 {
		s.tasks.Go(s.beat)
	}
	s.agent.current(s)
	var why error
	select {
	case <-s.ctx.Done():
		why = context.Cause(s.ctx)
	case <-ctx.Done():
		why = ErrStopped
	case <-s.leaving:
		why = errShutdown
		grace := time.NewTimer(shutdownGrace)
		defer grace.Stop()
		select {
		case <-s.idle:
		case <-grace.C:
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	}
	s.agent.current(nil)
	s.close(why)
	if !s.desk.resumes || errors.Is(why, ErrStopped) {
		s.desk.close(why)
	}
	late := time.AfterFunc(flushTimeout, func() { s.end(why) })
	defer late.Stop()
	slow := time.AfterFunc(patience, func() {
		s.opts.Logger.Warn("handlers have not returned although their contexts have ended; the agent waits for them", "agent_id", s.opts.ID)
	})
	s.tasks.Wait()
	if !s.desk.resumes || errors.Is(why, ErrStopped) {
		s.desk.tasks.Wait()
	}
	slow.Stop()
	close(s.last)
	s.writer.Wait()
	s.receiver.Wait()
	s.desk.detach(s)
	return why
}

// close starts nothing new and ends what is being done.
func (s *session) close(why error) {
	s.mu.Lock()
	s.state.closed = true
	s.mu.Unlock()
	s.endWork(why)
}

// write is the only sender.
func (s *session) write() {
	for {
		var m outgoing
		select {
		case m = <-s.out:
		case m.message = <-s.replies:
		case <-s.desk.wake:
			if m.message = s.desk.unsent(); m.message == nil {
				continue
			}
			s.desk.poke() // there may be more
		case <-s.last:
			s.flush()
			return
		case <-s.ctx.Done():
			return
		}
		if !s.pass(m) {
			return
		}
	}
}

// flush sends what is queued and half-closes. It is the end of write.
func (s *session) flush() {
	for {
		var m outgoing
		select {
		case m = <-s.out:
		case m.message = <-s.replies:
		default:
			if m.message = s.desk.unsent(); m.message == nil {
				_ = s.stream.CloseSend() // it never fails
				return
			}
		}
		if !s.pass(m) {
			return
		}
	}
}

// pass sends a message and reports whether the stream takes more.
func (s *session) pass(m outgoing) bool {
	err := s.stream.Send(m.message)
	if m.large {
		<-s.oneBig
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: receive hears why
		s.end(fmt.Errorf("%w: sending: %w", ErrDisconnected, err))
	}
	return err == nil
}

// send queues a message; it waits for room until ctx ends, which must be a descendant of s.ctx.
func (s *session) send(ctx context.Context, m *pb.AgentMessage) error {
	o := outgoing{message: m}
	if size := proto.Size(m); size > maxMessage {
		return fmt.Errorf("a message of %d bytes cannot be sent; %d is the limit", size, maxMessage)
	} else if size > large {
		select {
		case s.oneBig <- struct{}{}:
			o.large = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := s.queue(ctx, o)
	if err != nil && o.large {
		<-s.oneBig
	}
	return err
}

func (s *session) queue(ctx context.Context, m outgoing) error {
	if ctx.Err() != nil { // select might find room, too
		return context.Cause(ctx)
	}
	select {
	case s.out <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reply queues what receive has to say. It does not wait.
func (s *session) reply(m *pb.AgentMessage) {
	select {
	case s.replies <- m:
	default:
		s.end(fmt.Errorf("%w: the gateway does not read", ErrDisconnected))
	}
}

func (s *session) beat() {
	tick := time.NewTicker(s.opts.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			beat := &pb.Heartbeat{TimestampMs: now.UnixMilli()}
			_ = s.send(s.work, &pb.AgentMessage{Payload: &pb.AgentMessage_Heartbeat{Heartbeat: beat}}) // it fails at the end
		case <-s.work.Done():
			return
		}
	}
}

// receive takes what the gateway sends until the stream ends.
func (s *session) receive() {
	for {
		m, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errors.New("the gateway ended the stream")
		}
		if err != nil {
			s.end(fmt.Errorf("%w: %w", ErrDisconnected, err))
			return
		}
		switch p := m.GetPayload().(type) {
		case *pb.ServerMessage_SendMessage:
			s.enqueue(p.SendMessage)
		case *pb.ServerMessage_CancelRequest:
			s.cancel(p.CancelRequest.GetRequestId(), p.CancelRequest.GetReason())
		case *pb.ServerMessage_ToolApproval:
			s.desk.approval(p.ToolApproval)
		case *pb.ServerMessage_ResponseAck:
			s.desk.ack(p.ResponseAck.GetRequestId(), p.ResponseAck.GetReceived())
		case *pb.ServerMessage_ToolUpdate:
			s.agent.setTools(p.ToolUpdate.GetTools())
		case *pb.ServerMessage_PackToolResult:
			s.desk.arrived(p.PackToolResult)
		case *pb.ServerMessage_ExecutePackTool:
			s.runTool(p.ExecutePackTool)
		case *pb.ServerMessage_InjectContext:
			s.inject(p.InjectContext)
		case *pb.ServerMessage_Shutdown:
			s.opts.Logger.Info("the gateway shuts down", "agent_id", s.opts.ID, "reason", p.Shutdown.GetReason())
			s.leave()
		default:
			s.opts.Logger.Debug("the gateway sent what this package does not know; ignored", "agent_id", s.opts.ID, "payload", fmt.Sprintf("%T", p))
		}
	}
}

// leave notes that the gateway shuts down.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.leaving {
		s.state.leaving = true
		close(s.leaving)
		s.noteIdle()
	}
}

// noteIdle tells serve when nothing is left to do. s.mu is held.
func (s *session) noteIdle() {
	if st := &s.state; st.leaving && st.active == 0 && !st.idle && (s.desk.resumes || s.desk.active.Load() == 0) {
		st.idle = true
		close(s.idle)
	}
}

// valid returns s as UTF-8, which is all that the wire takes.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
