package auth

import (
	"context"
	"slices"

	"coven-gateway/internal/fault"
)

// Admit decides whether the caller may be an agent with an id. The first principal that uses an id
// owns it. It returns the capabilities that take effect of those the agent asks for, and the
// secrets it gets. In open mode nobody owns anything.
//
// An id of somebody else is an Exists fault: existing agents then try another one.
func (s *Service) Admit(ctx context.Context, agentID string, asks []string) (capabilities []string, secrets map[string]string, err error) {
	p, err := From(ctx)
	if err != nil {
		return nil, nil, err
	}
	taken := fault.New(fault.Exists, "agent %s already registered", agentID)
	owned := p.Credential.Kind == Open
	if !owned {
		o, err := s.owner(s.store.Read(ctx), agentID)
		switch {
		case err == nil && o.PrincipalID != p.ID:
			return nil, nil, fault.Wrap(fault.New(fault.Exists, "it is owned by principal %s", o.PrincipalID), fault.Exists, "%s", taken.Msg)
		case err != nil && fault.CodeOf(err) != fault.NotFound:
			return nil, nil, err
		}
		owned = err == nil
	}
	read := s.store.Read(ctx)
	if secrets, err = s.secretsOf(read, agentID); err != nil {
		return nil, nil, err
	}
	if !owned || len(secrets) > 0 {
		err = s.change(ctx, func(c *change) error {
			if !owned {
				switch o, err := c.AgentOwner(agentID); {
				case err == nil && o.PrincipalID != p.ID: // a parallel call was first
					return taken
				case fault.CodeOf(err) == fault.NotFound:
					if err := c.SetAgentOwner(AgentID{agentID, p.ID, c.now}); err != nil {
						return err
					}
					if err := c.audit("claim_agent", "agent", agentID, nil); err != nil {
						return err
					}
				case err != nil:
					return err
				}
			}
			if len(secrets) == 0 {
				return nil
			}
			names := make([]string, 0, len(secrets))
			for name := range secrets {
				names = append(names, name)
			}
			slices.Sort(names)
			return c.audit("deliver_secrets", "agent", agentID, map[string]any{"names": names})
		})
		if err != nil {
			return nil, nil, err
		}
	}
	for _, want := range asks {
		if s.granted(p, want) && !slices.Contains(capabilities, want) {
			capabilities = append(capabilities, want)
		}
	}
	return capabilities, secrets, nil
}

// granted reports whether a principal may have a capability.
func (s *Service) granted(p Principal, capability string) bool {
	return p.Credential.Kind == Open || slices.Contains(s.opts.DefaultCapabilities, capability) || slices.Contains(p.Capabilities, capability)
}

// Oversees reports whether a caller may see and steer everything in an agent's conversation: an
// admin, the owner of the agent id, and the principal that registered that owner's key.
func (s *Service) Oversees(ctx context.Context, p Principal, agentID string) (bool, error) {
	if p.Has(Admin) {
		return true, nil
	}
	read := s.store.Read(ctx)
	o, err := s.owner(read, agentID)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	if err != nil || o.PrincipalID == p.ID {
		return err == nil, err
	}
	owner, err := s.principal(read, o.PrincipalID)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil && owner.CreatedBy == p.ID && owner.rank() <= p.rank(), err
}

// KnowsAgent reports whether somebody owns an agent id, or it names a principal that is an agent.
func (s *Service) KnowsAgent(ctx context.Context, id string) (bool, error) {
	read := s.store.Read(ctx)
	if _, err := s.owner(read, id); err == nil || fault.CodeOf(err) != fault.NotFound {
		return err == nil, err
	}
	p, err := s.principal(read, id)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	return p.Kind == Agent, err
}

// AgentIDs returns the agent ids that are owned, by id.
func (s *Service) AgentIDs(ctx context.Context, principalID, after string, limit int) ([]AgentID, error) {
	return s.store.Read(ctx).AgentIDs(principalID, after, min(max(limit, 1), MaxPage))
}

// TransferAgent gives an agent id to another principal and ends the calls of the one that had it.
func (s *Service) TransferAgent(ctx context.Context, agentID, principalID string) error {
	if agentID == "" || len(agentID) > maxAgentID {
		return fault.New(fault.Invalid, "agent_id must have 1 to %d bytes", maxAgentID)
	}
	return s.change(ctx, func(c *change) error {
		if _, err := c.manage(principalID); err != nil {
			return err
		}
		was, err := c.disown(agentID)
		if err != nil && fault.CodeOf(err) != fault.NotFound {
			return err
		}
		if was.PrincipalID == principalID {
			c.drops = nil
			return nil
		}
		if err := c.SetAgentOwner(AgentID{agentID, principalID, c.now}); err != nil {
			return err
		}
		return c.audit("transfer_agent", "agent", agentID, map[string]any{"from": was.PrincipalID, "to": principalID})
	})
}

// ReleaseAgent makes an agent id free: the next principal that uses it owns it, and gets its
// secrets.
func (s *Service) ReleaseAgent(ctx context.Context, agentID string) error {
	return s.change(ctx, func(c *change) error {
		was, err := c.disown(agentID)
		if err != nil {
			return err
		}
		if err := c.DropAgentOwner(agentID); err != nil {
			return err
		}
		return c.audit("release_agent", "agent", agentID, map[string]any{"from": was.PrincipalID})
	})
}

// disown looks whether the actor may take an id from its owner, which may be gone.
func (c *change) disown(agentID string) (AgentID, error) {
	was, err := c.AgentOwner(agentID)
	if err != nil {
		return was, err
	}
	if _, err := c.manage(was.PrincipalID); err != nil && fault.CodeOf(err) != fault.NotFound {
		return was, err
	}
	c.drops = append(c.drops, agentID)
	return was, nil
}
