package agent

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/metadata"
)

// Token returns credentials for [Options] that show a bearer token.
func Token(token string) func(context.Context) (metadata.MD, error) {
	return func(context.Context) (metadata.MD, error) {
		return metadata.Pairs("authorization", "Bearer "+token), nil
	}
}

// KeyFile returns credentials for [Options] that sign each connection with the private key in an
// OpenSSH key file without a passphrase.
func KeyFile(path string) (func(context.Context) (metadata.MD, error), error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return Signer(signer), nil
}

// Signer returns credentials for [Options] that sign each connection with an SSH key.
func Signer(s ssh.Signer) func(context.Context) (metadata.MD, error) {
	sign := func(b []byte) (*ssh.Signature, error) { return s.Sign(rand.Reader, b) }
	if as, ok := s.(ssh.AlgorithmSigner); ok && s.PublicKey().Type() == ssh.KeyAlgoRSA {
		// Left to itself it would use SHA-1, which gateways refuse.
		sign = func(b []byte) (*ssh.Signature, error) {
			return as.SignWithAlgorithm(rand.Reader, b, ssh.KeyAlgoRSASHA256)
		}
	}
	return func(context.Context) (metadata.MD, error) {
		raw := make([]byte, 16)
		_, _ = rand.Read(raw) // never fails
		stamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), hex.EncodeToString(raw)
		sig, err := sign([]byte(stamp + "|" + nonce))
		if err != nil {
			return nil, err
		}
		return metadata.Pairs(
			"x-ssh-pubkey", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))),
			"x-ssh-timestamp", stamp, "x-ssh-nonce", nonce,
			"x-ssh-signature", base64.StdEncoding.EncodeToString(ssh.Marshal(sig)),
		), nil
	}
}
