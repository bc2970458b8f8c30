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

// auditTimeout bounds the wait for the record of an answer that nobody waits for.
const auditTimeout = 10 * time.Second

// A Question is an approval that an agent waits for.
type Question struct {
	AgentID  string
	TurnID   string
	ThreadID string
	ToolID   string // the agent's own
	Name     string // of the tool
	Input    string // JSON text as the agent wrote it
	AskedAt  time.Time
	// When it is denied unless somebody answers it; zero for never. In any case it ends with its turn.
	ExpiresAt time.Time

	number  int         // among those of the turn
	asked   uint64      // the agent's number of it; 0 where it numbers none
	settled bool        // its answer is on its way, and nobody is asked any more
	expiry  *time.Timer // denies it; nil for none

	reply chan<- Decision // of a tool of the gateway's own, which waits for it; capacity 1. nil where the agent waits
}

// tell gives the answer to whoever waits for it: the agent, or a tool. It is in the audit log.
func (t *liveTurn) tell(q Question, d Decision) error {
	switch {
	case q.reply != nil:
		q.reply <- d // has room: a question has one answer
	case q.asked > 0:
		t.onVerdict(q.asked, func(v *verdict) { v.ready = true })
	default:
		return t.service.dispatcher.Approve(q.AgentID, q.ToolID, d.Approved, d.All)
	}
	return nil
}

// A verdict is the answer to a question that the agent has numbered. The agent is told when it is recorded,
// and again on each stream after that, because nobody knows whether it has heard it: it takes the answer
// to a question once.
type verdict struct {
	decision Decision
	ready    bool // it is in the audit log, and the agent had time to begin to wait
	durable  bool // it is in the conversation
}

// judge remembers a verdict that is about to be recorded. t.mu is held.
func (t *liveTurn) judge(v verdict) {
	if len(t.verdicts) == maxAsked { // no more can wait, so the agent has had the first one
		t.verdicts = slices.Delete(t.verdicts, 0, 1)
	}
	t.verdicts = append(t.verdicts, v)
}

// onVerdict notes something of a verdict and tells the agent when it can know it.
func (t *liveTurn) onVerdict(asked uint64, change func(*verdict)) {
	t.mu.Lock()
	i := slices.IndexFunc(t.verdicts, func(v verdict) bool { return v.decision.Number == asked })
	if i < 0 {
		t.mu.Unlock()
		return
	}
	change(&t.verdicts[i])
	v, call := t.verdicts[i], t.call
	t.mu.Unlock()
	if v.ready && v.durable && call != nil {
		call.Decide(asked, v.decision)
	}
}

// onDecided says that a decision is durable.
func (t *liveTurn) onDecided(d Decision) {
	if d.Number > 0 {
		t.onVerdict(d.Number, func(v *verdict) { v.durable = true })
	}
}

// stop keeps a question from expiring.
func (q Question) stop() {
	if q.expiry != nil {
		q.expiry.Stop()
	}
}

// record is what the audit log says of the answer to a question.
func (q Question) record(by auth.Principal, d Decision) auth.AuditRecord {
	detail := map[string]any{
		"agent_id": q.AgentID, "tool": q.Name, "tool_id": q.ToolID, "input_sha256": q.InputHash(), "approved": d.Approved, "all": d.All,
	}
	if by.ID == "" {
		detail["by"] = d.By
	}
	return auth.NewRecord(by, "decide_tool", "turn", q.TurnID, detail)
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
	agentID, here := s.dispatcher.Resolve(v.AgentID)
	if !here { // it may come back for the answer
		agentID = v.AgentID
		if !slices.ContainsFunc(s.asking(agentID, ""), func(t *liveTurn) bool { return t.asks(v.ToolID) }) {
			return fault.New(fault.NotFound, "agent not found")
		}
	}
	whose, err := s.scope(ctx, agentID)
	if err != nil {
		return err
	}
	for _, t := range s.asking(agentID, whose) {
		d := Decision{ID: v.ToolID, Approved: v.Approved, All: v.All, By: p.Name, PrincipalID: p.ID}
		q, err := t.decide(v, d)
		if fault.CodeOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.opts.Audit(ctx, q.record(p, d)); err != nil {
			return err
		}
		if err := t.tell(q, d); err != nil {
			return fault.Wrap(err, fault.NotFound, "agent not found")
		}
		return nil
	}
	return fault.New(fault.NotFound, "agent %s does not wait for the approval of tool %q", agentID, v.ToolID)
}

// Questions returns the approvals that agents wait for and that are the caller's to answer, the
// oldest first; agentID "" means all agents.
func (s *Service) Questions(ctx context.Context, agentID string) ([]Question, error) {
	turns, err := s.mine(ctx, agentID)
	if err != nil {
		return nil, err
	}
	var all []Question
	for _, t := range turns {
		t.mu.Lock()
		for _, q := range t.asked {
			if !q.settled {
				all = append(all, q)
			}
		}
		t.mu.Unlock()
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

// mine returns the open turns of an agent, or with "" of all, that the caller may steer.
func (s *Service) mine(ctx context.Context, agentID string) (turns []*liveTurn, err error) {
	if id, ok := s.dispatcher.Resolve(agentID); ok {
		agentID = id
	}
	scopes := make(map[string]string) // by agent
	for _, t := range s.asking(agentID, "") {
		id := t.feed.agentID
		whose, ok := scopes[id]
		if !ok {
			if whose, err = s.scope(ctx, id); err != nil {
				return nil, err
			}
			scopes[id] = whose
		}
		if whose == "" || whose == t.principal {
			turns = append(turns, t)
		}
	}
	return turns, nil
}

// ask takes an agent's wish to run a tool. What a policy or an earlier decision answers gets that
// answer in a moment; the rest is a question to people. reply gets the answer instead of the agent,
// unless it is nil. Of an agent that numbers its events it is event asked, and rule what a policy says of it;
// else that is looked up. It returns the number of the question, or 0 when too many are open. t.mu is held.
func (t *liveTurn) ask(b Approval, reply chan<- Decision, asked uint64, rule *Decision) int {
	s, now := t.service, time.Now().UTC().Truncate(time.Microsecond)
	q := Question{AgentID: t.feed.agentID, TurnID: t.id, ThreadID: t.thread, ToolID: b.ID, Name: b.Name, Input: b.Input, AskedAt: now, reply: reply, asked: asked}
	b.Number = asked
	full := len(t.asked) == maxAsked
	if rule != nil && !full {
		t.judge(verdict{decision: *rule})
		t.push(item{seq: asked, body: *rule}) // together with its number: it is not asked again
		s.answers.Add(1)
		time.AfterFunc(agentReady, func() {
			defer s.answers.Done()
			t.onVerdict(asked, func(v *verdict) { v.ready = true })
		})
		return 0
	}
	action := Ask
	if asked == 0 {
		action = s.action(q.AgentID, q.Name)
	}
	timeout := s.opts.ApprovalTimeout
	if action == Ask && t.decided == nil && timeout > 0 && !full {
		q.ExpiresAt = now.Add(timeout)
	}
	if action == Ask || full {
		b.ExpiresAt = q.ExpiresAt
		t.push(item{seq: asked, body: b})
	}
	if full {
		return 0
	}
	t.numbered++
	q.number = t.numbered
	switch {
	case action != Ask:
		q.settled = true
		t.decideSoon(agentReady, q, Decision{ID: q.ToolID, Approved: action == Allow, By: byPolicy, Name: q.Name, Input: q.Input}, true)
	case t.decided != nil:
		q.settled = true
		t.decideSoon(agentReady, q, Decision{ID: q.ToolID, Approved: t.decided.Approved, By: t.decided.By}, false)
	case timeout > 0:
		number := q.number
		q.expiry = time.AfterFunc(timeout, func() { t.expire(number) })
	}
	t.asked = append(t.asked, q)
	return q.number
}

// ruled returns what a policy says of a tool that an agent asks about in its event asked; nil where people
// are to be asked. The answer is in the audit log.
func (t *liveTurn) ruled(ctx context.Context, b Approval, asked uint64) *Decision {
	s := t.service
	action := s.action(t.feed.agentID, b.Name)
	if action == Ask {
		return nil
	}
	d := Decision{ID: b.ID, Approved: action == Allow, By: byPolicy, Name: b.Name, Input: b.Input, Number: asked}
	q := Question{AgentID: t.feed.agentID, TurnID: t.id, ToolID: b.ID, Name: b.Name, Input: b.Input}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if err := s.opts.Audit(ctx, q.record(auth.Principal{}, d)); err != nil {
		d.Approved = false // nothing is allowed that is not written down
		s.logger.Error("a decision about a tool could not be recorded, so it is denied", "turn_id", t.id, "tool_id", b.ID, "error", err)
	}
	return &d
}

// AskApproval asks the people of a turn whether its agent may run a tool of the gateway, and waits for
// the answer. With turnID "" it is the turn that the agent has begun last. Nobody is asked again for
// the rest of a turn in which somebody has decided about all.
//
// Faults: Forbidden when somebody has denied it, or nobody can be asked; Limited when too many wait;
// that of ctx when it ends, and Gone when the turn does.
func (s *Service) AskApproval(ctx context.Context, agentID, turnID string, b Approval) error {
	nobody := fault.New(fault.Forbidden, "the tool %s needs an approval, and the agent is answering nobody who could give it", b.Name)
	t := s.working(agentID, turnID)
	if t == nil {
		return nobody
	}
	reply := make(chan Decision, 1)
	t.mu.Lock()
	if t.ending {
		t.mu.Unlock()
		return nobody
	}
	number := t.ask(b, reply, 0, nil)
	t.mu.Unlock()
	if number == 0 {
		return fault.TooOften(time.Second, "%d tools of this turn wait for an approval", maxAsked)
	}
	select {
	case d := <-reply:
		if d.Approved {
			return nil
		}
		return fault.New(fault.Forbidden, "the tool %s was denied by %s", b.Name, d.By)
	case <-t.done:
		return fault.New(fault.Gone, "the turn ended before the tool %s was approved", b.Name)
	case <-ctx.Done():
		t.conclude(number, Decision{ID: b.ID, By: byTimeout})
		return context.Cause(ctx)
	}
}

// expire denies a question that nobody has answered.
func (t *liveTurn) expire(number int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.asked, func(q Question) bool { return q.number == number && !q.settled })
	if i < 0 || t.ending {
		return // somebody was faster
	}
	t.asked[i].settled = true // so that nobody else answers it meanwhile
	t.decideSoon(0, t.asked[i], Decision{ID: t.asked[i].ToolID, By: byTimeout}, true)
}

// decideSoon gives a settled question its answer after a time. A new decision goes into the audit log
// first; an earlier one is there. The service waits for it when it closes. t.mu is held.
func (t *liveTurn) decideSoon(after time.Duration, q Question, d Decision, isNew bool) {
	s := t.service
	s.answers.Add(1)
	time.AfterFunc(after, func() {
		defer s.answers.Done()
		if !t.waits(q.number) {
			return // the turn is over
		}
		if isNew {
			ctx, cancel := context.WithTimeout(context.Background(), auditTimeout)
			defer cancel()
			if err := s.opts.Audit(ctx, q.record(auth.Principal{}, d)); err != nil {
				d.Approved = false // nothing is allowed that is not written down
				s.logger.Error("a decision about a tool could not be recorded, so it is denied", "turn_id", t.id, "tool_id", q.ToolID, "error", err)
			}
		}
		if !t.conclude(q.number, d) {
			return
		}
		if err := t.tell(q, d); err != nil {
			s.logger.Info("an agent could not be told a decision", "turn_id", t.id, "tool_id", q.ToolID, "error", err)
		}
	})
}

// waits reports whether a question has no answer yet and its turn goes on.
func (t *liveTurn) waits(number int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.ending && slices.ContainsFunc(t.asked, func(q Question) bool { return q.number == number })
}

// conclude records the answer to a settled question. It reports false when the turn is over.
func (t *liveTurn) conclude(number int, d Decision) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.asked, func(q Question) bool { return q.number == number })
	if i < 0 || t.ending {
		return false
	}
	if d.Number = t.asked[i].asked; d.Number > 0 {
		t.judge(verdict{decision: d})
	}
	t.asked = slices.Delete(t.asked, i, i+1)
	t.answeredNow()
	t.push(item{body: d})
	return true
}

// asks reports whether the agent waits for somebody to approve a tool: what a policy or an earlier
// decision answers is nobody's question.
func (t *liveTurn) asks(toolID string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.asked, func(q Question) bool { return q.ToolID == toolID && !q.settled })
}

// decide records somebody's answer to an open question and returns the question.
func (t *liveTurn) decide(v Verdict, d Decision) (Question, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.asked, func(q Question) bool { return q.ToolID == v.ToolID && !q.settled })
	if i < 0 || t.ending {
		return Question{}, fault.New(fault.NotFound, "no open question")
	}
	q := t.asked[i]
	if v.InputHash != "" && v.InputHash != q.InputHash() {
		return q, fault.New(fault.Conflict, "the arguments of tool %q are not those that were shown", v.ToolID)
	}
	q.stop()
	t.asked = slices.Delete(t.asked, i, i+1)
	t.answeredNow()
	if d.All {
		t.decided = &d
	}
	if d.Number = q.asked; d.Number > 0 {
		t.judge(verdict{decision: d})
	}
	t.push(item{body: d})
	return q, nil
}
