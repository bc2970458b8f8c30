package builtins

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// How long admin_send_message waits for the answer.
const (
	standardWait = 5 * time.Minute // as long as existing agents wait for a tool
	maxWait      = 9 * time.Minute
	adminTimeout = maxWait + 30*time.Second // of the tool itself
)

// An Agent is a connected agent as the admin pack tells of it.
type Agent struct {
	ID           string   `json:"id"`
	InstanceID   string   `json:"instance_id"`
	Name         string   `json:"name"`
	Backend      string   `json:"backend"`
	WorkingDir   string   `json:"working_dir"`
	Capabilities []string `json:"capabilities"`
	Workspaces   []string `json:"workspaces"`
}

// AdminOptions are what the admin pack needs.
type AdminOptions struct {
	Conversations *conversation.Service
	Agents        func() []Agent                              // that are connected, by id; the lists in them are not nil
	Resolve       func(agentOrInstance string) (string, bool) // the id of a connected agent
	// Oversee returns the context of the same caller, who sees every conversation.
	Oversee func(context.Context) (context.Context, error)
}

// Admin returns the pack that lets an agent direct others.
func Admin(o AdminOptions) packs.Pack {
	a := admin{o}
	const need = "admin"
	send := tool("admin_send_message", "Send a message to an agent and wait for its answer",
		`{"type":"object","properties":{"agent_id":{"type":"string"},"content":{"type":"string"},`+
			`"timeout_seconds":{"type":"integer","description":"How long to wait for the answer; 300 by default, 540 at most"}},"required":["agent_id","content"]}`, need, a.send)
	send.Timeout = adminTimeout
	return packs.Pack{ID: "builtin:admin", Kind: packs.Builtin, Version: version, Tools: []packs.Tool{
		tool("admin_list_agents", "List the agents that are connected", `{"type":"object","properties":{}}`, need, a.list),
		tool("admin_agent_messages", "Read the history of an agent, the oldest first",
			`{"type":"object","properties":{"agent_id":{"type":"string"},`+pagingSchema(50)+`},"required":["agent_id"]}`, need, a.messages),
		send,
	}}
}

type admin struct{ AdminOptions }

func (a admin) list(context.Context, *packs.Call, struct{}) (any, error) {
	agents := a.Agents()
	if agents == nil {
		agents = []Agent{}
	}
	return map[string]any{"agents": agents, "count": len(agents)}, nil
}

func (a admin) messages(ctx context.Context, _ *packs.Call, in struct {
	AgentID string `json:"agent_id"`
	Limit   int    `json:"limit"`
	Cursor  string `json:"cursor"`
},
) (any, error) {
	if err := text("agent_id", in.AgentID, maxLine); err != nil {
		return nil, err
	}
	if in.Limit <= 0 {
		in.Limit = 50
	}
	q := conversation.HistoryQuery{AgentID: in.AgentID, Limit: min(in.Limit, maxLimit)}
	if in.Cursor != "" {
		b, err := base64.RawURLEncoding.DecodeString(in.Cursor)
		if err == nil {
			q.After, err = strconv.ParseInt(string(b), 10, 64)
		}
		if err != nil || q.After < 0 {
			return nil, fault.Wrap(err, fault.Invalid, "cursor must be the next_cursor of an earlier answer")
		}
	}
	ctx, err := a.Oversee(ctx)
	if err != nil {
		return nil, err
	}
	page, err := a.Conversations.History(ctx, q)
	if err != nil {
		return nil, querying(err)
	}
	total, err := a.Conversations.UsageTotal(ctx, conversation.UsageFilter{AgentID: in.AgentID})
	if err != nil {
		return nil, querying(err)
	}
	events, bytes := []map[string]any{}, 0
	for _, e := range page.Entries {
		if bytes += len(e.Text); len(events) > 0 && bytes > maxPage {
			page.More, page.Next = true, events[len(events)-1]["seq"].(int64)
			break
		}
		events = append(events, entry(e))
	}
	out := map[string]any{"agent_id": in.AgentID, "events": events, "count": len(events), "has_more": page.More, "usage": map[string]any{
		"total_input": total.Input, "total_output": total.Output, "total_cache_read": total.CacheRead, "total_cache_write": total.CacheWrite,
		"total_thinking": total.Thinking, "total_tokens": total.Input + total.Output + total.Thinking, "request_count": total.Reports,
	}}
	if page.More {
		out["next_cursor"] = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(page.Next, 10)))
	}
	return out, nil
}

func querying(err error) error {
	return fault.Wrap(err, fault.CodeOf(err), "querying events: %s", fault.Message(err))
}

// entry is a line of history as GET /api/agents/{id}/history shows it.
func entry(e conversation.Entry) map[string]any {
	f := map[string]any{
		"id": e.ID, "direction": "outbound_from_agent", "author": e.Author, "type": e.Type, "timestamp": Time{e.At},
		"thread_id": e.ThreadID, "request_id": e.TurnID, "seq": e.Seq,
	}
	if e.Inbound {
		f["direction"] = "inbound_to_agent"
	}
	if e.Text != "" {
		f["text"] = e.Text
	}
	return f
}

// send sends a message and waits for the end of its turn. The message is one like any other: it is
// recorded with its sender, and its turn goes on when nobody waits for it any more.
func (a admin) send(ctx context.Context, c *packs.Call, in struct {
	AgentID        string `json:"agent_id"`
	Content        string `json:"content"`
	TimeoutSeconds int    `json:"timeout_seconds"`
},
) (any, error) {
	if err := text("agent_id", in.AgentID, maxLine); err != nil {
		return nil, err
	}
	if err := text("content", in.Content, packs.MaxInput); err != nil {
		return nil, err
	}
	to, ok := a.Resolve(in.AgentID)
	if !ok {
		return nil, fault.New(fault.NotFound, "sending message: agent not found")
	}
	done, err := c.WaitFor(to)
	if err != nil {
		return nil, err
	}
	defer done()
	from, who := c.AgentID, c.AgentID
	if from == "" { // a person
		from, who = c.Principal.Name, "principal\x00"+c.Principal.ID
	}
	sender := "admin:" + from
	if len(sender) > conversation.MaxSender {
		sender = strings.ToValidUTF8(sender[:conversation.MaxSender], "")
	}
	turn, err := a.Conversations.Send(ctx, conversation.SendRequest{
		AgentID: to, ThreadID: strand(who, to), Frontend: "agent", ExternalID: from, Sender: sender, Text: in.Content,
	})
	if err != nil {
		words := fault.Message(err)
		if words == "agent unavailable" { // it has left meanwhile
			words = "agent not found"
		}
		return nil, fault.Wrap(err, fault.CodeOf(err), "sending message: %s", words)
	}
	wait := standardWait
	if in.TimeoutSeconds > 0 {
		wait = min(time.Duration(in.TimeoutSeconds)*time.Second, maxWait)
	}
	end, err := a.answered(ctx, turn, wait)
	if err != nil {
		return nil, err
	}
	if end != nil && end.State != conversation.Done {
		return nil, packs.Failed("agent error: " + end.Cause)
	}
	answer, err := a.Conversations.Answer(ctx, turn.ID)
	if err != nil {
		return nil, err
	}
	if answer == "" && end != nil {
		answer = end.Response
	}
	return map[string]any{"status": "sent", "agent_id": to, "response": answer, "done": end != nil, "request_id": turn.ID}, nil
}

// strand is the thread of what one agent says to another, which is always the same: agents keep a
// session for each.
func strand(from, to string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("coven agents\x00"+from+"\x00"+to)).String()
}

// answered waits until a turn has ended and returns how; nil if it has not, for so long.
func (a admin) answered(ctx context.Context, turn conversation.Turn, wait time.Duration) (*conversation.Ended, error) {
	r, err := a.Conversations.Reader(ctx, turn.AgentID, conversation.Filter{TurnID: turn.ID}, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	late, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		events, err := r.Next(late)
		if err != nil {
			if ctx.Err() == nil && late.Err() != nil {
				return nil, nil
			}
			return nil, err
		}
		for _, e := range events {
			if end, ok := e.Body.(conversation.Ended); ok {
				return &end, nil
			}
		}
	}
}
