// Package auth knows who a caller is.
//
// Until credentials exist there is one mode, open: a caller from a loopback address is Anonymous
// with full rights, everybody else is refused.
package auth

import (
	"context"
	"net"
	"net/netip"

	"coven-gateway/internal/fault"
)

// A Principal is an authenticated identity. It comes from credentials, never from a message.
type Principal struct {
	ID   string // stable
	Kind string // "client", "agent", "pack" or, in open mode, "anonymous"
	Name string // for people
}

// Anonymous is everyone in open mode.
var Anonymous = Principal{ID: "anonymous", Kind: "anonymous", Name: "anonymous"}

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

// Open authenticates a peer of an open gateway by its network address.
func Open(peer string) (Principal, error) {
	if !loopback(peer) {
		return Principal{}, fault.New(fault.Forbidden,
			"this gateway has no authentication configured and therefore serves loopback addresses only; your address is %s", peer)
	}
	return Anonymous, nil
}

// loopback reports whether addr is a loopback "host:port" or an in-process connection.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr == "bufconn" || addr == "pipe" || addr == "@"
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
