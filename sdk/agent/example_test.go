package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	server := asker("Hello!", stop) // the address of your gateway

	err := agent.Run(ctx, agent.Options{
		Server: server,
		ID:     "echo",
		Logger: slog.New(slog.DiscardHandler),
		Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
			if err := w.Thinking("what was that?"); err != nil {
				return err
			}
			return w.Textf("You said: %s", m.Content)
		}),
	})
	fmt.Println("stopped:", err)
	// Output:
	// thinking what was that?
	// text You said: Hello!
	// done You said: Hello!
	// stopped: <nil>
}

// asker is a gateway that asks the first agent one question and prints what it answers.
func asker(question string, answered func()) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := grpc.NewServer()
	pb.RegisterCovenControlServer(s, control{serve: func(stream pb.CovenControl_AgentStreamServer) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		_ = stream.Send(&pb.ServerMessage{Payload: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{}}})
		_ = stream.Send(message("1", "thread", question))
		for m, err := stream.Recv(); err == nil; m, err = stream.Recv() {
			fmt.Println(event(m.GetResponse()))
			if m.GetResponse().GetDone() != nil {
				answered()
				go s.GracefulStop()
			}
		}
		return nil
	}})
	go func() { _ = s.Serve(l) }()
	return l.Addr().String()
}

type control struct {
	pb.UnimplementedCovenControlServer
	serve func(pb.CovenControl_AgentStreamServer) error
}

func (c control) AgentStream(s pb.CovenControl_AgentStreamServer) error { return c.serve(s) }
