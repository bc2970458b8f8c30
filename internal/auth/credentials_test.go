package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A key signs as existing programs do, or as they should not.
type key struct {
	t      testing.TB
	signer ssh.AlgorithmSigner
}

func newKey(t testing.TB, private any) key {
	t.Helper()
	if private == nil {
		_, p, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private = p
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{t, s.(ssh.AlgorithmSigner)}
}

func (k key) line() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

func (k key) fingerprint() string { return auth.Fingerprint(k.signer.PublicKey()) }

// proof signs a time; algorithm "" is that of the key.
func (k key) proof(at time.Time, nonce, algorithm string) auth.Proof {
	k.t.Helper()
	if algorithm == "" {
		algorithm = k.signer.PublicKey().Type()
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	sig, err := k.signer.SignWithAlgorithm(rand.Reader, []byte(stamp+"|"+nonce), algorithm)
	if err != nil {
		k.t.Fatal(err)
	}
	return auth.Proof{PublicKey: k.line(), Timestamp: stamp, Nonce: nonce, Signature: base64.StdEncoding.EncodeToString(ssh.Marshal(sig))}
}

// let lets a key in.
func (g *gate) let(k key) auth.Principal {
	g.t.Helper()
	p, err := g.CreatePrincipal(ctx, auth.NewPrincipal{Kind: auth.Agent, Name: "key", PublicKey: k.line()})
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

func (g *gate) show(p auth.Proof, connection uint64) error {
	_, err := g.Authenticate(context.Background(), auth.Credentials{Proof: p, Address: "192.0.2.1", Connection: connection})
	return err
}

// TestProofs: what is accepted, and the words of every refusal (grpc.md 2.4).
func TestProofs(t *testing.T) {
	g := newGate(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		os.Setenv("GODEBUG", "rsa1024min=0")
		if small, err = rsa.GenerateKey(rand.Reader, 1024); err != nil {
			t.Fatal(err)
		}
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, rsaKey, ec, tiny, stranger := newKey(t, nil), newKey(t, big), newKey(t, curve), newKey(t, small), newKey(t, nil)
	for _, k := range []key{ed, rsaKey, ec} {
		g.let(k)
	}
	cert := &ssh.Certificate{Key: ed.signer.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ed.signer); err != nil {
		t.Fatal(err)
	}
	n := 0
	good := func(k key, algorithm string) auth.Proof {
		n++
		return k.proof(time.Now(), fmt.Sprint("nonce", n), algorithm)
	}
	edit := func(f func(*auth.Proof)) auth.Proof {
		p := good(ed, "")
		f(&p)
		return p
	}
	for name, c := range map[string]struct {
		proof auth.Proof
		want  string // "" is accepted
	}{
		"ed25519":              {good(ed, ""), ""},
		"ecdsa":                {good(ec, ""), ""},
		"rsa with SHA-256":     {good(rsaKey, ssh.KeyAlgoRSASHA256), ""},
		"rsa with SHA-512":     {good(rsaKey, ssh.KeyAlgoRSASHA512), ""},
		"spaces around":        {edit(func(p *auth.Proof) { p.PublicKey, p.Nonce = "  "+p.PublicKey+" me@here ", " "+p.Nonce+" " }), ""},
		"rsa with SHA-1":       {good(rsaKey, ssh.KeyAlgoRSA), `SSH auth failed: a key of type ssh-rsa cannot make a signature of type "ssh-rsa"`},
		"a small rsa key":      {good(tiny, ssh.KeyAlgoRSASHA256), "SSH auth failed: an RSA key must have at least 2048 bits"},
		"an unknown key":       {good(stranger, ""), "unknown public key"},
		"no key":               {edit(func(p *auth.Proof) { p.PublicKey = " " }), "missing SSH public key"},
		"no signature":         {edit(func(p *auth.Proof) { p.Signature = "" }), "missing SSH signature"},
		"no time":              {edit(func(p *auth.Proof) { p.Timestamp = "" }), "missing SSH timestamp"},
		"time 0":               {edit(func(p *auth.Proof) { p.Timestamp = "0" }), "missing SSH timestamp"},
		"a word for a time":    {edit(func(p *auth.Proof) { p.Timestamp = "now" }), "missing SSH timestamp"},
		"no nonce":             {edit(func(p *auth.Proof) { p.Nonce = "" }), "missing SSH nonce"},
		"a long nonce":         {edit(func(p *auth.Proof) { p.Nonce = strings.Repeat("n", 257) }), "SSH auth failed: the nonce must not be longer"},
		"not a key":            {edit(func(p *auth.Proof) { p.PublicKey = "ssh-ed25519 AAAA" }), "SSH auth failed: the public key is not an authorized_keys line"},
		"a key with options":   {edit(func(p *auth.Proof) { p.PublicKey = `command="x" ` + p.PublicKey }), "SSH auth failed: the public key must be one authorized_keys line without options"},
		"two keys":             {edit(func(p *auth.Proof) { p.PublicKey += "\n" + p.PublicKey }), "SSH auth failed: the public key must be one"},
		"a certificate":        {edit(func(p *auth.Proof) { p.PublicKey = string(ssh.MarshalAuthorizedKey(cert)) }), "SSH auth failed: keys of type ssh-ed25519-cert-v01@openssh.com are not accepted"},
		"not base64":           {edit(func(p *auth.Proof) { p.Signature = "!" }), "SSH auth failed: the signature is not standard base64"},
		"not a signature":      {edit(func(p *auth.Proof) { p.Signature = "AAAA" }), "SSH auth failed: the signature is not an SSH signature"},
		"another's signature":  {edit(func(p *auth.Proof) { p.Signature = good(stranger, "").Signature }), "SSH auth failed: signature verification failed"},
		"another time":         {edit(func(p *auth.Proof) { s, _ := strconv.Atoi(p.Timestamp); p.Timestamp = fmt.Sprint(s - 1) }), "SSH auth failed: signature verification failed"},
		"another nonce":        {edit(func(p *auth.Proof) { p.Nonce += "x" }), "SSH auth failed: signature verification failed"},
		"another key":          {edit(func(p *auth.Proof) { p.PublicKey = ec.line() }), "cannot make a signature of type"},
		"too old":              {ed.proof(time.Now().Add(-302*time.Second), "old", ""), "SSH auth failed: signature expired (age: 5m"},
		"nearly too old":       {ed.proof(time.Now().Add(-298*time.Second), "nearly old", ""), ""},
		"in the future":        {ed.proof(time.Now().Add(62*time.Second), "future", ""), "SSH auth failed: timestamp is in the future"},
		"nearly in the future": {ed.proof(time.Now().Add(58*time.Second), "nearly future", ""), ""},
	} {
		err := g.show(c.proof, 1)
		if (err == nil) != (c.want == "") || err != nil && (fault.CodeOf(err) != fault.Unauthenticated || !strings.Contains(fault.Message(err), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestFingerprint: it is the SHA-256 of the key's wire form, as other programs print it.
func TestFingerprint(t *testing.T) {
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here"
	k, comment, err := auth.ParseKey(line)
	if err != nil || comment != "me@here" {
		t.Fatal(err, comment)
	}
	if fp := ssh.FingerprintSHA256(k); !strings.HasPrefix(fp, "SHA256:") {
		t.Error(fp)
	} else if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(fp, "SHA256:")); err != nil || fmt.Sprintf("%x", raw) != auth.Fingerprint(k) {
		t.Errorf("%x %v, want %s", raw, err, auth.Fingerprint(k))
	}
	if got, err := auth.ParseFingerprint(strings.ToUpper(auth.Fingerprint(k))); err != nil || got != auth.Fingerprint(k) {
		t.Error(got, err)
	}
}

// TestNonces: a signature is good again on its connection for as long as it could be accepted, and
// is remembered as long; no other is forgotten to make room for it.
func TestNonces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		k := newKey(t, nil)
		g.let(k)
		p := k.proof(time.Now().Add(50*time.Second), "n", "") // ahead, so that it lives longest
		replay := func() string {
			if err := g.show(p, 2); err != nil {
				return fault.Message(err)
			}
			return ""
		}
		if err := g.show(p, 1); err != nil {
			t.Fatal(err)
		}
		for range 34 { // 340 s: until it is too old
			if err := g.show(p, 1); err != nil {
				t.Fatal(err)
			}
			if got := replay(); got != "SSH auth failed: nonce already used (possible replay attack)" {
				t.Fatal(got)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(12 * time.Second)
		if got := replay(); !strings.Contains(got, "signature expired") {
			t.Error(got)
		}
		if err := g.show(p, 0); err == nil {
			t.Error("accepted")
		}
	})
}

// TestUnknownConnection: where connections cannot be told apart, a signature is good once.
func TestUnknownConnection(t *testing.T) {
	g := newGate(t)
	k := newKey(t, nil)
	g.let(k)
	p := k.proof(time.Now(), "n", "")
	if err := g.show(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := g.show(p, 0); err == nil {
		t.Error("accepted twice")
	}
}

// TestUnknownKeys: what becomes of keys that nobody knows, in each mode, and that calls at the same
// time make one principal.
func TestUnknownKeys(t *testing.T) {
	for _, c := range []struct {
		mode         auth.AutoRegistration
		first, later string
		status       auth.Status
	}{
		{auth.RegisterNobody, "unknown public key", "unknown public key", ""},
		{auth.RegisterPending, "agent registered with pending status (principal_id: ", "principal status is pending - admin approval required", auth.Pending},
		{auth.RegisterApproved, "", "", auth.Approved},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			g := newGate(t, func(o *auth.Options) { o.AutoRegistration = c.mode })
			k := newKey(t, nil)
			var wg sync.WaitGroup
			var mu sync.Mutex
			said := map[string]int{}
			for i := range 8 {
				wg.Go(func() {
					err := g.show(k.proof(time.Now(), fmt.Sprint(i), ""), uint64(i)+1)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						said[""]++
					} else {
						said[fault.Message(err)]++
					}
				})
			}
			wg.Wait()
			for text := range said {
				if c.first == "" && text != "" || !strings.HasPrefix(text, c.first) && text != c.later {
					t.Errorf("said %q", text)
				}
			}
			ps, err := g.Principals(ctx, auth.PrincipalFilter{Limit: 10})
			if err != nil || len(ps) != map[bool]int{true: 1}[c.status != ""] {
				t.Fatalf("%+v %v", ps, err)
			}
			if c.status == "" {
				return
			}
			p := ps[0]
			if fp := k.fingerprint(); p.Status != c.status || p.Kind != auth.Agent || p.Name != "agent-"+fp[56:] || p.Has(auth.Member) != (c.status == auth.Approved) {
				t.Errorf("%+v", p)
			}
			err = g.show(k.proof(time.Now(), "later", ""), 1)
			if (err == nil) != (c.later == "") || err != nil && fault.Message(err) != c.later {
				t.Errorf("later: %v", err)
			}
			if err := g.Approve(ctx, p.ID); err != nil {
				t.Fatal(err)
			}
			if err := g.show(k.proof(time.Now(), "approved", ""), 1); err != nil {
				t.Error(err)
			}
			if err := g.Revoke(ctx, p.ID); err != nil {
				t.Fatal(err)
			}
			if err := g.show(k.proof(time.Now(), "revoked", ""), 1); fault.CodeOf(err) != fault.Forbidden || fault.Message(err) != "principal has been revoked" {
				t.Error(err)
			}
		})
	}
}

// TestRegistrationLimit: one address cannot fill the gateway with principals.
func TestRegistrationLimit(t *testing.T) {
	g := newGate(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterApproved })
	limited := 0
	for i := range 60 {
		if err := g.show(newKey(t, nil).proof(time.Now(), fmt.Sprint(i), ""), 1); fault.CodeOf(err) == fault.Limited {
			limited++
		}
	}
	if limited < 25 {
		t.Errorf("%d of 60 were refused", limited)
	}
}

// TestBearer: which tokens are good.
func TestBearer(t *testing.T) {
	first, second := []byte("0123456789abcdef0123456789abcdef"), []byte("another secret, which signed in the past")
	g := newGate(t, func(o *auth.Options) { o.JWTSecrets = [][]byte{first, second} })
	p, _ := g.person("p")
	q, _ := g.person("q")
	gonePrincipal, _ := g.person("gone")
	if err := g.Delete(ctx, gonePrincipal.ID); err != nil {
		t.Fatal(err)
	}
	soon := jwt.NewNumericDate(time.Now().Add(time.Hour))
	sign := func(method jwt.SigningMethod, secret any, claims jwt.RegisteredClaims) string {
		t.Helper()
		s, err := jwt.NewWithClaims(method, claims).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ours, issued, err := g.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	api, _, err := g.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID, API: true, Name: "ci", Scopes: []auth.Scope{auth.ScopeRead}})
	if err != nil {
		t.Fatal(err)
	}
	foreign := sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon})
	for name, c := range map[string]struct{ header, want string }{
		"ours":               {"Bearer " + ours, ""},
		"an API token":       {"Bearer " + api, ""},
		"an older program's": {"Bearer " + foreign, ""},
		"the second secret":  {"Bearer " + sign(jwt.SigningMethodHS256, second, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: jwt.NewNumericDate(time.Now().Add(2 * time.Hour))}), ""},
		"none":               {"", "missing authorization header"},
		"another scheme":     {"Basic x", "invalid authorization header format"},
		"lower case":         {"bearer " + ours, "invalid authorization header format"},
		"empty":              {"Bearer ", "empty token"},
		"another secret":     {"Bearer " + sign(jwt.SigningMethodHS256, []byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon}), "invalid or expired token"},
		"HS384":              {"Bearer " + sign(jwt.SigningMethodHS384, first, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon}), "invalid or expired token"},
		"HS512":              {"Bearer " + sign(jwt.SigningMethodHS512, first, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon}), "invalid or expired token"},
		"unsigned":           {"Bearer " + sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon}), "invalid or expired token"},
		"without exp":        {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: p.ID}), "invalid or expired token"},
		"expired":            {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: jwt.NewNumericDate(time.Now().Add(-time.Second))}), "invalid or expired token"},
		"not yet":            {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: p.ID, ExpiresAt: soon, NotBefore: soon}), "invalid or expired token"},
		"without sub":        {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{ExpiresAt: soon}), "invalid or expired token"},
		"another's jti":      {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: q.ID, ExpiresAt: soon, ID: issued.ID}), "invalid or expired token"},
		"of nobody":          {"Bearer " + sign(jwt.SigningMethodHS256, first, jwt.RegisteredClaims{Subject: gonePrincipal.ID, ExpiresAt: soon}), "principal not found"},
		"an unknown API one": {"Bearer coven_x", "invalid or expired token"},
		"very long":          {"Bearer " + strings.Repeat("x", 10_000), "invalid or expired token"},
	} {
		_, err := g.Authenticate(context.Background(), auth.Credentials{Authorization: c.header, Address: "192.0.2.1"})
		if (err == nil) != (c.want == "") || err != nil && (fault.CodeOf(err) != fault.Unauthenticated || fault.Message(err) != c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	who, err := g.Authenticate(context.Background(), auth.Credentials{Authorization: "Bearer " + api})
	if err != nil || auth.Routes["GET /api/agents"].Allow(who) != nil || fault.CodeOf(auth.Routes["POST /api/send"].Allow(who)) != fault.Forbidden {
		t.Errorf("%+v %v", who, err)
	}

	tokens, err := g.Tokens(ctx, p.ID, 10)
	if err != nil || len(tokens) != 4 { // ours, API, and the two that were adopted
		t.Fatalf("%+v %v", tokens, err)
	}
	for _, x := range tokens {
		if err := g.RevokeToken(ctx, x.ID); err != nil {
			t.Error(err)
		}
	}
	for _, header := range []string{ours, foreign, api} {
		if _, err := g.Authenticate(context.Background(), auth.Credentials{Authorization: "Bearer " + header}); err == nil {
			t.Error("a revoked token is accepted")
		}
	}
	g.close()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(g.path + suffix)
		if err == nil && (bytes.Contains(b, []byte(api)) || bytes.Contains(b, []byte(ours))) {
			t.Error("a token is in the database")
		}
	}
}

// fixedKey is the same key in every process of a fuzzer.
func fixedKey(t testing.TB) (key, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return newKey(t, private), private.Public().(ed25519.PublicKey)
}

// genuine reports, without any of the code that is tested, whether a proof was signed by a key.
func genuine(public ed25519.PublicKey, p auth.Proof) bool {
	blob, err := base64.StdEncoding.DecodeString(strings.TrimSpace(p.Signature))
	if err != nil || len(blob) < ed25519.SignatureSize {
		return false
	}
	stamp, err := strconv.ParseInt(strings.TrimSpace(p.Timestamp), 10, 64)
	message := fmt.Sprintf("%d|%s", stamp, strings.TrimSpace(p.Nonce))
	return err == nil && ed25519.Verify(public, []byte(message), blob[len(blob)-ed25519.SignatureSize:])
}

// mutate changes one byte of a string.
func mutate(s string, at uint16, with byte) string {
	b := []byte(s)
	b[int(at)%len(b)] = with
	return string(b)
}

// FuzzProof: no proof is accepted that the key has not signed, made up or made of one that it has.
func FuzzProof(f *testing.F) {
	g := newGate(f)
	k, public := fixedKey(f)
	g.let(k)
	p := k.proof(time.Now(), "n", "")
	f.Add(p.PublicKey, p.Timestamp, p.Nonce, p.Signature, uint8(0), uint16(0), byte('x'))
	f.Add("ssh-rsa AAAA", "1", "x", "AAAA", uint8(1), uint16(3), byte(0))
	f.Add("", "-1", "|", "====", uint8(7), uint16(99), byte('='))
	f.Fuzz(func(t *testing.T, line, stamp, nonce, signature string, field uint8, at uint16, with byte) {
		made := auth.Proof{PublicKey: line, Timestamp: stamp, Nonce: nonce, Signature: signature}
		changed := key{t, k.signer}.proof(time.Now(), "n"+strconv.Itoa(int(at)), "")
		switch field % 4 {
		case 0:
			changed.PublicKey = mutate(changed.PublicKey, at, with)
		case 1:
			changed.Timestamp = mutate(changed.Timestamp, at, with)
		case 2:
			changed.Nonce = mutate(changed.Nonce, at, with)
		case 3:
			changed.Signature = mutate(changed.Signature, at, with)
		}
		for _, p := range []auth.Proof{made, changed} {
			if err := g.show(p, 1); err == nil && !genuine(public, p) {
				t.Errorf("accepted %q", p)
			}
		}
	})
}

// FuzzBearer: no token is accepted that was not issued, made up or made of one that was.
func FuzzBearer(f *testing.F) {
	g := newGate(f)
	p, _ := g.person("p")
	var good []string
	for _, api := range []bool{false, true} {
		shown, _, err := g.CreateToken(ctx, auth.TokenRequest{PrincipalID: p.ID, API: api})
		if err != nil {
			f.Fatal(err)
		}
		good = append(good, shown)
	}
	accepted := func(header string) bool {
		_, err := g.Authenticate(context.Background(), auth.Credentials{Authorization: header, Address: "192.0.2.1"})
		return err == nil
	}
	for _, s := range []string{"coven_", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.AAAA", ""} {
		f.Add("Bearer "+s, uint16(len(s)), byte('A'))
	}
	f.Fuzz(func(t *testing.T, header string, at uint16, with byte) {
		if accepted(header) {
			t.Errorf("accepted %q", header)
		}
		for _, token := range good {
			m := mutate(token, at, with)
			// The last letter of base64 has bits that mean nothing.
			if m[:len(m)-1] != token[:len(token)-1] && accepted("Bearer "+m) {
				t.Errorf("accepted %q for %q", m, token)
			}
		}
	})
}

// FuzzLinkRequest: whatever is asked for, a code is for the fingerprint that was named, and proved
// only when it was.
func FuzzLinkRequest(f *testing.F) {
	g := newGate(f)
	k, public := fixedKey(f)
	p := k.proof(time.Now(), "n", "")
	f.Add(k.fingerprint(), "laptop", p.PublicKey, p.Timestamp, p.Nonce, p.Signature)
	f.Add(strings.Repeat("A", 64), "\u202e", "", "", "", "")
	f.Add("x", "", "", "", "", "x")
	f.Fuzz(func(t *testing.T, fingerprint, device, line, stamp, nonce, signature string) {
		proof := auth.Proof{PublicKey: line, Timestamp: stamp, Nonce: nonce, Signature: signature}
		l, err := g.RequestLink(context.Background(), auth.LinkRequest{Fingerprint: fingerprint, DeviceName: device, Address: "192.0.2.1", Proof: proof})
		if err != nil {
			if fault.CodeOf(err) == fault.Internal {
				t.Errorf("%v", err)
			}
			return
		}
		if l.Fingerprint != strings.ToLower(fingerprint) || len(l.Code) != 6 || l.Proved && (l.Fingerprint != k.fingerprint() || !genuine(public, proof)) {
			t.Errorf("%+v", l)
		}
		if err := g.DenyLink(ctx, l.Code); err != nil { // so that there is room
			t.Error(err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(newKey(f, nil).line())
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQA= x")
	f.Add(`command="x" ssh-ed25519 AAAA`)
	f.Fuzz(func(t *testing.T, line string) {
		k, _, err := auth.ParseKey(line)
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Error(err)
			}
			return
		}
		again, _, err := auth.ParseKey(string(ssh.MarshalAuthorizedKey(k)))
		if err != nil || auth.Fingerprint(again) != auth.Fingerprint(k) {
			t.Errorf("%q: %v", line, err)
		}
	})
}
