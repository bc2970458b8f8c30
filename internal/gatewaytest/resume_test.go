package gatewaytest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// resuming connects an agent that says it still works on some requests. Its own old stream may seem
// alive for a moment: the gateway has not read all of it.
func (g *Gateway) resuming(id string, working ...string) *Agent {
	g.t.Helper()
	for range 10 {
		a := g.ConnectAs(Ctx(), id, func(r *pb.RegisterAgent) { r.ProtocolFeatures, r.OpenRequests = []string{"resume"}, working })
		if a.Welcome = a.next().GetWelcome(); a.Welcome != nil {
			return a
		}
		if status.Code(a.Err()) != codes.AlreadyExists {
			g.t.Fatal(a.Err())
		}
		synctest.Wait()
	}
	g.t.Fatal("the old stream does not end")
	return nil
}

// number sends a piece of text with a number.
func (a *Agent) number(request string, seq int, text string) {
	a.Reply(&pb.MessageResponse{RequestId: request, ResponseSeq: uint64(seq), Event: &pb.MessageResponse_Text{Text: text}})
}

func (a *Agent) numberedDone(request string, seq int) {
	a.Reply(&pb.MessageResponse{RequestId: request, ResponseSeq: uint64(seq), Event: &pb.MessageResponse_Done{Done: &pb.Done{}}})
}

// begin sends a message and returns its turn.
func (g *Gateway) begin(agent string) conversation.Turn {
	g.t.Helper()
	t, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: agent, Frontend: "direct", Sender: "me", Text: "hi"})
	if err != nil {
		g.t.Fatal(err)
	}
	return t
}

// turnState returns where a turn is, and why.
func (g *Gateway) turnState(id string) string {
	g.t.Helper()
	t, err := g.Conversations().Turn(Ctx(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(fmt.Sprint(t.State, " ", t.Cause))
}

// TestResume: the stream of an agent that resumes is cut many times, in the middle of whatever it does;
// it sends again what the gateway has not, and more. The answer is the same as without that.
func TestResume(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			g := NewInBubble(t)
			a := g.resuming("a")
			if !slices.Contains(a.Welcome.ProtocolFeatures, "resume") {
				t.Fatal(a.Welcome)
			}
			turn := g.begin("a")
			a.Message()
			const pieces = 400
			var want strings.Builder
			for n := range pieces {
				fmt.Fprint(&want, n+1, " ")
			}
			sent, most, acked := 0, 0, uint64(0)
			for sent < pieces {
				for range random.IntN(120) {
					if sent < pieces {
						sent++
						a.number(turn.ID, sent, fmt.Sprint(sent, " "))
					}
				}
				if random.IntN(2) == 0 {
					synctest.Wait()
				}
				most = max(most, sent)
				a.Die()
				if random.IntN(2) == 0 {
					time.Sleep(time.Duration(random.IntN(7)) * time.Second)
				}
				a = g.resuming("a", turn.ID)
				open := a.Welcome.OpenRequests
				if len(open) != 1 || open[0].RequestId != turn.ID || open[0].Received < acked || open[0].Received > uint64(most) {
					t.Fatalf("sent %d, acknowledged %d: %v", most, acked, open)
				}
				acked = open[0].Received
				sent = int(acked) - random.IntN(int(acked)+1) // what it has already, too
			}
			a.numberedDone(turn.ID, pieces+1)
			for ack := a.Next().GetResponseAck(); ack.GetReceived() != pieces+1; ack = a.Next().GetResponseAck() {
				if ack.GetRequestId() != turn.ID {
					t.Fatal("no acknowledgement of the end")
				}
			}
			synctest.Wait()
			if got := g.turnState(turn.ID); got != "done" {
				t.Error(got)
			}
			if got, err := g.Conversations().Answer(Ctx(), turn.ID); err != nil || got != want.String() {
				t.Errorf("seed %d: %v: %d bytes instead of %d", seed, err, len(got), want.Len())
			}
		})
	}
}

// TestNotResumed: what an agent does not go on with ends, and says why.
func TestNotResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.resuming("a")
		late, left, cancelled := g.begin("a"), g.begin("a"), g.begin("a")
		for range 3 {
			a.Message()
		}
		a.number(left.ID, 1, "half an ")
		a.Die()
		synctest.Wait()
		if got := g.turnState(late.ID); got != "open" {
			t.Error(got)
		}
		if err := g.Conversations().Cancel(Ctx(), cancelled.ID, "enough"); err != nil {
			t.Error(err)
		}
		a = g.resuming("a", cancelled.ID, late.ID, "unknown")
		if open := a.Welcome.OpenRequests; len(open) != 1 || open[0].RequestId != late.ID || open[0].Received != 0 {
			t.Error(open)
		}
		synctest.Wait()
		for id, want := range map[string]string{left.ID: "interrupted the agent came back without the turn", cancelled.ID: "cancelled enough", late.ID: "open"} {
			if got := g.turnState(id); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		// What is not open need not be kept.
		a.number(left.ID, 2, "answer")
		if ack := a.Next().GetResponseAck(); ack.GetRequestId() != left.ID || ack.GetReceived() != 2 {
			t.Error(ack)
		}
		// The grace is over.
		a.Die()
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if got := g.turnState(late.ID); got != "open" {
			t.Error(got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := g.turnState(late.ID); got != "interrupted the agent disconnected" {
			t.Error(got)
		}
		// One that leaves does not come back.
		a = g.resuming("a", late.ID)
		if open := a.Welcome.OpenRequests; len(open) != 0 {
			t.Error(open)
		}
		turn := g.begin("a")
		a.Message()
		a.Leave()
		synctest.Wait()
		if got := g.turnState(turn.ID); got != "interrupted the agent disconnected" {
			t.Error(got)
		}
		// Nor does one that cannot resume, under the same id.
		a = g.resuming("a")
		turn = g.begin("a")
		a.Message()
		a.Die()
		synctest.Wait()
		g.Agent("a")
		synctest.Wait()
		if got := g.turnState(turn.ID); got != "interrupted the agent came back without the turn" {
			t.Error(got)
		}
	})
}

// TestResumeGap: an agent that leaves out a number has lost something: its stream ends, and nothing is
// recorded behind the gap. Numbers of an agent that does not resume mean nothing.
func TestResumeGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.resuming("a")
		turn := g.begin("a")
		a.Message()
		a.number(turn.ID, 1, "one ")
		a.number(turn.ID, 3, "three ")
		for m := a.Next(); m != nil; m = a.Next() {
			t.Log(m)
		}
		refused(t, a.Err(), codes.InvalidArgument, "response_seq 3 of request "+turn.ID+" does not follow the one before")
		synctest.Wait()
		if got, err := g.Conversations().Answer(Ctx(), turn.ID); err != nil || got != "one " {
			t.Error(got, err)
		}
		a = g.Agent("b")
		turn = g.begin("b")
		a.Message()
		a.number(turn.ID, 7, "seven")
		a.numberedDone(turn.ID, 7)
		synctest.Wait()
		if got, err := g.Conversations().Answer(Ctx(), turn.ID); err != nil || got != "seven" {
			t.Error(got, err)
		}
	})
}
