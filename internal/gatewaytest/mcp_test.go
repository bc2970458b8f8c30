package gatewaytest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	mcpserver "coven-gateway/internal/mcp"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// welcomed connects an agent and returns it with its path on the MCP server.
func (g *Gateway) welcomed(ctx context.Context, id string, edit ...func(*pb.RegisterAgent)) (a *Agent, path string) {
	g.t.Helper()
	a = g.ConnectAs(ctx, id, append([]func(*pb.RegisterAgent){everything}, edit...)...)
	w := a.next().GetWelcome()
	if w.GetMcpToken() == "" {
		g.t.Fatalf("agent %s: no MCP token: %v", id, a.Err())
	}
	endpoint, err := url.Parse(w.GetMcpEndpoint())
	if err != nil || endpoint.Path != "/mcp" {
		g.t.Fatalf("MCP endpoint %q: %v", w.GetMcpEndpoint(), err)
	}
	return a, "/mcp/" + url.PathEscape(w.GetMcpToken())
}

// post sends a message to the MCP server, and returns the status, the headers and the body.
func (g *Gateway) post(path, body string, header ...string) (int, http.Header, string) {
	g.t.Helper()
	return g.mcp(g.t.Context(), http.MethodPost, path, body, header...)
}

func (g *Gateway) mcp(ctx context.Context, method, path, body string, header ...string) (int, http.Header, string) {
	g.t.Helper()
	resp, b := g.do(ctx, method, path, body, append([]string{"Content-Type", "application/json", "Accept", "*/*"}, header...)...)
	return resp.StatusCode, resp.Header, strings.TrimSpace(b)
}

// slowTool waits until it is told to end, and says how.
func (g *Gateway) slowTool(name string) (begun chan struct{}, ended chan error) {
	begun, ended = make(chan struct{}, 100), make(chan error, 100)
	_, err := g.Tools().Add(packs.Pack{ID: name, Kind: packs.Remote, Tools: []packs.Tool{{Name: name, Call: func(ctx context.Context, _ *packs.Call) (string, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", context.Cause(ctx)
	}}}})
	if err != nil {
		g.t.Fatal(err)
	}
	return begun, ended
}

// receive waits for a value.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		t.Fatalf("%s: nothing has come", what)
		panic("unreachable")
	}
}

// TestMCPOfAgents makes the requests of existing agents (http.md 4, grpc.md 9.15): no session, no
// version, no notifications, any Accept, and names with a prefix.
func TestMCPOfAgents(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	p, token := g.Principal("p", auth.Member)
	for _, c := range []string{"base", "notes"} {
		if err := g.Identity().SetCapability(Ctx(), p.ID, c, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Tools().Add(packs.Pack{ID: "bad", Kind: packs.Remote, Tools: []packs.Tool{
		{Name: "fine", Call: func(context.Context, *packs.Call) (string, error) { return `"fine"`, nil }},
		{Name: "malformed", Schema: "{", Call: nil},
		{Name: "pack_own", Description: "its own name", Call: func(context.Context, *packs.Call) (string, error) { return `"own"`, nil }},
	}}); err != nil {
		t.Fatal(err)
	}
	_, path := g.welcomed(Bearer(token), "a")

	for _, x := range []struct{ name, body, want string }{
		{
			"initialize", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"coven-agent-mux","version":"0.1.0"}}}`,
			`{"jsonrpc":"2.0","id":1,"result":{"capabilities":{"resources":{},"tools":{"listChanged":true}},"protocolVersion":"2024-11-05","serverInfo":{"name":"coven-gateway","version":"1.0.0"}}}`,
		},
		{"ping", `{"jsonrpc":"2.0","id":7,"method":"ping"}`, `{"jsonrpc":"2.0","id":7,"result":{}}`},
		{"an id of letters", `{"jsonrpc":"2.0","id":"a\"é","method":"ping"}`, `{"jsonrpc":"2.0","id":"a\"é","result":{}}`},
		{"a large id", `{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}`, `{"jsonrpc":"2.0","id":9007199254740992,"result":{}}`},
		{"an id that cannot be kept", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, `{"error":{"code":-32600,"message":"id must be a string or an integer"},"id":null,"jsonrpc":"2.0"}`},
		{"a call", `{"jsonrpc":"2.0","id":100,"method":"tools/call","params":{"name":"fine","arguments":{}}}`, `{"jsonrpc":"2.0","id":100,"result":{"content":[{"type":"text","text":"\"fine\""}]}}`},
		{"a prefix", `{"jsonrpc":"2.0","id":100,"method":"tools/call","params":{"name":"pack_fine","arguments":{}}}`, `{"jsonrpc":"2.0","id":100,"result":{"content":[{"type":"text","text":"\"fine\""}]}}`},
		{"a name that begins so", `{"jsonrpc":"2.0","id":100,"method":"tools/call","params":{"name":"pack_own"}}`, `{"jsonrpc":"2.0","id":100,"result":{"content":[{"type":"text","text":"\"own\""}]}}`},
		{"an unknown tool", `{"jsonrpc":"2.0","id":101,"method":"tools/call","params":{"name":"pack_nothing"}}`, `{"jsonrpc":"2.0","id":101,"error":{"code":-32602,"message":"tool not found"}}`},
		{"no tool", `{"jsonrpc":"2.0","id":101,"method":"tools/call","params":{}}`, `{"jsonrpc":"2.0","id":101,"error":{"code":-32602,"message":"tool name is required"}}`},
		{"what the agent may not", `{"jsonrpc":"2.0","id":102,"method":"tools/call","params":{"name":"admin_list_agents"}}`, `{"jsonrpc":"2.0","id":102,"result":{"content":[{"type":"text","text":"missing capability: admin"}],"isError":true}}`},
		{"another method", `{"jsonrpc":"2.0","id":103,"method":"prompts/list"}`, `{"error":{"code":-32601,"message":"method not found"},"id":103,"jsonrpc":"2.0"}`},
		{"no JSON", `{`, `{"error":{"code":-32700,"message":"invalid JSON"},"id":null,"jsonrpc":"2.0"}`},
		{"a batch", ` [{"jsonrpc":"2.0","id":1,"method":"ping"}]`, `{"error":{"code":-32600,"message":"batches are not supported; send one message"},"id":null,"jsonrpc":"2.0"}`},
		{"another JSON-RPC", `{"jsonrpc":"1.0","id":1,"method":"ping"}`, `{"error":{"code":-32600,"message":"invalid JSON-RPC version"},"id":null,"jsonrpc":"2.0"}`},
	} {
		status, header, got := g.post(path, x.body)
		if status != http.StatusOK || header.Get("Content-Type") != "application/json" || got != x.want {
			t.Errorf("%s: %d %s\n got %s\nwant %s", x.name, status, header.Get("Content-Type"), got, x.want)
		}
		if header.Get("Mcp-Session-Id") != "" {
			t.Errorf("%s: a session that the client cannot use", x.name)
		}
	}
	if status, _, got := g.post(path, `{"jsonrpc":"2.0","method":"notifications/initialized"}`); status != http.StatusAccepted || got != "" {
		t.Errorf("a notification: %d %s", status, got)
	}

	var list struct {
		ID     json.Number
		Result struct {
			Tools []struct {
				Name, Description *string
				InputSchema       map[string]any
			}
		}
	}
	_, _, first := g.post(path+"/", `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	if err := json.Unmarshal([]byte(first), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range list.Result.Tools {
		if x.Name == nil || x.Description == nil || x.InputSchema["type"] != "object" {
			t.Errorf("%v lacks something", x)
			continue
		}
		names = append(names, *x.Name)
	}
	if !slices.IsSorted(names) || !slices.Contains(names, "note_set") || !slices.Contains(names, "fine") ||
		slices.Contains(names, "admin_list_agents") || slices.Contains(names, "malformed") {
		t.Errorf("tools %q", names)
	}
	if _, _, again := g.post(path, `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`); again != first {
		t.Error("the list changes")
	}
	// The call is the agent's own.
	if _, _, got := g.post(path, `{"jsonrpc":"2.0","id":104,"method":"tools/call","params":{"name":"note_set","arguments":{"key":"k","value":"v"}}}`); strings.Contains(got, "isError") {
		t.Error(got)
	}
	if _, _, got := g.post(path, `{"jsonrpc":"2.0","id":105,"method":"tools/call","params":{"name":"note_get","arguments":{"key":"k"}}}`); !strings.Contains(got, "v") || strings.Contains(got, "isError") {
		t.Error(got)
	}
}

// TestMCPTokens: who may speak with which token, in the path or in a header, and for how long.
func TestMCPTokens(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Limits.AddressRequestsPerSecond = 0 })
	p, token := g.Principal("p", auth.Member)
	const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	try := func(what string, want int, path string, header ...string) {
		t.Helper()
		if got, _, body := g.post(path, ping, header...); got != want {
			t.Errorf("%s: %d, want %d: %s", what, got, want, body)
		}
	}
	a, path := g.welcomed(Bearer(token), "a")
	try("a token in the path", 200, "/mcp/"+token)
	try("a token in the header", 200, "/mcp", "Authorization", "Bearer "+token)
	try("an agent's token in the path", 200, path)
	try("an agent's token in the header", 200, "/mcp", "Authorization", "Bearer "+strings.TrimPrefix(path, "/mcp/"))
	try("nothing", 401, "/mcp")
	try("a slash", 401, "/mcp/")
	try("anything", 401, "/mcp/anything")
	try("anything in the header", 401, "/mcp", "Authorization", "Bearer anything")
	try("the path counts", 401, "/mcp/anything", "Authorization", "Bearer "+token)
	try("a segment too much", 404, "/mcp/"+token+"/x")
	try("a token in the query", 401, "/mcp?token="+token)
	try("a cookie", 401, "/mcp", "Cookie", "coven_session="+token)
	try("a web site", 403, "/mcp/"+token, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if got, _, _ := g.mcp(t.Context(), http.MethodGet, path, "", "Origin", "https://evil.example", "Accept", "text/event-stream"); got != 403 {
		t.Errorf("a web site that listens: %d", got)
	}
	expired, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, Life: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	try("a token for a second", 200, "/mcp/"+expired)

	eventually(t, "the expired token is good", func() bool { got, _, _ := g.post("/mcp/"+expired, ping); return got == 401 })

	// A token with scopes needs the right one; that of an agent is good for what its connection is.
	for scope, want := range map[auth.Scope]int{auth.ScopeSend: 200, auth.ScopeRead: 403, auth.ScopeConnect: 403} {
		shown, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, API: true, Name: "scoped", Scopes: []auth.Scope{scope}})
		if err != nil {
			t.Fatal(err)
		}
		try(string(scope), want, "/mcp/"+shown)
		if scope == auth.ScopeConnect {
			_, path := g.welcomed(Bearer(shown), "scoped")
			try("an agent with a narrow token", 200, path)
		}
	}

	// A session belongs to the token that has opened it.
	session := g.session(path)
	if got, _, _ := g.post(path, ping, "Mcp-Session-Id", session); got != 200 {
		t.Errorf("its own session: %d", got)
	}
	try("a session of somebody else", 404, "/mcp/"+token, "Mcp-Session-Id", session)
	streams := make(chan int, 2)
	for _, x := range []struct{ path, session string }{{path, session}, {"/mcp/" + token, g.session("/mcp/" + token)}} {
		resp := g.listen(x.path, x.session)
		go func() {
			n, _ := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			streams <- int(n)
		}()
	}
	a.Leave()
	receive(t, "the end of the agent's stream", streams)
	for a.Next() != nil {
	}
	eventually(t, "the agent's token is good", func() bool { got, _, _ := g.post(path, ping); return got == 401 })
	eventually(t, "the agent's session is there", func() bool { return g.gw.MCP().Sessions() == 1 })
	if err := g.Identity().Revoke(Ctx(), p.ID); err != nil {
		t.Fatal(err)
	}
	receive(t, "the end of the other stream", streams)
	eventually(t, "the other session is there", func() bool { return g.gw.MCP().Sessions() == 0 })
	if got, _, _ := g.post("/mcp/"+token, ping); got != 403 && got != 401 {
		t.Errorf("revoked: %d", got)
	}

	open := New(t)
	_, path = open.welcomed(context.Background(), "a")
	for where, want := range map[string]int{"/mcp": 200, path: 200, "/mcp/anything": 401} {
		if got, _, body := open.post(where, ping); got != want {
			t.Errorf("open, %s: %d, want %d: %s", where, got, want, body)
		}
	}
	for _, where := range []string{"/mcp", path} {
		if got, _, _ := open.post(where, ping, "X-Forwarded-For", "192.0.2.1"); got != 403 {
			t.Errorf("open, %s from elsewhere: %d", where, got)
		}
	}
}

// eventually waits for something to become true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still: %s", what)
		}
	}
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`

// session opens a session.
func (g *Gateway) session(path string, header ...string) string {
	g.t.Helper()
	status, h, body := g.post(path, initialize, append([]string{"Accept", "application/json, text/event-stream"}, header...)...)
	if status != http.StatusOK || h.Get("Mcp-Session-Id") == "" || h.Get("Content-Type") != "text/event-stream" {
		g.t.Fatalf("initialize: %d %v %s", status, h, body)
	}
	return h.Get("Mcp-Session-Id")
}

// listen opens the stream of a session.
func (g *Gateway) listen(path, session string) *http.Response {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, g.URL+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Mcp-Session-Id", session)
	resp, err := g.Client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		g.t.Fatalf("listen: %s", resp.Status)
	}
	return resp
}

// TestMCPClient: the SDK's client in both eras lists, calls, cancels and hears of changes.
func TestMCPClient(t *testing.T) {
	for _, version := range []string{"2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"} {
		t.Run(version, func(t *testing.T) {
			g := New(t, Locked)
			_, token := g.Principal("p", auth.Member)
			_, path := g.welcomed(Bearer(token), "a")
			changed := make(chan struct{}, 100)
			client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
				ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { changed <- struct{}{} },
			})
			x, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: g.URL + path, HTTPClient: g.Client}, &mcp.ClientSessionOptions{ProtocolVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			var names []string
			for tool, err := range x.Tools(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, tool.Name)
			}
			if !slices.IsSorted(names) || !slices.Contains(names, "ask_user") && len(names) != 0 {
				t.Errorf("tools %q", names)
			}
			begun, ended := g.slowTool("slow")
			if version < "2026-07-28" {
				receive(t, "tools/list_changed", changed)
			} else if _, err := x.ListTools(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			res, err := x.CallTool(t.Context(), &mcp.CallToolParams{Name: "admin_list_agents"})
			if err != nil || !res.IsError || res.Content[0].(*mcp.TextContent).Text != "missing capability: admin" {
				t.Errorf("a tool that the agent may not call: %+v %v", res, err)
			}
			if _, err := x.CallTool(t.Context(), &mcp.CallToolParams{Name: "nothing"}); err == nil || !strings.Contains(err.Error(), "tool not found") {
				t.Errorf("no tool: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			returned := make(chan error, 1)
			go func() {
				_, err := x.CallTool(ctx, &mcp.CallToolParams{Name: "pack_slow"})
				returned <- err
			}()
			receive(t, "the call", begun)
			cancel()
			if err := receive(t, "the client's end", returned); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			receive(t, "the tool's end", ended)
		})
	}
}

// TestMCPAnswers: what clients hear that do something wrong, with the token in the path and without.
func TestMCPAnswers(t *testing.T) {
	g := New(t)
	_, granted := g.welcomed(context.Background(), "a")
	for _, path := range []string{"/mcp", granted} {
		const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
		session := g.session(path)
		stream := g.listen(path, session)
		listening := []string{"Accept", "text/event-stream", "Mcp-Session-Id"}
		modern := []string{"Mcp-Protocol-Version", "2026-07-28"}
		const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
		for _, x := range []struct {
			what   string
			want   int
			method string
			body   string
			header []string
			words  string
		}{
			{"a second stream", 409, "GET", "", append(listening, session), "conflict"},
			{"an unknown session", 404, "GET", "", append(listening, "x"), "session not found"},
			{"no session", 405, "GET", "", listening[:2], "without a session"},
			{"no method", 405, "PUT", "", nil, "method not allowed"},
			{"the end of nothing", 404, "DELETE", "", nil, "session not found"},
			{"a call in an unknown session", 404, "POST", ping, []string{"Mcp-Session-Id", "x"}, "session not found"},
			{"a notification", 202, "POST", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, nil, ""},
			{"an answer to nothing", 202, "POST", `{"jsonrpc":"2.0","id":1,"result":{}}`, nil, ""},
			{"another revision", 400, "POST", ping, []string{"Mcp-Protocol-Version", "2023-01-01"}, "Unsupported protocol version"},
			{"another type", 400, "POST", ping, []string{"Content-Type", "text/plain"}, "Content-Type"},
			{"a method that is not offered, new", 404, "POST", `{"jsonrpc":"2.0","id":1,"method":"prompts/list","params":{` + meta + `}}`, append(modern, "Mcp-Method", "prompts/list"), "-32601"},
			{"another method in the header", 400, "POST", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{` + meta + `}}`, append(modern, "Mcp-Method", "tools/call"), "-32020"},
			{"another revision in the header", 400, "POST", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{` + strings.Replace(meta, "2026-07-28", "2025-11-25", 1) + `}}`, append(modern, "Mcp-Method", "tools/list"), "error"},
			{"nothing to read", 400, "POST", `{"jsonrpc":"2.0","id":1,"method":"resources/read"}`, nil, "params"},
			{"nothing to call", 400, "POST", `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, nil, "params"},
			{"an unknown method, new", 404, "POST", `{"jsonrpc":"2.0","id":1,"method":"resources/nothing","params":{` + meta + `}}`, modern, "-32601"},
			{"without its meta data, new", 400, "POST", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, modern, "_meta"},
			{"the end", 204, "DELETE", "", []string{"Mcp-Session-Id", session}, ""},
			{"the end again", 404, "DELETE", "", []string{"Mcp-Session-Id", session}, "session not found"},
		} {
			if got, _, body := g.mcp(t.Context(), x.method, path, x.body, x.header...); got != x.want || !strings.Contains(body, x.words) {
				t.Errorf("%s, %s: %d, want %d: %s", path[:4], x.what, got, x.want, body)
			}
		}
		// The stream has ended with its session.
		if _, err := io.Copy(io.Discard, stream.Body); err != nil {
			t.Error(err)
		}
		stream.Body.Close()
	}
}

// TestMCPLimits: one token cannot have everything to itself.
func TestMCPLimits(t *testing.T) {
	g := New(t)
	_, path := g.welcomed(context.Background(), "a")
	begun, ended := g.slowTool("slow")
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}`
	for range mcpserver.MaxRequestsOfOne {
		calls.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, strings.NewReader(call))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			if resp, err := g.Client.Do(req); err == nil {
				resp.Body.Close()
				t.Errorf("a call that does not end was answered: %s", resp.Status)
			}
		})
	}
	for range mcpserver.MaxRequestsOfOne {
		receive(t, "a call", begun)
	}
	if status, _, body := g.post(path, call); status != http.StatusTooManyRequests {
		t.Errorf("one more: %d %s", status, body)
	}
	if status, _, body := g.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"ping"}`); status != http.StatusOK {
		t.Errorf("somebody else: %d %s", status, body)
	}
	cancel()
	calls.Wait()
	for range mcpserver.MaxRequestsOfOne {
		receive(t, "an end", ended)
	}
	eventually(t, "the token has no room", func() bool {
		status, _, _ := g.post(path, `{"jsonrpc":"2.0","id":1,"method":"ping"}`)
		return status == 200
	})

	// When there are too many sessions, clients do without.
	opened := 0
	for i := 0; opened < mcpserver.MaxSessions; i++ {
		_, token := g.gw.MCP().Grant(t.Context(), func() packs.Caller { return packs.Caller{Principal: auth.Anonymous} })
		for range mcpserver.MaxSessionsOfOne {
			g.session("/mcp/" + token)
			opened++
		}
	}
	status, header, body := g.post(path, initialize, "Accept", "application/json, text/event-stream")
	if status != http.StatusOK || header.Get("Mcp-Session-Id") != "" || !strings.Contains(body, "2025-06-18") {
		t.Errorf("one session more: %d %v %s", status, header, body)
	}
	if n := g.gw.MCP().Sessions(); n != mcpserver.MaxSessions {
		t.Errorf("%d sessions", n)
	}
}

// TestMCPIdle: a session that nobody uses ends, one that somebody listens to does not, and hears
// that the gateway is there until its token has expired.
func TestMCPIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		p, _ := g.Principal("p", auth.Member)
		token, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, Life: 2 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		path := "/mcp/" + token
		g.session(path)
		stream := g.listen(path, g.session(path))
		time.Sleep(mcpserver.IdleTimeout + time.Second)
		synctest.Wait()
		if n := g.gw.MCP().Sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
		said, err := io.ReadAll(stream.Body)
		if err != nil {
			t.Error(err)
		}
		stream.Body.Close()
		if n := strings.Count(string(said), ": keep-alive\n\n"); n < 470 || n > 480 {
			t.Errorf("%d comments in two hours", n)
		}
		time.Sleep(mcpserver.IdleTimeout + time.Second)
		synctest.Wait()
		if n := g.gw.MCP().Sessions(); n != 0 {
			t.Errorf("%d sessions at the end", n)
		}
	})
}

// TestMCPSubscription: without sessions, a client that listens hears of changes.
func TestMCPSubscription(t *testing.T) {
	g := New(t)
	const listen = `{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/mcp", strings.NewReader(listen))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen",
	} {
		req.Header.Set(k, v)
	}
	resp, err := g.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func(words string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), words) {
				return
			}
		}
		t.Fatalf("%s has not come: %s %v", words, resp.Status, lines.Err())
	}
	next("notifications/subscriptions/acknowledged")
	g.slowTool("slow")
	next("notifications/tools/list_changed")
}

// TestMCPHangUp: who closes the response cancels the call, with and without a session; and so does
// the end of the agent.
func TestMCPHangUp(t *testing.T) {
	g := New(t)
	a, path := g.welcomed(context.Background(), "a")
	begun, ended := g.slowTool("slow")
	session := g.session(path)
	const slow = `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"slow"}}`
	call := func(ctx context.Context, header ...string) chan struct{} {
		done := make(chan struct{})
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, strings.NewReader(slow))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		go func() {
			defer close(done)
			if resp, err := g.Client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}()
		receive(t, "the call", begun)
		return done
	}
	inSession := []string{"Mcp-Session-Id", session, "Accept", "application/json, text/event-stream"}
	for _, header := range [][]string{nil, inSession} {
		ctx, cancel := context.WithCancel(t.Context())
		done := call(ctx, header...)
		cancel()
		receive(t, "the tool's end", ended)
		receive(t, "the client's end", done)
	}
	done := call(t.Context(), inSession...)
	if status, _, body := g.post(path, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}`, inSession...); status != http.StatusAccepted {
		t.Errorf("notifications/cancelled: %d %s", status, body)
	}
	receive(t, "the tool's end", ended)
	receive(t, "the client's end", done)
	done = call(t.Context(), inSession...)
	if status, _, _ := g.mcp(t.Context(), http.MethodDelete, path, "", inSession...); status != http.StatusNoContent {
		t.Errorf("DELETE: %d", status)
	}
	receive(t, "the tool's end", ended)
	receive(t, "the client's end", done)
	done = call(t.Context())
	a.Die()
	receive(t, "the tool's end", ended)
	receive(t, "the client's end", done)
}

// TestMCPSizes: an input of 1 MiB is taken, a body that is too large is refused.
func TestMCPSizes(t *testing.T) {
	g := New(t)
	if _, err := g.Tools().Add(packs.Pack{ID: "p", Kind: packs.Remote, Tools: []packs.Tool{{Name: "size", Call: func(_ context.Context, c *packs.Call) (string, error) {
		return fmt.Sprint(len(c.Input)), nil
	}}}}); err != nil {
		t.Fatal(err)
	}
	input := fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", 1<<20))
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"size","arguments":` + input + `}}`
	want := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%d"}]}}`, len(input))
	if status, _, got := g.post("/mcp", body); status != 200 || got != want {
		t.Errorf("1 MiB: %d %.200s", status, got)
	}
	if status, _, got := g.post("/mcp", body+strings.Repeat(" ", mcpserver.MaxBody-len(body))); status != 200 || got != want {
		t.Errorf("the largest: %d %.200s", status, got)
	}
	if status, _, got := g.post("/mcp", strings.Repeat(" ", mcpserver.MaxBody+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %.200s", status, got)
	}
	// What is far too large is refused before it is read.
	const huge = 100 << 20
	sent := new(spaces)
	sent.left.Store(huge)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/mcp", sent)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, err := g.Client.Do(req); err == nil { // else the gateway has closed the connection under it
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("100 MiB: %s", resp.Status)
		}
	}
	if read := huge - int(sent.left.Load()); read > huge/2 {
		t.Errorf("%d bytes of 100 MiB were taken", read)
	}
}

// spaces is a body that is made while it is read.
type spaces struct{ left atomic.Int64 }

func (s *spaces) Read(b []byte) (int, error) {
	n := min(int64(len(b)), s.left.Load())
	if n == 0 {
		return 0, io.EOF
	}
	for i := range b[:n] {
		b[i] = ' '
	}
	s.left.Add(-n)
	return int(n), nil
}

// TestMCPPages: a list that is too long for one page has more, and none is lost when tools go.
func TestMCPPages(t *testing.T) {
	g := New(t)
	tools := make([]packs.Tool, 100)
	for i := range tools {
		tools[i] = packs.Tool{
			Name: fmt.Sprintf("tool_%03d", i), Schema: fmt.Sprintf(`{"type":"object","description":%q}`, strings.Repeat("d", 60_000)),
			Call: func(context.Context, *packs.Call) (string, error) { return "1", nil },
		}
	}
	if _, err := g.Tools().Add(packs.Pack{ID: "p", Kind: packs.Remote, Tools: tools}); err != nil {
		t.Fatal(err)
	}
	var names []string
	cursor, pages := "", 0
	for {
		_, _, body := g.post("/mcp", fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":%q}}`, cursor))
		var list struct {
			Result struct {
				Tools      []struct{ Name string }
				NextCursor string
			}
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		for _, x := range list.Result.Tools {
			if strings.HasPrefix(x.Name, "tool_") {
				names = append(names, x.Name)
			}
		}
		pages++
		if cursor = list.Result.NextCursor; cursor == "" {
			break
		}
	}
	if pages < 2 || len(names) != len(tools) || !slices.IsSorted(names) {
		t.Errorf("%d pages, %d tools", pages, len(names))
	}
	if _, _, body := g.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"*"}}`); !strings.Contains(body, "-32602") {
		t.Error(body)
	}
}

// TestMCPSessions: clients that open sessions and drop them cost no more than the limits say.
func TestMCPSessions(t *testing.T) {
	n := 10_000
	if raceDetector {
		n = 1000
	}
	g := New(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	first := ""
	for i := range n {
		id := g.session("/mcp")
		switch i {
		case 0:
			first = id
		case 200:
			before = heap()
		}
		if sessions := g.gw.MCP().Sessions(); sessions > 32 {
			t.Fatalf("%d sessions", sessions)
		}
	}
	const allowance = 16 << 20
	after := heap()
	t.Logf("%d sessions: %d KiB more", n, (int64(after)-int64(before))>>10)
	if after > before+allowance {
		t.Errorf("the heap has grown from %d to %d", before, after)
	}
	if status, _, _ := g.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "Mcp-Session-Id", first); status != http.StatusNotFound {
		t.Errorf("the oldest session: %d", status)
	}
}
