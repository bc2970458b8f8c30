package gatewaytest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// TestCancelTurn: over gRPC a turn is stopped by its own id or by that of its message, by whoever
// may, and in no other way: closing a stream is none.
func TestCancelTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		_, owner := g.Principal("owner", auth.Owner)
		_, mine := g.Principal("me", auth.Member)
		_, other := g.Principal("other", auth.Member)
		connect := func(id string, features ...string) *Agent {
			a := g.ConnectAs(Bearer(owner), id, func(r *pb.RegisterAgent) { r.ProtocolFeatures = features })
			if a.next().GetWelcome() == nil {
				t.Fatal(a.Err())
			}
			return a
		}
		plain, polite := connect("plain"), connect("polite", "cancellation")
		c, ctx := pb.NewClientServiceClient(g.Dial()), Bearer(mine)

		// Nobody looks any more, and the turn goes on.
		message := say(t, c, ctx, "plain", "one")
		v := view(t, c, ctx, "plain")
		m := plain.Message()
		plain.Text(m.RequestId, "eins ")
		v.until("text eins")
		v.stop()
		synctest.Wait()
		if turn, err := g.Conversations().Turn(Ctx(), m.RequestId); err != nil || turn.State != conversation.Open {
			t.Errorf("after its stream was closed the turn is %s (%v)", turn.State, err)
		}
		plain.Text(m.RequestId, "uno")
		synctest.Wait()

		for what, r := range map[string]struct {
			ctx  context.Context
			in   *pb.CancelTurnRequest
			code codes.Code
			said string
		}{
			"no conversation":       {ctx, &pb.CancelTurnRequest{RequestId: m.RequestId}, codes.InvalidArgument, "conversation_key required"},
			"no turn":               {ctx, &pb.CancelTurnRequest{ConversationKey: "plain"}, codes.InvalidArgument, "either request_id or message_id is required"},
			"both":                  {ctx, &pb.CancelTurnRequest{ConversationKey: "plain", RequestId: m.RequestId, MessageId: message}, codes.InvalidArgument, "either request_id or message_id is required"},
			"another conversation":  {ctx, &pb.CancelTurnRequest{ConversationKey: "polite", RequestId: m.RequestId}, codes.NotFound, `no turn "` + m.RequestId + `"`},
			"another's message":     {Bearer(other), &pb.CancelTurnRequest{ConversationKey: "plain", MessageId: message}, codes.NotFound, `no message "` + message + `"`},
			"another's turn":        {Bearer(other), &pb.CancelTurnRequest{ConversationKey: "plain", RequestId: m.RequestId}, codes.NotFound, `no turn "` + m.RequestId + `"`},
			"nonsense":              {ctx, &pb.CancelTurnRequest{ConversationKey: "plain", MessageId: "nonsense"}, codes.NotFound, `no message "nonsense"`},
			"an event in the midst": {ctx, &pb.CancelTurnRequest{ConversationKey: "plain", MessageId: g.eventID(t, "plain", 2)}, codes.NotFound, `no message "` + g.eventID(t, "plain", 2) + `"`},
		} {
			_, err := c.CancelTurn(r.ctx, r.in)
			exactly(t, what, err, r.code, r.said)
		}

		// An agent that does not understand it: the turn is over at once.
		by := &pb.CancelTurnRequest{ConversationKey: plain.ID, MessageId: message, Reason: "enough"}
		if r, err := c.CancelTurn(ctx, by); err != nil || r.GetRequestId() != m.RequestId || r.GetState() != "cancelled" {
			t.Errorf("%v %v", r, err)
		}
		turn, err := g.Conversations().Turn(Ctx(), m.RequestId)
		if err != nil || turn.State != conversation.Cancelled || turn.Cause != "enough" {
			t.Errorf("%+v %v", turn, err)
		}
		if answer, err := g.Conversations().Answer(Ctx(), m.RequestId); answer != "eins uno" {
			t.Errorf("the answer is %q (%v)", answer, err)
		}
		_, err = c.CancelTurn(ctx, by)
		exactly(t, "again", err, codes.FailedPrecondition, "the turn has already ended")

		// One that understands it is asked, and says when it has stopped.
		say(t, c, ctx, "polite", "two")
		v = view(t, c, ctx, "polite")
		m = polite.Message()
		if r, err := c.CancelTurn(ctx, &pb.CancelTurnRequest{ConversationKey: "polite", RequestId: m.RequestId, Reason: "enough"}); err != nil || r.GetState() != "open" {
			t.Errorf("%v %v", r, err)
		}
		if r := polite.next().GetCancelRequest(); r.GetRequestId() != m.RequestId || r.GetReason() != "enough" {
			t.Errorf("the agent was told %v", r)
		}
		time.Sleep(time.Second)
		polite.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{}}})
		v.until("error stopped: enough")
	})
}

// eventID is the identity of an event.
func (g *Gateway) eventID(t *testing.T, agentID string, seq int64) string {
	t.Helper()
	id, err := g.Conversations().EventID(Ctx(), agentID, seq)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
