package auth

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/fault"
)

// Limits of an SSH proof. The window is a fact of the protocol (grpc.md 2.4).
const (
	maxProofAge   = 5 * time.Minute
	maxProofAhead = time.Minute
	maxKeyLine    = 16 << 10 // bytes of an authorized_keys line
	maxNonce      = 256      // bytes
	maxSignature  = 8 << 10  // bytes in base64
	minRSABits    = 2048
)

// A Proof is what a caller shows to prove that it holds an SSH key: the values of the headers
// x-ssh-pubkey, x-ssh-timestamp, x-ssh-nonce and x-ssh-signature.
type Proof struct {
	PublicKey string // an authorized_keys line
	Timestamp string // seconds since 1970, decimal
	Nonce     string
	Signature string // standard base64 of the SSH wire signature of "<timestamp>|<nonce>"
}

// given reports whether a caller tries to log in with a key at all.
func (p Proof) given() bool {
	return p.PublicKey != "" || p.Timestamp != "" || p.Nonce != "" || p.Signature != ""
}

// A signed proof is one whose form is in order; its signature has still to be verified.
type signed struct {
	key         ssh.PublicKey
	fingerprint string
	at          time.Time
	nonce       string
	message     []byte
	signature   *ssh.Signature
}

// parse checks the form of a proof and its time.
func (p Proof) parse(now time.Time) (signed, error) {
	missing := func(what string) (signed, error) {
		return signed{}, fault.New(fault.Unauthenticated, "missing SSH %s", what)
	}
	failed := func(format string, args ...any) (signed, error) {
		return signed{}, fault.New(fault.Unauthenticated, "SSH auth failed: %s", fmt.Sprintf(format, args...))
	}
	line, stamp, nonce := strings.TrimSpace(p.PublicKey), strings.TrimSpace(p.Timestamp), strings.TrimSpace(p.Nonce)
	encoded := strings.TrimSpace(p.Signature)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	switch {
	case line == "":
		return missing("public key")
	case encoded == "":
		return missing("signature")
	case err != nil || seconds <= 0:
		return missing("timestamp")
	case nonce == "":
		return missing("nonce")
	case len(nonce) > maxNonce:
		return failed("the nonce must not be longer than %d bytes", maxNonce)
	case len(encoded) > maxSignature:
		return failed("the signature must not be longer than %d bytes", maxSignature)
	}
	s := signed{nonce: nonce, at: time.Unix(seconds, 0), message: []byte(strconv.FormatInt(seconds, 10) + "|" + nonce)}
	if s.key, _, err = ParseKey(line); err != nil {
		return failed("%s", fault.Message(err))
	}
	s.fingerprint = Fingerprint(s.key)
	switch age := now.Sub(s.at); {
	case age > maxProofAge:
		return failed("signature expired (age: %s, max: %s)", age.Truncate(time.Second), maxProofAge)
	case age < -maxProofAhead:
		return failed("timestamp is in the future")
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return failed("the signature is not standard base64")
	}
	s.signature = new(ssh.Signature)
	// Only those of security keys have more behind the signature proper.
	if err := ssh.Unmarshal(blob, s.signature); err != nil || len(s.signature.Rest) > 0 && !strings.HasPrefix(s.key.Type(), "sk-") {
		return failed("the signature is not an SSH signature")
	}
	if !slices.Contains(signatureFormats[s.key.Type()], s.signature.Format) {
		return failed("a key of type %s cannot make a signature of type %q", s.key.Type(), s.signature.Format)
	}
	return s, nil
}

// verify checks the signature.
func (s signed) verify() error {
	if err := s.key.Verify(s.message, s.signature); err != nil {
		return fault.Wrap(err, fault.Unauthenticated, "SSH auth failed: signature verification failed")
	}
	return nil
}

// signatureFormats are the types of keys that are accepted and the signatures they make. SHA-1 is
// not among them, and no certificates: nobody here can say who may issue them.
var signatureFormats = map[string][]string{
	ssh.KeyAlgoED25519:    {ssh.KeyAlgoED25519},
	ssh.KeyAlgoECDSA256:   {ssh.KeyAlgoECDSA256},
	ssh.KeyAlgoECDSA384:   {ssh.KeyAlgoECDSA384},
	ssh.KeyAlgoECDSA521:   {ssh.KeyAlgoECDSA521},
	ssh.KeyAlgoRSA:        {ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512},
	ssh.KeyAlgoSKED25519:  {ssh.KeyAlgoSKED25519},
	ssh.KeyAlgoSKECDSA256: {ssh.KeyAlgoSKECDSA256},
}

// ParseKey reads an authorized_keys line: a key and perhaps a comment, without options. Its faults
// are Invalid.
func ParseKey(line string) (key ssh.PublicKey, comment string, err error) {
	if len(line) > maxKeyLine {
		return nil, "", fault.New(fault.Invalid, "the public key must not be longer than %d bytes", maxKeyLine)
	}
	key, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, "", fault.Wrap(err, fault.Invalid, "the public key is not an authorized_keys line")
	}
	// The parser skips lines that it does not understand.
	if len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 || strings.ContainsAny(strings.TrimSpace(line), "\r\n") {
		return nil, "", fault.New(fault.Invalid, "the public key must be one authorized_keys line without options")
	}
	if signatureFormats[key.Type()] == nil {
		return nil, "", fault.New(fault.Invalid, "keys of type %s are not accepted", key.Type())
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return nil, "", fault.New(fault.Invalid, "an RSA key must have at least %d bits; this one has %d", minRSABits, r.N.BitLen())
		}
	}
	return key, comment, nil
}

// Fingerprint returns the SHA-256 of a key's SSH wire form in lower-case hex.
func Fingerprint(key ssh.PublicKey) string {
	sum := sha256.Sum256(key.Marshal())
	return hex.EncodeToString(sum[:])
}

// ParseFingerprint returns a fingerprint in lower case, or an Invalid fault.
func ParseFingerprint(s string) (string, error) {
	switch {
	case s == "":
		return "", fault.New(fault.Invalid, "fingerprint required")
	case len(s) != 2*sha256.Size:
		return "", fault.New(fault.Invalid, "fingerprint must be 64 hex characters (SHA256)")
	}
	if _, err := hex.DecodeString(s); err != nil {
		return "", fault.New(fault.Invalid, "fingerprint must be valid hex characters")
	}
	return strings.ToLower(s), nil
}
