package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	grace     = 8 * time.Second
	silence   = 90 * time.Second
	keepAlive = 30 * time.Second
)

// A gateway is a registry behind a real gRPC server in memory.
type gateway struct {
	*Registry
	t       testing.TB
	metrics *prometheus.Registry
	logged  *lines
	tools   *packs.Registry
	server  *grpc.Server
	l       *bufconn.Listener
}

// tools are those of a gateway whose callers have every capability but "withheld".
func tools(reg prometheus.Registerer) *packs.Registry {
	return packs.New(packs.Options{Logger: slog.New(slog.DiscardHandler), Registerer: reg, Rights: generous{}})
}

type generous struct{}

func (generous) HasRole(context.Context, auth.Principal, auth.Role) (bool, error) { return true, nil }

func (generous) HasCapability(_ context.Context, _ auth.Principal, c string) (bool, error) {
	return c != "withheld", nil
}

func start(t testing.TB) *gateway {
	g := &gateway{t: t, metrics: prometheus.NewRegistry(), logged: &lines{}, l: bufconn.Listen(1 << 20)}
	g.tools = tools(g.metrics)
	g.Registry = New(Options{
		Logger:     slog.New(slog.NewTextHandler(g.logged, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Registerer: g.metrics, Tools: g.tools, ServerID: "server-1", Admit: admit, ReconnectGrace: grace, HeartbeatTimeout: silence,
	})
	g.server = grpc.NewServer(append(g.ServerOptions(keepAlive), grpc.StreamInterceptor(authenticate))...)
	g.Register(g.server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.server.Serve(g.l) // fails only once the listener is closed
	}()
	t.Cleanup(func() {
		g.server.Stop()
		<-done
		if err := g.Shutdown(t.Context(), "the test is over"); err != nil {
			t.Error(err)
		}
		if n := g.Len(); n > 0 {
			t.Errorf("%d agents are still here", n)
		}
	})
	return g
}

// authenticate believes what a client says in its metadata.
func authenticate(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(ss.Context())
	id := "p"
	if v := md.Get("principal"); len(v) > 0 {
		id = v[0]
	}
	return fault.GRPC(handler(srv, identified{ss, auth.With(ss.Context(), auth.Principal{ID: id, Kind: "agent"})}))
}

// admit lets everybody in, with what they ask for.
func admit(_ context.Context, _ string, asks []string) ([]string, map[string]string, error) {
	return asks, nil, nil
}

type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (s identified) Context() context.Context { return s.ctx }

func (g *gateway) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	g.t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.l.DialContext(ctx) }),
	}, opts...)
	cc, err := grpc.NewClient("passthrough:///gateway", opts...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = cc.Close() }) // may be closed already
	return cc
}

// A remote is the agent's end of a stream.
type remote struct {
	grpc.BidiStreamingClient[pb.AgentMessage, pb.ServerMessage]
	t      testing.TB
	cancel context.CancelFunc
}

// stream opens a stream on a connection of its own.
func (g *gateway) stream(principal string, opts ...grpc.DialOption) *remote {
	g.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "principal", principal))
	g.t.Cleanup(cancel)
	s, err := pb.NewCovenControlClient(g.dial(opts...)).AgentStream(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	return &remote{s, g.t, cancel}
}

// register opens a stream and asks for an id.
func (g *gateway) register(id, principal string, features ...string) *remote {
	g.t.Helper()
	a := g.stream(principal)
	a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
		AgentId: id, Name: id, Capabilities: []string{"chat"}, ProtocolFeatures: features,
	}}})
	return a
}

// agent registers and expects to be welcome.
func (g *gateway) agent(id string, features ...string) *remote {
	g.t.Helper()
	a := g.register(id, "p", features...)
	a.welcome()
	return a
}

func (r *remote) send(m *pb.AgentMessage) {
	r.t.Helper()
	if err := r.Send(m); err != nil && !errors.Is(err, io.EOF) { // Recv knows why
		r.t.Fatal(err)
	}
}

func (r *remote) reply(m *pb.MessageResponse) {
	r.t.Helper()
	r.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: m}})
}

func (r *remote) text(request, text string) {
	r.t.Helper()
	r.reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_Text{Text: text}})
}

func (r *remote) done(request string) {
	r.t.Helper()
	r.reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_Done{Done: &pb.Done{}}})
}

func (r *remote) heartbeat() {
	r.t.Helper()
	r.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{}}})
}

func (r *remote) next() *pb.ServerMessage {
	r.t.Helper()
	m, err := r.Recv()
	if err != nil {
		r.t.Fatalf("the stream has ended: %v", err)
	}
	return m
}

func (r *remote) welcome() *pb.Welcome {
	r.t.Helper()
	w := r.next().GetWelcome()
	if w == nil {
		r.t.Fatal("the first message is no Welcome")
	}
	return w
}

func (r *remote) message() *pb.SendMessage {
	r.t.Helper()
	m := r.next()
	if m.GetSendMessage() == nil {
		r.t.Fatalf("got %v instead of a message", m)
	}
	return m.GetSendMessage()
}

// ends expects the stream to end with a status.
func (r *remote) ends(code codes.Code, msg string) {
	r.t.Helper()
	m, err := r.Recv()
	if err == nil {
		r.t.Fatalf("got %v instead of the end", m)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if s := status.Convert(err); s.Code() != code || msg != "" && s.Message() != msg {
		r.t.Errorf("the stream ended with %v %q, want %v %q", s.Code(), s.Message(), code, msg)
	}
}

// A recorder is the other side of conversation.Sink. It complains about calls that break the
// contract.
type recorder struct {
	t    testing.TB
	on   func(context.Context, conversation.Body) error // may be nil
	mu   sync.Mutex
	busy bool
	got  []conversation.Body
	gone []string
}

// On implements conversation.Sink.
func (r *recorder) On(ctx context.Context, b conversation.Body) error {
	r.mu.Lock()
	if r.busy {
		r.t.Error("On is called by two goroutines")
	}
	if len(r.gone) > 0 {
		r.t.Error("On is called after Gone")
	}
	r.busy = true
	r.got = append(r.got, b)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
	}()
	if r.on == nil {
		return nil
	}
	return r.on(ctx, b)
}

// OnNumbered implements conversation.Sink.
func (r *recorder) OnNumbered(ctx context.Context, _ uint64, b conversation.Body) error {
	return r.On(ctx, b)
}

// Lost implements conversation.Sink.
func (r *recorder) Lost(cause string, _ time.Duration) { r.Gone(cause + ", and may come back") }

// Resumed implements conversation.Sink.
func (r *recorder) Resumed(conversation.Call) {}

// Gone implements conversation.Sink.
func (r *recorder) Gone(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy {
		r.t.Error("Gone is called during On")
	}
	r.gone = append(r.gone, cause)
}

func (r *recorder) events() []conversation.Body {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *recorder) ends() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.gone)
}

// say dispatches a message and returns its call and where the answer goes.
func (g *gateway) say(agentID, turnID string) (conversation.Call, *recorder) {
	g.t.Helper()
	to := &recorder{t: g.t}
	return g.sayTo(agentID, turnID, to), to
}

func (g *gateway) sayTo(agentID, turnID string, to conversation.Sink) conversation.Call {
	g.t.Helper()
	call, err := g.Dispatch(context.Background(), agentID, conversation.Dispatch{TurnID: turnID, ThreadID: "thread", Sender: "ada", Text: "hi"}, to)
	if err != nil {
		g.t.Fatalf("dispatch to %s: %v", agentID, err)
	}
	return call
}

// figure returns a metric; labels select by value.
func (g *gateway) figure(name string, labels ...string) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	all [][]byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, bytes.Clone(b))
	return len(b), nil
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.all {
		if bytes.Contains(line, []byte(part)) {
			n++
		}
	}
	return n
}

// bubble runs a test with its own time.
func bubble(t *testing.T, f func(t *testing.T, g *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, start(t)) })
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
