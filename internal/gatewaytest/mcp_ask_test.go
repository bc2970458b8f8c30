package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// revisions are the oldest and the newest of each era.
var revisions = []string{"2026-07-28", "2025-11-25", "2025-03-26"}

// mcpClient connects the SDK's client.
func (g *Gateway) mcpClient(version, path string, o *mcp.ClientOptions) *mcp.ClientSession {
	g.t.Helper()
	x, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, o).Connect(g.t.Context(),
		&mcp.StreamableClientTransport{Endpoint: g.URL + path, HTTPClient: g.Client}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = x.Close() })
	return x
}

// asksAgents has an agent ask for the capability to ask others.
func asksAgents(r *pb.RegisterAgent) { r.Capabilities = append(r.Capabilities, "agents") }

type answered struct {
	res *mcp.CallToolResult
	err error
}

// callAgent calls a tool in the background, wanting progress.
func callAgent(ctx context.Context, x *mcp.ClientSession, tool, message string) chan answered {
	done := make(chan answered, 1)
	p := &mcp.CallToolParams{Name: tool, Arguments: map[string]any{"message": message}}
	p.SetProgressToken("p")
	go func() {
		res, err := x.CallTool(ctx, p)
		done <- answered{res, err}
	}()
	return done
}

// text is what a tool has said.
func (a answered) text(t *testing.T) string {
	t.Helper()
	if a.err != nil {
		t.Fatal(a.err)
	}
	words, ok := a.res.Content[0].(*mcp.TextContent)
	if !ok {
		t.Fatalf("%+v", a.res)
	}
	return words.Text
}

// TestMCPAgents: a connected agent is a tool of those who may ask agents. Its answer comes with
// progress, cancelling the call cancels the turn, and agents that would wait for each other are told so.
func TestMCPAgents(t *testing.T) {
	for _, version := range revisions {
		t.Run(version, func(t *testing.T) {
			g := New(t, Locked)
			p, token := g.Principal("p", auth.Member)
			_, stranger := g.Principal("stranger", auth.Member)
			if err := g.Identity().SetCapability(Ctx(), p.ID, "agents", true); err != nil {
				t.Fatal(err)
			}
			a, own := g.welcomed(Bearer(token), "a.b/c", asksAgents)
			progress, changed := make(chan string, 100), make(chan struct{}, 100)
			x := g.mcpClient(version, "/mcp/"+token, &mcp.ClientOptions{
				ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
					progress <- r.Params.Message
				},
				ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { changed <- struct{}{} },
			})
			tools := func(path string) string {
				_, _, body := g.post(path, `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
				return body
			}
			if !strings.Contains(tools("/mcp/"+token), `"ask_a.b_c"`) || strings.Contains(tools("/mcp/"+stranger), `"ask_a.b_c"`) || strings.Contains(tools(own), `"ask_a.b_c"`) {
				t.Error("the tool is not where it should be")
			}
			if _, _, body := g.post("/mcp/"+stranger, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"ask_a.b_c","arguments":{"message":"hi"}}}`); !strings.Contains(body, "missing capability: agents") {
				t.Error(body)
			}

			done := callAgent(t.Context(), x, "ask_a.b_c", "hello")
			m := a.Message()
			if m.Content != "hello" {
				t.Errorf("the agent was told %q", m.Content)
			}
			a.Text(m.RequestId, "wor")
			if got := receive(t, "progress", progress); got != "wor" {
				t.Errorf("progress %q", got)
			}
			a.Text(m.RequestId, "ld")
			a.Done(m.RequestId, "world")
			var out map[string]string
			if err := json.Unmarshal([]byte(receive(t, "the answer", done).text(t)), &out); err != nil || out["answer"] != "world" || out["turn_id"] != m.RequestId {
				t.Errorf("%v %v", out, err)
			}

			ctx, cancel := context.WithCancel(t.Context())
			done = callAgent(ctx, x, "ask_a.b_c", "never mind")
			m = a.Message()
			cancel()
			receive(t, "the end of the call", done)
			eventually(t, "the turn goes on", func() bool {
				turn, err := g.Conversations().Turn(Ctx(), m.RequestId)
				return err == nil && turn.State == "cancelled"
			})

			// b asks a, which asks b: refused. And a cannot ask itself.
			b, path := g.welcomed(Bearer(token), "b", asksAgents)
			if version < "2026-07-28" {
				receive(t, "tools/list_changed", changed)
			}
			inside := g.mcpClient(version, path, nil)
			done = callAgent(t.Context(), inside, "ask_a.b_c", "from b")
			m = a.Message()
			_, _, body := g.post(own, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask_b","arguments":{"message":"round"}}}`)
			if !strings.Contains(body, "the call could never end") {
				t.Errorf("a circle: %s", body)
			}
			if _, _, body = g.post(own, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask_a.b_c","arguments":{"message":"me"}}}`); !strings.Contains(body, "would wait for itself") {
				t.Errorf("itself: %s", body)
			}
			a.Done(m.RequestId, "fine")
			if got := receive(t, "the answer", done).text(t); !strings.Contains(got, "fine") {
				t.Error(got)
			}
			b.Leave()
			eventually(t, "the tool of an agent that has left", func() bool { return !strings.Contains(tools("/mcp/"+token), `"ask_b"`) })
		})
	}
}

// TestMCPElicitation: what an agent asks while an MCP client waits for it is asked there, too, when the
// client can. Who answers first, there or elsewhere, has answered for both.
func TestMCPElicitation(t *testing.T) {
	for _, version := range revisions {
		t.Run(version, func(t *testing.T) {
			g := New(t)
			a := g.Agent("a", func(r *pb.RegisterAgent) { r.Capabilities = []string{"ui"} })
			asked, says := make(chan string, 10), make(chan *mcp.ElicitResult, 10)
			x := g.mcpClient(version, "/mcp", &mcp.ClientOptions{ElicitationHandler: func(ctx context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
				asked <- r.Params.Message
				select {
				case s := <-says:
					return s, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}})
			done := callAgent(t.Context(), x, "ask_a", "release")
			m := a.Message()
			agentIsTold := func() string {
				r := a.next().GetPackToolResult()
				return r.GetOutputJson() + r.GetError()
			}

			a.Ask("1", "ask_user", strings.Replace(askShip, `"timeout_seconds":10`, `"timeout_seconds":60`, 1))
			if got := receive(t, "the question", asked); !strings.Contains(got, "Release\n\nShip?") || !strings.Contains(got, "Yes: do it") {
				t.Errorf("asked %q", got)
			}
			says <- &mcp.ElicitResult{Action: "accept", Content: map[string]any{"choice": "No", "text": "not yet"}}
			if got := agentIsTold(); !strings.Contains(got, `"No"`) || !strings.Contains(got, "not yet") {
				t.Errorf("the agent was told %s", got)
			}

			a.wish(m.RequestId, "t1", "rm", `{"path":"/"}`)
			if got := receive(t, "the approval", asked); !strings.Contains(got, "rm with {\"path\":\"/\"}") {
				t.Errorf("asked %q", got)
			}
			says <- &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "approve"}}
			if got := a.next().GetToolApproval(); got.GetId() != "t1" || !got.GetApproved() {
				t.Errorf("the agent was told %v", got)
			}
			a.wish(m.RequestId, "t2", "rm", `{}`)
			receive(t, "the second approval", asked)
			says <- &mcp.ElicitResult{Action: "decline"}
			if got := a.next().GetToolApproval(); got.GetId() != "t2" || got.GetApproved() {
				t.Errorf("the agent was told %v", got)
			}

			// Somebody answers elsewhere, while the client still asks its user.
			a.wish(m.RequestId, "t3", "rm", `{}`)
			receive(t, "the third approval", asked)
			if resp, body := g.web(http.MethodPost, "/api/tools/approve", `{"agent_id":"a","tool_id":"t3","approved":true}`); resp.StatusCode != http.StatusOK {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if got := a.next().GetToolApproval(); got.GetId() != "t3" || !got.GetApproved() {
				t.Errorf("the agent was told %v", got)
			}
			if version >= "2026-07-28" { // it has to come back
				says <- &mcp.ElicitResult{Action: "accept", Content: map[string]any{"decision": "deny"}}
			}

			// The client does not want to answer: others still may.
			a.wish(m.RequestId, "t4", "rm", `{}`)
			receive(t, "the fourth approval", asked)
			says <- &mcp.ElicitResult{Action: "cancel"}
			eventually(t, "the client is asked again", func() bool {
				_, body := g.web(http.MethodGet, "/api/approvals?agent_id=a", "")
				return strings.Contains(body, `"t4"`)
			})
			if resp, body := g.web(http.MethodPost, "/api/tools/approve", `{"agent_id":"a","tool_id":"t4","approved":true}`); resp.StatusCode != http.StatusOK {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			a.next()
			a.Done(m.RequestId, "released")
			if got := receive(t, "the answer", done).text(t); !strings.Contains(got, "released") {
				t.Error(got)
			}
			if len(asked) > 0 {
				t.Errorf("asked %q once more", <-asked)
			}
		})
	}
}

// TestMCPRounds: a state that is not the caller's own leads nowhere.
func TestMCPRounds(t *testing.T) {
	g := New(t, Locked)
	p, token := g.Principal("p", auth.Member)
	q, other := g.Principal("q", auth.Owner) // may see the turns of all
	for _, x := range []auth.Principal{p, q} {
		if err := g.Identity().SetCapability(Ctx(), x.ID, "agents", true); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := g.welcomed(Bearer(token), "a")
	call := func(token, more string) string {
		_, _, body := g.post("/mcp/"+token, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask_a","arguments":{"message":"go"}`+more+
			`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}`,
			"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "ask_a")
		return body
	}
	first := make(chan string, 1)
	go func() { first <- call(token, "") }()
	m := a.Message()
	a.wish(m.RequestId, "t1", "rm", `{}`)
	var round struct {
		Result struct {
			ResultType    string
			RequestState  string
			InputRequests map[string]any
		}
	}
	body := receive(t, "the first round", first)
	if err := json.Unmarshal([]byte(body), &round); err != nil || round.Result.ResultType != "input_required" || round.Result.InputRequests["t1"] == nil {
		t.Fatalf("%s %v", body, err)
	}
	state := fmt.Sprintf(`,"requestState":%q`, round.Result.RequestState)
	if got := call(other, state); !strings.Contains(got, `"isError":true`) || !strings.Contains(got, "no turn") {
		t.Errorf("the turn of another one: %s", got)
	}
	if got := call(token, `,"requestState":"x"`); !strings.Contains(got, "-32602") {
		t.Errorf("no state: %s", got)
	}
	go func() {
		first <- call(token, state+`,"inputResponses":{"t1":{"action":"accept","content":{"decision":"approve"}}}`)
	}()
	if got := a.next().GetToolApproval(); !got.GetApproved() {
		t.Errorf("the agent was told %v", got)
	}
	a.Done(m.RequestId, "gone")
	if got := receive(t, "the answer", first); !strings.Contains(got, "gone") {
		t.Error(got)
	}
}

// TestMCPResources: threads and notes, page by page, of those who may read them.
func TestMCPResources(t *testing.T) {
	for _, version := range revisions {
		t.Run(version, func(t *testing.T) {
			g := New(t, Locked)
			p, token := g.Principal("p", auth.Member)
			_, stranger := g.Principal("stranger", auth.Member)
			a, path := g.welcomed(Bearer(token), "a")
			const threads, notes = 103, 205
			for i := range threads {
				if _, err := g.Conversations().Send(auth.With(t.Context(), p), conversation.SendRequest{AgentID: "a", ThreadID: fmt.Sprintf("t/%d", i), Text: fmt.Sprintf("words %d", i)}); err != nil {
					t.Fatal(err)
				}
				a.Done(a.Message().RequestId, "so it is")
			}
			for i := range notes {
				if _, _, body := g.post(path, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"note_set","arguments":{"key":"k/%03d","value":"v%d"}}}`, i, i)); strings.Contains(body, "isError") {
					t.Fatal(body)
				}
			}
			list := func(x *mcp.ClientSession) (uris []string) {
				for r, err := range x.Resources(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					uris = append(uris, r.URI)
				}
				return uris
			}
			x := g.mcpClient(version, path, nil)
			uris := list(x)
			slices.Sort(uris)
			if len(uris) != threads+notes || len(slices.Compact(slices.Clone(uris))) != len(uris) {
				t.Errorf("%d resources", len(uris))
			}
			read := func(x *mcp.ClientSession, uri string) string {
				res, err := x.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
				if err != nil {
					return err.Error()
				}
				return res.Contents[0].Text
			}
			if got := read(x, "coven://notes/k%2F007"); got != "v7" {
				t.Errorf("a note: %s", got)
			}
			if got := read(x, "coven://threads/t%2F7"); !strings.Contains(got, "words 7") || !strings.Contains(got, "so it is") || strings.Contains(got, "words 8") {
				t.Errorf("a thread: %s", got)
			}
			templates, err := x.ListResourceTemplates(t.Context(), nil)
			if err != nil || len(templates.ResourceTemplates) != 2 {
				t.Errorf("%+v %v", templates, err)
			}
			other := g.mcpClient(version, "/mcp/"+stranger, nil)
			if uris := list(other); len(uris) != 0 {
				t.Errorf("a stranger sees %q", uris)
			}
			for _, uri := range []string{"coven://threads/t%2F7", "coven://notes/k%2F007", "coven://threads/", "file:///etc/passwd"} {
				if got := read(other, uri); !strings.Contains(got, "esource not found") {
					t.Errorf("a stranger reads %s: %s", uri, got)
				}
			}
			narrow, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, API: true, Name: "narrow", Scopes: []auth.Scope{auth.ScopeSend}, Life: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			blind := g.mcpClient(version, "/mcp/"+narrow, nil)
			if got := read(blind, "coven://threads/t%2F7"); len(list(blind)) != 0 || !strings.Contains(got, "esource not found") {
				t.Errorf("without the scope to read: %s", got)
			}
			if _, _, body := g.post(path, `{"jsonrpc":"2.0","id":1,"method":"resources/list","params":{"cursor":"*"}}`); !strings.Contains(body, "-32602") {
				t.Error(body)
			}
		})
	}
}
