package gatewaytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"coven-gateway/internal/api"
	"coven-gateway/internal/auth"
)

// inviter is who makes the invites of tests: an invite is worth what its maker is.
func (g *Gateway) inviter() auth.Principal {
	g.t.Helper()
	p, _ := g.Principal("inviter", auth.Owner)
	return p
}

// invite returns the token of an invite.
func (g *Gateway) invite(role auth.Role) string {
	g.t.Helper()
	token, _, err := g.Identity().CreateInvite(with(g.inviter()), role, "", 0)
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

// invited makes a person with a role, who has no password yet.
func (g *Gateway) invited(name string, role auth.Role) (auth.Principal, error) {
	g.t.Helper()
	_, p, _, err := g.Identity().AcceptInvite(context.Background(), g.invite(role), auth.Guest{Name: name, Display: name, Browser: auth.Browser{Address: "192.0.2.1"}})
	return p, err
}

// SessionName is the name of the cookie of a session, without TLS.
const SessionName = api.SessionCookie

// An authenticator is a software passkey, ES256, and the browser that it is used in.
type authenticator struct {
	t       testing.TB
	g       *Gateway
	session string // the cookie
	origin  string // what the browser says where it is
	id      []byte
	key     *ecdsa.PrivateKey
	handle  []byte
	count   uint32
	flags   byte
}

const (
	userPresent, userVerified, backupEligible, backedUp, attested = 0x01, 0x04, 0x08, 0x10, 0x40
)

func (g *Gateway) authenticator() *authenticator {
	g.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		g.t.Fatal(err)
	}
	a := &authenticator{t: g.t, g: g, origin: g.gw.Pages(), id: make([]byte, 32), key: key, flags: userPresent | userVerified}
	_, _ = rand.Read(a.id) // never fails
	return a
}

// call makes a request as the browser.
func (a *authenticator) call(method, path, body string, cookies ...string) (*http.Response, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, a.g.URL+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if a.session != "" {
		cookies = append(cookies, a.session)
	}
	req.Header.Set("Cookie", strings.Join(cookies, "; "))
	req.Header.Set("User-Agent", "Test Browser")
	resp, err := a.g.Client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp, string(b)
}

// cookie is a cookie that an answer sets, as it is sent back.
func cookie(resp *http.Response, name string) string {
	for _, c := range resp.Cookies() {
		if strings.HasSuffix(c.Name, name) && c.Value != "" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// challenge begins a ceremony.
func (a *authenticator) challenge(path string) (ceremony, challenge, rpID string) {
	a.t.Helper()
	resp, body := a.call("POST", path, "")
	var in struct {
		PublicKey struct {
			Challenge string
			RPID      string `json:"rpId"`
			RP        struct{ ID string }
			User      struct{ ID string }
		} `json:"publicKey"`
	}
	if err := json.Unmarshal([]byte(body), &in); err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("%s %s %v", resp.Status, body, err)
	}
	if in.PublicKey.User.ID != "" {
		a.handle, _ = base64.RawURLEncoding.DecodeString(in.PublicKey.User.ID)
	}
	return cookie(resp, "coven_passkey"), in.PublicKey.Challenge, in.PublicKey.RPID + in.PublicKey.RP.ID
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// data is what the authenticator signs, besides what the browser does.
func (a *authenticator) data(rpID string, flags byte) []byte {
	sum := sha256.Sum256([]byte(rpID))
	b := append(sum[:], flags)
	return binary.BigEndian.AppendUint32(b, a.count)
}

func (a *authenticator) clientData(kind, challenge string) []byte {
	return fmt.Appendf(nil, `{"type":%q,"challenge":%q,"origin":%q,"crossOrigin":false}`, kind, challenge, a.origin)
}

// register makes a passkey and returns the answer of the browser.
func (a *authenticator) register(challenge, rpID string) string {
	a.t.Helper()
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	cose, err := cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		a.t.Fatal(err)
	}
	data := a.data(rpID, a.flags|attested)
	data = append(data, make([]byte, 16)...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.id)))
	data = append(append(data, a.id...), cose...)
	object, err := cbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		a.t.Fatal(err)
	}
	return a.answer(map[string]any{"clientDataJSON": b64(a.clientData("webauthn.create", challenge)), "attestationObject": b64(object), "transports": []string{"internal"}})
}

// assert signs a challenge and returns the answer of the browser.
func (a *authenticator) assert(challenge, rpID string) string {
	a.t.Helper()
	a.count++
	data, client := a.data(rpID, a.flags), a.clientData("webauthn.get", challenge)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(bytes.Clone(data), hash[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, sum[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.answer(map[string]any{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(sig), "userHandle": b64(a.handle)})
}

func (a *authenticator) answer(response map[string]any) string {
	b, err := json.Marshal(map[string]any{"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b)
}

// signIn returns a cookie and the answer that sign in with it.
func (a *authenticator) signIn() (ceremony, answer string) {
	a.t.Helper()
	ceremony, challenge, rpID := a.challenge("/api/sign-in/passkey-options")
	return ceremony, a.assert(challenge, rpID)
}

// signer makes a person with a password, a passkey and a browser that has signed in.
func (g *Gateway) signer(name, password string, roles ...auth.Role) *authenticator {
	g.t.Helper()
	role := auth.Member
	if len(roles) > 0 {
		role = roles[0]
	}
	a := g.authenticator()
	resp, body := a.call("POST", "/api/invites/accept", fmt.Sprintf(`{"invite":%q,"display_name":%q,"name":%q,"password":%q}`, g.invite(role), name, name, password))
	if a.session = cookie(resp, "coven_admin_session"); resp.StatusCode != http.StatusCreated || a.session == "" {
		g.t.Fatal(resp.Status, body)
	}
	ceremony, challenge, rpID := a.challenge("/api/me/passkey-options")
	if resp, body := a.call("POST", "/api/me/passkeys", `{"name":"key","passkey":`+a.register(challenge, rpID)+`}`, ceremony); resp.StatusCode != http.StatusCreated {
		g.t.Fatal(resp.Status, body)
	}
	return a
}
