// Package packs knows every tool that agents and people can call through the gateway, whoever runs
// it: the gateway itself, a pack that is connected over gRPC, an agent that hosts tools, an MCP
// server. To this package they are all the same: a [Pack] is a named set of [Tool] values, and a
// tool is a function. It knows no transport.
//
// Whoever runs tools calls [Registry.Add] and, when it goes away, [Registration.Remove]; whoever
// wants a tool run calls [Registry.Call]. Everything that must hold for every call is in that one
// function: whether the tool exists and is enabled, whether the caller may use it now, how often,
// that its input matches the schema, that nobody waits for itself, how long it may take, how large
// its result may be, and that it ends at once when its pack goes away.
//
// Who owns what: a Registration belongs to whoever added it, and its fields never change, except
// for what the registry's mutex guards. A call runs on the goroutine of its caller and has none of
// its own. The package starts no goroutines; a tool's Call must not leave any behind, and must
// return soon after its context ends.
package packs

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Limits of packs and calls. Lengths are in bytes.
const (
	// MaxInput and MaxOutput bound what a call is given and what it returns: existing packs and
	// agents decode messages of at most 4 MiB.
	MaxInput  = 3 << 20
	MaxOutput = 3 << 20
	// MaxTools is how many tools a pack may have.
	MaxTools = 512
	// MaxPacks is how many packs there may be at once, besides those of the gateway itself.
	MaxPacks = 4096
	// DefaultTimeout is how long a call may take of a tool that does not say; MaxTimeout is the
	// longest that a tool gets, whatever it says.
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 10 * time.Minute

	maxPackID      = 300 // the id of an agent that hosts tools, with a prefix
	maxVersion     = 100
	maxToolName    = 128
	maxDescription = 16 << 10
	maxSchema      = 64 << 10
	maxNeeds       = 64
	maxNeed        = 64
)

// Kind says who runs the tools of a pack.
type Kind string

// The kinds of packs.
const (
	Builtin Kind = "builtin" // the gateway
	Remote  Kind = "remote"  // a program that is connected over gRPC
	Hosted  Kind = "agent"   // an agent
	MCP     Kind = "mcp"     // an MCP server
)

// A Pack is a set of tools that come and go together.
type Pack struct {
	ID        string // unique among the packs
	Kind      Kind
	Version   string // for people
	Principal string // whose credentials it has shown; "" for the gateway's own
	AgentID   string // of the agent that hosts it; else ""
	Tools     []Tool
}

// A Tool is something that can be called.
type Tool struct {
	Name        string // unique among all tools
	Description string // for the model that decides whether to call it
	Schema      string // JSON Schema of the input, which is an object; "" for any object
	Needs       []string
	Timeout     time.Duration // of a call, waiting included; DefaultTimeout where it is 0

	// OwnWords says that Call refuses input that does not match the schema by itself, in words that
	// callers know.
	OwnWords bool

	// Call runs the tool. The output is one JSON document. A [fault.Error] is for the caller, see
	// [Failed]; the text of every other error is only logged. The context ends when the call must
	// end, and carries the caller's principal.
	Call func(ctx context.Context, c *Call) (output string, err error)
}

// A Caller is who calls a tool, in what.
type Caller struct {
	Principal auth.Principal
	AgentID   string // of the agent that calls, or on whose behalf somebody does; "" for none
	TurnID    string // that the agent is answering; "" where that is not known

	// OnStream says that the agent calls by itself, on its stream: of the capabilities that its
	// principal has now, only those count that took effect when it connected.
	OnStream     bool
	Capabilities []string
}

// A Call is one call of a tool.
type Call struct {
	Caller
	ID    string // of this call, random: nobody can guess it
	Tool  string
	Input json.RawMessage // as it is to be handed on; never empty

	registry *Registry
}

// WaitFor says that the call is going to wait for an agent to answer. It fails with a Conflict
// fault if that agent waits for the caller, directly or through others: the call would never end.
// done must be called when the waiting is over.
func (c *Call) WaitFor(agentID string) (done func(), err error) {
	return c.registry.waits.add(c.AgentID, agentID)
}

// Require returns a Forbidden fault unless the caller has a capability: for tools that do more for
// some than for others.
func (c *Call) Require(ctx context.Context, capability string) error {
	return c.require(ctx, c.registry.opts.Rights, capability)
}

// maxFailure bounds the words of a failure, in bytes.
const maxFailure = 64 << 10

// Failed returns the error of a tool that has failed, in words for the caller.
func Failed(words string) error {
	if len(words) > maxFailure {
		words = words[:maxFailure] + "…"
	}
	return &fault.Error{Code: fault.ToolFailed, Msg: strings.ToValidUTF8(words, "\uFFFD")}
}

// toolName is what a tool may be called: what MCP and the models' own interfaces take.
var toolName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// check returns what is wrong with a pack as a whole, as an Invalid fault.
func (p Pack) check() error {
	switch {
	case p.ID == "":
		return fault.New(fault.Invalid, "pack_id is required")
	case len(p.ID) > maxPackID:
		return fault.New(fault.Invalid, "pack_id must not be longer than %d bytes; this one has %d", maxPackID, len(p.ID))
	case !printable(p.ID):
		return fault.New(fault.Invalid, "pack_id must be UTF-8 without control characters")
	case len(p.Version) > maxVersion || !printable(p.Version):
		return fault.New(fault.Invalid, "version must be UTF-8 without control characters and not longer than %d bytes", maxVersion)
	case len(p.Tools) > MaxTools:
		return fault.New(fault.Invalid, "a pack must not have more than %d tools; this one has %d", MaxTools, len(p.Tools))
	}
	prefix, _, _ := strings.Cut(p.ID, ":")
	if k := Kind(prefix); prefix != p.ID && (k == Builtin || k == Hosted || k == MCP) && k != p.Kind {
		return fault.New(fault.Invalid, "pack_id must not begin with %q, which names packs of the gateway", prefix+":")
	}
	return nil
}

// check returns what is wrong with a tool, beside its schema.
func (t Tool) check() error {
	switch {
	case t.Name == "":
		return fmt.Errorf("a tool needs a name")
	case len(t.Name) > maxToolName || !toolName.MatchString(t.Name):
		return fmt.Errorf("a name is 1 to %d letters, digits, '_', '-' or '.'", maxToolName)
	case len(t.Description) > maxDescription || !utf8.ValidString(t.Description):
		return fmt.Errorf("the description must be UTF-8 and not longer than %d bytes; it has %d", maxDescription, len(t.Description))
	case len(t.Schema) > maxSchema:
		return fmt.Errorf("the input schema must not be longer than %d bytes; it has %d", maxSchema, len(t.Schema))
	case len(t.Needs) > maxNeeds:
		return fmt.Errorf("it must not need more than %d capabilities; it needs %d", maxNeeds, len(t.Needs))
	case t.Timeout < 0:
		return fmt.Errorf("timeout_seconds must not be negative")
	}
	for _, n := range t.Needs {
		if n == "" || len(n) > maxNeed || !printable(n) {
			return fmt.Errorf("a required capability has 1 to %d bytes and no control characters", maxNeed)
		}
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
