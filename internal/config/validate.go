package config

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	gopath "path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of single keys.
const (
	MinJWTSecret           = 32 // length of each secret in auth.jwt_secret, in bytes
	MaxJWTSecrets          = 10 // secrets in auth.jwt_secret
	MaxDefaultCapabilities = 64 // words in auth.default_capabilities
	MaxCORSOrigins         = 32 // origins in server.cors_origins
	MaxTrustedProxies      = 64 // networks in server.trusted_proxies
	SecretsKeySize         = 32 // length of the decoded auth.secrets_key, in bytes
	MinRetention           = time.Hour
)

// Bounds of requests that are not configured, on every transport. What names something is an id, a
// name, a key, a word of any kind; docs/LIMITS.md has what may be longer or must be shorter.
const (
	MaxWord  = 500 // bytes of what names something
	MaxWords = 100 // entries of a list of such
)

var (
	capability = regexp.MustCompile(`^[a-z0-9_:-]{1,64}$`)
	origin     = regexp.MustCompile(`^(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$`)
)

// Validate checks every rule that a value of the right type can still break. [Load]
// has done so; it is for configurations made in code. The error is a join of
// [*Complaint].
func (c Config) Validate() error { return joined(c.broken()) }

// broken lists the rules that c breaks.
func (c Config) broken() []*Complaint {
	r := rules{config: c}

	r.check("data_dir", c.DataDir != "", "data_dir is required")

	if !c.Tailscale.Enabled {
		r.check("server.grpc_addr", c.Server.GRPCAddr != "", "server.grpc_addr is required (or enable tailscale)")
		r.check("server.http_addr", c.Server.HTTPAddr != "", "server.http_addr is required (or enable tailscale)")
		r.check("server.http_addr", c.Server.HTTPAddr == "" || c.Server.HTTPAddr != c.Server.GRPCAddr || strings.HasSuffix(c.Server.HTTPAddr, ":0"),
			"%q is already server.grpc_addr", c.Server.HTTPAddr)
	}
	r.address("server.grpc_addr", c.Server.GRPCAddr)
	r.address("server.http_addr", c.Server.HTTPAddr)
	positive(&r, "server.shutdown_grace", c.Server.ShutdownGrace, formatDuration)
	r.origins("server.cors_origins", c.Server.CORSOrigins)
	r.networks("server.trusted_proxies", c.Server.TrustedProxies)
	t := c.Server.TLS
	r.because = "server.tls.cert_file"
	r.check("server.tls.key_file", t.CertFile == "" || t.KeyFile != "", "server.tls.key_file is required with server.tls.cert_file")
	r.because = "server.tls.key_file"
	r.check("server.tls.cert_file", t.KeyFile == "" || t.CertFile != "", "server.tls.cert_file is required with server.tls.key_file")
	r.because = ""

	r.check("database.path", c.Database.Path != "", "database.path is required")
	r.check("database.path", !strings.HasPrefix(c.Database.Path, "file:"), "must be the path of a file or :memory:, not a URI")
	oneOf(&r, "database.synchronous", c.Database.Synchronous, Full, Normal)
	notNegative(&r, "database.min_free", c.Database.MinFree)

	r.jwtSecrets("auth.jwt_secret", c.Auth.JWTSecrets)
	r.capabilities("auth.default_capabilities", c.Auth.DefaultCapabilities)
	_, _, err := c.Auth.DecodeSecretsKey()
	r.check("auth.secrets_key", err == nil, "%v", err)
	oneOf(&r, "auth.agent_auto_registration", c.Auth.AgentAutoRegistration, Approved, Pending, Disabled)

	if c.Tailscale.Enabled {
		r.because = "tailscale.enabled"
		r.check("tailscale.hostname", c.Tailscale.Hostname != "", "tailscale.hostname is required when tailscale is enabled")
		r.check("tailscale.auth_key", c.Tailscale.AuthKey != "", "tailscale.auth_key is required when tailscale is enabled (or set TS_AUTHKEY)")
		r.check("tailscale.state_dir", c.Tailscale.StateDir != "", "tailscale.state_dir is required when tailscale is enabled")
		r.because = ""
	}

	a := c.Agents
	positive(&r, "agents.heartbeat_interval", a.HeartbeatInterval, formatDuration)
	positive(&r, "agents.heartbeat_timeout", a.HeartbeatTimeout, formatDuration)
	positive(&r, "agents.reconnect_grace_period", a.ReconnectGracePeriod, formatDuration)
	positive(&r, "agents.turn_silence_timeout", a.TurnSilenceTimeout, formatDuration)
	positive(&r, "agents.cancel_grace_period", a.CancelGracePeriod, formatDuration)
	r.check("agents.approval_timeout", a.ApprovalTimeout >= 0, "must be zero (as long as the turn lives) or more, not %s", formatDuration(a.ApprovalTimeout))
	r.because = "agents.heartbeat_interval"
	r.check("agents.heartbeat_timeout", a.HeartbeatTimeout <= 0 || a.HeartbeatTimeout > a.HeartbeatInterval,
		"%s is not longer than agents.heartbeat_interval (%s)", formatDuration(a.HeartbeatTimeout), formatDuration(a.HeartbeatInterval))
	r.because = ""

	positive(&r, "limits.request_body", c.Limits.RequestBody, Size.String)
	positive(&r, "limits.message", c.Limits.Message, Size.String)
	positive(&r, "limits.file", c.Limits.File, Size.String)
	positive(&r, "limits.attachments", c.Limits.Attachments, strconv.Itoa)
	r.rate("limits.requests_per_second", c.Limits.RequestsPerSecond)
	r.rate("limits.address_requests_per_second", c.Limits.AddressRequestsPerSecond)
	r.rate("limits.connections", c.Limits.Connections)
	r.rate("limits.address_connections", c.Limits.AddressConnections)
	r.rate("limits.streams", c.Limits.Streams)
	r.rate("limits.agent_turns", c.Limits.AgentTurns)
	r.rate("limits.turns_per_minute", c.Limits.TurnsPerMinute)
	notNegative(&r, "limits.turn", c.Limits.Turn)

	r.age("retention.events", c.Retention.Events)
	notNegative(&r, "retention.events_size", c.Retention.EventsSize)
	r.age("retention.files", c.Retention.Files)
	notNegative(&r, "retention.files_size", c.Retention.FilesSize)
	r.tools(c.Tools)

	oneOf(&r, "logging.format", c.Logging.Format, JSON, Text)

	r.address("admin.listen", c.Admin.Listen)
	r.check("admin.listen", c.Admin.Listen == "" || loopback(c.Admin.Listen),
		"%q is not a loopback address such as 127.0.0.1:6060: what is served there asks nobody for credentials", c.Admin.Listen)

	r.metricsPath("metrics.path", c.Metrics.Path)
	r.absoluteURL("webadmin.base_url", c.WebAdmin.BaseURL)
	r.absoluteURL("mcp.endpoint", c.MCP.Endpoint)
	return r.complaints
}

// rules gathers complaints about one configuration.
type rules struct {
	config     Config
	because    string // the key to point at when the key itself was not written
	complaints []*Complaint
}

func (r *rules) check(key string, ok bool, format string, args ...any) {
	if ok {
		return
	}
	at := r.config.Origin(key)
	if at.IsDefault() && r.because != "" {
		at = r.config.Origin(r.because)
	}
	r.complain(at, key, format, args)
}

// item is check for one item of a list, counted from 0.
func (r *rules) item(key string, i int, ok bool, format string, args ...any) {
	if ok {
		return
	}
	at, known := r.config.origins[itemKey(key, i)]
	if !known {
		at = r.config.Origin(key)
	}
	r.complain(at, key, format, args)
}

func (r *rules) complain(at Origin, key, format string, args []any) {
	r.complaints = append(r.complaints, &Complaint{Origin: at, Key: key, Message: fmt.Sprintf(format, args...)})
}

// itemKey is under which the place of one item of a list is kept in Config.origins.
func itemKey(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

func positive[T cmp.Ordered](r *rules, key string, v T, show func(T) string) {
	var zero T
	r.check(key, v > zero, "must be more than zero, not %s", show(v))
}

func (r *rules) age(key string, d time.Duration) {
	r.check(key, d == 0 || d >= MinRetention, "must be zero (for ever) or at least %s, not %s", formatDuration(MinRetention), formatAge(d))
}

func notNegative(r *rules, key string, n Size) {
	r.check(key, n >= 0, "must be zero (no limit) or more, not %s", n)
}

func (r *rules) rate(key string, n int) {
	r.check(key, n >= 0, "must be zero (no limit) or more, not %d", n)
}

func atMost[T any](r *rules, key string, list []T, limit int, what string) {
	r.check(key, len(list) <= limit, "can have at most %d %s, not %d", limit, what, len(list))
}

// jwtSecrets says which secret is meant by its number, never by its content.
func (r *rules) jwtSecrets(key string, list []Secret) {
	atMost(r, key, list, MaxJWTSecrets, "secrets")
	for i, s := range list {
		switch {
		case s == "" && len(list) > 1:
			r.item(key, i, false, "secret %d of the list is empty; remove it or give it a value", i+1)
			continue
		case len(s) < MinJWTSecret && len(list) > 1:
			r.item(key, i, false, "JWT secret must be at least %d bytes; number %d of the list is not", MinJWTSecret, i+1)
		case len(s) < MinJWTSecret:
			r.item(key, i, false, "JWT secret must be at least %d bytes", MinJWTSecret)
		}
		first := slices.Index(list, s)
		r.item(key, i, first == i, "secrets %d and %d of the list are the same", first+1, i+1)
	}
}

func (r *rules) capabilities(key string, list []string) {
	atMost(r, key, list, MaxDefaultCapabilities, "words")
	for i, word := range list {
		r.item(key, i, capability.MatchString(word), "%s is not a word of 1 to 64 lower-case letters, digits, _, - and :", excerpt(word, isText))
		r.item(key, i, word != "admin" && word != "leader", "%q is only ever granted to a principal by name, it cannot be a default", word)
		r.item(key, i, slices.Index(list, word) == i, "%s is given twice", excerpt(word, isText))
	}
}

// origins wants each as a browser writes it in the Origin header, because that is what it
// is compared with.
func (r *rules) origins(key string, list []string) {
	atMost(r, key, list, MaxCORSOrigins, "origins")
	for i, s := range list {
		sent, ok := canonicalOrigin(s)
		switch {
		case s == "*":
			r.item(key, i, false, `"*" would let the pages of every web site call the API; list the origins that may`)
		case strings.Contains(s, "@"):
			r.item(key, i, false, "must not contain a user name or password") // so it is not repeated here either
		case !ok:
			r.item(key, i, false, "must be http or https, a host and perhaps a port, such as https://app.example:8443, not %s", excerpt(s, isText))
		case s != sent:
			r.item(key, i, false, "browsers write %q as %q; write it so", s, sent)
		default:
			r.item(key, i, slices.Index(list, s) == i, "%q is given twice", s)
		}
	}
}

func (r *rules) networks(key string, list []string) {
	atMost(r, key, list, MaxTrustedProxies, "networks")
	for i, s := range list {
		n, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			r.item(key, i, false, "must be a network such as 10.0.0.0/8 or 192.0.2.1/32, not %s", excerpt(s, isText))
		case n.Masked() != n:
			r.item(key, i, false, "%s is the network %s; write it so", s, n.Masked())
		case n.Bits() == 0:
			r.item(key, i, false, "%s would let everybody say who they are; name the networks of the proxies", s)
		default:
			r.item(key, i, slices.Index(list, s) == i, "%q is given twice", s)
		}
	}
}

// canonicalOrigin gives the origin as a browser sends it: in lower case and without the
// scheme's own port.
func canonicalOrigin(s string) (string, bool) {
	parts := origin.FindStringSubmatch(strings.ToLower(s))
	if parts == nil {
		return "", false
	}
	scheme, host, port := parts[1], parts[2], parts[3]
	if inner, v6 := strings.CutPrefix(host, "["); v6 {
		if _, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err != nil {
			return "", false
		}
	}
	sent := scheme + "://" + host
	if port == "" {
		return sent, true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", false
	}
	if scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return sent, true
	}
	return sent + ":" + strconv.FormatUint(n, 10), true
}

// DecodeSecretsKey gives the key in SecretsKey, which is written as 64 hexadecimal digits
// or as standard base64 with padding. It is false if there is none. The error does not
// repeat what is written.
func (a Auth) DecodeSecretsKey() (key [SecretsKeySize]byte, ok bool, err error) {
	s := a.SecretsKey.Reveal()
	if s == "" {
		return key, false, nil
	}
	var raw []byte
	switch {
	case len(s) == hex.EncodedLen(SecretsKeySize):
		raw, err = hex.DecodeString(s)
	case len(s) == base64.StdEncoding.EncodedLen(SecretsKeySize):
		raw, err = base64.StdEncoding.Strict().DecodeString(s)
	}
	if err != nil || len(raw) != SecretsKeySize {
		return key, false, fmt.Errorf("must be %d bytes, written as %d hex digits or as standard base64", SecretsKeySize, hex.EncodedLen(SecretsKeySize))
	}
	return [SecretsKeySize]byte(raw), true, nil
}

func oneOf[T ~string](r *rules, key string, v T, words ...T) {
	list := make([]string, len(words))
	for i, w := range words {
		if v == w {
			return
		}
		list[i] = string(w)
	}
	last := len(list) - 1
	r.check(key, false, "must be %s or %s, not %q", strings.Join(list[:last], ", "), list[last], string(v))
}

// address accepts what net.Listen takes, with a numeric port.
func (r *rules) address(key, addr string) {
	if addr == "" {
		return
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		r.check(key, false, "%q is not host:port", addr)
		return
	}
	r.check(key, !strings.ContainsAny(host, " /@?#\"'"), "%q is not host:port", addr)
	_, err = strconv.ParseUint(port, 10, 16)
	r.check(key, err == nil, "the port of %q is not a number from 0 to 65535", addr)
}

// loopback reports whether an address can be reached from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // somebody else complains
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (r *rules) metricsPath(key, p string) {
	switch {
	case !strings.HasPrefix(p, "/"):
		r.check(key, false, "must start with /, not be %q", p)
		return
	case p == "/" || p != gopath.Clean(p) || strings.ContainsAny(p, " {}?#%"):
		r.check(key, false, "%q is not a plain path such as /metrics", p)
		return
	}
	for _, taken := range []string{"/api", "/health"} {
		r.check(key, p != taken && !strings.HasPrefix(p, taken+"/"), "%q collides with %s", p, taken)
	}
}

func (r *rules) absoluteURL(key, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		r.check(key, false, "must not contain a user name or password") // so it is not repeated here either
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		r.check(key, false, "must be an absolute http or https URL, not %q", s)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		r.check(key, false, "must not have a query or fragment: %q", s)
	case u.Port() != "":
		_, err := strconv.ParseUint(u.Port(), 10, 16)
		r.check(key, err == nil, "the port of %q is not a number from 0 to 65535", s)
	}
}
