package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestHolesOfOpenMode: what other gateways leave open, or keep from their users, when they ask
// nobody for credentials (grpc.md 11.5, http.md 10.B).
func TestHolesOfOpenMode(t *testing.T) {
	g := New(t)
	t.Run("everybody is somebody", func(t *testing.T) {
		if m, err := g.me(context.Background()); err != nil || m.GetPrincipalId() != "anonymous" || m.GetStatus() != "approved" || strings.Join(m.GetRoles(), "") != "owner" {
			t.Errorf("%v %v", m, err)
		}
	})
	t.Run("principals and tokens can be made", func(t *testing.T) {
		c := pb.NewAdminServiceClient(g.Dial())
		p, err := c.CreatePrincipal(context.Background(), &pb.CreatePrincipalRequest{Type: "client", DisplayName: "later"})
		must(t, err)
		token, err := c.CreateToken(context.Background(), &pb.CreateTokenRequest{PrincipalId: p.GetId()})
		if err != nil || token.GetToken() == "" {
			t.Errorf("%v %v", token, err)
		}
		all, err := c.ListPrincipals(context.Background(), &pb.ListPrincipalsRequest{})
		if err != nil || len(all.GetPrincipals()) != 1 {
			t.Errorf("%v %v", all, err)
		}
		_, err = c.DeletePrincipal(context.Background(), &pb.DeletePrincipalRequest{Id: p.GetId()})
		must(t, err)
	})
	t.Run("not behind a proxy, and under no other name", func(t *testing.T) {
		for _, header := range [][2]string{{"X-Forwarded-For", "127.0.0.1"}, {"Forwarded", "for=127.0.0.1"}, {"Origin", "https://evil.example"}} {
			if resp, body := g.web(http.MethodPost, "/api/admin/principals", `{"type":"client","display_name":"evil"}`, header[0], header[1]); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%v: %s %s", header, resp.Status, body)
			}
		}
		req, err := http.NewRequest(http.MethodGet, g.URL+"/api/admin/principals", nil)
		must(t, err)
		req.Host = "evil.example" // a name that was made to lead to this machine
		resp, err := g.Client.Do(req)
		must(t, err)
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Error(resp.Status)
		}
	})
	t.Run("tokens of open mode are worth nothing later", func(t *testing.T) {
		_, token := g.Principal("early", auth.Owner)
		g.cfg.Auth.JWTSecrets = []config.Secret{JWTSecret}
		g.Restart()
		_, err := g.me(Bearer(token))
		exactly(t, "a token", err, codes.Unauthenticated, "invalid or expired token")
	})
}

// TestHolesOfPrincipals: what other gateways get wrong about principals (grpc.md 11.5).
func TestHolesOfPrincipals(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	admin, token := g.Principal("admin", auth.Admin)
	owner, ownerToken := g.Principal("owner", auth.Owner)
	c, ctx := pb.NewAdminServiceClient(g.Dial()), Bearer(token)

	t.Run("any number without keys", func(t *testing.T) {
		for range 3 {
			_, err := c.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "client", DisplayName: "no key"})
			must(t, err)
		}
	})
	t.Run("packs", func(t *testing.T) {
		k := NewKey(t)
		line := k.Line()
		_, err := c.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "pack", DisplayName: "tools", Pubkey: &line})
		must(t, err)
		if m, err := g.me(k.Sign()); err != nil || m.GetPrincipalType() != "pack" {
			t.Errorf("%v %v", m, err)
		}
	})
	t.Run("fingerprints in capitals", func(t *testing.T) {
		k, second, third := NewKey(t), NewKey(t), NewKey(t)
		fp := strings.ToUpper(k.Fingerprint())
		p, err := c.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "agent", DisplayName: "a", PubkeyFp: &fp})
		must(t, err)
		resp, body := g.web(http.MethodPost, "/api/admin/principals/"+p.GetId()+"/keys", `{"pubkey_fp":"`+strings.ToUpper(second.Fingerprint())+`"}`, "Authorization", "Bearer "+token)
		if resp.StatusCode != http.StatusCreated {
			t.Fatal(body)
		}
		for _, k := range []Key{k, second} {
			if m, err := g.me(k.Sign()); err != nil || m.GetPrincipalId() != p.GetId() {
				t.Errorf("%v %v", m, err)
			}
		}
		l, err := g.Identity().RequestLink(ctx, auth.LinkRequest{Fingerprint: strings.ToUpper(third.Fingerprint()), DeviceName: "d"})
		must(t, err)
		linked, err := g.Identity().ApproveLink(Ctx(), l.Code, false)
		must(t, err)
		if m, err := g.me(third.Sign()); err != nil || m.GetPrincipalId() != linked.PrincipalID {
			t.Errorf("%v %v", m, err)
		}
	})
	t.Run("nothing is made of a request that is wrong", func(t *testing.T) {
		before := len(g.principals(auth.PrincipalFilter{}))
		_, err := c.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "client", DisplayName: "n", Roles: []string{"member", "king"}})
		refused(t, err, codes.InvalidArgument, "role must be")
		_, err = c.CreatePrincipal(ctx, &pb.CreatePrincipalRequest{Type: "client", DisplayName: "n", Roles: []string{"member", "owner"}})
		refused(t, err, codes.PermissionDenied, "the role owner can be granted only")
		if after := len(g.principals(auth.PrincipalFilter{})); after != before {
			t.Errorf("there were %d principals, and now %d", before, after)
		}
	})
	t.Run("an admin has no power over owners", func(t *testing.T) {
		k := NewKey(t)
		must(t, g.Identity().TransferAgent(Ctx(), "of the owner", owner.ID))
		_, ownersToken, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: owner.ID})
		must(t, err)
		l, err := g.Identity().RequestLink(ctx, auth.LinkRequest{Fingerprint: fresh(), DeviceName: "d"})
		must(t, err)
		_, err = g.Identity().AddKey(Ctx(), owner.ID, "", l.Fingerprint)
		must(t, err)
		on := "/api/admin/principals/" + owner.ID
		for _, r := range [][3]string{
			{http.MethodDelete, on},
			{http.MethodPost, on + "/revoke"},
			{http.MethodPost, on + "/approve"},
			{http.MethodPatch, on, `{"display_name":"x"}`},
			{http.MethodPut, on + "/roles/member"},
			{http.MethodDelete, on + "/roles/owner"},
			{http.MethodPut, on + "/capabilities/x"},
			{http.MethodDelete, on + "/capabilities/x"},
			{http.MethodPost, on + "/keys", `{"pubkey_fp":"` + k.Fingerprint() + `"}`},
			{http.MethodDelete, on + "/keys/" + l.Fingerprint},
			{http.MethodPost, "/api/admin/tokens", `{"principal_id":"` + owner.ID + `"}`},
			{http.MethodDelete, "/api/admin/tokens/" + ownersToken.ID},
			{http.MethodPost, "/api/admin/agents/of%20the%20owner/transfer", `{"principal_id":"` + admin.ID + `"}`},
			{http.MethodDelete, "/api/admin/agents/of%20the%20owner/ownership"},
			{http.MethodPost, "/api/admin/agents/new/transfer", `{"principal_id":"` + owner.ID + `"}`},
			{http.MethodPost, "/api/admin/link/" + l.Code + "/approve", `{"known":true}`},
			{http.MethodPut, "/api/admin/principals/" + admin.ID + "/roles/owner"},
			{http.MethodPost, "/api/admin/principals", `{"type":"client","display_name":"n","roles":["owner"]}`},
		} {
			if resp, body := g.web(r[0], r[1], r[2], "Authorization", "Bearer "+token); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%v: %s %s", r, resp.Status, body)
			}
		}
	})
	t.Run("nobody removes himself or the last owner", func(t *testing.T) {
		for _, r := range [][2]string{
			{http.MethodDelete, "/api/admin/principals/" + owner.ID},
			{http.MethodPost, "/api/admin/principals/" + owner.ID + "/revoke"},
			{http.MethodDelete, "/api/admin/principals/" + owner.ID + "/roles/owner"},
		} {
			if resp, body := g.web(r[0], r[1], "", "Authorization", "Bearer "+ownerToken); resp.StatusCode != http.StatusConflict {
				t.Errorf("%v: %s %s", r, resp.Status, body)
			}
		}
		if p, err := g.Identity().Principal(Ctx(), owner.ID); err != nil || !p.Has(auth.Owner) || p.Status != auth.Approved {
			t.Errorf("%+v %v", p, err)
		}
	})
	t.Run("nothing is left of a deleted one", func(t *testing.T) {
		k := NewKey(t)
		p, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "gone", Fingerprint: k.Fingerprint(), Roles: []auth.Role{auth.Admin}})
		must(t, err)
		_, err = c.DeletePrincipal(ctx, &pb.DeletePrincipalRequest{Id: p.ID})
		must(t, err)
		if m, err := g.me(k.Sign()); err != nil || m.GetPrincipalId() == p.ID || strings.Join(m.GetRoles(), ",") != "member" {
			t.Errorf("the same key is now %v %v", m, err)
		}
	})
	t.Run("a token for one that is online", func(t *testing.T) {
		k := NewKey(t)
		a := g.ConnectAs(k.Sign(), "here")
		id := a.next().GetWelcome().GetPrincipalId()
		online := "online"
		all, err := c.ListPrincipals(ctx, &pb.ListPrincipalsRequest{Status: &online})
		if err != nil || !slices.ContainsFunc(all.GetPrincipals(), func(p *pb.Principal) bool { return p.GetId() == id && p.GetStatus() == "online" }) {
			t.Errorf("%v %v", all, err)
		}
		_, err = c.CreateToken(ctx, &pb.CreateTokenRequest{PrincipalId: id})
		must(t, err)
	})
}

// TestHolesOfCredentials: what other gateways get wrong about credentials (grpc.md 11.5).
func TestHolesOfCredentials(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.AgentAutoRegistration = config.Approved })
	p, token := g.Principal("me", auth.Member)
	t.Run("tokens that are signed otherwise, or for ever", func(t *testing.T) {
		end := time.Now().Add(time.Hour).Unix()
		for what, x := range map[string]string{
			"HS384":    signed(t, jwt.SigningMethodHS384, jwt.MapClaims{"sub": p.ID, "exp": end}),
			"HS512":    signed(t, jwt.SigningMethodHS512, jwt.MapClaims{"sub": p.ID, "exp": end}),
			"unsigned": signed(t, jwt.SigningMethodNone, jwt.MapClaims{"sub": p.ID, "exp": end}),
			"no end":   signed(t, jwt.SigningMethodHS256, jwt.MapClaims{"sub": p.ID}),
		} {
			_, err := g.me(Bearer(x))
			exactly(t, what, err, codes.Unauthenticated, "invalid or expired token")
		}
	})
	t.Run("a stranger cannot use up a signature", func(t *testing.T) {
		proof := NewKey(t).Proof(time.Now())
		bad := proof
		bad.Signature = NewKey(t).Proof(time.Now()).Signature
		for range 3 {
			_, err := g.me(Show(bad))
			exactly(t, "a wrong signature", err, codes.Unauthenticated, "SSH auth failed: signature verification failed")
		}
		_, err := g.me(Show(proof))
		must(t, err)
	})
	t.Run("parallel first calls of a key", func(t *testing.T) {
		k := NewKey(t)
		ids := make(chan string, 8)
		conn := pb.NewClientServiceClient(g.Dial())
		var wg sync.WaitGroup
		for range cap(ids) {
			ctx := k.Sign()
			wg.Go(func() {
				m, err := conn.GetMe(ctx, &emptypb.Empty{})
				if err != nil {
					t.Error(err)
				}
				ids <- m.GetPrincipalId()
			})
		}
		wg.Wait()
		first := <-ids
		for range cap(ids) - 1 {
			if id := <-ids; id != first {
				t.Errorf("one key is %s and %s", first, id)
			}
		}
	})
	t.Run("one that registered itself may register others", func(t *testing.T) {
		_, err := pb.NewClientServiceClient(g.Dial()).RegisterAgent(NewKey(t).Sign(), &pb.RegisterAgentRequest{DisplayName: "a", Fingerprint: fresh()})
		must(t, err)
	})
	t.Run("registrations are limited, logins are not", func(t *testing.T) {
		known := NewKey(t)
		_, err := g.me(known.Sign())
		must(t, err)
		for i := 0; ; i++ {
			if _, err := g.me(NewKey(t).Sign()); status.Code(err) == codes.ResourceExhausted {
				break
			} else if err != nil || i > 60 {
				t.Fatalf("registration %d: %v", i, err)
			}
		}
		_, err = g.me(known.Sign())
		must(t, err)
		_, err = g.me(Bearer(token))
		must(t, err)
	})
	t.Run("a token for agents is for nothing else", func(t *testing.T) {
		scoped, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, API: true, Scopes: []auth.Scope{auth.ScopeConnect}})
		must(t, err)
		if a := g.ConnectAs(Bearer(scoped), "scoped"); a.next().GetWelcome() == nil {
			t.Error(a.Err())
		}
		_, err = pb.NewClientServiceClient(g.Dial()).ListAgents(Bearer(scoped), &pb.ListAgentsRequest{})
		exactly(t, "ListAgents", err, codes.PermissionDenied, `this token lacks the scope "read"`)
		resp, body := g.web(http.MethodPost, "/api/send", "{}", "Authorization", "Bearer "+scoped)
		checkJSONError(t, "send", resp, body, http.StatusForbidden, `this token lacks the scope "send"`)
	})
	t.Run("a scoped token makes no stronger one", func(t *testing.T) {
		admin, _ := g.Principal("admin", auth.Admin)
		scoped, _, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: admin.ID, API: true, Scopes: []auth.Scope{auth.ScopeAdmin, auth.ScopeRead}})
		must(t, err)
		for _, body := range []string{
			`{"principal_id":"` + admin.ID + `"}`, `{"principal_id":"` + admin.ID + `","kind":"api"}`,
			`{"principal_id":"` + p.ID + `","kind":"api","scopes":["admin","send"]}`,
		} {
			resp, answer := g.web(http.MethodPost, "/api/admin/tokens", body, "Authorization", "Bearer "+scoped)
			checkJSONError(t, body, resp, answer, http.StatusForbidden, "a token cannot have scopes that yours lacks")
		}
	})
	t.Run("rights that end while a call begins", func(t *testing.T) {
		// The call is authenticated, and its rights are gone before it begins.
		for what, lose := range map[string]func(p auth.Principal, k Key) error{
			"the key is removed":       func(p auth.Principal, k Key) error { return g.Identity().RemoveKey(Ctx(), p.ID, k.Fingerprint()) },
			"the principal is revoked": func(p auth.Principal, _ Key) error { return g.Identity().Revoke(Ctx(), p.ID) },
			"the principal is deleted": func(p auth.Principal, _ Key) error { return g.Identity().Delete(Ctx(), p.ID) },
		} {
			k := NewKey(t)
			p, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "p", PublicKey: k.Line()})
			must(t, err)
			caller, err := g.Identity().Authenticate(Ctx(), auth.Credentials{Proof: k.Proof(time.Now()), Address: "192.0.2.1", Connection: 1})
			must(t, err)
			must(t, lose(p, k))
			if _, _, err := g.Identity().Enter(Ctx(), caller); fault.CodeOf(err) != fault.Unauthenticated && fault.CodeOf(err) != fault.Forbidden {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// TestHolesOfLinks: who links a device gets no more than an admin gives (grpc.md 11.5, http.md 10.B).
func TestHolesOfLinks(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) {
		c.Auth.AgentAutoRegistration = config.Pending
		c.Limits.AddressRequestsPerSecond = 5
	})
	_, token := g.Principal("admin", auth.Owner)
	// code asks for a code from inside, so that the limit is left for the test of it.
	code := func(t *testing.T, fingerprint string, proof auth.Proof) string {
		t.Helper()
		l, err := g.Identity().RequestLink(context.Background(), auth.LinkRequest{Fingerprint: fingerprint, DeviceName: "device", Proof: proof, Address: fresh()})
		must(t, err)
		return l.Code
	}
	approve := func(code, body string) (*http.Response, string) {
		return g.web(http.MethodPost, "/api/admin/link/"+code+"/approve", body, "Authorization", "Bearer "+token)
	}
	t.Run("the key of an owner needs proof", func(t *testing.T) {
		k := NewKey(t)
		boss, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: "boss", PublicKey: k.Line(), Roles: []auth.Role{auth.Owner}})
		must(t, err)
		claimed := code(t, k.Fingerprint(), auth.Proof{})
		resp, body := g.web(http.MethodGet, "/api/admin/link", "", "Authorization", "Bearer "+token)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, boss.ID) || !strings.Contains(body, `"proved":false`) || !strings.Contains(body, `"warning"`) {
			t.Errorf("the admin is not warned: %s", body)
		}
		if resp, body := approve(claimed, `{"known":true}`); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s", resp.Status, body)
		}
		proved := code(t, k.Fingerprint(), k.Proof(time.Now()))
		if resp, body := approve(proved, ""); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s %s", resp.Status, body)
		}
		if resp, body := approve(proved, `{"known":true}`); resp.StatusCode != http.StatusOK || !strings.Contains(body, boss.ID) {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("another's proof is none", func(t *testing.T) {
		_, err := g.Identity().RequestLink(context.Background(), auth.LinkRequest{Fingerprint: fresh(), DeviceName: "d", Proof: NewKey(t).Proof(time.Now()), Address: fresh()})
		refused(t, fault.GRPC(err), codes.InvalidArgument, "fingerprint is not that of the key that has signed")
	})
	t.Run("one that waits becomes a member, a revoked one stays out", func(t *testing.T) {
		k := NewKey(t)
		_, err := g.me(k.Sign())
		refused(t, err, codes.PermissionDenied, "pending")
		id := g.principals(auth.PrincipalFilter{Status: auth.Pending})[0].ID
		if resp, body := approve(code(t, k.Fingerprint(), auth.Proof{}), ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, id) {
			t.Errorf("%s %s", resp.Status, body)
		}
		if m, err := g.me(k.Sign()); err != nil || m.GetPrincipalId() != id || strings.Join(m.GetRoles(), ",") != "member" {
			t.Errorf("%v %v", m, err)
		}
		must(t, g.Identity().Revoke(Ctx(), id))
		if resp, body := approve(code(t, k.Fingerprint(), k.Proof(time.Now())), `{"known":true}`); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("a code is decided once", func(t *testing.T) {
		c := code(t, fresh(), auth.Proof{})
		if resp, body := approve(c, ""); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s", resp.Status, body)
		}
		if resp, body := approve(c, `{"known":true}`); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s %s", resp.Status, body)
		}
		if resp, body := g.web(http.MethodPost, "/api/admin/link/"+c+"/deny", "", "Authorization", "Bearer "+token); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("an approval that was taken back", func(t *testing.T) {
		c := code(t, fresh(), auth.Proof{})
		l, err := g.Identity().ApproveLink(Ctx(), c, false)
		must(t, err)
		must(t, g.Identity().Revoke(Ctx(), l.PrincipalID))
		if _, body := g.web(http.MethodGet, "/api/link/status/"+c, ""); strings.Contains(body, "token") {
			t.Error(body)
		}
	})
	t.Run("guessing codes and asking for them is limited", func(t *testing.T) {
		for what, ask := range map[string]func() *http.Response{
			"guesses": func() *http.Response { r, _ := g.web(http.MethodGet, "/api/link/status/AAAAAA", ""); return r },
			"requests": func() *http.Response {
				r, _ := g.web(http.MethodPost, "/api/link/request", `{"fingerprint":"`+fresh()+`","device_name":"d"}`)
				return r
			},
		} {
			for i := 0; ; i++ {
				if r := ask(); r.StatusCode == http.StatusTooManyRequests && r.Header.Get("Retry-After") != "" {
					break
				} else if i > 200 {
					t.Fatalf("%s are not limited: %s", what, r.Status)
				}
			}
		}
		// Whoever polls a code that exists, or has good credentials, is not kept waiting.
		c := code(t, fresh(), auth.Proof{})
		for range 50 {
			if r, body := g.web(http.MethodGet, "/api/link/status/"+c, ""); r.StatusCode != http.StatusOK {
				t.Fatalf("%s %s", r.Status, body)
			}
		}
		if r, body := g.web(http.MethodGet, "/api/me", "", "Authorization", "Bearer "+token); r.StatusCode != http.StatusOK {
			t.Errorf("%s %s", r.Status, body)
		}
	})
	t.Run("wrong credentials are limited", func(t *testing.T) {
		for i := 0; ; i++ {
			if r, _ := g.web(http.MethodGet, "/api/me", "", "Authorization", "Bearer wrong"); r.StatusCode == http.StatusTooManyRequests {
				break
			} else if i > 200 {
				t.Fatal("they are not")
			}
		}
		_, err := g.me(Bearer(token))
		must(t, err)
	})
	t.Run("a code that has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := NewInBubble(t, Locked)
			_, token := g.Principal("admin", auth.Owner)
			l, err := g.Identity().RequestLink(context.Background(), auth.LinkRequest{Fingerprint: fresh(), DeviceName: "d", Address: "192.0.2.1"})
			must(t, err)
			time.Sleep(10 * time.Minute) // of the bubble
			resp, body := g.web(http.MethodPost, "/api/admin/link/"+l.Code+"/approve", "", "Authorization", "Bearer "+token)
			checkJSONError(t, "approval", resp, body, http.StatusConflict, "the code has expired")
		})
	})
}

// TestHolesOfAgents: an agent is who its credentials say and gets what it was given (http.md 10.B).
func TestHolesOfAgents(t *testing.T) {
	g := New(t, Locked)
	victim, victimToken := g.Principal("victim", auth.Member)
	_, evilToken := g.Principal("evil", auth.Member)
	must(t, g.Identity().TransferAgent(Ctx(), "notes", victim.ID))
	_, err := g.Identity().SetSecret(Ctx(), "notes", "API_KEY", "the victim's secret")
	must(t, err)
	ask := func(r *pb.RegisterAgent) { r.Capabilities = []string{"base", "admin", "leader", "mine"} }

	first := g.ConnectAs(Bearer(victimToken), "notes")
	if w := first.next().GetWelcome(); w.GetSecrets()["API_KEY"] != "the victim's secret" || w.GetPrincipalId() != victim.ID {
		t.Fatalf("%v", w)
	}
	t.Run("another's id", func(t *testing.T) {
		exactly(t, "while it is used", g.ConnectAs(Bearer(evilToken), "notes").Err(), codes.AlreadyExists, "agent notes already registered")
		first.Die()
		_ = first.Err()
		exactly(t, "while it is not", g.ConnectAs(Bearer(evilToken), "notes").Err(), codes.AlreadyExists, "agent notes already registered")
	})
	t.Run("secrets of others", func(t *testing.T) {
		a := g.ConnectAs(Bearer(evilToken), "notes2")
		if w := a.next().GetWelcome(); w == nil || len(w.GetSecrets()) > 0 {
			t.Errorf("%v", w)
		}
	})
	t.Run("capabilities and roles that it gives itself", func(t *testing.T) {
		a := g.ConnectAs(Bearer(evilToken), "evil", ask)
		if a.next().GetWelcome() == nil {
			t.Fatal(a.Err())
		}
		_, body := g.web(http.MethodGet, "/api/agents", "", "Authorization", "Bearer "+evilToken)
		var list []struct {
			ID           string
			Capabilities []string
		}
		must(t, json.Unmarshal([]byte(body), &list))
		for _, x := range list {
			if x.ID == "evil" && strings.Join(x.Capabilities, ",") != "base" {
				t.Errorf("%v", x)
			}
		}
		if m, err := g.me(Bearer(evilToken)); err != nil || strings.Join(m.GetRoles(), ",") != "member" {
			t.Errorf("%v %v", m, err)
		}
	})
	t.Run("messages under another's name", func(t *testing.T) {
		a := g.ConnectAs(Bearer(victimToken), "notes")
		a.next()
		go func() { m := a.Message(); a.Done(m.RequestId, "ok") }()
		resp, body := g.web(http.MethodPost, "/api/send", `{"agent_id":"notes","sender":"victim","content":"hi","principal_id":"`+victim.ID+`"}`,
			"Authorization", "Bearer "+evilToken, "Accept", "application/json")
		var turn struct {
			Principal string `json:"principal_id"`
		}
		must(t, json.Unmarshal([]byte(body), &turn))
		if resp.StatusCode != http.StatusOK || turn.Principal == victim.ID || turn.Principal == "" {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("secrets where they are kept", func(t *testing.T) {
		_, admin := g.Principal("admin", auth.Admin)
		for _, path := range []string{"/api/admin/secrets", "/api/admin/audit", "/api/admin/audit/export"} {
			if resp, body := g.web(http.MethodGet, path, "", "Authorization", "Bearer "+admin); resp.StatusCode != http.StatusOK || strings.Contains(body, "the victim's secret") {
				t.Errorf("%s: %s %s", path, resp.Status, body)
			}
		}
		dir := g.cfg.DataDir
		g.Stop()
		defer g.Start()
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "files") {
				t.Errorf("%s has the mode %v", path, info.Mode())
			}
			b, err := os.ReadFile(path)
			for _, s := range []string{"the victim's secret", victimToken, JWTSecret} {
				if bytes.Contains(b, []byte(s)) {
					t.Errorf("%s contains %q", path, s)
				}
			}
			return err
		}))
	})
}

// TestHolesOfHTTP: what other gateways leave open in front (http.md 10.B).
func TestHolesOfHTTP(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) {
		c.Limits.RequestsPerSecond = 20
		c.Limits.RequestBody = 64 << 10
	})
	_, token := g.Principal("me", auth.Member)
	t.Run("no second door", func(t *testing.T) {
		for _, path := range []string{"/webauthn/login/begin", "/logout", "/static/", "/static/.vite/manifest.json"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if resp, body := g.web(method, path, ""); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
					t.Errorf("%s %s: %s %s", method, path, resp.Status, body)
				}
			}
		}
		_, chat := g.web(http.MethodGet, "/", "")
		for _, path := range []string{"/setup", "/login", "/account"} { // they are the same page, which knows nothing
			if resp, body := g.web(http.MethodGet, path, ""); resp.StatusCode != http.StatusOK || body != chat {
				t.Errorf("GET %s: %s %s", path, resp.Status, body)
			}
			if resp, body := g.web(http.MethodPost, path, ""); resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("POST %s: %s %s", path, resp.Status, body)
			}
		}
	})
	t.Run("headers on every answer", func(t *testing.T) {
		for _, path := range []string{"/", "/invite/x", "/static/none", "/api/me", "/api/none", "/api/admin/secrets", "/health", "/none", "/api/link/status/AAAAAA"} {
			for _, credentials := range []string{"", "Bearer " + token} {
				resp, _ := g.web(http.MethodGet, path, "", "Authorization", credentials)
				h := resp.Header
				if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
					!strings.HasPrefix(h.Get("Cache-Control"), "no-") || (strings.HasPrefix(path, "/api/") && h.Get("Cache-Control") != "no-store") {
					t.Errorf("%s: %v", path, h)
				}
				if h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s is for every page: %v", path, h)
				}
			}
		}
	})
	t.Run("bodies are bounded", func(t *testing.T) {
		big := `{"agent_id":"a","sender":"me","content":"` + strings.Repeat("x", 65<<10) + `"}`
		if resp, body := g.web(http.MethodPost, "/api/send", big, "Authorization", "Bearer "+token); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s %s", resp.Status, body)
		}
		if resp, body := g.web(http.MethodPost, "/api/link/request", `{"fingerprint":"`+big); resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("%s %s", resp.Status, body)
		}
	})
	t.Run("requests are limited", func(t *testing.T) {
		for i := 0; ; i++ {
			resp, body := g.web(http.MethodGet, "/api/me", "", "Authorization", "Bearer "+token)
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" {
				break
			} else if resp.StatusCode != http.StatusOK || i > 1000 {
				t.Fatalf("request %d: %s %s", i, resp.Status, body)
			}
		}
		_, other := g.Principal("other")
		if resp, body := g.web(http.MethodGet, "/api/me", "", "Authorization", "Bearer "+other); resp.StatusCode != http.StatusOK {
			t.Errorf("somebody else: %s %s", resp.Status, body)
		}
	})
}

// A follower reads a stream of events.
type follower struct {
	t    *testing.T
	body io.Closer
	r    *sse.Reader
}

// follow opens the stream of an agent's conversation.
func (g *Gateway) follow(t *testing.T, token, agent string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/api/conversations/"+agent+"/events", nil)
	must(t, err)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := g.Client.Do(req)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	return &follower{t, resp.Body, sse.NewReader(resp.Body)}
}

// until reads on until an event contains a text. It fails when one with a forbidden text comes.
func (f *follower) until(text, never string) {
	f.t.Helper()
	for {
		e, err := f.r.Next()
		if err != nil {
			f.t.Fatalf("no %q: %v", text, err)
		}
		if never != "" && bytes.Contains(e.Data, []byte(never)) {
			f.t.Errorf("it shows %s", e.Data)
		}
		if bytes.Contains(e.Data, []byte(text)) {
			return
		}
	}
}

// ends checks that the stream ends and shows nothing with a text.
func (f *follower) ends(never string) {
	f.t.Helper()
	for {
		e, err := f.r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			f.t.Fatalf("the stream goes on: %v", err)
		}
		if never != "" && bytes.Contains(e.Data, []byte(never)) {
			f.t.Errorf("it shows %s", e.Data)
		}
	}
}

// say begins a turn from inside.
func (g *Gateway) say(t *testing.T, p auth.Principal, agent, text string) string {
	t.Helper()
	turn, err := g.Conversations().Send(auth.With(context.Background(), p), conversation.SendRequest{AgentID: agent, Sender: "me", Text: text})
	must(t, err)
	return turn.ID
}

// ended waits for the end of a turn.
func (g *Gateway) ended(t *testing.T, turn string) conversation.Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(Ctx(), Patience)
	defer cancel()
	x, err := g.Conversations().Turn(ctx, turn)
	must(t, err)
	r, err := g.Conversations().Reader(ctx, x.AgentID, conversation.Filter{TurnID: turn}, 0)
	must(t, err)
	defer r.Close()
	for {
		evs, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("turn %s does not end: %v", turn, err)
		}
		for _, e := range evs {
			if _, ok := e.Body.(conversation.Ended); ok {
				x, err := g.Conversations().Turn(ctx, turn)
				must(t, err)
				return x
			}
		}
	}
}

// TestHolesOfStreams: whoever loses rights loses what goes on with them, at once and nothing else.
func TestHolesOfStreams(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Agents.ReconnectGracePeriod = time.Millisecond })
	_, hostToken := g.Principal("host", auth.Member)
	host := g.ConnectAs(Bearer(hostToken), "host")
	host.next()
	bystander, _ := g.Principal("bystander", auth.Member)

	for what, lose := range map[string]func(string) error{
		"a revoked principal": func(id string) error { return g.Identity().Revoke(Ctx(), id) },
		"a deleted principal": func(id string) error { return g.Identity().Delete(Ctx(), id) },
	} {
		t.Run(what, func(t *testing.T) {
			p, token := g.Principal("p", auth.Member)
			name := strings.ReplaceAll(what, " ", "-")
			a := g.ConnectAs(Bearer(token), name)
			a.next()
			mine, others := g.say(t, p, "host", "mine"), g.say(t, bystander, "host", "other")
			served := g.say(t, bystander, name, "to the lost agent")
			f := g.follow(t, token, "host")
			f.until("mine", "other")

			must(t, lose(p.ID))
			f.ends("")
			exactly(t, "the agent", a.Err(), codes.PermissionDenied, "principal has been revoked")
			if x := g.ended(t, mine); x.State != conversation.Cancelled {
				t.Errorf("%+v", x)
			}
			if x := g.ended(t, served); x.State != conversation.Interrupted {
				t.Errorf("%+v", x)
			}
			if x, err := g.Conversations().Turn(Ctx(), others); err != nil || x.State != conversation.Open {
				t.Errorf("somebody else's turn: %+v %v", x, err)
			}
			if resp, _ := g.web(http.MethodGet, "/api/me", "", "Authorization", "Bearer "+token); resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnauthorized {
				t.Error(resp.Status)
			}
		})
	}

	t.Run("a revoked token", func(t *testing.T) {
		p, kept := g.Principal("p", auth.Member)
		spent, token, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID})
		must(t, err)
		api, apiToken, err := g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID, API: true})
		must(t, err)
		keptStream, spentStream, apiStream := g.follow(t, kept, "host"), g.follow(t, spent, "host"), g.follow(t, api, "host")
		keptAgent, spentAgent := g.ConnectAs(Bearer(kept), "kept-token"), g.ConnectAs(Bearer(spent), "spent-token")
		keptAgent.next()
		spentAgent.next()
		turn := g.say(t, p, "host", "still mine")

		must(t, g.Identity().RevokeToken(Ctx(), token.ID))
		spentStream.ends("")
		exactly(t, "the agent", spentAgent.Err(), codes.Unauthenticated, "the credential was revoked")
		must(t, g.Identity().RevokeToken(Ctx(), apiToken.ID))
		apiStream.ends("")
		for _, x := range []string{spent, api} {
			_, err = g.me(Bearer(x))
			exactly(t, "the token", err, codes.Unauthenticated, "invalid or expired token")
		}
		g.say(t, p, "host", "after that")
		keptStream.until("after that", "")
		g.say(t, bystander, "kept-token", "are you there")
		if m := keptAgent.Message(); m.GetContent() != "are you there" {
			t.Errorf("%v", m)
		}
		if x, err := g.Conversations().Turn(Ctx(), turn); err != nil || x.State != conversation.Open {
			t.Errorf("the principal's turn: %+v %v", x, err)
		}
	})

	t.Run("a removed key", func(t *testing.T) {
		kept, spent := NewKey(t), NewKey(t)
		p, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Agent, Name: "p", PublicKey: kept.Line()})
		must(t, err)
		_, err = g.Identity().AddKey(Ctx(), p.ID, spent.Line(), "")
		must(t, err)
		keptAgent, spentAgent := g.ConnectAs(kept.Sign(), "kept-key"), g.ConnectAs(spent.Sign(), "spent-key")
		keptAgent.next()
		spentAgent.next()
		must(t, g.Identity().RemoveKey(Ctx(), p.ID, spent.Fingerprint()))
		exactly(t, "the agent", spentAgent.Err(), codes.Unauthenticated, "the credential was revoked")
		_, err = g.me(spent.Sign())
		exactly(t, "the key", err, codes.Unauthenticated, "unknown public key")
		g.say(t, bystander, "kept-key", "are you there")
		if m := keptAgent.Message(); m.GetContent() != "are you there" {
			t.Errorf("%v", m)
		}
	})

	t.Run("a transferred agent id", func(t *testing.T) {
		_, oldToken := g.Principal("old", auth.Member)
		heir, heirToken := g.Principal("heir", auth.Member)
		moved, stays := g.ConnectAs(Bearer(oldToken), "moved"), g.ConnectAs(Bearer(oldToken), "stays")
		moved.next()
		stays.next()
		f := g.follow(t, oldToken, "moved")
		turn := g.say(t, bystander, "moved", "before the transfer")
		f.until("before the transfer", "") // its owner sees all of it
		must(t, g.Identity().TransferAgent(Ctx(), "moved", heir.ID))
		exactly(t, "the agent", moved.Err(), codes.PermissionDenied, "the agent id was given to somebody else")
		if x := g.ended(t, turn); x.State != conversation.Interrupted {
			t.Errorf("%+v", x)
		}
		exactly(t, "the old owner", g.ConnectAs(Bearer(oldToken), "moved").Err(), codes.AlreadyExists, "agent moved already registered")
		if a := g.ConnectAs(Bearer(heirToken), "moved"); a.next().GetWelcome() == nil {
			t.Error(a.Err())
		}
		g.say(t, bystander, "moved", "after the transfer")
		f.ends("after the transfer")
		g.say(t, bystander, "stays", "are you there")
		if m := stays.Message(); m.GetContent() != "are you there" {
			t.Errorf("%v", m)
		}
	})

	t.Run("a role that was taken", func(t *testing.T) {
		boss, token := g.Principal("boss", auth.Admin)
		f := g.follow(t, token, "host")
		g.say(t, bystander, "host", "seen by an admin")
		f.until("seen by an admin", "")
		must(t, g.Identity().SetRole(Ctx(), boss.ID, auth.Admin, false))
		g.say(t, bystander, "host", "not for everybody")
		f.ends("not for everybody")
	})

	t.Run("another's events on a shared stream", func(t *testing.T) {
		p, token := g.Principal("p", auth.Member)
		f := g.follow(t, token, "host")
		for i := range 5 {
			g.say(t, bystander, "host", fmt.Sprint("not for p ", i))
			g.say(t, p, "host", fmt.Sprint("for p ", i))
		}
		f.until(`"for p 4"`, "not for p")
	})
}
