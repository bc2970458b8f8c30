package auth

import "coven-gateway/internal/fault"

// A Role is a set of rights. Owner includes admin, admin includes member and leader; those two say
// nothing about each other.
type Role string

// The roles.
const (
	Owner  Role = "owner"  // everything, and makes owners
	Admin  Role = "admin"  // everything but what concerns owners
	Member Role = "member" // registers the keys of its own agents and devices
	Leader Role = "leader" // an agent that directs others
)

func (r Role) rank() int {
	switch r {
	case Owner:
		return 3
	case Admin:
		return 2
	case Member, Leader:
		return 1
	default:
		return 0
	}
}

// ParseRole returns a role by name, or an Invalid fault.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r.rank() > 0 {
		return r, nil
	}
	return "", fault.New(fault.Invalid, "role must be owner, admin, member or leader; got %q", s)
}

// A Scope narrows what a token is good for.
type Scope string

// The scopes of API tokens.
const (
	ScopeRead    Scope = "read"    // see agents, conversations and usage
	ScopeSend    Scope = "send"    // write to agents, stop turns, answer what they ask
	ScopeConnect Scope = "connect" // be an agent or a pack
	ScopeDevices Scope = "devices" // register keys of agents and devices
	ScopeAdmin   Scope = "admin"   // administer
)

// ParseScope returns a scope by name, or an Invalid fault.
func ParseScope(s string) (Scope, error) {
	switch Scope(s) {
	case ScopeRead, ScopeSend, ScopeConnect, ScopeDevices, ScopeAdmin:
		return Scope(s), nil
	}
	return "", fault.New(fault.Invalid, "scope must be read, send, connect, devices or admin; got %q", s)
}
