package harness

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// fastRetry has a connection come back soon after the gateway does.
var fastRetry = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.6, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second,
})

// pokePause is between two messages to an agent that does not answer as it should.
const pokePause = 300 * time.Millisecond

// A raw is an agent's stream on which anything can be sent.
type raw struct {
	stream pb.CovenControl_AgentStreamClient
}

func (r raw) say(request string, e *pb.MessageResponse) error {
	e.RequestId = request
	return r.stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: e}})
}

func (r raw) text(request, s string) error {
	return r.say(request, &pb.MessageResponse{Event: &pb.MessageResponse_Text{Text: s}})
}

func (r raw) done(request string) error {
	return r.say(request, &pb.MessageResponse{Event: &pb.MessageResponse_Done{Done: &pb.Done{}}})
}

// misbehave connects an agent again and again and has it behave as serve does, until the load is over.
func (f *fleet) misbehave(server, id string, serve func(context.Context, raw) error) {
	for f.mischief.Err() == nil {
		_ = func() error { // it may fail in any way
			conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(insecure.NewCredentials()), fastRetry)
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, stop := context.WithCancel(f.mischief)
			defer stop()
			stream, err := pb.NewCovenControlClient(conn).AgentStream(ctx)
			if err != nil {
				return err
			}
			err = stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
				AgentId: id, Name: id, Capabilities: []string{"base", "chat"},
			}}})
			if err != nil {
				return err
			}
			return serve(ctx, raw{stream})
		}()
		sleep(f.mischief, 20*time.Millisecond)
	}
}

// messages calls each for every message of a stream.
func (r raw) messages(each func(id string) error) error {
	for {
		m, err := r.stream.Recv()
		if err != nil {
			return err
		}
		if s := m.GetSendMessage(); s != nil {
			if err := each(s.GetRequestId()); err != nil {
				return err
			}
		}
	}
}

// hang takes messages and says nothing.
func hang(_ context.Context, r raw) error { return r.messages(func(string) error { return nil }) }

// deaf reads nothing.
func deaf(ctx context.Context, _ raw) error {
	<-ctx.Done()
	return ctx.Err()
}

// lie speaks in turns of others, and of nobody.
func (f *fleet) lie(_ context.Context, r raw) error {
	return r.messages(func(id string) error {
		f.ledger.mu.Lock()
		other := f.ledger.recent
		f.ledger.mu.Unlock()
		for _, target := range []string{other, "nobody's", "", strings.Repeat("x", 10_000)} {
			if err := r.text(target, "a lie "); err != nil {
				return err
			}
			if err := r.say(target, &pb.MessageResponse{Event: &pb.MessageResponse_ToolApprovalRequest{ToolApprovalRequest: &pb.ToolApprovalRequest{Id: "t", Name: "rm"}}}); err != nil {
				return err
			}
			if err := r.done(target); err != nil {
				return err
			}
		}
		err := r.stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{RequestId: other, ToolName: "nothing"}}})
		if err != nil {
			return err
		}
		if err := r.done(id); err != nil {
			return err
		}
		if err := r.text(id, "too late"); err != nil {
			return err
		}
		return r.done(id)
	})
}

// flood says more than anybody wants to hear, to its own messages and to none.
func flood(_ context.Context, r raw) error {
	return r.messages(func(id string) error {
		for i := range 3000 {
			if err := r.text(id, fmt.Sprint("flood ", i, " ")); err != nil {
				return err
			}
			if err := r.text("nobody's", "flood"); err != nil {
				return err
			}
		}
		return r.done(id)
	})
}

// garble sends what no protocol knows, to both ports.
func (f *fleet) garble(t Target, rnd *rand.Rand) {
	for f.mischief.Err() == nil {
		addr := [...]string{t.GRPC, strings.TrimPrefix(t.HTTP, "http://")}[rnd.IntN(2)]
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			b := make([]byte, 1+rnd.IntN(8<<10))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			switch rnd.IntN(3) {
			case 0:
				b = append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), b...)
			case 1:
				b = append([]byte("POST /api/send HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"), b...)
			}
			_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = c.Write(b) // whatever becomes of it
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10))
			_ = c.Close()
		}
		sleep(f.mischief, 10*time.Millisecond)
	}
}

// nonsense is an agent whose messages are no messages: a gRPC stream with bytes of another kind.
func (f *fleet) nonsense(server string, rnd *rand.Rand) {
	for f.mischief.Err() == nil {
		_ = func() error { // it is to fail
			conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(insecure.NewCredentials()), fastRetry)
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, stop := context.WithTimeout(f.mischief, time.Second)
			defer stop()
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, pb.CovenControl_AgentStream_FullMethodName, grpc.ForceCodec(bytesCodec{}))
			if err != nil {
				return err
			}
			b := make([]byte, rnd.IntN(1000))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			if err := stream.SendMsg(b); err != nil {
				return err
			}
			var answer []byte
			return stream.RecvMsg(&answer)
		}()
		sleep(f.mischief, 30*time.Millisecond)
	}
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string                  { return "proto" }
func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = b
	return nil
}

// poke sends messages to an agent that may not answer, does not wait, and stops some of the turns.
func (f *fleet) poke(agentID string, size int, rnd *rand.Rand) {
	for n := 0; f.stopping.Err() == nil; n++ {
		s := &sight{agent: agentID, content: fmt.Sprintf("poke %d of %s %s", n, agentID, strings.Repeat("x", size))}
		ctx, stop := context.WithTimeout(f.mischief, pokePause)
		resp, err := f.clients.request(ctx, http.MethodPost, "/api/send", map[string]string{
			"agent_id": agentID, "sender": "chaos", "content": s.content, "idempotency_key": fmt.Sprintf("poke %d of %s", n, agentID),
		}, "Accept", "text/event-stream")
		if err == nil {
			err := events(resp, s.add) // ends with ctx
			_ = resp.Body.Close()
			if strings.Contains(err.Error(), "comes after") {
				f.ledger.fault("turn %s of %s: %v", s.turn, agentID, err)
			}
			f.ledger.saw(s)
		}
		stop()
		if s.turn != "" && len(s.ends) == 0 && rnd.IntN(2) == 0 {
			ctx, stop := context.WithTimeout(f.mischief, silence)
			if resp, err := f.clients.request(ctx, http.MethodPost, "/api/turns/"+s.turn+"/cancel", nil); err == nil {
				_ = resp.Body.Close()
			}
			stop()
		}
		sleep(f.stopping, pokePause)
	}
}

// ignore opens streams of a conversation and does not read them.
func (f *fleet) ignore(agentID string, rnd *rand.Rand) {
	conn, err := grpc.NewClient("passthrough:///"+f.clients.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), fastRetry)
	if err != nil {
		f.ledger.fault("%v", err)
		return
	}
	defer conn.Close()
	for f.stopping.Err() == nil {
		ctx, stop := context.WithCancel(f.stopping)
		resp, err := f.clients.request(ctx, http.MethodGet, "/api/conversations/"+agentID+"/events?after=0", nil, "Accept", "text/event-stream")
		_, _ = pb.NewClientServiceClient(conn).StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: agentID}) // may not exist yet
		sleep(ctx, time.Duration(1000+rnd.IntN(4000))*time.Millisecond)
		if err == nil {
			_ = resp.Body.Close()
		}
		stop()
	}
}

// flit sends messages and opens streams, and hangs up at once.
func (f *fleet) flit(agentID, name string, rnd *rand.Rand) {
	for n := 0; f.stopping.Err() == nil; n++ {
		ctx, stop := context.WithTimeout(f.stopping, time.Duration(rnd.IntN(20_000))*time.Microsecond)
		if rnd.IntN(4) == 0 {
			s := &sight{agent: agentID, content: fmt.Sprintf("%s says %d to %s", name, n, agentID)}
			_ = f.clients.send(ctx, map[string]string{"agent_id": agentID, "sender": "chaos", "content": s.content, "idempotency_key": s.content}, s.add)
			f.ledger.saw(s)
		} else {
			_ = f.clients.follow(ctx, "/api/conversations/"+agentID+"/events", 0, nil, func(sse.Event) error { return nil })
		}
		stop()
		f.ledger.stream()
		sleep(f.stopping, time.Duration(rnd.IntN(20))*time.Millisecond)
	}
}
