package auth_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

var ranks = map[auth.Role]int{auth.Owner: 3, auth.Admin: 2, auth.Member: 1, auth.Leader: 1, "": 0}

func rolesOf(r auth.Role) []auth.Role {
	if r == "" {
		return nil
	}
	return []auth.Role{r}
}

// operations are what one principal does to another, with the route it does it by.
var operations = []struct {
	name, route string
	gives       auth.Role // what it gives to the other; "" for nothing
	do          func(r *rig, ctx context.Context, target auth.Principal) error
}{
	{"approve", "POST /api/admin/principals/{id}/approve", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		must(r.t, r.Revoke(system, p.ID))
		return r.Approve(ctx, p.ID)
	}},
	{"revoke", "POST /api/admin/principals/{id}/revoke", "", func(r *rig, ctx context.Context, p auth.Principal) error { return r.Revoke(ctx, p.ID) }},
	{"delete", "DELETE /api/admin/principals/{id}", "", func(r *rig, ctx context.Context, p auth.Principal) error { return r.Delete(ctx, p.ID) }},
	{"rename", "PATCH /api/admin/principals/{id}", "", func(r *rig, ctx context.Context, p auth.Principal) error { return r.Rename(ctx, p.ID, "renamed") }},
	{"take a role", "DELETE /api/admin/principals/{id}/roles/{role}", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		for _, role := range p.Roles {
			return r.SetRole(ctx, p.ID, role, false)
		}
		return r.SetRole(ctx, p.ID, auth.Member, true)
	}},
	{"grant owner", "PUT /api/admin/principals/{id}/roles/{role}", auth.Owner, func(r *rig, ctx context.Context, p auth.Principal) error {
		return r.SetRole(ctx, p.ID, auth.Owner, true)
	}},
	{"grant admin", "PUT /api/admin/principals/{id}/roles/{role}", auth.Admin, func(r *rig, ctx context.Context, p auth.Principal) error {
		return r.SetRole(ctx, p.ID, auth.Admin, true)
	}},
	{"grant leader", "PUT /api/admin/principals/{id}/roles/{role}", auth.Leader, func(r *rig, ctx context.Context, p auth.Principal) error {
		return r.SetRole(ctx, p.ID, auth.Leader, true)
	}},
	{"grant capability", "PUT /api/admin/principals/{id}/capabilities/{capability}", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		return r.SetCapability(ctx, p.ID, "mail", true)
	}},
	{"add key", "POST /api/admin/principals/{id}/keys", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		_, err := r.AddKey(ctx, p.ID, newKey(r.t).line(), "")
		return err
	}},
	{"remove key", "DELETE /api/admin/principals/{id}/keys/{fingerprint}", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		k, err := r.AddKey(system, p.ID, newKey(r.t).line(), "")
		must(r.t, err)
		return r.RemoveKey(ctx, p.ID, k.Fingerprint)
	}},
	{"make token", "POST /api/admin/tokens", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		_, _, err := r.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID})
		return err
	}},
	{"revoke token", "DELETE /api/admin/tokens/{id}", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		_, tok := r.token(p.ID)
		return r.RevokeToken(ctx, tok.ID)
	}},
	{"create owner", "POST /api/admin/principals", auth.Owner, create(auth.Owner)},
	{"create admin", "POST /api/admin/principals", auth.Admin, create(auth.Admin)},
	{"create member", "POST /api/admin/principals", auth.Member, create(auth.Member)},
	{"give agent", "POST /api/admin/agents/{id}/transfer", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		return r.TransferAgent(ctx, "agent-"+p.ID, p.ID)
	}},
	{"take agent", "POST /api/admin/agents/{id}/transfer", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		must(r.t, r.TransferAgent(system, "agent-"+p.ID, p.ID))
		return r.TransferAgent(ctx, "agent-"+p.ID, r.principal("x").ID)
	}},
	{"free agent", "DELETE /api/admin/agents/{id}/ownership", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		must(r.t, r.TransferAgent(system, "agent-"+p.ID, p.ID))
		return r.ReleaseAgent(ctx, "agent-"+p.ID)
	}},
	{"link a device", "POST /api/admin/link/{code}/approve", "", func(r *rig, ctx context.Context, p auth.Principal) error {
		k := newKey(r.t)
		_, err := r.AddKey(system, p.ID, k.line(), "")
		must(r.t, err)
		l, err := r.RequestLink(context.Background(), auth.LinkRequest{Fingerprint: k.fingerprint(), DeviceName: "d", Proof: k.proof(time.Now())})
		must(r.t, err)
		_, err = r.ApproveLink(ctx, l.Code, true)
		return err
	}},
}

func create(role auth.Role) func(*rig, context.Context, auth.Principal) error {
	return func(r *rig, ctx context.Context, _ auth.Principal) error {
		_, err := r.CreatePrincipal(ctx, auth.NewPrincipal{Kind: auth.Client, Name: "new", Roles: []auth.Role{role}})
		return err
	}
}

// TestHierarchy: everybody tries everything with everybody.
func TestHierarchy(t *testing.T) {
	t.Parallel()
	r := rigged(t)
	r.principal("first", auth.Owner) // so that no other one is the last
	all := []auth.Role{auth.Owner, auth.Admin, auth.Member, auth.Leader, ""}
	for _, op := range operations {
		rule, ok := auth.Routes[op.route]
		if !ok {
			t.Fatal("no route", op.route)
		}
		for _, mine := range all {
			for _, theirs := range all {
				actor, target := r.principal("actor", rolesOf(mine)...), r.principal("target", rolesOf(theirs)...)
				if err := rule.Allow(actor); (err == nil) != (ranks[mine] >= 2) {
					t.Errorf("%q may %s: %v", mine, op.name, err)
				}
				if ranks[mine] < 2 {
					continue
				}
				before := r.count()
				err := op.do(r, r.as(actor.ID), target)
				allowed := ranks[mine] >= ranks[op.gives] && (ranks[mine] >= ranks[theirs] || strings.HasPrefix(op.name, "create"))
				switch {
				case allowed && err != nil:
					t.Errorf("%q cannot %s of %q: %v", mine, op.name, theirs, err)
				case !allowed:
					if wrong := unlike(err, fault.Forbidden, ""); wrong != "" {
						t.Errorf("%q can %s of %q: %s", mine, op.name, theirs, wrong)
					}
				case op.gives != theirs || theirs == "" || strings.HasPrefix(op.name, "create"):
					if x, _ := r.newest(); r.count() == before || x.Actor != actor.ID {
						t.Errorf("%q can %s of %q without a record; the newest is %+v", mine, op.name, theirs, x)
					}
				}
			}
		}
	}
	if v := r.verified(); !v.OK {
		t.Errorf("%+v", v)
	}
}

// TestLastOwner: there is always an owner who may call.
func TestLastOwner(t *testing.T) {
	r := rigged(t)
	p, shown, err := r.Bootstrap(context.Background(), "first")
	must(t, err)
	if _, err := r.bearer(shown); err != nil || !p.Has(auth.Owner) {
		t.Fatal(p, err)
	}
	_, _, err = r.Bootstrap(context.Background(), "second")
	refused(t, err, fault.Conflict, "bootstrap already complete: 1 principal(s) exist")

	revoked := r.principal("revoked", auth.Owner)
	must(t, r.Revoke(system, revoked.ID))
	admin := r.principal("admin", auth.Admin)
	other := auth.With(context.Background(), auth.Principal{ID: "other", Status: auth.Approved, Roles: []auth.Role{auth.Owner}})
	last := p.ID + " is the last owner"
	before := r.count()
	refused(t, r.Revoke(other, p.ID), fault.Conflict, last)
	refused(t, r.Delete(other, p.ID), fault.Conflict, last)
	refused(t, r.SetRole(other, p.ID, auth.Owner, false), fault.Conflict, last)
	refused(t, r.SetRole(r.as(p.ID), p.ID, auth.Owner, false), fault.Conflict, last)
	refused(t, r.Revoke(r.as(p.ID), p.ID), fault.Conflict, "you cannot revoke yourself")
	refused(t, r.Delete(r.as(p.ID), p.ID), fault.Conflict, "you cannot delete yourself")
	refused(t, r.Revoke(r.as(admin.ID), admin.ID), fault.Conflict, "you cannot revoke yourself")
	refused(t, r.Delete(r.as(admin.ID), admin.ID), fault.Conflict, "you cannot delete yourself")
	if n := r.count() - before; n != 0 {
		t.Errorf("%d records of what did not happen", n)
	}
	if q, err := r.Principal(system, p.ID); err != nil || q.Status != auth.Approved || !q.Has(auth.Owner) {
		t.Errorf("%+v %v", q, err)
	}
	if _, err := r.bearer(shown); err != nil {
		t.Error(err)
	}
	must(t, r.SetRole(system, p.ID, auth.Admin, true)) // other changes of an owner are no loss
	must(t, r.SetRole(system, p.ID, auth.Admin, false))

	second := r.principal("second", auth.Owner)
	must(t, r.SetRole(r.as(p.ID), p.ID, auth.Owner, false))
	refused(t, r.Revoke(other, second.ID), fault.Conflict, second.ID+" is the last owner")
}

// TestScopedAdmin: a token cannot make a wider one.
func TestScopedAdmin(t *testing.T) {
	r := rigged(t)
	p := r.principal("p", auth.Admin)
	shown, _, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, API: true, Scopes: []auth.Scope{auth.ScopeAdmin, auth.ScopeRead}})
	must(t, err)
	caller, err := r.bearer(shown)
	must(t, err)
	ctx := auth.With(context.Background(), caller)
	for _, tt := range []struct {
		api    bool
		scopes []auth.Scope
		code   fault.Code
		words  string
	}{
		{true, []auth.Scope{auth.ScopeRead}, "", ""},
		{true, []auth.Scope{auth.ScopeRead, auth.ScopeAdmin}, "", ""},
		{true, []auth.Scope{auth.ScopeSend}, fault.Forbidden, "a token cannot have scopes that yours lacks"},
		{true, []auth.Scope{auth.ScopeRead, auth.ScopeConnect}, fault.Forbidden, "a token cannot have scopes that yours lacks"},
		{true, nil, fault.Forbidden, "a token cannot have scopes that yours lacks"},
		{false, nil, fault.Forbidden, "a token cannot have scopes that yours lacks"},
		{true, []auth.Scope{}, fault.Invalid, ""},
	} {
		shown, _, err := r.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID, API: tt.api, Scopes: tt.scopes})
		if tt.code != "" {
			refused(t, err, tt.code, tt.words)
			continue
		}
		must(t, err)
		if got, err := r.bearer(shown); err != nil || !slices.Equal(got.Credential.Scopes, tt.scopes) {
			t.Errorf("%v: %+v %v", tt.scopes, got, err)
		}
	}
}

func TestCreateRefused(t *testing.T) {
	r := rigged(t)
	_, k := r.keyed("taken")
	fresh := newKey(t)
	for _, tt := range []struct {
		n     auth.NewPrincipal
		code  fault.Code
		words string
	}{
		{auth.NewPrincipal{Kind: "robot", Name: "a"}, fault.Invalid, "invalid type: robot (use 'client', 'agent' or 'pack')"},
		{auth.NewPrincipal{Kind: auth.User, Name: "a"}, fault.Invalid, "invalid type: user (use 'client', 'agent' or 'pack')"},
		{auth.NewPrincipal{Kind: auth.Client, Name: " "}, fault.Invalid, "display_name required"},
		{auth.NewPrincipal{Kind: auth.Client, Name: strings.Repeat("ü", 101)}, fault.Invalid, "display_name exceeds 100 characters"},
		{auth.NewPrincipal{Kind: auth.Client, Name: "a\x1b[2J"}, fault.Invalid, "display_name must be printable UTF-8"},
		{auth.NewPrincipal{Kind: auth.Client, Name: "\xff"}, fault.Invalid, "display_name must be printable UTF-8"},
		{auth.NewPrincipal{Kind: auth.Agent, Name: "a"}, fault.Invalid, "agent principals require pubkey or pubkey_fp"},
		{auth.NewPrincipal{Kind: auth.Pack, Name: "a"}, fault.Invalid, "pack principals require pubkey or pubkey_fp"},
		{auth.NewPrincipal{Kind: auth.Agent, Name: "a", PublicKey: "x"}, fault.Invalid, "invalid pubkey: the public key is not an authorized_keys line"},
		{auth.NewPrincipal{Kind: auth.Agent, Name: "a", Fingerprint: "x"}, fault.Invalid, "fingerprint must be 64 hex characters (SHA256)"},
		{auth.NewPrincipal{Kind: auth.Agent, Name: "a", PublicKey: fresh.line(), Fingerprint: vectorFingerprint}, fault.Invalid, "pubkey and pubkey_fp name different keys"},
		{auth.NewPrincipal{Kind: auth.Agent, Name: "a", PublicKey: k.line()}, fault.Exists, "pubkey already registered to another principal"},
		{auth.NewPrincipal{Kind: auth.Client, Name: "a", Roles: []auth.Role{"root"}}, fault.Invalid, `role must be owner, admin, member or leader; got "root"`},
	} {
		_, err := r.CreatePrincipal(system, tt.n)
		refused(t, err, tt.code, tt.words)
	}
	if ps, err := r.Principals(system, auth.PrincipalFilter{Limit: 100}); err != nil || len(ps) != 1 {
		t.Errorf("%d principals %v", len(ps), err)
	}
	refused(t, r.SetRole(system, r.principal("p").ID, "root", true), fault.Invalid, `role must be owner, admin, member or leader; got "root"`)
	for range 2 { // any number without a key
		r.principal("no key")
	}
	_, err := r.CreatePrincipal(context.Background(), auth.NewPrincipal{Kind: auth.Client, Name: "a"})
	refused(t, err, fault.Unauthenticated, "not authenticated")
}

// TestKeys: a principal has some keys, each of them one holder.
func TestKeys(t *testing.T) {
	r := rigged(t)
	p, q := r.principal("p"), r.principal("q")
	var first string
	for i := range auth.MaxKeys {
		k := newKey(t)
		got, err := r.AddKey(system, p.ID, k.line()+" "+strings.Repeat("c", 200), "")
		must(t, err)
		if got.Fingerprint != k.fingerprint() || len(got.Comment) != auth.MaxName {
			t.Errorf("%+v", got)
		}
		if i == 0 {
			first = k.line()
		}
	}
	_, err := r.AddKey(system, p.ID, newKey(t).line(), "")
	refused(t, err, fault.Conflict, "a principal must not have more than 20 keys")
	_, err = r.AddKey(system, q.ID, first, "")
	refused(t, err, fault.Exists, "pubkey already registered to another principal")
	_, err = r.AddKey(system, "nobody", first, "")
	refused(t, err, fault.NotFound, `no principal "nobody"`)
	_, err = r.AddKey(system, q.ID, "", "")
	refused(t, err, fault.Invalid, "fingerprint required")
	ks, err := r.Keys(system, p.ID)
	if err != nil || len(ks) != auth.MaxKeys {
		t.Error(len(ks), err)
	}
	refused(t, r.RemoveKey(system, q.ID, ks[0].Fingerprint), fault.NotFound, "")
	must(t, r.RemoveKey(system, p.ID, ks[0].Fingerprint))
	_, err = r.Keys(system, "nobody")
	refused(t, err, fault.NotFound, `no principal "nobody"`)
}

// TestRegisterKey: the words of grpc.md 6.7, and that only what is in order counts.
func TestRegisterKey(t *testing.T) {
	r := rigged(t)
	p := r.principal("p", auth.Member)
	ctx := r.as(p.ID)
	for name, words := range map[string]string{
		"": "display_name required", " ": "display_name cannot be only whitespace", strings.Repeat("x", 101): "display_name exceeds 100 characters",
		"ü": "display_name contains invalid characters (use ASCII letters, digits, '-', '_', '.' and spaces)", "a;b": "display_name contains invalid characters (use ASCII letters, digits, '-', '_', '.' and spaces)",
	} {
		_, err := r.RegisterKey(ctx, auth.Agent, name, newKey(t).fingerprint())
		refused(t, err, fault.Invalid, words)
	}
	_, err := r.RegisterKey(ctx, auth.Agent, "a", "x")
	refused(t, err, fault.Invalid, "fingerprint must be 64 hex characters (SHA256)")
	k := newKey(t)
	for i := range 5 {
		got, err := r.RegisterKey(ctx, auth.Agent, "a_b-c.d 1", strings.ToUpper(k.fingerprint()))
		if i > 0 {
			refused(t, err, fault.Exists, "fingerprint already registered")
			continue
		}
		must(t, err)
		if got.CreatedBy != p.ID || !slices.Equal(got.Roles, []auth.Role{auth.Member}) || got.Status != auth.Approved {
			t.Errorf("%+v", got)
		}
		if ok, err := r.Oversees(ctx, p, "unclaimed"); ok || err != nil {
			t.Error(ok, err)
		}
		_, _, err = r.Admit(auth.With(context.Background(), got), "mine", nil)
		must(t, err)
		for who, want := range map[string]bool{p.ID: true, got.ID: true, r.principal("q", auth.Member).ID: false, r.principal("r", auth.Admin).ID: true} {
			q, err := r.Principal(system, who)
			must(t, err)
			if ok, err := r.Oversees(ctx, q, "mine"); ok != want || err != nil {
				t.Errorf("%+v oversees: %t %v", q, ok, err)
			}
		}
		must(t, r.SetRole(system, got.ID, auth.Admin, true))
		if ok, err := r.Oversees(ctx, p, "mine"); ok || err != nil {
			t.Error("a member oversees an admin's agent", err)
		}
	}
	_, err = r.RegisterKey(ctx, auth.Agent, "a", newKey(t).fingerprint())
	refused(t, err, fault.Limited, "rate limit exceeded: max 5 registrations per 1m0s")
	if _, err := r.RegisterKey(r.as(r.principal("q", auth.Admin).ID), auth.Client, "a", newKey(t).fingerprint()); err != nil {
		t.Error(err)
	}
	_, err = r.RegisterKey(r.as(r.principal("l", auth.Leader).ID), auth.Client, "a", newKey(t).fingerprint())
	refused(t, err, fault.Forbidden, "the role member can be granted only by those who have it")
}

// TestNoChange: what changes nothing succeeds and leaves no record.
func TestNoChange(t *testing.T) {
	r := rigged(t)
	p := r.principal("p", auth.Member)
	must(t, r.SetCapability(system, p.ID, "mail", true))
	before := r.count()
	must(t, r.Approve(system, p.ID))
	must(t, r.Rename(system, p.ID, "p"))
	must(t, r.SetRole(system, p.ID, auth.Member, true))
	must(t, r.SetRole(system, p.ID, auth.Admin, false))
	must(t, r.SetCapability(system, p.ID, "mail", true))
	must(t, r.SetCapability(system, p.ID, "notes", false))
	if n := r.count() - before; n != 0 {
		t.Errorf("%d records", n)
	}
	if err := r.SetCapability(system, p.ID, "Mail", true); fault.CodeOf(err) != fault.Invalid {
		t.Error(err)
	}
	q, err := r.Principal(system, p.ID)
	if err != nil || fmt.Sprint(q.Capabilities) != "[mail]" {
		t.Error(q, err)
	}
	must(t, r.SetCapability(system, p.ID, "mail", false))
	if got := r.actions(p.ID); got != "create_principal grant_capability revoke_capability" {
		t.Error(got)
	}
}
