package packs

import (
	"context"
	"slices"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A Policy is what the operator has decided about one tool.
type Policy struct {
	Disabled  bool
	Approval  bool          // people are asked before each call of an agent
	Roles     []auth.Role   // one of which the caller must have; nil for everybody
	Needs     []string      // capabilities besides those that the tool needs by itself
	Timeout   time.Duration // instead of the tool's own; 0 for that
	PerMinute int           // calls of one principal; 0 for no limit
}

// Rights says what a caller may do, as of now.
type Rights interface {
	// HasRole reports whether a caller has a role, or one that includes it.
	HasRole(ctx context.Context, p auth.Principal, r auth.Role) (bool, error)
	// HasCapability reports whether a caller has been granted a capability.
	HasCapability(ctx context.Context, p auth.Principal, capability string) (bool, error)
}

// may returns why a caller may not use a tool; nil if it may.
func (t *tool) may(ctx context.Context, rights Rights, c Caller) error {
	return t.allows(ctx, rights, c, func(need string) error { return c.require(ctx, rights, need) })
}

// allows is may with what says which capabilities the caller has.
func (t *tool) allows(ctx context.Context, rights Rights, c Caller, require func(need string) error) error {
	if t.policy.Disabled {
		return fault.New(fault.Forbidden, "the tool %s is disabled", t.Name)
	}
	if len(t.policy.Roles) > 0 {
		has := false
		for _, r := range t.policy.Roles {
			ok, err := rights.HasRole(ctx, c.Principal, r)
			if err != nil {
				return err
			}
			has = has || ok
		}
		if !has {
			return fault.New(fault.Forbidden, "the tool %s is for principals with the role %s", t.Name, words(t.policy.Roles))
		}
	}
	for _, need := range t.needs {
		if err := require(need); err != nil {
			return err
		}
	}
	return nil
}

// require returns a Forbidden fault unless a caller has a capability.
func (c Caller) require(ctx context.Context, rights Rights, need string) error {
	ok, err := rights.HasCapability(ctx, c.Principal, need)
	if err == nil && (!ok || c.OnStream && !slices.Contains(c.Capabilities, need)) {
		err = fault.New(fault.Forbidden, "missing capability: %s", need)
	}
	return err
}

func words(roles []auth.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, " or ")
}
