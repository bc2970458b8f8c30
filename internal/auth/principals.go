package auth

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Limits of principals.
const (
	MaxName       = 100 // characters of a name
	MaxCapability = 64  // characters of a capability
	MaxPage       = 500 // principals or tokens in one answer

	maxKeys = 20 // of one principal

	// A linked device registers at most so many keys in so much time (grpc.md 6.7).
	deviceRegistrations = 5
	deviceWindow        = time.Minute
)

// Principals returns principals, the newest first.
func (s *Service) Principals(ctx context.Context, f PrincipalFilter) ([]Principal, error) {
	f.Limit = min(max(f.Limit, 1), MaxPage)
	ps, err := s.store.Read(ctx).Principals(f)
	for i := range ps {
		s.present(&ps[i])
	}
	return ps, err
}

// Principal returns a principal, or a NotFound fault.
func (s *Service) Principal(ctx context.Context, id string) (Principal, error) {
	p, err := s.store.Read(ctx).Principal(id)
	if err == nil {
		s.present(&p)
	}
	return p, err
}

// present fills in what is only known here: whether a principal is here, and when it was last.
func (s *Service) present(p *Principal) {
	s.mu.Lock()
	if at, ok := s.usage.Principals[p.ID]; ok && at.After(p.LastSeen) {
		p.LastSeen = at.UTC()
	}
	s.mu.Unlock()
	if p.Online = s.sessions.online(p.ID); p.Online {
		p.LastSeen = time.Now().UTC()
	}
}

// Keys returns the keys of a principal.
func (s *Service) Keys(ctx context.Context, principalID string) ([]Key, error) {
	read := s.store.Read(ctx)
	if _, err := read.Principal(principalID); err != nil {
		return nil, err
	}
	return read.Keys(principalID)
}

// A NewPrincipal is a principal to create. PublicKey and Fingerprint are two ways to name its key;
// both may be empty.
type NewPrincipal struct {
	Kind        Kind
	Name        string
	PublicKey   string // an authorized_keys line
	Fingerprint string
	Roles       []Role
}

// CreatePrincipal creates an approved principal. Faults: Invalid; Exists when the key is somebody's
// already; Forbidden for a role that the caller does not have.
func (s *Service) CreatePrincipal(ctx context.Context, n NewPrincipal) (Principal, error) {
	switch n.Kind {
	case Client, Agent, Pack:
	default:
		return Principal{}, fault.New(fault.Invalid, "invalid type: %s (use 'client', 'agent' or 'pack')", n.Kind)
	}
	name, err := checkName(n.Name)
	if err != nil {
		return Principal{}, err
	}
	key := Key{}
	if n.PublicKey != "" {
		k, comment, err := ParseKey(n.PublicKey)
		if err != nil {
			return Principal{}, fault.Wrap(err, fault.Invalid, "invalid pubkey: %s", fault.Message(err))
		}
		key.Fingerprint, key.Comment = Fingerprint(k), trimComment(comment)
	}
	if n.Fingerprint != "" {
		fp, err := ParseFingerprint(n.Fingerprint)
		if err != nil {
			return Principal{}, err
		}
		if key.Fingerprint != "" && key.Fingerprint != fp {
			return Principal{}, fault.New(fault.Invalid, "pubkey and pubkey_fp name different keys")
		}
		key.Fingerprint = fp
	}
	if n.Kind != Client && key.Fingerprint == "" {
		return Principal{}, fault.New(fault.Invalid, "%s principals require pubkey or pubkey_fp", n.Kind)
	}
	var p Principal
	err = s.change(ctx, func(c *change) (err error) {
		if key.Fingerprint != "" {
			if err := c.unscoped(); err != nil {
				return err
			}
		}
		p, err = c.create(n.Kind, name, key, n.Roles)
		return err
	})
	return p, err
}

// create stores an approved principal with a key, unless that is empty, and roles.
func (c *change) create(kind Kind, name string, key Key, roles []Role) (Principal, error) {
	p := Principal{ID: uuid.NewString(), Kind: kind, Name: name, Status: Approved, CreatedAt: c.now, CreatedBy: c.actor.ID}
	if err := c.AddPrincipal(p); err != nil {
		return p, err
	}
	detail := map[string]any{"type": kind, "display_name": name, "roles": roles}
	if key.Fingerprint != "" {
		key.PrincipalID, key.AddedAt, key.AddedBy = p.ID, c.now, c.actor.ID
		if err := c.AddKey(key); err != nil {
			return p, err
		}
		detail["fingerprint"] = key.Fingerprint
	}
	for _, r := range roles {
		if r.rank() == 0 {
			return p, fault.New(fault.Invalid, "role must be owner, admin, member or leader; got %q", r)
		}
		if err := c.mayGrant(r); err != nil {
			return p, err
		}
		if _, err := c.SetRole(p.ID, r, true, c.actor.ID, c.now); err != nil {
			return p, err
		}
	}
	if err := c.audit("create_principal", "principal", p.ID, detail); err != nil {
		return p, err
	}
	return c.Principal(p.ID)
}

// unscoped refuses a caller whose token has scopes: it could make credentials that have none.
func (c *change) unscoped() error {
	if c.actor.Credential.Scopes == nil {
		return nil
	}
	return fault.New(fault.Forbidden, "a token with scopes cannot make credentials without")
}

// mayGrant refuses to give what the actor does not have.
func (c *change) mayGrant(r Role) error {
	if c.actor.Has(r) || c.actor.rank() > r.rank() {
		return nil
	}
	return fault.New(fault.Forbidden, "the role %s can be granted only by those who have it", r)
}

// RegisterKey registers the key of another agent or device of the caller, as an approved member
// that the caller created. Faults: Limited; Invalid; Exists when the key is known.
func (s *Service) RegisterKey(ctx context.Context, kind Kind, name, fingerprint string) (Principal, error) {
	actor, err := From(ctx)
	if err != nil {
		return Principal{}, err
	}
	if err := checkDeviceName(name); err != nil {
		return Principal{}, err
	}
	fp, err := ParseFingerprint(fingerprint)
	if err != nil {
		return Principal{}, err
	}
	if err := s.devices.Allow(actor.ID); err != nil {
		return Principal{}, fault.TooOften(deviceWindow/deviceRegistrations, "rate limit exceeded: max %d registrations per %s", deviceRegistrations, "1m0s")
	}
	var p Principal
	err = s.change(ctx, func(c *change) (err error) {
		p, err = c.create(kind, name, Key{Fingerprint: fp}, []Role{Member})
		return err
	})
	if fault.CodeOf(err) == fault.Exists {
		return Principal{}, fault.Wrap(err, fault.Exists, "fingerprint already registered")
	}
	return p, err
}

// Approve lets a principal call, also one that was revoked. One that registered itself and has no
// role becomes a member.
func (s *Service) Approve(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		p, err := c.manage(id)
		if err != nil || p.Status == Approved {
			return err
		}
		return c.approve(p)
	})
}

func (c *change) approve(p Principal) error {
	if err := c.SetStatus(p.ID, Approved); err != nil {
		return err
	}
	if err := c.audit("approve_principal", "principal", p.ID, map[string]any{"was": p.Status}); err != nil {
		return err
	}
	if len(p.Roles) == 0 && p.Status == Pending {
		return c.setRole(p, Member, true)
	}
	return nil
}

// Revoke takes the right to call from a principal and ends its calls and turns. The last owner and
// the caller itself cannot be revoked.
func (s *Service) Revoke(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		p, err := c.manage(id)
		if err != nil || p.Status == Revoked {
			return err
		}
		return c.revoke(p)
	})
}

func (c *change) revoke(p Principal) error {
	if p.ID == c.actor.ID {
		return fault.New(fault.Conflict, "you cannot revoke yourself")
	}
	if err := c.SetStatus(p.ID, Revoked); err != nil {
		return err
	}
	c.ends = append(c.ends, p.ID)
	if err := c.audit("revoke_principal", "principal", p.ID, map[string]any{"was": p.Status}); err != nil {
		return err
	}
	if err := c.endSessions(p.ID, ""); err != nil {
		return err
	}
	if err := c.endGrants(p.ID, "the principal was revoked"); err != nil {
		return err
	}
	return c.keepOwner(p)
}

// Delete removes a principal with its keys, tokens and grants, and ends its calls and turns. What it
// has written stays, and so do its agent ids, until an admin gives them to somebody else.
func (s *Service) Delete(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		p, err := c.manage(id)
		if err != nil {
			return err
		}
		if p.ID == c.actor.ID {
			return fault.New(fault.Conflict, "you cannot delete yourself")
		}
		if err := c.DeletePrincipal(p.ID); err != nil {
			return err
		}
		c.ends = append(c.ends, p.ID)
		if err := c.audit("delete_principal", "principal", p.ID, map[string]any{"display_name": p.Name, "type": p.Kind, "roles": p.Roles}); err != nil {
			return err
		}
		return c.keepOwner(p)
	})
}

// keepOwner fails when a change of p has left no owner.
func (c *change) keepOwner(p Principal) error {
	if !slices.Contains(p.Roles, Owner) {
		return nil
	}
	if n, err := c.Owners(); err != nil || n > 0 {
		return err
	}
	return fault.New(fault.Conflict, "%s is the last owner", p.ID)
}

// Rename changes a principal's name.
func (s *Service) Rename(ctx context.Context, id, name string) error {
	name, err := checkName(name)
	if err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		p, err := c.manage(id)
		if err != nil || p.Name == name {
			return err
		}
		if err := c.Rename(id, name); err != nil {
			return err
		}
		return c.audit("rename_principal", "principal", id, map[string]any{"was": p.Name, "display_name": name})
	})
}

// SetRole grants a role or takes it away.
func (s *Service) SetRole(ctx context.Context, id string, r Role, granted bool) error {
	if _, err := ParseRole(string(r)); err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		p, err := c.manage(id)
		if err != nil {
			return err
		}
		if err := c.mayGrant(r); err != nil {
			return err
		}
		return c.setRole(p, r, granted)
	})
}

func (c *change) setRole(p Principal, r Role, granted bool) error {
	changed, err := c.SetRole(p.ID, r, granted, c.actor.ID, c.now)
	if err != nil || !changed {
		return err
	}
	action := "grant_role"
	if !granted {
		action = "revoke_role"
	}
	if err := c.audit(action, "principal", p.ID, map[string]any{"role": r}); err != nil {
		return err
	}
	return c.keepOwner(p)
}

// SetCapability grants a capability to a principal by name, or takes it away again.
func (s *Service) SetCapability(ctx context.Context, id, capability string, granted bool) error {
	if err := checkCapability(capability); err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		if _, err := c.manage(id); err != nil {
			return err
		}
		changed, err := c.SetCapability(id, capability, granted, c.actor.ID, c.now)
		if err != nil || !changed {
			return err
		}
		action := "grant_capability"
		if !granted {
			action = "revoke_capability"
		}
		return c.audit(action, "principal", id, map[string]any{"capability": capability})
	})
}

// AddKey gives a principal another key: an authorized_keys line, or its fingerprint.
func (s *Service) AddKey(ctx context.Context, id, publicKey, fingerprint string) (Key, error) {
	key := Key{PrincipalID: id}
	var err error
	if publicKey != "" {
		k, comment, err := ParseKey(publicKey)
		if err != nil {
			return key, err
		}
		key.Fingerprint, key.Comment = Fingerprint(k), trimComment(comment)
	} else if key.Fingerprint, err = ParseFingerprint(fingerprint); err != nil {
		return key, err
	}
	err = s.change(ctx, func(c *change) error {
		if _, err := c.manage(id); err != nil {
			return err
		}
		if err := c.unscoped(); err != nil {
			return err
		}
		keys, err := c.Keys(id)
		if err != nil {
			return err
		}
		if len(keys) >= maxKeys {
			return fault.New(fault.Conflict, "a principal must not have more than %d keys", maxKeys)
		}
		key.AddedAt, key.AddedBy = c.now, c.actor.ID
		if err := c.AddKey(key); err != nil {
			return err
		}
		return c.audit("add_key", "principal", id, map[string]any{"fingerprint": key.Fingerprint})
	})
	return key, err
}

// RemoveKey takes a key from a principal and ends the calls that were made with it.
func (s *Service) RemoveKey(ctx context.Context, id, fingerprint string) error {
	fp, err := ParseFingerprint(fingerprint)
	if err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		if _, err := c.manage(id); err != nil {
			return err
		}
		if err := c.RemoveKey(id, fp); err != nil {
			return err
		}
		c.spent = []string{fp}
		return c.audit("remove_key", "principal", id, map[string]any{"fingerprint": fp})
	})
}

// checkName returns the name of a principal, trimmed.
func checkName(name string) (string, error) {
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		return "", fault.New(fault.Invalid, "display_name required")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "", fault.New(fault.Invalid, "display_name must be printable UTF-8")
	case utf8.RuneCountInString(name) > MaxName:
		return "", fault.New(fault.Invalid, "display_name exceeds %d characters", MaxName)
	}
	return name, nil
}

// checkDeviceName checks a name as RegisterAgent has it (grpc.md 6.7).
func checkDeviceName(name string) error {
	allowed := func(r rune) bool {
		return r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsSpace(r) || strings.ContainsRune("-_.", r))
	}
	switch {
	case name == "":
		return fault.New(fault.Invalid, "display_name required")
	case strings.TrimSpace(name) == "":
		return fault.New(fault.Invalid, "display_name cannot be only whitespace")
	case len(name) > MaxName:
		return fault.New(fault.Invalid, "display_name exceeds %d characters", MaxName)
	case strings.ContainsFunc(name, func(r rune) bool { return !allowed(r) }):
		return fault.New(fault.Invalid, "display_name contains invalid characters (use ASCII letters, digits, '-', '_', '.' and spaces)")
	}
	return nil
}

func checkCapability(s string) error {
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("_-:", r)
	}
	if s == "" || len(s) > MaxCapability || strings.ContainsFunc(s, func(r rune) bool { return !allowed(r) }) {
		return fault.New(fault.Invalid, "a capability is 1 to %d lower-case letters, digits, '_', '-' or ':'; got %q", MaxCapability, s)
	}
	return nil
}

// trimComment bounds the comment of a key.
func trimComment(s string) string {
	s = strings.ToValidUTF8(s, "")
	if r := []rune(s); len(r) > MaxName {
		return string(r[:MaxName])
	}
	return s
}
