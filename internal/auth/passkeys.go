package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
	"golang.org/x/crypto/chacha20poly1305"

	"coven-gateway/internal/fault"
)

// Bounds of passkeys.
const (
	maxPasskeys  = 20              // of one person
	MaxPasskey   = 32 << 10        // bytes of what a browser sends
	CeremonyLife = 5 * time.Minute // from the challenge to the answer
	// maxAnswered bounds the challenges whose answers are remembered, so that none is good twice. Only
	// answers that are good count.
	maxAnswered = 10_000
)

// A Passkey is a WebAuthn credential of a person.
type Passkey struct {
	ID             string
	PrincipalID    string
	CredentialID   []byte
	PublicKey      []byte // COSE
	Name           string // for people
	AAGUID         []byte
	Transports     []string
	SignCount      uint32
	BackupEligible bool
	BackedUp       bool
	CreatedAt      time.Time
	LastUsed       time.Time // zero if never
}

// Purposes of ceremonies.
const (
	toSignIn   = "sign in"
	toRegister = "register"
)

// A ceremony is a challenge that waits for its answer. The gateway keeps nothing of it: the browser
// brings it back, sealed, in a cookie.
type ceremony struct {
	Purpose string
	Expires time.Time
	Data    webauthn.SessionData // says who registers
}

// passkeys does the ceremonies of one relying party.
type passkeys struct {
	party *webauthn.WebAuthn // nil where there can be none
	why   string             // there can be none
	key   []byte             // seals ceremonies; of this process

	mu       sync.Mutex
	answered map[string]time.Time // challenges, until they expire
}

// newPasskeys takes the origin at which people reach the pages.
func newPasskeys(origin string) *passkeys {
	x := &passkeys{key: make([]byte, chacha20poly1305.KeySize), answered: make(map[string]time.Time)}
	_, _ = rand.Read(x.key) // never fails
	_, host, _ := strings.Cut(origin, "://")
	name := host
	if at, err := netip.ParseAddrPort(host); err == nil {
		name = at.Addr().String()
	} else if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || name == "" {
		x.why = "passkeys need a name, not an address: set webadmin.base_url to one"
		return x
	}
	party, err := webauthn.New(&webauthn.Config{
		RPID: name, RPDisplayName: "coven", RPOrigins: []string{origin}, AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(), UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		x.why = "there can be no passkeys at " + origin
		return x
	}
	x.party = party
	return x
}

// Passkeys reports whether people can have passkeys here.
func (s *Service) Passkeys() bool { return s.passkeys.party != nil && !s.Open() }

func (s *Service) mayHavePasskeys() error {
	if err := s.closed(); err != nil {
		return err
	}
	if s.passkeys.party == nil {
		return fault.New(fault.Conflict, "%s", s.passkeys.why)
	}
	return nil
}

// seal returns a ceremony for the browser's cookie.
func (x *passkeys) seal(c ceremony) (string, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	aead, err := chacha20poly1305.NewX(x.key)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, nil)), nil
}

var errCeremony = fault.New(fault.Invalid, "this passkey answers no question of this browser, or too late: begin again")

// open returns what was sealed, for a purpose.
func (x *passkeys) open(sealed, purpose string) (c ceremony, err error) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	aead, aerr := chacha20poly1305.NewX(x.key)
	if err = errors.Join(err, aerr); err != nil || len(b) < aead.NonceSize() {
		return c, errCeremony
	}
	plain, err := aead.Open(nil, b[:aead.NonceSize()], b[aead.NonceSize():], nil)
	if err != nil || json.Unmarshal(plain, &c) != nil || c.Purpose != purpose || !time.Now().Before(c.Expires) {
		return c, errCeremony
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.answered[c.Data.Challenge]; ok {
		return c, errCeremony
	}
	return c, nil
}

// spend makes a challenge whose answer was good worthless.
func (x *passkeys) spend(c ceremony) error {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.answered[c.Data.Challenge]; ok {
		return errCeremony
	}
	if len(x.answered) >= maxAnswered {
		for k, until := range x.answered {
			if !now.Before(until) {
				delete(x.answered, k)
			}
		}
	}
	if len(x.answered) >= maxAnswered {
		return fault.TooOften(time.Minute, "too many people sign in at this moment; try again")
	}
	x.answered[c.Data.Challenge] = c.Expires
	return nil
}

// A passkeyHolder is a person as the library sees one.
type passkeyHolder struct {
	Person
	display string
	keys    []Passkey
}

// WebAuthnID implements webauthn.User.
func (h passkeyHolder) WebAuthnID() []byte { return h.Handle }

// WebAuthnName implements webauthn.User.
func (h passkeyHolder) WebAuthnName() string { return h.Name }

// WebAuthnDisplayName implements webauthn.User.
func (h passkeyHolder) WebAuthnDisplayName() string { return h.display }

// WebAuthnCredentials implements webauthn.User.
func (h passkeyHolder) WebAuthnCredentials() []webauthn.Credential {
	all := make([]webauthn.Credential, len(h.keys))
	for i, k := range h.keys {
		all[i] = webauthn.Credential{
			ID: k.CredentialID, PublicKey: k.PublicKey,
			Flags:         webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: k.BackupEligible, BackupState: k.BackedUp},
			Authenticator: webauthn.Authenticator{AAGUID: k.AAGUID, SignCount: k.SignCount},
		}
		for _, t := range k.Transports {
			all[i].Transport = append(all[i].Transport, protocol.AuthenticatorTransport(t))
		}
	}
	return all
}

// passkeysOf returns a person with its passkeys.
func passkeysOf(read Reader, u Person) (passkeyHolder, error) {
	p, err := read.Principal(u.PrincipalID)
	if err != nil {
		return passkeyHolder{}, err
	}
	keys, err := read.Passkeys(u.PrincipalID)
	return passkeyHolder{u, p.Name, keys}, err
}

// BeginPasskey returns a challenge for the caller's new passkey, as PublicKeyCredentialCreationOptions,
// and what the cookie of its browser must hold until the answer comes. Faults: Conflict.
func (s *Service) BeginPasskey(ctx context.Context) (options any, cookie string, err error) {
	if err := s.mayHavePasskeys(); err != nil {
		return nil, "", err
	}
	actor, err := From(ctx)
	if err != nil {
		return nil, "", err
	}
	read := s.store.Read(ctx)
	u, err := personOf(read, actor)
	if err != nil {
		return nil, "", err
	}
	h, err := passkeysOf(read, u)
	if err != nil {
		return nil, "", err
	}
	if len(h.keys) >= maxPasskeys {
		return nil, "", fault.New(fault.Conflict, "a person must not have more than %d passkeys", maxPasskeys)
	}
	known := make([]protocol.CredentialDescriptor, len(h.keys))
	for i, k := range h.WebAuthnCredentials() {
		known[i] = k.Descriptor()
	}
	creation, data, err := s.passkeys.party.BeginRegistration(h, webauthn.WithExclusions(known), webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return nil, "", err
	}
	cookie, err = s.passkeys.seal(ceremony{toRegister, time.Now().Add(CeremonyLife), *data})
	return creation, cookie, err
}

// AddPasskey ends the ceremony that BeginPasskey has begun. Faults: Invalid, Exists, Conflict.
func (s *Service) AddPasskey(ctx context.Context, cookie, name string, answer []byte) (k Passkey, err error) {
	if err := s.mayHavePasskeys(); err != nil {
		return k, err
	}
	actor, err := From(ctx)
	if err != nil {
		return k, err
	}
	if name == "" {
		name = "passkey"
	}
	if name, err = checkName(name); err != nil {
		return k, fault.New(fault.Invalid, "name: %s", fault.Message(err))
	}
	err = s.change(ctx, func(c *change) error {
		u, err := personOf(c, c.actor)
		if err != nil {
			return err
		}
		cer, err := s.passkeys.open(cookie, toRegister)
		if err != nil {
			return err
		}
		h, err := passkeysOf(c, u)
		if err != nil {
			return err
		}
		if len(h.keys) >= maxPasskeys {
			return fault.New(fault.Conflict, "a person must not have more than %d passkeys", maxPasskeys)
		}
		parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
		if err != nil {
			return badPasskey(err)
		}
		made, err := s.passkeys.party.CreateCredential(h, cer.Data, parsed)
		if err != nil {
			return badPasskey(err)
		}
		if err := s.passkeys.spend(cer); err != nil {
			return err
		}
		k = Passkey{
			ID: uuid.NewString(), PrincipalID: actor.ID, CredentialID: made.ID, PublicKey: made.PublicKey, Name: name, AAGUID: made.Authenticator.AAGUID,
			SignCount: made.Authenticator.SignCount, BackupEligible: made.Flags.BackupEligible, BackedUp: made.Flags.BackupState, CreatedAt: c.now,
		}
		for _, t := range made.Transport[:min(len(made.Transport), 10)] {
			if w := string(t); len(w) <= 20 && !strings.ContainsAny(w, " \t\n") {
				k.Transports = append(k.Transports, w)
			}
		}
		if err := c.AddPasskey(k); err != nil {
			return err
		}
		return c.audit("add_passkey", "principal", actor.ID, map[string]any{"passkey_id": k.ID, "name": name, "backup_eligible": k.BackupEligible})
	})
	return k, err
}

// badPasskey keeps what is wrong for the log.
func badPasskey(err error) error {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		err = errors.New(e.Error() + ": " + e.Details + ": " + e.DevInfo)
	}
	return fault.Wrap(err, fault.Invalid, "the passkey could not be verified")
}

// BeginSignIn returns a challenge for any passkey, as PublicKeyCredentialRequestOptions, and what the
// cookie of the browser must hold until the answer comes.
func (s *Service) BeginSignIn(address string) (options any, cookie string, err error) {
	if err := s.mayHavePasskeys(); err != nil {
		return nil, "", err
	}
	if err := s.strangers.Allow(address); err != nil {
		return nil, "", err
	}
	assertion, data, err := s.passkeys.party.BeginDiscoverableLogin()
	if err != nil {
		return nil, "", err
	}
	cookie, err = s.passkeys.seal(ceremony{toSignIn, time.Now().Add(CeremonyLife), *data})
	return assertion, cookie, err
}

// errPasskey does not say what was wrong.
func errPasskey(err error) error {
	return fault.Wrap(err, fault.Unauthenticated, "this passkey does not sign in here")
}

// shown verifies the answer of a passkey and returns whose it is. The challenge is spent then.
func (s *Service) shown(read Reader, cookie string, answer []byte) (key Passkey, count uint32, backedUp bool, err error) {
	cer, err := s.passkeys.open(cookie, toSignIn)
	if err != nil {
		return key, 0, false, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return key, 0, false, badPasskey(err)
	}
	var h passkeyHolder
	_, used, err := s.passkeys.party.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		u, err := read.PersonByHandle(handle)
		if err != nil {
			return nil, err
		}
		h, err = passkeysOf(read, u)
		return h, err
	}, cer.Data, parsed)
	if err != nil {
		return key, 0, false, errPasskey(badPasskey(err))
	}
	for _, k := range h.keys {
		if string(k.CredentialID) == string(used.ID) {
			key = k
		}
	}
	return key, parsed.Response.AuthenticatorData.Counter, used.Flags.BackupState, s.passkeys.spend(cer)
}

// usePasskey notes a use. A counter that has not grown says that there are two of what must be one.
func (c *change) usePasskey(k Passkey, count uint32, backedUp bool) error {
	ok, err := c.UsePasskey(k.ID, count, backedUp, c.now)
	if err == nil && !ok {
		err = errPasskey(errors.New("its counter has not grown: it may have been copied"))
	}
	return err
}

// SignInWithPasskey ends the ceremony that BeginSignIn has begun, and opens a session. Faults: Invalid
// for an answer that is none; Unauthenticated; Forbidden for one who may not call; Conflict.
func (s *Service) SignInWithPasskey(ctx context.Context, cookie string, answer []byte, b Browser) (l Login, err error) {
	if err := s.mayHavePasskeys(); err != nil {
		return l, err
	}
	if err := s.strangers.Allow(b.Address); err != nil {
		return l, err
	}
	key, count, backedUp, err := s.shown(s.store.Read(ctx), cookie, answer)
	if err == nil {
		err = s.change(With(ctx, Principal{ID: key.PrincipalID}), func(c *change) error {
			if err := c.usePasskey(key, count, backedUp); err != nil {
				return err
			}
			p, err := c.Principal(key.PrincipalID)
			if err != nil {
				return gone(err)
			}
			l, err = c.signIn(p, b, "passkey")
			return err
		})
	}
	if fault.CodeOf(err) == fault.Unauthenticated {
		s.failed(b.Address, err)
	}
	return l, err
}

// ProvePasskey has the caller show again who it is, with a passkey of its own.
func (s *Service) ProvePasskey(ctx context.Context, cookie string, answer []byte) error {
	if err := s.mayHavePasskeys(); err != nil {
		return err
	}
	actor, err := From(ctx)
	if err != nil {
		return err
	}
	if actor.Credential.Kind != Session {
		return fault.New(fault.Conflict, "this is for people who have signed in with a browser")
	}
	key, count, backedUp, err := s.shown(s.store.Read(ctx), cookie, answer)
	if err == nil && key.PrincipalID != actor.ID {
		err = errPasskey(errors.New("it is somebody else's"))
	}
	if err != nil {
		if fault.CodeOf(err) == fault.Unauthenticated { // who calls is known
			s.failed(actor.Credential.Address, err)
			err = fault.Wrap(err, fault.Forbidden, "%s", fault.Message(err))
		}
		return err
	}
	return s.change(ctx, func(c *change) error {
		if err := c.usePasskey(key, count, backedUp); err != nil {
			return fault.Wrap(err, fault.Forbidden, "%s", fault.Message(err))
		}
		return c.prove("passkey")
	})
}

// OwnPasskeys returns the passkeys of a principal, the oldest first.
func (s *Service) OwnPasskeys(ctx context.Context, principalID string) ([]Passkey, error) {
	return s.store.Read(ctx).Passkeys(principalID)
}

// RenamePasskey changes the name of one of the caller's passkeys.
func (s *Service) RenamePasskey(ctx context.Context, id, name string) error {
	name, err := checkName(name)
	if err != nil {
		return fault.New(fault.Invalid, "name: %s", fault.Message(err))
	}
	return s.change(ctx, func(c *change) error {
		if err := c.actor.InBrowser(); err != nil {
			return err
		}
		if err := c.RenamePasskey(c.actor.ID, id, name); err != nil {
			return err
		}
		return c.audit("rename_passkey", "principal", c.actor.ID, map[string]any{"passkey_id": id, "name": name})
	})
}

// RemovePasskey takes a passkey from the caller, unless it is the last way in.
func (s *Service) RemovePasskey(ctx context.Context, id string) error {
	return s.change(ctx, func(c *change) error {
		u, err := personOf(c, c.actor)
		if err != nil {
			return err
		}
		if err := c.DeletePasskey(c.actor.ID, id); err != nil {
			return err
		}
		if u.Passkeys == 1 && u.Password == "" {
			return fault.New(fault.Conflict, "this is your last way in: set a password or add another passkey first")
		}
		return c.audit("remove_passkey", "principal", c.actor.ID, map[string]any{"passkey_id": id})
	})
}
