package agent

import pb "coven-gateway/proto/coven"

// maxInjections bounds the injections that wait for OnInject; more are refused.
const maxInjections = 64

// A Priority says how soon an agent should look at what is injected.
type Priority int

// The priorities.
const (
	Normal    Priority = iota // at the next opportunity
	Immediate                 // interrupt what is being done
	Deferred                  // when the agent is idle
)

// An Injection is something for the agent to know that is no message: nobody waits for an answer to
// it but the word that it was taken.
type Injection struct {
	ID       string
	Content  string
	Priority Priority
	Source   string // where it comes from; may be empty
}

// inject puts an injection behind the others.
func (s *session) inject(p *pb.InjectContext) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	switch {
	case st.closed: // the gateway hears that the stream ends
		return
	case s.opts.OnInject == nil:
		s.reply(injectionAck(p.GetInjectionId(), "the agent takes no injections"))
		return
	case len(st.injections) >= maxInjections:
		s.reply(injectionAck(p.GetInjectionId(), "the agent is busy: too many injections wait"))
		return
	}
	st.injections = append(st.injections, p)
	st.active++
	if !st.injecting {
		st.injecting = true
		s.tasks.Go(s.takeInjections)
	}
}

// takeInjections hands them to the agent one after the other until none is left.
func (s *session) takeInjections() {
	for p := s.nextInjection(); p != nil; p = s.nextInjection() {
		i := Injection{ID: p.GetInjectionId(), Content: p.GetContent(), Source: p.GetSource()}
		switch p.GetPriority() {
		case pb.InjectionPriority_INJECTION_PRIORITY_IMMEDIATE:
			i.Priority = Immediate
		case pb.InjectionPriority_INJECTION_PRIORITY_DEFERRED:
			i.Priority = Deferred
		}
		refusal := ""
		if err := s.opts.OnInject(s.work, i); err != nil {
			refusal = reason(err)
			if refusal == "" {
				refusal = "refused"
			}
		}
		_ = s.send(s.ctx, injectionAck(i.ID, refusal)) // it fails at the end
		s.mu.Lock()
		s.state.active--
		s.noteIdle()
		s.mu.Unlock()
	}
}

// nextInjection returns the first injection that waits, or nil when takeInjections has to end.
func (s *session) nextInjection() *pb.InjectContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if len(st.injections) == 0 || st.closed {
		st.injecting = false
		return nil
	}
	p := st.injections[0]
	st.injections[0] = nil
	st.injections = st.injections[1:]
	return p
}

// injectionAck accepts an injection, or refuses it with a reason.
func injectionAck(id, refusal string) *pb.AgentMessage {
	a := &pb.InjectionAck{InjectionId: id, Accepted: refusal == ""}
	if refusal != "" {
		a.Reason = &refusal
	}
	return &pb.AgentMessage{Payload: &pb.AgentMessage_InjectionAck{InjectionAck: a}}
}
