package conversation

import (
	"context"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A Policy says what a caller may do beside seeing and steering the turns that it began.
type Policy interface {
	// Oversees reports whether a caller may see and steer every turn of an agent's conversation;
	// with agentID "", of all conversations.
	Oversees(ctx context.Context, p auth.Principal, agentID string) (bool, error)
	// KnowsAgent reports whether somebody owns an agent id, or it names a principal that is an
	// agent.
	KnowsAgent(ctx context.Context, id string) (bool, error)
	// AgentOf returns the agent id that an id names: one that somebody owns, or the only one of the
	// principal that it is. It returns a NotFound fault for any other, and a Conflict for a principal
	// that has several.
	AgentOf(ctx context.Context, id string) (agentID string, err error)
	// Recheck returns why a caller may not call any more, from what is stored now; nil if it may.
	Recheck(ctx context.Context, p auth.Principal) error
}

// scope returns whose turns of an agent's conversation the caller may see: only those of the
// principal that it names, or with "" everybody's.
func (s *Service) scope(ctx context.Context, agentID string) (principal string, err error) {
	p, err := auth.From(ctx)
	if err != nil {
		return "", err
	}
	all, err := s.opts.Policy.Oversees(ctx, p, agentID)
	if err != nil || all {
		return "", err
	}
	return p.ID, nil
}

// readTurn returns a turn that the caller may see. One that it may not see is not found.
func (s *Service) readTurn(ctx context.Context, id string) (Turn, error) {
	t, err := s.log.Turn(ctx, id)
	if err != nil {
		return Turn{}, err
	}
	if whose, err := s.scope(ctx, t.AgentID); err != nil {
		return Turn{}, err
	} else if whose != "" && whose != t.PrincipalID {
		return Turn{}, fault.New(fault.NotFound, "no turn %q", id)
	}
	return t, nil
}

// readThread returns a thread in which the caller may see something, and whose turns these are.
func (s *Service) readThread(ctx context.Context, id string) (t Thread, whose string, err error) {
	if t, err = s.log.Thread(ctx, id); err != nil {
		return Thread{}, "", err
	}
	if whose, err = s.scope(ctx, t.AgentID); err != nil || whose == "" {
		return t, "", err
	}
	if took, err := s.log.TookPart(ctx, id, whose); err != nil || !took {
		if err == nil {
			err = fault.New(fault.NotFound, "thread not found")
		}
		return Thread{}, "", err
	}
	return t, whose, nil
}

// EndTurnsOf ends the open turns of a principal that has lost its rights, and tells the agents.
func (s *Service) EndTurnsOf(principalID, cause string) {
	s.mu.Lock()
	var open []*liveTurn
	for _, t := range s.open {
		if t.principal == principalID {
			open = append(open, t)
		}
	}
	s.mu.Unlock()
	for _, t := range open {
		t.stop(cause)
	}
}

// stop ends a turn at once, whether the agent understands cancellation or not.
func (t *liveTurn) stop(cause string) {
	t.mu.Lock()
	call := t.call
	t.mu.Unlock()
	if call != nil {
		call.Cancel(cause)
	}
	t.end(Ended{State: Cancelled, Cause: cause})
}
