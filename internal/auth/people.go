package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"coven-gateway/internal/fault"
)

// Bounds of people and their sessions.
const (
	MaxSignInName = 32 // characters of the name that one signs in with
	maxSessions   = 50 // of one person; the oldest ends
	maxDevice     = 200
	handleSize    = 32 // bytes of what passkeys know a person by

	// SessionIdle is how long a session lasts that nobody uses, SignInLife how long one lasts at most.
	SessionIdle = 7 * 24 * time.Hour
	SignInLife  = 30 * 24 * time.Hour
	// FreshFor is how long whoever has signed in may do what is in [Fresh].
	FreshFor = 10 * time.Minute
	// Lives of links that sign somebody in.
	OwnerLinkLife = time.Hour
	ResetLinkLife = 24 * time.Hour
)

// Attempts to sign in with a password, at once and in time.
const (
	attemptsOfAddress = 30 // then one every 2 seconds
	attemptsOfPair    = 10 // of a name from one address; then one every 10 seconds
	attemptsOfName    = 60 // of a name from addresses where it has no session; then one every 10 seconds
)

// A Person is how a principal of the kind user signs in.
type Person struct {
	PrincipalID string
	Name        string // to sign in with; lower case
	Handle      []byte // what passkeys know it by
	Password    string // hashed; "" for none
	PasswordAt  time.Time
	Passkeys    int // how many there are; not written
}

// A SignInLink signs somebody in, once.
type SignInLink struct {
	Hash        []byte
	PrincipalID string // "" for an owner that it makes
	First       bool   // it is good only while there is no owner
	CreatedAt   time.Time
	CreatedBy   string
	ExpiresAt   time.Time
}

// A Browser is where somebody signs in.
type Browser struct {
	Device  string // what it says it is
	Address string // without port
}

func (b Browser) device() string {
	d := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, b.Device)
	return strings.ToValidUTF8(d[:min(len(d), maxDevice)], "")
}

// A Login is what came of signing in.
type Login struct {
	Shown     string // what the cookie holds
	Session   Token
	Principal Principal
}

// closed says that nobody signs in here, in open mode.
func (s *Service) closed() error {
	if s.Open() {
		return fault.New(fault.Conflict, "nobody signs in in open mode: set auth.jwt_secret first")
	}
	return nil
}

// SignInName returns a name to sign in with as it is stored, or an Invalid fault.
func SignInName(name string) (string, error) {
	name = strings.ToLower(strings.TrimSpace(name))
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' }
	allowed := func(r rune) bool { return letter(r) || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) }
	if len(name) < 2 || len(name) > MaxSignInName || !letter(rune(name[0])) || strings.ContainsFunc(name, func(r rune) bool { return !allowed(r) }) {
		return "", fault.New(fault.Invalid, "name must begin with a letter and have 2 to %d letters, digits, '.', '_' or '-'", MaxSignInName)
	}
	return name, nil
}

// NeedsOwner reports whether there is no owner yet.
func (s *Service) NeedsOwner(ctx context.Context) (bool, error) {
	has, err := s.store.Read(ctx).HasOwner()
	return !has && !s.Open(), err
}

// signIn opens a session for a principal; how says with what.
func (c *change) signIn(p Principal, b Browser, how string) (Login, error) {
	if err := p.mayCall(); err != nil {
		return Login{}, err
	}
	if err := c.DropSessions(c.now); err != nil {
		return Login{}, err
	}
	open, err := c.Sessions(p.ID, c.now)
	if err != nil {
		return Login{}, err
	}
	for i := maxSessions - 1; i < len(open); i++ {
		if _, err := c.RevokeToken(open[i].ID, c.now); err != nil {
			return Login{}, err
		}
		c.spent = append(c.spent, open[i].ID)
	}
	c.actor = p
	shown, t, err := c.issue(TokenRequest{PrincipalID: p.ID, Life: SignInLife, Name: how, browser: &b})
	return Login{shown, t, p}, err
}

// network is an address, or the network of one where somebody has many.
func network(address string) string {
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return address
}

// allowAttempt bounds the passwords that are tried. What others do elsewhere keeps nobody out: the
// allowance that all addresses share does not concern one where the person has a session.
func (s *Service) allowAttempt(read Reader, u Person, name, address string) error {
	from := network(address)
	if err := s.attempts.byAddress.Allow(from); err != nil {
		return err
	}
	if err := s.attempts.byPair.Allow(name + " " + from); err != nil {
		return err
	}
	limited := s.attempts.byName.Allow(name)
	if limited == nil || u.PrincipalID == "" {
		return limited
	}
	open, err := read.Sessions(u.PrincipalID, time.Now())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(open, func(t Token) bool { return network(t.Address) == from }) {
		return nil
	}
	return limited
}

// errPassword does not say what was wrong.
var errPassword = fault.New(fault.Unauthenticated, "wrong name or password")

// SignIn opens a session for whoever knows a name and its password. Faults: Unauthenticated, without
// saying which of the two is wrong; Forbidden for one who may not call; Limited; Conflict in open mode.
func (s *Service) SignIn(ctx context.Context, name, password string, b Browser) (l Login, err error) {
	if err := s.closed(); err != nil {
		return l, err
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if len(name) > MaxSignInName || len(password) > MaxPassword {
		return l, errPassword
	}
	read := s.store.Read(ctx)
	u, err := read.PersonByName(name)
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return l, err
	}
	if err := s.allowAttempt(read, u, name, b.Address); err != nil {
		return l, err
	}
	ok, err := s.hasher.check(ctx, password, u.Password)
	if err != nil {
		return l, err
	}
	if !ok {
		s.failed(b.Address, errPassword)
		return l, errPassword
	}
	err = s.change(With(ctx, Principal{ID: u.PrincipalID}), func(c *change) error {
		now, err := c.Person(u.PrincipalID)
		if err != nil {
			return gone(err)
		}
		if now.Password != u.Password { // changed meanwhile
			return errPassword
		}
		p, err := c.Principal(u.PrincipalID)
		if err != nil {
			return gone(err)
		}
		l, err = c.signIn(p, b, "password")
		return err
	})
	return l, err
}

// InBrowser refuses whoever is not a person with a session.
func (p Principal) InBrowser() error {
	if p.Credential.Kind != Session || p.Kind != User {
		return fault.New(fault.Conflict, "this is for people who have signed in with a browser")
	}
	return nil
}

// personOf returns how a caller signs in.
func personOf(read Reader, p Principal) (Person, error) {
	if err := p.InBrowser(); err != nil {
		return Person{}, err
	}
	u, err := read.Person(p.ID)
	if fault.CodeOf(err) == fault.NotFound {
		return u, fault.New(fault.Conflict, "choose a name to sign in with first")
	}
	return u, err
}

// Fresh returns a fault that asks a browser to show again who sits there, unless that was a moment
// ago. Other callers show who they are with every call.
func (p Principal) Fresh() error {
	if p.Credential.Kind != Session || time.Since(p.Credential.ProvedAt) < FreshFor {
		return nil
	}
	return fault.New(fault.Reauthenticate, "show again who you are: this needs a sign-in that is not older than %d minutes", FreshFor/time.Minute)
}

// SetNames changes how the caller is called and what it signs in with; "" leaves either as it is.
func (s *Service) SetNames(ctx context.Context, name, display string) (err error) {
	return s.change(ctx, func(c *change) error {
		if err := c.actor.InBrowser(); err != nil {
			return err
		}
		return c.setNames(c.actor, name, display)
	})
}

func (c *change) setNames(p Principal, name, display string) (err error) {
	if display != "" {
		if display, err = checkName(display); err != nil {
			return err
		}
		if display != p.Name {
			if err := c.Rename(p.ID, display); err != nil {
				return err
			}
			if err := c.audit("rename_principal", "principal", p.ID, map[string]any{"was": p.Name, "display_name": display}); err != nil {
				return err
			}
		}
	}
	if name == "" {
		return nil
	}
	if name, err = SignInName(name); err != nil {
		return err
	}
	u, err := c.Person(p.ID)
	if fault.CodeOf(err) == fault.NotFound {
		u, err = Person{PrincipalID: p.ID, Handle: make([]byte, handleSize)}, nil
		_, _ = rand.Read(u.Handle) // never fails
	}
	if err != nil || u.Name == name {
		return err
	}
	was := u.Name
	u.Name = name
	if err := c.PutPerson(u); err != nil {
		return err
	}
	return c.audit("set_sign_in_name", "principal", p.ID, map[string]any{"was": was, "name": name})
}

// SetPassword gives the caller a password. It asks for the old one, where there is one, unless the
// caller has shown a moment ago who it is. All other sessions of the caller end.
func (s *Service) SetPassword(ctx context.Context, old, password string) error {
	actor, err := From(ctx)
	if err != nil {
		return err
	}
	read := s.store.Read(ctx)
	u, err := personOf(read, actor)
	if err != nil {
		return err
	}
	if fresh := actor.Fresh(); fresh != nil {
		if old == "" || u.Password == "" || len(old) > MaxPassword {
			return fresh
		}
		if err := s.proves(ctx, read, u, old, actor.Credential.Address); err != nil {
			return err
		}
	}
	if err := checkPassword(password, u.Name); err != nil {
		return err
	}
	hashed, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		now, err := personOf(c, c.actor)
		if err != nil {
			return err
		}
		if now.Password != u.Password {
			return fault.New(fault.Conflict, "the password was changed meanwhile")
		}
		now.Password, now.PasswordAt = hashed, c.now
		if err := c.PutPerson(now); err != nil {
			return err
		}
		if err := c.endSessions(c.actor.ID, c.actor.Credential.ID); err != nil {
			return err
		}
		return c.audit("set_password", "principal", c.actor.ID, map[string]any{"first": u.Password == ""})
	})
}

// proves checks the password of a person who has signed in.
func (s *Service) proves(ctx context.Context, read Reader, u Person, password, address string) error {
	if err := s.allowAttempt(read, u, u.Name, address); err != nil {
		return err
	}
	ok, err := s.hasher.check(ctx, password, u.Password)
	if err == nil && !ok {
		err = fault.New(fault.Forbidden, "wrong password")
		s.failed(address, err)
	}
	return err
}

// ProvePassword has the caller show again who it is.
func (s *Service) ProvePassword(ctx context.Context, password string) error {
	actor, err := From(ctx)
	if err != nil {
		return err
	}
	if actor.Credential.Kind != Session {
		return fault.New(fault.Conflict, "this is for people who have signed in with a browser")
	}
	read := s.store.Read(ctx)
	u, err := read.Person(actor.ID)
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return err
	}
	if len(password) > MaxPassword {
		password = ""
	}
	if err := s.proves(ctx, read, u, password, actor.Credential.Address); err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error { return c.prove("password") })
}

// prove notes that the caller has shown again who it is.
func (c *change) prove(how string) error {
	if err := c.ProveSession(c.actor.Credential.ID, c.now); err != nil {
		return err
	}
	return c.audit("reauthenticate", "principal", c.actor.ID, map[string]any{"token_id": c.actor.Credential.ID, "with": how})
}

// endSessions ends the sessions of a principal, but for one.
func (c *change) endSessions(principalID, except string) error {
	ids, err := c.EndSessions(principalID, except, c.now)
	if err != nil || len(ids) == 0 {
		return err
	}
	c.spent = append(c.spent, ids...)
	return c.audit("end_sessions", "principal", principalID, map[string]any{"sessions": len(ids)})
}

// OpenSessions returns the sessions of a principal, the newest first.
func (s *Service) OpenSessions(ctx context.Context, principalID string) ([]Token, error) {
	now := time.Now()
	ts, err := s.store.Read(ctx).Sessions(principalID, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ts {
		if at, ok := s.usage.Tokens[ts[i].ID]; ok && at.After(ts[i].LastUsed) {
			ts[i].LastUsed = at.UTC()
		}
	}
	return slices.DeleteFunc(ts, func(t Token) bool { return t.idle(now) }), err
}

// EndSession ends a session of the caller, or, for an administrator, of somebody it may manage. id ""
// is all of them, but for the caller's own.
func (s *Service) EndSession(ctx context.Context, principalID, id string) error {
	return s.change(ctx, func(c *change) error {
		if err := c.unscoped(); err != nil {
			return err
		}
		if principalID != c.actor.ID {
			if _, err := c.user(principalID); err != nil {
				return err
			}
		}
		if id == "" {
			return c.endSessions(principalID, c.actor.Credential.ID)
		}
		t, err := c.Token(id)
		if err != nil || t.Kind != Session || t.PrincipalID != principalID {
			if err == nil || fault.CodeOf(err) == fault.NotFound {
				err = fault.New(fault.NotFound, "no session %q", id)
			}
			return err
		}
		if _, err := c.RevokeToken(id, c.now); err != nil {
			return err
		}
		c.spent = append(c.spent, id)
		return c.audit("revoke_token", "token", id, map[string]any{"principal_id": principalID, "name": t.Name})
	})
}

// user returns a person whom the actor may change.
func (c *change) user(id string) (Principal, error) {
	p, err := c.manage(id)
	if err == nil && p.Kind != User {
		err = fault.New(fault.NotFound, "no user %q", id)
	}
	return p, err
}

// Person returns how a principal signs in; the zero value where it does not.
func (s *Service) Person(ctx context.Context, principalID string) (Person, error) {
	u, err := s.store.Read(ctx).Person(principalID)
	if fault.CodeOf(err) == fault.NotFound {
		return Person{PrincipalID: principalID}, nil
	}
	return u, err
}

// A UserEdit changes a person; nil leaves something as it is.
type UserEdit struct {
	Role     *Role // the only one afterwards
	Disabled *bool
	Name     *string // to sign in with
	Display  *string
}

// EditUser changes a person. Who is disabled cannot sign in, and has no session any more.
func (s *Service) EditUser(ctx context.Context, id string, e UserEdit) error {
	return s.change(ctx, func(c *change) error {
		p, err := c.user(id)
		if err != nil {
			return err
		}
		name, display := "", ""
		if e.Name != nil {
			name = *e.Name
		}
		if e.Display != nil {
			display = *e.Display
		}
		if err := c.setNames(p, name, display); err != nil {
			return err
		}
		if e.Role != nil {
			if err := c.onlyRole(p, *e.Role); err != nil {
				return err
			}
		}
		if e.Disabled == nil || *e.Disabled == (p.Status == Revoked) {
			return nil
		}
		if !*e.Disabled {
			return c.approve(p)
		}
		return c.revoke(p)
	})
}

// onlyRole gives a person one role and takes the others.
func (c *change) onlyRole(p Principal, role Role) error {
	if _, err := ParseRole(string(role)); err != nil {
		return err
	}
	for _, r := range append([]Role{role}, p.Roles...) {
		if err := c.mayGrant(r); err != nil {
			return err
		}
		if err := c.setRole(p, r, r == role); err != nil {
			return err
		}
	}
	return nil
}

// DeleteUser removes a person.
func (s *Service) DeleteUser(ctx context.Context, id string) error {
	p, err := s.store.Read(ctx).Principal(id)
	if err == nil && p.Kind != User {
		err = fault.New(fault.NotFound, "no user %q", id)
	}
	if err != nil {
		return err
	}
	return s.Delete(ctx, id)
}

// link makes a link and returns its token.
func (c *change) link(principalID string, first bool, life time.Duration) (string, time.Time, error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := hex.EncodeToString(secret[:])
	l := SignInLink{Hash: hashOf(token), PrincipalID: principalID, First: first, CreatedAt: c.now, CreatedBy: c.actor.ID, ExpiresAt: c.now.Add(life)}
	if err := c.AddSignInLink(l); err != nil {
		return "", l.ExpiresAt, err
	}
	return token, l.ExpiresAt, c.audit("create_sign_in_link", "principal", principalID, map[string]any{"expires_at": l.ExpiresAt, "first_owner": first})
}

// ResetUser makes a link that signs a person in, once; opening it takes the password and all passkeys
// from the person and ends all sessions. Until then nothing changes.
func (s *Service) ResetUser(ctx context.Context, id string) (token string, expires time.Time, err error) {
	if err := s.closed(); err != nil {
		return "", expires, err
	}
	err = s.change(ctx, func(c *change) error {
		if _, err := c.user(id); err != nil {
			return err
		}
		if err := c.unscoped(); err != nil {
			return err
		}
		token, expires, err = c.link(id, false, ResetLinkLife)
		return err
	})
	return token, expires, err
}

// FirstLink makes the link that signs the first owner in; "" where there is an owner, and in open mode.
func (s *Service) FirstLink(ctx context.Context) (token string, expires time.Time, err error) {
	if needs, err := s.NeedsOwner(ctx); err != nil || !needs {
		return "", expires, err
	}
	err = s.change(With(ctx, local), func(c *change) error {
		token, expires, err = c.link("", true, OwnerLinkLife)
		return err
	})
	return token, expires, err
}

// OwnerLink makes a link for whoever holds the gateway's own machine: it resets the first owner who is
// a person, or makes one.
func (s *Service) OwnerLink(ctx context.Context) (token string, p Principal, expires time.Time, err error) {
	if err := s.closed(); err != nil {
		return "", p, expires, err
	}
	err = s.change(With(ctx, local), func(c *change) error {
		all, err := c.Principals(PrincipalFilter{Kind: User, Status: Approved, Limit: MaxPage})
		if err != nil {
			return err
		}
		for _, x := range slices.Backward(all) { // the oldest first
			if x.Has(Owner) {
				p = x
				break
			}
		}
		token, expires, err = c.link(p.ID, false, OwnerLinkLife)
		return err
	})
	return token, p, expires, err
}

// OpenLink signs in whoever shows a link, once. An owner that it makes is called as name and display
// say. Faults: NotFound for a link that is none, or not any more; Limited; Invalid; Exists.
func (s *Service) OpenLink(ctx context.Context, token, name, display string, b Browser) (l Login, err error) {
	if err := s.closed(); err != nil {
		return l, err
	}
	if err := s.strangers.Allow(b.Address); err != nil {
		return l, err
	}
	unknown := fault.New(fault.NotFound, "this link is not good, or not any more")
	err = s.change(With(ctx, local), func(c *change) error {
		k, err := c.SignInLink(hashOf(token))
		if fault.CodeOf(err) == fault.NotFound || err == nil && !c.now.Before(k.ExpiresAt) {
			return unknown
		}
		if err != nil {
			return err
		}
		if err := c.DropSignInLink(k.Hash); err != nil {
			return err
		}
		if k.First {
			if has, err := c.HasOwner(); err != nil || has {
				if err == nil {
					err = unknown
				}
				return err
			}
		}
		var p Principal
		if k.PrincipalID == "" {
			if name == "" {
				name = "owner"
			}
			if display == "" {
				display = "Owner"
			}
			if display, err = checkName(display); err != nil {
				return err
			}
			if p, err = c.create(User, display, Key{}, []Role{Owner}); err != nil {
				return err
			}
			if err := c.setNames(p, name, ""); err != nil {
				return err
			}
		} else if p, err = c.reset(k.PrincipalID); err != nil {
			if fault.CodeOf(err) == fault.NotFound {
				err = unknown
			}
			return err
		}
		l, err = c.signIn(p, b, "link")
		return err
	})
	if err != nil && fault.CodeOf(err) == fault.NotFound {
		s.failed(b.Address, unknown)
	}
	return l, err
}

// reset takes all ways to sign in from a person.
func (c *change) reset(id string) (Principal, error) {
	p, err := c.Principal(id)
	if err != nil {
		return p, err
	}
	if err := p.mayCall(); err != nil {
		return p, err
	}
	if u, err := c.Person(id); err == nil {
		u.Password, u.PasswordAt = "", time.Time{}
		if err := c.PutPerson(u); err != nil {
			return p, err
		}
	} else if fault.CodeOf(err) != fault.NotFound {
		return p, err
	}
	keys, err := c.Passkeys(id)
	if err != nil {
		return p, err
	}
	for _, k := range keys {
		if err := c.DeletePasskey(id, k.ID); err != nil {
			return p, err
		}
	}
	if err := c.endSessions(id, ""); err != nil {
		return p, err
	}
	if err := c.endGrants(id, "the person was reset"); err != nil {
		return p, err
	}
	return p, c.audit("reset_user", "principal", id, map[string]any{"passkeys": len(keys)})
}
