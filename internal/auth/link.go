package auth

import (
	"context"
	"crypto/rand"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"coven-gateway/internal/fault"
)

// How a device is linked (http.md 1.3): the device asks for a code, shows it to a person and polls;
// an admin compares code and fingerprint and approves; the device gets a token, once.
const (
	codeAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	codeLength   = 6
	codeLife     = 10 * time.Minute
	// handOutGrace is how long the token can be had again, by a device whose first answer got lost.
	handOutGrace = 30 * time.Second
	// codeMemory is how long a code is remembered after it has expired.
	codeMemory = 24 * time.Hour
	// maxPendingCodes bounds the codes that wait.
	maxPendingCodes = 200
	maxDeviceName   = 100 // characters
)

// LinkStatus is what became of a code.
type LinkStatus string

// The states of a code.
const (
	LinkPending  LinkStatus = "pending"
	LinkApproved LinkStatus = "approved"
	LinkDenied   LinkStatus = "denied"
	LinkExpired  LinkStatus = "expired" // never stored: time makes it so
)

// A LinkCode is a device's wish to be linked.
type LinkCode struct {
	Code        string
	Fingerprint string
	DeviceName  string
	Proved      bool // the device has shown that it holds the key
	Address     string
	Status      LinkStatus
	CreatedAt   time.Time
	ExpiresAt   time.Time
	DecidedAt   time.Time
	DecidedBy   string
	PrincipalID string // once approved
	TokenID     string
	HandedAt    time.Time // when the token was first handed out
}

// at returns the status at a time.
func (l LinkCode) at(now time.Time) LinkStatus {
	if l.Status == LinkPending && !now.Before(l.ExpiresAt) {
		return LinkExpired
	}
	return l.Status
}

// A LinkRequest is what a device says of itself. Proof may be empty.
type LinkRequest struct {
	Fingerprint string
	DeviceName  string
	Proof       Proof
	Address     string
}

// RequestLink makes a code for a device. Whoever has no credentials may call it.
func (s *Service) RequestLink(ctx context.Context, r LinkRequest) (LinkCode, error) {
	if err := s.strangers.Allow(r.Address); err != nil {
		return LinkCode{}, err
	}
	if r.Fingerprint == "" || r.DeviceName == "" {
		return LinkCode{}, fault.New(fault.Invalid, "fingerprint and device_name required")
	}
	fp, err := ParseFingerprint(r.Fingerprint)
	if err != nil {
		return LinkCode{}, fault.Wrap(err, fault.Invalid, "invalid fingerprint format (expected 64 hex chars)")
	}
	name := strings.TrimSpace(r.DeviceName)
	if name == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxDeviceName || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return LinkCode{}, fault.New(fault.Invalid, "device_name must have 1 to %d printable characters", maxDeviceName)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	if r.Proof.given() {
		proof, err := r.Proof.parse(now)
		if err == nil {
			err = proof.verify()
		}
		if err != nil {
			return LinkCode{}, err
		}
		if proof.fingerprint != fp {
			return LinkCode{}, fault.New(fault.Invalid, "fingerprint is not that of the key that has signed")
		}
		if err := s.nonces.accept(proof, 0, now); err != nil {
			return LinkCode{}, err
		}
	}
	l := LinkCode{
		Code: newCode(), Fingerprint: fp, DeviceName: name, Proved: r.Proof.given(), Address: r.Address,
		Status: LinkPending, CreatedAt: now, ExpiresAt: now.Add(codeLife),
	}
	err = s.store.Change(ctx, func(tx Tx) error {
		if err := tx.DropLinkCodes(now.Add(-codeMemory)); err != nil {
			return err
		}
		n, err := tx.PendingLinkCodes(now)
		if err != nil {
			return err
		}
		if n >= maxPendingCodes {
			return fault.TooOften(time.Minute, "%d devices wait to be linked; no more are taken", n)
		}
		for { // a code that was forgotten may come again, one that is remembered must not
			_, err := tx.LinkCode(l.Code)
			if fault.CodeOf(err) == fault.NotFound {
				return tx.AddLinkCode(l)
			}
			if err != nil {
				return err
			}
			l.Code = newCode()
		}
	})
	return l, err
}

func newCode() string {
	b := make([]byte, codeLength)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = codeAlphabet[int(b[i])%len(codeAlphabet)] // 32 letters: no bias
	}
	return string(b)
}

// A LinkAnswer is what a device that polls is told.
type LinkAnswer struct {
	Status      LinkStatus
	PrincipalID string
	Token       string
}

// PollLink answers a device. An approved one gets its token now: it is made when it is fetched and
// kept nowhere. It can be had once, and again for a moment by a device whose answer got lost; later
// the code has expired. A code that nobody was given is a NotFound fault, and too many of those a
// Limited one.
func (s *Service) PollLink(ctx context.Context, code, address string) (LinkAnswer, error) {
	l, err := s.store.Read(ctx).LinkCode(code)
	if fault.CodeOf(err) == fault.NotFound {
		if limited := s.strangers.Allow(address); limited != nil {
			return LinkAnswer{}, limited
		}
		s.failed(address, fault.New(fault.NotFound, "link code not found"))
		return LinkAnswer{}, fault.New(fault.NotFound, "Code not found")
	}
	if err != nil {
		return LinkAnswer{}, err
	}
	switch l.at(time.Now()) {
	case LinkPending:
		return LinkAnswer{Status: LinkPending}, nil
	case LinkApproved:
	default:
		return LinkAnswer{Status: LinkExpired}, nil
	}
	var a LinkAnswer
	// The device acts for the admin who has approved it.
	err = s.change(With(ctx, Principal{ID: l.DecidedBy}), func(c *change) error {
		if l, err = c.LinkCode(code); err != nil {
			return err
		}
		p, err := c.Principal(l.PrincipalID)
		switch {
		case fault.CodeOf(err) == fault.NotFound, err == nil && p.Status != Approved,
			!l.HandedAt.IsZero() && c.now.Sub(l.HandedAt) > handOutGrace,
			l.HandedAt.IsZero() && c.now.Sub(l.DecidedAt) > codeLife:
			a.Status = LinkExpired
			return nil
		case err != nil:
			return err
		}
		a.Status, a.PrincipalID = LinkApproved, l.PrincipalID
		if !l.HandedAt.IsZero() { // the same token again
			t, err := c.Token(l.TokenID)
			if err != nil {
				return err
			}
			a.Token, err = s.signer.sign(t.ID, t.PrincipalID, t.CreatedAt, t.ExpiresAt)
			return err
		}
		shown, t, err := c.issue(TokenRequest{PrincipalID: l.PrincipalID, Life: StandardLife, Name: "link " + l.DeviceName})
		if err != nil {
			return err
		}
		a.Token, l.TokenID, l.HandedAt = shown, t.ID, c.now
		if err := c.UpdateLinkCode(l); err != nil {
			return err
		}
		return c.audit("hand_out_token", "link", l.Code, map[string]any{"principal_id": l.PrincipalID, "token_id": t.ID, "address": address})
	})
	if err != nil {
		return LinkAnswer{}, err
	}
	return a, nil
}

// A Link is a code and what an admin should know before approving it.
type Link struct {
	LinkCode
	Known Principal // the principal whose key it is already; no ID if it is nobody's
}

// Links returns the codes that have not expired, the newest first.
func (s *Service) Links(ctx context.Context) ([]Link, error) {
	read := s.store.Read(ctx)
	codes, err := read.LinkCodes(time.Now(), MaxPage)
	if err != nil {
		return nil, err
	}
	links := make([]Link, len(codes))
	for i, l := range codes {
		links[i].LinkCode = l
		if links[i].Known, err = read.PrincipalByKey(l.Fingerprint); err != nil && fault.CodeOf(err) != fault.NotFound {
			return nil, err
		}
	}
	return links, nil
}

// ApproveLink lets a device in. A key that is somebody's already is only linked when known says so:
// whoever polls the code will speak for that principal. If that principal has a role above member
// or leader, the device must have proved that it holds the key.
//
// Faults: NotFound; Conflict when the code was decided, has expired, or its key is known and known
// is not set; Forbidden.
func (s *Service) ApproveLink(ctx context.Context, code string, known bool) (Link, error) {
	var link Link
	err := s.change(ctx, func(c *change) error {
		l, err := c.undecided(code)
		if err == nil {
			err = c.unscoped()
		}
		if err != nil {
			return err
		}
		p, err := c.PrincipalByKey(l.Fingerprint)
		switch {
		case fault.CodeOf(err) == fault.NotFound:
			p, err = c.create(Client, l.DeviceName, Key{Fingerprint: l.Fingerprint}, []Role{Member})
		case err == nil:
			err = c.mayLink(l, p, known)
		}
		if err != nil {
			return err
		}
		l.Status, l.DecidedAt, l.DecidedBy, l.PrincipalID = LinkApproved, c.now, c.actor.ID, p.ID
		if err := c.UpdateLinkCode(l); err != nil {
			return err
		}
		link = Link{l, p}
		return c.audit("approve_link", "link", code, map[string]any{
			"principal_id": p.ID, "fingerprint": l.Fingerprint, "device_name": l.DeviceName, "proved": l.Proved,
		})
	})
	return link, err
}

// mayLink decides about a key that is somebody's already, and approves a principal that waits.
func (c *change) mayLink(l LinkCode, p Principal, known bool) error {
	if _, err := c.manage(p.ID); err != nil {
		return err
	}
	switch {
	case p.Status == Revoked:
		return fault.New(fault.Conflict, "the key belongs to %s (%s), which was revoked", p.ID, p.Name)
	case p.rank() > Member.rank() && !l.Proved:
		return fault.New(fault.Forbidden, "the key belongs to %s (%s), who is %s, and the device has not proved that it holds it", p.ID, p.Name, p.Roles[0])
	case p.Status == Pending:
		return c.approve(p)
	case !known:
		return fault.New(fault.Conflict, "the key belongs to %s (%s) already; approve it as known if the device is theirs", p.ID, p.Name)
	case len(p.Roles) == 0:
		return c.setRole(p, Member, true)
	}
	return nil
}

// DenyLink refuses a device.
func (s *Service) DenyLink(ctx context.Context, code string) error {
	return s.change(ctx, func(c *change) error {
		l, err := c.undecided(code)
		if err != nil {
			return err
		}
		l.Status, l.DecidedAt, l.DecidedBy = LinkDenied, c.now, c.actor.ID
		if err := c.UpdateLinkCode(l); err != nil {
			return err
		}
		return c.audit("deny_link", "link", code, map[string]any{"fingerprint": l.Fingerprint, "device_name": l.DeviceName})
	})
}

// undecided returns a code that can still be decided.
func (c *change) undecided(code string) (LinkCode, error) {
	l, err := c.LinkCode(code)
	if err != nil {
		return l, fault.Wrap(err, fault.CodeOf(err), "Code not found")
	}
	switch l.at(c.now) {
	case LinkPending:
		return l, nil
	case LinkExpired:
		return l, fault.New(fault.Conflict, "the code has expired")
	}
	return l, fault.New(fault.Conflict, "Code already processed")
}
