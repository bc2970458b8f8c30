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
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// wish asks for the approval of a tool in a turn.
func (a *Agent) wish(request, id, tool, input string) {
	a.Reply(&pb.MessageResponse{RequestId: request, Event: &pb.MessageResponse_ToolApprovalRequest{
		ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: tool, InputJson: input},
	}})
}

// setPolicy replaces the rules of an agent, each an action and a pattern.
func (g *Gateway) setPolicy(t *testing.T, agent string, rules ...string) {
	t.Helper()
	body := `{"rules":[`
	for i, r := range rules {
		action, tool, _ := strings.Cut(r, " ")
		if i > 0 {
			body += ","
		}
		body += fmt.Sprintf(`{"tool":%q,"action":%q}`, tool, action)
	}
	if resp, text := g.web(http.MethodPut, "/api/admin/agents/"+agent+"/approval-policy", body+"]}"); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, text)
	}
}

// TestApprovalPolicy: what a rule decides nobody is asked on any transport; the agent hears it when it
// listens, the conversation and the audit log say so, and what was asked before a change is left alone.
func TestApprovalPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.Agent("a")
		g.setPolicy(t, "a", "deny rm*", "allow read", "ask read_secret", "allow read_?", "ask mcp/*")
		g.setPolicy(t, "*", "deny read", "allow mcp*", "allow rm")
		c := pb.NewClientServiceClient(g.Dial())
		say(t, c, context.Background(), "a", "work")
		v := view(t, c, context.Background(), "a")
		m := a.Message()

		type verdict struct{ tool, answer string }
		for i, x := range []verdict{
			{"rm", "no"},
			{"rmdir", "no"},
			{"read", "yes"},
			{"read_x", "yes"},
			{"read_xy", ""},
			{"read_secret", ""},
			{"mcp/files/read", ""},
			{"mcp", "yes"},
			{"other", ""},
			{strings.Repeat("x", 1001), "no"},
			{"", ""},
		} {
			id, asked := fmt.Sprint("tool-", i), time.Now()
			a.wish(m.RequestId, id, x.tool, `{"n":1}`)
			if x.answer == "" {
				time.Sleep(time.Second)
				qs, err := g.Conversations().Questions(Ctx(), "a")
				if err != nil || len(qs) != 1 || qs[0].ToolID != id {
					t.Fatalf("%s: %+v %v", x.tool, qs, err)
				}
				if v.until("approval").GetToolApproval().GetToolId() != id {
					t.Errorf("%s: saw %q", x.tool, v.seen)
				}
				if err := g.Conversations().Approve(Ctx(), conversation.Verdict{AgentID: "a", ToolID: id, Approved: true}); err != nil {
					t.Fatal(err)
				}
				if got := a.next().GetToolApproval(); got.GetId() != id || !got.GetApproved() {
					t.Errorf("%s: the agent was told %v", x.tool, got)
				}
				continue
			}
			synctest.Wait()
			if qs, err := g.Conversations().Questions(Ctx(), "a"); err != nil || len(qs) != 0 {
				t.Errorf("%s: %+v %v", x.tool, qs, err)
			}
			if err := g.Conversations().Approve(Ctx(), conversation.Verdict{AgentID: "a", ToolID: id, Approved: x.answer == "no"}); err == nil {
				t.Errorf("%.20s: somebody else can answer", x.tool)
			}
			if got := a.next().GetToolApproval(); got.GetId() != id || got.GetApproved() != (x.answer == "yes") || time.Since(asked) != 50*time.Millisecond {
				t.Errorf("%.20s: the agent was told %v after %s", x.tool, got, time.Since(asked))
			}
		}

		// Asked before a change, and after it.
		a.wish(m.RequestId, "before", "other", "{}")
		v.until("approval before")
		g.setPolicy(t, "a", "allow other")
		time.Sleep(time.Second)
		if qs, err := g.Conversations().Questions(Ctx(), "a"); err != nil || len(qs) != 1 || qs[0].ToolID != "before" {
			t.Errorf("%+v %v", qs, err)
		}
		a.wish(m.RequestId, "after", "other", "{}")
		if got := a.next().GetToolApproval(); got.GetId() != "after" || !got.GetApproved() {
			t.Errorf("the agent was told %v", got)
		}

		// A person's word for the rest of the turn is not above the rules.
		g.setPolicy(t, "a", "deny rm")
		if err := g.Conversations().Approve(Ctx(), conversation.Verdict{AgentID: "a", ToolID: "before", Approved: true, All: true}); err != nil {
			t.Fatal(err)
		}
		a.next()
		a.wish(m.RequestId, "denied", "rm", "{}")
		if got := a.next().GetToolApproval(); got.GetId() != "denied" || got.GetApproved() {
			t.Errorf("the agent was told %v", got)
		}
		a.Done(m.RequestId, "")
		v.until("done")
		v.want("event message inb work", "approval tool-4", "approval tool-5", "approval tool-6", "approval tool-8", "approval tool-10", "approval before", "done ")

		_, body := g.web(http.MethodGet, "/api/turns/"+m.RequestId+"/events?limit=1000", "")
		for _, want := range []string{
			`"approve_all":false,"approved":false,"by":"policy","id":"tool-0","input_json":"{\"n\":1}","name":"rm"`,
			`"approved":true,"by":"policy","id":"tool-2"`, `"id":"tool-8","input_json":"{\"n\":1}","name":"other"`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s is not in %s", want, body)
			}
		}
		if strings.Count(body, `"type":"tool_approval"`) != 6 || strings.Count(body, `"by":"policy"`) != 8 {
			t.Errorf("events: %s", body)
		}
		records, err := g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Action: "decide_tool", Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		byPolicy := 0
		for _, r := range records {
			if r.Actor == "" && strings.Contains(r.Detail, `"by":"policy"`) && strings.Contains(r.Detail, `"input_sha256"`) && r.Target == m.RequestId {
				byPolicy++
			}
		}
		if byPolicy != 8 || len(records) != 8+6 {
			t.Errorf("%d records, %d of them by policy", len(records), byPolicy)
		}

		// The rules are there after a restart.
		g.Restart()
		if _, body := g.web(http.MethodGet, "/api/admin/agents/*/approval-policy", ""); !strings.Contains(body, `"rules":[{"action":"deny","tool":"read"},{"action":"allow","tool":"mcp*"}`) {
			t.Error(body)
		}
		records, err = g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Action: "set_approval_policy", Limit: 100})
		if err != nil || len(records) != 4 || !strings.Contains(records[3].Detail, `"deny rm"`) || records[3].Target != "a" {
			t.Errorf("%+v %v", records, err)
		}
	})
}

// TestApprovalPolicies: only so many agents have one of their own.
func TestApprovalPolicies(t *testing.T) {
	g := New(t)
	s := g.Conversations()
	rules := []conversation.ToolRule{{Tool: "*", Action: conversation.Deny}}
	for i := range conversation.MaxPolicies {
		if _, err := s.SetApprovalPolicy(Ctx(), fmt.Sprint("agent-", i), rules); err != nil {
			t.Fatal(err)
		}
	}
	put := func(agent, body string) (int, string) {
		resp, text := g.web(http.MethodPut, "/api/admin/agents/"+agent+"/approval-policy", body)
		return resp.StatusCode, text
	}
	const one = `{"rules":[{"tool":"x","action":"ask"}]}`
	if code, text := put("one-more", one); code != http.StatusConflict || !strings.Contains(text, "there must not be more than 1000 approval policies") {
		t.Errorf("%d %s", code, text)
	}
	for _, r := range [][2]string{{"agent-1", one}, {"agent-2", `{"rules":[]}`}, {"one-more", one}} {
		if code, text := put(r[0], r[1]); code != http.StatusOK {
			t.Errorf("%v: %d %s", r, code, text)
		}
	}
	if code, text := put("agent-1", "{}"); code != http.StatusBadRequest || !strings.Contains(text, "rules is required") {
		t.Errorf("%d %s", code, text)
	}
}
