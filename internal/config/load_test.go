package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// vars is an environment that consists of the given variables and HOME.
type vars map[string]string

func (v vars) lookup(name string) (string, bool) {
	value, ok := v[name]
	if !ok && name == "HOME" {
		return "/home/u", true
	}
	return value, ok
}

func mustLoad(tb testing.TB, yaml string, env vars) Config {
	tb.Helper()
	c, _, err := load("g.yaml", []byte(yaml), env.lookup)
	if err != nil {
		tb.Fatalf("load refused\n%s\n%v", yaml, err)
	}
	return c
}

// defaults is what an empty file gives.
func defaults() Config {
	c := Default()
	c.DataDir = "/home/u/.local/share/coven"
	c.Database.Path = "/home/u/.local/share/coven/gateway.db"
	c.Tailscale.StateDir = "/home/u/.local/share/coven-gateway/tailscale"
	return c
}

func diff(want, got Config) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}))
}

const (
	secret32 = "0123456789abcdef0123456789abcdef"
	other32  = "fedcba9876543210fedcba9876543210"
	hexKey   = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
	base64K  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" // the same key
)

// numbered is the inside of a YAML flow list: format with 1, 2 and so on to n.
func numbered(format string, n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i+1)
	}
	return strings.Join(items, ", ")
}

func TestAccepted(t *testing.T) {
	for _, tt := range []struct {
		name string
		yaml string
		env  vars
		want func(*Config)
	}{
		{"nothing", "", nil, func(*Config) {}},
		{"comments only", "# a\n---\n# ${NOT_SET}\n", nil, func(*Config) {}},
		{"empty sections", "server:\n  # grpc_addr: x\nagents: {}\n", nil, func(*Config) {}},
		{"byte order mark and CRLF", "\ufeffmetrics:\r\n  enabled: false\r\n  path: /m\r\n", nil, func(c *Config) {
			c.Metrics = Metrics{Enabled: false, Path: "/m"}
		}},
		{"end marker", "metrics: {enabled: false}\n...\n# nothing\n", nil, func(c *Config) { c.Metrics.Enabled = false }},
		{"addresses", "server: {grpc_addr: ':50051', http_addr: '[::1]:0', shutdown_grace: 1m}", nil, func(c *Config) {
			c.Server.GRPCAddr, c.Server.HTTPAddr, c.Server.ShutdownGrace = ":50051", "[::1]:0", time.Minute
		}},
		{"any free ports", "server: {grpc_addr: 'localhost:0', http_addr: 'localhost:0'}", nil, func(c *Config) {
			c.Server.GRPCAddr, c.Server.HTTPAddr = "localhost:0", "localhost:0"
		}},
		{"data directory", "data_dir: ~/d", nil, func(c *Config) {
			c.DataDir, c.Database.Path = "/home/u/d", "/home/u/d/gateway.db"
		}},
		{"home itself", "data_dir: '~'", nil, func(c *Config) {
			c.DataDir, c.Database.Path = "/home/u", "/home/u/gateway.db"
		}},
		{"somebody else's home is not expanded", "data_dir: ~you/d", nil, func(c *Config) {
			c.DataDir, c.Database.Path = "~you/d", "~you/d/gateway.db"
		}},
		{"XDG_DATA_HOME", "", vars{"XDG_DATA_HOME": "/x"}, func(c *Config) {
			c.DataDir, c.Database.Path = "/x/coven", "/x/coven/gateway.db"
		}},
		{"a relative XDG_DATA_HOME is ignored", "", vars{"XDG_DATA_HOME": "x"}, func(*Config) {}},
		{"database path alone", "database: {path: /srv/c/my.db, synchronous: normal}", nil, func(c *Config) {
			c.DataDir, c.Database = "/srv/c", Database{Path: "/srv/c/my.db", Synchronous: Normal, MinFree: 64 * MiB}
		}},
		{"database in memory", "database: {path: ':memory:'}", nil, func(c *Config) { c.Database.Path = ":memory:" }},
		{"database and data directory", "data_dir: /d\ndatabase: {path: /srv/c/my.db}", nil, func(c *Config) {
			c.DataDir, c.Database.Path = "/d", "/srv/c/my.db"
		}},
		{"no HOME, but a database path", "database: {path: /srv/my.db}", vars{"HOME": ""}, func(c *Config) {
			c.DataDir, c.Database.Path, c.Tailscale.StateDir = "/srv", "/srv/my.db", ""
		}},
		{
			"environment wins",
			"database: {path: /a/b.db}\nwebadmin: {base_url: 'http://a'}\nmcp: {endpoint: 'http://a/mcp'}\ntailscale: {auth_key: a}\nauth: {secrets_key: a}",
			vars{"COVEN_DB_PATH": "~/c.db", "COVEN_GATEWAY_URL": "https://b.example/", "COVEN_MCP_ENDPOINT": "http://b/mcp", "TS_AUTHKEY": "b", "COVEN_SECRETS_KEY": hexKey},
			func(c *Config) {
				c.DataDir, c.Database.Path = "/home/u", "/home/u/c.db"
				c.WebAdmin.BaseURL, c.MCP.Endpoint, c.Tailscale.AuthKey = "https://b.example", "http://b/mcp", "b"
				c.Auth.SecretsKey = hexKey
			},
		},
		{"an empty variable is no override", "mcp: {endpoint: 'http://a'}", vars{"COVEN_MCP_ENDPOINT": ""}, func(c *Config) {
			c.MCP.Endpoint = "http://a"
		}},
		{"an override is not expanded", "", vars{"COVEN_DB_PATH": "/a/${B}.db"}, func(c *Config) {
			c.DataDir, c.Database.Path = "/a", "/a/${B}.db"
		}},
		{
			"auth", "auth: {jwt_secret: " + secret32 + ", open_remote: true, default_capabilities: [a], secrets_key: " + hexKey + ", agent_auto_registration: pending}", nil,
			func(c *Config) { c.Auth = Auth{[]Secret{secret32}, true, []string{"a"}, hexKey, Pending} },
		},
		{"no secret", "auth: {jwt_secret: '', secrets_key: ''}", nil, func(*Config) {}},
		{"an empty list of secrets", "auth: {jwt_secret: []}", nil, func(*Config) {}},
		{"a list of one secret that is not set", "auth: {jwt_secret: ['${S:-}']}", nil, func(*Config) {}},
		{"a list of one secret", "auth: {jwt_secret: [" + secret32 + "]}", nil, func(c *Config) { c.Auth.JWTSecrets = []Secret{secret32} }},
		{"the order of secrets", "auth:\n  jwt_secret:\n  # new\n  - " + other32 + "\n  # old\n  - " + secret32 + "\n", nil, func(c *Config) {
			c.Auth.JWTSecrets = []Secret{other32, secret32}
		}},
		{"secrets out of variables", "auth:\n  jwt_secret:\n    - ${S}\n    - x${S}$${S}\n    - >-\n      " + other32 + "\n", vars{"S": secret32 + "\n- ', ["}, func(c *Config) {
			c.Auth.JWTSecrets = []Secret{secret32 + "\n- ', [", "x" + secret32 + "\n- ', [${S}", other32}
		}},
		{"as many secrets as can be", "auth: {jwt_secret: [" + numbered(secret32+"%d", 10) + "]}", nil, func(c *Config) {
			for i := range 10 {
				c.Auth.JWTSecrets = append(c.Auth.JWTSecrets, Secret(secret32+strconv.Itoa(i+1)))
			}
		}},
		{"no capabilities", "auth: {default_capabilities: []}", nil, func(c *Config) { c.Auth.DefaultCapabilities = nil }},
		{"capabilities", "auth: {default_capabilities: ['${A}', 'mcp:x-1_y', '0', " + strings.Repeat("z", 64) + "]}", vars{"A": "a"}, func(c *Config) {
			c.Auth.DefaultCapabilities = []string{"a", "mcp:x-1_y", "0", strings.Repeat("z", 64)}
		}},
		{"as many capabilities as can be", "auth: {default_capabilities: [" + numbered("c%d", 64) + "]}", nil, func(c *Config) {
			c.Auth.DefaultCapabilities = strings.Split(numbered("c%d", 64), ", ")
		}},
		{
			"origins", "server: {cors_origins: ['http://a', 'https://a', 'https://a.b-c_d.example:8443', 'http://[::1]:1', 'http://127.0.0.1:443', 'https://a:65535']}", nil,
			func(c *Config) {
				c.Server.CORSOrigins = []string{"http://a", "https://a", "https://a.b-c_d.example:8443", "http://[::1]:1", "http://127.0.0.1:443", "https://a:65535"}
			},
		},
		{"as many origins as can be", "server: {cors_origins: [" + numbered("'http://o%d'", 32) + "]}", nil, func(c *Config) {
			c.Server.CORSOrigins = strings.Split(numbered("http://o%d", 32), ", ")
		}},
		{"tools", "tools: {disabled: [a.b-C_1], approval: [b], roles: [a=admin, a=leader], capabilities: ['a=log:all'], timeouts: [a=10m], rates: [a=1000000]}", nil, func(c *Config) {
			c.Tools = Tools{[]string{"a.b-C_1"}, []string{"b"}, []string{"a=admin", "a=leader"}, []string{"a=log:all"}, []string{"a=10m"}, []string{"a=1000000"}}
		}},
		{"TLS", "server: {tls: {cert_file: ~/c.pem, key_file: /k.pem, grpc: false}}", nil, func(c *Config) {
			c.Server.TLS = TLS{CertFile: "/home/u/c.pem", KeyFile: "/k.pem"}
		}},
		{"proxies", "server: {trusted_proxies: [10.0.0.0/8, '::1/128']}", nil, func(c *Config) {
			c.Server.TrustedProxies = []string{"10.0.0.0/8", "::1/128"}
		}},
		{"no origins", "server: {cors_origins: []}", nil, func(*Config) {}},
		{
			"tailscale needs no addresses",
			"server: {grpc_addr: '', http_addr: ''}\ntailscale: {enabled: true, hostname: h, auth_key: k, state_dir: ~/s, ephemeral: true, https: true, funnel: true}", nil,
			func(c *Config) {
				c.Server.GRPCAddr, c.Server.HTTPAddr = "", ""
				c.Tailscale = Tailscale{true, "h", "k", "/home/u/s", true, true, true}
			},
		},
		{"retention", "retention: {events: 90d, events_size: 10GiB, files: 36h, files_size: 1000}", nil, func(c *Config) {
			c.Retention = Retention{90 * 24 * time.Hour, 10 << 30, 36 * time.Hour, 1000}
		}},
		{"no retention", "retention: {events: 0, events_size: 0, files: 0d, files_size: 0}", nil, func(*Config) {}},
		{"agents", "agents: {heartbeat_interval: 1s, heartbeat_timeout: 1500ms, reconnect_grace_period: 1m, turn_silence_timeout: 1h30m, cancel_grace_period: 2s, approval_timeout: 5m}", nil, func(c *Config) {
			c.Agents = Agents{time.Second, 1500 * time.Millisecond, time.Minute, 90 * time.Minute, 2 * time.Second, 5 * time.Minute}
		}},
		{"limits", "limits: {request_body: 8MiB, message: 10MB, file: 65536, attachments: 3, requests_per_second: 4, address_requests_per_second: 5, connections: 6, address_connections: 7, streams: 8, agent_turns: 9, turns_per_minute: 10, turn: 11}", nil, func(c *Config) {
			c.Limits = Limits{8 << 20, 10_000_000, 65536, 3, 4, 5, 6, 7, 8, 9, 10, 11}
		}},
		{"no rate limits", "limits: {requests_per_second: 0, address_requests_per_second: 0}", nil, func(c *Config) {
			c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 0, 0
		}},
		{"logging", "logging: {level: debug, format: json}", nil, func(c *Config) { c.Logging = Logging{slog.LevelDebug, JSON} }},
		{"a variable of any type", "metrics: {enabled: '${ON}'}\nlimits:\n  attachments: ${N}\n  file: ${S:-2MiB}\n", vars{"ON": "false", "N": "7"}, func(c *Config) {
			c.Metrics.Enabled, c.Limits.Attachments, c.Limits.File = false, 7, 2<<20
		}},
		{"a variable cannot add structure", "auth:\n  jwt_secret: ${S}\n", vars{"S": secret32 + "\nmetrics: {enabled: false} # \""}, func(c *Config) {
			c.Auth.JWTSecrets = []Secret{secret32 + "\nmetrics: {enabled: false} # \""}
		}},
		{"a block scalar", "auth:\n  jwt_secret: >-\n    " + secret32 + "\n    more\n", nil, func(c *Config) {
			c.Auth.JWTSecrets = []Secret{secret32 + " more"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := defaults()
			tt.want(&want)
			if d := diff(want, mustLoad(t, tt.yaml, tt.env)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		yaml string
		env  vars
		want string // the lines of the error
	}{
		// keys
		{"typo", "server:\n  grpc_adr: x", nil, "g.yaml:2:3: server.grpc_adr: unknown key, did you mean server.grpc_addr?"},
		{"typo in a section", "sever:\n  grpc_addr: x", nil, "g.yaml:1:1: sever: unknown key, did you mean server?"},
		{"right word, wrong section", "server:\n  jwt_secret: x", nil, "g.yaml:2:3: server.jwt_secret: unknown key, did you mean auth.jwt_secret?"},
		{"nothing near", "server:\n  workers: 5", nil, "g.yaml:2:3: server.workers: unknown key"},
		{"short and not near", "tls: {}", nil, "g.yaml:1:1: tls: unknown key"},
		{"flattened", "server.grpc_addr: x", nil, `g.yaml:1:1: "server.grpc_addr": unknown key; write grpc_addr as a key below server`},
		{"a key that would break the line", "\"a\\nb\": 1", nil, `g.yaml:1:1: "a\nb": unknown key`},
		{"twice", "logging:\n  level: info\n  level: warn\nlogging:\n  level: error", nil, "g.yaml:3:3: logging.level: given twice, first on line 2\ng.yaml:4:1: logging: given twice, first on line 1"},
		{"merge key", "server: &s\n  http_addr: ':1'\nagents:\n  <<: *s", nil, "g.yaml:1:9: server: expected a section with keys below it, got an anchor or alias; they are not supported\ng.yaml:4:3: agents.<<: merge keys are not supported"},
		{"complex key", "? a\n: 1", nil, "g.yaml:1:1: a key must be a plain name"},

		// the document
		{"not YAML", "auth:\n  jwt_secret: 'hunter2\nserver:\n", nil, "g.yaml:2:15: not valid YAML: could not find end character of single-quoted text (is a quote missing around a value?)"},
		{"unquoted colon", "database:\n  path: :memory:", nil, "g.yaml:2:9: not valid YAML: mapping value is not allowed in this context (is a quote missing around a value?)"},
		{"not a mapping", "- a", nil, "g.yaml:1:1: expected a section with keys below it, got a list"},
		{"not UTF-8", "logging: {level: \"\xff\"}", nil, "g.yaml: not valid UTF-8"},
		{"two documents", "logging: {level: info}\n---\nlogging: {level: warn}", nil, "g.yaml:2:1: a second YAML document; there can be only one"},
		{"empty first document", "---\n# x\n---\nlogging: {level: warn}", nil, "g.yaml:3:1: a second YAML document; there can be only one"},
		{"after the end", "logging: {level: info}\n...\nlogging: {level: warn}", nil, "g.yaml:3:1: a second YAML document; there can be only one"},
		{"directive", "%YAML 1.2\n---\nlogging: {level: info}", nil, "g.yaml:1:1: YAML directives are not supported"},

		// types
		{"number for a string", "server:\n  http_addr: 8080", nil, "g.yaml:2:14: server.http_addr: expected a string, got the number 8080"},
		{"bool for a string", "tailscale:\n  hostname: true", nil, "g.yaml:2:13: tailscale.hostname: expected a string, got the boolean true"},
		{"list for a string", "tailscale:\n  hostname: [a]", nil, "g.yaml:2:13: tailscale.hostname: expected a string, got a list"},
		{"section for a string", "tailscale:\n  hostname: {a: b}", nil, "g.yaml:2:13: tailscale.hostname: expected a string, got a section"},
		{"nothing", "tailscale:\n  hostname:\n", nil, "g.yaml:2:13: tailscale.hostname: expected a string, got nothing; remove it or give it a value"},
		{"string for a section", "server: all", nil, "g.yaml:1:9: server: expected a section with keys below it, got the string"},
		{"string for a bool", "metrics: {enabled: yes}", nil, `g.yaml:1:20: metrics.enabled: expected true or false, got the string "yes"`},
		{"string for a count", "limits: {attachments: '3'}", nil, `g.yaml:1:23: limits.attachments: expected a whole number, got the string "3"`},
		{"fraction for a count", "limits: {attachments: 1.5}", nil, `g.yaml:1:23: limits.attachments: expected a whole number, got "1.5"`},
		{"variable for a bool", "metrics: {enabled: '${ON}'}", vars{"ON": "1"}, `g.yaml:1:20: metrics.enabled: expected true or false, got "1"`},
		{"bool for a size", "limits: {file: true}", nil, "g.yaml:1:16: limits.file: expected a size such as 4MiB, got the boolean true"},
		{"a long value is shortened", "metrics: {enabled: " + strings.Repeat("x", 60) + "}", nil, `g.yaml:1:20: metrics.enabled: expected true or false, got the string "` + strings.Repeat("x", 40) + `…"`},
		{"tag", "tailscale:\n  hostname: !!str 5", nil, "g.yaml:2:13: tailscale.hostname: expected a string, got a tag; they are not supported"},
		{"control character", `tailscale: {hostname: "a\tb"}`, nil, `g.yaml:1:23: tailscale.hostname: "a\tb" contains a control character`},
		{"number for a secret is not shown", "auth: {jwt_secret: 314159}", nil, "g.yaml:1:20: auth.jwt_secret: expected a string or a list of strings, got the number"},
		{"section for secrets is not shown", "auth: {jwt_secret: {hunter2: hunter2}}", nil, "g.yaml:1:20: auth.jwt_secret: expected a string or a list of strings, got a section"},
		{"nothing for secrets", "auth:\n  jwt_secret:\n", nil, "g.yaml:2:15: auth.jwt_secret: expected a string or a list of strings, got nothing; remove it or give it a value"},
		{"what is not a secret in a list", "auth:\n  jwt_secret:\n  - 314159\n  - [hunter2]\n  - hunter2: x\n  -\n  - true", nil, "g.yaml:3:5: auth.jwt_secret: expected a string, got the number\n" +
			"g.yaml:4:5: auth.jwt_secret: expected a string, got a list\n" +
			"g.yaml:5:12: auth.jwt_secret: expected a string, got a section; a value with a colon needs quotes\n" +
			"g.yaml:6:4: auth.jwt_secret: expected a string, got nothing; remove it or give it a value\n" +
			"g.yaml:7:5: auth.jwt_secret: expected a string, got the boolean"},
		{"string for a list", "auth: {default_capabilities: 'base, chat'}", nil, `g.yaml:1:30: auth.default_capabilities: expected a list of words, got the string "base, chat"`},
		{"variable for a list", "auth: {default_capabilities: '${A}'}", vars{"A": "[a]"}, `g.yaml:1:30: auth.default_capabilities: expected a list of words, got the string "${A}"`},
		{"number for a list", "server: {cors_origins: 5}", nil, "g.yaml:1:24: server.cors_origins: expected a list of origins, got the number 5"},
		{"section for a list", "server: {cors_origins: {a: b}}", nil, "g.yaml:1:24: server.cors_origins: expected a list of origins, got a section"},
		{"nothing for a list", "server:\n  cors_origins:\n", nil, "g.yaml:2:17: server.cors_origins: expected a list of origins, got nothing; remove it or give it a value"},
		{"alias for a list", "server: {cors_origins: *a}", nil, "g.yaml:1:24: server.cors_origins: expected a list of origins, got an anchor or alias; they are not supported"},
		{"what is not a word in a list", "auth: {default_capabilities: [5, true, [a], {b: c}, ok]}", nil, "g.yaml:1:31: auth.default_capabilities: expected a string, got the number 5\n" +
			"g.yaml:1:34: auth.default_capabilities: expected a string, got the boolean true\n" +
			"g.yaml:1:40: auth.default_capabilities: expected a string, got a list\n" +
			"g.yaml:1:45: auth.default_capabilities: expected a string, got a section; a value with a colon needs quotes"},
		{"colon without quotes", "server: {cors_origins: [https://a.example:8443]}", nil, "g.yaml:1:42: server.cors_origins: expected a string, got a section; a value with a colon needs quotes"},
		{"control character in a list", `auth: {default_capabilities: [a, "b\tc"]}`, nil, `g.yaml:1:34: auth.default_capabilities: "b\tc" contains a control character`},
		{"variable that is not UTF-8", "", vars{"COVEN_MCP_ENDPOINT": "http://\xff"}, "environment COVEN_MCP_ENDPOINT: mcp.endpoint: not valid UTF-8"},

		// expansion
		{"unset variable", "auth:\n  jwt_secret: ${S}", nil, "g.yaml:2:15: auth.jwt_secret: the environment variable S is unset or empty; set it or write ${S:-default}"},
		{"unset variable in a list", "auth: {jwt_secret: ['${S}', " + secret32 + "]}", nil, "g.yaml:1:21: auth.jwt_secret: the environment variable S is unset or empty; set it or write ${S:-default}"},
		{"~ without HOME", "data_dir: ~/d", vars{"HOME": ""}, "g.yaml:1:11: data_dir: ~ cannot be expanded because HOME is not set"},
		{"no HOME", "", vars{"HOME": ""}, "data_dir is required, because neither XDG_DATA_HOME nor HOME is set"},

		// values
		{"no addresses", "server: {grpc_addr: '', http_addr: ''}", nil, "g.yaml:1:21: server.grpc_addr is required (or enable tailscale)\ng.yaml:1:36: server.http_addr is required (or enable tailscale)"},
		{"no port", "server: {http_addr: localhost}", nil, `g.yaml:1:21: server.http_addr: "localhost" is not host:port`},
		{"URL for an address", "server: {http_addr: 'http://localhost:80'}", nil, `g.yaml:1:21: server.http_addr: "http://localhost:80" is not host:port`},
		{"a strange host", "server: {http_addr: 'a b:80'}", nil, `g.yaml:1:21: server.http_addr: "a b:80" is not host:port`},
		{"named port", "server: {http_addr: ':http'}", nil, `g.yaml:1:21: server.http_addr: the port of ":http" is not a number from 0 to 65535`},
		{"port out of range", "server: {http_addr: ':65536'}", nil, `g.yaml:1:21: server.http_addr: the port of ":65536" is not a number from 0 to 65535`},
		{"one port for two", "server: {grpc_addr: ':1', http_addr: ':1'}", nil, `g.yaml:1:38: server.http_addr: ":1" is already server.grpc_addr`},
		{"empty data directory", "data_dir: ''\ndatabase: {path: /a}", nil, "g.yaml:1:11: data_dir is required"},
		{"empty database path", "database: {path: ''}", nil, "g.yaml:1:18: database.path is required"},
		{"database URI", "database: {path: 'file:x?mode=ro'}", nil, "g.yaml:1:18: database.path: must be the path of a file or :memory:, not a URI"},
		{"synchronous", "database: {synchronous: extra}", nil, `g.yaml:1:25: database.synchronous: must be full or normal, not "extra"`},
		{"short secret", "auth: {jwt_secret: hunter2}", nil, "g.yaml:1:20: auth.jwt_secret: JWT secret must be at least 32 bytes"},
		{"redacted secret", "auth: {jwt_secret: '[redacted]'}", nil, "g.yaml:1:20: auth.jwt_secret: this is how a secret is printed, not the secret"},
		{"redacted secrets", "auth: {jwt_secret: ['[redacted]', '[redacted]']}", nil, "g.yaml:1:21: auth.jwt_secret: this is how a secret is printed, not the secret\n" +
			"g.yaml:1:35: auth.jwt_secret: this is how a secret is printed, not the secret"},
		{"short secret in a list of one", "auth: {jwt_secret: [hunter2]}", nil, "g.yaml:1:21: auth.jwt_secret: JWT secret must be at least 32 bytes"},
		{"short secret in a list", "auth:\n  jwt_secret:\n  - " + secret32 + "\n  - hunter2", nil, "g.yaml:4:5: auth.jwt_secret: JWT secret must be at least 32 bytes; number 2 of the list is not"},
		{"a secret of 31 bytes", "auth: {jwt_secret: " + secret32[1:] + "}", nil, "g.yaml:1:20: auth.jwt_secret: JWT secret must be at least 32 bytes"},
		{"empty secrets in a list", "auth: {jwt_secret: ['', '${S:-}', " + secret32 + "]}", nil, "g.yaml:1:21: auth.jwt_secret: secret 1 of the list is empty; remove it or give it a value\n" +
			"g.yaml:1:25: auth.jwt_secret: secret 2 of the list is empty; remove it or give it a value"},
		{"one secret twice", "auth: {jwt_secret: [" + secret32 + ", " + other32 + ", '${S}']}", vars{"S": secret32}, "g.yaml:1:89: auth.jwt_secret: secrets 1 and 3 of the list are the same"},
		{"too many secrets", "auth: {jwt_secret: [" + numbered(secret32+"%d", 11) + "]}", nil, "g.yaml:1:20: auth.jwt_secret: can have at most 10 secrets, not 11"},
		{"open_remote", "auth: {open_remote: maybe}", nil, `g.yaml:1:21: auth.open_remote: expected true or false, got the string "maybe"`},
		{"granted by name only", "auth: {default_capabilities: [admin, leader]}", nil, `g.yaml:1:31: auth.default_capabilities: "admin" is only ever granted to a principal by name, it cannot be a default` + "\n" +
			`g.yaml:1:38: auth.default_capabilities: "leader" is only ever granted to a principal by name, it cannot be a default`},
		{"capability with a capital", "auth: {default_capabilities: [Base]}", nil, `g.yaml:1:31: auth.default_capabilities: "Base" is not a word of 1 to 64 lower-case letters, digits, _, - and :`},
		{"empty capability", "auth: {default_capabilities: ['']}", nil, `g.yaml:1:31: auth.default_capabilities: "" is not a word of 1 to 64 lower-case letters, digits, _, - and :`},
		{"capability with a space", "auth: {default_capabilities: ['a b']}", nil, `g.yaml:1:31: auth.default_capabilities: "a b" is not a word of 1 to 64 lower-case letters, digits, _, - and :`},
		{"long capability", "auth: {default_capabilities: [" + strings.Repeat("z", 65) + "]}", nil, `g.yaml:1:31: auth.default_capabilities: "` + strings.Repeat("z", 40) + `…" is not a word of 1 to 64 lower-case letters, digits, _, - and :`},
		{"one capability twice", "auth: {default_capabilities: [a, b, a]}", nil, `g.yaml:1:37: auth.default_capabilities: "a" is given twice`},
		{"too many capabilities", "auth: {default_capabilities: [" + numbered("c%d", 65) + "]}", nil, "g.yaml:1:30: auth.default_capabilities: can have at most 64 words, not 65"},
		{"no key", "auth: {secrets_key: hunter2}", nil, "g.yaml:1:21: auth.secrets_key: must be 32 bytes, written as 64 hex digits or as standard base64"},
		{"number for a key", "auth: {secrets_key: 314159}", nil, "g.yaml:1:21: auth.secrets_key: expected a string, got the number"},
		{"redacted key", "auth: {secrets_key: '[redacted]'}", nil, "g.yaml:1:21: auth.secrets_key: this is how a secret is printed, not the secret"},
		{"a list of keys", "auth: {secrets_key: [" + hexKey + "]}", nil, "g.yaml:1:21: auth.secrets_key: expected a string, got a list"},
		{"no key in the environment", "", vars{"COVEN_SECRETS_KEY": "hunter2"}, "environment COVEN_SECRETS_KEY: auth.secrets_key: must be 32 bytes, written as 64 hex digits or as standard base64"},
		{"any origin", "server: {cors_origins: ['http://a', '*']}", nil, `g.yaml:1:37: server.cors_origins: "*" would let the pages of every web site call the API; list the origins that may`},
		{"origin with a password", "server: {cors_origins: ['http://u:hunter2@a', 'http://u:hunter2@a']}", nil, "g.yaml:1:25: server.cors_origins: must not contain a user name or password\n" +
			"g.yaml:1:47: server.cors_origins: must not contain a user name or password"},
		{"origin in capitals", "server: {cors_origins: ['HTTPS://App.example']}", nil, `g.yaml:1:25: server.cors_origins: browsers write "HTTPS://App.example" as "https://app.example"; write it so`},
		{"origin with the usual port", "server: {cors_origins: ['https://a:443', 'http://a:080']}", nil, `g.yaml:1:25: server.cors_origins: browsers write "https://a:443" as "https://a"; write it so` + "\n" +
			`g.yaml:1:42: server.cors_origins: browsers write "http://a:080" as "http://a"; write it so`},
		{"one origin twice", "server: {cors_origins: ['http://a', 'http://a']}", nil, `g.yaml:1:37: server.cors_origins: "http://a" is given twice`},
		{"too many origins", "server: {cors_origins: [" + numbered("'http://o%d'", 33) + "]}", nil, "g.yaml:1:24: server.cors_origins: can have at most 32 origins, not 33"},
		{"proxies that are none", "server: {trusted_proxies: [10.0.0.1, 10.0.0.1/8, 0.0.0.0/0, 10.0.0.0/8, 10.0.0.0/8]}", nil, "g.yaml:1:28: server.trusted_proxies: must be a network such as 10.0.0.0/8 or 192.0.2.1/32, not \"10.0.0.1\"\n" +
			"g.yaml:1:38: server.trusted_proxies: 10.0.0.1/8 is the network 10.0.0.0/8; write it so\n" +
			"g.yaml:1:50: server.trusted_proxies: 0.0.0.0/0 would let everybody say who they are; name the networks of the proxies\n" +
			"g.yaml:1:73: server.trusted_proxies: \"10.0.0.0/8\" is given twice"},
		{"a certificate without a key", "server: {tls: {cert_file: /c.pem}}", nil, "g.yaml:1:27: server.tls.key_file is required with server.tls.cert_file"},
		{"a key without a certificate", "server: {tls: {key_file: /k.pem}}", nil, "g.yaml:1:26: server.tls.cert_file is required with server.tls.key_file"},
		{"a section in a section", "server: {tls: on}", nil, "g.yaml:1:15: server.tls: expected a section with keys below it, got the string"},
		{"a slip in a section of a section", "server: {tls: {certfile: /c}}", nil, "g.yaml:1:16: server.tls.certfile: unknown key, did you mean server.tls.cert_file?"},
		{"retention", "retention:\n  events: 59m\n  events_size: -1\n  files: -1d\n  files_size: -1KiB", nil, "g.yaml:2:11: retention.events: must be zero (for ever) or at least 1h, not 59m\n" +
			"g.yaml:3:16: retention.events_size: must be zero (no limit) or more, not -1\n" +
			"g.yaml:4:10: retention.files: must be zero (for ever) or at least 1h, not -1d\n" +
			"g.yaml:5:15: retention.files_size: must be zero (no limit) or more, not -1KiB"},
		{"ages", "retention:\n  events: 90\n  files: many days", nil, `g.yaml:2:11: retention.events: parsing events "90": an age needs a unit, did you mean 90d?` + "\n" +
			`g.yaml:3:10: retention.files: parsing files "many days": not a duration, write for example 30s, 5m or 1h30m`},
		{"an age without end", "retention: {events: 9999999999d}", nil, `g.yaml:1:21: retention.events: parsing events "9999999999d": more time than can be counted`},
		{"no tool", "tools: {disabled: ['a b', a=b, a, a]}", nil, `g.yaml:1:20: tools.disabled: "a b" is not the name of a tool: 1 to 128 letters, digits, _, - and .` + "\n" +
			`g.yaml:1:27: tools.disabled: "a" is not the name of a tool: 1 to 128 letters, digits, _, - and .` + "\n" + `g.yaml:1:35: tools.disabled: "a" is given twice`},
		{"no role of a tool", "tools: {roles: [a, a=boss, a=admin, a=admin]}", nil, `g.yaml:1:17: tools.roles: must be TOOL=ROLE, not "a"` + "\n" +
			`g.yaml:1:20: tools.roles: a: a role is owner, admin, member or leader, not "boss"` + "\n" + `g.yaml:1:37: tools.roles: "a=admin" is given twice`},
		{"no capability of a tool", "tools: {capabilities: [a=B]}", nil, `g.yaml:1:24: tools.capabilities: a: a capability has 1 to 64 lower-case letters, digits, _, : and -, not "B"`},
		{"no timeout of a tool", "tools: {timeouts: [a=5, b=0s, c=11m, d=1s, d=2s]}", nil, `g.yaml:1:20: tools.timeouts: a: parsing the timeout "5": a duration needs a unit, did you mean 5s?` + "\n" +
			"g.yaml:1:25: tools.timeouts: b: a timeout must be more than zero and at most 10m, not 0s\ng.yaml:1:31: tools.timeouts: c: a timeout must be more than zero and at most 10m, not 11m\n" +
			`g.yaml:1:44: tools.timeouts: "d" is given twice`},
		{"no rate of a tool", "tools: {rates: [a=0, b=x, c=1000001]}", nil, `g.yaml:1:17: tools.rates: a: the calls per minute are a number from 1 to 1000000, not "0"` + "\n" +
			`g.yaml:1:22: tools.rates: b: the calls per minute are a number from 1 to 1000000, not "x"` + "\n" + `g.yaml:1:27: tools.rates: c: the calls per minute are a number from 1 to 1000000, not "1000001"`},
		{"too many tools", "tools: {disabled: [" + numbered("t%d", 513) + "]}", nil, "g.yaml:1:19: tools.disabled: can have at most 512 entries, not 513"},
		{"negative rates", "limits:\n  requests_per_second: -1\n  address_requests_per_second: -2", nil, "g.yaml:2:24: limits.requests_per_second: must be zero (no limit) or more, not -1\n" +
			"g.yaml:3:32: limits.address_requests_per_second: must be zero (no limit) or more, not -2"},
		{"negative counts", "limits:\n  connections: -1\n  address_connections: -1\n  streams: -1\n  agent_turns: -1\n  turns_per_minute: -1\n  turn: -1", nil, "g.yaml:2:16: limits.connections: must be zero (no limit) or more, not -1\n" +
			"g.yaml:3:24: limits.address_connections: must be zero (no limit) or more, not -1\n" +
			"g.yaml:4:12: limits.streams: must be zero (no limit) or more, not -1\n" +
			"g.yaml:5:16: limits.agent_turns: must be zero (no limit) or more, not -1\n" +
			"g.yaml:6:21: limits.turns_per_minute: must be zero (no limit) or more, not -1\n" +
			"g.yaml:7:9: limits.turn: must be zero (no limit) or more, not -1"},
		{"string for a rate", "limits: {requests_per_second: many}", nil, `g.yaml:1:31: limits.requests_per_second: expected a whole number, got the string "many"`},
		{"auto registration", "auth: {agent_auto_registration: yes}", nil, `g.yaml:1:33: auth.agent_auto_registration: must be approved, pending or disabled, not "yes"`},
		{"tailscale", "tailscale: {enabled: true}", nil, "g.yaml:1:22: tailscale.hostname is required when tailscale is enabled\ng.yaml:1:22: tailscale.auth_key is required when tailscale is enabled (or set TS_AUTHKEY)"},
		{"tailscale without a home", "data_dir: /d\ntailscale: {enabled: true, hostname: h, auth_key: k}", vars{"HOME": ""}, "g.yaml:2:22: tailscale.state_dir is required when tailscale is enabled"},
		{"duration without unit", "agents: {heartbeat_interval: 30}", nil, `g.yaml:1:30: agents.heartbeat_interval: parsing heartbeat_interval "30": a duration needs a unit, did you mean 30s?`},
		{"no duration", "agents: {heartbeat_interval: soon}", nil, `g.yaml:1:30: agents.heartbeat_interval: parsing heartbeat_interval "soon": not a duration, write for example 30s, 5m or 1h30m`},
		{"zero duration", "server: {shutdown_grace: 0s}", nil, "g.yaml:1:26: server.shutdown_grace: must be more than zero, not 0s"},
		{"negative durations", "agents:\n  heartbeat_interval: -1s\n  heartbeat_timeout: -1s\n  reconnect_grace_period: -1s\n  turn_silence_timeout: -1s\n  cancel_grace_period: -1m\n  approval_timeout: -5m", nil, "g.yaml:2:23: agents.heartbeat_interval: must be more than zero, not -1s\n" +
			"g.yaml:3:22: agents.heartbeat_timeout: must be more than zero, not -1s\n" +
			"g.yaml:4:27: agents.reconnect_grace_period: must be more than zero, not -1s\n" +
			"g.yaml:5:25: agents.turn_silence_timeout: must be more than zero, not -1s\n" +
			"g.yaml:6:24: agents.cancel_grace_period: must be more than zero, not -1m\n" +
			"g.yaml:7:21: agents.approval_timeout: must be zero (as long as the turn lives) or more, not -5m"},
		{"timeout within the interval", "agents: {heartbeat_interval: 90s}", nil, "g.yaml:1:30: agents.heartbeat_timeout: 1m30s is not longer than agents.heartbeat_interval (1m30s)"},
		{"no size", "limits: {file: huge}", nil, `g.yaml:1:16: limits.file: "huge": not a size, write for example 4MiB, 10MB or 65536 (bytes)`},
		{"zero limits", "limits:\n  request_body: 0\n  message: -1KiB\n  file: 0MB\n  attachments: 0", nil, "g.yaml:2:17: limits.request_body: must be more than zero, not 0\n" +
			"g.yaml:3:12: limits.message: must be more than zero, not -1KiB\n" +
			"g.yaml:4:9: limits.file: must be more than zero, not 0\n" +
			"g.yaml:5:16: limits.attachments: must be more than zero, not 0"},
		{"level", "logging: {level: INFO}", nil, `g.yaml:1:18: logging.level: must be debug, info, warn or error, not "INFO"`},
		{"format", "logging: {format: xml}", nil, `g.yaml:1:19: logging.format: must be json or text, not "xml"`},
		{"admin listener that others reach", "admin: {listen: '0.0.0.0:6060'}", nil, `g.yaml:1:17: admin.listen: "0.0.0.0:6060" is not a loopback address such as 127.0.0.1:6060: what is served there asks nobody for credentials`},
		{"admin listener everywhere", "admin: {listen: ':6060'}", nil, `g.yaml:1:17: admin.listen: ":6060" is not a loopback address such as 127.0.0.1:6060: what is served there asks nobody for credentials`},
		{"admin listener with a name", "admin: {listen: 'localhost.example:6060'}", nil, `g.yaml:1:17: admin.listen: "localhost.example:6060" is not a loopback address such as 127.0.0.1:6060: what is served there asks nobody for credentials`},
		{"admin listener without a port", "admin: {listen: '127.0.0.1'}", nil, `g.yaml:1:17: admin.listen: "127.0.0.1" is not host:port`},
		{"metrics path without a slash", "metrics: {path: metrics}", nil, `g.yaml:1:17: metrics.path: must start with /, not be "metrics"`},
		{"metrics path below the API", "metrics: {path: /api/metrics}", nil, `g.yaml:1:17: metrics.path: "/api/metrics" collides with /api`},
		{"metrics path on health", "metrics: {path: /health}", nil, `g.yaml:1:17: metrics.path: "/health" collides with /health`},
		{"metrics path in every place", "metrics: {path: /}", nil, `g.yaml:1:17: metrics.path: "/" is not a plain path such as /metrics`},
		{"metrics path as a pattern", "metrics: {path: '/{x}'}", nil, `g.yaml:1:17: metrics.path: "/{x}" is not a plain path such as /metrics`},
		{"metrics path through the back door", "metrics: {path: /x/../api}", nil, `g.yaml:1:17: metrics.path: "/x/../api" is not a plain path such as /metrics`},
		{"relative URL", "webadmin: {base_url: coven.example}", nil, `g.yaml:1:22: webadmin.base_url: must be an absolute http or https URL, not "coven.example"`},
		{"URL of another kind", "webadmin: {base_url: 'ftp://a'}", nil, `g.yaml:1:22: webadmin.base_url: must be an absolute http or https URL, not "ftp://a"`},
		{"URL without a host", "mcp: {endpoint: 'http://:80/mcp'}", nil, `g.yaml:1:17: mcp.endpoint: must be an absolute http or https URL, not "http://:80/mcp"`},
		{"URL with a query", "webadmin: {base_url: 'http://a/?x=1'}", nil, `g.yaml:1:22: webadmin.base_url: must not have a query or fragment: "http://a/?x=1"`},
		{"URL with a password", "webadmin: {base_url: 'http://u:hunter2@a'}", nil, "g.yaml:1:22: webadmin.base_url: must not contain a user name or password"},
		{"URL with an impossible port", "webadmin: {base_url: 'http://a:99999'}", nil, `g.yaml:1:22: webadmin.base_url: the port of "http://a:99999" is not a number from 0 to 65535`},
		{"bad override", "", vars{"COVEN_GATEWAY_URL": "b"}, `environment COVEN_GATEWAY_URL: webadmin.base_url: must be an absolute http or https URL, not "b"`},

		// all at once, in the order of the file
		{
			"everything", "metrics: {path: m}\nserver: {http_addr: 1, x: y}\nauth: {jwt_secret: short}",
			vars{"COVEN_MCP_ENDPOINT": "b"},
			"g.yaml:1:17: metrics.path: must start with /, not be \"m\"\n" +
				"g.yaml:2:21: server.http_addr: expected a string, got the number 1\n" +
				"g.yaml:2:24: server.x: unknown key\n" +
				"g.yaml:3:20: auth.jwt_secret: JWT secret must be at least 32 bytes\n" +
				"environment COVEN_MCP_ENDPOINT: mcp.endpoint: must be an absolute http or https URL, not \"b\"",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load("g.yaml", []byte(tt.yaml), tt.env.lookup)
			if err == nil {
				t.Fatal("accepted")
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestComplaintsCanBeTakenApart(t *testing.T) {
	_, _, err := load("g.yaml", []byte("auth: {jwt_secret: short}"), vars{}.lookup)
	got, ok := errors.AsType[*Complaint](err)
	if !ok {
		t.Fatalf("no *Complaint in %v", err)
	}
	want := &Complaint{
		Origin: Origin{File: "g.yaml", Line: 1, Column: 20}, Key: "auth.jwt_secret",
		Message: "JWT secret must be at least 32 bytes",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFrontendsWarn(t *testing.T) {
	_, warnings, err := load("g.yaml", []byte(`
frontends:
  slack:
    enabled: false
    app_token: ${NOT_SET}
  matrix: {allowed_rooms: [a, b]}
  irc:
`), vars{}.lookup)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.String())
	}
	want := []string{
		"g.yaml:4:14: frontends.slack.enabled: the gateway has no Slack frontend of its own; run a bridge",
		"g.yaml:5:16: frontends.slack.app_token: the gateway has no Slack frontend of its own; run a bridge",
		"g.yaml:6:27: frontends.matrix.allowed_rooms: the gateway has no Matrix frontend of its own; run a bridge",
		"g.yaml:7:8: frontends.irc: the gateway has no irc frontend of its own; run a bridge",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, warnings, err = load("g.yaml", []byte("frontends:\n"), vars{}.lookup); len(warnings) > 0 || err != nil {
		t.Errorf("an empty section: warnings %v, error %v", warnings, err)
	}
}

func TestOrigins(t *testing.T) {
	c := mustLoad(t, "server:\n  http_addr: ':1'\nmcp: {endpoint: http://a}", vars{"COVEN_DB_PATH": "/a/b", "COVEN_MCP_ENDPOINT": "http://b"})
	for key, want := range map[string]string{
		"server.http_addr": "g.yaml:2",
		"server.grpc_addr": "default",
		"database.path":    "environment COVEN_DB_PATH",
		"data_dir":         "default, from database.path",
		"mcp.endpoint":     "environment COVEN_MCP_ENDPOINT",
	} {
		if got := c.Origin(key).String(); got != want {
			t.Errorf("%s comes from %q, want %q", key, got, want)
		}
	}
	if got := c.File(); got != "g.yaml" {
		t.Errorf("File() = %q", got)
	}
}

func TestWhichFile(t *testing.T) {
	home := t.TempDir()
	write := func(name, level string) string {
		t.Helper()
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("logging: {level: "+level+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	env := vars{"HOME": home}
	level := func(path string) string {
		t.Helper()
		c, _, err := Load(Options{Path: path, LookupEnv: env.lookup})
		if err != nil {
			t.Fatal(err)
		}
		return c.Logging.Level.String()
	}

	c, _, err := Load(Options{LookupEnv: env.lookup})
	if err != nil || c.File() != "" {
		t.Errorf("no file anywhere: file %q, error %v", c.File(), err)
	}
	write(".config/coven/gateway.yaml", "debug")
	if got := level(""); got != "DEBUG" {
		t.Errorf("~/.config: got %s", got)
	}
	write("xdg/coven/gateway.yaml", "warn")
	env["XDG_CONFIG_HOME"] = filepath.Join(home, "xdg")
	if got := level(""); got != "WARN" {
		t.Errorf("XDG_CONFIG_HOME: got %s", got)
	}
	write("e.yaml", "error")
	env["COVEN_CONFIG"] = "~/e.yaml"
	if got := level(""); got != "ERROR" {
		t.Errorf("COVEN_CONFIG: got %s", got)
	}
	if got := level(write("i.yaml", "info")); got != "INFO" {
		t.Errorf("explicit: got %s", got)
	}
}

func TestExplicitFileMustExist(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no.yaml")
	for name, o := range map[string]Options{
		"Path":         {Path: missing, LookupEnv: vars{}.lookup},
		"COVEN_CONFIG": {LookupEnv: vars{"COVEN_CONFIG": missing}.lookup},
	} {
		if _, _, err := Load(o); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Load(Options{Path: dir, LookupEnv: vars{}.lookup}); err == nil {
		t.Error("a folder was accepted")
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(Options{Path: big, LookupEnv: vars{}.lookup}); err == nil || !strings.Contains(err.Error(), "more than 64KiB") {
		t.Errorf("a file of 128 KiB: %v", err)
	}
}

func TestValidateInCode(t *testing.T) {
	c := Default()
	c.DataDir, c.Database.Path = "/d", ":memory:"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Limits.File = -1
	c.Auth.JWTSecrets = []Secret{""} // by len it would be one
	c.Auth.DefaultCapabilities = []string{"a", "B"}
	const want = "auth.jwt_secret: JWT secret must be at least 32 bytes\n" +
		"auth.default_capabilities: \"B\" is not a word of 1 to 64 lower-case letters, digits, _, - and :\n" +
		"limits.file: must be more than zero, not -1"
	if got := c.Validate().Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOriginsThatAreNone(t *testing.T) {
	for _, s := range []string{
		"", "null", "a.example", "ftp://a", "http://", "http://:80", "http://a/", "http://a/x", "http://a?x", "http://a#x", "http://a:", "http://a:0", "http://a:65536", "http://a:x",
		"http://*.a.example", "http://é.example", "http://a b", "http://[::1", "http://[1::2::3]", "http://::1", " http://a", "http://a http://b",
	} {
		_, _, err := load("g.yaml", fmt.Appendf(nil, "server: {cors_origins: [%q]}", s), vars{}.lookup)
		want := fmt.Sprintf("g.yaml:1:25: server.cors_origins: must be http or https, a host and perhaps a port, such as https://app.example:8443, not %q", s)
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", s, err, want)
		}
	}
}

func TestDecodeSecretsKey(t *testing.T) {
	var want [SecretsKeySize]byte
	for i := range want {
		want[i] = byte(i)
	}
	for _, s := range []Secret{hexKey, Secret(strings.ToLower(hexKey)), base64K} {
		if got, ok, err := (Auth{SecretsKey: s}).DecodeSecretsKey(); got != want || !ok || err != nil {
			t.Errorf("%q = %v, %v, %v", s.Reveal(), got, ok, err)
		}
	}
	if got, ok, err := (Auth{}).DecodeSecretsKey(); got != ([SecretsKeySize]byte{}) || ok || err != nil {
		t.Errorf("no key = %v, %v, %v", got, ok, err)
	}
	for _, s := range []string{
		hexKey[1:], hexKey + "00", "g" + hexKey[1:], " " + hexKey, hexKey + "\n", base64K[:43], base64K + "=", base64K + "\n", "\n" + base64K[1:],
		"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=",                                                 // bits behind the last byte
		"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", // 33 and 31 bytes
		"-_ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", // the other base64
	} {
		if got, ok, err := (Auth{SecretsKey: Secret(s)}).DecodeSecretsKey(); ok || err == nil || got != ([SecretsKeySize]byte{}) || strings.Contains(err.Error(), s) {
			t.Errorf("%q = %v, %v, %v", s, got, ok, err)
		}
	}
}

func TestSecretsOutOfFiles(t *testing.T) {
	dir := t.TempDir()
	for name, s := range map[string]string{"new": other32 + "\n", "old": secret32 + "\n", "key": base64K + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := mustLoad(t, "auth:\n  jwt_secret: ['${file:~/new}', '${file:~/old}']\n  secrets_key: ${file:~/key}\n", vars{"HOME": dir})
	if d := cmp.Diff([]Secret{other32, secret32, base64K}, append(c.Auth.JWTSecrets, c.Auth.SecretsKey)); d != "" {
		t.Error(d)
	}
}

// Each exported leaf of Config has exactly one key.
func TestEveryFieldHasAKey(t *testing.T) {
	var leaves func(reflect.Type) int
	leaves = func(s reflect.Type) (n int) {
		for f := range s.Fields() {
			switch {
			case !f.IsExported():
			case f.Type.Kind() == reflect.Struct:
				n += leaves(f.Type)
			default:
				n++
			}
		}
		return n
	}
	var c Config
	keys := map[string]bool{}
	for _, f := range c.fields() {
		keys[f.key] = true
	}
	if got, want := len(keys), leaves(reflect.TypeFor[Config]()); got != want {
		t.Errorf("%d keys for %d fields", got, want)
	}
}

// The example names every key, explains each, and calls nothing a default that is not.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("testdata/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := load("gateway.yaml", data, vars{"COVEN_JWT_SECRET": secret32}.lookup)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("warnings %v, error %v", warnings, err)
	}
	std := defaults()
	want := map[string]string{}
	for _, f := range std.fields() {
		want[f.key] = f.show()
	}
	lines := strings.Split(string(data), "\n")
	for _, f := range c.fields() {
		at := c.Origin(f.key)
		if at.File == "" {
			t.Errorf("%s is missing", f.key)
			continue
		}
		if above := strings.TrimSpace(lines[at.Line-2]); !strings.HasPrefix(above, "#") {
			t.Errorf("%s has no comment above it", f.key)
		}
		isDefault := strings.HasSuffix(lines[at.Line-1], " # default")
		if same := f.show() == want[f.key]; same != isDefault {
			t.Errorf("%s: equal to the default: %v, said to be: %v", f.key, same, isDefault)
		}
	}
}

func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("testdata/gateway.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	for _, s := range []string{
		"", "a: [", "server: {http_addr: ':1'}", "data_dir: ~/${HOME}$${x}\n", "- &a *a", "? x\n: y", "%YAML\n---\n", "<<: {a: b}",
		"limits: {file: 4MiB, attachments: 0x10}", "agents:\n  heartbeat_interval: !!str 5", "frontends: {slack: {a: |\n  x\n}}", "\"a\\u2028\": 'b'",
		"auth: {jwt_secret: ['${COVEN_JWT_SECRET}', " + other32 + "], default_capabilities: [a, 'b:c'], secrets_key: " + base64K + "}",
		"auth:\n  jwt_secret:\n  - [a]\n  - {b: c}\n  -\n  - &d e\n", "server: {cors_origins: ['http://[::1]:1', \"https://a.example\", *x]}",
	} {
		f.Add(s)
	}
	env := vars{"COVEN_JWT_SECRET": secret32}
	f.Fuzz(func(t *testing.T, yaml string) {
		if strings.Contains(yaml, "file:") || len(yaml) > maxFile {
			t.Skip("reads files of this machine, or is more than Load would read")
		}
		c, _, err := load("g.yaml", []byte(yaml), env.lookup)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "g.yaml:") {
					t.Errorf("a line without a place: %q", line)
				}
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("accepted, but not valid: %v", err)
		}
		if _, _, err := load("g.yaml", []byte(yaml+"\nzzz: 1\n"), env.lookup); err == nil {
			t.Error("a key behind it is lost without a word")
		}
		checkPrint(t, c)
	})
}
