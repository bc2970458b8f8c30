package conversation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// agentReady is how long an agent has to begin to wait for the answer to what it has just asked,
// when nobody has to think about it (grpc.md 4.9).
const agentReady = 50 * time.Millisecond

// A Question is an approval that an agent waits for.
type Question struct {
	AgentID  string
	TurnID   string
	ThreadID string
	ToolID   string // the agent's own
	Name     string // of the tool
	Input    string // JSON text as the agent wrote it
	AskedAt  time.Time
}

// InputHash identifies the arguments that a person was shown: the SHA-256 of Input in hex.
func (q Question) InputHash() string {
	sum := sha256.Sum256([]byte(q.Input))
	return hex.EncodeToString(sum[:])
}

// A Verdict is an answer to a Question.
type Verdict struct {
	AgentID   string // or the instance id of its connection
	ToolID    string
	Approved  bool
	All       bool   // it holds for the rest of the turn
	InputHash string // unless "": of the arguments that were shown; others are refused
}

// Approve answers the question of an agent whether it may run a tool. The first answer counts, is
// recorded in the conversation and in the audit log, and then reaches the agent.
//
// Faults: NotFound when the question is not open, not the caller's to answer, or the agent has
// left; Conflict when its arguments are not those that were shown.
func (s *Service) Approve(ctx context.Context, v Verdict) error {
	p, err := auth.From(ctx)
	if err != nil {
		return err
	}
	agentID, ok := s.dispatcher.Resolve(v.AgentID)
	if !ok {
		return fault.New(fault.NotFound, "agent not found")
	}
	whose, err := s.scope(ctx, agentID)
	if err != nil {
		return err
	}
	for _, t := range s.asking(agentID, whose) {
		q, err := t.decide(v, Decision{ID: v.ToolID, Approved: v.Approved, All: v.All, By: p.Name, PrincipalID: p.ID})
		if fault.CodeOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		err = s.opts.Audit(ctx, auth.NewRecord(p, "decide_tool", "turn", q.TurnID, map[string]any{
			"agent_id": agentID, "tool": q.Name, "tool_id": q.ToolID, "input_sha256": q.InputHash(), "approved": v.Approved, "all": v.All,
		}))
		if err != nil {
			return err
		}
		if err := s.dispatcher.Approve(agentID, v.ToolID, v.Approved, v.All); err != nil {
			return fault.Wrap(err, fault.NotFound, "agent not found")
		}
		return nil
	}
	return fault.New(fault.NotFound, "agent %s does not wait for the approval of tool %q", agentID, v.ToolID)
}

// Questions returns the approvals that agents wait for and that are the caller's to answer, the
// oldest first; agentID "" means all agents.
func (s *Service) Questions(ctx context.Context, agentID string) ([]Question, error) {
	if id, ok := s.dispatcher.Resolve(agentID); ok {
		agentID = id
	}
	scopes := make(map[string]string) // by agent
	var all []Question
	for _, t := range s.asking(agentID, "") {
		id := t.feed.agentID
		whose, ok := scopes[id]
		if !ok {
			var err error
			if whose, err = s.scope(ctx, id); err != nil {
				return nil, err
			}
			scopes[id] = whose
		}
		if whose == "" || whose == t.principal {
			t.mu.Lock()
			all = append(all, t.asked...)
			t.mu.Unlock()
		}
	}
	slices.SortFunc(all, func(a, b Question) int { return cmp.Or(a.AskedAt.Compare(b.AskedAt), cmp.Compare(a.ToolID, b.ToolID)) })
	return all, nil
}

// asking returns the open turns of an agent, and of a principal, unless these are "".
func (s *Service) asking(agentID, principal string) []*liveTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var turns []*liveTurn
	for _, t := range s.open {
		if (agentID == "" || t.feed.agentID == agentID) && (principal == "" || principal == t.principal) {
			turns = append(turns, t)
		}
	}
	return turns
}

// ask notes that the agent waits for an approval. One that an earlier decision answers gets that
// answer in a moment. t.mu is held.
func (t *liveTurn) ask(b Approval) {
	if len(t.asked) == maxAsked {
		return
	}
	t.asked = append(t.asked, Question{
		AgentID: t.feed.agentID, TurnID: t.id, ThreadID: t.thread, ToolID: b.ID, Name: b.Name, Input: b.Input, AskedAt: time.Now().UTC(),
	})
	if t.decided == nil {
		return
	}
	again := Decision{ID: b.ID, Approved: t.decided.Approved, By: t.decided.By}
	time.AfterFunc(agentReady, func() {
		v := Verdict{ToolID: again.ID, Approved: again.Approved}
		if _, err := t.decide(v, again); err != nil {
			return // somebody was faster, or the turn is over
		}
		if err := t.service.dispatcher.Approve(t.feed.agentID, v.ToolID, v.Approved, false); err != nil {
			t.service.logger.Info("an agent could not be told a decision", "request_id", t.id, "tool_id", v.ToolID, "error", err)
		}
	})
}

// asks reports whether the agent waits for somebody to approve a tool: what an earlier decision
// answers is nobody's question.
func (t *liveTurn) asks(toolID string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.decided == nil && slices.ContainsFunc(t.asked, func(q Question) bool { return q.ToolID == toolID })
}

// decide records the answer to an open question and returns the question.
func (t *liveTurn) decide(v Verdict, d Decision) (Question, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.asked, func(q Question) bool { return q.ToolID == v.ToolID })
	if i < 0 || t.ending {
		return Question{}, fault.New(fault.NotFound, "no open question")
	}
	q := t.asked[i]
	if v.InputHash != "" && v.InputHash != q.InputHash() {
		return q, fault.New(fault.Conflict, "the arguments of tool %q are not those that were shown", v.ToolID)
	}
	t.asked = slices.Delete(t.asked, i, i+1)
	if d.All {
		t.decided = &d
	}
	t.push(item{body: d})
	return q, nil
}
