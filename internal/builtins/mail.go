package builtins

import (
	"context"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// A Letter is a mail from one agent to another.
type Letter struct {
	Seq         int64 `json:"-"` // the order of mails
	ID          string
	FromAgentID string
	ToAgentID   string
	Subject     string
	Content     string
	ReadAt      Time
	CreatedAt   Time
}

// A LetterQuery selects mails to an agent.
type LetterQuery struct {
	Page
	ToAgentID string
	Unread    bool // only those that are
}

// A MailStore keeps mails. What is asked for by id and not there is ErrNotFound.
type MailStore interface {
	AddLetter(ctx context.Context, m Letter) error
	// Letters returns mails, the newest first.
	Letters(ctx context.Context, q LetterQuery) ([]Letter, error)
	// ReadLetter returns a mail as it is once it is read, unless allow fails. It is read for the
	// first time at most once.
	ReadLetter(ctx context.Context, id string, at Time, allow func(Letter) error) (Letter, error)
}

// Mail returns the pack of mail between agents. known reports whether there is an agent with an id.
func Mail(s MailStore, known func(ctx context.Context, agentID string) (bool, error)) packs.Pack {
	m := mail{s, known}
	const need = "mail"
	return packs.Pack{ID: "builtin:mail", Kind: packs.Builtin, Version: version, Tools: []packs.Tool{
		tool("mail_send", "Send a mail to another agent",
			`{"type":"object","properties":{"to_agent_id":{"type":"string"},"subject":{"type":"string"},"content":{"type":"string"}},"required":["to_agent_id","subject","content"]}`, need, m.send),
		tool("mail_inbox", "List the mails that you have got, the newest first",
			`{"type":"object","properties":{"unread_only":{"type":"boolean"},`+pagingSchema(20)+`}}`, need, m.inbox),
		tool("mail_read", "Read a mail, which marks it as read",
			`{"type":"object","properties":{"message_id":{"type":"string"}},"required":["message_id"]}`, need, m.read),
	}}
}

type mail struct {
	store MailStore
	known func(ctx context.Context, agentID string) (bool, error)
}

func (m mail) send(ctx context.Context, c *packs.Call, in struct {
	To      string `json:"to_agent_id"`
	Subject string `json:"subject"`
	Content string `json:"content"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	if err := text("to_agent_id", in.To, maxLine); err != nil {
		return nil, err
	}
	if err := text("subject", in.Subject, maxLine); err != nil {
		return nil, err
	}
	if err := text("content", in.Content, maxText); err != nil {
		return nil, err
	}
	if ok, err := m.known(ctx, in.To); err != nil || !ok {
		if err == nil {
			err = fault.New(fault.NotFound, "there is no agent %q", clip(in.To))
		}
		return nil, err
	}
	l := Letter{ID: newID(), FromAgentID: me, ToAgentID: in.To, Subject: in.Subject, Content: in.Content, CreatedAt: now()}
	return map[string]any{"id": l.ID, "status": "sent"}, m.store.AddLetter(ctx, l)
}

func (m mail) inbox(ctx context.Context, c *packs.Call, in struct {
	Limit      int    `json:"limit"`
	UnreadOnly bool   `json:"unread_only"`
	Cursor     string `json:"cursor"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	q := LetterQuery{ToAgentID: me, Unread: in.UnreadOnly}
	if q.Page, err = page(in.Limit, 20, in.Cursor); err != nil {
		return nil, err
	}
	letters, err := m.store.Letters(ctx, q)
	if err != nil {
		return nil, err
	}
	return list("messages", q.Page, letters, func(l Letter) int64 { return l.Seq }, func(l Letter) int { return len(l.Subject) + len(l.Content) }), nil
}

func (m mail) read(ctx context.Context, c *packs.Call, in struct {
	ID string `json:"message_id"`
},
) (any, error) {
	me, err := agent(c)
	if err != nil {
		return nil, err
	}
	return m.store.ReadLetter(ctx, in.ID, now(), func(l Letter) error {
		if l.ToAgentID != me {
			return fault.New(fault.NotFound, "message not found")
		}
		return nil
	})
}
