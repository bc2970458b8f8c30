package auth

import (
	"context"
	"maps"
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
	own := AgentID{Confirmed: true}
	if p.Credential.Kind != Open {
		if own, err = s.claim(ctx, p, agentID); err != nil {
			return nil, nil, err
		}
	}
	if secrets, err = s.deliver(ctx, agentID, own.Confirmed); err != nil {
		return nil, nil, err
	}
	for _, want := range asks {
		if s.granted(p, want) && !slices.Contains(capabilities, want) {
			capabilities = append(capabilities, want)
		}
	}
	return capabilities, secrets, nil
}

// claim makes a principal the owner of an id that nobody owns. Of parallel calls the first one gets
// it.
func (s *Service) claim(ctx context.Context, p Principal, agentID string) (AgentID, error) {
	owner, err := s.owner(s.store.Read(ctx), agentID)
	if fault.CodeOf(err) == fault.NotFound {
		err = s.change(ctx, func(c *change) error {
			if owner, err = c.AgentOwner(agentID); fault.CodeOf(err) != fault.NotFound {
				return err
			}
			inherits, err := c.Inheritance(agentID)
			if err != nil {
				return err
			}
			owner = AgentID{ID: agentID, PrincipalID: p.ID, ClaimedAt: c.now, Confirmed: !inherits}
			if err := c.SetAgentOwner(owner); err != nil {
				return err
			}
			return c.audit("claim_agent", "agent", agentID, map[string]any{"confirmed": owner.Confirmed})
		})
	}
	if err == nil && owner.PrincipalID != p.ID {
		err = fault.Wrap(fault.New(fault.Exists, "it is owned by principal %s", owner.PrincipalID), fault.Exists, "agent %s already registered", agentID)
	}
	return owner, err
}

// deliver returns what an agent gets, its own secrets only where its owner was confirmed, once it
// is written down that it gets them.
func (s *Service) deliver(ctx context.Context, agentID string, confirmed bool) (map[string]string, error) {
	whose := agentID
	if !confirmed {
		whose = ""
	}
	secrets, err := s.secretsOf(s.store.Read(ctx), whose)
	if err != nil || len(secrets) == 0 {
		return nil, err
	}
	return secrets, s.change(ctx, func(c *change) error {
		return c.audit("deliver_secrets", "agent", agentID, map[string]any{"names": slices.Sorted(maps.Keys(secrets))})
	})
}

// granted reports whether a principal may have a capability.
func (s *Service) granted(p Principal, capability string) bool {
	return p.Credential.Kind == Open || slices.Contains(s.opts.DefaultCapabilities, capability) || slices.Contains(p.Capabilities, capability)
}

// HasCapability reports whether a caller has a capability now, whatever it had when its call began.
func (s *Service) HasCapability(ctx context.Context, p Principal, capability string) (bool, error) {
	p, err := s.now(ctx, p)
	return err == nil && s.granted(p, capability), err
}

// HasRole reports whether a caller has a role now, or one that includes it.
func (s *Service) HasRole(ctx context.Context, p Principal, r Role) (bool, error) {
	p, err := s.now(ctx, p)
	return err == nil && p.Has(r), err
}

// now returns a caller with the rights that it has now.
func (s *Service) now(ctx context.Context, p Principal) (Principal, error) {
	if p.Credential.Kind == Open {
		return p, nil
	}
	now, err := s.principal(s.store.Read(ctx), p.ID)
	now.Credential = p.Credential
	return now, gone(err)
}

// Overseeing returns a context in which the caller sees everything in every conversation. It is for
// tools of the gateway that need a capability which is granted by name, and for nothing else.
func Overseeing(ctx context.Context) (context.Context, error) {
	p, err := From(ctx)
	p.oversees = true
	return With(ctx, p), err
}

// Oversees reports whether a caller may see and steer everything in an agent's conversation: an
// admin, the confirmed owner of the agent id, and the principal that registered that owner's key.
// The roles that it has now count, not those of when its call began.
func (s *Service) Oversees(ctx context.Context, p Principal, agentID string) (bool, error) {
	if p.oversees {
		return true, nil
	}
	read := s.store.Read(ctx)
	if p.Credential.Kind != Open {
		now, err := s.principal(read, p.ID)
		if err != nil {
			return false, gone(err)
		}
		p.Roles = now.Roles
	}
	if p.Has(Admin) {
		return true, nil
	}
	o, err := s.owner(read, agentID)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	if err != nil || !o.Confirmed {
		return false, err
	}
	if o.PrincipalID == p.ID {
		return true, nil
	}
	owner, err := s.principal(read, o.PrincipalID)
	if fault.CodeOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil && owner.CreatedBy == p.ID && owner.rank() <= p.rank(), err
}

// IsAgentID reports whether somebody owns an agent id.
func (s *Service) IsAgentID(ctx context.Context, id string) (bool, error) {
	_, err := s.owner(s.store.Read(ctx), id)
	if fault.CodeOf(err) == fault.NotFound && err != nil {
		return false, nil
	}
	return err == nil, err
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

// AgentOf returns the agent id that an id names: one that somebody owns, or the only one of the
// principal that it is. It returns a NotFound fault for any other, and a Conflict for a principal that
// has several.
func (s *Service) AgentOf(ctx context.Context, id string) (string, error) {
	read := s.store.Read(ctx)
	if _, err := s.owner(read, id); err == nil || fault.CodeOf(err) != fault.NotFound {
		return id, err
	}
	ids, err := read.AgentIDs(id, "", 2)
	switch {
	case err != nil:
		return "", err
	case len(ids) == 0 || id == "":
		return "", fault.New(fault.NotFound, "agent not found")
	case len(ids) > 1:
		return "", fault.New(fault.Conflict, "the principal %s has several agents, and none of them is connected", id)
	}
	return ids[0].ID, nil
}

// AgentIDs returns the agent ids that are owned, by id.
func (s *Service) AgentIDs(ctx context.Context, principalID, after string, limit int) ([]AgentID, error) {
	return s.store.Read(ctx).AgentIDs(principalID, after, min(max(limit, 1), MaxPage))
}

// TransferAgent gives an agent id to a principal, with its conversation and its secrets. The agent
// that is connected with it is disconnected, and may come back if it is that principal's.
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
		if was.PrincipalID == principalID && was.Confirmed {
			c.drops = nil
			return nil
		}
		if err := c.SetAgentOwner(AgentID{ID: agentID, PrincipalID: principalID, ClaimedAt: c.now, Confirmed: true}); err != nil {
			return err
		}
		return c.audit("transfer_agent", "agent", agentID, map[string]any{"from": was.PrincipalID, "to": principalID})
	})
}

// ReleaseAgent makes an agent id free: the next principal that uses it owns it, though it inherits
// nothing.
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
