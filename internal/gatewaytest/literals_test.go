package gatewaytest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	pb "coven-gateway/proto/coven"
)

// The words of refusals are part of the protocol: existing programs look for them, or show them
// (grpc.md 2, 6.7 and 7, http.md 1.3 and 1.5).

// exactly checks the code and all of the words of a refusal.
func exactly(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || s.Message() != text {
		t.Errorf("%s: got %v %q, want %v %q", what, s.Code(), s.Message(), code, text)
	}
}

// showing returns a context with headers.
func showing(pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), pairs...)
}

// me calls GetMe.
func (g *Gateway) me(ctx context.Context) (*pb.MeResponse, error) {
	g.t.Helper()
	return pb.NewClientServiceClient(g.Dial()).GetMe(ctx, &emptypb.Empty{})
}

// TestLiteralsOfTokens: grpc.md 2.2 and 2.3.
func TestLiteralsOfTokens(t *testing.T) {
	g := New(t, Locked)
	p, token := g.Principal("me", auth.Member)
	gone, lost := g.Principal("gone")
	if err := g.Identity().Delete(Ctx(), gone.ID); err != nil {
		t.Fatal(err)
	}
	claims := func(edit ...any) jwt.MapClaims {
		c := jwt.MapClaims{"sub": p.ID, "exp": time.Now().Add(time.Hour).Unix()}
		for i := 0; i < len(edit); i += 2 {
			if c[edit[i].(string)] = edit[i+1]; edit[i+1] == nil {
				delete(c, edit[i].(string))
			}
		}
		return c
	}
	const bad = "invalid or expired token"
	for _, c := range []struct{ what, header, text string }{
		{"another scheme", "Basic " + token, "invalid authorization header format"},
		{"a scheme in lower case", "bearer " + token, "invalid authorization header format"},
		{"no scheme", token, "invalid authorization header format"},
		{"two spaces", "Bearer  " + token, bad},
		{"garbage", "Bearer garbage", bad},
		{"an unknown API token", "Bearer coven_unknown", bad},
		{"a cut token", "Bearer " + token[:len(token)-2], bad},
		{"an expired token", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("exp", time.Now().Add(-time.Second).Unix())), bad},
		{"one not yet good", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("nbf", time.Now().Add(time.Hour).Unix())), bad},
		{"no subject", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("sub", nil)), bad},
		{"no end", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("exp", nil)), bad},
		{"another principal's token id", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("jti", tokenID(t, token), "sub", "somebody")), bad},
		{"a deleted principal", "Bearer " + lost, "principal not found"},
		{"a principal that never was", "Bearer " + signed(t, jwt.SigningMethodHS256, claims("sub", "nobody")), "principal not found"},
	} {
		_, err := g.me(showing("authorization", c.header))
		exactly(t, c.what, err, codes.Unauthenticated, c.text)
	}
	_, err := g.me(context.Background())
	exactly(t, "nothing", err, codes.Unauthenticated, "missing authorization header")
	_, err = g.me(showing("authorization", "Bearer "+token, "x-ssh-nonce", "stray"))
	exactly(t, "a stray header of the other scheme", err, codes.Unauthenticated, "missing SSH public key")
	_, err = g.me(showing("authorization", "Bearer garbage", "authorization", "Bearer "+token))
	exactly(t, "the first of two headers", err, codes.Unauthenticated, bad)
	for what, ctx := range map[string]context.Context{
		"a token":                    Bearer(token),
		"a token of another program": Bearer(signed(t, jwt.SigningMethodHS256, claims("iat", time.Now().Unix()))),
		"empty SSH headers":          showing("authorization", "Bearer "+token, "x-ssh-nonce", "", "x-ssh-pubkey", ""),
		"the first of two":           showing("authorization", "Bearer "+token, "authorization", "Bearer garbage"),
	} {
		if m, err := g.me(ctx); err != nil || m.GetPrincipalId() != p.ID {
			t.Errorf("%s: %v %v", what, m, err)
		}
	}
}

// tokenID is the id in a JWT.
func tokenID(t *testing.T, token string) string {
	t.Helper()
	var c jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// TestLiteralsOfKeys: grpc.md 2.4, with every limit of time on both sides.
func TestLiteralsOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
		k := NewKey(t)
		for what, c := range map[string]struct {
			at   time.Duration
			edit func(*auth.Proof)
			text string // "" is welcome
		}{
			"as it should be":          {text: ""},
			"with blanks around":       {edit: func(p *auth.Proof) { p.PublicKey, p.Timestamp = p.PublicKey+" a comment ", " "+p.Timestamp }},
			"no key":                   {edit: func(p *auth.Proof) { p.PublicKey = "" }, text: "missing SSH public key"},
			"no signature":             {edit: func(p *auth.Proof) { p.Signature = "" }, text: "missing SSH signature"},
			"no time":                  {edit: func(p *auth.Proof) { p.Timestamp = "" }, text: "missing SSH timestamp"},
			"a time that is none":      {edit: func(p *auth.Proof) { p.Timestamp = "now" }, text: "missing SSH timestamp"},
			"time zero":                {edit: func(p *auth.Proof) { p.Timestamp = "0" }, text: "missing SSH timestamp"},
			"no nonce":                 {edit: func(p *auth.Proof) { p.Nonce = "" }, text: "missing SSH nonce"},
			"five minutes old":         {at: -300 * time.Second},
			"too old":                  {at: -301 * time.Second, text: "SSH auth failed: signature expired (age: 5m1s, max: 5m0s)"},
			"a minute ahead":           {at: 60 * time.Second},
			"too far ahead":            {at: 61 * time.Second, text: "SSH auth failed: timestamp is in the future"},
			"another time":             {edit: func(p *auth.Proof) { p.Timestamp = fmt.Sprint(time.Now().Unix() - 1) }, text: "SSH auth failed: signature verification failed"},
			"another nonce":            {edit: func(p *auth.Proof) { p.Nonce += "x" }, text: "SSH auth failed: signature verification failed"},
			"another key":              {edit: func(p *auth.Proof) { p.PublicKey = NewKey(t).Line() }, text: "SSH auth failed: signature verification failed"},
			"a key that is none":       {edit: func(p *auth.Proof) { p.PublicKey = "ssh-ed25519 AAAA" }, text: "SSH auth failed: the public key is not an authorized_keys line"},
			"a signature not base64":   {edit: func(p *auth.Proof) { p.Signature = "!" }, text: "SSH auth failed: the signature is not standard base64"},
			"a signature that is none": {edit: func(p *auth.Proof) { p.Signature = "AAAA" }, text: "SSH auth failed: the signature is not an SSH signature"},
			"a signature of another kind": {edit: func(p *auth.Proof) {
				p.Signature = base64.StdEncoding.EncodeToString(ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoRSASHA256, Blob: make([]byte, 64)}))
			}, text: `SSH auth failed: a key of type ssh-ed25519 cannot make a signature of type "rsa-sha2-256"`},
		} {
			p := k.Proof(time.Now().Add(c.at))
			if c.edit != nil {
				c.edit(&p)
			}
			if _, err := g.me(Show(p)); c.text != "" {
				exactly(t, what, err, codes.Unauthenticated, c.text)
			} else if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}

		// One signature for all calls of a connection, for five minutes; on another one never.
		conn, p := pb.NewClientServiceClient(g.Dial()), k.Proof(time.Now())
		for range 3 {
			if _, err := conn.GetMe(Show(p), &emptypb.Empty{}); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Second) // of the bubble
			_, err := g.me(Show(p))
			exactly(t, "a signature of another connection", err, codes.Unauthenticated, "SSH auth failed: nonce already used (possible replay attack)")
		}
		time.Sleep(time.Second)
		_, err := conn.GetMe(Show(p), &emptypb.Empty{})
		exactly(t, "a signature whose time is over", err, codes.Unauthenticated, "SSH auth failed: signature expired (age: 5m1s, max: 5m0s)")

		// One from the future is good for 360 seconds and remembered as long.
		p = k.Proof(time.Now().Add(60 * time.Second))
		if _, err := conn.GetMe(Show(p), &emptypb.Empty{}); err != nil {
			t.Error(err)
		}
		time.Sleep(360 * time.Second)
		_, err = g.me(Show(p))
		exactly(t, "a signature of the future, later", err, codes.Unauthenticated, "SSH auth failed: nonce already used (possible replay attack)")
	})
}

// TestLiteralsOfUnknownKeys: grpc.md 2.5 and 2.6.
func TestLiteralsOfUnknownKeys(t *testing.T) {
	t.Run("disabled", func(t *testing.T) {
		g := New(t, Locked)
		k := NewKey(t)
		for range 2 {
			_, err := g.me(k.Sign())
			exactly(t, "an unknown key", err, codes.Unauthenticated, "unknown public key")
		}
		if all := g.principals(auth.PrincipalFilter{}); len(all) > 0 {
			t.Errorf("a refused key has made %v", all)
		}
	})
	t.Run("approved", func(t *testing.T) {
		g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
		k := NewKey(t)
		first, err := g.me(k.Sign())
		if err != nil || first.GetPrincipalType() != "agent" || first.GetStatus() != "approved" || first.GetDisplayName() != "agent-"+k.Fingerprint()[56:] {
			t.Errorf("%v %v", first, err)
		}
		if again, err := g.me(k.Sign()); err != nil || !proto.Equal(again, first) {
			t.Errorf("%v %v", again, err)
		}
	})
	t.Run("pending", func(t *testing.T) {
		g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Pending })
		k := NewKey(t)
		_, err := g.me(k.Sign())
		all := g.principals(auth.PrincipalFilter{})
		if len(all) != 1 {
			t.Fatalf("%v", all)
		}
		id := all[0].ID
		exactly(t, "the first call", err, codes.PermissionDenied, "agent registered with pending status (principal_id: "+id+") - admin approval required")
		_, err = g.me(k.Sign())
		exactly(t, "a later call", err, codes.PermissionDenied, "principal status is pending - admin approval required")
		if err := g.Identity().Approve(Ctx(), id); err != nil {
			t.Fatal(err)
		}
		if m, err := g.me(k.Sign()); err != nil || m.GetPrincipalId() != id {
			t.Errorf("%v %v", m, err)
		}
		if err := g.Identity().Revoke(Ctx(), id); err != nil {
			t.Fatal(err)
		}
		_, err = g.me(k.Sign())
		exactly(t, "a revoked key", err, codes.PermissionDenied, "principal has been revoked")
	})
}

// principals lists principals from inside.
func (g *Gateway) principals(f auth.PrincipalFilter) []auth.Principal {
	g.t.Helper()
	f.Limit = auth.MaxPage
	all, err := g.Identity().Principals(Ctx(), f)
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

// TestLiteralsOfRoles: grpc.md 2.7.
func TestLiteralsOfRoles(t *testing.T) {
	g := New(t, Locked)
	conn := g.Dial()
	for _, roles := range [][]auth.Role{nil, {auth.Leader}, {auth.Member}, {auth.Admin}, {auth.Owner}} {
		_, token := g.Principal(fmt.Sprint(roles), roles...)
		member := len(roles) > 0 && roles[0] != auth.Leader
		admin := member && roles[0] != auth.Member
		for method, words := range map[string]string{
			"/coven.AdminService/ListBindings": "admin role required", "/coven.AdminService/CreateBinding": "admin role required",
			"/coven.AdminService/UpdateBinding": "admin role required", "/coven.AdminService/DeleteBinding": "admin role required",
			"/coven.AdminService/CreateToken": "admin role required", "/coven.AdminService/ListPrincipals": "admin role required",
			"/coven.AdminService/CreatePrincipal": "admin role required", "/coven.AdminService/DeletePrincipal": "admin role required",
			"/coven.ClientService/RegisterAgent":  "member role required to register agents",
			"/coven.ClientService/RegisterClient": "member role required to register clients",
			"/coven.ClientService/ListAgents":     "", "/coven.ClientService/GetEvents": "", "/coven.ClientService/GetMe": "",
		} {
			err := conn.Invoke(Bearer(token), method, &emptypb.Empty{}, &emptypb.Empty{})
			if may := words == "" || strings.HasPrefix(words, "member") && member || admin; !may {
				exactly(t, fmt.Sprint(method, " with ", roles), err, codes.PermissionDenied, words)
			} else if status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated {
				t.Errorf("%s with %v: %v", method, roles, err)
			}
		}
	}
}

// TestLiteralsOfDevices: grpc.md 6.7.
func TestLiteralsOfDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		_, token := g.Principal("me", auth.Member)
		c, ctx := pb.NewClientServiceClient(g.Dial()), Bearer(token)
		for _, x := range []struct{ name, fingerprint, text string }{
			{"", fresh(), "display_name required"},
			{" \t", fresh(), "display_name cannot be only whitespace"},
			{strings.Repeat("a", 101), fresh(), "display_name exceeds 100 characters"},
			{"naïve", fresh(), "display_name contains invalid characters (use ASCII letters, digits, '-', '_', '.' and spaces)"},
			{"a/b", fresh(), "display_name contains invalid characters (use ASCII letters, digits, '-', '_', '.' and spaces)"},
			{"a", "", "fingerprint required"},
			{"a", "SHA256:" + fresh()[7:62], "fingerprint must be 64 hex characters (SHA256)"},
			{"a", strings.Repeat("g", 64), "fingerprint must be valid hex characters"},
		} {
			_, err := c.RegisterAgent(ctx, &pb.RegisterAgentRequest{DisplayName: x.name, Fingerprint: x.fingerprint})
			exactly(t, "agent "+x.name, err, codes.InvalidArgument, x.text)
			_, err = c.RegisterClient(ctx, &pb.RegisterClientRequest{DisplayName: x.name, Fingerprint: x.fingerprint})
			exactly(t, "client "+x.name, err, codes.InvalidArgument, x.text)
		}
		// Those did not count; five do, of both kinds together.
		k := NewKey(t)
		a, err := c.RegisterAgent(ctx, &pb.RegisterAgentRequest{DisplayName: strings.Repeat("a", 97) + "-_.", Fingerprint: strings.ToUpper(k.Fingerprint())})
		if err != nil || a.GetStatus() != "approved" {
			t.Fatalf("%v %v", a, err)
		}
		m, err := g.me(k.Sign())
		if err != nil || m.GetPrincipalId() != a.GetPrincipalId() || m.GetPrincipalType() != "agent" || strings.Join(m.GetRoles(), ",") != "member" {
			t.Errorf("%v %v", m, err)
		}
		_, err = c.RegisterAgent(ctx, &pb.RegisterAgentRequest{DisplayName: "again", Fingerprint: k.Fingerprint()})
		exactly(t, "a known key", err, codes.AlreadyExists, "fingerprint already registered")
		_, err = c.RegisterClient(ctx, &pb.RegisterClientRequest{DisplayName: "again", Fingerprint: strings.ToUpper(k.Fingerprint())})
		exactly(t, "a known key in capitals", err, codes.AlreadyExists, "fingerprint already registered")
		for range 2 {
			if x, err := c.RegisterClient(ctx, &pb.RegisterClientRequest{DisplayName: "phone", Fingerprint: fresh()}); err != nil || x.GetStatus() != "approved" {
				t.Errorf("%v %v", x, err)
			}
		}
		const limit = "rate limit exceeded: max 5 registrations per 1m0s"
		_, err = c.RegisterClient(ctx, &pb.RegisterClientRequest{DisplayName: "phone", Fingerprint: fresh()})
		exactly(t, "the sixth", err, codes.ResourceExhausted, limit)
		_, err = c.RegisterAgent(ctx, &pb.RegisterAgentRequest{DisplayName: "phone", Fingerprint: fresh()})
		exactly(t, "the seventh", err, codes.ResourceExhausted, limit)
		_, other := g.Principal("other", auth.Member)
		if _, err := c.RegisterAgent(Bearer(other), &pb.RegisterAgentRequest{DisplayName: "phone", Fingerprint: fresh()}); err != nil {
			t.Errorf("somebody else's first: %v", err)
		}
		time.Sleep(time.Minute) // of the bubble
		if _, err := c.RegisterAgent(ctx, &pb.RegisterAgentRequest{DisplayName: "phone", Fingerprint: fresh()}); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
}

// TestLiteralsOfAdministration: grpc.md 7, what concerns tokens and principals.
func TestLiteralsOfAdministration(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Pending })
	admin, token := g.Principal("admin", auth.Admin)
	owner, ownerToken := g.Principal("owner", auth.Owner)
	c, ctx := pb.NewAdminServiceClient(g.Dial()), Bearer(token)
	waiting := NewKey(t)
	_, _ = g.me(waiting.Sign()) // makes a principal that waits
	pending := g.principals(auth.PrincipalFilter{Status: auth.Pending})[0]
	member, _ := g.Principal("member", auth.Member)
	revoked, _ := g.Principal("revoked")
	if err := g.Identity().Revoke(Ctx(), revoked.ID); err != nil {
		t.Fatal(err)
	}

	for _, x := range []struct {
		r    *pb.CreateTokenRequest
		code codes.Code
		text string
	}{
		{&pb.CreateTokenRequest{}, codes.InvalidArgument, "principal_id required"},
		{&pb.CreateTokenRequest{PrincipalId: "nobody"}, codes.NotFound, "principal not found"},
		{&pb.CreateTokenRequest{PrincipalId: pending.ID}, codes.FailedPrecondition, "principal status is pending, must be approved"},
		{&pb.CreateTokenRequest{PrincipalId: revoked.ID}, codes.FailedPrecondition, "principal status is revoked, must be approved"},
		{&pb.CreateTokenRequest{PrincipalId: member.ID, TtlSeconds: 31_536_001}, codes.InvalidArgument, "ttl_seconds exceeds maximum of 31536000"},
		{&pb.CreateTokenRequest{PrincipalId: member.ID, TtlSeconds: 1<<63 - 1}, codes.InvalidArgument, "ttl_seconds exceeds maximum of 31536000"},
		{&pb.CreateTokenRequest{PrincipalId: owner.ID}, codes.PermissionDenied, owner.ID + " has the role owner: only an owner may do this"},
	} {
		_, err := c.CreateToken(ctx, x.r)
		exactly(t, "CreateToken "+x.r.String(), err, x.code, x.text)
	}
	for ttl, want := range map[int64]time.Duration{0: 30 * 24 * time.Hour, -5: 30 * 24 * time.Hour, -1 << 63: 30 * 24 * time.Hour, 60: time.Minute, 31_536_000: 365 * 24 * time.Hour} {
		r, err := c.CreateToken(ctx, &pb.CreateTokenRequest{PrincipalId: member.ID, TtlSeconds: ttl})
		if err != nil {
			t.Errorf("ttl %d: %v", ttl, err)
			continue
		}
		if at, err := time.Parse("2006-01-02T15:04:05Z", r.GetExpiresAt()); err != nil || time.Until(at) > want || time.Until(at) < want-time.Minute {
			t.Errorf("ttl %d: expires_at %q", ttl, r.GetExpiresAt())
		}
		if m, err := g.me(Bearer(r.GetToken())); err != nil || m.GetPrincipalId() != member.ID {
			t.Errorf("ttl %d: %v %v", ttl, m, err)
		}
	}

	key := NewKey(t)
	create := func(kind, name string, edit ...func(*pb.CreatePrincipalRequest)) *pb.CreatePrincipalRequest {
		r := &pb.CreatePrincipalRequest{Type: kind, DisplayName: name}
		for _, f := range edit {
			f(r)
		}
		return r
	}
	pubkey := func(s string) func(*pb.CreatePrincipalRequest) {
		return func(r *pb.CreatePrincipalRequest) { r.Pubkey = &s }
	}
	fingerprint := func(s string) func(*pb.CreatePrincipalRequest) {
		return func(r *pb.CreatePrincipalRequest) { r.PubkeyFp = &s }
	}
	roles := func(words ...string) func(*pb.CreatePrincipalRequest) {
		return func(r *pb.CreatePrincipalRequest) { r.Roles = words }
	}
	first, err := c.CreatePrincipal(ctx, create("agent", "first", pubkey(key.Line()), roles("member", "leader")))
	if err != nil || first.GetType() != "agent" || first.GetStatus() != "approved" || first.GetDisplayName() != "first" || first.GetPubkeyFp() != key.Fingerprint() ||
		len(first.GetRoles()) != 2 || first.GetId() == "" {
		t.Errorf("%v %v", first, err)
	}
	if _, err := time.Parse(time.RFC3339, first.GetCreatedAt()); err != nil {
		t.Error(err)
	}
	for _, x := range []struct {
		r    *pb.CreatePrincipalRequest
		code codes.Code
		text string
	}{
		{create("x", "n"), codes.InvalidArgument, "invalid type: x (use 'client', 'agent' or 'pack')"},
		{create("", "n"), codes.InvalidArgument, "invalid type:  (use 'client', 'agent' or 'pack')"},
		{create("client", ""), codes.InvalidArgument, "display_name required"},
		{create("agent", "n"), codes.InvalidArgument, "agent principals require pubkey or pubkey_fp"},
		{create("agent", "n", pubkey("no key")), codes.InvalidArgument, "invalid pubkey: the public key is not an authorized_keys line"},
		{create("agent", "n", fingerprint("no key")), codes.InvalidArgument, "fingerprint must be 64 hex characters (SHA256)"},
		{create("agent", "n", fingerprint(strings.Repeat("g", 64))), codes.InvalidArgument, "fingerprint must be valid hex characters"},
		{create("agent", "n", fingerprint(key.Fingerprint())), codes.AlreadyExists, "pubkey already registered to another principal"},
		{create("client", "n", fingerprint(strings.ToUpper(key.Fingerprint()))), codes.AlreadyExists, "pubkey already registered to another principal"},
		{create("client", "n", roles("king")), codes.InvalidArgument, `role must be owner, admin, member or leader; got "king"`},
		{create("client", "n", roles("owner")), codes.PermissionDenied, "the role owner can be granted only by those who have it"},
	} {
		_, err := c.CreatePrincipal(ctx, x.r)
		exactly(t, "CreatePrincipal "+x.r.String(), err, x.code, x.text)
	}

	for _, x := range []struct {
		id   string
		code codes.Code
		text string
	}{
		{"", codes.InvalidArgument, "id required"},
		{"nobody", codes.NotFound, "principal not found"},
		{admin.ID, codes.FailedPrecondition, "you cannot delete yourself"},
		{owner.ID, codes.PermissionDenied, owner.ID + " has the role owner: only an owner may do this"},
	} {
		_, err := c.DeletePrincipal(ctx, &pb.DeletePrincipalRequest{Id: x.id})
		exactly(t, "DeletePrincipal "+x.id, err, x.code, x.text)
	}
	if _, err := c.DeletePrincipal(Bearer(ownerToken), &pb.DeletePrincipalRequest{Id: first.GetId()}); err != nil {
		t.Error(err)
	}

	list := func(kind, status string) (names []string) {
		t.Helper()
		resp, err := c.ListPrincipals(ctx, &pb.ListPrincipalsRequest{Type: &kind, Status: &status})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.GetPrincipals() {
			names = append(names, p.GetDisplayName()+" "+p.GetStatus())
		}
		return names
	}
	waits := pending.Name + " pending"
	for _, x := range []struct{ kind, status, want string }{
		{"", "", "revoked revoked,member approved," + waits + ",owner approved,admin online"}, // the newest first
		{"agent", "", waits},
		{"", "pending", waits},
		{"", "online", "admin online"},
		{"", "revoked", "revoked revoked"},
		{"agent", "revoked", ""},
		{"king", "", ""},
		{"", "asleep", ""},
	} {
		if got := strings.Join(list(x.kind, x.status), ","); got != x.want {
			t.Errorf("type %q, status %q: %s, want %s", x.kind, x.status, got, x.want)
		}
	}
	for i := range 110 {
		if _, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(list("client", "approved")); n != 113 {
		t.Errorf("a list of 113 has %d", n)
	}
}

// TestLiteralsAreTrailersOnly: an agent learns that its key is not known only when the call itself
// fails, before headers (grpc.md 2.6); and it says nothing before headers have come (grpc.md 0).
func TestLiteralsAreTrailersOnly(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Disabled })
	_, token := g.Principal("me", auth.Member)
	conn := g.Dial()
	open := func(ctx context.Context, method string) (metadata.MD, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Header() // nil where the answer has none
		if err != nil || h != nil {
			return h, err
		}
		return nil, s.RecvMsg(&emptypb.Empty{})
	}
	for method, ctx := range map[string]context.Context{
		"/coven.CovenControl/AgentStream":                                NewKey(t).Sign(),
		"/coven.ClientService/StreamEvents":                              NewKey(t).Sign(),
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      NewKey(t).Sign(),
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": NewKey(t).Sign(),
	} {
		h, err := open(ctx, method)
		if h != nil {
			t.Errorf("%s: headers %v before the refusal", method, h)
		}
		exactly(t, method, err, codes.Unauthenticated, "unknown public key")
		h, err = open(context.Background(), method)
		if h != nil {
			t.Errorf("%s: headers %v before the refusal", method, h)
		}
		exactly(t, method, err, codes.Unauthenticated, "missing authorization header")
	}
	if h, err := open(Bearer(token), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"); h != nil {
		t.Errorf("headers %v before the refusal", h)
	} else {
		exactly(t, "reflection for a member", err, codes.PermissionDenied, "admin role required")
	}
	if h, err := open(Bearer(token), "/coven.CovenControl/AgentStream"); h == nil || err != nil {
		t.Errorf("an agent that waits for headers got %v %v", h, err)
	}
	var h metadata.MD
	if err := conn.Invoke(context.Background(), "/coven.ClientService/GetMe", &emptypb.Empty{}, &emptypb.Empty{}, grpc.Header(&h)); err == nil || len(h) > 0 {
		t.Errorf("GetMe: headers %v, error %v", h, err)
	}
}

// web makes a request over HTTP.
func (g *Gateway) web(method, path, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	return g.request(method, path, "", body, header...)
}

// TestLiteralsOfHTTP: http.md 1.5.
func TestLiteralsOfHTTP(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Pending })
	_, token := g.Principal("me", auth.Member)
	gone, lost := g.Principal("gone")
	if err := g.Identity().Delete(Ctx(), gone.ID); err != nil {
		t.Fatal(err)
	}
	revoked, revokedToken := g.Principal("revoked")
	if err := g.Identity().Revoke(Ctx(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	_, _ = g.me(NewKey(t).Sign()) // makes a principal that waits
	pending := g.principals(auth.PrincipalFilter{Status: auth.Pending})[0]
	waits := signed(t, jwt.SigningMethodHS256, jwt.MapClaims{"sub": pending.ID, "exp": time.Now().Add(time.Hour).Unix()})
	for _, c := range []struct {
		header string
		status int
		text   string
	}{
		{"", http.StatusUnauthorized, "missing authorization header"},
		{"Basic bWU6bWU=", http.StatusUnauthorized, "invalid authorization header format"},
		{"bearer " + token, http.StatusUnauthorized, "invalid authorization header format"},
		{"Bearer ", http.StatusUnauthorized, "empty token"},
		{"Bearer garbage", http.StatusUnauthorized, "invalid token"},
		{"Bearer " + signed(t, jwt.SigningMethodHS256, jwt.MapClaims{"sub": pending.ID, "exp": 1}), http.StatusUnauthorized, "invalid token"},
		{"Bearer " + lost, http.StatusUnauthorized, "principal not found"},
		{"Bearer " + waits, http.StatusForbidden, "principal status is pending"},
		{"Bearer " + revokedToken, http.StatusForbidden, "principal has been revoked"},
		{"Bearer " + token, http.StatusForbidden, "admin role required"},
	} {
		// From inside, because HTTP takes blanks from the end of a header.
		r := httptest.NewRequest(http.MethodGet, "/api/admin/principals", nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, r)
		checkJSONError(t, c.header, w.Result(), w.Body.String(), c.status, c.text)
		if strings.HasSuffix(c.header, " ") {
			continue
		}
		resp, body := g.web(http.MethodGet, "/api/admin/principals", "", "Authorization", c.header)
		checkJSONError(t, c.header, resp, body, c.status, c.text)
	}
}

func checkJSONError(t *testing.T, what string, resp *http.Response, body string, status int, text string) {
	t.Helper()
	var e struct{ Error, Code string }
	if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != status || e.Error != text || !strings.HasSuffix(body, "\n") ||
		resp.Header.Get("Content-Type") != "application/json" || (status == http.StatusUnauthorized) != (resp.Header.Get("WWW-Authenticate") == "Bearer") {
		t.Errorf("%q: got %s %q %v, want %d %q", what, resp.Status, body, resp.Header, status, text)
	}
}

// TestLiteralsOfLinks: http.md 1.3; coven-link prints the text of a refusal as it is.
func TestLiteralsOfLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		plain := func(what string, resp *http.Response, body string, status int, text string) {
			t.Helper()
			if resp.StatusCode != status || body != text+"\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: got %s %q %v, want %d %q", what, resp.Status, body, resp.Header, status, text)
			}
		}
		fp := fresh()
		for _, c := range []struct{ body, text string }{
			{"", "Invalid request body"},
			{"{", "Invalid request body"},
			{`{"fingerprint":1}`, "Invalid request body"},
			{"{}", "fingerprint and device_name required"},
			{`{"fingerprint":"` + fp + `"}`, "fingerprint and device_name required"},
			{`{"device_name":"d"}`, "fingerprint and device_name required"},
			{`{"fingerprint":"` + fp[1:] + `","device_name":"d"}`, "invalid fingerprint format (expected 64 hex chars)"},
			{`{"fingerprint":"` + strings.Repeat("g", 64) + `","device_name":"d"}`, "invalid fingerprint format (expected 64 hex chars)"},
		} {
			resp, body := g.web(http.MethodPost, "/api/link/request", c.body)
			plain(c.body, resp, body, http.StatusBadRequest, c.text)
		}
		request := func() string {
			t.Helper()
			resp, body := g.web(http.MethodPost, "/api/link/request", `{"fingerprint":"`+fp+`","device_name":"my laptop"}`)
			var a struct {
				Code    string
				Expires string `json:"expires_at"`
			}
			if err := json.Unmarshal([]byte(body), &a); err != nil || resp.StatusCode != http.StatusOK ||
				!regexp.MustCompile("^[A-HJ-NP-Z2-9]{6}$").MatchString(a.Code) || a.Expires != time.Now().UTC().Add(10*time.Minute).Format("2006-01-02T15:04:05Z") {
				t.Fatalf("%s %s", resp.Status, body)
			}
			return a.Code
		}
		poll := func(code, want string) string {
			t.Helper()
			resp, body := g.web(http.MethodGet, "/api/link/status/"+code, "")
			if resp.StatusCode != http.StatusOK || !regexp.MustCompile("^"+want+"\n$").MatchString(body) {
				t.Errorf("%s %s, want %s", resp.Status, body, want)
			}
			return body
		}
		resp, body := g.web(http.MethodGet, "/api/link/status/ABCDEF", "")
		plain("a code that nobody was given", resp, body, http.StatusNotFound, "Code not found")
		code := request()
		poll(code, `{"status":"pending"}`)
		resp, body = g.web(http.MethodGet, "/api/link/status/"+strings.ToLower(code), "")
		plain("a code in small letters", resp, body, http.StatusNotFound, "Code not found")

		l, err := g.Identity().ApproveLink(Ctx(), code, false)
		if err != nil {
			t.Fatal(err)
		}
		var a struct{ Token string }
		if err := json.Unmarshal([]byte(poll(code, `{"principal_id":"`+l.PrincipalID+`","status":"approved","token":"[^"]+"}`)), &a); err != nil {
			t.Fatal(err)
		}
		if m, err := g.me(Bearer(a.Token)); err != nil || m.GetPrincipalId() != l.PrincipalID || strings.Join(m.GetRoles(), ",") != "member" {
			t.Errorf("%v %v", m, err)
		}
		poll(code, `{"principal_id":"`+l.PrincipalID+`","status":"approved","token":"`+regexp.QuoteMeta(a.Token)+`"}`) // the answer may have got lost
		time.Sleep(31 * time.Second)                                                                                   // of the bubble
		poll(code, `{"status":"expired"}`)

		denied, late := request(), request()
		if err := g.Identity().DenyLink(Ctx(), denied); err != nil {
			t.Fatal(err)
		}
		poll(denied, `{"status":"expired"}`)
		time.Sleep(10 * time.Minute) // of the bubble
		poll(late, `{"status":"expired"}`)
	})
}
