package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// resuming returns a gateway that resumes, and says on each registration what open returns.
func resuming(open func(*pb.RegisterAgent) []*pb.OpenRequest) func() *gateway {
	return func() *gateway {
		g := newGateway()
		g.welcome = func(r *pb.RegisterAgent, w *pb.Welcome) {
			w.ProtocolFeatures, w.OpenRequests = []string{"resume"}, open(r)
		}
		return g
	}
}

func ack(id string, received uint64) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ResponseAck{ResponseAck: &pb.ResponseAck{RequestId: id, Received: received}}}
}

// TestResume: a handler outlives the stream. What is not recorded is sent again, with the same numbers, and
// what the gateway has ended is stopped.
func TestResume(t *testing.T) {
	received := map[string]uint64{}
	var named []string
	open := func(r *pb.RegisterAgent) (open []*pb.OpenRequest) {
		named = r.OpenRequests
		for _, id := range r.OpenRequests {
			if n, ok := received[id]; ok {
				open = append(open, &pb.OpenRequest{RequestId: id, Received: n})
			}
		}
		return open
	}
	var more chan struct{}
	causes := make(chan error, 1)
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		if m.Content == "forgotten" {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return w.Text("too late")
		}
		for i := range 6 {
			if i == 3 {
				<-more
			}
			if err := w.Textf("%d", i); err != nil {
				return err
			}
		}
		return nil
	})}
	playAgent(t, resuming(open), o, func(t *testing.T, g *gateway, _ *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		more = make(chan struct{})
		s := <-g.streams
		if r := <-g.registered; !slices.Contains(r.ProtocolFeatures, "resume") || len(r.OpenRequests) > 0 {
			t.Error(r)
		}
		send(t, s, message("1", "x", ""))
		send(t, s, message("2", "y", "forgotten"))
		for i := range 3 {
			if r := next(t, s).GetResponse(); r.GetText() != fmt.Sprint(i) || r.GetResponseSeq() != uint64(i+1) {
				t.Error(r)
			}
		}
		send(t, s, ack("1", 1))
		synctest.Wait()
		received["1"] = 2
		g.end <- struct{}{}
		s = <-g.streams
		if want := []string{"1", "2"}; !slices.Equal(named, want) {
			t.Errorf("the agent works on %q, want %q", named, want)
		}
		if err := <-causes; !errors.Is(err, agent.ErrForgotten) {
			t.Errorf("the cause is %v", err)
		}
		close(more)
		for i := 2; i < 6; i++ {
			if r := next(t, s).GetResponse(); r.GetRequestId() != "1" || r.GetText() != fmt.Sprint(i) || r.GetResponseSeq() != uint64(i+1) {
				t.Error(r)
			}
		}
		if r := next(t, s).GetResponse(); r.GetDone().GetFullResponse() != "012345" || r.GetResponseSeq() != 7 {
			t.Error(r)
		}
		received["1"] = 6
		g.end <- struct{}{} // the end is not known to be recorded
		s = <-g.streams
		if want := []string{"1"}; !slices.Equal(named, want) {
			t.Errorf("the agent works on %q, want %q", named, want)
		}
		if r := next(t, s).GetResponse(); r.GetDone() == nil || r.GetResponseSeq() != 7 {
			t.Error(r)
		}
		send(t, s, ack("1", 7))
		synctest.Wait()
		g.end <- struct{}{}
		<-g.streams
		if len(named) > 0 {
			t.Errorf("the agent works on %q", named)
		}
	})
}

// TestKept: a handler waits while too much of its answer is not recorded, and can be stopped all the same.
func TestKept(t *testing.T) {
	written := 0
	stopped := make(chan error, 1)
	o := agent.Options{Heartbeat: -1, Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		for {
			if err := w.Text("x"); err != nil {
				stopped <- err
				return err
			}
			written++
		}
	})}
	playAgent(t, resuming(func(*pb.RegisterAgent) []*pb.OpenRequest { return nil }), o, func(t *testing.T, g *gateway, _ *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		for range 256 {
			next(t, s)
		}
		synctest.Wait()
		if written != 256 {
			t.Errorf("%d responses are kept", written)
		}
		send(t, s, ack("1", 10))
		for range 10 {
			next(t, s)
		}
		synctest.Wait()
		if written != 266 {
			t.Errorf("%d responses were written, 10 are recorded", written)
		}
		send(t, s, cancelRequest("1", "enough"))
		if err := <-stopped; !errors.Is(err, agent.ErrCancelled) {
			t.Errorf("got %v", err)
		}
		if r := next(t, s).GetResponse(); r.GetCancelled() == nil || r.GetResponseSeq() != 267 {
			t.Error(r)
		}
	})
}

// TestToldAgain: an answer that is told again answers no other question, even one with the same id.
func TestToldAgain(t *testing.T) {
	told := func(seq uint64, yes bool) *pb.ServerMessage {
		m := approval("t", yes)
		m.GetToolApproval().RequestId, m.GetToolApproval().ResponseSeq = "1", seq
		return m
	}
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
		for range 2 {
			yes, err := w.ToolApproval(ctx, "t", "rm", nil)
			if err != nil {
				return err
			}
			if err := w.Textf("%t ", yes); err != nil {
				return err
			}
		}
		return nil
	})}
	open := func(r *pb.RegisterAgent) (open []*pb.OpenRequest) {
		for _, id := range r.OpenRequests {
			open = append(open, &pb.OpenRequest{RequestId: id, Received: 3})
		}
		return open
	}
	playAgent(t, resuming(open), o, func(t *testing.T, g *gateway, a *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		next(t, s)
		send(t, s, told(1, true))
		for range 2 {
			next(t, s)
		}
		g.end <- struct{}{}
		s = <-g.streams
		send(t, s, told(1, true)) // again
		send(t, s, told(3, false))
		if r := next(t, s).GetResponse(); r.GetText() != "false " || r.GetResponseSeq() != 4 {
			t.Error(r)
		}
		if len(a.Tools()) != 1 {
			t.Error(a.Tools())
		}
		send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_ToolUpdate{ToolUpdate: &pb.ToolUpdate{Tools: []*pb.ToolDefinition{{Name: "a"}, {Name: "b"}}}}})
		synctest.Wait()
		if tools := a.Tools(); len(tools) != 2 || tools[1].Name != "b" {
			t.Error(tools)
		}
	})
}

// TestStopKept: an agent that stops ends its handlers, connected or not.
func TestStopKept(t *testing.T) {
	for _, away := range []bool{false, true} {
		down := false
		causes := make(chan error, 1)
		o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, _ *agent.Writer) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		})}
		gw := resuming(func(*pb.RegisterAgent) []*pb.OpenRequest { return nil })
		playAgent(t, func() *gateway { g := gw(); g.down = func() bool { return down }; return g }, o, func(t *testing.T, g *gateway, _ *agent.Agent, stop context.CancelFunc, run <-chan error) {
			s := <-g.streams
			send(t, s, message("1", "x", ""))
			synctest.Wait()
			if away {
				down = true
				g.end <- struct{}{}
				synctest.Wait()
				if len(causes) > 0 {
					t.Error("the handler has ended with the stream")
				}
			}
			stop()
			if err := <-causes; !errors.Is(err, agent.ErrStopped) {
				t.Errorf("the cause is %v", err)
			}
			if err := <-run; err != nil {
				t.Error(err)
			}
		})
	}
}
