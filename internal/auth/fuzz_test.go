package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// seeded is a key that is the same in every process.
func seeded(t testing.TB) key {
	return keyOf(t, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)), ssh.KeyAlgoED25519)
}

// onlyFaults fails the test for an error that is not the caller's.
func onlyFaults(t *testing.T, err error) {
	t.Helper()
	if err != nil && fault.CodeOf(err) == fault.Internal {
		t.Errorf("an internal fault: %v", err)
	}
}

// FuzzProof: the fuzzer may alter a proof that a key has made. One that is accepted names that key
// and says what was signed. Times are relative, so that a seed does not grow old.
func FuzzProof(f *testing.F) {
	k := seeded(f)
	raw, err := base64.StdEncoding.DecodeString(k.proof(time.Now()).Signature)
	must(f, err)
	f.Add(k.line(), "", "", uint8(0), uint8(0), []byte(nil))
	f.Add(" "+k.line()+" me", "+0", " ", uint8(0), uint8(0), []byte(nil))
	f.Add(vectorLine, " ", "x", uint8(4), uint8(1), []byte{1})
	f.Add("restrict "+k.line(), "-", "|", uint8(len(raw)-1), uint8(128), []byte("tail"))
	f.Add("ssh-rsa AAAAB3NzaC1yc2E=", "1", "1|", uint8(70), uint8(255), raw)
	r := rigged(f)
	p, err := r.CreatePrincipal(system, auth.NewPrincipal{Kind: auth.Agent, Name: "a", PublicKey: k.line()})
	must(f, err)
	fresh := 0
	f.Fuzz(func(t *testing.T, line, before, after string, at, flip uint8, tail []byte) {
		fresh++
		stamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), "nonce-"+strconv.Itoa(fresh)
		good := k.sign(stamp, nonce)
		sig, err := base64.StdEncoding.DecodeString(good.Signature)
		must(t, err)
		signed := bytes.Clone(sig)
		sig[int(at)%len(sig)] ^= flip
		sig = append(sig, tail...)
		proof := auth.Proof{PublicKey: line, Timestamp: before + stamp, Nonce: nonce + after, Signature: base64.StdEncoding.EncodeToString(sig)}
		got, err := r.prove(proof, uint64(fresh))
		onlyFaults(t, err)
		if err != nil {
			return
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(proof.Timestamp), 10, 64)
		if got.ID != p.ID || got.Credential.ID != k.fingerprint() || !bytes.Equal(sig, signed) || err != nil || strconv.FormatInt(seconds, 10) != stamp || strings.TrimSpace(proof.Nonce) != nonce {
			t.Errorf("%+v was accepted as %+v", proof, got)
		}
		if _, err := r.prove(proof, 0); fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("accepted twice: %v", err)
		}
		if fresh%auth.MaxNonces == auth.MaxNonces/2 { // the key's share of the memory
			r.restart()
		}
	})
}

// FuzzJWT: what is accepted was signed with the secret, by HS256, is a principal's and is not too
// old. The fuzzer gives either a whole token, or a header and claims that we sign.
func FuzzJWT(f *testing.F) {
	r := rigged(f)
	p := r.principal("p")
	sign := func(header, claims string) string {
		b := base64.RawURLEncoding
		text := b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(claims))
		mac := hmac.New(sha256.New, []byte(jwtSecret))
		mac.Write([]byte(text))
		return text + "." + b.EncodeToString(mac.Sum(nil))
	}
	f.Add(`{"alg":"HS256","typ":"JWT"}`, `{"sub":"PRINCIPAL","exp":33000000000}`, true)
	f.Add(`{"alg":"HS256"}`, `{"sub":"PRINCIPAL","exp":33000000000,"jti":"x"}`, true)
	f.Add(`{"alg":"HS256"}`, `{"sub":"PRINCIPAL","exp":1}`, true)
	f.Add(`{"alg":"HS256"}`, `{"sub":"PRINCIPAL"}`, true)
	f.Add(`{"alg":"HS512"}`, `{"sub":"PRINCIPAL","exp":33000000000}`, true)
	f.Add(`{"alg":"none"}`, `{"sub":"PRINCIPAL","exp":33000000000}`, true)
	f.Add(`{"alg":"HS256"}`, `{"sub":"PRINCIPAL","exp":1e400,"nbf":-1,"iat":{},"aud":[1]}`, true)
	f.Add("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "", false)
	f.Add("coven_x", "", false)
	f.Add(strings.Repeat(".", 100), "", false)
	f.Fuzz(func(t *testing.T, header, claims string, signs bool) {
		shown := header + claims
		claims = strings.ReplaceAll(claims, "PRINCIPAL", p.ID)
		if signs {
			shown = sign(header, claims)
		}
		got, err := r.bearer(shown)
		onlyFaults(t, err)
		if err != nil {
			return
		}
		var h struct{ Alg string }
		var c struct {
			Sub string
			Exp json.Number
		}
		if !signs || json.Unmarshal([]byte(header), &h) != nil || h.Alg != "HS256" || json.Unmarshal([]byte(claims), &c) != nil || c.Sub != p.ID || got.ID != p.ID {
			t.Errorf("%q with %q and %q was accepted as %+v", shown, header, claims, got)
		}
		if exp, err := c.Exp.Float64(); err != nil || exp <= float64(time.Now().Unix()) {
			t.Errorf("%q was accepted, it expires at %v", claims, c.Exp)
		}
		if ts, err := r.Tokens(system, p.ID, 1); err != nil || len(ts) != 1 {
			t.Errorf("not listed: %v %v", ts, err)
		}
		must(t, r.RevokeToken(system, got.Credential.ID))
		for _, again := range append(twins(shown), shown) {
			if _, err := r.bearer(again); err == nil {
				t.Errorf("%q was revoked and is accepted", again)
			}
		}
	})
}

// FuzzLinkRequest: a code that was made has a fingerprint and a name that can be shown, and the
// device polls it.
func FuzzLinkRequest(f *testing.F) {
	k := seeded(f)
	f.Add(k.fingerprint(), "phone", "", "", "", "")
	f.Add(strings.ToUpper(k.fingerprint()), " ü ", "", "", "", "")
	f.Add("", "", "", "", "", "")
	f.Add(k.fingerprint(), "a\u202eb\x00", vectorLine, vectorTime, vectorNonce, vectorSignature)
	f.Add(vectorFingerprint, "a", vectorLine, vectorTime, vectorNonce, vectorSignature)
	r := rigged(f)
	f.Fuzz(func(t *testing.T, fingerprint, name, line, stamp, nonce, signature string) {
		l, err := r.RequestLink(context.Background(), auth.LinkRequest{
			Fingerprint: fingerprint, DeviceName: name, Proof: auth.Proof{PublicKey: line, Timestamp: stamp, Nonce: nonce, Signature: signature}, Address: here,
		})
		onlyFaults(t, err)
		if a, err := r.PollLink(context.Background(), name, here); err == nil {
			t.Errorf("%q is a code: %+v", name, a)
		}
		if err != nil {
			return
		}
		if fp, err := auth.ParseFingerprint(l.Fingerprint); err != nil || fp != l.Fingerprint || !strings.EqualFold(fp, fingerprint) {
			t.Errorf("fingerprint %q of %q", l.Fingerprint, fingerprint)
		}
		if l.DeviceName == "" || !utf8.ValidString(l.DeviceName) || utf8.RuneCountInString(l.DeviceName) > 100 || l.DeviceName != strings.TrimSpace(name) || strings.ContainsAny(l.DeviceName, "\x00\n\r\x1b") {
			t.Errorf("name %q", l.DeviceName)
		}
		if l.Proved {
			t.Errorf("%q is proved", signature)
		}
		a, err := r.PollLink(context.Background(), l.Code, here)
		if err != nil || a.Status != auth.LinkPending || a.Token != "" {
			t.Errorf("%+v %v", a, err)
		}
		must(t, r.DenyLink(system, l.Code))
	})
}

// FuzzParseKey: a line that is accepted is one line with one key of a type that can log in, and
// nothing in front of it.
func FuzzParseKey(f *testing.F) {
	k := seeded(f)
	for _, s := range []string{
		"", vectorLine, k.line(), " " + vectorLine + "\n", "#\n" + vectorLine, vectorLine + "\n" + k.line(), `command="a b" ` + vectorLine, "restrict " + vectorLine,
		"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519-cert-v01@openssh.com " + strings.Fields(vectorLine)[1], "ssh-dss AAAAB3NzaC1kc3M=",
		strings.ReplaceAll(vectorLine, " ", "\t"), vectorLine + strings.Repeat("x", 20_000),
	} {
		f.Add(s)
	}
	types := map[string]bool{"ssh-ed25519": true, "ssh-rsa": true, "ecdsa-sha2-nistp256": true, "ecdsa-sha2-nistp384": true, "ecdsa-sha2-nistp521": true, "sk-ssh-ed25519@openssh.com": true, "sk-ecdsa-sha2-nistp256@openssh.com": true}
	f.Fuzz(func(t *testing.T, line string) {
		parsed, comment, err := auth.ParseKey(line)
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		text := strings.TrimSpace(line)
		if !types[parsed.Type()] || !strings.HasPrefix(text, parsed.Type()) || strings.ContainsAny(text, "\r\n") || !strings.HasSuffix(text, comment) {
			t.Errorf("%q was accepted as %s %q", line, parsed.Type(), comment)
		}
		again, _, err := auth.ParseKey(string(ssh.MarshalAuthorizedKey(parsed)))
		if err != nil || auth.Fingerprint(again) != auth.Fingerprint(parsed) {
			t.Errorf("%q does not survive: %v", line, err)
		}
		if fp, err := auth.ParseFingerprint(auth.Fingerprint(parsed)); err != nil || fp != auth.Fingerprint(parsed) {
			t.Error(fp, err)
		}
	})
}
