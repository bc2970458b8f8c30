package agent

import (
	"context"
	"slices"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// featureInjection is what an agent declares that understands InjectContext.
const featureInjection = "injection"

// maxInjections is how many injections an agent may have to answer.
const maxInjections = 16

// Injectable implements [conversation.Dispatcher].
func (r *Registry) Injectable(agentID string) bool {
	c := r.find(agentID)
	return c != nil && slices.Contains(c.info.Features, featureInjection)
}

// Inject implements [conversation.Dispatcher].
func (r *Registry) Inject(ctx context.Context, i conversation.Injection) (conversation.Injected, error) {
	c := r.find(i.AgentID)
	if c == nil {
		return conversation.Injected{}, conversation.ErrAgentGone
	}
	return c.inject(ctx, i)
}

// inject runs on the goroutine of whoever injects. receive hands it the agent's answer, or closes
// the channel of it when the stream has ended.
func (c *Conn) inject(ctx context.Context, i conversation.Injection) (conversation.Injected, error) {
	out := conversation.Injected{ID: i.ID, AgentID: i.AgentID, Outcome: conversation.InjectionUnknown}
	if err := c.waitForRoom(ctx); err != nil {
		return out, err
	}
	ack, m := make(chan *pb.InjectionAck, 1), injectContext(i)
	if err := c.ask(i.ID, ack, m); err != nil {
		<-c.room
		return out, err
	}
	var a *pb.InjectionAck
	var ended error
	select {
	case a = <-ack:
	case <-ctx.Done():
		ended = context.Cause(ctx)
	}
	unsent := c.forget(i.ID, m)
	switch {
	case a.GetAccepted():
		out.Outcome = conversation.InjectionAccepted
	case a != nil:
		out.Outcome, out.Reason = conversation.InjectionRefused, a.GetReason()
	case unsent && ended == nil:
		return out, conversation.ErrAgentGone
	case unsent:
		return out, ended
	case ended == nil:
		out.Reason = "the agent disconnected before it answered"
	default:
		out.Reason = "the agent has not answered in time"
	}
	return out, nil
}

// ask queues an injection whose answer goes to ack.
func (c *Conn) ask(id string, ack chan *pb.InjectionAck, m *pb.ServerMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != open:
		return conversation.ErrAgentGone
	case len(c.acks) >= maxInjections:
		return fault.New(fault.Limited, "agent %s has %d injections to answer; try again when it has", c.info.ID, maxInjections)
	case c.acks == nil:
		c.acks = make(map[string]chan *pb.InjectionAck)
	}
	c.acks[id] = ack
	c.push(m)
	return nil
}

// forget waits for no answer any more. It takes the message back if that is still queued, and
// reports whether it was.
func (c *Conn) forget(id string, m *pb.ServerMessage) (unsent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.acks, id)
	k := slices.Index(c.queue, m)
	if k < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, k, k+1)
	<-c.room
	return true
}

// injectionAck takes the agent's answer to an injection.
func (c *Conn) injectionAck(a *pb.InjectionAck) {
	c.mu.Lock()
	ack := c.acks[a.GetInjectionId()]
	delete(c.acks, a.GetInjectionId())
	c.mu.Unlock()
	if ack == nil {
		c.note("an agent answered an injection that nobody waits for; ignored", a.GetInjectionId())
		return
	}
	ack <- a
}

var priorities = map[conversation.Priority]pb.InjectionPriority{
	conversation.Immediate: pb.InjectionPriority_INJECTION_PRIORITY_IMMEDIATE,
	conversation.Normal:    pb.InjectionPriority_INJECTION_PRIORITY_NORMAL,
	conversation.Deferred:  pb.InjectionPriority_INJECTION_PRIORITY_DEFERRED,
}

func injectContext(i conversation.Injection) *pb.ServerMessage {
	m := &pb.InjectContext{InjectionId: i.ID, Content: i.Content, Priority: priorities[i.Priority]}
	if i.Source != "" {
		m.Source = &i.Source
	}
	return &pb.ServerMessage{Payload: &pb.ServerMessage_InjectContext{InjectContext: m}}
}
