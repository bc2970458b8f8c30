package builtins

import (
	"context"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/packs"
)

// How long a question waits for an answer.
const (
	standardQuestion = 60 * time.Second
	maxQuestion      = 300 * time.Second
)

// An Asker puts questions to people and waits for their answers; see [conversation.Service.Ask].
type Asker interface {
	Ask(ctx context.Context, agentID, turnID string, q conversation.UserQuestion) (conversation.Answered, error)
}

// UI returns the pack that lets an agent ask people.
func UI(a Asker) packs.Pack {
	ask := tool("ask_user", "Ask the user a question and wait for the answer", `{"type":"object","properties":{`+
		`"question":{"type":"string"},"options":{"type":"array","items":{"type":"object","properties":{"label":{"type":"string"},"description":{"type":"string"}},"required":["label"]}},`+
		`"multi_select":{"type":"boolean","description":"Whether more than one option may be chosen"},"header":{"type":"string","description":"A short title"},`+
		`"timeout_seconds":{"type":"integer","description":"How long to wait for the answer; 60 by default, 300 at most"}},"required":["question","options"]}`,
		"ui", ui{a}.ask)
	ask.Timeout = maxQuestion
	return packs.Pack{ID: "builtin:ui", Kind: packs.Builtin, Version: version, Tools: []packs.Tool{ask}}
}

type ui struct{ asker Asker }

func (u ui) ask(ctx context.Context, c *packs.Call, in struct {
	Question string                `json:"question"`
	Options  []conversation.Option `json:"options"`
	Multi    bool                  `json:"multi_select"`
	Header   string                `json:"header"`
	Timeout  int                   `json:"timeout_seconds"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	wait := standardQuestion
	if in.Timeout > 0 {
		wait = time.Duration(min(in.Timeout, int(maxQuestion/time.Second))) * time.Second
	}
	a, err := u.asker.Ask(ctx, me, c.TurnID, conversation.UserQuestion{
		Question: in.Question, Header: in.Header, Options: in.Options, Multi: in.Multi, Timeout: wait,
	})
	if err != nil {
		return nil, err
	}
	if a.Reason != "" {
		return map[string]any{"answered": false, "reason": a.Reason}, nil
	}
	out := map[string]any{"answered": true, "selected": append([]string{}, a.Selected...)}
	if a.Text != "" {
		out["custom_text"] = a.Text
	}
	return out, nil
}
