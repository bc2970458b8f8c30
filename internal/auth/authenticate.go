package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Credentials are what a caller shows, and where it comes from.
type Credentials struct {
	Authorization string // the header's value; "" for none
	Session       string // the value of a browser's cookie; only HTTP has it
	Proof         Proof  // that it holds an SSH key; only gRPC has it
	Address       string // without port, or the name of an in-process connection
	Resource      string // what a token of OAuth has to be for; "" where none is good
	Connection    uint64 // distinguishes the connections of this process; 0 if it cannot be known
}

// Authenticate returns the caller. Its faults have the words that existing programs know
// (grpc.md 2.3 to 2.6): Unauthenticated where the credentials are not good, Forbidden where the
// principal may not call, Limited where an address fails too often. Credentials that are good are
// accepted however often others from the same address were not.
func (s *Service) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	if s.Open() {
		if !s.opts.OpenRemote && !loopback(c.Address) {
			return Principal{}, fault.New(fault.Forbidden,
				"this gateway has no authentication configured and therefore serves loopback addresses only; your address is %s "+
					"(its operator can set auth.jwt_secret, or auth.open_remote: true)", c.Address)
		}
		p := Anonymous
		p.Credential.Connection = c.Connection
		return p, nil
	}
	asOf := s.cache.state()
	read := s.store.Read(ctx)
	var p Principal
	var err error
	if c.Proof.given() {
		p, err = s.bySSH(ctx, read, c)
	} else if c.Authorization == "" && c.Session != "" {
		p, err = s.bySession(ctx, read, c.Session)
	} else {
		p, err = s.byBearer(ctx, read, c.Authorization, c.Resource)
	}
	if err == nil {
		err = p.mayCall()
	}
	if err != nil {
		if code := fault.CodeOf(err); code == fault.Unauthenticated || code == fault.Forbidden {
			s.failed(c.Address, err)
			if limited := s.strangers.Allow(c.Address); limited != nil {
				return Principal{}, limited
			}
		}
		return Principal{}, err
	}
	p.Credential.Address, p.Credential.Connection, p.Credential.asOf = c.Address, c.Connection, asOf
	return p, nil
}

// mayCall returns why a principal may not call.
func (p Principal) mayCall() error {
	switch p.Status {
	case Approved:
		return nil
	case Pending:
		return fault.New(fault.Forbidden, "principal status is pending - admin approval required")
	case Revoked:
		return fault.New(fault.Forbidden, "principal has been revoked")
	}
	return fault.Wrap(errors.New("unknown principal status: "+string(p.Status)), fault.Internal, "internal server error")
}

// gone says that a principal or token that was there is not any more.
func gone(err error) error {
	if fault.CodeOf(err) == fault.NotFound {
		return fault.Wrap(err, fault.Unauthenticated, "principal not found")
	}
	return err
}

// bySSH authenticates a caller by its key. The signature is used up only once it was verified.
func (s *Service) bySSH(ctx context.Context, read Reader, c Credentials) (Principal, error) {
	now := time.Now()
	proof, err := c.Proof.parse(now)
	if err != nil {
		return Principal{}, err
	}
	p, err := s.holder(read, proof.fingerprint)
	unknown := fault.CodeOf(err) == fault.NotFound
	if err != nil && !unknown {
		return Principal{}, err
	}
	if unknown && s.opts.AutoRegistration == RegisterNobody {
		return Principal{}, fault.New(fault.Unauthenticated, "unknown public key")
	}
	if err := proof.verify(); err != nil {
		return Principal{}, err
	}
	if unknown { // before its signature is remembered: anybody can make any number of keys
		if err := s.registrations.Allow(c.Address); err != nil {
			return Principal{}, err
		}
	}
	if err := s.nonces.accept(proof, c.Connection, now); err != nil {
		return Principal{}, err
	}
	if unknown {
		if p, err = s.register(ctx, read, proof.fingerprint, c.Address); err != nil {
			return Principal{}, err
		}
	}
	p.Credential = Credential{Kind: SSHKey, ID: proof.fingerprint}
	return p, nil
}

// register makes a principal for a key that nobody knows. Of parallel calls one makes it and the
// others find it.
func (s *Service) register(ctx context.Context, read Reader, fingerprint, address string) (Principal, error) {
	p := Principal{
		ID: uuid.NewString(), Kind: Agent, Name: "agent-" + fingerprint[len(fingerprint)-8:], Status: Pending,
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
	if s.opts.AutoRegistration == RegisterApproved {
		p.Status, p.Roles = Approved, []Role{Member}
	}
	err := s.store.Change(ctx, func(tx Tx) error {
		if p.Status == Pending {
			if n, err := tx.PendingPrincipals(); err != nil || n >= maxPending {
				return errors.Join(err, fault.New(fault.Limited, "%d principals wait for an administrator; no more are taken", n))
			}
		}
		if err := tx.AddPrincipal(p); err != nil {
			return err
		}
		if err := tx.AddKey(Key{Fingerprint: fingerprint, PrincipalID: p.ID, AddedAt: p.CreatedAt}); err != nil {
			return err
		}
		for _, r := range p.Roles {
			if _, err := tx.SetRole(p.ID, r, true, "", p.CreatedAt); err != nil {
				return err
			}
		}
		return s.audit(tx, record("", "register_principal", "principal", p.ID, map[string]any{
			"fingerprint": fingerprint, "status": p.Status, "address": address,
		}))
	})
	switch {
	case fault.CodeOf(err) == fault.Exists:
		return s.holder(read, fingerprint)
	case err != nil:
		return Principal{}, err
	case p.Status == Pending:
		return Principal{}, fault.New(fault.Forbidden, "agent registered with pending status (principal_id: %s) - admin approval required", p.ID)
	}
	return p, nil
}

// byBearer authenticates a caller by a JWT, an API token, or, for a resource, a token of OAuth.
func (s *Service) byBearer(ctx context.Context, read Reader, header, resource string) (Principal, error) {
	if header == "" {
		return Principal{}, fault.New(fault.Unauthenticated, "missing authorization header")
	}
	shown, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return Principal{}, fault.New(fault.Unauthenticated, "invalid authorization header format")
	}
	if shown == "" {
		return Principal{}, fault.New(fault.Unauthenticated, "empty token")
	}
	if strings.HasPrefix(shown, oauthPrefix) {
		return s.byOAuth(read, shown, resource)
	}
	t, err := s.bearer(ctx, read, shown)
	if err == nil && t.Kind == Session { // a cookie's value is not a token
		err = badToken(errors.New("a session"))
	}
	if err != nil {
		return Principal{}, err
	}
	return s.speaker(read, t)
}

// bySession authenticates a browser.
func (s *Service) bySession(ctx context.Context, read Reader, cookie string) (Principal, error) {
	t, err := s.bearer(ctx, read, cookie)
	if err == nil && t.Kind != Session {
		err = badToken(errors.New("not a session"))
	}
	if err == nil && t.idle(time.Now()) { // what is cached may not know how it was used since
		t, err = read.Token(t.ID)
	}
	if err != nil {
		return Principal{}, err
	}
	p, err := s.speaker(read, t)
	p.Credential.ProvedAt, p.Credential.Ends = t.ProvedAt, t.ExpiresAt
	return p, err
}

// idle reports whether a session was not used for too long.
func (t Token) idle(now time.Time) bool {
	last := t.LastUsed
	if last.Before(t.CreatedAt) {
		last = t.CreatedAt
	}
	return t.Kind == Session && now.Sub(last) >= SessionIdle
}

// speaker returns the principal that a token speaks for.
func (s *Service) speaker(read Reader, t Token) (Principal, error) {
	if err := t.good(); err != nil {
		return Principal{}, err
	}
	p, err := s.principal(read, t.PrincipalID)
	if err != nil {
		return Principal{}, gone(err)
	}
	p.Credential = Credential{Kind: t.Kind, ID: t.ID, Scopes: t.Scopes}
	return p, nil
}

// bearer returns the token that is shown.
func (s *Service) bearer(ctx context.Context, read Reader, shown string) (Token, error) {
	if strings.HasPrefix(shown, apiTokenPrefix) {
		sum := sha256.Sum256([]byte(shown))
		t, err := s.tokenByHash(read, sum[:])
		if fault.CodeOf(err) == fault.NotFound {
			return t, badToken(err)
		}
		return t, err
	}
	claims, err := s.signer.verify(shown)
	if err != nil {
		return Token{}, err
	}
	t, err := s.token(read, claims.ID)
	switch {
	case fault.CodeOf(err) == fault.NotFound:
		return s.adopt(ctx, read, Token{ID: claims.ID, PrincipalID: claims.Subject, Kind: JWT, ExpiresAt: claims.ExpiresAt.UTC()})
	case err == nil && t.PrincipalID != claims.Subject:
		return t, badToken(errors.New("the token's id is another principal's"))
	}
	return t, err
}

// adopt writes down a token that another program has signed with our secret, so that it is listed
// and can be revoked.
func (s *Service) adopt(ctx context.Context, read Reader, t Token) (Token, error) {
	if _, err := s.principal(read, t.PrincipalID); err != nil {
		return t, gone(err)
	}
	t.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	err := s.store.Change(ctx, func(tx Tx) error {
		if err := tx.AddToken(t); err != nil {
			return err
		}
		return s.audit(tx, record("", "adopt_token", "token", t.ID, map[string]any{"principal_id": t.PrincipalID, "expires_at": t.ExpiresAt}))
	})
	if fault.CodeOf(err) == fault.Exists { // by a parallel call
		return s.token(read, t.ID)
	}
	return t, err
}

// good returns why a token is not good any more.
func (t Token) good() error {
	switch {
	case !t.RevokedAt.IsZero():
		return badToken(errors.New("revoked"))
	case !time.Now().Before(t.ExpiresAt):
		return badToken(errors.New("expired"))
	case t.idle(time.Now()):
		return badToken(errors.New("not used for too long"))
	}
	return nil
}

// AllowRequest takes one request from a principal's allowance, or returns a Limited fault. In open
// mode everybody is one principal, which has no limit.
func (s *Service) AllowRequest(p Principal) error {
	if p.Credential.Kind == Open {
		return nil
	}
	return s.requests.Allow(p.ID)
}
