package gatewaytest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// TestApprovalTimeout: with a time-out a question says when it ends, and is denied then, for
// everybody to see; one that was answered in time, or whose turn has ended, is not.
func TestApprovalTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 5 * time.Minute
		g := NewInBubble(t, func(c *config.Config) { c.Agents.ApprovalTimeout = limit })
		a := g.Agent("a")
		g.setPolicy(t, "a", "allow read")
		c := pb.NewClientServiceClient(g.Dial())
		say(t, c, context.Background(), "a", "work")
		m := a.Message()
		list := func() string {
			t.Helper()
			_, body := g.web(http.MethodGet, "/api/approvals?agent_id=a", "")
			return body
		}
		approve := func(id string, all bool) (int, string) {
			resp, body := g.web(http.MethodPost, "/api/tools/approve", fmt.Sprintf(`{"agent_id":"a","tool_id":%q,"approved":true,"approve_all":%t}`, id, all))
			return resp.StatusCode, body
		}

		began := time.Now()
		end := began.Add(limit).UTC().Format("2006-01-02T15:04:05.000000Z07:00")
		a.wish(m.RequestId, "late", "rm", `{"path":"/"}`)
		a.wish(m.RequestId, "timely", "rm", `{}`)
		a.wish(m.RequestId, "ruled", "read", `{}`)
		if got := a.next().GetToolApproval(); got.GetId() != "ruled" || !got.GetApproved() {
			t.Errorf("the agent was told %v", got)
		}
		time.Sleep(limit - time.Since(began) - time.Millisecond)
		if body := list(); strings.Count(body, `"expires_at":"`+end+`"`) != 2 {
			t.Errorf("%s is not twice in %s", end, body)
		}
		if code, body := approve("timely", false); code != http.StatusOK {
			t.Errorf("%d %s", code, body)
		}
		if got := a.next().GetToolApproval(); got.GetId() != "timely" || !got.GetApproved() {
			t.Errorf("the agent was told %v", got)
		}
		if got := a.next().GetToolApproval(); got.GetId() != "late" || got.GetApproved() || time.Since(began) != limit {
			t.Errorf("the agent was told %v after %s", got, time.Since(began))
		}
		if body := list(); body != `{"approvals":[]}`+"\n" {
			t.Error(body)
		}
		if code, body := approve("late", false); code != http.StatusNotFound || !strings.Contains(body, "does not wait for the approval of tool") {
			t.Errorf("%d %s", code, body)
		}
		time.Sleep(limit) // nothing more is denied, and the turn goes on
		a.wish(m.RequestId, "all", "rm", `{}`)
		synctest.Wait()
		if code, body := approve("all", true); code != http.StatusOK {
			t.Errorf("%d %s", code, body)
		}
		a.next()
		a.wish(m.RequestId, "more", "rm", `{}`)
		if got := a.next().GetToolApproval(); got.GetId() != "more" || !got.GetApproved() {
			t.Errorf("the agent was told %v", got)
		}
		a.Done(m.RequestId, "")

		say(t, c, context.Background(), "a", "once more")
		n := a.Message()
		a.wish(n.RequestId, "left", "rm", `{}`)
		a.Done(n.RequestId, "")
		time.Sleep(2 * limit)
		_, body := g.web(http.MethodGet, "/api/conversations/a/events?limit=1000", "")
		if strings.Count(body, `"by":"timeout"`) != 1 || !strings.Contains(body, `"approved":false,"by":"timeout","id":"late"`) || strings.Count(body, `"expires_at":"`+end+`"`) != 2 {
			t.Error(body)
		}
		records, err := g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Action: "decide_tool", Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		denied := 0
		for _, r := range records {
			if strings.Contains(r.Detail, `"by":"timeout"`) && strings.Contains(r.Detail, `"tool_id":"late"`) && strings.Contains(r.Detail, `"approved":false`) {
				denied++
			}
		}
		if denied != 1 || len(records) != 4 { // ruled, timely, late, all
			t.Errorf("%+v", records)
		}
	})
}

// TestApprovalsAfterShutdown: a question ends with its turn when the gateway is shut down. Nothing is
// left of it, but what the log says.
func TestApprovalsAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, func(c *config.Config) { c.Agents.ApprovalTimeout = time.Minute })
		a := g.Agent("a")
		turn, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: "work"})
		if err != nil {
			t.Fatal(err)
		}
		a.wish(a.Message().RequestId, "t", "rm", `{"path":"/"}`)
		synctest.Wait()
		if qs, err := g.Conversations().Questions(Ctx(), ""); err != nil || len(qs) != 1 {
			t.Fatalf("%+v %v", qs, err)
		}
		g.Restart()
		a = g.Agent("a")
		time.Sleep(2 * time.Minute)
		g.afterRestart(t, turn.ID, "the gateway was shut down")
		if r, err := pb.NewClientServiceClient(g.Dial()).ApproveTool(context.Background(), &pb.ApproveToolRequest{AgentId: "a", ToolId: "t", Approved: true}); err != nil || r.GetSuccess() || r.GetError() != `agent a does not wait for the approval of tool "t"` {
			t.Errorf("%v %v", r, err)
		}
		// The agent has heard nothing of it.
		if _, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: "more"}); err != nil {
			t.Fatal(err)
		}
		a.Done(a.Message().RequestId, "")
	})
}

// afterRestart checks what is left of a turn in which the agent asked for the tool "t".
func (g *Gateway) afterRestart(t *testing.T, turn, cause string) {
	t.Helper()
	if _, body := g.web(http.MethodGet, "/api/approvals", ""); body != `{"approvals":[]}`+"\n" {
		t.Error(body)
	}
	resp, body := g.web(http.MethodPost, "/api/tools/approve", `{"agent_id":"a","tool_id":"t","approved":true}`)
	checkJSONError(t, "an answer to an old question", resp, body, http.StatusNotFound, `agent a does not wait for the approval of tool "t"`)
	_, body = g.web(http.MethodGet, "/api/turns/"+turn+"/events", "")
	if i, j := strings.Index(body, `"type":"tool_approval"`), strings.Index(body, `"error":"`+cause+`","recoverable":true`); i < 0 || j < i || strings.Contains(body, "tool_decision") {
		t.Error(body)
	}
}
