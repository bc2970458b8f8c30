package auth_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := auth.NewLimiter(2, 4)
		for range 4 {
			must(t, l.Allow("a"))
		}
		err := l.Allow("a")
		refused(t, err, fault.Limited, "too many requests; come back in 1s")
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.After != time.Second/2 {
			t.Error("after", f.After)
		}
		must(t, l.Allow("b"))
		time.Sleep(time.Second / 2)
		must(t, l.Allow("a"))
		refused(t, l.Allow("a"), fault.Limited, "")
		time.Sleep(time.Hour)
		for range 4 {
			must(t, l.Allow("a"))
		}
		refused(t, l.Allow("a"), fault.Limited, "")
		slow := auth.NewLimiter(0.1, 1)
		must(t, slow.Allow("a"))
		refused(t, slow.Allow("a"), fault.Limited, "too many requests; come back in 10s")
		all := auth.NewLimiter(0, 0)
		for range 1000 {
			must(t, all.Allow("a"))
		}
		if all.Callers() != 0 {
			t.Error("a limiter without a limit remembers callers")
		}
	})
}

// TestManyCallers: a limiter remembers so many callers and no more; the others share an allowance.
func TestManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := auth.NewLimiter(1, 2)
		for range 3 {
			_ = l.Allow("known")
		}
		allowed := 0
		for i := range 100_000 {
			if l.Allow(fmt.Sprint(i)) == nil {
				allowed++
			}
		}
		if n := l.Callers(); n != auth.MaxLimited {
			t.Errorf("%d callers are remembered", n)
		}
		if want := auth.MaxLimited - 1 + 2; allowed != want {
			t.Errorf("%d were allowed, want %d", allowed, want)
		}
		refused(t, l.Allow("known"), fault.Limited, "")
		time.Sleep(time.Second + 1) // all but one have a full allowance again
		must(t, l.Allow("new"))
		if n := l.Callers(); n > 2 {
			t.Errorf("%d callers are remembered", n)
		}
		refusedTwice := 0
		for range 3 { // its allowance did not begin anew
			if l.Allow("known") != nil {
				refusedTwice++
			}
		}
		if refusedTwice != 2 {
			t.Error("whoever was limited is forgotten")
		}
	})
}

func TestRequestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.RequestsPerSecond = 3 })
		p := r.principal("p")
		for range 6 {
			must(t, r.AllowRequest(p))
		}
		refused(t, r.AllowRequest(p), fault.Limited, "")
		must(t, r.AllowRequest(r.principal("q")))
		for range 100 {
			must(t, r.AllowRequest(auth.Anonymous))
		}
	})
}

// TestManyFailures: whoever tries many wrong credentials is limited, and locks out nobody; the
// audit log says so in a few words.
func TestManyFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AddressRequestsPerSecond = 5 })
		p, k := r.keyed("p", auth.Member)
		shown, _ := r.token(p.ID)
		api, _, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, API: true})
		must(t, err)
		before := len(r.records())
		const n = 10_000
		codes := map[fault.Code]int{}
		for range n {
			_, err := r.bearer("coven_" + rand.Text())
			codes[fault.CodeOf(err)]++
		}
		if codes[fault.Unauthenticated] != 20 || codes[fault.Limited] != n-20 {
			t.Errorf("%v", codes)
		}
		for range 30 {
			for _, token := range []string{shown, api} {
				_, err := r.bearer(token)
				must(t, err)
			}
			_, err := r.prove(k.proof(time.Now()), 1)
			must(t, err)
		}
		if got := len(r.records()); got != before {
			t.Errorf("%d records at once", got-before)
		}
		start := time.Now()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		x, detail := r.newest()
		if len(r.records()) != before+1 || x.Action != "login_failed" || x.TargetType != "address" || x.Target != here || detail["count"] != float64(n) || detail["last"] != "invalid or expired token" || detail["since"] != start.UTC().Format(time.RFC3339) {
			t.Errorf("%d records, %+v", len(r.records())-before, x)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if len(r.records()) != before+1 {
			t.Error("written twice")
		}

		// Many addresses are not told apart, and nobody chooses how long a record is.
		address := netip.MustParseAddr("198.51.100.0")
		for range 10 * auth.MaxFailures {
			address = address.Next()
			q := newKey(t).proof(time.Now())
			q.PublicKey, q.Signature = k.line(), base64.StdEncoding.EncodeToString(ssh.Marshal(ssh.Signature{Format: strings.Repeat("f", 4000)}))
			_, err := r.Authenticate(context.Background(), auth.Credentials{Proof: q, Address: address.String()})
			if wrong := unlike(err, fault.Unauthenticated, ""); wrong != "" {
				t.Fatal(wrong)
			}
		}
		must(t, r.Flush(context.Background()))
		all := r.records()[before+1:]
		total := 0.0
		for _, x := range all {
			if len(x.Detail) > 1000 {
				t.Fatalf("a record has %d bytes", len(x.Detail))
			}
		}
		if len(all) != auth.MaxFailures+1 {
			t.Errorf("%d records", len(all))
		}
		for _, x := range all {
			if x.Target == "others" {
				var n float64
				_, err := fmt.Sscanf(x.Detail, `{"count":%f`, &n)
				must(t, err)
				total += n
			}
		}
		if total != 9*auth.MaxFailures {
			t.Errorf("%g failures of others", total)
		}
		if v := r.verified(); !v.OK {
			t.Errorf("%+v", v)
		}

		// Who is known and may not call is limited as well.
		must(t, r.Revoke(system, p.ID))
		clear(codes)
		for range 100 {
			_, err := r.Authenticate(context.Background(), auth.Credentials{Authorization: "Bearer " + shown, Address: "203.0.113.1"})
			codes[fault.CodeOf(err)]++
		}
		if codes[fault.Forbidden] != 20 || codes[fault.Limited] != 80 {
			t.Errorf("%v", codes)
		}
	})
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[fe80::1%eth0]:80": "fe80::1", "[::1]:80": "::1", "bufconn": "bufconn", "@": "@", "": "",
	} {
		if got := auth.Address(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
