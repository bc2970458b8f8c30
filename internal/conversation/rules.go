package conversation

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Limits of approval policies. All of them are in memory.
const (
	MaxRules    = 100  // of one policy
	MaxPattern  = 200  // bytes
	MaxPolicies = 1000 // agents that have one
)

// maxMatched bounds the name of a tool that rules are tried on, in bytes. A longer one is denied where
// there are rules: none can speak of it.
const maxMatched = 1000

// AllAgents stands for an agent id where a policy is meant for all agents.
const AllAgents = "*"

// maxPolicyAgentID bounds an agent id that need not be in use yet, in bytes.
const maxPolicyAgentID = 200

// An Action is what becomes of an agent's wish to run a tool.
type Action string

// The actions.
const (
	Ask   Action = "ask"   // people are asked
	Allow Action = "allow" // the agent may, and nobody is asked
	Deny  Action = "deny"  // it may not, and nobody is asked
)

// A ToolRule says what becomes of an agent's wish to run a tool whose name matches a pattern. In a
// pattern * stands for any characters, ? for one, [a-z] for one of these and [^a-z] for one of the
// others; \ takes its meaning from the next one.
type ToolRule struct {
	Tool   string // pattern
	Action Action
}

// ApprovalPolicies keeps approval policies: lists of rules, by agent id.
type ApprovalPolicies interface {
	// ApprovalPolicies returns all of them.
	ApprovalPolicies(ctx context.Context) (map[string][]ToolRule, error)
	// SetApprovalPolicy replaces one, or removes it where there are no rules. It is stored together
	// with its audit record.
	SetApprovalPolicy(ctx context.Context, agentID string, rules []ToolRule, r auth.AuditRecord) error
}

// action returns what becomes of an agent's wish to run a tool: what the first rule that matches says,
// those of the agent before those for all agents; Ask where there is none. It does no I/O.
func (s *Service) action(agentID, tool string) Action {
	policies := *s.policies.Load()
	for _, r := range slices.Concat(policies[agentID], policies[AllAgents]) {
		if len(tool) > maxMatched {
			return Deny
		}
		if r.matches(tool) {
			return r.Action
		}
	}
	return Ask
}

func (r ToolRule) matches(tool string) bool {
	ok, err := path.Match(flat(r.Tool), flat(tool))
	return ok && err == nil // patterns were checked
}

// flat takes from the slash what it means to path.Match: that no * stands for it.
func flat(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

// ApprovalPolicy returns the rules of an agent, or of all agents, in order; those of an agent
// without the ones that it has in common with all.
func (s *Service) ApprovalPolicy(agentID string) (id string, rules []ToolRule) {
	id = s.policyAgent(agentID)
	return id, slices.Clone((*s.policies.Load())[id])
}

// SetApprovalPolicy replaces the rules of an agent, which need not be connected, or of all agents.
// What agents have asked before is left as it is. Faults: Invalid about the rules; Conflict when
// there are too many policies.
func (s *Service) SetApprovalPolicy(ctx context.Context, agentID string, rules []ToolRule) (id string, err error) {
	p, err := auth.From(ctx)
	if err != nil {
		return "", err
	}
	agentID = s.policyAgent(agentID)
	if agentID == "" || len(agentID) > maxPolicyAgentID || !utf8.ValidString(agentID) {
		return "", fault.New(fault.Invalid, "agent_id must have 1 to %d bytes of UTF-8", maxPolicyAgentID)
	}
	if err := checkRules(rules); err != nil {
		return "", err
	}
	select { // one after the other, so that the memory is as the store
	case s.ruling <- struct{}{}:
		defer func() { <-s.ruling }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	policies := maps.Clone(*s.policies.Load())
	if _, has := policies[agentID]; !has && len(rules) > 0 && len(policies) >= MaxPolicies {
		return "", fault.New(fault.Conflict, "there must not be more than %d approval policies", MaxPolicies)
	}
	told := make([]string, len(rules))
	for i, r := range rules {
		told[i] = string(r.Action) + " " + r.Tool
	}
	err = s.opts.Approvals.SetApprovalPolicy(context.WithoutCancel(ctx), agentID, rules, auth.NewRecord(p, "set_approval_policy", "agent", agentID, map[string]any{"rules": told}))
	if err != nil {
		return "", err
	}
	policies[agentID] = slices.Clone(rules)
	if len(rules) == 0 {
		delete(policies, agentID)
	}
	s.policies.Store(&policies)
	return agentID, nil
}

// policyAgent is the agent whose policy an id names: an agent id, or the instance id of a connection.
func (s *Service) policyAgent(id string) string {
	if agentID, ok := s.dispatcher.Resolve(id); ok && id != AllAgents {
		return agentID
	}
	return id
}

func checkRules(rules []ToolRule) error {
	if n := len(rules); n > MaxRules {
		return fault.New(fault.Invalid, "rules must not have more than %d entries; this one has %d", MaxRules, n)
	}
	for i, r := range rules {
		switch _, err := path.Match(flat(r.Tool), ""); {
		case r.Tool == "":
			return fault.New(fault.Invalid, "rules[%d]: tool is required", i)
		case len(r.Tool) > MaxPattern:
			return fault.New(fault.Invalid, "rules[%d]: tool must not be longer than %d bytes; this one has %d", i, MaxPattern, len(r.Tool))
		case !utf8.ValidString(r.Tool):
			return fault.New(fault.Invalid, "rules[%d]: tool must be UTF-8", i)
		case err != nil:
			return fault.New(fault.Invalid, "rules[%d]: tool must be a pattern; %q is none", i, r.Tool)
		case r.Action != Ask && r.Action != Allow && r.Action != Deny:
			return fault.New(fault.Invalid, "rules[%d]: action must be %s, %s or %s; got %q", i, Ask, Allow, Deny, r.Action)
		}
	}
	return nil
}
