package mcp

import (
	"cmp"
	"context"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

var (
	errDisconnected = fault.New(fault.Unauthenticated, "the agent has disconnected")
	errNoSession    = fault.New(fault.NotFound, "session not found")
)

// A session is a client that wants to hear when tools come or go.
type session struct {
	id, key string
	sdk     *mcp.ServerSession
	since   time.Time
	ctx     context.Context // ends with it
	end     func()          // what must be called then; called once

	// Guarded by Server.mu.
	busy int         // requests
	idle *time.Timer // ends it; runs while it is not busy
}

// reserve makes room for a session; done must be called when it was opened. It reports whether
// there is room.
func (s *Server) reserve() (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || len(s.sessions)+s.opening >= MaxSessions {
		return nil, false
	}
	s.opening++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.opening--
	}, true
}

// keep enters a session that a client has opened. It lives no longer than its caller's rights. When
// one token has too many, the oldest ends, of those that do nothing if there are any.
func (s *Server) keep(c *caller, sdk *mcp.ServerSession) error {
	x := &session{id: sdk.ID(), key: c.key, sdk: sdk, since: time.Now()}
	ctx, cancel := context.WithCancel(s.ctx)
	leave := func() {}
	if c.grant != nil {
		stop := context.AfterFunc(c.grant.ctx, cancel)
		leave = func() { stop() }
	} else {
		var err error
		p := c.principal
		if p.Credential.Kind == auth.OAuth { // the next token of the grant goes on with it
			p.Credential.Ends = time.Time{}
		}
		if ctx, leave, err = s.opts.Enter(ctx, p); err != nil {
			cancel()
			return err
		}
	}
	x.ctx = ctx
	x.end = func() { cancel(); leave() }
	s.mu.Lock()
	var oldest *session
	n := 0
	for _, y := range s.sessions {
		if y.key == c.key {
			n++
			if oldest == nil || cmp.Or(cmp.Compare(min(y.busy, 1), min(oldest.busy, 1)), y.since.Compare(oldest.since)) < 0 {
				oldest = y
			}
		}
	}
	if n >= MaxSessionsOfOne {
		s.drop(oldest)
	}
	s.sessions[x.id] = x
	x.idle = time.AfterFunc(IdleTimeout, func() { s.finish(x) })
	s.mu.Unlock()
	context.AfterFunc(ctx, func() { s.finish(x) })
	return nil
}

// use returns a session of a caller; done must be called.
func (s *Server) use(c *caller, id string) (_ *session, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil || x.key != c.key {
		return nil, nil, errNoSession
	}
	x.busy++
	x.idle.Stop()
	return x, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if x.busy--; x.busy == 0 && s.sessions[id] == x {
			x.idle.Reset(IdleTimeout)
		}
	}, nil
}

// of returns the context of a session that a method runs in, or nil where there is none.
func (s *Server) of(id string) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[id]; x != nil {
		return x.ctx
	}
	return nil
}

// finish ends a session.
func (s *Server) finish(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(x)
}

// drop ends a session, without effect when it has ended. Its calls end with its context, and then
// the SDK's part of it. s.mu is held.
func (s *Server) drop(x *session) {
	if s.sessions[x.id] != x {
		return
	}
	delete(s.sessions, x.id)
	x.idle.Stop()
	s.closers.Go(func() {
		x.end()
		_ = x.sdk.Close() // the connection is in memory
	})
}
