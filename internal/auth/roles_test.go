package auth_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// person makes an approved principal with roles and returns it as a caller.
func (g *gate) person(name string, roles ...auth.Role) (auth.Principal, context.Context) {
	g.t.Helper()
	p, err := g.CreatePrincipal(ctx, auth.NewPrincipal{Kind: auth.Client, Name: name, Roles: roles})
	if err != nil {
		g.t.Fatal(err)
	}
	return p, auth.With(context.Background(), p)
}

// TestHierarchy: nobody changes a principal of a higher rank or grants what they do not have.
func TestHierarchy(t *testing.T) {
	g := newGate(t)
	ranks := [][]auth.Role{nil, {auth.Member}, {auth.Leader}, {auth.Admin}, {auth.Owner}}
	rank := map[auth.Role]int{auth.Member: 1, auth.Leader: 1, auth.Admin: 2, auth.Owner: 3}
	of := func(roles []auth.Role) int {
		n := 0
		for _, r := range roles {
			n = max(n, rank[r])
		}
		return n
	}
	for _, who := range [][]auth.Role{{auth.Admin}, {auth.Owner}} {
		_, caller := g.person("caller", who...)
		for _, whom := range ranks {
			for name, change := range map[string]func(id string) error{
				"revoke":     func(id string) error { return g.Revoke(caller, id) },
				"delete":     func(id string) error { return g.Delete(caller, id) },
				"rename":     func(id string) error { return g.Rename(caller, id, "other") },
				"approve":    func(id string) error { return g.Approve(caller, id) },
				"capability": func(id string) error { return g.SetCapability(caller, id, "admin", true) },
				"key": func(id string) error {
					_, err := g.AddKey(caller, id, "", strings.Repeat("ab", 32))
					return err
				},
				"token": func(id string) error {
					_, _, err := g.CreateToken(caller, auth.TokenRequest{PrincipalID: id})
					return err
				},
				"agent id": func(id string) error { return g.TransferAgent(caller, "agent of "+id, id) },
			} {
				target, _ := g.person("target", whom...)
				err := change(target.ID)
				if allowed := of(whom) <= of(who); (err == nil) != allowed || !allowed && fault.CodeOf(err) != fault.Forbidden {
					t.Errorf("%v does %s to %v: %v", who, name, whom, err)
				}
				if err == nil && name == "key" { // free for the next one
					if err := g.RemoveKey(caller, target.ID, strings.Repeat("AB", 32)); err != nil {
						t.Error(err)
					}
				}
			}
			for role, n := range rank {
				target, _ := g.person("target", whom...)
				err := g.SetRole(caller, target.ID, role, true)
				if allowed := n <= of(who) && of(whom) <= of(who); (err == nil) != allowed {
					t.Errorf("%v grants %s to %v: %v", who, role, whom, err)
				}
				_, err = g.CreatePrincipal(caller, auth.NewPrincipal{Kind: auth.Client, Name: "new", Roles: []auth.Role{role}})
				if allowed := n <= of(who); (err == nil) != allowed {
					t.Errorf("%v creates a %s: %v", who, role, err)
				}
			}
		}
	}
}

// TestOwnerStays: there is always an owner, and nobody locks themselves out.
func TestOwnerStays(t *testing.T) {
	g := newGate(t)
	first, one := g.person("first", auth.Owner)
	second, _ := g.person("second", auth.Owner)
	for name, err := range map[string]error{
		"revokes itself": g.Revoke(one, first.ID), "deletes itself": g.Delete(one, first.ID),
	} {
		if fault.CodeOf(err) != fault.Conflict {
			t.Errorf("an owner %s: %v", name, err)
		}
	}
	if err := g.Revoke(one, second.ID); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"revoked": func() error { return g.Revoke(ctx, first.ID) },
		"deleted": func() error { return g.Delete(ctx, first.ID) },
		"demoted": func() error { return g.SetRole(ctx, first.ID, auth.Owner, false) },
	} {
		if err := change(); fault.CodeOf(err) != fault.Conflict || !strings.Contains(fault.Message(err), "is the last owner") {
			t.Errorf("the last owner is %s: %v", name, err)
		}
	}
	if p, err := g.Principal(ctx, first.ID); err != nil || p.Status != auth.Approved || !p.Has(auth.Owner) {
		t.Errorf("%+v %v", p, err)
	}
}

// TestNarrowTokens: a token with scopes makes no wider one.
func TestNarrowTokens(t *testing.T) {
	g := newGate(t)
	p, _ := g.person("admin", auth.Admin)
	p.Credential = auth.Credential{Kind: auth.APIToken, ID: "x", Scopes: []auth.Scope{auth.ScopeAdmin, auth.ScopeRead}}
	caller := auth.With(context.Background(), p)
	for _, c := range []struct {
		api     bool
		scopes  []auth.Scope
		allowed bool
	}{
		{false, nil, false},
		{true, nil, false},
		{true, []auth.Scope{auth.ScopeRead}, true},
		{true, []auth.Scope{auth.ScopeRead, auth.ScopeSend}, false},
		{true, []auth.Scope{auth.ScopeAdmin, auth.ScopeRead}, true},
	} {
		_, _, err := g.CreateToken(caller, auth.TokenRequest{PrincipalID: p.ID, API: c.api, Scopes: c.scopes})
		if (err == nil) != c.allowed {
			t.Errorf("%+v: %v", c, err)
		}
	}
	l, err := g.RequestLink(ctx, auth.LinkRequest{Fingerprint: strings.Repeat("cd", 32), DeviceName: "d", Address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	_, key := g.AddKey(caller, p.ID, "", strings.Repeat("ab", 32))
	_, created := g.CreatePrincipal(caller, auth.NewPrincipal{Kind: auth.Client, Name: "with a key", Fingerprint: strings.Repeat("ab", 32)})
	_, link := g.ApproveLink(caller, l.Code, false)
	for what, err := range map[string]error{"a key": key, "a principal with a key": created, "a link": link} {
		if fault.CodeOf(err) != fault.Forbidden || !strings.Contains(fault.Message(err), "a token with scopes cannot make") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRandomAdministration: whatever administrators do to each other, there is an owner, no role was
// granted by somebody without it, and each change has exactly one record.
func TestRandomAdministration(t *testing.T) {
	g := newGate(t)
	rapid.Check(t, func(rt *rapid.T) {
		g.tamper(`DELETE FROM principal_roles`, `DELETE FROM principals`) // begin anew
		roles := []auth.Role{auth.Owner, auth.Admin, auth.Member, auth.Leader}
		var people []auth.Principal
		for i, r := range [][]auth.Role{{auth.Owner}, {auth.Owner}, {auth.Admin}, {auth.Admin}, {auth.Member}, nil} {
			p, _ := g.person(fmt.Sprint(i), r...)
			people = append(people, p)
		}
		records := func() int64 {
			newest, err := g.AuditRecords(ctx, auth.AuditFilter{Before: math.MaxInt64, Limit: 1})
			if err != nil {
				rt.Fatal(err)
			}
			return newest[0].Seq
		}
		now := func(id string) (auth.Principal, bool) {
			p, err := g.Principal(ctx, id)
			return p, err == nil
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			actor, ok := now(rapid.SampledFrom(people).Draw(rt, "actor").ID)
			if !ok || actor.Status != auth.Approved {
				continue // has no say
			}
			target := rapid.SampledFrom(people).Draw(rt, "target").ID
			role := rapid.SampledFrom(roles).Draw(rt, "role")
			caller := auth.With(context.Background(), actor)
			before, existed := now(target)
			n := records()
			var err error
			what := rapid.SampledFrom([]string{"grant", "ungrant", "revoke", "approve", "delete"}).Draw(rt, "what")
			switch what {
			case "grant":
				err = g.SetRole(caller, target, role, true)
			case "ungrant":
				err = g.SetRole(caller, target, role, false)
			case "revoke":
				err = g.Revoke(caller, target)
			case "approve":
				err = g.Approve(caller, target)
			case "delete":
				err = g.Delete(caller, target)
			}
			after, exists := now(target)
			changed := existed != exists || before.Status != after.Status || !slices.Equal(before.Roles, after.Roles)
			if made := records() - n; made != map[bool]int64{true: 1}[changed] || err != nil && changed {
				rt.Fatalf("%v %s %v: %d records, changed %v, error %v", actor.Roles, what, before.Roles, made, changed, err)
			}
			if changed && what == "grant" && !actor.Has(role) {
				rt.Fatalf("%v granted %s", actor.Roles, role)
			}
			owners := 0
			for _, p := range people {
				if p, ok := now(p.ID); ok && p.Status == auth.Approved && p.Has(auth.Owner) {
					owners++
				}
			}
			if owners == 0 {
				rt.Fatalf("%v %s %v: no owner is left", actor.Roles, what, before.Roles)
			}
		}
	})
	if v, err := g.VerifyAudit(ctx); err != nil || !v.OK {
		t.Fatalf("%+v %v", v, err)
	}
}

// TestWrongLogins: ten thousand wrong credentials cost nothing that stays, are told to come back
// later, and keep nobody out.
func TestWrongLogins(t *testing.T) {
	g := newGate(t, func(o *auth.Options) { o.AddressRequestsPerSecond = 50 })
	p, _ := g.person("good")
	token, _, err := g.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	before, err := g.VerifyAudit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	refusals := map[fault.Code]int{}
	for i := range 10_000 {
		_, err := g.Authenticate(ctx, auth.Credentials{Authorization: fmt.Sprint("Bearer wrong", i), Address: fmt.Sprint("192.0.2.", i%100)})
		refusals[fault.CodeOf(err)]++
		if i%500 == 0 {
			if _, err := g.Authenticate(ctx, auth.Credentials{Authorization: "Bearer " + token, Address: "192.0.2.1"}); err != nil {
				t.Fatalf("a good token from the same address: %v", err)
			}
		}
	}
	one := map[fault.Code]int{}
	for range 1000 {
		_, err := g.Authenticate(ctx, auth.Credentials{Authorization: "Bearer wrong", Address: "198.51.100.1"})
		one[fault.CodeOf(err)]++
	}
	if refusals[fault.Unauthenticated] == 0 || one[fault.Limited] < 500 || len(one) != 2 {
		t.Errorf("many addresses: %v, one: %v", refusals, one)
	}
	g.close() // writes what is left to write
	g.open()
	after, err := g.VerifyAudit(ctx)
	if err != nil || !after.OK || after.Records-before.Records > 25 || after.Records == before.Records {
		t.Errorf("%d records of failures (%v)", after.Records-before.Records, err)
	}
	records, err := g.AuditRecords(ctx, auth.AuditFilter{Action: "login_failed", Limit: 100})
	if err != nil || len(records) == 0 || time.Since(records[0].At) > time.Minute {
		t.Errorf("%+v %v", records, err)
	}
}
