package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Records shows what agents have stored with the built-in tools.
type Records interface {
	// Records returns a page of a list, from a cursor on that an earlier page has returned, "" for
	// the first one. Of is the agent whose list it is, or the thread that the replies are to.
	Records(ctx context.Context, list RecordList, of, cursor string, limit int) (RecordPage, error)
}

// A RecordList names a list.
type RecordList string

// The lists. All but the replies and the notes have the newest first.
const (
	LogRecords    RecordList = "log"
	TodoRecords   RecordList = "todos"
	MailRecords   RecordList = "mail"  // to the agent
	NoteRecords   RecordList = "notes" // by key
	ThreadRecords RecordList = "threads"
	ReplyRecords  RecordList = "replies" // the oldest first, after the thread itself
)

// A RecordPage is a part of a list.
type RecordPage struct {
	Records []map[string]any
	Next    string // the cursor of the next page; "" if there is none
}

// listTools lists all tools, and says which of them the caller may use.
func (a *API) listTools(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	available, err := a.Tools.Available(r.Context(), packs.Caller{Principal: p})
	if err != nil {
		return orGone(r.Context(), err)
	}
	mine := make(map[string]bool)
	for _, t := range available {
		mine[t.Name] = true
	}
	all := a.Tools.Tools()
	list := make([]fields, len(all))
	for i, t := range all {
		list[i] = fields{
			"name": t.Name, "description": t.Description, "input_schema": json.RawMessage(t.Schema), "required_capabilities": notNil(t.Needs),
			"required_roles": notNil(t.Policy.Roles), "timeout_seconds": int((t.Timeout + time.Second - 1) / time.Second), "calls_per_minute": t.Policy.PerMinute,
			"pack_id": t.PackID, "kind": t.Kind, "agent_id": t.AgentID, "enabled": !t.Policy.Disabled, "needs_approval": t.Policy.Approval, "available": mine[t.Name],
		}
	}
	return writeJSON(w, http.StatusOK, fields{"tools": list})
}

// listPacks lists the packs that are here.
func (a *API) listPacks(w http.ResponseWriter, _ *http.Request) error {
	all := a.Tools.Packs()
	list := make([]fields, len(all))
	for i, p := range all {
		rejected := make([]fields, len(p.Rejected))
		for j, x := range p.Rejected {
			rejected[j] = fields{"tool": x.Tool, "reason": x.Reason}
		}
		list[i] = fields{
			"id": p.ID, "version": p.Version, "kind": p.Kind, "principal_id": p.Principal, "agent_id": p.AgentID,
			"connected_at": stamp(p.Since), "tools": notNil(p.Tools), "rejected": rejected,
		}
	}
	return writeJSON(w, http.StatusOK, fields{"packs": list})
}

// callTool calls a tool, for the caller or on behalf of an agent that it oversees. What the caller
// may do counts, not what the agent may.
func (a *API) callTool(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		AgentID string          `json:"agent_id"`
		Input   json.RawMessage `json:"input" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	if in.AgentID != "" {
		if err := a.oversees(r.Context(), p, in.AgentID); err != nil {
			return err
		}
	}
	output, err := a.Tools.Call(r.Context(), packs.Caller{Principal: p, AgentID: in.AgentID}, r.PathValue("name"), in.Input)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := fields{"output": output} // what a pack has sent need not be JSON
	if json.Valid([]byte(output)) {
		out["output"] = json.RawMessage(output)
	}
	return writeJSON(w, http.StatusOK, out)
}

// oversees refuses callers whose agent it is not.
func (a *API) oversees(ctx context.Context, p auth.Principal, agentID string) error {
	ok, err := a.Identity.Oversees(ctx, p, agentID)
	if err == nil && !ok {
		err = fault.New(fault.Forbidden, "agent %q is not yours", agentID)
	}
	return err
}

// records returns the handler of a list of an agent.
func (a *API) records(list RecordList) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p, err := auth.From(r.Context())
		if err != nil {
			return err
		}
		if err := a.oversees(r.Context(), p, r.PathValue("id")); err != nil {
			return err
		}
		return a.writeRecords(w, r, list, string(list), r.PathValue("id"))
	}
}

// board lists the threads of the board that all agents share.
func (a *API) board(w http.ResponseWriter, r *http.Request) error {
	return a.writeRecords(w, r, ThreadRecords, "threads", "")
}

// boardThread lists a thread of the board and its replies.
func (a *API) boardThread(w http.ResponseWriter, r *http.Request) error {
	return a.writeRecords(w, r, ReplyRecords, "posts", r.PathValue("id"))
}

func (a *API) writeRecords(w http.ResponseWriter, r *http.Request, list RecordList, key, of string) error {
	n, err := limit(r, 50, 500)
	if err != nil {
		return err
	}
	page, err := a.Records.Records(r.Context(), list, of, r.URL.Query().Get("cursor"), n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := fields{key: notNil(page.Records), "has_more": page.Next != ""}
	if page.Next != "" {
		out["next_cursor"] = page.Next
	}
	return writeJSON(w, http.StatusOK, out)
}
