package conversation

import (
	"cmp"
	"slices"
)

// A Resumable is a turn that an agent goes on with after its stream broke.
type Resumable struct {
	TurnID   string
	Received uint64 // how much of what the agent has numbered is durable
	Sink     Sink
}

// Resume is called when an agent is back, with the ids of the turns that it still works on. It returns
// those that it may go on with; each waits for [Sink.Resumed]. Other turns whose agent was lost end.
func (s *Service) Resume(agentID string, working []string) []Resumable {
	var all []Resumable
	for _, t := range s.asking(agentID, "") {
		if !slices.Contains(working, t.id) {
			t.mu.Lock()
			lost := t.lost != nil
			t.mu.Unlock()
			if lost {
				t.Gone("the agent came back without the turn")
			}
			continue
		}
		if stored, ok := t.back(); ok {
			all = append(all, Resumable{TurnID: t.id, Received: stored, Sink: t})
		}
	}
	slices.SortFunc(all, func(a, b Resumable) int { return cmp.Compare(a.TurnID, b.TurnID) })
	return all
}
