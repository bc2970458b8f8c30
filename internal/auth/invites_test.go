package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// accept tries an invite and returns the principal that it made.
func (r *rig) accept(invite, name string) (auth.Principal, string, error) {
	token, p, _, err := r.AcceptInvite(context.Background(), invite, auth.Guest{Display: name, Browser: auth.Browser{Address: here}})
	return p, token, err
}

func TestInvite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		admin := r.principal("admin", auth.Admin)
		invite, i, err := r.CreateInvite(r.as(admin.ID), auth.Member, "for Bea", 0)
		must(t, err)
		if len(invite) != 64 || i.Role != auth.Member || i.CreatedBy != admin.ID || !i.ExpiresAt.Equal(time.Now().Add(auth.InviteLife)) || i.Status(time.Now()) != "open" {
			t.Errorf("%q %+v", invite, i)
		}
		if r.stored(invite) {
			t.Error("the invite is in the database")
		}
		_, _, err = r.accept(invite, " ")
		refused(t, err, fault.Invalid, "display_name required")
		_, _, err = r.accept(strings.ToUpper(invite)+"x", "Bea")
		refused(t, err, fault.NotFound, "Invalid invite link")
		invite, i, err = r.CreateInvite(r.as(admin.ID), auth.Member, "", time.Minute)
		must(t, err)
		time.Sleep(time.Minute - time.Microsecond)
		p, token, err := r.accept(invite, "Bea")
		must(t, err)
		if p.Kind != auth.User || p.Name != "Bea" || fmt.Sprint(p.Roles) != "[member]" || p.Status != auth.Approved || p.CreatedBy != admin.ID {
			t.Errorf("%+v", p)
		}
		if got, err := r.bearer(token); err != nil || got.ID != p.ID {
			t.Errorf("%+v %v", got, err)
		}
		if x, detail := r.newest(); x.Action != "create_token" || x.Actor != admin.ID || detail["name"] != "invite" || strings.Contains(x.Detail, token) {
			t.Errorf("%+v", x)
		}
		if got := r.actions(""); got != "create_principal create_invite create_invite create_principal accept_invite create_token" {
			t.Error(got)
		}
		_, _, err = r.accept(invite, "Ben")
		refused(t, err, fault.Conflict, "This invite has already been used")
		refused(t, r.RevokeInvite(r.as(admin.ID), i.ID), fault.Conflict, "This invite has already been used")
		if all, err := r.Invites(system); err != nil || len(all) != 2 || all[0].Status(time.Now()) != "used" || all[0].UsedBy != p.ID {
			t.Errorf("%+v %v", all, err)
		}
	})
}

// TestInviteGivesNothingMore: an invite gives what its maker may give when it is used, and no more.
func TestInviteGivesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		r.principal("first", auth.Owner)
		owner, admin := r.principal("owner", auth.Owner), r.principal("admin", auth.Admin)
		_, _, err := r.CreateInvite(r.as(admin.ID), auth.Owner, "", 0)
		refused(t, err, fault.Forbidden, "the role owner can be granted only by those who have it")
		scoped := admin
		scoped.Credential.Scopes = []auth.Scope{auth.ScopeAdmin}
		_, _, err = r.CreateInvite(auth.With(context.Background(), scoped), auth.Member, "", 0)
		refused(t, err, fault.Forbidden, "a token with scopes cannot make credentials without")
		for _, life := range []time.Duration{time.Second, auth.MaxInviteLife + time.Second, -time.Hour} {
			_, _, err = r.CreateInvite(r.as(admin.ID), auth.Member, "", life)
			refused(t, err, fault.Invalid, fmt.Sprintf("ttl_seconds must be from 60 to 2592000; got %d", life/time.Second))
		}
		_, _, err = r.CreateInvite(r.as(admin.ID), "king", "", 0)
		refused(t, err, fault.Invalid, `role must be owner, admin, member or leader; got "king"`)
		_, _, err = r.CreateInvite(r.as(admin.ID), auth.Member, "a\nb", 0)
		refused(t, err, fault.Invalid, "note must be printable UTF-8 of at most 200 bytes; this one has 3")

		make := func(by auth.Principal, role auth.Role) (string, auth.Invite) {
			invite, i, err := r.CreateInvite(r.as(by.ID), role, "", auth.MaxInviteLife)
			must(t, err)
			return invite, i
		}
		unable := "whoever made this invite may not invite you any more"
		invite, high := make(owner, auth.Owner)
		refused(t, r.RevokeInvite(r.as(admin.ID), high.ID), fault.Forbidden, "the role owner can be granted only by those who have it")
		must(t, r.SetRole(system, owner.ID, auth.Owner, false))
		must(t, r.SetRole(system, owner.ID, auth.Admin, true))
		_, _, err = r.accept(invite, "Bea")
		refused(t, err, fault.Conflict, unable) // an admin now
		invite, _ = make(owner, auth.Member)
		must(t, r.SetRole(system, owner.ID, auth.Admin, false))
		must(t, r.SetRole(system, owner.ID, auth.Member, true))
		_, _, err = r.accept(invite, "Bea")
		refused(t, err, fault.Conflict, unable) // members invite nobody
		invite, _ = make(admin, auth.Member)
		must(t, r.Revoke(system, admin.ID))
		_, _, err = r.accept(invite, "Bea")
		refused(t, err, fault.Conflict, unable)
		must(t, r.Approve(system, admin.ID))
		revoked, i := make(admin, auth.Member)
		must(t, r.RevokeInvite(r.as(admin.ID), i.ID))
		must(t, r.RevokeInvite(r.as(admin.ID), i.ID)) // again
		_, _, err = r.accept(revoked, "Bea")
		refused(t, err, fault.NotFound, "Invalid invite link")
		must(t, r.Delete(system, admin.ID))
		_, _, err = r.accept(invite, "Bea")
		refused(t, err, fault.Conflict, unable)
		other := r.principal("other", auth.Admin)
		invite, _, err = r.CreateInvite(r.as(other.ID), auth.Member, "", time.Minute)
		must(t, err)
		time.Sleep(time.Minute)
		_, _, err = r.accept(invite, "Bea")
		refused(t, err, fault.Conflict, "This invite has expired")
	})
}

// TestInviteOnce: of many who use an invite at the same time one gets in.
func TestInviteOnce(t *testing.T) {
	r := rigged(t)
	admin := r.principal("admin", auth.Admin)
	invite, _, err := r.CreateInvite(r.as(admin.ID), auth.Member, "", 0)
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for n := range 20 {
		wg.Go(func() {
			_, _, err := r.accept(invite, fmt.Sprintf("guest %d", n))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				in++
			case fault.CodeOf(err) != fault.Conflict:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, err := r.Principals(system, auth.PrincipalFilter{Kind: auth.User, Limit: 100}); err != nil || in != 1 || len(all) != 1 {
		t.Errorf("%d got in; %d users; %v", in, len(all), err)
	}
}

func TestInvitesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		admin := r.principal("admin", auth.Admin)
		make := func() error {
			_, _, err := r.CreateInvite(r.as(admin.ID), auth.Member, "", time.Minute)
			return err
		}
		for range 200 {
			must(t, make())
		}
		refused(t, make(), fault.Limited, "200 invites wait to be used; revoke some first")
		time.Sleep(time.Minute)
		must(t, make())
		r.tamper(fmt.Sprintf("UPDATE invites SET expires_at = expires_at - %d", (91 * 24 * time.Hour).Microseconds()))
		must(t, make())
		if all, err := r.Invites(system); err != nil || len(all) != 1 {
			t.Errorf("%d invites are remembered; %v", len(all), err)
		}
	})
}
