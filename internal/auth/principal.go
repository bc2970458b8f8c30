// Package auth knows who a caller is and what it may do: principals and their keys, tokens, roles
// and capabilities, the authorization tables of all RPCs and routes, stored secrets, and the audit
// log of every change to any of these.
//
// Nothing here trusts a field of a message. A [Principal] comes from credentials, see
// [Service.Authenticate], or, in open mode, from a loopback address.
package auth

import (
	"context"
	"slices"
	"time"

	"coven-gateway/internal/fault"
)

// Kind says what a principal is.
type Kind string

// The kinds of principals.
const (
	Client Kind = "client"
	Agent  Kind = "agent"
	Pack   Kind = "pack"
	User   Kind = "user" // a person who logs in to the web pages
	Nobody Kind = "anonymous"
)

// Status says whether a principal may call.
type Status string

// The states of a principal.
const (
	Pending  Status = "pending"  // waits for an administrator
	Approved Status = "approved" // may call
	Revoked  Status = "revoked"  // may not call any more
)

// A Principal is an identity. In a context it is the caller and has a Credential.
type Principal struct {
	ID           string // stable, random
	Kind         Kind
	Name         string // for people
	Status       Status
	Roles        []Role   // the highest first
	Capabilities []string // granted to it by name, sorted
	CreatedAt    time.Time
	CreatedBy    string    // the id of a principal; "" where nobody did
	LastSeen     time.Time // of its last call; zero if it never called
	Online       bool      // a call of it is under way; set by Service.Principals and Service.Principal
	Credential   Credential

	oversees bool // see Overseeing
}

// A Credential is how a caller has shown who it is.
type Credential struct {
	Kind    CredentialKind
	ID      string  // the fingerprint of the key, or the id of the token
	Scopes  []Scope // what it is good for; nil is everything the principal may
	Address string  // the caller's, without port

	// When whoever has a session has last shown who it is, and when it, or an MCP client's token, ends at
	// the latest.
	ProvedAt, Ends time.Time

	// Connection tells connections of the caller apart; 0 if it is not known.
	Connection uint64

	asOf uint64 // state of rights it was checked against, see Service.Enter
}

// CredentialKind says what kind of credential was shown.
type CredentialKind string

// The kinds of credentials.
const (
	SSHKey   CredentialKind = "ssh"
	JWT      CredentialKind = "jwt"
	APIToken CredentialKind = "api"
	Session  CredentialKind = "session" // of a browser, in a cookie
	OAuth    CredentialKind = "oauth"   // of an MCP client, from a person; its id is that of the grant
	Open     CredentialKind = "open"    // none: the gateway asks for none
)

// Anonymous is everyone in open mode.
var Anonymous = Principal{
	ID: "anonymous", Kind: Nobody, Name: "anonymous", Status: Approved,
	Roles: []Role{Owner}, Credential: Credential{Kind: Open},
}

// Has reports whether a principal has a role, or one that includes it.
func (p Principal) Has(r Role) bool {
	return slices.ContainsFunc(p.Roles, func(q Role) bool { return q == r || q.rank() > r.rank() && q.rank() >= Admin.rank() })
}

// rank is the rank of the highest role.
func (p Principal) rank() int {
	n := 0
	for _, r := range p.Roles {
		n = max(n, r.rank())
	}
	return n
}

type principalKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the caller. Every transport puts one there before any handler runs; a context
// without one is a fault of ours, answered as unauthenticated.
func From(ctx context.Context) (Principal, error) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	if !ok {
		return Principal{}, fault.New(fault.Unauthenticated, "not authenticated")
	}
	return p, nil
}
