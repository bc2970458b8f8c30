package gatewaytest

import (
	"coven-gateway/internal/conversation"
)

// Check reads every conversation from its beginning and fails the test when a number is missing or
// out of order, when a turn that has ended has more or fewer than one end or left a block open, or
// when what the log says of a turn and what its record says differ. Turns that are open or wait may be.
func (g *Gateway) Check() {
	g.t.Helper()
	s := g.Conversations()
	agents := map[string]bool{}
	for before := int64(0); ; {
		threads, err := s.Threads(Ctx(), conversation.ThreadQuery{Before: before, Limit: 100})
		if err != nil {
			g.t.Fatal(err)
		}
		for _, th := range threads {
			agents[th.AgentID] = true
			before = th.Activity
		}
		if len(threads) < 100 {
			break
		}
	}
	for id := range agents {
		g.checkConversation(s, id)
	}
}

func (g *Gateway) checkConversation(s *conversation.Service, agentID string) {
	g.t.Helper()
	ends := map[string][]conversation.Event{}
	begun := map[string]conversation.Event{}
	texts := map[string]string{}
	pos := int64(0)
	for {
		p, err := s.Events(Ctx(), agentID, conversation.Filter{}, pos, 1000)
		if err != nil {
			g.t.Fatal(err)
		}
		for _, e := range p.Events {
			if e.First != pos+1 || e.Seq < e.First {
				g.t.Errorf("conversation %s: after %d comes an event from %d to %d", agentID, pos, e.First, e.Seq)
			}
			pos = e.Seq
			if _, ok := e.Body.(conversation.Removed); ok {
				continue
			}
			if b, ok := e.Body.(conversation.Text); ok {
				texts[e.TurnID] += b.Text
			}
			_, message := e.Body.(conversation.Message)
			if _, ok := begun[e.TurnID]; !ok {
				begun[e.TurnID] = e
				if !message && e.PrincipalID != "" { // what was taken over may lack it
					g.t.Errorf("conversation %s: turn %s begins at %d without a message", agentID, e.TurnID, e.Seq)
				}
			} else if message {
				g.t.Errorf("conversation %s: turn %s has another message at %d", agentID, e.TurnID, e.Seq)
			}
			switch e.Body.(type) {
			case conversation.Message:
			case conversation.Ended:
				ends[e.TurnID] = append(ends[e.TurnID], e)
			default:
				if len(ends[e.TurnID]) > 0 {
					g.t.Errorf("conversation %s: event %d of turn %s comes after its end", agentID, e.Seq, e.TurnID)
				}
			}
		}
		if !p.More {
			break
		}
	}
	for id, first := range begun {
		t, err := s.Turn(Ctx(), id)
		if err != nil {
			g.t.Errorf("turn %s: %v", id, err)
			continue
		}
		n := len(ends[id])
		if t.State.Over() && n == 0 { // it may have ended since the events were read
			p, err := s.Events(Ctx(), agentID, conversation.Filter{TurnID: id}, pos, 1000)
			if err != nil {
				g.t.Fatal(err)
			}
			for _, e := range p.Events {
				switch b := e.Body.(type) {
				case conversation.Text:
					texts[id] += b.Text
				case conversation.Ended:
					ends[id] = append(ends[id], e)
				}
			}
			n = len(ends[id])
		}
		switch {
		case t.First != first.First:
			g.t.Errorf("turn %s begins at %d, its record says %d", id, first.First, t.First)
		case !t.State.Over() && n == 0:
		case n == 0 && t.Last > pos: // it has ended since
		case !t.State.Over() || n != 1:
			if again, err := s.Turn(Ctx(), id); n != 1 || err != nil || !again.State.Over() {
				g.t.Errorf("turn %s is %s and has %d ends", id, t.State, n)
			}
		default:
			end := ends[id][0]
			if b := end.Body.(conversation.Ended); b.State != t.State || b.Cause != t.Cause || end.Seq != t.Last {
				g.t.Errorf("turn %s ends as %s (%s) at %d, its record says %s (%s) at %d", id, b.State, b.Cause, end.Seq, t.State, t.Cause, t.Last)
			}
			// The answer is read from closed blocks alone.
			if answer, err := s.Answer(Ctx(), id); err != nil || answer != texts[id] {
				g.t.Errorf("turn %s has ended with %d bytes in closed blocks, its events have %d: %v", id, len(answer), len(texts[id]), err)
			}
		}
	}
}
