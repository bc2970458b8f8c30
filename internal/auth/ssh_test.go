package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// What ssh-keygen made, and says of it with -l -E sha256.
const (
	vectorLine        = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJiHPTdr2iW6+5m/BzSRuRGNJyYMeix/3MnI4DHhJcVn vector@example"
	vectorFingerprint = "31259cef13411eae36a264c40f6ad0fb0159c0d6eef982fb73d220255ebda8ed"
	vectorNonce       = "00112233445566778899aabbccddeeff"
	// at the beginning of a bubble's time
	vectorTime      = "946684800"
	vectorSignature = "AAAAC3NzaC1lZDI1NTE5AAAAQO55kMxLUabhGdcoeL954aX9VcQFO1s5iOB1E24p+D8o9gXKfLoCKclLELnBaCpX2mdXMUtl4lYIclBZL+gpkAA="
)

func TestVector(t *testing.T) {
	k, comment, err := auth.ParseKey(vectorLine)
	must(t, err)
	if got := auth.Fingerprint(k); got != vectorFingerprint || comment != "vector@example" {
		t.Errorf("fingerprint %s, comment %q", got, comment)
	}
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		p, err := r.CreatePrincipal(system, auth.NewPrincipal{Kind: auth.Agent, Name: "a", Fingerprint: strings.ToUpper(vectorFingerprint)})
		must(t, err)
		got, err := r.prove(auth.Proof{PublicKey: vectorLine, Timestamp: vectorTime, Nonce: vectorNonce, Signature: vectorSignature}, 1)
		if err != nil || got.ID != p.ID || got.Credential.Kind != auth.SSHKey || got.Credential.ID != vectorFingerprint || got.Credential.Address != here {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestKeyTypes(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	keys := map[string]key{
		"ed25519": newKey(t), "rsa-sha2-256": keyOf(t, rsaKey, ssh.KeyAlgoRSASHA256), "rsa-sha2-512": keyOf(t, rsaKey, ssh.KeyAlgoRSASHA512),
	}
	for name, c := range map[string]elliptic.Curve{ssh.KeyAlgoECDSA256: elliptic.P256(), ssh.KeyAlgoECDSA384: elliptic.P384(), ssh.KeyAlgoECDSA521: elliptic.P521()} {
		private, err := ecdsa.GenerateKey(c, rand.Reader)
		must(t, err)
		keys[name] = keyOf(t, private, name)
	}
	r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterApproved })
	for name, k := range keys {
		if _, err := r.prove(k.proof(time.Now()), 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProofRefused: the words of grpc.md 2.4.
func TestProofRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterApproved })
		k := newKey(t)
		now := time.Now()
		cert := &ssh.Certificate{Key: k.PublicKey(), CertType: ssh.UserCert, ValidBefore: math.MaxInt64}
		must(t, cert.SignCert(rand.Reader, k))
		certLine := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
		with := func(f func(*auth.Proof)) auth.Proof { p := k.proof(now); f(&p); return p }
		blob := func(format string, signature []byte, rest ...byte) string {
			b := ssh.Marshal(struct {
				Format string
				Blob   []byte
			}{format, signature})
			return base64.StdEncoding.EncodeToString(append(b, rest...))
		}
		other := k.proof(now).Signature
		raw, err := base64.StdEncoding.DecodeString(other)
		must(t, err)
		const bad = "SSH auth failed: "
		for _, tt := range []struct {
			what  string
			proof auth.Proof
			words string
		}{
			{"no key", with(func(p *auth.Proof) { p.PublicKey = "" }), "missing SSH public key"},
			{"blank key", with(func(p *auth.Proof) { p.PublicKey = "  " }), "missing SSH public key"},
			{"only a nonce", auth.Proof{Nonce: "x"}, "missing SSH public key"},
			{"only a time", auth.Proof{Timestamp: "x"}, "missing SSH public key"},
			{"only a signature", auth.Proof{Signature: "x"}, "missing SSH public key"},
			{"only a key", auth.Proof{PublicKey: k.line()}, "missing SSH signature"},
			{"no signature", with(func(p *auth.Proof) { p.Signature = "" }), "missing SSH signature"},
			{"no time", with(func(p *auth.Proof) { p.Timestamp = "" }), "missing SSH timestamp"},
			{"time zero", with(func(p *auth.Proof) { p.Timestamp = "0" }), "missing SSH timestamp"},
			{"negative time", with(func(p *auth.Proof) { p.Timestamp = "-946684800" }), "missing SSH timestamp"},
			{"time in words", with(func(p *auth.Proof) { p.Timestamp = "now" }), "missing SSH timestamp"},
			{"fraction", with(func(p *auth.Proof) { p.Timestamp += ".0" }), "missing SSH timestamp"},
			{"hexadecimal time", with(func(p *auth.Proof) { p.Timestamp = "0x" + p.Timestamp }), "missing SSH timestamp"},
			{"no nonce", with(func(p *auth.Proof) { p.Nonce = "" }), "missing SSH nonce"},
			{"blank nonce", with(func(p *auth.Proof) { p.Nonce = " \t" }), "missing SSH nonce"},
			{"long nonce", k.sign(vectorTime, strings.Repeat("n", 257)), bad + "the nonce must not be longer than 256 bytes"},
			{"long signature", with(func(p *auth.Proof) { p.Signature = strings.Repeat("A", 8<<10+4) }), bad + "the signature must not be longer than 8192 bytes"},
			{"long key", with(func(p *auth.Proof) { p.PublicKey += strings.Repeat("x", 16<<10) }), bad + "the public key must not be longer than 16384 bytes"},
			{"no key in the line", with(func(p *auth.Proof) { p.PublicKey = "ssh-ed25519 !!!" }), bad + "the public key is not an authorized_keys line"},
			{"options", with(func(p *auth.Proof) { p.PublicKey = `restrict,command="x" ` + p.PublicKey }), bad + "the public key must be one authorized_keys line without options"},
			{"two lines", with(func(p *auth.Proof) { p.PublicKey += "\n" + newKey(t).line() }), bad + "the public key must be one authorized_keys line without options"},
			{"a line before it", with(func(p *auth.Proof) { p.PublicKey = "# comment\n" + p.PublicKey }), bad + "the public key must be one authorized_keys line without options"},
			{"certificate", with(func(p *auth.Proof) { p.PublicKey = certLine }), bad + "keys of type ssh-ed25519-cert-v01@openssh.com are not accepted"},
			{"small RSA", keyOf(t, weak, ssh.KeyAlgoRSASHA256).proof(now), bad + "an RSA key must have at least 2048 bits; this one has 1024"},
			{"SHA-1", keyOf(t, strong, ssh.KeyAlgoRSA).proof(now), bad + `a key of type ssh-rsa cannot make a signature of type "ssh-rsa"`},
			{"too old", k.proof(now.Add(-301 * time.Second)), bad + "signature expired (age: 5m1s, max: 5m0s)"},
			{"of the stone age", k.proof(time.Unix(1, 0)), bad + "signature expired (age: 262967h59m59s, max: 5m0s)"},
			{"too young", k.proof(now.Add(61 * time.Second)), bad + "timestamp is in the future"},
			{"far future", k.sign(strconv.FormatInt(math.MaxInt32*100, 10), "n"), bad + "timestamp is in the future"},
			{"URL base64", with(func(p *auth.Proof) { p.Signature = strings.Repeat("_", 8) }), bad + "the signature is not standard base64"},
			{"no padding", with(func(p *auth.Proof) { p.Signature = strings.TrimRight(p.Signature, "=") }), bad + "the signature is not standard base64"},
			{"no SSH signature", with(func(p *auth.Proof) { p.Signature = "AAAA" }), bad + "the signature is not an SSH signature"},
			{"raw signature", with(func(p *auth.Proof) { p.Signature = base64.StdEncoding.EncodeToString(raw[len(raw)-64:]) }), bad + "the signature is not an SSH signature"},
			{"something behind it", with(func(p *auth.Proof) { p.Signature = blobAfter(t, p.Signature) }), bad + "the signature is not an SSH signature"},
			{"another format", with(func(p *auth.Proof) { p.Signature = blob("rsa-sha2-256", raw[len(raw)-64:]) }), bad + `a key of type ssh-ed25519 cannot make a signature of type "rsa-sha2-256"`},
			{"of something else", with(func(p *auth.Proof) { p.Signature = other }), bad + "signature verification failed"},
			{"of nothing", with(func(p *auth.Proof) { p.Signature = blob("ssh-ed25519", nil) }), bad + "signature verification failed"},
			{"another key", with(func(p *auth.Proof) { p.PublicKey = newKey(t).line() }), bad + "signature verification failed"},
			{"another nonce", with(func(p *auth.Proof) { p.Nonce += "0" }), bad + "signature verification failed"},
			{"another time", with(func(p *auth.Proof) { p.Timestamp = strconv.FormatInt(now.Unix()+1, 10) }), bad + "signature verification failed"},
		} {
			_, err := r.prove(tt.proof, 1)
			if wrong := unlike(err, fault.Unauthenticated, tt.words); wrong != "" {
				t.Errorf("%s: %s", tt.what, wrong)
			}
		}
		if n := r.Remembered(); n != 0 {
			t.Errorf("%d signatures are remembered that did not verify", n)
		}
		if ps, err := r.Principals(system, auth.PrincipalFilter{Limit: 10}); err != nil || len(ps) != 0 {
			t.Errorf("principals were made: %v %v", ps, err)
		}
		for what, p := range map[string]auth.Proof{
			"oldest": k.proof(now.Add(-300 * time.Second)), "youngest": k.proof(now.Add(60 * time.Second)),
			"longest nonce": k.sign(vectorTime, strings.Repeat("n", 256)),
			"blanks around": with(func(p *auth.Proof) {
				p.PublicKey, p.Timestamp, p.Nonce, p.Signature = " "+p.PublicKey+" me@here ", " "+p.Timestamp+" ", " "+p.Nonce+" ", " "+p.Signature+" "
			}),
		} {
			if _, err := r.prove(p, 1); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		old := k.proof(now.Add(-300 * time.Second))
		time.Sleep(time.Nanosecond)
		_, err = r.prove(old, 1)
		refused(t, err, fault.Unauthenticated, bad+"signature expired (age: 5m0s, max: 5m0s)")

		// A key beside a good token: the key counts.
		p := r.principal("p")
		shown, _ := r.token(p.ID)
		_, err = r.Authenticate(system, auth.Credentials{Authorization: "Bearer " + shown, Proof: auth.Proof{Nonce: "stray"}, Address: here})
		refused(t, err, fault.Unauthenticated, "missing SSH public key")
	})
}

// blobAfter appends a byte to a signature.
func blobAfter(t testing.TB, signature string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(signature)
	must(t, err)
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, 7))
}

// TestReplay: a signature is good on the connection that used it first, for as long as it could be
// accepted at all.
func TestReplay(t *testing.T) {
	const words = "SSH auth failed: nonce already used (possible replay attack)"
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		_, k := r.keyed("a")
		_, other := r.keyed("b")

		// Nobody uses it up with a signature that does not verify.
		p := k.proof(time.Now())
		bad := p
		bad.Signature = k.proof(time.Now()).Signature
		_, err := r.prove(bad, 2)
		refused(t, err, fault.Unauthenticated, "SSH auth failed: signature verification failed")
		for range 3 {
			_, err := r.prove(p, 1)
			must(t, err)
		}
		_, err = r.prove(p, 2)
		refused(t, err, fault.Unauthenticated, words)
		_, err = r.prove(p, 0)
		refused(t, err, fault.Unauthenticated, words)
		normal := p
		normal.Timestamp = "+0" + p.Timestamp // the same signature
		_, err = r.prove(normal, 2)
		refused(t, err, fault.Unauthenticated, words)

		// Where the connection is not known it is good once.
		p = k.proof(time.Now())
		_, err = r.prove(p, 0)
		must(t, err)
		_, err = r.prove(p, 0)
		refused(t, err, fault.Unauthenticated, words)

		// The same words of another key are another signature.
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		_, err = r.prove(k.sign(stamp, "nonce"), 1)
		must(t, err)
		_, err = r.prove(other.sign(stamp, "nonce"), 2)
		must(t, err)

		// One from the future is remembered to its end.
		start := time.Now()
		ahead := k.proof(start.Add(time.Minute))
		_, err = r.prove(ahead, 1)
		must(t, err)
		time.Sleep(6 * time.Minute)
		_, err = r.prove(k.proof(time.Now()), 1) // forgets what is too old
		must(t, err)
		_, err = r.prove(ahead, 2)
		refused(t, err, fault.Unauthenticated, words)
		if n := r.Remembered(); n != 2 {
			t.Errorf("%d signatures are remembered, want 2", n)
		}
		time.Sleep(6 * time.Minute)
		_, err = r.prove(other.proof(time.Now()), 1)
		must(t, err)
		if n := r.Remembered(); n != 1 {
			t.Errorf("%d signatures are remembered, want 1", n)
		}
	})
}

// TestManySignatures: a key can fill its own share of the memory, and nobody else's.
func TestManySignatures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t)
		_, k := r.keyed("a")
		_, other := r.keyed("b")
		var first auth.Proof
		for i := range auth.MaxNonces {
			p := k.proof(time.Now())
			if i == 0 {
				first = p
			}
			if _, err := r.prove(p, 1); err != nil {
				t.Fatal(i, err)
			}
		}
		_, err := r.prove(k.proof(time.Now()), 1)
		refused(t, err, fault.Limited, "this key has made 20000 signatures in the last minutes; use one for several calls of a connection")
		_, err = r.prove(first, 1)
		must(t, err)
		_, err = r.prove(first, 2)
		refused(t, err, fault.Unauthenticated, "SSH auth failed: nonce already used (possible replay attack)")
		_, err = r.prove(other.proof(time.Now()), 1)
		must(t, err)
		time.Sleep(6*time.Minute - time.Second)
		_, err = r.prove(k.proof(time.Now()), 1)
		refused(t, err, fault.Limited, "")
		time.Sleep(time.Minute)
		_, err = r.prove(k.proof(time.Now()), 1)
		must(t, err)
	})
}

// TestUnknownKeysLeaveNothing: keys that nobody knows cannot fill the memory.
func TestUnknownKeysLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rigged(t, func(o *auth.Options) { o.AutoRegistration = auth.RegisterPending })
		for range 3 * auth.RegisterBurst {
			_, _ = r.prove(newKey(t).proof(time.Now()), 1)
		}
		if n := r.Remembered(); n > auth.RegisterBurst {
			t.Errorf("%d signatures of unknown keys are remembered", n)
		}
	})
}

func TestParseFingerprint(t *testing.T) {
	if got, err := auth.ParseFingerprint(strings.ToUpper(vectorFingerprint)); err != nil || got != vectorFingerprint {
		t.Errorf("%q %v", got, err)
	}
	for in, words := range map[string]string{
		"": "fingerprint required", vectorFingerprint[1:]: "fingerprint must be 64 hex characters (SHA256)",
		"SHA256:" + vectorFingerprint:     "fingerprint must be 64 hex characters (SHA256)",
		"g" + vectorFingerprint[1:]:       "fingerprint must be valid hex characters",
		vectorFingerprint[:62] + "\u00e9": "fingerprint must be valid hex characters",
	} {
		_, err := auth.ParseFingerprint(in)
		refused(t, err, fault.Invalid, words)
	}
}
