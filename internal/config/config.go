// Package config reads the gateway's configuration: built-in defaults, one YAML
// file on top of them, and a few environment variables on top of both.
//
// A configuration is either complete and valid or it is refused, with everything
// that is wrong with it said at once. For each value the package remembers where
// it came from; [Print] shows it.
package config

import (
	"log/slog"
	"time"
)

// Config is the whole configuration. [Load] makes one; programs and tests that
// need no file start from [Default].
type Config struct {
	DataDir   string // data_dir: folder for everything the gateway writes
	Server    Server
	Database  Database
	Auth      Auth
	Tailscale Tailscale
	Agents    Agents
	Limits    Limits
	Retention Retention
	Tools     Tools
	Logging   Logging
	Admin     Admin
	Metrics   Metrics
	WebAdmin  WebAdmin
	MCP       MCP

	file    string
	origins map[string]Origin // by key; a key that is absent has its default
}

// Server says where the gateway listens. With Tailscale.Enabled the addresses may
// be empty.
type Server struct {
	GRPCAddr      string        // server.grpc_addr: host:port; an empty host is every interface, port 0 any free port
	HTTPAddr      string        // server.http_addr: likewise
	ShutdownGrace time.Duration // server.shutdown_grace: how long open turns may go on after SIGTERM
	CORSOrigins   []string      // server.cors_origins: web origins whose pages may call the API, as browsers send them; at most MaxCORSOrigins
	TLS           TLS

	// TrustedProxies is server.trusted_proxies: networks, such as 10.0.0.0/8, whose X-Forwarded-For, -Proto
	// and -Host are believed; at most MaxTrustedProxies.
	TrustedProxies []string
}

// TLS is the encryption of what is said to the listeners. Without files they speak plaintext.
type TLS struct {
	CertFile string // server.tls.cert_file: PEM, the gateway's own certificate first; with KeyFile or not at all
	KeyFile  string // server.tls.key_file: PEM
	GRPC     bool   // server.tls.grpc: the gRPC listener speaks TLS, too, and not the HTTP listener alone
}

// Enabled reports whether the HTTP listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Database is the embedded store.
type Database struct {
	Path        string      // database.path: a file, or :memory:; <data_dir>/gateway.db unless set
	Synchronous Synchronous // database.synchronous
	MinFree     Size        // database.min_free: with less room on the disk the gateway is not ready; 0 for never
}

// Synchronous says what a committed event survives.
type Synchronous string

// The values of database.synchronous.
const (
	Full   Synchronous = "full"   // a power cut
	Normal Synchronous = "normal" // the death of the process, but the last moments before a power cut may be lost
)

// Auth is about credentials.
type Auth struct {
	// JWTSecrets is auth.jwt_secret, one string or a list: the first signs tokens, all verify
	// them, so that a secret can be replaced while tokens of the old one live. Each has at
	// least MinJWTSecret bytes, and there are at most MaxJWTSecrets. None means open mode:
	// no token is issued or checked.
	JWTSecrets            []Secret
	OpenRemote            bool             // auth.open_remote: in open mode, serve other machines too
	DefaultCapabilities   []string         // auth.default_capabilities: what every approved agent has; at most MaxDefaultCapabilities
	SecretsKey            Secret           // auth.secrets_key or COVEN_SECRETS_KEY: encrypts the stored secrets, see DecodeSecretsKey; empty means a key file in the data directory
	AgentAutoRegistration AutoRegistration // auth.agent_auto_registration
}

// AutoRegistration says what becomes of an agent whose key is not known.
type AutoRegistration string

// The values of auth.agent_auto_registration.
const (
	Approved AutoRegistration = "approved" // it is taken in at once
	Pending  AutoRegistration = "pending"  // it is written down and waits for an administrator
	Disabled AutoRegistration = "disabled" // it is refused
)

// Tailscale makes the gateway a node of a tailnet.
type Tailscale struct {
	Enabled   bool
	Hostname  string // tailscale.hostname: required when enabled
	AuthKey   Secret // tailscale.auth_key or TS_AUTHKEY: required when enabled
	StateDir  string // tailscale.state_dir: ~/.local/share/coven-gateway/tailscale unless set
	Ephemeral bool
	HTTPS     bool
	Funnel    bool
}

// Agents are the deadlines of agents and their turns. All but ApprovalTimeout are more than zero.
type Agents struct {
	HeartbeatInterval    time.Duration // agents.heartbeat_interval: how often an agent is asked to report
	HeartbeatTimeout     time.Duration // agents.heartbeat_timeout: silence after which a stream is closed; longer than the interval
	ReconnectGracePeriod time.Duration // agents.reconnect_grace_period: how long a turn waits for its agent's stream to return
	TurnSilenceTimeout   time.Duration // agents.turn_silence_timeout: how long a turn may go without any event
	CancelGracePeriod    time.Duration // agents.cancel_grace_period: how long an agent has to end a cancelled turn by itself
	ApprovalTimeout      time.Duration // agents.approval_timeout: when the question whether an agent may run a tool is denied; zero means not before its turn ends
}

// Limits bound what one request may bring and how many may come. The first four are
// more than zero; zero is no limit for the others.
type Limits struct {
	RequestBody Size // limits.request_body: body of an HTTP request, in bytes
	Message     Size // limits.message: text of one message, in bytes
	File        Size // limits.file: one attached file, in bytes
	Attachments int  // limits.attachments: files attached to one message

	RequestsPerSecond        int // limits.requests_per_second: HTTP requests of one principal
	AddressRequestsPerSecond int // limits.address_requests_per_second: requests of one address to what needs no credentials, and those whose credentials are wrong

	Connections        int  // limits.connections: open connections of each listener, HTTP and gRPC
	AddressConnections int  // limits.address_connections: those of one remote address
	Streams            int  // limits.streams: streams of one principal that are open, over HTTP and gRPC
	AgentTurns         int  // limits.agent_turns: turns that one agent works on
	TurnsPerMinute     int  // limits.turns_per_minute: turns that one principal begins
	Turn               Size // limits.turn: what an agent may answer in one turn, in bytes
}

// Retention says for how long things are kept. Zero is for ever; an age is otherwise at least
// MinRetention.
type Retention struct {
	Events     time.Duration // retention.events: turns that ended longer ago are removed, with their files
	EventsSize Size          // retention.events_size: beyond so many bytes of events, the turns that ended first are removed
	Files      time.Duration // retention.files: the content of files that came longer ago is removed
	FilesSize  Size          // retention.files_size: beyond so many bytes of contents, the oldest ones are removed
}

// Logging is about the program's own log.
type Logging struct {
	Level  slog.Level // logging.level: debug, info, warn or error
	Format LogFormat  // logging.format
}

// LogFormat is how a log line is written.
type LogFormat string

// The values of logging.format.
const (
	JSON LogFormat = "json"
	Text LogFormat = "text"
)

// Metrics is the Prometheus endpoint on the HTTP listener.
type Metrics struct {
	Enabled bool
	Path    string // metrics.path: begins with a slash, and is not below /api or /health
}

// Admin is the listener for those who run the gateway.
type Admin struct {
	Listen string // admin.listen: a loopback host:port that serves profiles and the inner state to everybody on this machine; empty is off
}

// WebAdmin is about the browser pages.
type WebAdmin struct {
	BaseURL string // webadmin.base_url: absolute http(s) URL without a slash at its end; empty means derived from the listener
}

// MCP is about the gateway's own MCP server, and the servers whose tools it offers.
//
// AllowCommands is false unless somebody who may write the file says otherwise: adding a server that
// is a command is the right to run programs as the gateway's user, and with it a stolen token of an
// owner, or in open mode every program on the machine, would have that right.
type MCP struct {
	Endpoint      string // mcp.endpoint: the URL told to agents; empty means derived from the base URL
	AllowCommands bool   // mcp.allow_commands: owners may add MCP servers that are programs the gateway runs
}

// Default returns the configuration of a gateway that nobody configured: reachable
// from this machine only.
//
// DataDir, Database.Path and Tailscale.StateDir depend on the environment and are
// empty here; [Load] fills them in.
func Default() Config {
	return Config{
		Server: Server{
			GRPCAddr:      "127.0.0.1:50051",
			HTTPAddr:      "127.0.0.1:8080",
			ShutdownGrace: 10 * time.Second,
			TLS:           TLS{GRPC: true},
		},
		Database: Database{Synchronous: Full, MinFree: 64 * MiB},
		Auth: Auth{
			DefaultCapabilities:   []string{"base", "chat", "mail", "notes", "ui"},
			AgentAutoRegistration: Disabled,
		},
		Agents: Agents{
			HeartbeatInterval:    30 * time.Second,
			HeartbeatTimeout:     90 * time.Second,
			ReconnectGracePeriod: 8 * time.Second,
			TurnSilenceTimeout:   time.Hour,
			CancelGracePeriod:    10 * time.Second,
		},
		Limits: Limits{
			RequestBody: 4 * MiB,
			Message:     1 * MiB,
			File:        10 * MiB,
			Attachments: 10,

			RequestsPerSecond:        1000,
			AddressRequestsPerSecond: 50,

			Connections:        20_000,
			AddressConnections: 10_000,
			Streams:            2000,
			AgentTurns:         256,
			TurnsPerMinute:     1000,
			Turn:               256 * MiB,
		},
		Logging: Logging{Level: slog.LevelInfo, Format: Text},
		Metrics: Metrics{Enabled: true, Path: "/metrics"},
	}
}

// File is the path of the file that was read, or "" if there was none.
func (c Config) File() string { return c.file }

// Origin says where the value of a key such as "server.grpc_addr" came from.
func (c Config) Origin(key string) Origin { return c.origins[key] }

// fields lists every key, in the order in which they are printed. The keys of a
// section are next to each other.
func (c *Config) fields() []field {
	return []field{
		path("data_dir", &c.DataDir),

		text("server.grpc_addr", &c.Server.GRPCAddr),
		text("server.http_addr", &c.Server.HTTPAddr),
		duration("server.shutdown_grace", &c.Server.ShutdownGrace),
		list("server.cors_origins", "origins", &c.Server.CORSOrigins),
		path("server.tls.cert_file", &c.Server.TLS.CertFile),
		path("server.tls.key_file", &c.Server.TLS.KeyFile),
		boolean("server.tls.grpc", &c.Server.TLS.GRPC),
		list("server.trusted_proxies", "networks", &c.Server.TrustedProxies),

		path("database.path", &c.Database.Path).from("COVEN_DB_PATH"),
		text("database.synchronous", &c.Database.Synchronous),
		size("database.min_free", &c.Database.MinFree),

		secrets("auth.jwt_secret", &c.Auth.JWTSecrets),
		boolean("auth.open_remote", &c.Auth.OpenRemote),
		list("auth.default_capabilities", "words", &c.Auth.DefaultCapabilities),
		secret("auth.secrets_key", &c.Auth.SecretsKey).from("COVEN_SECRETS_KEY"),
		text("auth.agent_auto_registration", &c.Auth.AgentAutoRegistration),

		boolean("tailscale.enabled", &c.Tailscale.Enabled),
		text("tailscale.hostname", &c.Tailscale.Hostname),
		secret("tailscale.auth_key", &c.Tailscale.AuthKey).from("TS_AUTHKEY"),
		path("tailscale.state_dir", &c.Tailscale.StateDir),
		boolean("tailscale.ephemeral", &c.Tailscale.Ephemeral),
		boolean("tailscale.https", &c.Tailscale.HTTPS),
		boolean("tailscale.funnel", &c.Tailscale.Funnel),

		duration("agents.heartbeat_interval", &c.Agents.HeartbeatInterval),
		duration("agents.heartbeat_timeout", &c.Agents.HeartbeatTimeout),
		duration("agents.reconnect_grace_period", &c.Agents.ReconnectGracePeriod),
		duration("agents.turn_silence_timeout", &c.Agents.TurnSilenceTimeout),
		duration("agents.cancel_grace_period", &c.Agents.CancelGracePeriod),
		duration("agents.approval_timeout", &c.Agents.ApprovalTimeout),

		size("limits.request_body", &c.Limits.RequestBody),
		size("limits.message", &c.Limits.Message),
		size("limits.file", &c.Limits.File),
		count("limits.attachments", &c.Limits.Attachments),
		count("limits.requests_per_second", &c.Limits.RequestsPerSecond),
		count("limits.address_requests_per_second", &c.Limits.AddressRequestsPerSecond),
		count("limits.connections", &c.Limits.Connections),
		count("limits.address_connections", &c.Limits.AddressConnections),
		count("limits.streams", &c.Limits.Streams),
		count("limits.agent_turns", &c.Limits.AgentTurns),
		count("limits.turns_per_minute", &c.Limits.TurnsPerMinute),
		size("limits.turn", &c.Limits.Turn),

		age("retention.events", &c.Retention.Events),
		size("retention.events_size", &c.Retention.EventsSize),
		age("retention.files", &c.Retention.Files),
		size("retention.files_size", &c.Retention.FilesSize),
		list("tools.disabled", "names of tools", &c.Tools.Disabled),
		list("tools.approval", "names of tools", &c.Tools.Approval),
		list("tools.roles", "TOOL=ROLE", &c.Tools.Roles),
		list("tools.capabilities", "TOOL=CAPABILITY", &c.Tools.Capabilities),
		list("tools.timeouts", "TOOL=DURATION", &c.Tools.Timeouts),
		list("tools.rates", "TOOL=CALLS", &c.Tools.Rates),

		level("logging.level", &c.Logging.Level),
		text("logging.format", &c.Logging.Format),

		text("admin.listen", &c.Admin.Listen),

		boolean("metrics.enabled", &c.Metrics.Enabled),
		text("metrics.path", &c.Metrics.Path),

		link("webadmin.base_url", &c.WebAdmin.BaseURL).from("COVEN_GATEWAY_URL"),

		link("mcp.endpoint", &c.MCP.Endpoint).from("COVEN_MCP_ENDPOINT"),
		boolean("mcp.allow_commands", &c.MCP.AllowCommands),
	}
}
