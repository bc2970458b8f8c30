package conversation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Limits of an injection, in bytes.
const (
	MaxInjection = 256 << 10
	MaxSource    = 200
)

// InjectTimeout is how long an agent has to say what becomes of an injection.
const InjectTimeout = 10 * time.Second

// A Priority says how soon an agent should look at what is injected.
type Priority string

// The priorities.
const (
	Immediate Priority = "immediate" // interrupt what is being done
	Normal    Priority = "normal"    // at the next opportunity
	Deferred  Priority = "deferred"  // when the agent is idle
)

// An Injection is something for an agent to know that is no message: it begins no turn and is in no
// conversation.
type Injection struct {
	ID       string // given by the service
	AgentID  string // or the instance id of its connection
	Content  string
	Priority Priority // Normal where empty
	Source   string   // where it comes from, for the agent; may be empty
}

// An Outcome is what became of an injection.
type Outcome string

// The outcomes.
const (
	InjectionAccepted Outcome = "accepted"
	InjectionRefused  Outcome = "refused"
	InjectionUnknown  Outcome = "unknown" // the agent has it, or was about to, and has not answered
)

// An Injected is an injection that was handed to its agent.
type Injected struct {
	ID      string
	AgentID string
	Outcome Outcome
	Reason  string // why it was refused, in the agent's words and perhaps empty, or is not known
}

// Inject gives an agent something to know and waits for its answer, at most InjectTimeout. That it
// was tried is in the audit log before the agent can see anything of it.
//
// Faults, after which the agent has got nothing: Invalid and TooLarge about the request; Forbidden
// unless the caller oversees the agent; Unavailable when it is not connected or reads nothing;
// Conflict when it does not understand injections; Limited when it has too many to answer.
func (s *Service) Inject(ctx context.Context, i Injection) (Injected, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Injected{}, err
	}
	if i.Priority == "" {
		i.Priority = Normal
	}
	if err := i.check(); err != nil {
		return Injected{}, err
	}
	agentID, here := s.dispatcher.Resolve(i.AgentID)
	if here {
		i.AgentID = agentID
	}
	if oversees, err := s.opts.Policy.Oversees(ctx, p, i.AgentID); err != nil {
		return Injected{}, err
	} else if !oversees {
		return Injected{}, fault.New(fault.Forbidden, "only its owner and administrators may inject something into agent %s", i.AgentID)
	}
	if !here {
		return Injected{}, fault.Wrap(ErrAgentGone, fault.Unavailable, "agent unavailable")
	}
	if !s.dispatcher.Injectable(i.AgentID) {
		return Injected{}, fault.New(fault.Conflict, "agent %s does not understand injections", i.AgentID)
	}
	i.ID = newID()
	sum := sha256.Sum256([]byte(i.Content))
	err = s.opts.Audit(ctx, auth.NewRecord(p, "inject_context", "agent", i.AgentID, map[string]any{
		"injection_id": i.ID, "priority": i.Priority, "source": i.Source, "bytes": len(i.Content), "content_sha256": hex.EncodeToString(sum[:]),
	}))
	if err != nil {
		return Injected{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, InjectTimeout)
	defer cancel()
	out, err := s.dispatcher.Inject(waiting, i)
	switch {
	case err == nil:
	case errors.Is(err, ErrAgentGone):
		return Injected{}, fault.Wrap(err, fault.Unavailable, "agent unavailable")
	case ctx.Err() == nil && waiting.Err() != nil:
		return Injected{}, fault.Wrap(err, fault.Unavailable, "the agent does not read its stream; it has got nothing")
	default:
		return Injected{}, err
	}
	return out, nil
}

func (i Injection) check() error {
	switch {
	case i.AgentID == "":
		return fault.New(fault.Invalid, "agent_id is required")
	case i.Content == "":
		return fault.New(fault.Invalid, "content is required")
	case len(i.Content) > MaxInjection:
		return fault.New(fault.TooLarge, "content must not be longer than %d bytes; this one has %d", MaxInjection, len(i.Content))
	case len(i.Source) > MaxSource:
		return fault.New(fault.Invalid, "source must not be longer than %d bytes; this one has %d", MaxSource, len(i.Source))
	case !utf8.ValidString(i.Content) || !utf8.ValidString(i.Source):
		return fault.New(fault.Invalid, "content and source must be UTF-8")
	case i.Priority != Immediate && i.Priority != Normal && i.Priority != Deferred:
		return fault.New(fault.Invalid, "priority must be %s, %s or %s; got %q", Immediate, Normal, Deferred, i.Priority)
	}
	return nil
}
