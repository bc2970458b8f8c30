package gatewaytest

import (
	"context"
	"testing"
	"time"

	pb "coven-gateway/proto/coven"
)

// An Agent is a scripted agent: it does on the wire what the test tells it to, nothing else. Its
// methods may be used by one goroutine at a time.
type Agent struct {
	t       testing.TB
	ID      string
	Welcome *pb.Welcome
	stream  pb.CovenControl_AgentStreamClient
	cancel  context.CancelFunc
	in      chan *pb.ServerMessage // closed when the stream has ended
	err     error                  // why; set before in is closed
}

// Agent connects an agent and waits for its Welcome.
func (g *Gateway) Agent(id string, edit ...func(*pb.RegisterAgent)) *Agent {
	g.t.Helper()
	a := g.Connect(id, edit...)
	m := a.next()
	if a.Welcome = m.GetWelcome(); a.Welcome == nil {
		g.t.Fatalf("agent %s was welcomed with %v (%v)", id, m, a.err)
	}
	return a
}

// Connect opens a stream and registers, without waiting for the answer.
func (g *Gateway) Connect(id string, edit ...func(*pb.RegisterAgent)) *Agent {
	g.t.Helper()
	return g.ConnectAs(context.Background(), id, edit...)
}

// ConnectAs is Connect with the credentials that are in ctx, see [Bearer] and [Key.Sign].
func (g *Gateway) ConnectAs(ctx context.Context, id string, edit ...func(*pb.RegisterAgent)) *Agent {
	g.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	g.t.Cleanup(cancel)
	stream, err := pb.NewCovenControlClient(g.Dial()).AgentStream(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	a := &Agent{t: g.t, ID: id, stream: stream, cancel: cancel, in: make(chan *pb.ServerMessage, 256)}
	r := &pb.RegisterAgent{AgentId: id, Name: id, Capabilities: []string{"base", "chat"}}
	for _, f := range edit {
		f(r)
	}
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: r}})
	go func() {
		defer close(a.in)
		for {
			m, err := stream.Recv()
			if err != nil {
				a.err = err
				return
			}
			a.in <- m
		}
	}()
	return a
}

// Next waits for the next message of the gateway; nil means that the stream has ended, see Err.
func (a *Agent) Next() *pb.ServerMessage { return <-a.in }

// next is Next with limited patience.
func (a *Agent) next() *pb.ServerMessage {
	a.t.Helper()
	select {
	case m := <-a.in:
		return m
	case <-time.After(Patience):
		a.t.Fatalf("agent %s: nothing came from the gateway", a.ID)
		return nil
	}
}

// Err is why the stream has ended.
func (a *Agent) Err() error {
	a.t.Helper()
	for a.next() != nil {
	}
	return a.err
}

// Message waits for the next user message.
func (a *Agent) Message() *pb.SendMessage {
	a.t.Helper()
	m := a.next()
	if m.GetSendMessage() == nil {
		a.t.Fatalf("agent %s: got %v (%v) instead of a message", a.ID, m, a.err)
	}
	return m.GetSendMessage()
}

// Send sends anything. A stream that has ended is no error: the test looks at Err.
func (a *Agent) Send(m *pb.AgentMessage) { _ = a.stream.Send(m) }

// Reply sends an event of a turn.
func (a *Agent) Reply(r *pb.MessageResponse) {
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: r}})
}

// Text sends increments of an answer.
func (a *Agent) Text(request string, texts ...string) {
	for _, t := range texts {
		a.Reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_Text{Text: t}})
	}
}

// Done ends a turn.
func (a *Agent) Done(request, full string) {
	a.Reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: full}}})
}

// Fail ends a turn as existing agents do when they cannot answer: with an error, and then done.
func (a *Agent) Fail(request, text string) {
	a.Reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_Error{Error: text}})
	a.Done(request, "Error: "+text)
}

// takesInjections has an agent declare that it understands injections.
func takesInjections(r *pb.RegisterAgent) {
	r.ProtocolFeatures = append(r.ProtocolFeatures, "injection")
}

// Ack answers an injection; reason says why it is refused, unless it is empty.
func (a *Agent) Ack(i *pb.InjectContext, accepted bool, reason string) {
	ack := &pb.InjectionAck{InjectionId: i.GetInjectionId(), Accepted: accepted}
	if reason != "" {
		ack.Reason = &reason
	}
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_InjectionAck{InjectionAck: ack}})
}

// Leave half-closes the stream.
func (a *Agent) Leave() { _ = a.stream.CloseSend() }

// Die cuts the stream.
func (a *Agent) Die() { a.cancel() }
