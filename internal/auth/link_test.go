package auth_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

func (r *rig) request(k key, proved bool) auth.LinkCode {
	r.t.Helper()
	q := auth.LinkRequest{Fingerprint: k.fingerprint(), DeviceName: "phone", Address: here}
	if proved {
		q.Proof = k.proof(time.Now())
	}
	l, err := r.RequestLink(context.Background(), q)
	must(r.t, err)
	return l
}

// poll fails the test unless the answer has a status.
func (r *rig) poll(code string, want auth.LinkStatus) auth.LinkAnswer {
	r.t.Helper()
	a, err := r.PollLink(context.Background(), code, here)
	if err != nil || a.Status != want {
		r.t.Errorf("got %q %v, want %q", a.Status, err, want)
	}
	if (a.Token != "") != (want == auth.LinkApproved) || (a.PrincipalID != "") != (want == auth.LinkApproved) {
		r.t.Errorf("%s: %+v", want, a)
	}
	return a
}

func TestRequestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		k := newKey(t)
		fp := k.fingerprint()
		const names = "device_name must have 1 to 100 printable characters"
		bad := k.proof(time.Now())
		bad.Nonce += "x"
		for _, tt := range []struct {
			q     auth.LinkRequest
			code  fault.Code
			words string
		}{
			{auth.LinkRequest{}, fault.Invalid, "fingerprint and device_name required"},
			{auth.LinkRequest{Fingerprint: fp}, fault.Invalid, "fingerprint and device_name required"},
			{auth.LinkRequest{DeviceName: "a"}, fault.Invalid, "fingerprint and device_name required"},
			{auth.LinkRequest{Fingerprint: fp[1:], DeviceName: "a"}, fault.Invalid, "invalid fingerprint format (expected 64 hex chars)"},
			{auth.LinkRequest{Fingerprint: "z" + fp[1:], DeviceName: "a"}, fault.Invalid, "invalid fingerprint format (expected 64 hex chars)"},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: " "}, fault.Invalid, names},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: strings.Repeat("ü", 101)}, fault.Invalid, names},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a\u202eb"}, fault.Invalid, names},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a\nb"}, fault.Invalid, names},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a\xffb"}, fault.Invalid, names},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a", Proof: auth.Proof{Nonce: "x"}}, fault.Unauthenticated, "missing SSH public key"},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a", Proof: bad}, fault.Unauthenticated, "SSH auth failed: signature verification failed"},
			{auth.LinkRequest{Fingerprint: fp, DeviceName: "a", Proof: newKey(t).proof(time.Now())}, fault.Invalid, "fingerprint is not that of the key that has signed"},
		} {
			_, err := r.RequestLink(context.Background(), tt.q)
			if wrong := unlike(err, tt.code, tt.words); wrong != "" {
				t.Errorf("%+v: %s", tt.q, wrong)
			}
		}
		proof := k.proof(time.Now())
		q := auth.LinkRequest{Fingerprint: strings.ToUpper(fp), DeviceName: " " + strings.Repeat("ü", 100) + " ", Proof: proof, Address: here}
		l, err := r.RequestLink(context.Background(), q)
		must(t, err)
		if len(l.Code) != 6 || strings.Trim(l.Code, "ABCDEFGHJKLMNPQRSTUVWXYZ23456789") != "" || l.Fingerprint != fp || l.DeviceName != strings.Repeat("ü", 100) ||
			!l.Proved || l.Status != auth.LinkPending || !l.ExpiresAt.Equal(time.Now().Add(10*time.Minute)) {
			t.Errorf("%+v", l)
		}
		_, err = r.RequestLink(context.Background(), q)
		refused(t, err, fault.Unauthenticated, "SSH auth failed: nonce already used (possible replay attack)")
		_, err = r.prove(proof, 1)
		refused(t, err, fault.Unauthenticated, "unknown public key")
		if r.request(k, false).Proved {
			t.Error("proved without a proof")
		}
		links, err := r.Links(context.Background())
		if err != nil || len(links) != 2 || links[1].Code != l.Code || links[0].Known.ID != "" || links[1].Address != here {
			t.Errorf("%+v %v", links, err)
		}
	})
}

// TestLinkANewDevice: the token is handed out once, and again for a moment.
func TestLinkANewDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		admin := r.principal("admin", auth.Admin)
		k := newKey(t)
		l := r.request(k, false)
		r.poll(l.Code, auth.LinkPending)
		time.Sleep(9 * time.Minute)
		link, err := r.ApproveLink(r.as(admin.ID), l.Code, false)
		must(t, err)
		p := link.Known
		if p.Kind != auth.Client || p.Name != "phone" || p.CreatedBy != admin.ID || fmt.Sprint(p.Roles) != "[member]" || p.Status != auth.Approved || link.Status != auth.LinkApproved || link.DecidedBy != admin.ID {
			t.Errorf("%+v", link)
		}
		_, err = r.ApproveLink(r.as(admin.ID), l.Code, false)
		refused(t, err, fault.Conflict, "Code already processed")
		refused(t, r.DenyLink(r.as(admin.ID), l.Code), fault.Conflict, "Code already processed")
		time.Sleep(auth.CodeLife) // it waits for the device for as long
		a := r.poll(l.Code, auth.LinkApproved)
		if a.PrincipalID != p.ID {
			t.Errorf("%+v", a)
		}
		got, err := r.bearer(a.Token)
		if err != nil || got.ID != p.ID {
			t.Errorf("%+v %v", got, err)
		}
		if x, detail := r.newest(); x.Action != "hand_out_token" || x.Actor != admin.ID || x.Target != l.Code || detail["address"] != here || detail["token_id"] != got.Credential.ID || strings.Contains(x.Detail, a.Token) {
			t.Errorf("%+v", x)
		}
		if got := r.actions(""); got != "create_principal create_principal approve_link create_token hand_out_token" {
			t.Error(got)
		}
		if r.stored(a.Token) {
			t.Error("the token is in the database")
		}
		time.Sleep(auth.HandOutGrace)
		if again := r.poll(l.Code, auth.LinkApproved); again != a {
			t.Errorf("got %+v, want %+v", again, a)
		}
		if ts, err := r.Tokens(system, p.ID, 10); err != nil || len(ts) != 1 || ts[0].Name != "link phone" || ts[0].CreatedBy != admin.ID || ts[0].ExpiresAt.Sub(ts[0].CreatedAt) > auth.StandardLife {
			t.Errorf("%+v %v", ts, err)
		}
		time.Sleep(time.Nanosecond)
		time.Sleep(time.Microsecond)
		r.poll(l.Code, auth.LinkExpired)
		if _, err := r.bearer(a.Token); err != nil {
			t.Error(err)
		}
		if _, err := r.prove(k.proof(time.Now()), 1); err != nil {
			t.Error(err)
		}
	})
}

func TestLinkExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		unused, never := r.request(newKey(t), false), r.request(newKey(t), false)
		denied := r.request(newKey(t), false)
		_, err := r.ApproveLink(system, unused.Code, false)
		must(t, err)
		must(t, r.DenyLink(system, denied.Code))
		r.poll(denied.Code, auth.LinkExpired)
		_, err = r.ApproveLink(system, denied.Code, false)
		refused(t, err, fault.Conflict, "Code already processed")
		if x, detail := r.newest(); x.Action != "deny_link" || x.Target != denied.Code || detail["fingerprint"] != denied.Fingerprint {
			t.Errorf("%+v", x)
		}
		time.Sleep(auth.CodeLife - time.Microsecond)
		r.poll(never.Code, auth.LinkPending)
		time.Sleep(time.Microsecond)
		r.poll(never.Code, auth.LinkExpired)
		_, err = r.ApproveLink(system, never.Code, false)
		refused(t, err, fault.Conflict, "the code has expired")
		refused(t, r.DenyLink(system, never.Code), fault.Conflict, "the code has expired")
		time.Sleep(time.Microsecond)
		r.poll(unused.Code, auth.LinkExpired)
		if links, err := r.Links(context.Background()); err != nil || len(links) != 0 {
			t.Errorf("%+v %v", links, err)
		}
		if ts, err := r.Tokens(system, "", 10); err != nil || len(ts) != 0 {
			t.Errorf("tokens were made: %+v %v", ts, err)
		}
		_, err = r.ApproveLink(system, "AAAAAA", false)
		refused(t, err, fault.NotFound, "Code not found")
		refused(t, r.DenyLink(system, "AAAAAA"), fault.NotFound, "Code not found")
	})
}

// TestLinkAKnownKey: whoever polls speaks for the holder of the key.
func TestLinkAKnownKey(t *testing.T) {
	r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterPending })
	admin := r.as(r.principal("admin", auth.Admin).ID)
	owner := r.as(r.principal("owner", auth.Owner).ID)
	member, memberKey := r.keyed("member", auth.Member)
	plain, plainKey := r.keyed("plain")
	leader, leaderKey := r.keyed("leader", auth.Leader)
	second, secondKey := r.keyed("second", auth.Admin)
	boss, bossKey := r.keyed("boss", auth.Owner)
	gone, goneKey := r.keyed("gone", auth.Member)
	must(t, r.Revoke(system, gone.ID))
	waitingKey := newKey(t)
	_, err := r.prove(waitingKey.proof(time.Now()), 1)
	refused(t, err, fault.Forbidden, "")
	waiting, err := r.db.Identity().Read(system).PrincipalByKey(waitingKey.fingerprint())
	must(t, err)
	known := func(p auth.Principal) string {
		return fmt.Sprintf("the key belongs to %s (%s) already; approve it as known if the device is theirs", p.ID, p.Name)
	}
	higher := func(p auth.Principal, role auth.Role) string {
		return fmt.Sprintf("the key belongs to %s (%s), who is %s, and the device has not proved that it holds it", p.ID, p.Name, role)
	}
	for _, tt := range []struct {
		what   string
		by     context.Context
		k      key
		proved bool
		known  bool
		who    auth.Principal
		code   fault.Code
		words  string
		roles  string
	}{
		{"member, not known", admin, memberKey, true, false, member, fault.Conflict, known(member), ""},
		{"member", admin, memberKey, false, true, member, "", "", "[member]"},
		{"leader stays one", admin, leaderKey, false, true, leader, "", "", "[leader]"},
		{"no role, not known", admin, plainKey, true, false, plain, fault.Conflict, known(plain), ""},
		{"no role", admin, plainKey, false, true, plain, "", "", "[member]"},
		{"admin without proof", admin, secondKey, false, true, second, fault.Forbidden, higher(second, auth.Admin), ""},
		{"admin, not known", admin, secondKey, true, false, second, fault.Conflict, known(second), ""},
		{"admin", admin, secondKey, true, true, second, "", "", "[admin]"},
		{"owner by an admin", admin, bossKey, true, true, boss, fault.Forbidden, boss.ID + " has the role owner: only an owner may do this", ""},
		{"owner without proof", owner, bossKey, false, true, boss, fault.Forbidden, higher(boss, auth.Owner), ""},
		{"owner", owner, bossKey, true, true, boss, "", "", "[owner]"},
		{"revoked", owner, goneKey, true, true, gone, fault.Conflict, fmt.Sprintf("the key belongs to %s (gone), which was revoked", gone.ID), ""},
		{"pending", admin, waitingKey, false, false, waiting, "", "", "[member]"},
	} {
		l := r.request(tt.k, tt.proved)
		links, err := r.Links(context.Background())
		if err != nil || links[0].Known.ID != tt.who.ID {
			t.Errorf("%s: listed as %+v %v", tt.what, links[0].Known, err)
		}
		before := len(r.records())
		_, err = r.ApproveLink(tt.by, l.Code, tt.known)
		if tt.code != "" {
			if wrong := unlike(err, tt.code, tt.words); wrong != "" {
				t.Errorf("%s: %s", tt.what, wrong)
			}
			r.poll(l.Code, auth.LinkPending)
			if len(r.records()) != before {
				t.Errorf("%s: it is in the audit log", tt.what)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		x, detail := r.newest()
		if x.Action != "approve_link" || detail["proved"] != tt.proved || detail["principal_id"] != tt.who.ID {
			t.Errorf("%s: %+v", tt.what, x)
		}
		got, err := r.bearer(r.poll(l.Code, auth.LinkApproved).Token)
		if err != nil || got.ID != tt.who.ID || fmt.Sprint(got.Roles) != tt.roles {
			t.Errorf("%s: %+v %v", tt.what, got, err)
		}
	}
}

// TestLinkOfTheRevoked: who loses its rights after the approval gets no token.
func TestLinkOfTheRevoked(t *testing.T) {
	r := rigged(t)
	for _, end := range []func(context.Context, string) error{r.Revoke, r.Delete} {
		for _, fetched := range []bool{false, true} {
			l := r.request(newKey(t), false)
			link, err := r.ApproveLink(system, l.Code, false)
			must(t, err)
			if fetched {
				r.poll(l.Code, auth.LinkApproved)
			}
			must(t, end(system, link.Known.ID))
			before := len(r.records())
			r.poll(l.Code, auth.LinkExpired)
			if len(r.records()) != before {
				t.Error(r.actions(""))
			}
		}
	}
}

// TestPollTogether: many polls at once get one token.
func TestPollTogether(t *testing.T) {
	r := rigged(t)
	l := r.request(newKey(t), false)
	_, err := r.ApproveLink(system, l.Code, false)
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]bool{}
	for range 10 {
		wg.Go(func() {
			a, err := r.PollLink(context.Background(), l.Code, here)
			mu.Lock()
			defer mu.Unlock()
			if got[a.Token] = true; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ts, err := r.Tokens(system, "", 10); err != nil || len(ts) != 1 || len(got) != 1 || got[""] {
		t.Errorf("%d tokens made, %d given out (%v)", len(ts), len(got), err)
	}
}

// TestLinkLimits: of an address, and of codes that wait; those that are old enough are forgotten.
func TestLinkLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AddressRequestsPerSecond = 5 })
		k := newKey(t)
		request := func(address string) error {
			_, err := r.RequestLink(context.Background(), auth.LinkRequest{Fingerprint: k.fingerprint(), DeviceName: "d", Address: address})
			return err
		}
		for range 20 {
			must(t, request(here))
		}
		refused(t, request(here), fault.Limited, "too many requests; come back in 1s")
		_, err := r.PollLink(context.Background(), "AAAAAA", here)
		refused(t, err, fault.Limited, "")
		first, err := r.Links(context.Background())
		must(t, err)
		for range 30 { // a code that exists can be polled
			r.poll(first[0].Code, auth.LinkPending)
		}
		for range 20 {
			_, err := r.PollLink(context.Background(), "AAAAAA", "192.0.2.2")
			refused(t, err, fault.NotFound, "Code not found")
		}
		_, err = r.PollLink(context.Background(), "AAAAAA", "192.0.2.2")
		refused(t, err, fault.Limited, "")

		address := netip.MustParseAddr("198.51.100.0")
		for range auth.MaxPendingCodes - 20 {
			address = address.Next()
			must(t, request(address.String()))
		}
		refused(t, request("203.0.113.1"), fault.Limited, "200 devices wait to be linked; no more are taken")
		must(t, r.DenyLink(system, first[0].Code))
		must(t, request("203.0.113.2"))
		refused(t, request("203.0.113.3"), fault.Limited, "200 devices wait to be linked; no more are taken")
		time.Sleep(auth.CodeLife)
		must(t, request("203.0.113.4"))
		read := r.db.Identity().Read(context.Background())
		if all, err := read.LinkCodes(time.Unix(0, 0), 1000); err != nil || len(all) != 202 {
			t.Error(len(all), err)
		}
		must(t, r.Flush(context.Background()))
		if x := r.actions("192.0.2.2"); x != "login_failed" {
			t.Error("guessed codes are not in the audit log:", x)
		}
	})
}

func TestOldCodesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := riggedInMemory(t)
		l := r.request(newKey(t), false)
		time.Sleep(auth.CodeMemory + auth.CodeLife)
		r.request(newKey(t), false)
		r.poll(l.Code, auth.LinkExpired)
		time.Sleep(time.Microsecond)
		r.request(newKey(t), false)
		_, err := r.PollLink(context.Background(), l.Code, here)
		refused(t, err, fault.NotFound, "Code not found")
	})
}
