package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/cli"
	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
	pb "coven-gateway/proto/coven"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coven-admin": main})
}

// talk has an agent echo what it is told. It fails at "fail", asks for a tool at "tool", asks people at
// "question", and sends what would steer a terminal at "steer". It refuses the injection "nonsense".
func talk(a *gatewaytest.Agent) {
	asking := "" // the request that waits for an approval
	for m := a.Next(); m != nil; m = a.Next() {
		if t := m.GetToolApproval(); t != nil {
			words := map[bool]string{true: "allowed", false: "refused"}[t.Approved]
			if t.ApproveAll {
				words += " for all"
			}
			a.Text(asking, words)
			a.Done(asking, "")
			continue
		}
		if r := m.GetPackToolResult(); r != nil {
			a.Text(asking, r.GetOutputJson(), r.GetError())
			a.Done(asking, "")
			continue
		}
		s := m.GetSendMessage()
		switch i := m.GetInjectContext(); {
		case i != nil && i.GetContent() == "nonsense":
			a.Ack(i, false, "I know better")
		case i != nil:
			a.Ack(i, true, "")
		case s == nil:
		case s.Content == "fail":
			a.Fail(s.RequestId, "no model")
		case s.Content == "tool":
			asking = s.RequestId
			a.Reply(&pb.MessageResponse{RequestId: s.RequestId, Event: &pb.MessageResponse_ToolApprovalRequest{
				ToolApprovalRequest: &pb.ToolApprovalRequest{Id: "t-" + s.RequestId, Name: "bash", InputJson: `{"command":"ls"}`},
			}})
		case s.Content == "question":
			asking = s.RequestId
			a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{
				RequestId: "q", ToolName: "ask_user", InputJson: `{"question":"Which?","options":[{"label":"red","description":"like fire"},{"label":"blue"}]}`,
			}}})
		case s.Content == "wait":
		default:
			a.Text(s.RequestId, "you said ", s.Content)
			a.Done(s.RequestId, "")
		}
	}
}

func takesInjections(r *pb.RegisterAgent) {
	r.ProtocolFeatures = append(r.ProtocolFeatures, "injection")
}

// params are what all scripts have: the command "code" runs another one and wants an exit code.
func params(p testscript.Params, setenv func(*testscript.Env)) testscript.Params {
	p.Cmds = map[string]func(*testscript.TestScript, bool, []string){"code": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: code N command...")
		}
		err, got := ts.Exec(args[1], args[2:]...), 0
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			got = e.ExitCode()
		} else if err != nil {
			ts.Fatalf("%v", err)
		}
		if strconv.Itoa(got) != args[0] {
			ts.Fatalf("%q: exit code %d", args[1:], got)
		}
	}}
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("XDG_CONFIG_HOME", e.WorkDir)
		e.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have every command sleep for a second
		setenv(e)
		return nil
	}
	return p
}

func where(e *testscript.Env, gw *gatewaytest.Gateway) {
	e.Setenv("COVEN_GATEWAY_HTTP", gw.URL)
	e.Setenv("HOST_ONLY", strings.TrimPrefix(gw.URL, "http://"))
	e.Setenv("COVEN_GATEWAY_GRPC", gw.GRPCAddr())
}

// TestOpen runs the command against a gateway that asks for no credentials.
func TestOpen(t *testing.T) {
	gw := gatewaytest.New(t)
	go talk(gw.Agent("echo", takesInjections, func(r *pb.RegisterAgent) { r.Capabilities = []string{"ui"} }))
	testscript.Run(t, params(testscript.Params{Dir: "testdata/open"}, func(e *testscript.Env) { where(e, gw) }))
}

// world is a gateway that asks for credentials, with people and things that the scripts are about.
func world(t *testing.T) func(*testscript.Env) {
	gw := gatewaytest.New(t, gatewaytest.Locked, func(c *config.Config) { c.Limits.AddressRequestsPerSecond = 0 })
	identity, ctx := gw.Identity(), gatewaytest.Ctx()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	owner, ownerToken := gw.Principal("Olivia", auth.Owner)
	alice, aliceToken := gw.Principal("Alice", auth.Member)
	create := func(kind auth.Kind, name string, key gatewaytest.Key) string {
		p, err := identity.CreatePrincipal(ctx, auth.NewPrincipal{Kind: kind, Name: name, PublicKey: key.Line()})
		must(err)
		return p.ID
	}
	device, builder := gatewaytest.NewKey(t), create(auth.Agent, "builder", gatewaytest.NewKey(t))
	create(auth.Client, "Phone", device)
	_, token, err := identity.CreateToken(ctx, auth.TokenRequest{PrincipalID: alice.ID, Name: "old"})
	must(err)
	secret, err := identity.SetSecret(ctx, "", "DATABASE", "postgres://…")
	must(err)
	link := func(key gatewaytest.Key, name string) string {
		l, err := identity.RequestLink(ctx, auth.LinkRequest{Fingerprint: key.Fingerprint(), DeviceName: name, Address: "192.0.2.7"})
		must(err)
		return l.Code
	}
	_, invite, err := identity.CreateInvite(ctx, auth.Member, "for nobody yet", 0)
	must(err)
	person := func(name string) (id, session string) {
		token, _, err := identity.CreateInvite(auth.With(ctx, owner), auth.Member, "", 0)
		must(err)
		_, p, s, err := identity.AcceptInvite(ctx, token, auth.Guest{Name: name, Display: name, Browser: auth.Browser{Device: "Browser", Address: "192.0.2.8"}})
		must(err)
		return p.ID, s.ID
	}
	bea, session := person("bea")
	ben, _ := person("ben")
	program, err := identity.RegisterOAuthClient(ctx, "a program", []string{"http://127.0.0.1/"}, "192.0.2.9")
	must(err)
	_, err = identity.ConsentOAuth(auth.With(ctx, auth.Principal{ID: bea, Kind: auth.User, Credential: auth.Credential{Kind: auth.Session, ProvedAt: time.Now()}}), auth.OAuthRequest{
		ClientID: program.ID, Redirect: "http://127.0.0.1/", ResponseType: "code", Method: "S256", Challenge: strings.Repeat("A", 43),
	}, nil)
	must(err)
	grants, err := identity.OAuthGrants(ctx, bea, 1)
	must(err)
	newcomer := gatewaytest.NewKey(t)
	code, other, known := link(newcomer, "Tablet"), link(gatewaytest.NewKey(t), "Toaster"), link(device, "Phone again")
	echo := gw.ConnectAs(gatewaytest.Bearer(aliceToken), "echo", takesInjections)
	if echo.Next().GetWelcome() == nil {
		t.Fatal(echo.Err())
	}
	go talk(echo)

	send := func(body string) io.ReadCloser {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, gw.URL+"/api/send", strings.NewReader(body))
		must(err)
		req.Header.Set("Authorization", "Bearer "+ownerToken)
		resp, err := gw.Client.Do(req)
		must(err)
		return resp.Body
	}
	// A turn that waits. Its request id is in the first event.
	waiting := send(`{"agent_id":"echo","thread_id":"waiting","sender":"test","content":"wait"}`)
	t.Cleanup(func() { // before the gateway is checked, the turn has ended
		echo.Die()
		_, _ = io.Copy(io.Discard, waiting)
		waiting.Close()
	})
	buf := make([]byte, 4096)
	n, err := waiting.Read(buf)
	must(err)
	request := regexp.MustCompile(`"request_id":"([^"]+)"`).FindSubmatch(buf[:n])
	if request == nil {
		t.Fatalf("no request id in %q", buf[:n])
	}
	_, err = io.Copy(io.Discard, send(`{"agent_id":"echo","thread_id":"standup","sender":"test","content":"good morning"}`))
	must(err)

	tools := mcp.NewServer(&mcp.Implementation{Name: "notes", Version: "1"}, nil)
	for _, name := range []string{"echo", "search"} {
		mcp.AddTool(tools, &mcp.Tool{Name: name, Description: "what " + name + " does"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return nil, nil, nil
		})
	}
	upstream := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil))
	t.Cleanup(func() { upstream.CloseClientConnections(); upstream.Close() })

	return func(e *testscript.Env) {
		where(e, gw)
		e.Setenv("BEA", bea)
		e.Setenv("BEN", ben)
		e.Setenv("SESSION", session)
		e.Setenv("GRANT", grants[0].ID)
		e.Setenv("MCP_URL", upstream.URL)
		for name, value := range map[string]string{
			"COVEN_TOKEN": ownerToken, "OWNER": owner.ID, "ALICE": alice.ID, "ALICE_TOKEN": aliceToken, "BUILDER": builder,
			"PENDING": create(auth.Client, "Pat", gatewaytest.NewKey(t)), "FINGERPRINT": strings.Repeat("5", 64),
			"TOKEN_ID": token.ID, "SECRET": secret.ID, "INVITE": invite.ID, "KEY": "s3cret", "CODE": code, "OTHER_CODE": other, "KNOWN_CODE": known,
			"THREAD": "standup", "REQUEST": string(request[1]),
		} {
			e.Setenv(name, value)
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, "id_ed25519.pub"), []byte(gatewaytest.NewKey(t).Line()+" new\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// TestLocked runs the command against gateways that ask for credentials, one for each script.
func TestLocked(t *testing.T) {
	files, err := filepath.Glob("testdata/locked/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		testscript.Run(t, params(testscript.Params{Files: []string{f}}, world(t)))
	}
}

// TestDocs runs every example of docs/ADMIN.md as a shell script, and checks that each command has
// one there and in its own help.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/ADMIN.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(doc, -1) {
		examples = append(examples, string(block[1]))
	}
	text := strings.Join(examples, "")
	each(root(), func(c *cobra.Command) {
		path := c.CommandPath()
		if !strings.Contains(c.Example, path) && !slices.ContainsFunc(c.Aliases, func(s string) bool { return strings.Contains(c.Example, s) }) && c.Name() != "list" {
			t.Errorf("the help of %s has no example", path)
		}
		if !strings.Contains(text, path) {
			t.Errorf("docs/ADMIN.md has no example of %s", path)
		}
	})
	dir := t.TempDir()
	script := "exec sh -eux examples.sh\n-- examples.sh --\n" + text + "-- key.txt --\nsecret\n-- questions.txt --\nhow are you?\ntool\n"
	if err := os.WriteFile(filepath.Join(dir, "docs.txtar"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, params(testscript.Params{Dir: dir}, world(t)))
}

// each visits the commands that do something.
func each(c *cobra.Command, visit func(*cobra.Command)) {
	for _, c := range c.Commands() {
		if c.Runnable() {
			visit(c)
		}
		each(c, visit)
	}
}

// TestResume: a stream that breaks is opened again behind the last event that has a number, and the
// message keeps its key.
func TestResume(t *testing.T) {
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Key string `json:"idempotency_key"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		got = append(got, in.Key, r.Header.Get("Last-Event-ID"))
		answers := []string{
			"id: 1\nevent: started\ndata: {}\n\nid: 2\nevent: text\ndata: {\"text\":\"one \"}\n\nid: 3\nevent: text\nda",
			"event: started\ndata: {}\n\n",
			"event: started\ndata: {}\n\nid: 3\nevent: text\ndata: {\"text\":\"two\"}\n\nid: 4\nevent: done\ndata: {}\n\n",
		}
		_, _ = io.WriteString(w, answers[len(got)/2-1])
	}))
	defer s.Close()
	var out, errs strings.Builder
	code := cli.Run(t.Context(), root(), []string{"chat", "a", "hello", "--http", s.URL, "--token", "x"}, &out, &errs)
	if code != 0 || out.String() != "one two\n" {
		t.Errorf("exit code %d, %q, %q", code, out.String(), errs.String())
	}
	if want := []string{got[0], "", got[0], "2", got[0], "2"}; !slices.Equal(got, want) {
		t.Errorf("keys and positions: %q, want %q", got, want)
	}
}

func TestAddresses(t *testing.T) {
	for _, name := range []string{"COVEN_GATEWAY_HOST", "COVEN_GATEWAY_HTTP", "COVEN_GATEWAY_GRPC"} {
		t.Setenv(name, "")
	}
	check := func(http, grpc string) {
		t.Helper()
		if h, g := defaultHTTP(), defaultGRPC(); h != http || g != grpc {
			t.Errorf("got %s and %s, want %s and %s", h, g, http, grpc)
		}
	}
	check("http://127.0.0.1:8080", "localhost:50051")
	t.Setenv("COVEN_GATEWAY_HOST", "gw.example")
	check("http://gw.example:8080", "gw.example:50051")
	t.Setenv("COVEN_GATEWAY_HOST", "::1")
	check("http://[::1]:8080", "[::1]:50051")
	t.Setenv("COVEN_GATEWAY_HTTP", "https://x")
	t.Setenv("COVEN_GATEWAY_GRPC", "y:1")
	check("https://x", "y:1")
}

func TestPaint(t *testing.T) {
	rows := []object{{"id": "1", "status": "approved", "name": "a\x1b[2Jb\nc"}, {"id": "22", "status": "revoked", "n": json.Number("7")}}
	var b strings.Builder
	lines := [][]string{{"ID", "STATUS", "NAME"}}
	for _, r := range rows {
		lines = append(lines, []string{column{"", "id", nil}.of(r), column{"", "status", nil}.of(r), column{"", "name|n", nil}.of(r)})
	}
	writeTable(&b, lines, true)
	want := "ID  STATUS    NAME\n1   \x1b[32mapproved\x1b[0m  a\ufffd[2Jb c\n22  \x1b[31mrevoked\x1b[0m   7\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}
