package mcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// What a client does with a form.
const (
	actionAccept  = "accept"
	actionDecline = "decline"
)

// Choices of somebody who is asked for an approval.
const (
	choiceApprove = "approve"
	choiceAll     = "approve for the rest of the turn"
	choiceDeny    = "deny"
)

// maxShown bounds the input of a tool that is shown to somebody who is to approve it, in bytes.
const maxShown = 4 << 10

// A dialog is what a tool can do with the client that calls it, while it runs. It belongs to the
// goroutine of the call; elicit may be called by others.
type dialog struct {
	session *mcp.ServerSession
	token   any  // of progress; nil when the client wants none
	elicits bool // the client can ask its user
	rounds  bool // it is asked by ending the call, and calls again
	last    int64

	state   state
	answers map[string]*mcp.ElicitResult // to what the last round asked for
	pause   *mcp.CallToolResult          // what the client has to answer first; nil for nothing
}

// state is what a client brings back in its next round. It proves nothing: whose the turn is is asked
// again.
type state struct {
	Turn      string   `json:"turn"`
	Seen      int64    `json:"seen"`                // position up to which progress was told
	Dismissed []string `json:"dismissed,omitempty"` // what the client was asked and has answered, or has not wanted to
}

type dialogKey struct{}

// dialogOf returns the dialog with the client of a call; one that can do nothing where there is none.
func dialogOf(ctx context.Context) *dialog {
	if d, ok := ctx.Value(dialogKey{}).(*dialog); ok {
		return d
	}
	return &dialog{}
}

// newDialog returns the dialog of a call.
func newDialog(req *mcp.CallToolRequest, c *caller) (*dialog, error) {
	p := req.Params
	d := &dialog{session: req.Session, token: p.GetProgressToken(), rounds: c.modern, answers: make(map[string]*mcp.ElicitResult)}
	if caps := req.ClientCapabilities(); caps != nil && caps.Elicitation != nil {
		d.elicits = caps.Elicitation.Form != nil || caps.Elicitation.URL == nil
	}
	if p.RequestState != "" {
		b, err := base64.RawURLEncoding.DecodeString(p.RequestState)
		if err == nil {
			err = json.Unmarshal(b, &d.state)
		}
		if err != nil || d.state.Turn == "" {
			return nil, fault.New(fault.Invalid, "requestState must be that of the result before")
		}
	}
	for id, r := range p.InputResponses {
		if e, ok := r.(*mcp.ElicitResult); ok {
			d.answers[id] = e
		}
	}
	return d, nil
}

// progress tells the client how far its call is. n grows.
func (d *dialog) progress(ctx context.Context, n int64, words string) {
	if d.token == nil || n <= d.last {
		return
	}
	d.last = n
	// A client that does not listen ends the call by itself.
	_ = d.session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: d.token, Progress: float64(n), Message: clip(words, maxProgress)})
}

// elicit asks the client and waits.
func (d *dialog) elicit(ctx context.Context, f form) (action string, values map[string]any) {
	res, err := d.session.Elicit(ctx, f.params())
	if err != nil {
		return "cancel", nil // others may answer
	}
	return res.Action, res.Content
}

// pauseFor has the call end, with what the client must answer before it goes on.
func (d *dialog) pauseFor(ask map[string]form, next state) {
	b, err := json.Marshal(next)
	if err != nil {
		panic(err) // it has texts and numbers only
	}
	requests := make(mcp.InputRequestMap)
	for id, f := range ask {
		requests[id] = f.params()
	}
	d.pause = &mcp.CallToolResult{InputRequests: requests, RequestState: base64.RawURLEncoding.EncodeToString(b)}
}

// A form is what a person is asked.
type form struct {
	message string
	schema  map[string]any
}

func (f form) params() *mcp.ElicitParams {
	return &mcp.ElicitParams{Mode: "form", Message: f.message, RequestedSchema: f.schema}
}

// formOf returns the form for a question of an agent.
func formOf(agentID string, b conversation.Body) form {
	switch b := b.(type) {
	case conversation.Asked:
		return questionForm(b)
	case conversation.Approval:
		return form{
			message: "The agent " + agentID + " asks whether it may run the tool " + b.Name + " with " + clip(b.Input, maxShown),
			schema: map[string]any{
				"type": "object", "required": []string{"decision"},
				"properties": map[string]any{"decision": map[string]any{"type": "string", "enum": []string{choiceApprove, choiceAll, choiceDeny}}},
			},
		}
	}
	return form{}
}

func questionForm(b conversation.Asked) form {
	var words strings.Builder
	if b.Header != "" {
		words.WriteString(b.Header + "\n\n")
	}
	words.WriteString(b.Question)
	labels := make([]string, len(b.Options))
	for i, o := range b.Options {
		labels[i] = o.Label
		if o.Description != "" {
			words.WriteString("\n" + o.Label + ": " + o.Description)
		}
	}
	choice := map[string]any{"type": "string", "enum": labels}
	if b.Multi {
		choice = map[string]any{"type": "array", "items": map[string]any{"type": "string", "enum": labels}}
	}
	return form{message: words.String(), schema: map[string]any{
		"type":       "object",
		"properties": map[string]any{"choice": choice, "text": map[string]any{"type": "string", "description": "In your own words"}},
	}}
}

// answerOf returns what somebody has filled into the form of a question.
func answerOf(agentID, id string, values map[string]any) conversation.Answer {
	a := conversation.Answer{AgentID: agentID, ID: id}
	switch v := values["choice"].(type) {
	case string:
		a.Selected = []string{v}
	case []any:
		for _, x := range v {
			if label, ok := x.(string); ok {
				a.Selected = append(a.Selected, label)
			}
		}
	}
	a.Text, _ = values["text"].(string)
	return a
}

// verdictOf returns what somebody has decided; given is false for nothing.
func verdictOf(agentID string, b conversation.Approval, r reply) (v conversation.Verdict, given bool) {
	v = conversation.Verdict{AgentID: agentID, ToolID: b.ID, InputHash: conversation.Question{Input: b.Input}.InputHash()}
	switch decision := r.values["decision"]; {
	case r.action == actionDecline || r.action == actionAccept && decision == choiceDeny:
		return v, true
	case r.action == actionAccept && (decision == choiceApprove || decision == choiceAll):
		v.Approved, v.All = true, decision == choiceAll
		return v, true
	}
	return v, false
}
