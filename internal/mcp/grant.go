package mcp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"coven-gateway/internal/packs"
)

// A Grant is the token of a connected agent. It ends with the agent's connection.
type Grant struct {
	key    string
	ctx    context.Context
	caller func() packs.Caller
}

type grantKey struct{}

// Grant makes a token for a connected agent, which is good until ctx ends, and returns it with the
// URL that it is for. Caller says who the agent is, and what it is doing; it must not wait.
func (s *Server) Grant(ctx context.Context, caller func() packs.Caller) (endpoint, token string) {
	token = rand.Text()
	hash := sha256.Sum256([]byte(token))
	g := &Grant{key: "agent:" + hex.EncodeToString(hash[:]), ctx: ctx, caller: caller}
	s.mu.Lock()
	s.grants[hash] = g
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.grants, hash)
	})
	return s.opts.Endpoint, token
}

// Granted returns the grant that a token is of, or nil.
func (s *Server) Granted(token string) *Grant {
	hash := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.grants[hash]; g != nil && g.ctx.Err() == nil {
		return g
	}
	return nil
}

// Caller is the agent.
func (g *Grant) Caller() packs.Caller { return g.caller() }

// With returns a context of a request with the token. It ends with the agent's connection; end must
// be called.
func (g *Grant) With(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, grantKey{}, g))
	stop := context.AfterFunc(g.ctx, func() { cancel(errDisconnected) })
	return ctx, func() { stop(); cancel(nil) }
}
