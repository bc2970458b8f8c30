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
	env := vars{"TS_AUTHKEY": c.Tailscale.AuthKey.Reveal()} // without it an enabled tailscale would be refused
	if c.Tailscale.AuthKey == redacted {
		tb.Errorf("the auth key is %q", c.Tailscale.AuthKey.Reveal())
	}
	got := mustLoad(tb, b.String(), env)
	want := c
	want.Auth.JWTSecret = ""
	if d := diff(want, got); d != "" {
		tb.Errorf("printed\n%s\nreads back differently:\n%s", b.String(), d)
	}
	if s := c.Auth.JWTSecret.Reveal(); s != "" && strings.Contains(b.String(), s) {
		tb.Errorf("a secret is shown:\n%s", b.String())
	}
}

func TestPrint(t *testing.T) {
	c := mustLoad(t, `
server: {shutdown_grace: 90s}
auth: {jwt_secret: `+secret32+`}
tailscale: {hostname: "é $${X} \"' # \\"}
limits: {message: 1000}
`, vars{"TS_AUTHKEY": "hunter2", "COVEN_DB_PATH": "/srv/a b/c.db"})
	var b strings.Builder
	if err := Print(&b, c); err != nil {
		t.Fatal(err)
	}
	const want = `data_dir: "/srv/a b" # default, from database.path

server:
  grpc_addr: "127.0.0.1:50051" # default
  http_addr: "127.0.0.1:8080" # default
  shutdown_grace: 1m30s # g.yaml:2

database:
  path: "/srv/a b/c.db" # environment COVEN_DB_PATH
  synchronous: "full" # default

auth:
  # jwt_secret: "[redacted]" # g.yaml:3
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

limits:
  request_body: 4MiB # default
  message: 1000 # g.yaml:5
  file: 10MiB # default
  attachments: 10 # default

logging:
  level: info # default
  format: "text" # default

metrics:
  enabled: true # default
  path: "/metrics" # default

webadmin:
  base_url: "" # default

mcp:
  endpoint: "" # default
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
		"all units": "limits: {request_body: 1, message: 1kB, file: 3GiB, attachments: 1}\nagents: {heartbeat_interval: 1ns, turn_silence_timeout: 100h0m0.5s}",
		"urls":      "webadmin: {base_url: 'https://a.example:8443/x//'}\nmcp: {endpoint: 'http://[::1]:1/mcp'}",
		"secret":    "auth: {jwt_secret: " + secret32 + "}",
	} {
		t.Run(name, func(t *testing.T) { checkPrint(t, mustLoad(t, yaml, nil)) })
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
