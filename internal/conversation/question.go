package conversation

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Limits of questions to people, in bytes where they are not counts.
const (
	MaxQuestion   = 16 << 10
	MaxOptions    = 100
	MaxOption     = 1000 // one label or description
	MaxHeader     = 200
	MaxAnswerText = 64 << 10

	maxOpenQuestions = 20 // of one turn
)

// Words of why a question was not answered.
const (
	ReasonTimeout    = "timeout"
	ReasonNoResponse = "no_response" // the turn ended, or the agent does not wait any more
)

// An Option is something to choose.
type Option struct {
	Label       string `json:"label"` // unique in its question
	Description string `json:"description,omitempty"`
}

// A UserQuestion is what an agent asks people.
type UserQuestion struct {
	Question string
	Header   string // a short title; may be empty
	Options  []Option
	Multi    bool // more than one may be chosen
	Timeout  time.Duration
}

// A PendingQuestion is a question that nobody has answered.
type PendingQuestion struct {
	UserQuestion
	ID        string
	AgentID   string
	TurnID    string
	ThreadID  string
	AskedAt   time.Time
	ExpiresAt time.Time

	reply chan Answered // capacity 1
}

// An Answer is what somebody says to a question.
type Answer struct {
	AgentID  string // or the instance id of its connection
	ID       string // of the question
	Selected []string
	Text     string
}

// Ask puts a question of an agent to the people of a turn, and waits for the answer, the end of the
// time, or of ctx. With turnID "" it is the turn that the agent has begun last. Reason says why
// nobody has answered, Selected and Text are empty then.
//
// Faults: Invalid and TooLarge about the question; ToolFailed when the agent is answering nobody.
func (s *Service) Ask(ctx context.Context, agentID, turnID string, u UserQuestion) (Answered, error) {
	if err := u.check(); err != nil {
		return Answered{}, err
	}
	t := s.working(agentID, turnID)
	if t == nil {
		return Answered{}, fault.New(fault.ToolFailed, "failed to send question: no connected clients for agent %s", agentID)
	}
	q, err := t.inquire(u)
	if err != nil {
		return Answered{}, err
	}
	late := time.NewTimer(u.Timeout)
	defer late.Stop()
	reason := ReasonTimeout
	select {
	case a := <-q.reply:
		return a, nil
	case <-late.C:
	case <-t.done:
		reason = ReasonNoResponse
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			reason = ReasonNoResponse
		}
	}
	return t.giveUp(q, reason), nil
}

func (u UserQuestion) check() error {
	switch {
	case u.Question == "":
		return fault.New(fault.Invalid, "question is required")
	case len(u.Options) == 0:
		return fault.New(fault.Invalid, "at least one option is required")
	case len(u.Question) > MaxQuestion:
		return fault.New(fault.TooLarge, "question must not be longer than %d bytes; this one has %d", MaxQuestion, len(u.Question))
	case len(u.Header) > MaxHeader:
		return fault.New(fault.TooLarge, "header must not be longer than %d bytes; this one has %d", MaxHeader, len(u.Header))
	case len(u.Options) > MaxOptions:
		return fault.New(fault.Invalid, "a question must not have more than %d options; this one has %d", MaxOptions, len(u.Options))
	case !utf8.ValidString(u.Question) || !utf8.ValidString(u.Header):
		return fault.New(fault.Invalid, "question and header must be UTF-8")
	}
	known := make(map[string]bool)
	for i, o := range u.Options {
		switch {
		case o.Label == "":
			return fault.New(fault.Invalid, "options[%d]: label is required", i)
		case len(o.Label) > MaxOption || len(o.Description) > MaxOption:
			return fault.New(fault.TooLarge, "options[%d]: label and description must not be longer than %d bytes", i, MaxOption)
		case !utf8.ValidString(o.Label) || !utf8.ValidString(o.Description):
			return fault.New(fault.Invalid, "options[%d]: label and description must be UTF-8", i)
		case known[o.Label]:
			return fault.New(fault.Invalid, "duplicate option label: %q", o.Label)
		}
		known[o.Label] = true
	}
	return nil
}

// working returns a turn that an agent works on: the one with an id, or the newest.
func (s *Service) working(agentID, turnID string) (newest *liveTurn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if turnID != "" {
		if t := s.open[turnID]; t != nil && t.feed.agentID == agentID && !t.waiting {
			return t
		}
		return nil
	}
	for _, t := range s.open {
		if t.feed.agentID != agentID || t.waiting {
			continue
		}
		if newest == nil || t.begins > newest.begins {
			newest = t
		}
	}
	return newest
}

// inquire records a question.
func (t *liveTurn) inquire(u UserQuestion) (*PendingQuestion, error) {
	now := time.Now().UTC()
	q := &PendingQuestion{
		UserQuestion: u, ID: rand.Text(), AgentID: t.feed.agentID, TurnID: t.id, ThreadID: t.thread,
		AskedAt: now, ExpiresAt: now.Add(u.Timeout), reply: make(chan Answered, 1),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ending:
		return nil, fault.New(fault.ToolFailed, "failed to send question: no connected clients for agent %s", t.feed.agentID)
	case len(t.questions) >= maxOpenQuestions:
		return nil, fault.TooOften(time.Second, "%d questions of this turn wait for an answer", len(t.questions))
	}
	t.questions = append(t.questions, q)
	t.heard = now
	t.push(item{body: Asked{ID: q.ID, Question: u.Question, Header: u.Header, Options: u.Options, Multi: u.Multi, Seconds: int(u.Timeout / time.Second), Until: q.ExpiresAt}})
	return q, nil
}

// giveUp takes a question back, unless it was answered at the last moment.
func (t *liveTurn) giveUp(q *PendingQuestion, reason string) Answered {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.settle(q) {
		return <-q.reply
	}
	a := Answered{ID: q.ID, Reason: reason}
	if !t.ending {
		t.heard = time.Now()
		t.push(item{body: a})
	}
	return a
}

// settle takes a question out of those that wait, and reports whether it was there. t.mu is held.
func (t *liveTurn) settle(q *PendingQuestion) bool {
	before := len(t.questions)
	t.questions = slices.DeleteFunc(t.questions, func(x *PendingQuestion) bool { return x == q })
	t.answeredNow()
	return len(t.questions) < before
}

// questioned reports whether a question waits for an answer.
func (t *liveTurn) questioned(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.questions, func(q *PendingQuestion) bool { return q.ID == id })
}

// AnswerQuestion answers a question. The first answer that fits counts, is recorded in the conversation and
// reaches the agent; one that does not fit leaves the question open.
//
// Faults: NotFound when the question is not open or not the caller's to answer; Conflict when it is
// another agent's; Invalid and TooLarge about the answer.
func (s *Service) AnswerQuestion(ctx context.Context, a Answer) error {
	p, err := auth.From(ctx)
	if err != nil {
		return err
	}
	if id, ok := s.dispatcher.Resolve(a.AgentID); ok {
		a.AgentID = id
	}
	pending, err := s.PendingQuestions(ctx, "")
	if err != nil {
		return err
	}
	for _, q := range pending {
		if q.ID != a.ID {
			continue
		}
		if q.AgentID != a.AgentID {
			return fault.New(fault.Conflict, "answer agent_id %q does not match question agent_id %q", a.AgentID, q.AgentID)
		}
		if err := q.fits(a); err != nil {
			return err
		}
		s.mu.Lock()
		t := s.open[q.TurnID]
		s.mu.Unlock()
		if t != nil && t.answer(q.ID, Answered{ID: q.ID, Selected: a.Selected, Text: a.Text, By: p.Name, PrincipalID: p.ID}) {
			return nil
		}
		break
	}
	return fault.New(fault.NotFound, "question not found or already answered")
}

// answer settles a question, unless somebody was faster.
func (t *liveTurn) answer(id string, a Answered) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.questions, func(q *PendingQuestion) bool { return q.ID == id })
	if i < 0 || t.ending {
		return false
	}
	q := t.questions[i]
	t.questions = slices.Delete(t.questions, i, i+1)
	t.answeredNow()
	t.heard = time.Now()
	t.push(item{body: a})
	q.reply <- a // has room: it is settled once
	return true
}

// fits returns why an answer is none to the question.
func (u UserQuestion) fits(a Answer) error {
	switch {
	case len(a.Text) > MaxAnswerText:
		return fault.New(fault.TooLarge, "custom_text must not be longer than %d bytes; this one has %d", MaxAnswerText, len(a.Text))
	case !utf8.ValidString(a.Text):
		return fault.New(fault.Invalid, "custom_text must be UTF-8")
	case len(a.Selected) > 1 && !u.Multi:
		return fault.New(fault.Invalid, "selected must have at most one of the options; this one has %d", len(a.Selected))
	}
	for i, s := range a.Selected {
		if !slices.ContainsFunc(u.Options, func(o Option) bool { return o.Label == s }) {
			return fault.New(fault.Invalid, "selected[%d]: %q is not an option", i, s)
		}
		if slices.Contains(a.Selected[:i], s) {
			return fault.New(fault.Invalid, "selected[%d]: %q is there twice", i, s)
		}
	}
	return nil
}

// PendingQuestions returns the questions that wait for an answer and that are the caller's to give, the
// oldest first; agentID "" means all agents.
func (s *Service) PendingQuestions(ctx context.Context, agentID string) ([]PendingQuestion, error) {
	turns, err := s.mine(ctx, agentID)
	if err != nil {
		return nil, err
	}
	var all []PendingQuestion
	for _, t := range turns {
		t.mu.Lock()
		for _, q := range t.questions {
			all = append(all, *q)
		}
		t.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b PendingQuestion) int { return cmp.Or(a.AskedAt.Compare(b.AskedAt), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}
