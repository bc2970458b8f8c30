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
				sent = int(acked) - random.IntN(min(int(acked), 20)+1) // what it has already, too
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

// approve answers a question of an agent whether it may run a tool.
func (g *Gateway) approve(agent, tool string, yes bool) error {
	return g.Conversations().Approve(Ctx(), conversation.Verdict{AgentID: agent, ToolID: tool, Approved: yes})
}

// asks sends a question whether a tool may run, with a number.
func (a *Agent) asks(request string, seq int, tool string) {
	a.Reply(&pb.MessageResponse{RequestId: request, ResponseSeq: uint64(seq), Event: &pb.MessageResponse_ToolApprovalRequest{
		ToolApprovalRequest: &pb.ToolApprovalRequest{Id: tool, Name: "rm", InputJson: "{}"},
	}})
}

// TestResumeAfterRestart: the gateway is restarted again and again in the middle of an answer. The agent sends again
// what is not recorded, and the answer and what readers saw are the same as without that.
func TestResumeAfterRestart(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			g := NewInBubble(t)
			a := g.resuming("a")
			turn := g.begin("a")
			a.Message()
			const pieces = 300
			var want, seen strings.Builder
			for n := range pieces {
				fmt.Fprint(&want, n+1, " ")
			}
			pos := turn.First
			read := func() {
				r, err := g.Conversations().Reader(Ctx(), "a", conversation.Filter{TurnID: turn.ID}, pos)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				for evs, err := r.Poll(Ctx()); len(evs) > 0 || err != nil; evs, err = r.Poll(Ctx()) {
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range evs {
						if e.First <= pos {
							t.Errorf("after %d came %d", pos, e.First)
						}
						pos = e.Seq
						if b, ok := e.Body.(conversation.Text); ok {
							seen.WriteString(b.Text)
						}
					}
				}
			}
			for sent, most := 0, 0; sent < pieces; {
				for range random.IntN(90) {
					if sent < pieces {
						sent++
						a.number(turn.ID, sent, fmt.Sprint(sent, " "))
					}
				}
				if random.IntN(2) == 0 {
					synctest.Wait()
					read()
				}
				if random.IntN(3) == 0 {
					a.Die()
				} else {
					g.Restart()
				}
				time.Sleep(time.Duration(random.IntN(7)) * time.Second)
				read()
				most = max(most, sent)
				a = g.resuming("a", turn.ID)
				open := a.Welcome.OpenRequests
				if len(open) != 1 || open[0].RequestId != turn.ID || open[0].Received > uint64(most) {
					t.Fatalf("sent %d: %v", most, open)
				}
				sent = int(open[0].Received) - random.IntN(min(int(open[0].Received), 20)+1)
			}
			a.Reply(&pb.MessageResponse{RequestId: turn.ID, ResponseSeq: pieces + 1, Event: &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: want.String()}}})
			synctest.Wait()
			read()
			if got := g.turnState(turn.ID); got != "done" {
				t.Error(got)
			}
			if got, err := g.Conversations().Answer(Ctx(), turn.ID); err != nil || got != want.String() || seen.String() != got {
				t.Errorf("seed %d: %v: %d bytes instead of %d, seen %d", seed, err, len(got), want.Len(), seen.Len())
			}
		})
	}
}

// TestHeldTurns: what becomes of turns whose agents are away when the gateway starts.
func TestHeldTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		old, a := g.Agent("old"), g.resuming("a")
		legacy := g.begin("old")
		old.Message()
		late, cancelled, left := g.begin("a"), g.begin("a"), g.begin("a")
		for range 3 {
			a.Message()
		}
		a.number(late.ID, 1, "half an ")
		synctest.Wait()
		g.Restart()
		for id, want := range map[string]string{legacy.ID: "interrupted the gateway was shut down", late.ID: "open", cancelled.ID: "open", left.ID: "open"} {
			if got := g.turnState(id); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		if err := g.Conversations().Cancel(Ctx(), cancelled.ID, "enough"); err != nil {
			t.Error(err)
		}
		queued, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: late.ThreadID, Text: "next", Delivery: conversation.Queue})
		if err != nil {
			t.Fatal(err)
		}
		a = g.resuming("a", late.ID, cancelled.ID)
		if open := a.Welcome.OpenRequests; len(open) != 1 || open[0].RequestId != late.ID || open[0].Received != 1 {
			t.Error(open)
		}
		synctest.Wait()
		for id, want := range map[string]string{left.ID: "interrupted the agent came back without the turn", cancelled.ID: "cancelled enough", queued.ID: "queued"} {
			if got := g.turnState(id); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		a.number(late.ID, 2, "answer")
		a.numberedDone(late.ID, 3)
		for m := a.Next(); m.GetSendMessage().GetRequestId() != queued.ID; m = a.Next() {
			if m == nil {
				t.Fatal("what waited does not come")
			}
		}
		if got, err := g.Conversations().Answer(Ctx(), late.ID); err != nil || got != "half an answer" {
			t.Error(got, err)
		}
		a.number(queued.ID, 1, "part")
		synctest.Wait()
		g.Restart()
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if got := g.turnState(queued.ID); got != "open" {
			t.Error(got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := g.turnState(queued.ID); got != "interrupted the gateway was restarted" {
			t.Error(got)
		}
		if got, err := g.Conversations().Answer(Ctx(), queued.ID); err != nil || got != "part" {
			t.Error(got, err)
		}
	})
}

// TestDecidedWhileAway: answers to an agent that is away, or whose gateway is restarted, reach it when it is back,
// under the number of its question.
func TestDecidedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.resuming("a")
		turn := g.begin("a")
		a.Message()
		decided := func(seq int, yes bool) {
			t.Helper()
			for {
				m := a.next()
				if m.GetResponseAck() != nil {
					continue
				}
				d := m.GetToolApproval()
				if d.GetRequestId() != turn.ID || d.GetResponseSeq() != uint64(seq) || d.GetApproved() != yes {
					t.Errorf("got %v, want the answer %t to %d", m, yes, seq)
				}
				return
			}
		}
		a.asks(turn.ID, 1, "x")
		a.asks(turn.ID, 2, "y")
		a.asks(turn.ID, 3, "z")
		synctest.Wait()
		if err := g.approve("a", "x", true); err != nil {
			t.Fatal(err)
		}
		decided(1, true)
		a.Die()
		synctest.Wait()
		if err := g.approve("a", "y", false); err != nil {
			t.Fatal(err)
		}
		if err := g.approve("a", "nothing", true); err == nil || err.Error() != "agent not found" {
			t.Error(err)
		}
		a = g.resuming("a", turn.ID)
		decided(1, true) // perhaps it has not heard it
		decided(2, false)
		synctest.Wait()
		g.Restart()
		if qs, err := g.Conversations().Questions(Ctx(), ""); err != nil || len(qs) != 1 || qs[0].ToolID != "z" || qs[0].Name != "rm" {
			t.Error(qs, err)
		}
		if err := g.approve("a", "z", true); err != nil {
			t.Fatal(err)
		}
		if err := g.approve("a", "z", true); err == nil {
			t.Error("it is answered twice")
		}
		a = g.resuming("a", turn.ID)
		decided(1, true)
		decided(2, false)
		decided(3, true)
		if got := a.Welcome.OpenRequests[0].Received; got != 3 {
			t.Errorf("%d responses are recorded", got)
		}
		// What a policy decides is recorded with the number of the question.
		if _, err := g.Conversations().SetApprovalPolicy(Ctx(), "a", []conversation.ToolRule{{Tool: "*", Action: conversation.Allow}}); err != nil {
			t.Fatal(err)
		}
		a.asks(turn.ID, 4, "p")
		decided(4, true)
		g.Restart()
		a = g.resuming("a", turn.ID)
		for i, yes := range []bool{true, false, true, true} {
			decided(i+1, yes)
		}
		a.asks(turn.ID, 4, "p") // again
		a.numberedDone(turn.ID, 5)
		synctest.Wait()
		if got := g.turnState(turn.ID); got != "done" {
			t.Error(got)
		}
		page, err := g.Conversations().Events(Ctx(), "a", conversation.Filter{}, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		decisions := 0
		for _, e := range page.Events {
			if _, ok := e.Body.(conversation.Decision); ok {
				decisions++
			}
		}
		if decisions != 4 {
			t.Errorf("%d decisions are recorded", decisions)
		}
	})
}
