package gatewaytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// TestDocumentation: what is served is a good OpenAPI document of all that is served, and clients
// may keep it.
func TestDocumentation(t *testing.T) {
	g := New(t)
	_, body := g.web(http.MethodGet, "/api/openapi.json", "")
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	// The schema of OpenAPI 3.1 as its authors publish it.
	f, err := os.Open(filepath.Join("testdata", "openapi", "oas-3.1-2022-10-07.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	meta, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("oas.json", meta); err != nil {
		t.Fatal(err)
	}
	if err := c.MustCompile("oas.json").Validate(doc); err != nil {
		t.Errorf("the document is no OpenAPI 3.1: %v", err)
	}
	dialect := c.MustCompile("https://json-schema.org/draft/2020-12/schema")
	for name, schema := range child(doc, "components", "schemas") {
		if err := dialect.Validate(schema); err != nil {
			t.Errorf("the schema %s is none: %v", name, err)
		}
	}
	routes := g.Routes()
	for i, r := range routes {
		if !strings.Contains(r, " ") {
			routes[i] = "GET " + r
		}
	}
	for _, o := range operations(t) {
		if !slices.Contains(routes, o.route) {
			t.Errorf("%s is documented and not served", o.route)
		}
		routes = slices.DeleteFunc(routes, func(r string) bool { return r == o.route })
	}
	if len(routes) > 0 {
		t.Errorf("served and not documented: %q", routes)
	}

	for _, path := range []string{"/api/openapi.json", "/api/docs"} {
		resp, _ := g.web(http.MethodGet, path, "")
		if cache := resp.Header.Get("Cache-Control"); !strings.HasPrefix(cache, "public") {
			t.Errorf("%s: Cache-Control is %q", path, cache)
		}
		if again, body := g.web(http.MethodGet, path, "", "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s: asked again with its ETag: %s", path, again.Status)
		}
	}
}

// operation is what the document says of a route.
type operation struct {
	route, method, path string
	body                bool
	statuses            []int
}

func operations(t *testing.T) []operation {
	t.Helper()
	doc, err := Documentation()
	if err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, item := range child(doc, "paths") {
		for method, x := range item.(map[string]any) {
			o := operation{method: strings.ToUpper(method), path: regexp.MustCompile(`\{(\w+)\}`).ReplaceAllString(path, "$1")}
			o.route, o.body = o.method+" "+path, child(x, "requestBody") != nil
			for status := range child(x, "responses") {
				n, err := strconv.Atoi(status)
				if err != nil {
					t.Fatal(err)
				}
				o.statuses = append(o.statuses, n)
			}
			all = append(all, o)
		}
	}
	return all
}

// TestRefusalsOfAll makes every route refuse what all routes of its kind refuse.
func TestRefusalsOfAll(t *testing.T) {
	open := New(t)
	small := New(t, func(c *config.Config) { c.Limits.RequestBody, c.Limits.Message, c.Limits.File = 100, 100, 100 })
	locked := New(t, Locked, func(c *config.Config) { c.Limits.AddressRequestsPerSecond = 0 })
	hurried := New(t, Locked, func(c *config.Config) { c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 1, 1 })
	_, token := hurried.Principal("hurried", auth.Owner)
	long := fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", 100))
	elsewhere := "POST /api/link/request" // looks at something else first; other tests make it refuse
	for _, o := range operations(t) {
		for _, c := range []struct {
			status  int
			applies bool
			g       *Gateway
			body    string
			query   string
			header  []string
			tries   int
		}{
			{403, true, open, "", "", []string{"Host", "evil.example"}, 1},
			{401, true, locked, "", "", []string{"Authorization", "Bearer garbage"}, 1},
			{429, true, hurried, "{}", "", []string{"Authorization", "Bearer " + token}, 20},
			{413, true, small, long, "", nil, 1},
			{400, o.body, open, "{", "", nil, 1},
			{400, true, open, "", "?x=" + strings.Repeat("x", config.MaxWord+1), nil, 1},
		} {
			if !c.applies || !slices.Contains(o.statuses, c.status) || c.status == 401 && strings.HasPrefix(o.route, "POST /api/sign-in/") || c.status == 429 && (o.route == elsewhere || strings.HasPrefix(o.route, "POST /oauth/")) {
				continue
			}
			got := 0
			for range c.tries {
				path := o.path
				if path == "/mcp/token" && c.status != 401 { // who asks is looked at first
					path = "/mcp/" + token
					if c.g != hurried {
						_, granted := c.g.gw.MCP().Grant(t.Context(), func() packs.Caller { return packs.Caller{Principal: auth.Anonymous} })
						path = "/mcp/" + granted
					}
				}
				req, err := http.NewRequest(o.method, c.g.URL+path+c.query, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				if len(c.header) > 0 {
					req.Header.Set(c.header[0], c.header[1])
					if c.header[0] == "Host" {
						req.Host = c.header[1]
					}
				}
				resp, err := c.g.Client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got = resp.StatusCode; got == c.status {
					break
				}
			}
			if got != c.status {
				t.Errorf("%s: %d, want %d", o.route, got, c.status)
			}
		}
	}
}

// TestOtherAnswers makes routes give the documented answers that no other test needs.
func TestOtherAnswers(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 0, 0 })
	_, token := g.Principal("owner", auth.Owner)
	p, _ := g.Principal("somebody")
	key := NewKey(t)
	if _, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "has a key", PublicKey: key.Line()}); err != nil {
		t.Fatal(err)
	}
	out, _ := g.Principal("out")
	if err := g.Identity().Revoke(Ctx(), out.ID); err != nil {
		t.Fatal(err)
	}
	a := g.ConnectAs(Bearer(token), "a")
	if a.next().GetWelcome() == nil {
		t.Fatal(a.Err())
	}
	go func() {
		for m := a.Next(); m != nil; m = a.Next() {
			if s := m.GetSendMessage(); s != nil {
				a.Text(s.RequestId, "hello")
				a.Done(s.RequestId, "hello")
			}
		}
	}()
	try := func(status int, method, path, body string, header ...string) string {
		t.Helper()
		resp, answer := g.request(method, path, token, body, header...)
		if resp.StatusCode != status {
			t.Errorf("%s %s %s: %s %s, want %d", method, path, body, resp.Status, answer, status)
		}
		return answer
	}
	// What is not there.
	for _, c := range [][3]string{
		{"GET", "/api/bindings?frontend=slack&channel_id=c", ""},
		{"DELETE", "/api/bindings?frontend=slack&channel_id=c", ""},
		{"POST", "/api/bindings", `{"frontend":"slack","channel_id":"c","agent_id":"x"}`},
		{"GET", "/api/board/x", ""},
		{"DELETE", "/api/admin/oauth/grants/x", ""},
		{"GET", "/api/admin/principals/x", ""},
		{"PATCH", "/api/admin/principals/x", `{"display_name":"new"}`},
		{"DELETE", "/api/admin/principals/x", ""},
		{"POST", "/api/admin/principals/x/approve", ""},
		{"POST", "/api/admin/principals/x/revoke", ""},
		{"PUT", "/api/admin/principals/x/roles/member", ""},
		{"DELETE", "/api/admin/principals/x/roles/member", ""},
		{"PUT", "/api/admin/principals/x/capabilities/chat", ""},
		{"DELETE", "/api/admin/principals/x/capabilities/chat", ""},
		{"GET", "/api/admin/principals/x/keys", ""},
		{"POST", "/api/admin/principals/x/keys", fmt.Sprintf(`{"pubkey_fp":%q}`, fresh())},
		{"DELETE", "/api/admin/principals/" + p.ID + "/keys/" + fresh(), ""},
		{"POST", "/api/admin/tokens", `{"principal_id":"x"}`},
		{"DELETE", "/api/admin/tokens/x", ""},
		{"DELETE", "/api/admin/invites/x", ""},
		{"POST", "/api/invites/accept", `{"invite":"x","display_name":"Bea"}`},
		{"POST", "/api/admin/agents/a/transfer", `{"principal_id":"x"}`},
		{"DELETE", "/api/admin/agents/x/ownership", ""},
		{"DELETE", "/api/admin/secrets/x", ""},
		{"GET", "/api/admin/secrets/x/value", ""},
		{"POST", "/api/admin/link/ABCDEF/approve", ""},
		{"POST", "/api/admin/link/ABCDEF/deny", ""},
	} {
		try(404, c[0], c[1], c[2])
	}
	// What is not as it must be.
	for _, path := range []string{"/roles/king", "/capabilities/A!"} {
		try(400, "PUT", "/api/admin/principals/"+p.ID+path, "")
		try(400, "DELETE", "/api/admin/principals/"+p.ID+path, "")
	}
	try(400, "DELETE", "/api/bindings", "")
	// What does not fit.
	try(409, "POST", "/api/admin/principals", fmt.Sprintf(`{"type":"client","display_name":"again","pubkey":%q}`, key.Line()))
	try(409, "POST", "/api/admin/principals/"+p.ID+"/keys", fmt.Sprintf(`{"pubkey":%q}`, key.Line()))
	try(409, "POST", "/api/admin/tokens", fmt.Sprintf(`{"principal_id":%q}`, out.ID))

	// An invite, once.
	var invite struct{ ID, URL string }
	if err := json.Unmarshal([]byte(try(201, "POST", "/api/admin/invites", `{"note":"for Bea"}`)), &invite); err != nil {
		t.Fatal(err)
	}
	accept := fmt.Sprintf(`{"invite":%q,"display_name":"Bea"}`, path.Base(invite.URL))
	try(201, "POST", "/api/invites/accept", accept)
	try(409, "POST", "/api/invites/accept", accept)
	try(409, "DELETE", "/api/admin/invites/"+invite.ID, "")
	if resp, body := New(t).web("POST", "/api/admin/invites", "{}"); resp.StatusCode != http.StatusConflict {
		t.Errorf("in open mode: %s %s", resp.Status, body)
	}

	// A message, once and again.
	for path, body := range map[string]string{
		"/api/send":          `{"agent_id":"a","sender":"me","content":%q}`,
		"/api/agents/a/send": `{"message":%q}`,
	} {
		first := try(200, "POST", path, fmt.Sprintf(body, "hi"), "Idempotency-Key", path)
		ids := regexp.MustCompile(`(?m)^id: (\d+)`).FindAllStringSubmatch(first, -1)
		last := ids[len(ids)-1][1]
		if again := try(204, "POST", path, fmt.Sprintf(body, "hi"), "Idempotency-Key", path, "Last-Event-ID", last); again != "" {
			t.Errorf("%s: %q", path, again)
		}
		try(409, "POST", path, fmt.Sprintf(body, "something else"), "Idempotency-Key", path)
		try(410, "POST", path, fmt.Sprintf(body, "hi"), "Idempotency-Key", path, "Last-Event-ID", "1000000")
	}

	// A file, in parts.
	turn := try(200, "POST", "/api/send", `{"agent_id":"a","sender":"me","content":"hi","attachments":[{"filename":"f","data":"aGVsbG8="}]}`, "Accept", "application/json")
	var in struct {
		ThreadID string `json:"thread_id"`
	}
	var list struct {
		Files []struct{ URL, SHA256 string }
	}
	if err := json.Unmarshal([]byte(turn), &in); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(try(200, "GET", "/api/threads/"+in.ThreadID+"/files", "")), &list); err != nil || len(list.Files) != 1 {
		t.Fatal(list, err)
	}
	if part := try(206, "GET", list.Files[0].URL, "", "Range", "bytes=1-2"); part != "el" {
		t.Errorf("bytes 1 and 2 are %q", part)
	}
	try(416, "GET", list.Files[0].URL, "", "Range", "bytes=9-")
	try(304, "GET", list.Files[0].URL, "", "If-None-Match", `"`+list.Files[0].SHA256+`"`)
}

// TestAnswersWhileStopping: a gateway that stops says so to orchestrators and senders.
func TestAnswersWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, func(c *config.Config) { c.Server.ShutdownGrace = 10 * time.Second })
		a := g.Agent("a")
		if _, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"}); err != nil {
			t.Fatal(err)
		}
		m := a.Message()
		stopped := make(chan struct{})
		go func() { g.Stop(); close(stopped) }()
		synctest.Wait()
		for _, c := range [][3]string{
			{"GET", "/health/ready", ""}, {"POST", "/api/agents/a/send", `{"message":"hi"}`}, {"POST", "/api/send", `{"agent_id":"a","sender":"me","content":"hi"}`},
		} {
			if resp, body := g.web(c[0], c[1], c[2]); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s %s: %s %s", c[0], c[1], resp.Status, body)
			}
		}
		a.Done(m.RequestId, "")
		<-stopped
	})
}

// TestVanishedAgent: an agent that goes away while a message waits for it is not found, and the turn
// has ended.
func TestVanishedAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		stream, err := pb.NewCovenControlClient(g.Dial()).AgentStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "a"}}}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); m.GetWelcome() == nil {
			t.Fatal(m, err)
		}
		body, err := json.Marshal(map[string]string{"agent_id": "a", "sender": "me", "content": strings.Repeat("x", 500<<10)})
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan int, 40) // of more than fit into what lies between the gateway and the agent
		var wg sync.WaitGroup
		for range cap(answers) {
			wg.Go(func() {
				resp, err := g.Client.Post(g.URL+"/api/send", "application/json", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				answers <- resp.StatusCode
			})
		}
		synctest.Wait()
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		close(answers)
		count := map[int]int{}
		for status := range answers {
			count[status]++
		}
		if count[404] == 0 || count[404]+count[200] != cap(answers) {
			t.Errorf("answers: %v", count)
		}
	})
}

// TestAnswersAboutWhatIsRemoved: a thread that an agent answers in is not deleted, and of a file that is
// not kept any more its address says so.
func TestAnswersAboutWhatIsRemoved(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	turn, err := g.Conversations().Send(Ctx(), conversation.SendRequest{
		AgentID: "a", ThreadID: "t", Frontend: "direct", Sender: "me", Text: "hi", Files: []conversation.FileData{{Name: "f", Type: "text/plain", Data: []byte("hello")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := g.request("DELETE", "/api/threads/t", "", ""); resp.StatusCode != http.StatusConflict {
		t.Errorf("%s %s", resp.Status, body)
	}
	a.Message()
	a.Done(turn.ID, "")
	var list struct{ Files []struct{ URL string } }
	if g.ask("", "GET", "/api/threads/t/files", "", &list); len(list.Files) != 1 {
		t.Fatal(list)
	}
	g.Reconfigure(func(c *config.Config) { c.Retention.FilesSize = 1 })
	for late := time.After(Patience); ; {
		resp, body := g.request("GET", list.Files[0].URL, "", "")
		if resp.StatusCode == http.StatusGone {
			return
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, body)
		}
		select {
		case <-late:
			t.Fatal("the file is still there")
		case <-time.After(time.Millisecond):
		}
	}
}
