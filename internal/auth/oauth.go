package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
)

// Bounds of OAuth.
const (
	// Lives of what a client shows. A refresh token is good once; the one that replaces it lives as long.
	OAuthCodeLife    = time.Minute
	OAuthAccessLife  = time.Hour
	OAuthRefreshLife = 30 * 24 * time.Hour

	MaxRedirects = 10  // of a client
	MaxRedirect  = 500 // bytes of one
	MaxState     = 2000
	MaxGrants    = 100 // of a principal; the oldest ends

	maxClients     = 1000
	clientPatience = 24 * time.Hour // how long a client is kept to which nothing is granted
	maxSpent       = 50             // refresh tokens of a grant that are recognized when they are used again
	verifierMin    = 43             // characters (RFC 7636)
	verifierMax    = 128

	registrationsOfClients = 20 // of an address, at once; then one every 3 minutes
)

// oauthPrefix marks what the authorization server gives out.
const oauthPrefix = "coven_mcp_"

// The scopes of OAuth. They are good for the MCP server only.
const (
	ScopeTools     Scope = "tools"     // list and call tools other than agents
	ScopeAgents    Scope = "agents"    // ask agents
	ScopeResources Scope = "resources" // read threads and notes
)

// OAuthScopes are all of them.
var OAuthScopes = []Scope{ScopeTools, ScopeAgents, ScopeResources}

// An OAuthError is a refusal with the code that OAuth has for it, about which a client may be told.
type OAuthError struct {
	Word string // of RFC 6749, 7591 or 8707
	Err  error
}

// Error is the refusal for the log.
func (e *OAuthError) Error() string { return e.Word + ": " + e.Err.Error() }

// Unwrap returns the fault.
func (e *OAuthError) Unwrap() error { return e.Err }

func oauthFault(word, format string, args ...any) error {
	return &OAuthError{word, fault.New(fault.Invalid, format, args...)}
}

// An OAuthClient is a program that has registered itself. It has no secret, and its name is what it says.
type OAuthClient struct {
	ID        string
	Name      string
	Redirects []string
	Address   string // where it was registered from
	CreatedAt time.Time
}

// An OAuthGrant is what a person lets a client do.
type OAuthGrant struct {
	ID          string
	PrincipalID string
	ClientID    string
	ClientName  string
	Redirect    string // where the code went
	Scopes      []Scope
	Resource    string // what its tokens are for
	CreatedAt   time.Time
	LastUsed    time.Time // when it has last got a token; zero before the code was shown
	ExpiresAt   time.Time
	RevokedAt   time.Time // zero while it is good
}

func (g OAuthGrant) good() error {
	switch {
	case !g.RevokedAt.IsZero():
		return badToken(errors.New("the grant was revoked"))
	case !time.Now().Before(g.ExpiresAt):
		return badToken(errors.New("the grant has expired"))
	}
	return nil
}

// OAuthKind is what a token of a grant is good for.
type OAuthKind string

// The kinds of tokens of a grant.
const (
	OAuthCode    OAuthKind = "code"    // for the first tokens
	OAuthAccess  OAuthKind = "access"  // for requests
	OAuthRefresh OAuthKind = "refresh" // for the next tokens
)

// An OAuthToken is a token of a grant, without what makes it one.
type OAuthToken struct {
	Hash      []byte
	GrantID   string
	Kind      OAuthKind
	Challenge string // of a code
	ExpiresAt time.Time
	SpentAt   time.Time // of a code or refresh token; zero before it was used
}

// access is an access token with its grant, as it is cached.
type access struct {
	OAuthToken
	grant OAuthGrant
}

// OAuth reports whether the gateway lets people grant rights to MCP clients: not in open mode.
func (s *Service) OAuth() bool { return !s.Open() && s.opts.MCPResource != "" }

// OAuthIssuer is the identifier of the authorization server.
func (s *Service) OAuthIssuer() string { return s.opts.OAuthIssuer }

// MCPResource is the identifier of the MCP server.
func (s *Service) MCPResource() string { return s.opts.MCPResource }

// harmful are schemes that a browser would run or show itself.
var harmful = []string{"javascript", "data", "vbscript", "file", "about", "blob", "filesystem", "view-source", "ws", "wss", "ftp", "http"}

// checkRedirect returns why answers cannot go to an address: it must be https, this machine's own http,
// or of a scheme that belongs to a program.
func checkRedirect(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil || len(uri) > MaxRedirect || !u.IsAbs() || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' }):
		return oauthFault("invalid_redirect_uri", "a redirect URI must be absolute, printable and not longer than %d bytes", MaxRedirect)
	case u.Fragment != "" || strings.Contains(uri, "#") || u.User != nil:
		return oauthFault("invalid_redirect_uri", "a redirect URI has neither a fragment nor a user")
	case u.Scheme == "https" && u.Host != "", u.Scheme == "http" && onLoopback(u):
		return nil
	case slices.Contains(harmful, u.Scheme) || u.Scheme == "https":
		return oauthFault("invalid_redirect_uri", "a redirect URI must be https, http on a loopback address, or of a program's own scheme")
	}
	return nil
}

func onLoopback(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

// sameRedirect reports whether an address is the registered one. Only the port of a loopback address
// may be another one (RFC 8252, 7.3).
func sameRedirect(registered, asked string) bool {
	if registered == asked {
		return true
	}
	r, err := url.Parse(registered)
	a, err2 := url.Parse(asked)
	if err != nil || err2 != nil || r.Scheme != "http" || !onLoopback(r) || a.User != nil || checkRedirect(asked) != nil {
		return false
	}
	withoutPort := func(u *url.URL, raw string) string {
		_, after, _ := strings.Cut(raw, u.Host)
		return u.Scheme + "://" + u.Hostname() + after
	}
	return withoutPort(r, registered) == withoutPort(a, asked)
}

// RegisterOAuthClient takes a program down that wants to ask people for rights. Anybody may. Faults: an
// OAuthError; Limited.
func (s *Service) RegisterOAuthClient(ctx context.Context, name string, redirects []string, address string) (c OAuthClient, err error) {
	if err := s.clients.Allow(network(address)); err != nil {
		return c, err
	}
	if name = strings.TrimSpace(name); !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || utf8.RuneCountInString(name) > MaxName {
		return c, oauthFault("invalid_client_metadata", "client_name must be printable and have at most %d characters", MaxName)
	}
	if len(redirects) == 0 || len(redirects) > MaxRedirects {
		return c, oauthFault("invalid_redirect_uri", "redirect_uris must have 1 to %d entries; this one has %d", MaxRedirects, len(redirects))
	}
	for _, r := range redirects {
		if err := checkRedirect(r); err != nil {
			return c, err
		}
	}
	err = s.change(With(ctx, local), func(x *change) error {
		if err := x.DropOAuth(x.now.Add(-clientPatience), x.now.Add(-clientPatience)); err != nil {
			return err
		}
		n, err := x.CountOAuthClients()
		if err != nil {
			return err
		}
		if n >= maxClients {
			return fault.TooOften(time.Hour, "%d clients are registered; no more are taken", n)
		}
		c = OAuthClient{ID: uuid.NewString(), Name: cmp.Or(name, "a program without a name"), Redirects: redirects, Address: address, CreatedAt: x.now}
		if err := x.AddOAuthClient(c); err != nil {
			return err
		}
		x.actor = Principal{}
		return x.audit("register_oauth_client", "oauth_client", c.ID, map[string]any{"name": c.Name, "redirect_uris": redirects, "address": address})
	})
	return c, err
}

// An OAuthRequest asks a person for rights, as RFC 6749, 7636 and 8707 have it.
type OAuthRequest struct {
	ClientID, Redirect, ResponseType, Scope, State, Challenge, Method, Resource string
}

// CheckOAuth returns who asks, and for which scopes. A fault that is no OAuthError says that the
// redirect cannot be trusted, so the client must not be told. Faults: Invalid; an OAuthError.
func (s *Service) CheckOAuth(ctx context.Context, r OAuthRequest) (c OAuthClient, scopes []Scope, err error) {
	c, err = s.store.Read(ctx).OAuthClient(r.ClientID)
	if fault.CodeOf(err) == fault.NotFound {
		return c, nil, fault.New(fault.Invalid, "client_id is not that of a registered client, or not any more")
	}
	if err != nil {
		return c, nil, err
	}
	if !slices.ContainsFunc(c.Redirects, func(x string) bool { return sameRedirect(x, r.Redirect) }) {
		return c, nil, fault.New(fault.Invalid, "redirect_uri is not one that the client has registered")
	}
	digest, err := base64.RawURLEncoding.DecodeString(r.Challenge)
	switch {
	case len(r.State) > MaxState:
		return c, nil, fault.New(fault.Invalid, "state must not be longer than %d bytes; this one has %d", MaxState, len(r.State))
	case r.ResponseType != "code":
		return c, nil, oauthFault("unsupported_response_type", "response_type must be code")
	case r.Method != "S256" || err != nil || len(digest) != sha256.Size:
		return c, nil, oauthFault("invalid_request", "code_challenge is required, with code_challenge_method S256")
	case r.Resource != "" && !s.isResource(r.Resource):
		return c, nil, oauthFault("invalid_target", "resource must be %s", s.opts.MCPResource)
	}
	if scopes = oauthScopes(r.Scope); len(scopes) == 0 {
		return c, nil, oauthFault("invalid_scope", "scope must have some of tools, agents and resources")
	}
	return c, scopes, nil
}

// isResource reports whether an identifier is that of the MCP server. Scheme and host are compared
// without regard to case, and a slash at the end makes no difference.
func (s *Service) isResource(id string) bool {
	normal := func(id string) string {
		u, err := url.Parse(id)
		if err != nil || u.Fragment != "" {
			return ""
		}
		u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
		if host, port, err := net.SplitHostPort(u.Host); err == nil && (u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80") {
			u.Host = host
		}
		return strings.TrimRight(u.String(), "/")
	}
	return normal(id) != "" && normal(id) == normal(s.opts.MCPResource)
}

// oauthScopes are those that are asked for and known; all where nothing is asked for.
func oauthScopes(asked string) []Scope {
	words := strings.Fields(asked)
	if len(words) == 0 {
		return slices.Clone(OAuthScopes)
	}
	var scopes []Scope
	for _, s := range OAuthScopes {
		if slices.Contains(words, string(s)) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

// ConsentOAuth grants a client some of the scopes that it asks the caller for, and returns the code for
// it. The caller is a person with a session. Faults: as CheckOAuth; Conflict for others; Invalid for
// scopes that were not asked for; Forbidden for a session that has scopes itself; Reauthenticate for one
// that is not fresh.
func (s *Service) ConsentOAuth(ctx context.Context, r OAuthRequest, scopes []Scope) (code string, err error) {
	c, asked, err := s.CheckOAuth(ctx, r)
	if err != nil {
		return "", err
	}
	if scopes == nil {
		scopes = asked
	}
	scopes = slices.DeleteFunc(slices.Clone(OAuthScopes), func(x Scope) bool { return !slices.Contains(scopes, x) })
	if len(scopes) == 0 || slices.ContainsFunc(scopes, func(x Scope) bool { return !slices.Contains(asked, x) }) {
		return "", fault.New(fault.Invalid, "scopes must be some of those that the client asks for")
	}
	err = s.change(ctx, func(x *change) error {
		if err := x.actor.InBrowser(); err != nil {
			return err
		}
		if err := x.actor.Fresh(); err != nil {
			return err
		}
		if err := x.unscoped(); err != nil {
			return err
		}
		if err := x.DropOAuth(x.now.Add(-clientPatience), x.now.Add(-clientPatience)); err != nil {
			return err
		}
		open, err := x.OAuthGrants(x.actor.ID, x.now, MaxGrants)
		if err != nil {
			return err
		}
		for _, g := range open[min(len(open), MaxGrants-1):] {
			if err := x.endGrant(g, "there are too many"); err != nil {
				return err
			}
		}
		g := OAuthGrant{
			ID: uuid.NewString(), PrincipalID: x.actor.ID, ClientID: c.ID, Redirect: r.Redirect, Scopes: scopes,
			Resource: s.opts.MCPResource, CreatedAt: x.now, ExpiresAt: x.now.Add(OAuthCodeLife),
		}
		if err := x.AddOAuthGrant(g); err != nil {
			return err
		}
		if code, err = x.oauthToken(g, OAuthCode, OAuthCodeLife, r.Challenge); err != nil {
			return err
		}
		return x.audit("grant_oauth", "oauth_grant", g.ID, map[string]any{"client_id": c.ID, "client_name": c.Name, "redirect_uri": r.Redirect, "scopes": scopes})
	})
	return code, err
}

// RefuseOAuth notes that the caller does not let a client have what it asks for.
func (s *Service) RefuseOAuth(ctx context.Context, r OAuthRequest) error {
	c, _, err := s.CheckOAuth(ctx, r)
	if err != nil {
		return err
	}
	return s.change(ctx, func(x *change) error {
		if err := x.actor.InBrowser(); err != nil {
			return err
		}
		return x.audit("refuse_oauth", "oauth_client", c.ID, map[string]any{"client_name": c.Name})
	})
}

// oauthToken makes a token of a grant and returns what is shown.
func (c *change) oauthToken(g OAuthGrant, kind OAuthKind, life time.Duration, challenge string) (string, error) {
	shown := oauthPrefix + rand.Text() + rand.Text()
	return shown, c.AddOAuthToken(OAuthToken{Hash: hashOf(shown), GrantID: g.ID, Kind: kind, Challenge: challenge, ExpiresAt: c.now.Add(life)})
}

// endGrant ends a grant, its tokens, and the calls that are made with them.
func (c *change) endGrant(g OAuthGrant, cause string) error {
	if !g.RevokedAt.IsZero() {
		return nil
	}
	if err := c.EndOAuthGrant(g.ID, c.now); err != nil {
		return err
	}
	c.spent = append(c.spent, g.ID)
	return c.audit("revoke_oauth_grant", "oauth_grant", g.ID, map[string]any{"principal_id": g.PrincipalID, "client_name": g.ClientName, "cause": cause})
}

// endGrants ends all grants of a principal.
func (c *change) endGrants(principalID, cause string) error {
	for {
		open, err := c.OAuthGrants(principalID, c.now, MaxGrants)
		if err != nil || len(open) == 0 {
			return err
		}
		for _, g := range open {
			if err := c.endGrant(g, cause); err != nil {
				return err
			}
		}
	}
}

// An OAuthExchange asks for tokens: with a code and its verifier, or with a refresh token.
type OAuthExchange struct {
	Kind     OAuthKind // OAuthCode or OAuthRefresh
	Shown    string
	ClientID string
	Redirect string // of a code; "" to leave it out
	Verifier string // of a code
	Resource string // "" to leave it out
	Scope    string // of a refresh token: what is wanted of what was granted; "" for all
	Address  string // without port
}

// OAuthTokens are what a client gets.
type OAuthTokens struct {
	Access, Refresh string
	Life            time.Duration
	Scopes          []Scope
}

// errGrant does not say what is wrong with what was shown.
var errGrant = oauthFault("invalid_grant", "the code or refresh token is not good, or not any more")

// ExchangeOAuth gives a client its next tokens. A code or refresh token that is shown a second time ends
// its grant: one of the two who have it has stolen it. Faults: an OAuthError; Limited.
func (s *Service) ExchangeOAuth(ctx context.Context, e OAuthExchange) (got OAuthTokens, err error) {
	if err := s.strangers.Allow(e.Address); err != nil {
		return got, err
	}
	var stolen bool
	err = s.change(With(ctx, local), func(c *change) error {
		stolen = false
		t, err := c.OAuthToken(hashOf(e.Shown))
		if fault.CodeOf(err) == fault.NotFound || err == nil && t.Kind != e.Kind {
			return errGrant
		}
		if err != nil {
			return err
		}
		g, err := c.OAuthGrant(t.GrantID)
		if err != nil {
			return err
		}
		c.actor = Principal{ID: g.PrincipalID}
		if g.ClientID != e.ClientID || g.good() != nil || !c.now.Before(t.ExpiresAt) {
			return errGrant
		}
		if !t.SpentAt.IsZero() {
			stolen = true
			return c.endGrant(g, "a "+string(t.Kind)+" was used twice")
		}
		if err := s.mayExchange(c, e, g, t); err != nil {
			return err
		}
		if err := c.SpendOAuthToken(t.Hash, c.now); err != nil {
			return err
		}
		if err := c.TrimOAuthTokens(g.ID, maxSpent); err != nil {
			return err
		}
		if got.Access, err = c.oauthToken(g, OAuthAccess, OAuthAccessLife, ""); err != nil {
			return err
		}
		if got.Refresh, err = c.oauthToken(g, OAuthRefresh, OAuthRefreshLife, ""); err != nil {
			return err
		}
		got.Life, got.Scopes = OAuthAccessLife, g.Scopes
		if err := c.UseOAuthGrant(g.ID, c.now, c.now.Add(OAuthRefreshLife)); err != nil {
			return err
		}
		if e.Kind != OAuthCode {
			return nil // every hour; not a change of rights
		}
		return c.audit("use_oauth_grant", "oauth_grant", g.ID, map[string]any{"address": e.Address})
	})
	if err == nil && stolen {
		err = errGrant
	}
	if err != nil {
		if fault.CodeOf(err) == fault.Invalid {
			s.failed(e.Address, err)
		}
		return OAuthTokens{}, err
	}
	return got, nil
}

// mayExchange returns why a token that is good is not exchanged.
func (s *Service) mayExchange(c *change, e OAuthExchange, g OAuthGrant, t OAuthToken) error {
	if e.Kind == OAuthCode {
		sum := sha256.Sum256([]byte(e.Verifier))
		shown := base64.RawURLEncoding.EncodeToString(sum[:])
		switch {
		case len(e.Verifier) < verifierMin || len(e.Verifier) > verifierMax, subtle.ConstantTimeCompare([]byte(shown), []byte(t.Challenge)) != 1:
			return oauthFault("invalid_grant", "code_verifier is not that of the code")
		case e.Redirect != "" && e.Redirect != g.Redirect:
			return oauthFault("invalid_grant", "redirect_uri is not that of the code")
		}
	}
	if e.Resource != "" && !s.isResource(e.Resource) || g.Resource != s.opts.MCPResource {
		return oauthFault("invalid_target", "resource must be %s", s.opts.MCPResource)
	}
	for word := range strings.FieldsSeq(e.Scope) {
		if x := Scope(word); slices.Contains(OAuthScopes, x) && !slices.Contains(g.Scopes, x) {
			return oauthFault("invalid_scope", "%s was not granted", x)
		}
	}
	p, err := c.Principal(g.PrincipalID)
	if err != nil {
		return err
	}
	if p.mayCall() != nil {
		return errGrant
	}
	return nil
}

// ForgetOAuth ends the grant of a token that a client does not need any more. One that is not the
// client's, or none, makes no difference.
func (s *Service) ForgetOAuth(ctx context.Context, clientID, shown, address string) error {
	if err := s.strangers.Allow(address); err != nil {
		return err
	}
	read := s.store.Read(ctx)
	t, err := read.OAuthToken(hashOf(shown))
	if fault.CodeOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return s.change(With(ctx, local), func(c *change) error {
		g, err := c.OAuthGrant(t.GrantID)
		if err != nil || g.ClientID != clientID {
			return err
		}
		c.actor = Principal{ID: g.PrincipalID}
		return c.endGrant(g, "the client does not need it any more")
	})
}

// OAuthGrants returns what a principal, or with "" everybody, has granted and has not ended, the newest
// first.
func (s *Service) OAuthGrants(ctx context.Context, principalID string, limit int) ([]OAuthGrant, error) {
	return s.store.Read(ctx).OAuthGrants(principalID, time.Now(), min(max(limit, 1), MaxPage))
}

// RevokeOAuthGrant ends a grant: the caller's own, or with anybodys that of a principal whom the caller
// may change. Faults: NotFound; Forbidden.
func (s *Service) RevokeOAuthGrant(ctx context.Context, id string, anybodys bool) error {
	return s.change(ctx, func(c *change) error {
		if !anybodys {
			if err := c.unscoped(); err != nil {
				return err
			}
		}
		g, err := c.OAuthGrant(id)
		if err == nil && !anybodys && g.PrincipalID != c.actor.ID {
			err = fault.New(fault.NotFound, "no grant %q", id)
		}
		if err != nil {
			return err
		}
		if anybodys {
			if _, err := c.manage(g.PrincipalID); err != nil {
				return err
			}
		}
		return c.endGrant(g, "revoked")
	})
}

// byOAuth authenticates an MCP client. Its token is good for the resource that it was given out for, and
// nowhere else.
func (s *Service) byOAuth(read Reader, shown, resource string) (Principal, error) {
	hash := hashOf(shown)
	a, err := lookup(&s.cache, func(c *cache) table[access] { return c.access }, string(hash), func() (a access, err error) {
		if a.OAuthToken, err = read.OAuthToken(hash); err != nil {
			return a, err
		}
		a.grant, err = read.OAuthGrant(a.GrantID)
		return a, err
	})
	switch {
	case fault.CodeOf(err) == fault.NotFound:
		return Principal{}, badToken(err)
	case err != nil:
		return Principal{}, err
	case a.Kind != OAuthAccess || !time.Now().Before(a.ExpiresAt):
		return Principal{}, badToken(errors.New("no access token, or one that has expired"))
	case resource == "" || resource != a.grant.Resource:
		return Principal{}, badToken(errors.New("the token is for another resource"))
	}
	if err := a.grant.good(); err != nil {
		return Principal{}, err
	}
	p, err := s.principal(read, a.grant.PrincipalID)
	if err != nil {
		return Principal{}, gone(err)
	}
	p.Credential = Credential{Kind: OAuth, ID: a.grant.ID, Scopes: a.grant.Scopes, Ends: a.ExpiresAt}
	return p, nil
}

// A ScopeError says that an MCP client needs scopes that it was not granted.
type ScopeError struct {
	Need []Scope
	Err  error
}

// Error is the refusal for the log.
func (e *ScopeError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *ScopeError) Unwrap() error { return e.Err }

// Need returns a ScopeError unless an MCP client may do what one of the scopes is for. Who has another
// credential needs none of them.
func (c Credential) Need(any ...Scope) error {
	if c.Kind != OAuth || slices.ContainsFunc(any, func(s Scope) bool { return slices.Contains(c.Scopes, s) }) {
		return nil
	}
	words := make([]string, len(any))
	for i, s := range any {
		words[i] = string(s)
	}
	return &ScopeError{any[:1], fault.New(fault.Forbidden, "this client was not granted the scope %s", strings.Join(words, " or "))}
}
