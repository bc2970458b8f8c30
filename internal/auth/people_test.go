package auth_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

const goodPassword = "a long word and another"

// person makes a person with a password, and signs in.
func (r *rig) person(name string, role auth.Role) auth.Principal {
	r.t.Helper()
	inviter := r.principal("inviter", auth.Owner)
	invite, _, err := r.CreateInvite(r.as(inviter.ID), role, "", 0)
	must(r.t, err)
	_, p, _, err := r.AcceptInvite(context.Background(), invite, auth.Guest{Name: name, Display: name, Password: goodPassword, Browser: auth.Browser{Address: here}})
	must(r.t, err)
	return p
}

func (r *rig) cookie(value string) (auth.Principal, error) {
	return r.Authenticate(context.Background(), auth.Credentials{Session: value, Address: here})
}

// TestSessionSlides: a session that is used lives on, though what is cached of it does not change, up to
// its end; one that is not used ends before. A stream does not outlast it.
func TestSessionSlides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := riggedInMemory(t)
		r.person("ann", auth.Member)
		l, err := r.SignIn(t.Context(), "ann", goodPassword, auth.Browser{Address: here})
		must(t, err)
		idle, err := r.SignIn(t.Context(), "ann", goodPassword, auth.Browser{Address: here})
		must(t, err)
		p, err := r.cookie(l.Shown)
		must(t, err)
		stream, leave, err := r.Enter(context.Background(), p)
		must(t, err)
		defer leave()
		begun := time.Now()
		for time.Since(begun) < auth.SignInLife-24*time.Hour {
			time.Sleep(auth.SessionIdle - time.Hour)
			if time.Since(begun) >= auth.SignInLife {
				break
			}
			p, err := r.cookie(l.Shown)
			must(t, err)
			_, leave, err := r.Enter(context.Background(), p)
			must(t, err)
			leave()
			must(t, r.Flush(t.Context()))
			if time.Since(begun) >= auth.SessionIdle { // and so not for the first time
				_, err = r.cookie(idle.Shown)
				refused(t, err, fault.Unauthenticated, "invalid or expired token")
			}
			if stream.Err() != nil {
				t.Fatal("the stream has ended")
			}
		}
		time.Sleep(time.Until(begun.Add(auth.SignInLife)))
		synctest.Wait()
		_, err = r.cookie(l.Shown)
		refused(t, err, fault.Unauthenticated, "invalid or expired token")
		refused(t, context.Cause(stream), fault.Unauthenticated, "the session has expired")
	})
}

// TestManySessions: the oldest session ends when there are too many.
func TestManySessions(t *testing.T) {
	r := rigged(t)
	p := r.person("ann", auth.Member)
	token, x := r.token(p.ID)
	actor, err := r.bearer(token)
	must(t, err)
	_ = x
	for range 60 {
		_, _, err := r.LogIn(auth.With(context.Background(), actor), auth.Browser{Address: here, Device: strings.Repeat("x", 1000)})
		must(t, err)
	}
	l, err := r.SignIn(t.Context(), "ann", goodPassword, auth.Browser{Address: here})
	must(t, err)
	open, err := r.OpenSessions(t.Context(), p.ID)
	must(t, err)
	if len(open) != 50 || open[0].ID != l.Session.ID || len(open[1].Device) != 200 {
		t.Errorf("%d sessions", len(open))
	}
}

// TestPasswordsStored: what is stored is a hash, and it is not good in another form.
func TestPasswordsStored(t *testing.T) {
	r := rigged(t)
	p := r.person("ann", auth.Member)
	u, err := r.Person(t.Context(), p.ID)
	must(t, err)
	if !strings.HasPrefix(u.Password, "$argon2id$v=19$m=19456,t=2,p=1$") || r.stored(goodPassword) {
		t.Error(u.Password)
	}
	for _, c := range []struct{ password, words string }{
		{"fourteen chars", "password must have at least 15 characters; this one has 14"},
		{strings.Repeat("ab c!", 52), "password must not be longer than 256 bytes; this one has 260"},
		{"PasswordPassword", "password is one that everybody tries first"},
		{"abcabcabcabcabcabc", "password is too easy: it repeats itself, or is nothing but your name or digits in order"},
		{"1234567890123456", "password is too easy: it repeats itself, or is nothing but your name or digits in order"},
		{"fifteen\xffchars..", "password must be UTF-8"},
	} {
		p.Credential = auth.Credential{Kind: auth.Session, ProvedAt: time.Now()}
		refused(t, r.SetPassword(auth.With(t.Context(), p), "", c.password), fault.Invalid, c.words)
	}
	for _, name := range []string{"", "a", "1a", "a b", "é", strings.Repeat("a", 33)} {
		if got, err := auth.SignInName(name); err == nil {
			t.Errorf("%q is good as %q", name, got)
		}
	}
}

// TestOwnerLink: whoever holds the machine gets an owner in again.
func TestOwnerLink(t *testing.T) {
	r := rigged(t)
	token, p, _, err := r.OwnerLink(t.Context())
	must(t, err)
	if p.ID != "" {
		t.Error(p)
	}
	l, err := r.OpenLink(t.Context(), token, "", "", auth.Browser{Address: here})
	must(t, err)
	again, p, _, err := r.OwnerLink(t.Context())
	must(t, err)
	if p.ID != l.Principal.ID || fmt.Sprint(l.Principal.Roles) != "[owner]" || l.Principal.Kind != auth.User {
		t.Errorf("%+v %+v", p, l.Principal)
	}
	_, err = r.cookie(l.Shown)
	must(t, err)
	_, err = r.OpenLink(t.Context(), again, "", "", auth.Browser{Address: here})
	must(t, err)
	_, err = r.cookie(l.Shown)
	refused(t, err, fault.Unauthenticated, "invalid or expired token")
	if r.stored(again) {
		t.Error("the link is in the database")
	}
}

// TestFirstLinkOfNobody: the link for the first owner is worth nothing once there is one.
func TestFirstLinkOfNobody(t *testing.T) {
	r := rigged(t)
	token, _, err := r.FirstLink(t.Context())
	must(t, err)
	r.principal("owner", auth.Owner)
	_, err = r.OpenLink(t.Context(), token, "", "", auth.Browser{Address: here})
	refused(t, err, fault.NotFound, "this link is not good, or not any more")
}

// FuzzPHC: what is read is written the same, and is never more work than allowed.
func FuzzPHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA")
	f.Add("$2a$10$x")
	f.Fuzz(func(t *testing.T, s string) {
		if again, memory, ok := auth.ReadPHC(s); ok && (again != s || memory > 64<<10) {
			t.Errorf("%q is read as %q", s, again)
		}
	})
}

// FuzzPasskey: no answer of a browser that knows no key is good, nor is it more than refused.
func FuzzPasskey(f *testing.F) {
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"oA","authenticatorData":"","signature":"","userHandle":"AA"}}`))
	f.Add([]byte(`{}`))
	r := rigged(f)
	p := r.person("ann", auth.Member)
	p.Credential = auth.Credential{Kind: auth.Session, ProvedAt: time.Now()}
	ctx := auth.With(context.Background(), p)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, sign, err := r.BeginSignIn("bufconn")
		if err != nil {
			t.Skip()
		}
		if _, err := r.SignInWithPasskey(ctx, sign, b, auth.Browser{Address: here}); err == nil || fault.CodeOf(err) == fault.Internal {
			t.Errorf("%q: %v", b, err)
		}
		_, register, err := r.BeginPasskey(ctx)
		must(t, err)
		if _, err := r.AddPasskey(ctx, register, "", b); err != nil && fault.CodeOf(err) == fault.Internal {
			t.Errorf("%q: %v", b, err)
		}
	})
}
