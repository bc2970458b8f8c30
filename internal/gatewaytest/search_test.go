package gatewaytest

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// TestSearch: what was said is found by its words, with the words marked, the newest first, and by
// those only who may see it.
func TestSearch(t *testing.T) {
	g := New(t, Locked)
	_, agentToken := g.Principal("agent")
	a := g.ConnectAs(Bearer(agentToken), "a")
	a.next()
	alice, aliceToken := g.Principal("alice")
	_, bobToken := g.Principal("bob")
	say := func(text, answer string) {
		t.Helper()
		turn, err := g.Conversations().Send(with(alice), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "Alice", Text: text})
		if err != nil {
			t.Fatal(err)
		}
		m := a.Message()
		a.Text(m.RequestId, answer)
		a.Done(m.RequestId, "")
		r, err := g.Conversations().Reader(Ctx(), "a", conversation.Filter{TurnID: turn.ID}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			evs, err := r.Next(Ctx())
			if err != nil {
				t.Fatal(err)
			}
			if _, over := evs[len(evs)-1].Body.(conversation.Ended); over {
				return
			}
		}
	}
	say("where is the café?", "the CAFÉ is <b>behind</b> the church")
	say("and the museum?", "beside the cafeteria")
	type result struct {
		Who     string
		Excerpt []conversation.Excerpt
	}
	find := func(token, q, more string) (results []result, status int) {
		t.Helper()
		resp, text := g.request("GET", "/api/search?q="+url.QueryEscape(q)+more, token, "")
		var out struct{ Results []result }
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatal(err, text)
		}
		return out.Results, resp.StatusCode
	}
	for _, c := range []struct{ token, q, more, want string }{
		{aliceToken, "cafe", "", "agent:beside the [cafeteria] agent:the [CAFÉ] is <b>behind</b> the church user:where is the [café]?"},
		{aliceToken, "church behind", "", "agent:the CAFÉ is <b>[behind]</b> the [church]"},
		{aliceToken, `"church" OR -behind*`, "", ""}, // words, not a language
		{aliceToken, "cafe", "&limit=1", "agent:beside the [cafeteria]"},
		{aliceToken, "cafe", "&agent_id=b", ""},
		{bobToken, "cafe", "", ""},
		{agentToken, "museum", "", ""},
		{agentToken, "museum", "&agent_id=a", "user:and the [museum]?"}, // it owns the agent
	} {
		results, status := find(c.token, c.q, c.more)
		var got []string
		for _, r := range results {
			s := r.Who + ":"
			for _, x := range r.Excerpt {
				if x.Match {
					s += "[" + x.Text + "]"
				} else {
					s += x.Text
				}
			}
			got = append(got, s)
		}
		if status != 200 || strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %d %s\nwant %s", c.q, c.more, status, strings.Join(got, " "), c.want)
		}
	}
	for _, q := range []string{"", "?!", strings.Repeat("x ", 21), strings.Repeat("x", 501)} {
		if _, status := find(aliceToken, q, ""); status != 400 {
			t.Errorf("%q: %d", q, status)
		}
	}
}

// TestThreads: a thread is renamed, archived, and exported, by those only who may see it.
func TestThreads(t *testing.T) {
	g := New(t, Locked)
	a := g.ConnectAs(Bearer(second(g.Principal("agent"))), "a")
	a.next()
	alice, token := g.Principal("alice")
	_, other := g.Principal("bob")
	turn, err := g.Conversations().Send(with(alice), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "Alice", Text: "what is ``` for?"})
	if err != nil {
		t.Fatal(err)
	}
	m := a.Message()
	a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "t", Name: "look", InputJson: `{"in":"books"}`}}})
	a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "t", Output: "a ``` fence"}}})
	a.Text(m.RequestId, "code")
	a.Done(m.RequestId, "")
	g.waitForText(t, turn.ID, "code")
	path := "/api/threads/" + turn.ThreadID
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		want                      string
	}{
		{"PATCH", path, token, `{"title":" Fences "}`, 200, `"title":"Fences"`},
		{"PATCH", path, token, `{"title":"  "}`, 400, "title must have 1 to 200 characters"},
		{"PATCH", path, token, `{}`, 400, "title or archived is required"},
		{"PATCH", path, other, `{"title":"mine"}`, 404, "thread not found"},
		{"PATCH", path, token, `{"archived":true}`, 200, `"archived":true`},
		{"GET", "/api/threads", token, "", 200, `"threads":[]`},
		{"GET", "/api/threads?archived=true", token, "", 200, `"title":"Fences"`},
		{"GET", "/api/threads?archived=true", other, "", 200, `"threads":[]`},
		{"PATCH", path, token, `{"archived":false}`, 200, `"archived":false`},
		{"GET", path + "/export?format=markdown", token, "", 200, "# Fences\n\n**Alice** · "},
		{"GET", path + "/export?format=markdown", token, "", 200, "````\na ``` fence\n````\n"},
		{"GET", path + "/export", token, "", 200, `"content":"code"`},
		{"GET", path + "/export?format=pdf", token, "", 400, "format must be json or markdown"},
		{"GET", path + "/export", other, "", 404, "thread not found"},
	} {
		resp, text := g.request(c.method, c.path, c.token, c.body)
		if resp.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", c.method, c.path, c.body, resp.StatusCode, text, c.status, c.want)
		}
		if c.path == path+"/export" && c.status == 200 && !json.Valid([]byte(text)) {
			t.Errorf("not JSON: %s", text)
		}
	}
}
