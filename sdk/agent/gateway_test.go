package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is the other side of the protocol: the test plays it.
type gateway struct {
	pb.UnimplementedCovenControlServer
	streams    chan pb.CovenControl_AgentStreamServer
	registered chan *pb.RegisterAgent               // of the streams that are accepted
	refuse     func() error                         // instead of a Welcome; may be nil
	answer     *pb.ServerMessage                    // instead of a Welcome; may be nil
	welcome    func(*pb.RegisterAgent, *pb.Welcome) // edits it; may be nil
	end        chan struct{}
	listener   *bufconn.Listener
	dials      []time.Time // owned by the agent
	down       func() bool // refuses connections; may be nil
}

func newGateway() *gateway {
	return &gateway{
		streams: make(chan pb.CovenControl_AgentStreamServer, 16), registered: make(chan *pb.RegisterAgent, 16),
		end: make(chan struct{}, 16), listener: bufconn.Listen(1 << 20),
	}
}

// AgentStream hands the stream to the test and lives until the test ends it.
func (g *gateway) AgentStream(stream pb.CovenControl_AgentStreamServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if g.refuse != nil {
		if err := g.refuse(); err != nil {
			return err
		}
	}
	w := &pb.Welcome{AgentId: m.GetRegister().GetAgentId(), AvailableTools: []*pb.ToolDefinition{{Name: "todo_list", TimeoutSeconds: 5}}}
	if g.welcome != nil {
		g.welcome(m.GetRegister(), w)
	}
	answer := &pb.ServerMessage{Payload: &pb.ServerMessage_Welcome{Welcome: w}}
	if g.answer != nil {
		answer = g.answer
	}
	if err := stream.Send(answer); err != nil {
		return err
	}
	g.registered <- m.GetRegister()
	g.streams <- stream
	select {
	case <-g.end:
	case <-stream.Context().Done():
	}
	return nil
}

// serve starts the gateway and completes the options of an agent for it.
func (g *gateway) serve(o agent.Options) (agent.Options, *grpc.Server) {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(16<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	pb.RegisterCovenControlServer(s, g)
	go func() { _ = s.Serve(g.listener) }()
	o.Server, o.ID, o.Logger = "gateway", "a", slog.New(slog.DiscardHandler)
	if o.Handler == nil {
		o.Handler = agent.HandlerFunc(echo)
	}
	o.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		g.dials = append(g.dials, time.Now())
		if g.down != nil && g.down() {
			return nil, errors.New("nobody is here")
		}
		return g.listener.DialContext(ctx)
	})}
	return o, s
}

// play runs an agent against a gateway that the test plays, in a bubble.
func play(t *testing.T, o agent.Options, test func(t *testing.T, g *gateway, run <-chan error)) {
	t.Helper()
	playAgent(t, newGateway, o, func(t *testing.T, g *gateway, _ *agent.Agent, _ context.CancelFunc, run <-chan error) {
		test(t, g, run)
	})
}

// playAgent is play for tests that stop the agent or use it. The gateway is made in the bubble.
func playAgent(t *testing.T, gw func() *gateway, o agent.Options, test func(*testing.T, *gateway, *agent.Agent, context.CancelFunc, <-chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := gw()
		o, s := g.serve(o)
		defer s.Stop()
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		run := make(chan error, 1)
		go func() { run <- a.Run(ctx) }()
		test(t, g, a, stop, run)
		stop()
		synctest.Wait()
	})
}

func echo(_ context.Context, m *agent.Message, w *agent.Writer) error { return w.Text(m.Content) }

func message(id, thread, content string) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_SendMessage{SendMessage: &pb.SendMessage{RequestId: id, ThreadId: thread, Content: content}}}
}

func cancelRequest(id, reason string) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_CancelRequest{CancelRequest: &pb.CancelRequest{RequestId: id, Reason: &reason}}}
}

func approval(id string, yes bool) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ToolApproval{ToolApproval: &pb.ToolApprovalResponse{Id: id, Approved: yes}}}
}

func toolCall(id, tool, input string) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ExecutePackTool{ExecutePackTool: &pb.ExecuteToolRequest{RequestId: id, ToolName: tool, InputJson: input}}}
}

var shutdown = &pb.ServerMessage{Payload: &pb.ServerMessage_Shutdown{Shutdown: &pb.Shutdown{Reason: "update"}}}

// next is the agent's next message that is no heartbeat.
func next(t *testing.T, s pb.CovenControl_AgentStreamServer) *pb.AgentMessage {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetHeartbeat() == nil {
			return m
		}
	}
}

func send(t *testing.T, s pb.CovenControl_AgentStreamServer, m *pb.ServerMessage) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// event is an event in a few words.
func event(r *pb.MessageResponse) string {
	switch e := r.GetEvent().(type) {
	case *pb.MessageResponse_Text:
		return "text " + e.Text
	case *pb.MessageResponse_Error:
		return "error " + e.Error
	case *pb.MessageResponse_Done:
		return "done " + e.Done.GetFullResponse()
	case *pb.MessageResponse_Cancelled:
		return "cancelled " + e.Cancelled.GetReason()
	case *pb.MessageResponse_Thinking:
		return "thinking " + e.Thinking
	case *pb.MessageResponse_ToolUse:
		return fmt.Sprintf("tool_use %s %s %s", e.ToolUse.GetId(), e.ToolUse.GetName(), e.ToolUse.GetInputJson())
	case *pb.MessageResponse_ToolState:
		return fmt.Sprintf("tool_state %s %s %s", e.ToolState.GetId(), e.ToolState.GetState(), e.ToolState.GetDetail())
	case *pb.MessageResponse_ToolResult:
		return fmt.Sprintf("tool_result %s %s %v", e.ToolResult.GetId(), e.ToolResult.GetOutput(), e.ToolResult.GetIsError())
	case *pb.MessageResponse_ToolApprovalRequest:
		return fmt.Sprintf("approval %s %s %s", e.ToolApprovalRequest.GetId(), e.ToolApprovalRequest.GetName(), e.ToolApprovalRequest.GetInputJson())
	case *pb.MessageResponse_Usage:
		u := e.Usage
		return fmt.Sprint("usage ", u.GetInputTokens(), u.GetOutputTokens(), u.GetCacheReadTokens(), u.GetCacheWriteTokens(), u.GetThinkingTokens())
	case *pb.MessageResponse_File:
		return fmt.Sprintf("file %s %s %s", e.File.GetFilename(), e.File.GetMimeType(), e.File.GetData())
	case *pb.MessageResponse_SessionInit:
		return "session_init " + e.SessionInit.GetSessionId()
	case *pb.MessageResponse_SessionOrphaned:
		return "session_orphaned " + e.SessionOrphaned.GetReason()
	}
	return fmt.Sprintf("%T", r.GetEvent())
}

// expect reads the events of a request, in this order.
func expect(t *testing.T, s pb.CovenControl_AgentStreamServer, id string, want ...string) {
	t.Helper()
	for _, w := range want {
		r := next(t, s).GetResponse()
		if got := event(r); r.GetRequestId() != id || got != w {
			t.Fatalf("got %.200q of request %s, want %.200q of request %s", got, r.GetRequestId(), w, id)
		}
	}
}

// leaves expects the agent to half-close.
func leaves(t *testing.T, s pb.CovenControl_AgentStreamServer) {
	t.Helper()
	if m, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the agent does not leave: %v, %v", m, err)
	}
}
