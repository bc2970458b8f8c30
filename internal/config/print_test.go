package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkPrint checks that what Print writes reads back as c, but for the secrets, and
// that those are not in it.
func checkPrint(tb testing.TB, c Config) {
	tb.Helper()
	var b strings.Builder
	if err := Print(&b, c); err != nil {
		tb.Fatal(err)
	}
	env := vars{
		"TS_AUTHKEY":        c.Tailscale.AuthKey.Reveal(), // without it an enabled tailscale would be refused
		"COVEN_SECRETS_KEY": c.Auth.SecretsKey.Reveal(),
	}
	if c.Tailscale.AuthKey == redacted {
		tb.Errorf("the auth key is %q", c.Tailscale.AuthKey.Reveal())
	}
	got := mustLoad(tb, b.String(), env)
	want := c
	want.Auth.JWTSecrets = nil
	if d := diff(want, got); d != "" {
		tb.Errorf("printed\n%s\nreads back differently:\n%s", b.String(), d)
	}
	for _, s := range append([]Secret{c.Auth.SecretsKey}, c.Auth.JWTSecrets...) {
		if s != "" && strings.Contains(b.String(), s.Reveal()) {
			tb.Errorf("a secret is shown:\n%s", b.String())
		}
	}
}

func TestPrint(t *testing.T) {
	c := mustLoad(t, `
server: {shutdown_grace: 90s, cors_origins: ['http://a']}
auth: {jwt_secret: `+secret32+`, default_capabilities: [a, "b"]}
tailscale: {hostname: "é $${X} \"' # \\"}
limits: {message: 1000}
`, vars{"TS_AUTHKEY": "hunter2", "COVEN_DB_PATH": "/srv/a b/c.db", "COVEN_SECRETS_KEY": hexKey})
	var b strings.Builder
	if err := Print(&b, c); err != nil {
		t.Fatal(err)
	}
	const want = `data_dir: "/srv/a b" # default, from database.path

server:
  grpc_addr: "127.0.0.1:50051" # default
  http_addr: "127.0.0.1:8080" # default
  shutdown_grace: 1m30s # g.yaml:2
  cors_origins: ["http://a"] # g.yaml:2
  tls:
    cert_file: "" # default
    key_file: "" # default
    grpc: true # default
  trusted_proxies: [] # default

database:
  path: "/srv/a b/c.db" # environment COVEN_DB_PATH
  synchronous: "full" # default
  min_free: 64MiB # default

auth:
  # jwt_secret: "[redacted]" # g.yaml:3
  open_remote: false # default
  default_capabilities: ["a", "b"] # g.yaml:3
  # secrets_key: "[redacted]" # environment COVEN_SECRETS_KEY
  agent_auto_registration: "disabled" # default

tailscale:
  enabled: false # default
  hostname: "é $${X} \"' # \\" # g.yaml:4
  # auth_key: "[redacted]" # environment TS_AUTHKEY
  state_dir: "/home/u/.local/share/coven-gateway/tailscale" # default
  ephemeral: false # default
  https: false # default
  funnel: false # default

agents:
  heartbeat_interval: 30s # default
  heartbeat_timeout: 1m30s # default
  reconnect_grace_period: 8s # default
  turn_silence_timeout: 1h # default
  cancel_grace_period: 10s # default
  approval_timeout: 0s # default

limits:
  request_body: 4MiB # default
  message: 1000 # g.yaml:5
  file: 10MiB # default
  attachments: 10 # default
  requests_per_second: 1000 # default
  address_requests_per_second: 50 # default
  connections: 20000 # default
  address_connections: 10000 # default
  streams: 2000 # default
  agent_turns: 256 # default
  turns_per_minute: 1000 # default
  turn: 256MiB # default

retention:
  events: 0 # default
  events_size: 0 # default
  files: 0 # default
  files_size: 0 # default

tools:
  disabled: [] # default
  approval: [] # default
  roles: [] # default
  capabilities: [] # default
  timeouts: [] # default
  rates: [] # default

logging:
  level: info # default
  format: "text" # default

admin:
  listen: "" # default

metrics:
  enabled: true # default
  path: "/metrics" # default

webadmin:
  base_url: "" # default

mcp:
  endpoint: "" # default
  allow_commands: false # default
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestPrintReadsBack(t *testing.T) {
	for name, yaml := range map[string]string{
		"nothing":   "",
		"escapes":   `data_dir: "a\"b\\c' # : ${HOME} $${HOME} $$$${x} \u2028 <é> 𝄞"`,
		"looks odd": "tailscale: {hostname: 'null'}\ndata_dir: '5'\ndatabase: {path: 'true'}",
		"tailscale": "tailscale: {enabled: true, hostname: h, auth_key: k}\nserver: {grpc_addr: '', http_addr: ''}",
		"all units": "limits: {request_body: 1, message: 1kB, file: 3GiB, attachments: 1}\nagents: {heartbeat_interval: 1ns, turn_silence_timeout: 100h0m0.5s}\nretention: {events: 90d, events_size: 10GiB, files: 36h, files_size: 5GB}",
		"urls":      "webadmin: {base_url: 'https://a.example:8443/x//'}\nmcp: {endpoint: 'http://[::1]:1/mcp'}",
		"secret":    "auth: {jwt_secret: " + secret32 + ", secrets_key: " + base64K + "}",
		"secrets":   "auth: {jwt_secret: [" + secret32 + ", " + other32 + "]}",
		"lists":     "auth: {default_capabilities: ['1', 'true', 'a:b']}\nserver: {cors_origins: ['http://[::1]:1', 'https://a']}",
		"tools":     "tools: {disabled: [a.b], roles: [a=admin, a=leader], capabilities: ['a=log:all'], timeouts: [a=90s], rates: [a=1]}",
		"no lists":  "auth: {default_capabilities: [], jwt_secret: []}\nserver: {cors_origins: []}",
		"no rates":  "limits: {requests_per_second: 0, address_requests_per_second: 0}",
	} {
		t.Run(name, func(t *testing.T) { checkPrint(t, mustLoad(t, yaml, nil)) })
	}
}

func TestPrintShowsHowManySecrets(t *testing.T) {
	for yaml, want := range map[string]string{
		"jwt_secret: []":                                  `  jwt_secret: "" # g.yaml:1`,
		"jwt_secret: [" + secret32 + "]":                  `  # jwt_secret: "[redacted]" # g.yaml:1`,
		"jwt_secret: [" + secret32 + ", " + other32 + "]": `  # jwt_secret: ["[redacted]", "[redacted]"] # g.yaml:1`,
	} {
		var b strings.Builder
		if err := Print(&b, mustLoad(t, "auth: {"+yaml+"}", nil)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "\n"+want+"\n") {
			t.Errorf("%s: no line %s in\n%s", yaml, want, b.String())
		}
	}
}

// What a list cannot hold once it is valid is written so that it would read back, too.
func TestFlow(t *testing.T) {
	want := []string{"", "a, b", "] # '\"", "${X}", "é\\"}
	c := Default()
	f := list("k", "words", &c.Auth.DefaultCapabilities)
	c.Auth.DefaultCapabilities = want
	l := loader{config: &Config{origins: map[string]Origin{}}, env: vars{}.lookup, fields: map[string]field{"k": f}, refused: map[string]bool{}}
	shown := f.show()
	l.parse([]byte("k: " + shown))
	if d := cmp.Diff(want, c.Auth.DefaultCapabilities); d != "" || len(l.complaints) > 0 {
		t.Errorf("%s reads back differently: %v\n%s", shown, l.complaints, d)
	}
}

func TestPrintKeepsCommentsOnOneLine(t *testing.T) {
	c, _, err := load("a\nserver: b", []byte("metrics: {enabled: false}"), vars{}.lookup)
	if err != nil {
		t.Fatal(err)
	}
	checkPrint(t, c)
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

func TestPrintReportsWriteErrors(t *testing.T) {
	want := errors.New("disk full")
	if err := Print(failing{want}, Default()); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestSettings: no setting shows a secret.
func TestSettings(t *testing.T) {
	c := Default()
	c.Auth.JWTSecrets = []Secret{"a secret that nobody is to see"}
	for _, s := range c.Settings() {
		if strings.Contains(s.Value, "nobody is to see") || s.Key == "auth.jwt_secret" && (!s.Secret || !strings.Contains(s.Value, redacted)) {
			t.Errorf("%+v", s)
		}
	}
}
