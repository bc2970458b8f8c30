package gatewaytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// refused checks the code and the words of a refusal.
func refused(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), text) {
		t.Errorf("got %v %q, want %v %q", s.Code(), s.Message(), code, text)
	}
}

// TestKeys: keys of every accepted type log in, and the first use of an agent id makes it theirs.
func TestKeys(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{"ed25519": NewKey(t), "rsa": KeyOf(t, rsaKey), "ecdsa": KeyOf(t, ecKey)} {
		me, err := pb.NewClientServiceClient(g.Dial()).GetMe(k.Sign(), &emptypb.Empty{})
		if err != nil || me.GetPrincipalType() != "agent" || me.GetDisplayName() != "agent-"+k.Fingerprint()[56:] || strings.Join(me.GetRoles(), ",") != "member" {
			t.Errorf("%s: %v %v", name, me, err)
		}
		a := g.ConnectAs(k.Sign(), "agent-of-"+name)
		if w := a.next().GetWelcome(); w.GetPrincipalId() != me.GetPrincipalId() {
			t.Errorf("%s: welcomed as %v", name, w)
		}
	}
	// Somebody else's id, even when nobody uses it at the moment.
	k := NewKey(t)
	first := g.ConnectAs(k.Sign(), "mine")
	first.next()
	first.Die()
	refused(t, g.ConnectAs(NewKey(t).Sign(), "mine").Err(), codes.AlreadyExists, "agent mine already registered")
}

// TestReplay: a signature is good for the connection that used it first and nowhere else.
func TestReplay(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	k := NewKey(t)
	proof := k.Proof(time.Now())
	here, there := pb.NewClientServiceClient(g.Dial()), pb.NewClientServiceClient(g.Dial())
	for range 3 {
		if _, err := here.GetMe(Show(proof), &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := there.GetMe(Show(proof), &emptypb.Empty{})
	refused(t, err, codes.Unauthenticated, "SSH auth failed: nonce already used")

	// One that did not verify is not used up.
	proof = k.Proof(time.Now())
	bad := proof
	bad.Signature = k.Proof(time.Now()).Signature
	_, err = there.GetMe(Show(bad), &emptypb.Empty{})
	refused(t, err, codes.Unauthenticated, "SSH auth failed: signature verification failed")
	if _, err := here.GetMe(Show(proof), &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
}

// TestRevoke: whoever loses its rights loses its streams and its turns at once.
func TestRevoke(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	k := NewKey(t)
	a := g.ConnectAs(k.Sign(), "a")
	owner := a.next().GetWelcome().GetPrincipalId()
	if err := g.Identity().Revoke(Ctx(), owner); err != nil {
		t.Fatal(err)
	}
	refused(t, a.Err(), codes.PermissionDenied, "principal has been revoked")
	refused(t, g.ConnectAs(k.Sign(), "a").Err(), codes.PermissionDenied, "principal has been revoked")
	if err := g.Identity().Approve(Ctx(), owner); err != nil {
		t.Fatal(err)
	}
	a = g.ConnectAs(k.Sign(), "a")
	if a.next().GetWelcome() == nil {
		t.Error("an approved agent is not welcome")
	}
	if v, err := g.Identity().VerifyAudit(context.Background()); err != nil || !v.OK || v.Records == 0 {
		t.Errorf("%+v %v", v, err)
	}
}

// TestLinkedDevice is the way of a new device: it asks for a code, an admin approves it, the device
// gets its token and registers the key of its agent, and the agent logs in with that key, as
// ssh-keygen writes it.
func TestLinkedDevice(t *testing.T) {
	g := New(t, Locked)
	device, agentKey := NewKey(t), filepath.Join(t.TempDir(), "agent_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", agentKey).CombinedOutput(); err != nil {
		t.Skipf("ssh-keygen: %v\n%s", err, out)
	}
	l, err := g.Identity().RequestLink(t.Context(), auth.LinkRequest{Fingerprint: device.Fingerprint(), DeviceName: "laptop", Address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Identity().ApproveLink(Ctx(), l.Code, false); err != nil {
		t.Fatal(err)
	}
	answer, err := g.Identity().PollLink(t.Context(), l.Code, "192.0.2.1")
	if err != nil || answer.Token == "" {
		t.Fatalf("%+v %v", answer, err)
	}
	line, err := os.ReadFile(agentKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := auth.ParseKey(string(line))
	if err != nil {
		t.Fatal(err)
	}
	client := pb.NewClientServiceClient(g.Dial())
	agentPrincipal, err := client.RegisterAgent(Bearer(answer.Token), &pb.RegisterAgentRequest{DisplayName: "worker", Fingerprint: strings.ToUpper(auth.Fingerprint(public))})
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := agent.KeyFile(agentKey)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	welcome, done := make(chan agent.Welcome, 1), make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{
			Server: g.GRPCAddr(), ID: "worker", Credentials: credentials, OnWelcome: func(w agent.Welcome) { welcome <- w },
			Handler: agent.HandlerFunc(func(context.Context, *agent.Message, *agent.Writer) error { return nil }),
		})
	}()
	select {
	case w := <-welcome:
		if w.PrincipalID != agentPrincipal.GetPrincipalId() {
			t.Errorf("welcomed as %+v, registered %v", w, agentPrincipal)
		}
	case err := <-done:
		t.Fatal(err)
	}
	// Who registered the agent's key sees what is said to the agent.
	device1, err := g.Identity().Principal(t.Context(), answer.PrincipalID)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := g.Identity().Oversees(t.Context(), device1, "worker"); err != nil || !all {
		t.Errorf("the device does not oversee its agent: %v %v", all, err)
	}
	stop()
	<-done
}

// TestInheritance: whoever claims an id that was used before, from a gateway that was open, gets
// neither the secrets nor the conversation, until an admin confirms it.
func TestInheritance(t *testing.T) {
	g := New(t)
	a := g.Agent("old")
	if _, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "old", Frontend: "direct", Sender: "me", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	a.Done(a.Message().GetRequestId(), "hi")
	if _, err := g.Identity().SetSecret(Ctx(), "old", "API_KEY", "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Identity().SetSecret(Ctx(), "", "FOR_ALL", "x"); err != nil {
		t.Fatal(err)
	}
	g.Reconfigure(Locked)
	p, token := g.Principal("newcomer")
	connect := func() *pb.Welcome {
		t.Helper()
		w := g.ConnectAs(Bearer(token), "old").next().GetWelcome()
		if w == nil {
			t.Fatal("not welcome")
		}
		return w
	}
	oversees := func() bool {
		t.Helper()
		all, err := g.Identity().Oversees(t.Context(), p, "old")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if w := connect(); len(w.Secrets) != 1 || w.Secrets["FOR_ALL"] != "x" || oversees() {
		t.Errorf("an unconfirmed owner got %v, oversees: %v", w.Secrets, oversees())
	}
	if err := g.Identity().TransferAgent(Ctx(), "old", p.ID); err != nil {
		t.Fatal(err)
	}
	if w := connect(); w.Secrets["API_KEY"] != "k" || !oversees() {
		t.Errorf("a confirmed owner got %v, oversees: %v", w.Secrets, oversees())
	}
}
