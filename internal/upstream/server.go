package upstream

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Limits of the settings of a server.
const (
	MaxName      = 40 // bytes
	MaxArguments = 64 // of a command, the program included
	MaxVariables = 64 // environment variables, or headers
	MaxAllowed   = packs.MaxTools
	maxWord      = 4 << 10 // bytes of an argument, a path, a URL, the value of a variable or header
)

// Sessions says who shares a session with a server.
type Sessions string

// The values of Sessions.
const (
	Shared   Sessions = "shared" // all callers
	PerAgent Sessions = "agent"  // each agent has its own; so has each principal that is no agent
)

// A Server is an MCP server and how it is used.
type Server struct {
	Name    string   `json:"-"`
	Command []string `json:"command,omitempty"` // the program and its arguments; no shell reads them
	Dir     string   `json:"cwd,omitempty"`     // where it runs; the gateway's own directory without
	// Env are its environment variables beside a few harmless ones of the gateway's own, and Headers
	// what a server behind a URL is sent. ${secret:NAME} in a value stands for a stored secret.
	Env     map[string]string `json:"env,omitempty"`
	URL     string            `json:"url,omitempty"` // of Streamable HTTP
	Headers map[string]string `json:"headers,omitempty"`

	Prefix       string        `json:"prefix"`          // before the names of its tools
	Tools        []string      `json:"tools,omitempty"` // those that may be used, by the server's own names; nil for all
	Sessions     Sessions      `json:"session"`
	AutoAccept   bool          `json:"auto_accept,omitempty"`   // new tools need not be accepted; changed ones do
	AllowPrivate bool          `json:"allow_private,omitempty"` // its address may be on this machine or in a private network
	Timeout      time.Duration `json:"timeout,omitempty"`       // of a call; 0 for packs.DefaultTimeout

	Enabled   bool      `json:"-"`
	CreatedAt time.Time `json:"-"`
	CreatedBy string    `json:"-"`
}

var (
	serverName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	toolPrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	header     = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	reference  = regexp.MustCompile(`\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}`)
)

// check completes the settings and returns what is wrong with them, as an Invalid fault.
func (c *Server) check() error {
	if c.Sessions == "" {
		c.Sessions = Shared
	}
	bad := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	switch {
	case len(c.Name) > MaxName || !serverName.MatchString(c.Name):
		return bad("name must have 1 to %d lower-case letters, digits, - and _, and begin with a letter or digit", MaxName)
	case (len(c.Command) > 0) == (c.URL != ""):
		return bad("either command or url is required")
	case len(c.Command) > MaxArguments:
		return bad("command must not have more than %d words; this one has %d", MaxArguments, len(c.Command))
	case len(c.Command) > 0 && c.Command[0] == "":
		return bad("command must begin with a program")
	case len(c.Command) > 0 && len(c.Headers) > 0:
		return bad("headers are for a server with a url")
	case c.URL != "" && (len(c.Env) > 0 || c.Dir != ""):
		return bad("env and cwd are for a server with a command")
	case len(c.Env) > MaxVariables || len(c.Headers) > MaxVariables:
		return bad("env and headers must not have more than %d entries", MaxVariables)
	case len(c.Prefix) > MaxName || !toolPrefix.MatchString(c.Prefix):
		return bad("prefix must not have more than %d letters, digits, '_', '-' and '.'", MaxName)
	case len(c.Tools) > MaxAllowed:
		return bad("tools must not have more than %d entries; this one has %d", MaxAllowed, len(c.Tools))
	case c.Sessions != Shared && c.Sessions != PerAgent:
		return bad("session must be %s or %s; got %q", Shared, PerAgent, c.Sessions)
	case c.Timeout < 0 || c.Timeout > packs.MaxTimeout:
		return bad("timeout_seconds must be 0 to %d", int(packs.MaxTimeout.Seconds()))
	}
	for _, w := range slices.Concat(c.Command, c.Tools, []string{c.Dir, c.URL}) {
		if len(w) > maxWord || !utf8.ValidString(w) || strings.ContainsRune(w, 0) {
			return bad("the words of command and tools, cwd and url must be UTF-8 without NUL and not longer than %d bytes", maxWord)
		}
	}
	for name, v := range c.Env {
		if len(name) > maxWord || !variable.MatchString(name) || len(v) > maxWord || strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
			return bad("env: %q must be the name of a variable, and its value UTF-8 without NUL and not longer than %d bytes", clip(name), maxWord)
		}
	}
	for name, v := range c.Headers {
		if len(name) > maxWord || !header.MatchString(name) || len(v) > maxWord || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad("headers: %q must be the name of a header, and its value a line of text that is not longer than %d bytes", clip(name), maxWord)
		}
	}
	if c.URL != "" {
		return checkURL(c.URL)
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fault.New(fault.Invalid, "url must be an absolute http or https URL")
	case u.User != nil:
		return fault.New(fault.Invalid, "url must not contain a user name or password; use headers")
	case u.Fragment != "":
		return fault.New(fault.Invalid, "url must not have a fragment")
	}
	return nil
}

// shownURL is a URL without its query, which may be a credential.
func shownURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.RawQuery == "" {
		return s
	}
	u.RawQuery = "…"
	return u.String()
}

// secrets are the names of the secrets that a server is given, sorted.
func (c Server) secrets() []string {
	names := []string{}
	for _, m := range []map[string]string{c.Env, c.Headers} {
		for _, v := range m {
			for _, ref := range reference.FindAllStringSubmatch(v, -1) {
				names = append(names, ref[1])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Shown is a server as it may be shown: of the values of variables and headers only the names of
// secrets.
func (c Server) Shown() Server {
	c.URL = shownURL(c.URL)
	c.Env, c.Headers = shown(c.Env), shown(c.Headers)
	return c
}

func shown(values map[string]string) map[string]string {
	out := make(map[string]string, len(values))
	for name, v := range values {
		refs := reference.FindAllString(v, -1)
		if len(refs) == 0 {
			refs = []string{"[redacted]"}
		}
		out[name] = strings.Join(refs, " ")
	}
	return out
}

// allows reports whether a tool of the server may be used.
func (c Server) allows(tool string) bool { return len(c.Tools) == 0 || slices.Contains(c.Tools, tool) }
