package gatewaytest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/metadata"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
)

// JWTSecret is what a gateway that is [Locked] signs tokens with.
const JWTSecret = "0123456789abcdef0123456789abcdef"

// Locked makes a gateway ask for credentials.
func Locked(c *config.Config) { c.Auth.JWTSecrets = []config.Secret{JWTSecret} }

// Identity is the service that knows who is who.
func (g *Gateway) Identity() *auth.Service { return g.gw.Identity() }

// Principal creates an approved client with roles and returns it with a token.
func (g *Gateway) Principal(name string, roles ...auth.Role) (p auth.Principal, token string) {
	g.t.Helper()
	p, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Client, Name: name, Roles: roles})
	if err == nil {
		token, _, err = g.Identity().CreateToken(Ctx(), auth.TokenRequest{PrincipalID: p.ID})
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return p, token
}

// Bearer returns a context whose calls show a token.
func Bearer(token string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
}

// A Key is an SSH key that signs calls as existing programs do.
type Key struct {
	t      testing.TB
	signer ssh.Signer
}

// NewKey makes an ed25519 key.
func NewKey(t testing.TB) Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return KeyOf(t, private)
}

// KeyOf makes a key of a private key.
func KeyOf(t testing.TB, private any) Key {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return Key{t, signer}
}

// Fingerprint is what the gateway knows the key by.
func (k Key) Fingerprint() string { return auth.Fingerprint(k.signer.PublicKey()) }

// Line is the key as an authorized_keys line.
func (k Key) Line() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

// Proof signs a time and a fresh nonce.
func (k Key) Proof(at time.Time) auth.Proof {
	k.t.Helper()
	stamp, nonce := strconv.FormatInt(at.Unix(), 10), rand.Text()
	var sig *ssh.Signature
	var err error
	if s, ok := k.signer.(ssh.AlgorithmSigner); ok && k.signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		sig, err = s.SignWithAlgorithm(rand.Reader, []byte(stamp+"|"+nonce), ssh.KeyAlgoRSASHA256)
	} else {
		sig, err = k.signer.Sign(rand.Reader, []byte(stamp+"|"+nonce))
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return auth.Proof{PublicKey: k.Line(), Timestamp: stamp, Nonce: nonce, Signature: base64.StdEncoding.EncodeToString(ssh.Marshal(sig))}
}

// Sign returns a context whose calls show the key, signed now.
func (k Key) Sign() context.Context {
	k.t.Helper()
	return Show(k.Proof(time.Now()))
}

// Show returns a context whose calls show a proof.
func Show(p auth.Proof) context.Context {
	return metadata.NewOutgoingContext(context.Background(), metadata.Pairs(
		"x-ssh-pubkey", p.PublicKey, "x-ssh-timestamp", p.Timestamp, "x-ssh-nonce", p.Nonce, "x-ssh-signature", p.Signature))
}

// with returns a context of a principal's own call.
func with(p auth.Principal) context.Context { return auth.With(context.Background(), p) }

// FirstOwner is the link that the gateway prints for its first owner; "" where there is one.
func (g *Gateway) FirstOwner() string {
	g.t.Helper()
	link, _, err := g.gw.FirstOwner(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return link
}
