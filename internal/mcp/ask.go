package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Limits of the tools that ask agents.
const (
	// NeedAgents is the capability that lets a caller ask agents.
	NeedAgents = "agents"

	maxAskName    = 124              // of an agent's id in the name of its tool, in bytes
	maxProgress   = 4 << 10          // of the words of one notification of progress, in bytes
	cancelTimeout = 10 * time.Second // for the record of a cancellation that nobody waits for
)

// Conversations is what the server needs of the service: see [conversation.Service].
type Conversations interface {
	Send(ctx context.Context, r conversation.SendRequest) (conversation.Turn, error)
	Turn(ctx context.Context, id string) (conversation.Turn, error)
	Cancel(ctx context.Context, turnID, reason string) error
	Reader(ctx context.Context, agentID string, f conversation.Filter, after int64) (*conversation.Reader, error)
	Answer(ctx context.Context, turnID string) (string, error)
	Approve(ctx context.Context, v conversation.Verdict) error
	AnswerQuestion(ctx context.Context, a conversation.Answer) error
	Thread(ctx context.Context, id string) (conversation.Thread, error)
	Threads(ctx context.Context, q conversation.ThreadQuery) ([]conversation.Thread, error)
	History(ctx context.Context, q conversation.HistoryQuery) (conversation.HistoryPage, error)
}

// unnameable is what the name of a tool must not have.
var unnameable = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

// Offer makes a connected agent a tool: ask_ID, which sends it a message and returns what it answers.
// withdraw must be called when the agent leaves; open calls end then.
func (s *Server) Offer(agentID string) (withdraw func()) {
	name := unnameable.ReplaceAllString(agentID, "_")
	p := packs.Pack{ID: "builtin:ask:" + agentID, Kind: packs.Builtin, AgentID: agentID, Tools: []packs.Tool{{
		Name: "ask_" + name[:min(len(name), maxAskName)], Needs: []string{NeedAgents}, Timeout: packs.MaxTimeout,
		Description: "Send a message to the agent " + agentID + " and wait for its answer",
		Schema: `{"type":"object","properties":{"message":{"type":"string","minLength":1,"description":"What to say to the agent"},` +
			`"thread_id":{"type":"string","description":"Continues a thread: the thread_id of an earlier answer"}},"required":["message"],"additionalProperties":false}`,
		Call: func(ctx context.Context, c *packs.Call) (string, error) { return s.ask(ctx, agentID, c) },
	}}}
	added, err := s.opts.Tools.Add(p)
	if err != nil { // its name is another tool's
		s.opts.Logger.Warn("an agent cannot be asked over MCP", "agent_id", agentID, "error", err)
		return func() {}
	}
	return added.Remove
}

// ask sends a message, or goes on with the turn that the dialog is about, and returns the answer. The
// turn is cancelled when the call ends before it, but not when the client will come back for it.
func (s *Server) ask(ctx context.Context, agentID string, c *packs.Call) (string, error) {
	d := dialogOf(ctx)
	turn, err := s.askedTurn(ctx, d, agentID, c)
	if err != nil {
		return "", err
	}
	x := &asking{server: s, dialog: d, agentID: agentID, turn: turn, open: make(map[string]conversation.Body), elicited: make(map[string]func()), replies: make(chan reply)}
	ended, err := x.follow(ctx)
	x.stop()
	if ended == nil && d.pause == nil {
		cancelling, done := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
		defer done()
		if e := s.opts.Conversations().Cancel(cancelling, turn.ID, "the MCP client has cancelled the call"); e != nil && fault.CodeOf(e) != fault.Conflict {
			err = errors.Join(err, e)
		}
	}
	if err != nil || ended == nil {
		return "", err
	}
	if ended.State != conversation.Done {
		return "", packs.Failed(fmt.Sprintf("the agent %s has not answered: %s: %s", agentID, ended.State, ended.Cause))
	}
	answer := ended.Response
	if answer == "" {
		if answer, err = s.opts.Conversations().Answer(ctx, turn.ID); err != nil {
			return "", err
		}
	}
	out, err := json.Marshal(map[string]string{"answer": answer, "thread_id": turn.ThreadID, "turn_id": turn.ID})
	return string(out), err
}

// askedTurn begins the turn of a call, or returns the one that it goes on with, which is the caller's own.
func (s *Server) askedTurn(ctx context.Context, d *dialog, agentID string, c *packs.Call) (conversation.Turn, error) {
	if d.state.Turn != "" {
		turn, err := s.opts.Conversations().Turn(ctx, d.state.Turn)
		if err == nil && (turn.AgentID != agentID || turn.PrincipalID != c.Principal.ID) {
			err = fault.New(fault.NotFound, "no turn %q", d.state.Turn)
		}
		return turn, err
	}
	var in struct {
		Message  string `json:"message"`
		ThreadID string `json:"thread_id"`
	}
	if err := json.Unmarshal(c.Input, &in); err != nil {
		return conversation.Turn{}, fault.New(fault.Invalid, "%s", err)
	}
	return s.opts.Conversations().Send(ctx, conversation.SendRequest{AgentID: agentID, ThreadID: in.ThreadID, Frontend: "mcp", Text: in.Message})
}

// An asking is a call that waits for a turn. It belongs to the goroutine of the call.
type asking struct {
	server   *Server
	dialog   *dialog
	agentID  string
	turn     conversation.Turn
	open     map[string]conversation.Body // Asked and Approval bodies that nobody has answered, by id
	elicited map[string]func()            // ends the request to the client; its goroutine is one of asked
	asked    sync.WaitGroup
	replies  chan reply // from asked, without room
}

// A reply is what a client says to a question.
type reply struct {
	id     string
	action string
	values map[string]any
}

// stop ends the requests to the client and waits for them.
func (x *asking) stop() {
	for _, end := range x.elicited {
		end()
	}
	x.asked.Wait()
}

// follow reads the turn until it ends, or until the client has to be asked something in its next round.
func (x *asking) follow(ctx context.Context) (*conversation.Ended, error) {
	r, err := x.server.opts.Conversations().Reader(ctx, x.agentID, conversation.Filter{TurnID: x.turn.ID}, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	first := true
	for {
		events, err := r.Poll(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if ended, ok := e.Body.(conversation.Ended); ok {
				return &ended, nil
			}
			x.note(ctx, e)
		}
		if len(events) > 0 {
			continue
		}
		if first { // what the client said is about what was open before
			first = false
			for id, a := range x.dialog.answers {
				x.settle(ctx, reply{id, a.Action, a.Content})
			}
			continue
		}
		if x.inquire(ctx, r.Position()) {
			return nil, nil
		}
		select {
		case <-r.Ready():
		case a := <-x.replies:
			x.settle(ctx, a)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// note takes an event of the turn.
func (x *asking) note(ctx context.Context, e conversation.Event) {
	seen := e.Seq <= x.dialog.state.Seen
	switch b := e.Body.(type) {
	case conversation.Text:
		if !seen {
			x.dialog.progress(ctx, e.Seq-x.turn.First, b.Text)
		}
	case conversation.ToolCall:
		if !seen {
			x.dialog.progress(ctx, e.Seq-x.turn.First, "calls "+b.Name)
		}
	case conversation.Asked:
		x.open[b.ID] = b
	case conversation.Approval:
		x.open[b.ID] = b
	case conversation.Answered:
		x.answered(b.ID)
	case conversation.Decision:
		x.answered(b.ID)
	}
}

// answered forgets a question that somebody has answered, here or elsewhere.
func (x *asking) answered(id string) {
	delete(x.open, id)
	if end := x.elicited[id]; end != nil {
		end()
	}
}

// inquire asks the client what is open, unless it has dismissed it. It reports whether the client must
// come back with the answers.
func (x *asking) inquire(ctx context.Context, position int64) (pause bool) {
	d := x.dialog
	if !d.elicits {
		return false
	}
	ask := make(map[string]form)
	for id, b := range x.open {
		if x.elicited[id] == nil && !slices.Contains(d.state.Dismissed, id) {
			ask[id] = formOf(x.agentID, b)
		}
	}
	if len(ask) == 0 {
		return false
	}
	if d.rounds {
		next := d.state
		next.Turn, next.Seen = x.turn.ID, position
		d.pauseFor(ask, next)
		return true
	}
	for id, f := range ask {
		asking, end := context.WithCancel(ctx)
		x.elicited[id] = end
		x.asked.Go(func() {
			action, values := d.elicit(asking, f)
			select {
			case x.replies <- reply{id, action, values}:
			case <-asking.Done():
			}
		})
	}
	return false
}

// settle hands what the client says to whoever waits for it. What is no answer leaves the question to
// others, as does one that came too late.
func (x *asking) settle(ctx context.Context, a reply) {
	var err error
	body, open := x.open[a.id]
	x.dialog.state.Dismissed = append(x.dialog.state.Dismissed, a.id)
	switch b := body.(type) {
	case conversation.Asked:
		if a.action == actionAccept {
			err = x.server.opts.Conversations().AnswerQuestion(ctx, answerOf(x.agentID, b.ID, a.values))
		}
	case conversation.Approval:
		verdict, given := verdictOf(x.agentID, b, a)
		if given {
			err = x.server.opts.Conversations().Approve(ctx, verdict)
		}
	}
	if open && err != nil && fault.CodeOf(err) != fault.NotFound {
		x.server.opts.Logger.Info("the answer of an MCP client is none", "turn_id", x.turn.ID, "question_id", a.id, "error", err)
	}
}

// clip bounds a text that is shown to people.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
