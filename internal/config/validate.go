package config

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	gopath "path"
	"strconv"
	"strings"
)

// MinJWTSecret is the least length of auth.jwt_secret, in bytes.
const MinJWTSecret = 32

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

	r.check("database.path", c.Database.Path != "", "database.path is required")
	r.check("database.path", !strings.HasPrefix(c.Database.Path, "file:"), "must be the path of a file or :memory:, not a URI")
	oneOf(&r, "database.synchronous", c.Database.Synchronous, Full, Normal)

	r.check("auth.jwt_secret", c.Auth.JWTSecret == "" || len(c.Auth.JWTSecret) >= MinJWTSecret,
		"JWT secret must be at least %d bytes", MinJWTSecret)
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
	r.because = "agents.heartbeat_interval"
	r.check("agents.heartbeat_timeout", a.HeartbeatTimeout <= 0 || a.HeartbeatTimeout > a.HeartbeatInterval,
		"%s is not longer than agents.heartbeat_interval (%s)", formatDuration(a.HeartbeatTimeout), formatDuration(a.HeartbeatInterval))
	r.because = ""

	positive(&r, "limits.request_body", c.Limits.RequestBody, Size.String)
	positive(&r, "limits.message", c.Limits.Message, Size.String)
	positive(&r, "limits.file", c.Limits.File, Size.String)
	positive(&r, "limits.attachments", c.Limits.Attachments, strconv.Itoa)

	oneOf(&r, "logging.format", c.Logging.Format, JSON, Text)

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
	r.complaints = append(r.complaints, &Complaint{Origin: at, Key: key, Message: fmt.Sprintf(format, args...)})
}

func positive[T cmp.Ordered](r *rules, key string, v T, show func(T) string) {
	var zero T
	r.check(key, v > zero, "must be more than zero, not %s", show(v))
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
