package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"coven-gateway/internal/fault"
)

// maxBearer bounds a bearer token, in bytes.
const maxBearer = 8 << 10

// ErrToken is in the chain of every fault about a bearer token that does not verify.
var ErrToken = errors.New("bearer token refused")

func badToken(cause error) error {
	return fault.Wrap(errors.Join(ErrToken, cause), fault.Unauthenticated, "invalid or expired token")
}

// A signer makes and verifies JWTs.
type signer struct {
	issuer string
	keys   [][]byte // the first one signs, all verify
	parser *jwt.Parser
}

func newSigner(issuer string, keys [][]byte) signer {
	return signer{issuer, keys, jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding())}
}

// sign makes the token with an id. The same arguments make the same token.
func (s signer) sign(id, principalID string, issued, expires time.Time) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer: s.issuer, Subject: principalID, ID: id,
		IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(expires),
	}).SignedString(s.keys[0])
}

// verify returns the claims of a token. One that an older program has made has no id; it gets one,
// so that it can be revoked.
func (s signer) verify(token string) (jwt.RegisteredClaims, error) {
	if len(token) > maxBearer {
		return jwt.RegisteredClaims{}, badToken(errors.New("too long"))
	}
	var err error
	for _, key := range s.keys {
		var claims jwt.RegisteredClaims
		if _, err = s.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			continue
		}
		if claims.Subject == "" {
			return jwt.RegisteredClaims{}, badToken(errors.New("no subject"))
		}
		if claims.ID == "" || len(claims.ID) > maxTokenID {
			// Without its signature, which has more than one spelling.
			sum := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
			claims.ID = "sha256-" + hex.EncodeToString(sum[:16])
		}
		return claims, nil
	}
	return jwt.RegisteredClaims{}, badToken(err)
}

// maxTokenID bounds the id of a token, in bytes.
const maxTokenID = 64
