package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Lives of tokens.
const (
	StandardLife = 30 * 24 * time.Hour
	MaxLife      = 365 * 24 * time.Hour
)

// apiTokenPrefix marks an API token, for us and for those who look for secrets in the wrong places.
const apiTokenPrefix = "coven_"

// A TokenRequest asks for a token. The zero Life is StandardLife.
type TokenRequest struct {
	PrincipalID string
	Life        time.Duration
	Name        string  // for people
	Scopes      []Scope // nil is everything the principal may
	API         bool    // an API token, not a JWT

	session string   // the token that opens a session
	browser *Browser // where a session is opened; the token is one then
}

// CreateToken issues a token and returns it: it is not kept and cannot be shown again. Faults:
// Invalid; NotFound; Conflict when the principal is not approved; Forbidden when it has a higher
// rank than the caller, or for scopes that the caller's own token lacks.
func (s *Service) CreateToken(ctx context.Context, r TokenRequest) (shown string, t Token, err error) {
	if r.Life <= 0 {
		r.Life = StandardLife
	}
	if r.Life > MaxLife {
		return "", t, fault.New(fault.Invalid, "ttl_seconds exceeds maximum of %d", MaxLife/time.Second)
	}
	if r.Name != "" {
		if r.Name, err = checkName(r.Name); err != nil {
			return "", t, fault.New(fault.Invalid, "name: %s", fault.Message(err))
		}
	}
	for _, scope := range r.Scopes {
		if _, err := ParseScope(string(scope)); err != nil {
			return "", t, err
		}
	}
	switch {
	case !r.API && r.Scopes != nil:
		return "", t, fault.New(fault.Invalid, "only API tokens have scopes")
	case r.Scopes != nil && len(r.Scopes) == 0: // would be stored as no scopes at all
		return "", t, fault.New(fault.Invalid, "scopes must not be empty; without them a token is good for everything")
	}
	err = s.change(ctx, func(c *change) (err error) {
		p, err := c.manage(r.PrincipalID)
		if err != nil {
			if fault.CodeOf(err) == fault.NotFound {
				err = fault.Wrap(err, fault.NotFound, "principal not found")
			}
			return err
		}
		if p.Status != Approved {
			return fault.New(fault.Conflict, "principal status is %s, must be approved", p.Status)
		}
		if own := c.actor.Credential.Scopes; own != nil && (r.Scopes == nil || slices.ContainsFunc(r.Scopes, func(x Scope) bool { return !slices.Contains(own, x) })) {
			return fault.New(fault.Forbidden, "a token cannot have scopes that yours lacks")
		}
		shown, t, err = c.issue(r)
		return err
	})
	return shown, t, err
}

// issue makes and stores a token.
func (c *change) issue(r TokenRequest) (shown string, t Token, err error) {
	t = Token{
		Parent: r.session,
		ID:     uuid.NewString(), PrincipalID: r.PrincipalID, Kind: JWT, Name: r.Name, Scopes: r.Scopes,
		CreatedAt: c.now, CreatedBy: c.actor.ID, ExpiresAt: c.now.Add(r.Life).Truncate(time.Second),
	}
	action := "create_token"
	if r.API || r.browser != nil {
		t.Kind = APIToken
		if r.browser != nil {
			t.Kind, action = Session, "log_in"
			t.Device, t.Address, t.ProvedAt = r.browser.device(), r.browser.Address, c.now
		}
		shown = apiTokenPrefix + rand.Text() + rand.Text()
		sum := sha256.Sum256([]byte(shown))
		t.Hash = sum[:]
	} else if shown, err = c.s.signer.sign(t.ID, t.PrincipalID, t.CreatedAt, t.ExpiresAt); err != nil {
		return "", t, err
	}
	if err := c.AddToken(t); err != nil {
		return "", t, err
	}
	detail := map[string]any{
		"token_id": t.ID, "kind": t.Kind, "name": t.Name, "scopes": t.Scopes, "expires_at": t.ExpiresAt, "ttl_seconds": int64(r.Life / time.Second),
	}
	if r.browser != nil {
		detail["address"] = t.Address
	}
	return shown, t, c.audit(action, "principal", t.PrincipalID, detail)
}

// SessionLife is how long a browser stays logged in that has shown a token.
const SessionLife = 7 * 24 * time.Hour

// LogIn opens a session for the caller, who shows a token, and returns what its cookie holds. The
// session is as good as the token: it has its scopes, and ends with it.
func (s *Service) LogIn(ctx context.Context, b Browser) (shown string, t Token, err error) {
	err = s.change(ctx, func(c *change) error {
		by := c.actor.Credential
		if by.Kind != JWT && by.Kind != APIToken {
			return fault.New(fault.Conflict, "a session is opened with a token")
		}
		token, err := c.Token(by.ID)
		if err != nil {
			return err
		}
		if err := c.DropSessions(c.now); err != nil {
			return err
		}
		shown, t, err = c.issue(TokenRequest{
			PrincipalID: c.actor.ID, Life: min(SessionLife, token.ExpiresAt.Sub(c.now)), Name: "browser", Scopes: by.Scopes, session: by.ID, browser: &b,
		})
		return err
	})
	return shown, t, err
}

// LogOut ends the caller's session.
func (s *Service) LogOut(ctx context.Context) error {
	p, err := From(ctx)
	if err != nil {
		return err
	}
	if p.Credential.Kind != Session {
		return fault.New(fault.Conflict, "you have no session")
	}
	return s.RevokeToken(ctx, p.Credential.ID)
}

// Tokens returns the tokens of a principal, or with "" everybody's, the newest first.
func (s *Service) Tokens(ctx context.Context, principalID string, limit int) ([]Token, error) {
	ts, err := s.store.Read(ctx).Tokens(principalID, min(max(limit, 1), MaxPage))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ts {
		if at, ok := s.usage.Tokens[ts[i].ID]; ok && at.After(ts[i].LastUsed) {
			ts[i].LastUsed = at.UTC()
		}
	}
	return ts, err
}

// RevokeToken makes a token worthless and ends the calls that were made with it.
func (s *Service) RevokeToken(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		t, err := c.Token(id)
		if err != nil {
			return err
		}
		if _, err := c.manage(t.PrincipalID); err != nil {
			return err
		}
		if !t.RevokedAt.IsZero() {
			return nil
		}
		sessions, err := c.RevokeToken(id, c.now)
		if err != nil {
			return err
		}
		c.spent = append(sessions, id)
		return c.audit("revoke_token", "token", id, map[string]any{"principal_id": t.PrincipalID, "name": t.Name})
	})
}
