package agent_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// discard is a codec that does not look into what agents send after the registration, so that the
// benchmark measures the agent.
type discard struct{ encoding.CodecV2 }

func (discard) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*pb.AgentMessage); ok && data.Len() < 100 {
		m.Payload = nil
		return nil
	}
	return encoding.GetCodecV2(proto.Name).Unmarshal(data, v)
}

// BenchmarkText: a handler writes increments of six bytes as fast as the stream takes them.
func BenchmarkText(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g := newGateway()
	s := grpc.NewServer(grpc.ForceServerCodecV2(discard{encoding.GetCodecV2(proto.Name)}))
	pb.RegisterCovenControlServer(s, g)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = agent.Run(ctx, agent.Options{
			Server: l.Addr().String(), ID: "a", Heartbeat: -1, Logger: slog.New(slog.DiscardHandler),
			Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
				b.ResetTimer()
				for range b.N {
					if err := w.Text("word, "); err != nil {
						return err
					}
				}
				return nil
			}),
		})
	}()
	stream := <-g.streams
	b.ReportAllocs()
	b.ResetTimer()
	if err := stream.Send(message("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "t", "go")); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "increments/s")
	b.StopTimer()
	cancel()
	g.end <- struct{}{}
	<-left
}
