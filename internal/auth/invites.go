package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Bounds of invites.
const (
	InviteLife    = 24 * time.Hour      // the usual life (http.md 7.2)
	MaxInviteLife = 30 * 24 * time.Hour // the longest
	MaxInviteNote = 200                 // bytes
	maxInvites    = 200                 // that wait to be used
	inviteMemory  = 90 * 24 * time.Hour // after it has expired
)

// An Invite lets one person in, with a role. Whoever shows its token becomes a principal of the
// kind user.
type Invite struct {
	ID        string
	Hash      []byte // of its token
	Role      Role
	Note      string // for people: whom it is for
	CreatedAt time.Time
	CreatedBy string
	ExpiresAt time.Time
	UsedAt    time.Time // zero before
	UsedBy    string    // the principal that it made
	RevokedAt time.Time // zero while it is good
}

// Status is what became of an invite at a time: open, used, revoked or expired.
func (i Invite) Status(at time.Time) string {
	switch {
	case !i.UsedAt.IsZero():
		return "used"
	case !i.RevokedAt.IsZero():
		return "revoked"
	case !at.Before(i.ExpiresAt):
		return "expired"
	}
	return "open"
}

// CreateInvite makes an invite and returns its token, 64 hex digits: it is not kept and cannot be
// shown again. The zero life is InviteLife. Faults: Invalid; Forbidden for a role that the caller
// does not have, and for a token with scopes; Limited when too many invites wait; Conflict in open
// mode, where nobody logs in.
func (s *Service) CreateInvite(ctx context.Context, role Role, note string, life time.Duration) (token string, i Invite, err error) {
	if s.Open() {
		return "", i, fault.New(fault.Conflict, "nobody needs an invite in open mode: set auth.jwt_secret first")
	}
	if _, err := ParseRole(string(role)); err != nil {
		return "", i, err
	}
	if life == 0 {
		life = InviteLife
	}
	if life < time.Minute || life > MaxInviteLife {
		return "", i, fault.New(fault.Invalid, "ttl_seconds must be from 60 to %d; got %d", MaxInviteLife/time.Second, life/time.Second)
	}
	if len(note) > MaxInviteNote || !utf8.ValidString(note) || strings.ContainsFunc(note, unicode.IsControl) {
		return "", i, fault.New(fault.Invalid, "note must be printable UTF-8 of at most %d bytes; this one has %d", MaxInviteNote, len(note))
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	err = s.change(ctx, func(c *change) error {
		if err := c.unscoped(); err != nil {
			return err
		}
		if err := c.mayGrant(role); err != nil {
			return err
		}
		if err := c.DropInvites(c.now.Add(-inviteMemory)); err != nil {
			return err
		}
		n, err := c.OpenInvites(c.now)
		if err != nil {
			return err
		}
		if n >= maxInvites {
			return fault.TooOften(time.Hour, "%d invites wait to be used; revoke some first", n)
		}
		token = hex.EncodeToString(secret[:])
		i = Invite{ID: uuid.NewString(), Hash: hashOf(token), Role: role, Note: note, CreatedAt: c.now, CreatedBy: c.actor.ID, ExpiresAt: c.now.Add(life)}
		if err := c.AddInvite(i); err != nil {
			return err
		}
		return c.audit("create_invite", "invite", i.ID, map[string]any{"role": role, "note": note, "expires_at": i.ExpiresAt})
	})
	return token, i, err
}

func hashOf(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Invites returns the newest invites first, the used and expired ones of the last 90 days included.
func (s *Service) Invites(ctx context.Context) ([]Invite, error) {
	return s.store.Read(ctx).Invites(MaxPage)
}

// RevokeInvite makes an invite worthless. Faults: NotFound; Conflict when it was used; Forbidden
// when its role is one that the caller could not give.
func (s *Service) RevokeInvite(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		i, err := c.Invite(id)
		if err != nil {
			return err
		}
		if err := c.mayGrant(i.Role); err != nil {
			return err
		}
		switch i.Status(c.now) {
		case "used":
			return fault.New(fault.Conflict, "This invite has already been used")
		case "revoked":
			return nil
		}
		i.RevokedAt = c.now
		if err := c.UpdateInvite(i); err != nil {
			return err
		}
		return c.audit("revoke_invite", "invite", id, map[string]any{"role": i.Role})
	})
}

// A Guest accepts an invite. With a Name it becomes a person who signs in, and gets a session; with
// none a principal with a token.
type Guest struct {
	Name     string // to sign in with
	Display  string
	Password string // "" where a passkey will be added
	Browser  Browser
}

// AcceptInvite makes the principal that an invite promises, and a token or session for it. Whoever has
// no credentials may call it. What the inviter cannot give any more, the invite does not give either.
// Faults: Invalid; NotFound for an invite that is none; Conflict for one that is spent; Limited.
func (s *Service) AcceptInvite(ctx context.Context, token string, g Guest) (shown string, p Principal, t Token, err error) {
	address := g.Browser.Address
	if err := s.strangers.Allow(address); err != nil {
		return "", p, t, err
	}
	name, err := checkName(g.Display)
	if err != nil {
		return "", p, t, err
	}
	if g.Name != "" {
		if g.Name, err = SignInName(g.Name); err != nil {
			return "", p, t, err
		}
	}
	if g.Password != "" {
		if g.Name == "" {
			return "", p, t, fault.New(fault.Invalid, "a password needs a name to sign in with")
		}
		if err := checkPassword(g.Password, g.Name); err != nil {
			return "", p, t, err
		}
	}
	unknown := fault.New(fault.NotFound, "Invalid invite link")
	i, err := s.store.Read(ctx).InviteByHash(hashOf(token))
	if fault.CodeOf(err) == fault.NotFound {
		s.failed(address, unknown)
		return "", p, t, unknown
	}
	if err != nil {
		return "", p, t, err
	}
	inviter, err := s.store.Read(ctx).Principal(i.CreatedBy)
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return "", p, t, err
	}
	hashed := ""
	if g.Password != "" && i.Status(time.Now()) == "open" {
		if hashed, err = s.hasher.hash(ctx, g.Password); err != nil {
			return "", p, t, err
		}
	}
	err = s.change(With(ctx, inviter), func(c *change) error {
		if i, err = c.InviteByHash(i.Hash); err != nil {
			return err
		}
		switch i.Status(c.now) {
		case "used":
			return fault.New(fault.Conflict, "This invite has already been used")
		case "expired":
			return fault.New(fault.Conflict, "This invite has expired")
		case "revoked":
			return unknown
		}
		// The inviter as it is now, in this transaction.
		if c.actor, err = c.Principal(i.CreatedBy); err != nil || c.actor.Status != Approved || !c.actor.Has(Admin) || c.mayGrant(i.Role) != nil {
			if err != nil && fault.CodeOf(err) != fault.NotFound {
				return err
			}
			return fault.New(fault.Conflict, "whoever made this invite may not invite you any more")
		}
		if p, err = c.create(User, name, Key{}, []Role{i.Role}); err != nil {
			return err
		}
		i.UsedAt, i.UsedBy = c.now, p.ID
		if err := c.UpdateInvite(i); err != nil {
			return err
		}
		if err := c.audit("accept_invite", "invite", i.ID, map[string]any{"principal_id": p.ID, "display_name": name, "role": i.Role, "address": address}); err != nil {
			return err
		}
		if g.Name == "" {
			shown, t, err = c.issue(TokenRequest{PrincipalID: p.ID, Life: StandardLife, Name: "invite", API: true})
			return err
		}
		if err := c.setNames(p, g.Name, ""); err != nil {
			return err
		}
		if hashed != "" {
			u, err := c.Person(p.ID)
			if err != nil {
				return err
			}
			u.Password, u.PasswordAt = hashed, c.now
			if err := c.PutPerson(u); err != nil {
				return err
			}
		}
		l, err := c.signIn(p, g.Browser, "invite")
		shown, t = l.Shown, l.Session
		return err
	})
	return shown, p, t, err
}
