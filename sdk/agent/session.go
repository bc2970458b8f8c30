package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
)

const (
	// maxOut bounds the messages that wait for the stream; a handler that is faster waits.
	maxOut = 64
	// maxToolCalls bounds the agent's tools that run side by side.
	maxToolCalls = 16
	toolTimeout  = 30 * time.Second
	// goodbye is how long handlers may go on after the gateway has said that it shuts down.
	goodbye = 300 * time.Millisecond
)

// A session is one registered stream. The receive loop waits for no handler; one goroutine sends.
type session struct {
	opts   Options
	stream pb.CovenControl_AgentStreamClient
	ctx    context.Context // ends with the stream
	end    context.CancelCauseFunc
	out    chan *pb.AgentMessage // never closed
	slots  chan struct{}         // one for each thread that is being answered
	tools  chan struct{}         // one for each tool that is running
	tasks  sync.WaitGroup        // writer, handlers, tools, heartbeats

	mu        sync.Mutex
	threads   map[string][]*Message              // waiting messages of threads that are being answered
	cancels   map[string]context.CancelCauseFunc // of turns, by request id
	approvals map[string]chan bool               // of tools, by tool id
	results   map[string]chan *pb.PackToolResult // of gateway tools, by request id
}

// runSession serves one stream to its end.
func runSession(ctx context.Context, client pb.CovenControlClient, o Options) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stream, err := client.AgentStream(ctx)
	if err != nil {
		return err
	}
	s := &session{
		opts: o, stream: stream, ctx: ctx, end: end,
		out: make(chan *pb.AgentMessage, maxOut), slots: make(chan struct{}, o.Concurrency), tools: make(chan struct{}, maxToolCalls),
		threads: make(map[string][]*Message), cancels: make(map[string]context.CancelCauseFunc),
		approvals: make(map[string]chan bool), results: make(map[string]chan *pb.PackToolResult),
	}
	if err := stream.Send(s.register()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.welcomed(); err != nil {
		return err
	}
	s.tasks.Go(s.write)
	if o.Heartbeat > 0 {
		s.tasks.Go(s.beat)
	}
	err = s.receive()
	end(err)
	s.tasks.Wait()
	return err
}

func (s *session) register() *pb.AgentMessage {
	host, _ := os.Hostname() // only told to people
	r := &pb.RegisterAgent{
		AgentId: s.opts.ID, Name: s.opts.Name, Capabilities: s.opts.Capabilities,
		Metadata: &pb.AgentMetadata{
			WorkingDirectory: s.opts.WorkingDir, Hostname: host, Os: runtime.GOOS, Workspaces: s.opts.Workspaces, Backend: s.opts.Backend,
		},
		ProtocolFeatures: append([]string{"cancellation", "token_usage", "tool_states"}, s.opts.Features...),
	}
	for _, t := range s.opts.Tools {
		schema := string(t.InputSchema)
		if schema == "" {
			schema = `{"type":"object"}`
		}
		r.Tools = append(r.Tools, &pb.ToolDefinition{
			Name: t.Name, Description: t.Description, InputSchemaJson: schema, RequiredCapabilities: t.Capabilities,
			TimeoutSeconds: int32(timeoutOf(t) / time.Second),
		})
	}
	return &pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: r}}
}

func timeoutOf(t Tool) time.Duration {
	if t.Timeout > 0 {
		return t.Timeout
	}
	return toolTimeout
}

func (s *session) welcomed() error {
	m, err := s.stream.Recv()
	if err != nil {
		return err
	}
	w := m.GetWelcome()
	if w == nil {
		if e := m.GetRegistrationError(); e != nil {
			return status.Error(codes.AlreadyExists, e.GetReason())
		}
		return fmt.Errorf("the gateway answered the registration with %T", m.GetPayload())
	}
	if s.opts.OnWelcome != nil {
		s.opts.OnWelcome(Welcome{
			ServerID: w.GetServerId(), AgentID: w.GetAgentId(), InstanceID: w.GetInstanceId(), PrincipalID: w.GetPrincipalId(), Secrets: w.GetSecrets(),
		})
	}
	return nil
}

// write is the only sender.
func (s *session) write() {
	for {
		select {
		case m := <-s.out:
			if err := s.stream.Send(m); err != nil {
				return // the receive loop hears why
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// send queues a message; it waits for room.
func (s *session) send(ctx context.Context, m *pb.AgentMessage) error {
	select {
	case s.out <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

func (s *session) beat() {
	tick := time.NewTicker(s.opts.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			_ = s.send(s.ctx, &pb.AgentMessage{Payload: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{TimestampMs: now.UnixMilli()}}})
		case <-s.ctx.Done():
			return
		}
	}
}

// receive takes what the gateway sends until the stream ends.
func (s *session) receive() error {
	for {
		m, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the gateway ended the stream")
		}
		if err != nil {
			return err
		}
		switch p := m.GetPayload().(type) {
		case *pb.ServerMessage_SendMessage:
			s.enqueue(p.SendMessage)
		case *pb.ServerMessage_CancelRequest:
			s.mu.Lock()
			cancel := s.cancels[p.CancelRequest.GetRequestId()]
			s.mu.Unlock()
			if cancel != nil {
				cancel(Cancelled{p.CancelRequest.GetReason()})
			}
		case *pb.ServerMessage_ToolApproval:
			take(s, s.approvals, p.ToolApproval.GetId(), p.ToolApproval.GetApproved())
		case *pb.ServerMessage_PackToolResult:
			take(s, s.results, p.PackToolResult.GetRequestId(), p.PackToolResult)
		case *pb.ServerMessage_ExecutePackTool:
			s.runTool(p.ExecutePackTool)
		case *pb.ServerMessage_Shutdown:
			// The stream would be cut soon. Leaving cleanly lets the gateway stop at once.
			wait := time.NewTimer(goodbye)
			defer wait.Stop()
			if s.busy() {
				select {
				case <-wait.C:
				case <-s.ctx.Done():
				}
			}
			_ = s.stream.CloseSend() // the stream is over either way
			return errShutdown
		}
	}
}

// take hands a value to whoever waits for it, if anybody does.
func take[V any](s *session, waiting map[string]chan V, id string, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ch := waiting[id]; ch != nil {
		ch <- v // capacity 1, and taken out at once
		delete(waiting, id)
	}
}

// await registers for a value that comes under an id.
func await[V any](s *session, waiting map[string]chan V, id string) (<-chan V, func()) {
	ch := make(chan V, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting[id] = ch
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(waiting, id)
	}
}

func (s *session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.threads) > 0
}

// enqueue puts a message behind the others of its thread, or starts answering the thread.
func (s *session) enqueue(p *pb.SendMessage) {
	m := &Message{RequestID: p.GetRequestId(), ThreadID: p.GetThreadId(), Sender: p.GetSender(), Content: p.GetContent()}
	for _, a := range p.GetAttachments() {
		m.Attachments = append(m.Attachments, Attachment{Name: a.GetFilename(), Type: a.GetMimeType(), Data: a.GetData()})
	}
	var cancel context.CancelCauseFunc
	m.ctx, cancel = context.WithCancelCause(s.ctx) // a message that waits can be cancelled too
	s.mu.Lock()
	waiting, running := s.threads[m.ThreadID]
	s.threads[m.ThreadID] = append(waiting, m)
	s.cancels[m.RequestID] = cancel
	s.mu.Unlock()
	if !running {
		s.tasks.Go(func() { s.answer(m.ThreadID) })
	}
}

// answer handles the messages of a thread until none is left.
func (s *session) answer(threadID string) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.ctx.Done():
	}
	for {
		s.mu.Lock()
		waiting := s.threads[threadID]
		if len(waiting) == 0 {
			delete(s.threads, threadID)
			s.mu.Unlock()
			return
		}
		m := waiting[0]
		s.threads[threadID] = waiting[1:]
		s.mu.Unlock()
		s.handle(m)
	}
}

// handle answers one message and reports how it ended.
func (s *session) handle(m *Message) {
	defer func() {
		s.mu.Lock()
		cancel := s.cancels[m.RequestID]
		delete(s.cancels, m.RequestID)
		s.mu.Unlock()
		cancel(nil)
	}()
	w := &Writer{session: s, ctx: m.ctx, request: m.RequestID}
	err := m.ctx.Err()
	if err == nil {
		err = s.opts.Handler.Handle(m.ctx, m, w)
	}
	if s.ctx.Err() != nil {
		return // nobody to tell
	}
	w.ctx = s.ctx // how it ended is told also after a cancellation
	if c, ok := errors.AsType[Cancelled](context.Cause(m.ctx)); ok {
		err = w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: c.Reason}}})
	} else if err != nil {
		s.opts.Logger.Error("the handler failed", "request_id", m.RequestID, "error", err)
		if err = w.Error(err.Error()); err == nil {
			err = w.done("Error: " + w.failure)
		}
	} else if !w.ended {
		err = w.done(w.text.String())
	}
	if err != nil && s.ctx.Err() == nil {
		s.opts.Logger.Error("the end of a turn could not be sent", "request_id", m.RequestID, "error", err)
	}
}

// runTool runs one of the agent's tools for the gateway.
func (s *session) runTool(call *pb.ExecuteToolRequest) {
	reply := func(r *pb.ExecuteToolResponse) {
		r.RequestId = call.GetRequestId()
		_ = s.send(s.ctx, &pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: r}})
	}
	fail := func(text string) {
		reply(&pb.ExecuteToolResponse{Result: &pb.ExecuteToolResponse_Error{Error: text}})
	}
	s.tasks.Go(func() {
		select {
		case s.tools <- struct{}{}:
			defer func() { <-s.tools }()
		case <-s.ctx.Done():
			return
		}
		for _, t := range s.opts.Tools {
			if t.Name != call.GetToolName() {
				continue
			}
			ctx, cancel := context.WithTimeout(s.ctx, timeoutOf(t))
			defer cancel()
			output, err := t.Call(ctx, json.RawMessage(call.GetInputJson()))
			if err != nil {
				fail(err.Error())
				return
			}
			reply(&pb.ExecuteToolResponse{Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: string(output)}})
			return
		}
		fail("unknown tool: " + call.GetToolName())
	})
}

// callTool runs one of the gateway's tools for the agent.
func (s *session) callTool(ctx context.Context, name string, input json.RawMessage) (json.RawMessage, error) {
	id := uuid.NewString()
	result, forget := await(s, s.results, id)
	defer forget()
	err := s.send(ctx, &pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{
		RequestId: id, ToolName: name, InputJson: string(input),
	}}})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-result:
		if text := r.GetError(); text != "" {
			return nil, errors.New(text)
		}
		return json.RawMessage(r.GetOutputJson()), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
