package conversation

import (
	"cmp"
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Limits of a binding (grpc.md 7).
const (
	MaxFrontend  = 50  // characters
	MaxChannelID = 500 // bytes
)

// A Binding sends what is written in a channel of a frontend to an agent.
type Binding struct {
	ID         string
	Frontend   string
	ChannelID  string
	AgentID    string   // an agent id, or the principal whose agent is meant
	WorkingDir string   // of that principal's agent; "" for any
	Delivery   Delivery // of messages that do not say; "" for FailAway
	CreatedAt  time.Time
	CreatedBy  string // a principal
}

// Bindings keeps bindings. Every change is stored together with its audit record. What is not there
// is a NotFound fault.
type Bindings interface {
	Binding(ctx context.Context, id string) (Binding, error)
	// Bindings returns the newest first; empty arguments select all.
	Bindings(ctx context.Context, frontend, agentID string) ([]Binding, error)
	// BindingOf returns the binding of a channel.
	BindingOf(ctx context.Context, frontend, channelID string) (Binding, error)
	// AddBinding fails with an Exists fault when the channel is bound.
	AddBinding(ctx context.Context, b Binding, r auth.AuditRecord) error
	// ReplaceBinding stores a binding in the place of the one that its channel has. It fails with a
	// Conflict fault when that is not was any more.
	ReplaceBinding(ctx context.Context, was, b Binding, r auth.AuditRecord) error
	SetBinding(ctx context.Context, b Binding, r auth.AuditRecord) error
	DeleteBinding(ctx context.Context, id string, r auth.AuditRecord) error
}

// Bindings returns bindings, the newest first; empty arguments select all.
func (s *Service) Bindings(ctx context.Context, frontend, agentID string) ([]Binding, error) {
	return s.opts.Bindings.Bindings(ctx, frontend, agentID)
}

// BindingOf returns the binding of a channel, or a NotFound fault.
func (s *Service) BindingOf(ctx context.Context, frontend, channelID string) (Binding, error) {
	return s.opts.Bindings.BindingOf(ctx, frontend, channelID)
}

// Bind binds a channel. Faults: Invalid; NotFound when nobody knows the agent; Exists when the
// channel is bound.
func (s *Service) Bind(ctx context.Context, b Binding) (Binding, error) {
	p, b, err := s.prepare(ctx, b)
	if err != nil {
		return Binding{}, err
	}
	return b, s.opts.Bindings.AddBinding(ctx, b, auth.NewRecord(p, "create_binding", "binding", b.ID, b.detail()))
}

// BindAnyway binds a channel, also one that is bound, and returns the binding that it replaces. One
// that is bound as it is asked for stays as it is; was is that one then.
func (s *Service) BindAnyway(ctx context.Context, b Binding) (now, was Binding, err error) {
	p, b, err := s.prepare(ctx, b)
	if err != nil {
		return Binding{}, Binding{}, err
	}
	was, err = s.opts.Bindings.BindingOf(ctx, b.Frontend, b.ChannelID)
	switch {
	case fault.CodeOf(err) == fault.NotFound:
		return b, Binding{}, s.opts.Bindings.AddBinding(ctx, b, auth.NewRecord(p, "create_binding", "binding", b.ID, b.detail()))
	case err != nil:
		return Binding{}, Binding{}, err
	case was.AgentID == b.AgentID && was.WorkingDir == b.WorkingDir && was.Delivery == b.Delivery:
		return was, was, nil
	}
	return b, was, s.opts.Bindings.ReplaceBinding(ctx, was, b, auth.NewRecord(p, "update_binding", "binding", b.ID, b.detail()))
}

// prepare checks a binding and gives it an identity.
func (s *Service) prepare(ctx context.Context, b Binding) (auth.Principal, Binding, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return p, b, err
	}
	word := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' }
	switch {
	case b.Frontend == "":
		return p, b, fault.New(fault.Invalid, "frontend required")
	case len(b.Frontend) > MaxFrontend || strings.ContainsFunc(b.Frontend, func(r rune) bool { return !word(r) }):
		return p, b, fault.New(fault.Invalid, "frontend must be lowercase alphanumeric with underscores, 1-50 chars")
	case b.ChannelID == "":
		return p, b, fault.New(fault.Invalid, "channel_id required")
	case len(b.ChannelID) > MaxChannelID:
		return p, b, fault.New(fault.Invalid, "channel_id exceeds 500 characters")
	case !utf8.ValidString(b.ChannelID):
		return p, b, fault.New(fault.Invalid, "channel_id must be UTF-8")
	}
	if b.Delivery, err = ParseDelivery(string(b.Delivery)); err != nil {
		return p, b, err
	}
	b.Delivery = cmp.Or(b.Delivery, FailAway)
	if b.AgentID, err = s.bindable(ctx, b.AgentID); err != nil {
		return p, b, err
	}
	b.ID, b.CreatedAt, b.CreatedBy = uuid.NewString(), time.Now().UTC().Truncate(time.Microsecond), p.ID
	return p, b, nil
}

// Rebind points a binding at another agent; its way to deliver stays what it was where that is "".
func (s *Service) Rebind(ctx context.Context, id, agentID string, d Delivery) (Binding, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Binding{}, err
	}
	if id == "" {
		return Binding{}, fault.New(fault.Invalid, "id required")
	}
	if agentID, err = s.bindable(ctx, agentID); err != nil {
		return Binding{}, err
	}
	b, err := s.opts.Bindings.Binding(ctx, id)
	if err != nil {
		return Binding{}, err
	}
	if d, err = ParseDelivery(string(d)); err != nil {
		return Binding{}, err
	}
	b.AgentID, b.Delivery = agentID, cmp.Or(d, b.Delivery)
	return b, s.opts.Bindings.SetBinding(ctx, b, auth.NewRecord(p, "update_binding", "binding", b.ID, b.detail()))
}

// Unbind removes a binding.
func (s *Service) Unbind(ctx context.Context, id string) error {
	p, err := auth.From(ctx)
	if err != nil {
		return err
	}
	if id == "" {
		return fault.New(fault.Invalid, "id required")
	}
	b, err := s.opts.Bindings.Binding(ctx, id)
	if err != nil {
		return err
	}
	return s.opts.Bindings.DeleteBinding(ctx, id, auth.NewRecord(p, "delete_binding", "binding", id, b.detail()))
}

func (b Binding) detail() map[string]any {
	return map[string]any{"frontend": b.Frontend, "channel_id": b.ChannelID, "agent_id": b.AgentID, "delivery": b.Delivery}
}

// bindable returns the id under which an agent is bound: one that is connected, that somebody owns
// or that has a conversation, or a principal that is an agent.
func (s *Service) bindable(ctx context.Context, id string) (string, error) {
	if id == "" {
		return "", fault.New(fault.Invalid, "agent_id required")
	}
	if agentID, ok := s.dispatcher.Resolve(id); ok {
		return agentID, nil
	}
	if known, err := s.opts.Policy.KnowsAgent(ctx, id); err != nil || known {
		return id, err
	}
	if conv, err := s.log.Conversation(ctx, id); err != nil || conv.ID != 0 {
		return id, err
	}
	return "", fault.New(fault.NotFound, "agent not found")
}

// bound returns the agent that a channel is bound to: an agent id, or of the principal that it is
// bound to an agent that is connected. usual is how messages of the channel are delivered.
func (s *Service) bound(ctx context.Context, frontend, channelID string) (agentID string, usual Delivery, err error) {
	b, err := s.opts.Bindings.BindingOf(ctx, frontend, channelID)
	if fault.CodeOf(err) == fault.NotFound {
		return "", "", fault.Wrap(err, fault.Invalid, "channel not bound to agent")
	}
	if err != nil {
		return "", "", err
	}
	if agentID, ok := s.dispatcher.ResolvePrincipal(b.AgentID, b.WorkingDir); ok {
		return agentID, b.Delivery, nil
	}
	return b.AgentID, b.Delivery, nil
}

// channelThread is the thread of a channel with an agent. It stays the same, also when the channel
// was bound to another agent in between.
func channelThread(frontend, channelID, agentID string) (id, externalID string) {
	externalID = channelID + " " + agentID
	return uuid.NewSHA1(channelThreads, []byte(frontend+" "+externalID)).String(), externalID
}

// channelThreads is the name space of the threads of channels.
var channelThreads = uuid.MustParse("0f6f6c0e-3d6a-4c55-9a35-5a8d1c1f9b52")
