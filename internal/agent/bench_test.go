package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// serveTCP runs a gateway on a loopback port.
func serveTCP(b *testing.B) (*Registry, string) {
	b.Helper()
	reg := prometheus.NewRegistry()
	r := New(Options{
		Logger: slog.New(slog.DiscardHandler), Registerer: reg,
		Tools: tools(reg), ServerID: "s", ReconnectGrace: grace, HeartbeatTimeout: silence,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer(append(r.ServerOptions(time.Hour), grpc.StreamInterceptor(authenticate))...)
	r.Register(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	b.Cleanup(func() {
		s.Stop()
		<-done
		_ = r.Shutdown(context.Background(), "")
	})
	return r, l.Addr().String()
}

// connect returns an agent that is welcome. Its connection ends with ctx.
func connect(ctx context.Context, addr, id string) (pb.CovenControl_AgentStreamClient, error) {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = cc.Close() })
	s, err := pb.NewCovenControlClient(cc).AgentStream(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
		AgentId: id, Name: id, Capabilities: []string{"base", "chat"}, ProtocolFeatures: []string{"token_usage", "tool_states"},
		Metadata: &pb.AgentMetadata{WorkingDirectory: "/home/ada/src/project", Hostname: "workstation", Os: "linux", Backend: "mux", Workspaces: []string{"project"}},
	}}}); err != nil {
		return nil, err
	}
	_, err = s.Recv()
	return s, err
}

type counter struct{ texts int }

// On implements conversation.Sink.
func (c *counter) On(_ context.Context, b conversation.Body) error {
	if _, ok := b.(conversation.Text); ok {
		c.texts++
	}
	return nil
}

// Gone implements conversation.Sink.
func (c *counter) OnNumbered(ctx context.Context, _ uint64, b conversation.Body) error {
	return c.On(ctx, b)
}

func (c *counter) Lost(string, time.Duration) {}

func (c *counter) Resumed(conversation.Call) {}

func (c *counter) Gone(string) {}

// BenchmarkReceive measures increments through one stream into a sink that only counts. The agent
// runs in the same process and takes its share of the time.
func BenchmarkReceive(b *testing.B) {
	r, addr := serveTCP(b)
	s, err := connect(b.Context(), addr, "a")
	if err != nil {
		b.Fatal(err)
	}
	const turn = "0190b7d6-6b1c-7b7e-9d52-0123456789ab"
	var sink counter
	if _, err := r.Dispatch(b.Context(), "a", conversation.Dispatch{TurnID: turn}, &sink); err != nil {
		b.Fatal(err)
	}
	m := &pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: &pb.MessageResponse{
		RequestId: turn, Event: &pb.MessageResponse_Text{Text: "some words "},
	}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(m); err != nil {
			b.Fatal(err)
		}
	}
	m.GetResponse().Event = &pb.MessageResponse_Done{Done: &pb.Done{}}
	if err := s.Send(m); err != nil {
		b.Fatal(err)
	}
	for open := 1; open > 0; time.Sleep(50 * time.Microsecond) {
		info, _ := r.Agent("a")
		open = info.OpenTurns
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "increments/s")
	if sink.texts != b.N {
		b.Errorf("%d of %d increments arrived", sink.texts, b.N)
	}
}

const (
	idleEnv    = "COVEN_TEST_IDLE_AGENTS" // address of the gateway, for the helper process
	idleAgents = 2000
)

// BenchmarkIdleAgents measures what an idle agent costs the gateway, each on a connection of its
// own. The agents are in another process.
func BenchmarkIdleAgents(b *testing.B) {
	if addr := os.Getenv(idleEnv); addr != "" {
		beIdle(addr)
		return
	}
	for b.Loop() {
		r, addr := serveTCP(b)
		before := used()
		agents := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkIdleAgents$", "-test.benchtime=1x")
		agents.Env = append(os.Environ(), idleEnv+"="+addr)
		agents.Stderr = os.Stderr
		in, err := agents.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := agents.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := agents.Start(); err != nil {
			b.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "connected"); {
		}
		if r.Len() != idleAgents {
			b.Fatalf("%d agents are here", r.Len())
		}
		time.Sleep(500 * time.Millisecond)
		after := used()
		b.ReportMetric(float64(after.heap-before.heap)/idleAgents, "heap-B/agent")
		b.ReportMetric(float64(after.stack-before.stack)/idleAgents, "stack-B/agent")
		b.ReportMetric(float64(after.goroutines-before.goroutines)/idleAgents, "goroutines/agent")
		_ = in.Close()
		if err := agents.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

type usage struct{ heap, stack, goroutines int64 }

func used() usage {
	for range 3 { // stacks shrink with each collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{int64(m.HeapAlloc), int64(m.StackInuse), int64(runtime.NumGoroutine())}
}

// beIdle is the helper process: it connects and waits until its input ends.
func beIdle(addr string) {
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := n; i < idleAgents; i += 8 {
				if _, err := connect(context.Background(), addr, fmt.Sprint("agent-", i)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Println("connected")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
