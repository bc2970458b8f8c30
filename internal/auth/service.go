package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"coven-gateway/internal/fault"
)

// AutoRegistration says what becomes of a caller whose key is not known.
type AutoRegistration string

// What becomes of unknown keys.
const (
	RegisterApproved AutoRegistration = "approved" // it is a member at once
	RegisterPending  AutoRegistration = "pending"  // it is written down and waits for an administrator
	RegisterNobody   AutoRegistration = "disabled" // it is refused
)

// Options are what a Service needs. All fields are required unless they say otherwise.
type Options struct {
	Store  Store
	Logger *slog.Logger

	Issuer       string   // who issues tokens: the gateway's stable id
	JWTSecrets   [][]byte // the first one signs, all verify; none is open mode
	ServerSecret []byte   // the gateway's own; signs the audit log and, in open mode, tokens
	SecretsKeys  Keyring  // seals stored secrets

	AutoRegistration AutoRegistration
	// Origin is where people reach the pages: scheme, host and, unless it is the usual one, port. It
	// decides about passkeys; "" for none.
	Origin string
	// OAuthIssuer and MCPResource are what MCP clients know the authorization server and the MCP server
	// by: URLs without a slash at the end. Without a resource there is no OAuth.
	OAuthIssuer, MCPResource string

	OpenRemote          bool     // in open mode: serve other machines as well
	DefaultCapabilities []string // that every approved principal has

	RequestsPerSecond        int // of one principal over HTTP; 0 for no limit
	AddressRequestsPerSecond int // of one address without credentials, or with wrong ones; 0 for no limit

	// Ended is called after a principal was revoked or deleted and its calls were ended. It may be
	// called by several goroutines.
	Ended func(principalID string)
	// Disowned is called after an agent id was taken from its owner.
	Disowned func(agentID string)
}

// A Service is everything that concerns who is who.
type Service struct {
	opts     Options
	store    Store
	logger   *slog.Logger
	signer   signer
	auditKey ed25519.PrivateKey
	nonces   nonces

	requests      *Limiter                                     // of principals
	strangers     *Limiter                                     // of addresses, without credentials or with wrong ones
	registrations *Limiter                                     // of addresses, that make principals
	clients       *Limiter                                     // of addresses that register MCP clients
	devices       *Limiter                                     // of principals that register keys
	attempts      struct{ byAddress, byPair, byName *Limiter } // to sign in with a password
	hasher        *hasher
	passkeys      *passkeys

	cache    cache
	sessions sessions

	mu       sync.Mutex
	usage    Usage               // to be written
	failures map[string]*failure // by address, to be written

	stop chan struct{}
	done chan struct{}
}

// Bounds of what the service keeps and writes.
const (
	// flushEvery is how often last uses and failures are written.
	flushEvery = time.Minute
	// maxFailures bounds the addresses whose failures are told apart between two flushes, and so
	// what a flood of wrong credentials adds to the audit log.
	maxFailures = 20
	// maxCause bounds what is written of a failure, in bytes.
	maxCause = 200
	// registrationsPerMinute bounds the principals that one address can make.
	registrationsPerMinute = 30
	// maxPending bounds the principals that wait for an administrator.
	maxPending = 1000
)

// New returns a service. It must be closed, before its store is.
func New(o Options) *Service {
	s := &Service{
		opts: o, store: o.Store, logger: o.Logger,
		auditKey:      ed25519.NewKeyFromSeed(derive(o.ServerSecret, "audit log")),
		nonces:        nonces{keys: make(map[string]map[string]use)},
		requests:      NewLimiter(float64(o.RequestsPerSecond), 2*o.RequestsPerSecond),
		strangers:     NewLimiter(float64(o.AddressRequestsPerSecond), 4*o.AddressRequestsPerSecond),
		registrations: NewLimiter(registrationsPerMinute/60.0, registrationsPerMinute),
		clients:       NewLimiter(1.0/180, registrationsOfClients),
		devices:       NewLimiter(deviceRegistrations/deviceWindow.Seconds(), deviceRegistrations),
		sessions:      sessions{byPrincipal: make(map[string]map[*session]struct{})},
		hasher:        newHasher(), passkeys: newPasskeys(o.Origin),
		usage: newUsage(), failures: make(map[string]*failure),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.attempts.byAddress = NewLimiter(0.5, attemptsOfAddress)
	s.attempts.byPair = NewLimiter(0.1, attemptsOfPair)
	s.attempts.byName = NewLimiter(0.1, attemptsOfName)
	s.cache.clear()
	keys := o.JWTSecrets
	if s.Open() {
		// Nobody checks tokens in open mode, and they are worth nothing once there is a secret.
		keys = [][]byte{derive(o.ServerSecret, "tokens of open mode")}
	}
	s.signer = newSigner(o.Issuer, keys)
	go s.run()
	return s
}

// derive returns 32 bytes that depend on a secret and a purpose.
func derive(secret []byte, purpose string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(purpose))
	return h.Sum(nil)
}

// Open reports whether the gateway asks nobody for credentials.
func (s *Service) Open() bool { return len(s.opts.JWTSecrets) == 0 }

func (s *Service) auditPublic() ed25519.PublicKey { return s.auditKey.Public().(ed25519.PublicKey) }

// run writes what is not written at once. It belongs to the service and ends with Close.
func (s *Service) run() {
	defer close(s.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.flush(context.Background()); err != nil {
				s.logger.Error("last uses and failed logins could not be written", "error", err)
			}
		case <-s.stop:
			return
		}
	}
}

// Close writes what is left to write.
func (s *Service) Close() error {
	close(s.stop)
	<-s.done
	return s.flush(context.Background())
}

// A failure is how often an address failed to log in, and how the last time.
type failure struct {
	count int
	cause string
	since time.Time
}

// otherAddresses is where failures are counted when there are too many addresses.
const otherAddresses = "others"

func (s *Service) failed(address string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failures[address]
	if f == nil {
		if len(s.failures) >= maxFailures {
			address = otherAddresses
			f = s.failures[address]
		}
		if f == nil {
			f = &failure{since: time.Now()}
			s.failures[address] = f
		}
	}
	f.count++
	if f.cause = fault.Message(err); len(f.cause) > maxCause { // it may quote the caller
		f.cause = strings.ToValidUTF8(f.cause[:maxCause], "")
	}
}

func newUsage() Usage {
	return Usage{make(map[string]time.Time), make(map[string]time.Time), make(map[string]time.Time)}
}

// touch notes that a caller is here.
func (s *Service) touch(p Principal) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage.Principals[p.ID] = now
	switch p.Credential.Kind {
	case SSHKey:
		s.usage.Keys[p.Credential.ID] = now
	case JWT, APIToken, Session:
		s.usage.Tokens[p.Credential.ID] = now
	}
}

// flush writes last uses, and failed logins as one record for each address.
func (s *Service) flush(ctx context.Context) error {
	s.mu.Lock()
	usage, failures := s.usage, s.failures
	s.usage, s.failures = newUsage(), make(map[string]*failure)
	s.mu.Unlock()
	if len(usage.Principals) == 0 && len(failures) == 0 {
		return nil
	}
	return s.store.Change(ctx, func(tx Tx) error {
		for address, f := range failures {
			r := record("", "login_failed", "address", address, map[string]any{"count": f.count, "last": f.cause, "since": f.since.UTC()})
			if err := s.audit(tx, r); err != nil {
				return err
			}
		}
		return tx.Touch(usage)
	})
}

// record makes a record of something that happens now.
func record(actor, action, targetType, target string, detail map[string]any) AuditRecord {
	if detail == nil {
		detail = map[string]any{}
	}
	b, err := json.Marshal(detail)
	if err != nil {
		panic(err) // a map of ours always encodes
	}
	return AuditRecord{
		At: time.Now().UTC().Truncate(time.Microsecond), Actor: actor, Action: action, TargetType: targetType, Target: target, Detail: string(b),
	}
}

// NewRecord makes a record of what an actor does now.
func NewRecord(actor Principal, action, targetType, target string, detail map[string]any) AuditRecord {
	return record(actor.ID, action, targetType, target, detail)
}

// Audit writes a record of a change that is not about rights itself, in the change's transaction.
func (s *Service) Audit(tx Tx, r AuditRecord) error { return s.audit(tx, r) }

// Note writes a record of something that changed nothing in the store.
func (s *Service) Note(ctx context.Context, r AuditRecord) error {
	return s.store.Change(ctx, func(tx Tx) error { return s.audit(tx, r) })
}

// audit writes a record and signs the log as it is then, unless it is not as it was signed before:
// a new signature would cover up what was done to it.
func (s *Service) audit(tx Tx, r AuditRecord) error {
	last, err := tx.LastCheckpoint()
	if err != nil {
		return err
	}
	if r, err = tx.AppendAudit(r); err != nil {
		return err
	}
	if !last.precedes(s.auditPublic(), r) {
		s.logger.Error("the audit log is not as it was signed: it is not signed any more", "record", r.Seq)
		return nil
	}
	c := Checkpoint{Seq: r.Seq, Hash: r.Hash, At: r.At}.sign(s.auditKey)
	return tx.PutCheckpoint(c, (r.Seq-1)%checkpointEvery == 0)
}

// A change is a change of rights under way.
type change struct {
	Tx
	s     *Service
	actor Principal
	now   time.Time
	ends  []string // principals whose calls have to end
	drops []string // agent ids whose streams have to end
	spent []string // keys and tokens whose calls have to end
}

// audit records what the change does.
func (c *change) audit(action, targetType, target string, detail map[string]any) error {
	return c.s.audit(c.Tx, record(c.actor.ID, action, targetType, target, detail))
}

// manage returns a principal that the actor may change: one of no higher rank.
func (c *change) manage(id string) (Principal, error) {
	if id == "" {
		return Principal{}, fault.New(fault.Invalid, "principal_id required")
	}
	p, err := c.Principal(id)
	if err != nil {
		return p, err
	}
	if p.rank() > c.actor.rank() {
		return p, fault.New(fault.Forbidden, "%s has the role %s: only an %s may do this", p.ID, p.Roles[0], p.Roles[0])
	}
	return p, nil
}

// change runs op in one transaction with the records it makes. Then the rights that are cached are
// forgotten, and the calls of those who have lost theirs ended.
func (s *Service) change(ctx context.Context, op func(*change) error) error {
	actor, err := From(ctx)
	if err != nil {
		return err
	}
	c := &change{s: s, actor: actor, now: time.Now().UTC().Truncate(time.Microsecond)}
	err = s.store.Change(ctx, func(tx Tx) error {
		c.Tx, c.ends, c.drops, c.spent = tx, nil, nil, nil
		return op(c)
	})
	if err != nil {
		return err
	}
	s.cache.forget()
	for _, id := range c.spent {
		s.sessions.endCredential(id, fault.New(fault.Unauthenticated, "the credential was revoked"))
	}
	for _, id := range c.ends {
		s.sessions.end(id, fault.New(fault.Forbidden, "principal has been revoked"))
		s.opts.Ended(id)
	}
	for _, id := range c.drops {
		s.opts.Disowned(id)
	}
	return nil
}

// loopback reports whether an address is one of this machine, or an in-process connection.
func loopback(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address == "bufconn" || address == "pipe" || address == "@"
	}
	return ip.Unmap().IsLoopback()
}

// Address returns the address of a peer, a host and port, without the port.
func Address(peer string) string {
	if a, err := netip.ParseAddrPort(peer); err == nil {
		return a.Addr().Unmap().WithZone("").String()
	}
	return strings.Clone(peer)
}
