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

// TestUnknownKey: the words of grpc.md 2.5.
func TestUnknownKey(t *testing.T) {
	t.Run("disabled", func(t *testing.T) {
		r := rigged(t)
		k := newKey(t)
		for range 2 {
			_, err := r.prove(k.proof(time.Now()), 1)
			refused(t, err, fault.Unauthenticated, "unknown public key")
		}
		if len(r.records()) != 0 {
			t.Error(r.actions(""))
		}
	})
	t.Run("approved", func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterApproved })
		k := newKey(t)
		p, err := r.prove(k.proof(time.Now()), 1)
		must(t, err)
		if p.Kind != auth.Agent || p.Name != "agent-"+k.fingerprint()[56:] || p.Status != auth.Approved || fmt.Sprint(p.Roles) != "[member]" || p.CreatedBy != "" {
			t.Errorf("%+v", p)
		}
		again, err := r.prove(k.proof(time.Now()), 1)
		if err != nil || again.ID != p.ID || fmt.Sprint(again.Roles) != "[member]" {
			t.Errorf("%+v %v", again, err)
		}
		x, detail := r.newest()
		if len(r.records()) != 1 || x.Action != "register_principal" || x.Target != p.ID || x.Actor != "" || detail["fingerprint"] != k.fingerprint() || detail["status"] != "approved" || detail["address"] != here {
			t.Errorf("%+v", x)
		}
	})
	t.Run("pending", func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterPending })
		k := newKey(t)
		_, err := r.prove(k.proof(time.Now()), 1)
		p, e := r.db.Identity().Read(system).PrincipalByKey(k.fingerprint())
		must(t, e)
		refused(t, err, fault.Forbidden, "agent registered with pending status (principal_id: "+p.ID+") - admin approval required")
		for range 2 {
			_, err = r.prove(k.proof(time.Now()), 1)
			refused(t, err, fault.Forbidden, "principal status is pending - admin approval required")
		}
		if p.Status != auth.Pending || p.Roles != nil {
			t.Errorf("%+v", p)
		}
		must(t, r.Approve(system, p.ID))
		got, err := r.prove(k.proof(time.Now()), 1)
		if err != nil || fmt.Sprint(got.Roles) != "[member]" {
			t.Errorf("%+v %v", got, err)
		}
		if got := r.actions(p.ID); got != "register_principal approve_principal grant_role" {
			t.Error(got)
		}
		must(t, r.Revoke(system, p.ID))
		_, err = r.prove(k.proof(time.Now()), 1)
		refused(t, err, fault.Forbidden, "principal has been revoked")
	})
}

// TestParallelFirstCalls: one key is one principal, whoever is first.
func TestParallelFirstCalls(t *testing.T) {
	for _, mode := range []auth.AutoRegistration{auth.RegisterApproved, auth.RegisterPending} {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = mode })
		k := newKey(t)
		start := make(chan struct{})
		var mu sync.Mutex
		ids := map[string]int{}
		var wg sync.WaitGroup
		const calls = 20
		for range calls {
			proof := k.proof(time.Now())
			wg.Go(func() {
				<-start
				p, err := r.prove(proof, 1)
				switch {
				case mode == auth.RegisterApproved && err != nil:
					t.Error(err)
				case mode == auth.RegisterPending && (fault.CodeOf(err) != fault.Forbidden || !strings.Contains(fault.Message(err), "pending")):
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[p.ID]++
			})
		}
		close(start)
		wg.Wait()
		ps, err := r.Principals(system, auth.PrincipalFilter{Limit: 100})
		if err != nil || len(ps) != 1 || r.actions("") != "register_principal" {
			t.Errorf("%s: %d principals, %v, audit log %s", mode, len(ps), err, r.actions(""))
		}
		if mode == auth.RegisterApproved && ids[ps[0].ID] != calls {
			t.Errorf("ids %v", ids)
		}
	}
}

// TestRegistrationLimits: of one address, and of those that wait.
func TestRegistrationLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterPending })
		try := func(address string) error {
			_, err := r.Authenticate(context.Background(), auth.Credentials{Proof: newKey(t).proof(time.Now()), Address: address})
			return err
		}
		for range auth.RegisterBurst {
			refused(t, try(here), fault.Forbidden, "")
		}
		refused(t, try(here), fault.Limited, "too many requests; come back in 2s")
		refused(t, try("192.0.2.2"), fault.Forbidden, "")
		time.Sleep(2 * time.Second)
		refused(t, try(here), fault.Forbidden, "")
		refused(t, try(here), fault.Limited, "")

		address := netip.MustParseAddr("198.51.100.0")
		for i := auth.RegisterBurst + 2; i < auth.MaxPending; i++ {
			address = address.Next()
			if wrong := unlike(try(address.String()), fault.Forbidden, ""); wrong != "" {
				t.Fatal(i, wrong)
			}
		}
		refused(t, try("192.0.2.3"), fault.Limited, "1000 principals wait for an administrator; no more are taken")
		ps, err := r.Principals(system, auth.PrincipalFilter{Status: auth.Pending, Limit: 1})
		must(t, err)
		must(t, r.Approve(system, ps[0].ID))
		refused(t, try("192.0.2.4"), fault.Forbidden, "")
		refused(t, try("192.0.2.5"), fault.Limited, "")
	})
}
