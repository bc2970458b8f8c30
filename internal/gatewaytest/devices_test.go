package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	pb "coven-gateway/proto/coven"
)

// Existing programs that nobody chats with: a person as an agent, linking, administration.

// TestHuman is coven-human (grpc.md 9.8): it registers when it has headers, without metadata, and
// answers the newest request only.
func TestHuman(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked, func(c *config.Config) {
			c.Server.ShutdownGrace = 50 * time.Millisecond
			c.Agents.TurnSilenceTimeout = 30 * time.Minute
		})
		key := NewKey(t)
		p, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Agent, Name: "device", PublicKey: key.Line(), Roles: []auth.Role{auth.Member}})
		if err != nil {
			t.Fatal(err)
		}
		const id = "human-6f1c1f0e-0000-4000-8000-000000000000"
		open := func() *human {
			h := &human{t: t}
			if h.stream, h.err = pb.NewCovenControlClient(g.Dial()).AgentStream(key.Sign()); h.err == nil {
				_, h.err = h.stream.Header()
			}
			if h.err == nil {
				h.err = h.stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
					AgentId: id, Name: "human-laptop", Capabilities: []string{"human"},
				}}})
			}
			return h
		}
		h := open()
		if w := h.next().GetWelcome(); w.GetAgentId() != id || w.GetPrincipalId() != p.ID || len(w.GetInstanceId()) != 12 {
			t.Fatalf("welcomed with %v (%v)", w, h.err)
		}
		if second := open(); second.next() != nil || status.Code(second.err) != codes.AlreadyExists {
			t.Errorf("a second one of the same id: %v", second.err)
		}

		// Two requests: it answers the newest, and the other one ends all the same.
		_, token := g.Principal("somebody", auth.Member)
		c := pb.NewClientServiceClient(g.Dial())
		v := view(t, c, Bearer(token), id) // so that no later stream is shown these turns
		say(t, c, Bearer(token), id, "are you there?")
		h.next()
		say(t, c, Bearer(token), id, "hello?")
		h.answers(h.next(), "I am")
		v.until("done I am")
		v.stop()
		d := &desk{g: g, context: func() context.Context { return Bearer(token) }, patience: time.Hour, text: make(chan string, 64)}
		b := newBridge(d, false)
		heardOf := make(chan heard, 1)
		ask := func(text string) {
			x, err := b.say(id, text)
			if err != nil {
				t.Error(err)
			}
			heardOf <- x
		}
		go ask("unanswered")
		h.next()
		if x := <-heardOf; x.end != "error" || !strings.Contains(x.error, "has been silent for 30m") {
			t.Errorf("heard %+v", x)
		}
		go ask("work")
		h.answers(h.next(), "done")
		if x := <-heardOf; x.text != "done" || x.end != "done" {
			t.Errorf("heard %+v", x)
		}

		// The gateway goes: it is told, and quits; started again it is welcome.
		g.Restart()
		if m := h.next(); m.GetShutdown() == nil {
			t.Errorf("it was not told but got %v (%v)", m, h.err)
		}
		if m := h.next(); m != nil || !errors.Is(h.err, io.EOF) {
			t.Errorf("its stream ended with %v %v", m, h.err)
		}
		h = open()
		if h.next().GetWelcome() == nil {
			t.Fatal(h.err)
		}
		go ask("work")
		h.answers(h.next(), "again")
		if x := <-heardOf; x.text != "again" {
			t.Errorf("heard %+v", x)
		}
	})
}

type human struct {
	t      *testing.T
	stream pb.CovenControl_AgentStreamClient
	err    error
}

// next waits for a message; nil at the end.
func (h *human) next() *pb.ServerMessage {
	if h.err != nil {
		return nil
	}
	var m *pb.ServerMessage
	if m, h.err = h.stream.Recv(); h.err != nil {
		return nil
	}
	return m
}

func (h *human) answers(m *pb.ServerMessage, text string) {
	h.t.Helper()
	id := m.GetSendMessage().GetRequestId()
	for _, r := range []*pb.MessageResponse{
		{RequestId: id, Event: &pb.MessageResponse_Text{Text: text}},
		{RequestId: id, Event: &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: text}}},
	} {
		if err := h.stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: r}}); err != nil || id == "" {
			h.t.Errorf("answer to %v: %v", m, err)
		}
	}
}

// TestLink is coven-link (grpc.md 9.10), across a restart of the gateway, and what a device does
// afterwards: the TUI logs in with the device's key, coven-agent registers its own with the token.
func TestLink(t *testing.T) {
	g := New(t, Locked)
	device, agentKey := NewKey(t), NewKey(t)
	request := func() string {
		t.Helper()
		resp, body := g.web(http.MethodPost, "/api/link/request", `{"fingerprint":"`+device.Fingerprint()+`","device_name":"laptop"}`, "Content-Type", "application/json")
		var a struct {
			Code    *string
			Expires *string `json:"expires_at"`
		}
		if err := json.Unmarshal([]byte(body), &a); resp.StatusCode/100 != 2 || err != nil || a.Code == nil || a.Expires == nil {
			t.Fatalf("%s %s", resp.Status, body)
		}
		return *a.Code
	}
	type answer struct {
		Status      string
		Token       *string
		PrincipalID *string `json:"principal_id"`
	}
	poll := func(code, want string) (a answer) {
		t.Helper()
		resp, body := g.web(http.MethodGet, "/api/link/status/"+code, "")
		if err := json.Unmarshal([]byte(body), &a); resp.StatusCode/100 != 2 || err != nil || a.Status != want { // anything else is fatal
			t.Fatalf("%s %s, want %s", resp.Status, body, want)
		}
		return a
	}
	denied := request()
	poll(denied, "pending")
	if err := g.Identity().DenyLink(Ctx(), denied); err != nil {
		t.Fatal(err)
	}
	poll(denied, "expired")

	code := request()
	for range 300 { // ten minutes of polling every two seconds: never a refusal
		poll(code, "pending")
	}
	g.Restart()
	poll(code, "pending")
	if _, err := g.Identity().ApproveLink(Ctx(), code, false); err != nil {
		t.Fatal(err)
	}
	g.Restart()
	a := poll(code, "approved")
	if a.Token == nil || a.PrincipalID == nil {
		t.Fatalf("%+v", a)
	}

	// coven-agent: the call itself fails, it registers its key, and loops.
	connect := func() *Agent { return g.ConnectAs(agentKey.Sign(), "laptop-project") }
	err := connect().Err()
	exactly(t, "an unknown key", err, codes.Unauthenticated, "unknown public key")
	c := pb.NewClientServiceClient(g.Dial())
	register := &pb.RegisterAgentRequest{DisplayName: "laptop-project", Fingerprint: agentKey.Fingerprint()}
	if r, err := c.RegisterAgent(Bearer(*a.Token), register); err != nil || r.GetStatus() != "approved" {
		t.Fatal(r, err)
	}
	_, err = c.RegisterAgent(Bearer(*a.Token), register)
	exactly(t, "a second registration", err, codes.AlreadyExists, "fingerprint already registered")
	worker := connect()
	if w := worker.next().GetWelcome(); w == nil || w.GetPrincipalId() == *a.PrincipalID {
		t.Fatalf("%v %v", w, worker.err)
	}

	// coven-tui: another key, the same principal as the token's.
	me, err := c.GetMe(device.Sign(), &emptypb.Empty{})
	if err != nil || me.GetPrincipalId() != *a.PrincipalID || strings.Join(me.GetRoles(), ",") != "member" {
		t.Errorf("%v %v", me, err)
	}
	l := &library{desk: &desk{g: g, context: device.Sign, text: make(chan string, 64)}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if h, err := l.say("laptop-project", "hello"); err != nil || h.text != "hi" || h.end != "done" {
			t.Errorf("heard %+v (%v)", h, err)
		}
	}()
	m := worker.Message()
	worker.Text(m.RequestId, "hi")
	worker.Done(m.RequestId, "hi")
	<-done
}

// TestAdmin is coven-admin of the public programs (grpc.md 9.11): its token, a new channel for each
// command, its calls in the order of a first day; the gateway restarts in between.
func TestAdmin(t *testing.T) {
	g := New(t, Locked)
	admin, token := g.Principal("admin", auth.Admin)
	command := func() (pb.ClientServiceClient, pb.AdminServiceClient, context.Context) {
		conn := g.Dial()
		return pb.NewClientServiceClient(conn), pb.NewAdminServiceClient(conn), Bearer(token)
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	c, _, ctx := command()
	me, err := c.GetMe(ctx, &emptypb.Empty{})
	check("me", err)
	if me.GetPrincipalId() != admin.ID || me.GetPrincipalType() != "client" || me.GetDisplayName() != "admin" || me.GetStatus() != "approved" || me.MemberId != nil {
		t.Errorf("me: %v", me)
	}
	list, err := c.ListAgents(ctx, &pb.ListAgentsRequest{})
	check("agents list", err)
	if len(list.GetAgents()) != 0 { // no agent is an empty list, no error
		t.Errorf("agents: %v", list)
	}

	_, a, ctx := command()
	key, fp := NewKey(t), ""
	fp = key.Fingerprint()
	made, err := a.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "agent", DisplayName: "worker", PubkeyFp: &fp, Roles: []string{"member"}})
	check("principals create", err)
	if made.GetStatus() != "approved" || made.GetPubkeyFp() != fp {
		t.Errorf("created %v", made)
	}
	worker := g.ConnectAs(key.Sign(), "worker-project", func(r *pb.RegisterAgent) {
		r.Metadata = &pb.AgentMetadata{
			WorkingDirectory: "/work", Hostname: "laptop", Os: "linux", Backend: "mux", Workspaces: []string{"home"},
			Git: &pb.GitInfo{Branch: "main", Commit: "abc"},
		}
	})
	if worker.next().GetWelcome() == nil {
		t.Fatal(worker.err)
	}
	for workspace, n := range map[string]int{"": 1, "home": 1, "office": 0} {
		c, _, ctx = command()
		list, err = c.ListAgents(ctx, &pb.ListAgentsRequest{Workspace: &workspace})
		check("agents list", err)
		if len(list.GetAgents()) != n {
			t.Errorf("agents of workspace %q: %v", workspace, list)
		}
		for _, x := range list.GetAgents() {
			if m := x.GetMetadata(); !x.GetConnected() || m.GetGit().GetBranch() != "main" || m.GetHostname() != "laptop" || m.GetOs() != "linux" || x.GetWorkingDir() != "/work" {
				t.Errorf("agent %v", x)
			}
		}
	}

	_, a, ctx = command()
	b, err := a.CreateBinding(ctx, &pb.CreateBindingRequest{Frontend: "matrix", ChannelId: "!room:example.org", AgentId: made.GetId()})
	check("bindings create", err)
	kind := "agent"
	ps, err := a.ListPrincipals(ctx, &pb.ListPrincipalsRequest{Type: &kind})
	check("principals list", err)
	if len(ps.GetPrincipals()) != 1 || ps.GetPrincipals()[0].GetId() != made.GetId() {
		t.Errorf("principals: %v", ps)
	}
	fresh, err := a.CreateToken(ctx, &pb.CreateTokenRequest{PrincipalId: made.GetId(), TtlSeconds: 2_592_000})
	check("token create", err)

	g.Restart() // tokens, bindings and principals stay
	if worker = g.ConnectAs(Bearer(fresh.GetToken()), "worker-project"); worker.next().GetWelcome() == nil {
		t.Fatal(worker.err)
	}
	_, a, ctx = command()
	bs, err := a.ListBindings(ctx, &pb.ListBindingsRequest{})
	check("bindings list", err)
	if len(bs.GetBindings()) != 1 || bs.GetBindings()[0].GetId() != b.GetId() || bs.GetBindings()[0].GetChannelId() != "!room:example.org" {
		t.Errorf("bindings: %v", bs)
	}
	_, a, ctx = command()
	_, err = a.DeleteBinding(ctx, &pb.DeleteBindingRequest{Id: b.GetId()})
	check("bindings delete", err)
	_, err = a.DeletePrincipal(ctx, &pb.DeletePrincipalRequest{Id: made.GetId()})
	check("principals delete", err)
	if s := status.Convert(worker.Err()); s.Code() != codes.Unauthenticated && s.Code() != codes.PermissionDenied {
		t.Errorf("the agent of a deleted principal goes on, or ended with %v", s)
	}
	_, err = a.DeletePrincipal(ctx, &pb.DeletePrincipalRequest{Id: made.GetId()})
	exactly(t, "a second deletion", err, codes.NotFound, "principal not found") // errors are printed

	// Against a gateway that asks for no token it shows one all the same.
	open := pb.NewClientServiceClient(New(t).Dial())
	me, err = open.GetMe(Bearer("dummy"), &emptypb.Empty{})
	check("me on an open gateway", err)
	if me.GetPrincipalId() != "anonymous" || me.GetStatus() != "approved" {
		t.Errorf("me on an open gateway: %v", me)
	}
}
