package auth_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// signed makes a JWT as other programs do.
func signed(t testing.TB, m jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	shown, err := jwt.NewWithClaims(m, claims).SignedString(key)
	must(t, err)
	return shown
}

func TestBearerRefused(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		p := r.principal("p")
		other := r.principal("other")
		_, others := r.token(other.ID)
		now := time.Now()
		claims := func(more ...any) jwt.MapClaims {
			c := jwt.MapClaims{"sub": p.ID, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
			for i := 0; i < len(more); i += 2 {
				if c[more[i].(string)] = more[i+1]; more[i+1] == nil {
					delete(c, more[i].(string))
				}
			}
			return c
		}
		hs := func(c jwt.MapClaims) string {
			return "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), c)
		}
		good := hs(claims())
		parts := strings.Split(good, ".")
		const bad = "invalid or expired token"
		for _, tt := range []struct{ what, header, words string }{
			{"nothing", "", "missing authorization header"},
			{"lower case", strings.ToLower("Bearer") + " x", "invalid authorization header format"},
			{"no space", "Bearerx", "invalid authorization header format"},
			{"basic", "Basic x", "invalid authorization header format"},
			{"empty", "Bearer ", "empty token"},
			{"two spaces", strings.Replace(good, " ", "  ", 1), bad},
			{"no token", "Bearer x.y.z", bad},
			{"HS384", "Bearer " + signed(t, jwt.SigningMethodHS384, []byte(jwtSecret), claims()), bad},
			{"HS512", "Bearer " + signed(t, jwt.SigningMethodHS512, []byte(jwtSecret), claims()), bad},
			{"none", "Bearer " + signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()), bad},
			{"RS256", "Bearer " + signed(t, jwt.SigningMethodRS256, rsaKey, claims()), bad},
			{"wrong secret", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(strings.ToUpper(jwtSecret)), claims()), bad},
			{"empty secret", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte{}, claims()), bad},
			{"no signature", parts[0] + "." + parts[1] + ".", bad},
			{"signature of another", parts[0] + "." + strings.Split(hs(claims("sub", other.ID)), ".")[1] + "." + parts[2], bad},
			{"no exp", hs(claims("exp", nil)), bad},
			{"exp now", hs(claims("exp", now.Unix())), bad},
			{"exp in the past", hs(claims("exp", now.Add(-time.Second).Unix())), bad},
			{"exp is a word", hs(claims("exp", "never")), bad},
			{"not yet", hs(claims("nbf", now.Add(time.Second).Unix())), bad},
			{"no sub", hs(claims("sub", nil)), bad},
			{"empty sub", hs(claims("sub", "")), bad},
			{"somebody's id", hs(claims("jti", others.ID)), bad},
			{"nobody", hs(claims("sub", "nobody")), "principal not found"},
			{"too long", hs(claims("x", strings.Repeat("x", 8<<10))), bad},
			{"no API token", "Bearer coven_" + rand.Text() + rand.Text(), bad},
		} {
			_, err := r.Authenticate(context.Background(), auth.Credentials{Authorization: tt.header, Address: here})
			if wrong := unlike(err, fault.Unauthenticated, tt.words); wrong != "" {
				t.Errorf("%s: %s", tt.what, wrong)
			}
			if bearer := tt.words == bad; bearer != errors.Is(err, auth.ErrToken) {
				t.Errorf("%s: ErrToken is in the chain: %t", tt.what, !bearer)
			}
		}
		if ts, err := r.Tokens(system, p.ID, 10); err != nil || len(ts) != 0 {
			t.Errorf("tokens were adopted: %v %v", ts, err)
		}
		got, err := r.Authenticate(context.Background(), auth.Credentials{Authorization: good, Address: here})
		if err != nil || got.ID != p.ID || got.Credential.Kind != auth.JWT || got.Credential.Scopes != nil {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// TestTwoSecrets: the first secret signs, all verify.
func TestTwoSecrets(t *testing.T) {
	const second = "fedcba9876543210fedcba9876543210"
	r := rigged(t)
	p := r.principal("p")
	old, _ := r.token(p.ID)
	r.restart(func(o *auth.Options) { o.JWTSecrets = [][]byte{[]byte(second), []byte(jwtSecret)} })
	if _, err := r.bearer(old); err != nil {
		t.Error("the second secret does not verify:", err)
	}
	fresh, _ := r.token(p.ID)
	if _, err := r.bearer(fresh); err != nil {
		t.Error("the first secret does not verify:", err)
	}
	if _, err := jwt.Parse(fresh, func(*jwt.Token) (any, error) { return []byte(second), nil }); err != nil {
		t.Error("the first secret does not sign:", err)
	}
	r.restart(func(o *auth.Options) { o.JWTSecrets = o.JWTSecrets[:1] })
	_, err := r.bearer(old)
	refused(t, err, fault.Unauthenticated, "invalid or expired token")
}

func TestTokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		p := r.principal("p")
		for _, api := range []bool{false, true} {
			shown, tok, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, Life: time.Minute, API: api})
			must(t, err)
			if !tok.ExpiresAt.Equal(time.Now().Add(time.Minute)) {
				t.Error("expires at", tok.ExpiresAt)
			}
			time.Sleep(time.Minute - 1)
			if _, err := r.bearer(shown); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Nanosecond)
			_, err = r.bearer(shown)
			refused(t, err, fault.Unauthenticated, "invalid or expired token")
		}
		for _, life := range []time.Duration{0, -1} {
			if _, tok, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, Life: life}); err != nil || tok.ExpiresAt.Sub(tok.CreatedAt) != auth.StandardLife {
				t.Error(tok, err)
			}
		}
		_, _, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, Life: auth.MaxLife})
		must(t, err)
		_, _, err = r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, Life: auth.MaxLife + 1})
		refused(t, err, fault.Invalid, "ttl_seconds exceeds maximum of 31536000")
	})
}

func TestTokenRequests(t *testing.T) {
	r := rigged(t)
	p, pending := r.principal("p"), r.principal("q")
	must(t, r.Revoke(system, pending.ID))
	for _, tt := range []struct {
		request auth.TokenRequest
		code    fault.Code
		words   string
	}{
		{auth.TokenRequest{}, fault.Invalid, "principal_id required"},
		{auth.TokenRequest{PrincipalID: "nobody"}, fault.NotFound, "principal not found"},
		{auth.TokenRequest{PrincipalID: pending.ID}, fault.Conflict, "principal status is revoked, must be approved"},
		{auth.TokenRequest{PrincipalID: p.ID, Scopes: []auth.Scope{"root"}, API: true}, fault.Invalid, `scope must be read, send, connect, devices or admin; got "root"`},
		{auth.TokenRequest{PrincipalID: p.ID, Scopes: []auth.Scope{auth.ScopeRead}}, fault.Invalid, "only API tokens have scopes"},
		{auth.TokenRequest{PrincipalID: p.ID, Scopes: []auth.Scope{}, API: true}, fault.Invalid, "scopes must not be empty; without them a token is good for everything"},
		{auth.TokenRequest{PrincipalID: p.ID, Name: "a\nb"}, fault.Invalid, "name: display_name must be printable UTF-8"},
		{auth.TokenRequest{PrincipalID: p.ID, Name: strings.Repeat("x", 101)}, fault.Invalid, "name: display_name exceeds 100 characters"},
	} {
		_, _, err := r.CreateToken(system, tt.request)
		refused(t, err, tt.code, tt.words)
	}
	if ts, err := r.Tokens(system, "", 10); err != nil || len(ts) != 0 {
		t.Error(ts, err)
	}
}

// TestAdopted: a token that another program has made with our secret can be listed and revoked.
func TestAdopted(t *testing.T) {
	r := rigged(t)
	p := r.principal("p")
	make := func(more jwt.MapClaims) string {
		c := jwt.MapClaims{"sub": p.ID, "exp": time.Now().Add(time.Hour).Unix()}
		maps.Copy(c, more)
		return signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), c)
	}
	for _, shown := range []string{
		make(nil), make(jwt.MapClaims{"jti": "theirs"}), make(jwt.MapClaims{"jti": strings.Repeat("j", 65)}),
	} {
		got, err := r.bearer(shown)
		must(t, err)
		if got.Credential.ID == "" || len(got.Credential.ID) > 64 {
			t.Errorf("id %q", got.Credential.ID)
		}
		again, err := r.bearer(shown)
		if err != nil || again.Credential.ID != got.Credential.ID {
			t.Error(again, err)
		}
		ts, err := r.Tokens(system, p.ID, 10)
		must(t, err)
		if len(ts) == 0 || ts[0].ID != got.Credential.ID || ts[0].CreatedBy != "" || ts[0].Kind != auth.JWT {
			t.Errorf("listed: %+v", ts)
		}
		if got := r.actions(ts[0].ID); got != "adopt_token" {
			t.Error("audit log:", got)
		}
		must(t, r.RevokeToken(system, ts[0].ID))
		_, err = r.bearer(shown)
		refused(t, err, fault.Unauthenticated, "invalid or expired token")
		for _, twin := range twins(shown) {
			_, err := r.bearer(twin)
			refused(t, err, fault.Unauthenticated, "invalid or expired token")
		}
	}
}

// twins returns other spellings of a token's last part.
func twins(token string) (all []string) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, token[len(token)-1]) // has 2 bits that say nothing
	for i := last &^ 3; i < last&^3+4; i++ {
		if i != last {
			all = append(all, token[:len(token)-1]+digits[i:i+1])
		}
	}
	return append(all, token+"=", token+"\n", token[:len(token)-5]+"\r\n"+token[len(token)-5:])
}

// TestRevoked: what was revoked is refused at once, also when it is cached, and ends its calls.
func TestRevoked(t *testing.T) {
	r := rigged(t)
	p := r.principal("p")
	for _, api := range []bool{false, true} {
		shown, tok, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, API: api})
		must(t, err)
		caller, err := r.bearer(shown)
		must(t, err)
		ctx, leave, err := r.Enter(context.Background(), caller)
		must(t, err)
		other, _ := r.token(p.ID)
		bystander, err := r.bearer(other)
		must(t, err)
		otherCtx, otherLeave, err := r.Enter(context.Background(), bystander)
		must(t, err)

		must(t, r.RevokeToken(system, tok.ID))
		_, err = r.bearer(shown)
		refused(t, err, fault.Unauthenticated, "invalid or expired token")
		refused(t, context.Cause(ctx), fault.Unauthenticated, "the credential was revoked")
		refused(t, r.Recheck(context.Background(), caller), fault.Unauthenticated, "invalid or expired token")
		_, _, err = r.Enter(context.Background(), caller)
		refused(t, err, fault.Unauthenticated, "invalid or expired token")
		if otherCtx.Err() != nil {
			t.Error("the call of another token was ended")
		}
		before := len(r.records())
		must(t, r.RevokeToken(system, tok.ID))
		if len(r.records()) != before {
			t.Error("a second revocation was recorded")
		}
		leave()
		otherLeave()
	}
	refused(t, r.RevokeToken(system, "nothing"), fault.NotFound, `no token "nothing"`)
}

// TestGone: whoever was revoked or deleted loses everything at once.
func TestGone(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		r := rigged(t)
		p, k := r.keyed("p", auth.Member)
		shown, tok := r.token(p.ID)
		caller, err := r.bearer(shown)
		must(t, err)
		holder, err := r.prove(k.proof(time.Now()), 1)
		must(t, err)
		ctx, leave, err := r.Enter(context.Background(), caller)
		must(t, err)
		if q, err := r.Principal(system, p.ID); err != nil || !q.Online {
			t.Error("not online", err)
		}
		word, code, key := "principal has been revoked", fault.Forbidden, "principal has been revoked"
		if deleted {
			must(t, r.Delete(system, p.ID))
			word, code, key = "principal not found", fault.Unauthenticated, "unknown public key"
		} else {
			must(t, r.Revoke(system, p.ID))
		}
		refused(t, context.Cause(ctx), fault.Forbidden, "principal has been revoked")
		leave()
		_, err = r.prove(k.proof(time.Now()), 1)
		refused(t, err, code, key)
		_, _, err = r.Enter(context.Background(), caller)
		refused(t, err, code, word)
		_, _, err = r.Enter(context.Background(), holder)
		refused(t, err, code, word)
		if _, err = r.bearer(shown); deleted {
			refused(t, err, code, word)
			if _, err := r.Tokens(system, p.ID, 10); err != nil {
				t.Error(err)
			}
			refused(t, r.RevokeToken(system, tok.ID), fault.NotFound, "")
		} else {
			refused(t, err, code, word)
			must(t, r.Approve(system, p.ID))
			_, err = r.bearer(shown)
			must(t, err)
		}
		if q, err := r.Principal(system, p.ID); err == nil && q.Online {
			t.Error("still online")
		}
		if !slices.Equal(r.ended, []string{p.ID}) {
			t.Error("ended:", r.ended)
		}
	}
}

// TestKeyRemoved: a removed key is refused at once, and the calls made with it end, also one that
// is just about to begin.
func TestKeyRemoved(t *testing.T) {
	r := rigged(t)
	p, k := r.keyed("p", auth.Member)
	second := newKey(t)
	_, err := r.AddKey(system, p.ID, second.line(), "")
	must(t, err)
	caller, err := r.prove(k.proof(time.Now()), 1)
	must(t, err)
	late, err := r.prove(k.proof(time.Now()), 1)
	must(t, err)
	bystander, err := r.prove(second.proof(time.Now()), 1)
	must(t, err)
	ctx, leave, err := r.Enter(context.Background(), caller)
	must(t, err)
	defer leave()
	must(t, r.RemoveKey(system, p.ID, strings.ToUpper(k.fingerprint())))
	refused(t, context.Cause(ctx), fault.Unauthenticated, "the credential was revoked")
	_, err = r.prove(k.proof(time.Now()), 1)
	refused(t, err, fault.Unauthenticated, "unknown public key")
	_, _, err = r.Enter(context.Background(), late)
	refused(t, err, fault.Unauthenticated, "unknown public key")
	_, leave2, err := r.Enter(context.Background(), bystander)
	must(t, err)
	leave2()

	// Somebody else's key now.
	other := r.principal("other")
	_, err = r.AddKey(system, other.ID, k.line(), "")
	must(t, err)
	refused(t, r.Recheck(context.Background(), late), fault.Unauthenticated, "unknown public key")
	refused(t, r.RemoveKey(system, p.ID, k.fingerprint()), fault.NotFound, "")
}

// TestAPITokens: they are kept as hashes only, and their scopes narrow what they are good for.
func TestAPITokens(t *testing.T) {
	r := rigged(t)
	p := r.principal("p", auth.Admin)
	shown, tok, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: p.ID, Name: "ci", API: true, Scopes: []auth.Scope{auth.ScopeRead, auth.ScopeSend}})
	must(t, err)
	if !strings.HasPrefix(shown, "coven_") || len(shown) < 40 {
		t.Errorf("token %q", shown)
	}
	must(t, r.Flush(context.Background()))
	sum := sha256.Sum256([]byte(shown))
	if !r.stored(string(sum[:])) {
		t.Error("the hash is not in the database: the search finds nothing")
	}
	for _, s := range []string{shown, strings.TrimPrefix(shown, "coven_"), shown[len(shown)-26:], hex.EncodeToString(sum[:])} {
		if r.stored(s) {
			t.Errorf("%q is in the database", s)
		}
	}
	jwtShown, _ := r.token(p.ID)
	if r.stored(jwtShown) || r.stored(jwtShown[strings.LastIndexByte(jwtShown, '.')+1:]) {
		t.Error("a JWT is in the database")
	}
	caller, err := r.bearer(shown)
	if err != nil || caller.Credential.Kind != auth.APIToken || caller.Credential.ID != tok.ID {
		t.Fatalf("%+v %v", caller, err)
	}
	for scope, ok := range map[auth.Scope]bool{auth.ScopeRead: true, auth.ScopeSend: true, auth.ScopeConnect: false, auth.ScopeDevices: false, auth.ScopeAdmin: false, "": true} {
		err := auth.Rule{Level: auth.AnyCaller, Scope: scope}.Allow(caller)
		if (err == nil) != ok {
			t.Errorf("scope %q: %v", scope, err)
		}
	}
	refused(t, auth.RPCs["/coven.AdminService/CreateToken"].Allow(caller), fault.Forbidden, `this token lacks the scope "admin"`)
	whole, err := r.bearer(jwtShown)
	must(t, err)
	must(t, auth.RPCs["/coven.AdminService/CreateToken"].Allow(whole))
	for _, change := range []string{shown + "A", shown[:len(shown)-1], strings.ToLower(shown)} {
		_, err := r.bearer(change)
		refused(t, err, fault.Unauthenticated, "invalid or expired token")
	}
}

func TestLevels(t *testing.T) {
	caller := func(roles ...auth.Role) auth.Principal {
		return auth.Principal{ID: "p", Status: auth.Approved, Roles: roles}
	}
	for _, tt := range []struct {
		level   auth.Level
		who     auth.Principal
		refusal string
	}{
		{auth.Anybody, auth.Principal{}, ""},
		{auth.AnyCaller, caller(), ""},
		{auth.Members, caller(), "member role required"},
		{auth.Members, caller(auth.Leader), "member role required"},
		{auth.Members, caller(auth.Member), ""},
		{auth.Members, caller(auth.Admin), ""},
		{auth.Members, caller(auth.Owner), ""},
		{auth.Admins, caller(), "admin role required"},
		{auth.Admins, caller(auth.Leader, auth.Member), "admin role required"},
		{auth.Admins, caller(auth.Admin), ""},
		{auth.Admins, caller(auth.Owner), ""},
		{0, caller(auth.Owner), " role required"}, // no rule
	} {
		err := auth.Rule{Level: tt.level}.Allow(tt.who)
		if tt.refusal != "" {
			refused(t, err, fault.Forbidden, tt.refusal)
		} else if err != nil {
			t.Error(tt, err)
		}
	}
	if owner := caller(auth.Owner); !owner.Has(auth.Leader) || caller(auth.Admin).Has(auth.Owner) || caller(auth.Member).Has(auth.Leader) {
		t.Error("roles include what they should not, or not what they should")
	}
	for name, rule := range auth.RPCs {
		if rule.Level >= auth.Admins != (rule.Scope == auth.ScopeAdmin) || rule.Level == 0 {
			t.Errorf("%s: %+v", name, rule)
		}
	}
	for name, rule := range auth.Routes {
		if admin := strings.Contains(name, "/api/admin/") || strings.HasSuffix(name, "POST /api/bindings") || strings.HasSuffix(name, "DELETE /api/bindings"); admin != (rule.Level == auth.Admins) || admin != (rule.Scope == auth.ScopeAdmin) || rule.Level == 0 {
			t.Errorf("%s: %+v", name, rule)
		}
	}
}

// TestLastUse: last uses are known at once and written a little later.
func TestLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		p, k := r.keyed("p", auth.Member)
		shown, tok := r.token(p.ID)
		time.Sleep(time.Second)
		for _, login := range []func() (auth.Principal, error){
			func() (auth.Principal, error) { return r.bearer(shown) },
			func() (auth.Principal, error) { return r.prove(k.proof(time.Now()), 1) },
		} {
			caller, err := login()
			must(t, err)
			_, leave, err := r.Enter(context.Background(), caller)
			must(t, err)
			leave()
		}
		used := time.Now().UTC()
		check := func(when string) {
			t.Helper()
			ts, err := r.Tokens(system, p.ID, 10)
			if err != nil || len(ts) != 1 || ts[0].ID != tok.ID || !ts[0].LastUsed.Equal(used) {
				t.Errorf("%s: token %+v %v", when, ts, err)
			}
			if q, err := r.Principal(system, p.ID); err != nil || !q.LastSeen.Equal(used) {
				t.Errorf("%s: principal %+v %v", when, q, err)
			}
		}
		check("at once")
		time.Sleep(61 * time.Second)
		synctest.Wait()
		check("written")
		ks, err := r.Keys(system, p.ID)
		if err != nil || len(ks) != 1 || !ks[0].LastUsed.Equal(used) {
			t.Errorf("key %+v %v", ks, err)
		}
		read := r.db.Identity().Read(context.Background())
		if x, err := read.Token(tok.ID); err != nil || !x.LastUsed.Equal(used) {
			t.Errorf("stored %+v %v", x, err)
		}
		caller, err := r.bearer(shown)
		must(t, err)
		_, leave, err := r.Enter(context.Background(), caller)
		must(t, err)
		leave()
		used = time.Now().UTC()
		r.restart() // Close writes what is left
		if x, err := r.db.Identity().Read(context.Background()).Token(tok.ID); err != nil || !x.LastUsed.Equal(used) {
			t.Errorf("after Close: %+v %v", x, err)
		}
	})
}

// TestOpenMode: without a secret machines other than this one are refused, and tokens are worth
// nothing once there is a secret.
func TestOpenMode(t *testing.T) {
	r := rigged(t, func(o *auth.Options) { o.JWTSecrets = nil })
	for address, ok := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "bufconn": true, "192.0.2.1": false, "::": false, "": false, "localhost": false} {
		p, err := r.Authenticate(context.Background(), auth.Credentials{Authorization: "Bearer x", Address: address})
		switch {
		case ok && (err != nil || p.ID != "anonymous" || !p.Has(auth.Owner)):
			t.Error(address, p, err)
		case !ok:
			refused(t, err, fault.Forbidden, "")
		}
	}
	p := r.principal("p")
	shown, _ := r.token(p.ID)
	r.restart(func(o *auth.Options) { o.OpenRemote = true })
	if _, err := r.Authenticate(context.Background(), auth.Credentials{Address: here}); err != nil {
		t.Error(err)
	}
	r.restart(func(o *auth.Options) { o.JWTSecrets = [][]byte{[]byte(jwtSecret)} })
	_, err := r.bearer(shown)
	refused(t, err, fault.Unauthenticated, "invalid or expired token")
}
