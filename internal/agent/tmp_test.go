package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"bufio"
	"strings"
	"testing"
	"time"
	"runtime/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	pb "coven-gateway/proto/coven"
)

type fake struct {
	pb.UnimplementedCovenControlServer
	mode string
	r *Registry
}

func (f fake) AgentStream(s grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]) error {
	s.SendHeader(nil)
	switch f.mode {
	case "handler": 
		s.Send(&pb.ServerMessage{})
		<-s.Context().Done()
		return nil
	case "recv":
		s.Send(&pb.ServerMessage{})
		s.Recv()
		s.Recv()
		return nil
	case "both":
		s.Send(&pb.ServerMessage{})
		go func() { s.Recv(); s.Recv() }()
		<-s.Context().Done()
	case "fresh":
		s.Send(&pb.ServerMessage{})
		go func() { s.Recv(); go func() { s.Recv() }() }()
		<-s.Context().Done()
	}
	return nil
}

func TestTmp(t *testing.T) {
	for _, mode := range []string{"none", "handler", "recv", "both", "fresh", "real"} {
		r := New(Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: prometheus.NewRegistry(), ServerID: "s", ReconnectGrace: grace, HeartbeatTimeout: silence})
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		s := grpc.NewServer(append(r.ServerOptions(time.Hour), grpc.StreamInterceptor(authenticate))...)
		if mode == "real" { r.Register(s) } else { pb.RegisterCovenControlServer(s, fake{mode: mode, r: r}) }
		go s.Serve(l)
		before := used()
		agents := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkIdleAgents$", "-test.benchtime=1x")
		agents.Env = append(os.Environ(), idleEnv+"="+l.Addr().String())
		in, _ := agents.StdinPipe()
		out, _ := agents.StdoutPipe()
		agents.Stderr = os.Stderr
		agents.Start()
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "connected"); {
		}
		time.Sleep(500 * time.Millisecond)
		after := used()
		fmt.Println(mode, "heap", (after.heap-before.heap)/idleAgents, "stack", (after.stack-before.stack)/idleAgents, "gor", (after.goroutines-before.goroutines)/idleAgents)
		if mode == "real" && os.Getenv("PROF") != "" {
			f, _ := os.Create(os.Getenv("PROF"))
			pprof.Lookup("heap").WriteTo(f, 0)
			f.Close()
		}
		in.Close()
		agents.Wait()
		s.Stop()
		r.Shutdown(context.Background(), "")
	}
}
