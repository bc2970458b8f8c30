package auth

import (
	"context"
	"sync"

	"coven-gateway/internal/fault"
)

// sessions are the calls under way, so that they can be ended when their caller loses its rights.
type sessions struct {
	mu          sync.Mutex
	byPrincipal map[string]map[*session]struct{}
}

type session struct {
	credential string // the fingerprint of the key or the id of the token it was made with
	end        context.CancelCauseFunc
}

func (x *sessions) add(principalID string, s *session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.byPrincipal[principalID]
	if m == nil {
		m = make(map[*session]struct{})
		x.byPrincipal[principalID] = m
	}
	m[s] = struct{}{}
}

func (x *sessions) remove(principalID string, s *session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.byPrincipal[principalID]
	if delete(m, s); len(m) == 0 {
		delete(x.byPrincipal, principalID)
	}
}

// online reports whether a call of a principal is under way.
func (x *sessions) online(principalID string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.byPrincipal[principalID]) > 0
}

// end ends the calls of a principal.
func (x *sessions) end(principalID string, cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for s := range x.byPrincipal[principalID] {
		s.end(cause)
	}
}

// endCredential ends the calls that were made with a key or a token.
func (x *sessions) endCredential(id string, cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range x.byPrincipal {
		for s := range m {
			if s.credential == id {
				s.end(cause)
			}
		}
	}
}

// Enter begins a call of an authenticated caller. The context ends, with the reason as its cause, as
// soon as the caller loses its rights; leave must be called at the end.
func (s *Service) Enter(ctx context.Context, p Principal) (_ context.Context, leave func(), err error) {
	if p.Credential.Kind == Open {
		return With(ctx, p), func() {}, nil
	}
	ctx, end := context.WithCancelCause(With(ctx, p))
	x := &session{p.Credential.ID, end}
	s.sessions.add(p.ID, x)
	stop := func() {}
	if !p.Credential.Ends.IsZero() { // a stream does not outlast it
		what := "session"
		if p.Credential.Kind == OAuth {
			what = "token"
		}
		ctx, stop = context.WithDeadlineCause(ctx, p.Credential.Ends, fault.New(fault.Unauthenticated, "the %s has expired", what))
	}
	leave = func() {
		s.sessions.remove(p.ID, x)
		s.touch(p)
		stop()
		end(nil)
	}
	// Rights may have changed since they were looked up. Who changes them ends sessions after
	// that is done, so either we see the change here or it sees us there.
	if s.cache.state() != p.Credential.asOf {
		if err := s.Recheck(ctx, p); err != nil {
			leave()
			return nil, nil, err
		}
	}
	s.touch(p)
	return ctx, leave, nil
}

// Recheck returns why a caller may not call any more, from what is stored now; nil if it may.
func (s *Service) Recheck(ctx context.Context, p Principal) error {
	if p.Credential.Kind == Open {
		return nil
	}
	read := s.store.Read(ctx)
	now, err := read.Principal(p.ID)
	if err != nil {
		return gone(err)
	}
	if err := now.mayCall(); err != nil {
		return err
	}
	if p.Credential.Kind == SSHKey {
		switch holder, err := read.PrincipalByKey(p.Credential.ID); {
		case fault.CodeOf(err) == fault.NotFound, err == nil && holder.ID != p.ID:
			return fault.Wrap(err, fault.Unauthenticated, "unknown public key")
		default:
			return err
		}
	}
	if p.Credential.Kind == OAuth {
		g, err := read.OAuthGrant(p.Credential.ID)
		if err != nil {
			return gone(err)
		}
		return g.good()
	}
	t, err := read.Token(p.Credential.ID)
	if err != nil {
		return gone(err)
	}
	return t.good()
}
