package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

func injection(id, content string, p pb.InjectionPriority) *pb.ServerMessage {
	source := "ci"
	return &pb.ServerMessage{Payload: &pb.ServerMessage_InjectContext{InjectContext: &pb.InjectContext{InjectionId: id, Content: content, Priority: p, Source: &source}}}
}

// TestInject: injections are taken in order beside the messages, and each is answered.
func TestInject(t *testing.T) {
	var got []agent.Injection
	var release chan struct{} // of the bubble
	o := agent.Options{OnInject: func(_ context.Context, i agent.Injection) error {
		<-release
		got = append(got, i)
		if i.Content == "nonsense" {
			return errors.New("I do not believe it")
		}
		return nil
	}}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		release = make(chan struct{})
		s := <-g.streams
		if r := <-g.registered; !slices.Contains(r.GetProtocolFeatures(), "injection") {
			t.Errorf("the agent declares %q", r.GetProtocolFeatures())
		}
		send(t, s, injection("1", "this", pb.InjectionPriority_INJECTION_PRIORITY_IMMEDIATE))
		synctest.Wait() // OnInject has begun
		for n := range 63 {
			send(t, s, injection(fmt.Sprint(n+2), "that", pb.InjectionPriority_INJECTION_PRIORITY_DEFERRED))
		}
		send(t, s, injection("65", "nonsense", pb.InjectionPriority_INJECTION_PRIORITY_NORMAL))
		send(t, s, injection("66", "more", pb.InjectionPriority_INJECTION_PRIORITY_NORMAL))
		if a := next(t, s).GetInjectionAck(); a.GetInjectionId() != "66" || a.GetAccepted() || a.GetReason() != "the agent is busy: too many injections wait" {
			t.Errorf("got %v", a)
		}
		send(t, s, message("1", "x", "hi"))
		expect(t, s, "1", "text hi", "done hi")
		close(release)
		for n := range 64 {
			if a := next(t, s).GetInjectionAck(); a.GetInjectionId() != fmt.Sprint(n+1) || !a.GetAccepted() || a.Reason != nil {
				t.Errorf("got %v", a)
			}
		}
		if a := next(t, s).GetInjectionAck(); a.GetInjectionId() != "65" || a.GetAccepted() || a.GetReason() != "I do not believe it" {
			t.Errorf("got %v", a)
		}
		if len(got) != 65 || got[0] != (agent.Injection{ID: "1", Content: "this", Priority: agent.Immediate, Source: "ci"}) || got[1].Priority != agent.Deferred || got[64].Priority != agent.Normal {
			t.Errorf("the agent got %+v", got)
		}
	})
}

// TestInjectNobody: an agent that takes none says so, whatever it is sent.
func TestInjectNobody(t *testing.T) {
	play(t, agent.Options{}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		if r := <-g.registered; slices.Contains(r.GetProtocolFeatures(), "injection") {
			t.Errorf("the agent declares %q", r.GetProtocolFeatures())
		}
		send(t, s, injection("1", "this", pb.InjectionPriority_INJECTION_PRIORITY_NORMAL))
		if a := next(t, s).GetInjectionAck(); a.GetInjectionId() != "1" || a.GetAccepted() || a.GetReason() != "the agent takes no injections" {
			t.Errorf("got %v", a)
		}
	})
}
