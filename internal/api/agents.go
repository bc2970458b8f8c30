package api

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// An Agent is a connected agent as it is listed.
type Agent struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Connected    bool      `json:"connected"`
	InstanceID   string    `json:"instance_id"`
	PrincipalID  string    `json:"principal_id"`
	Capabilities []string  `json:"capabilities"`
	Workspaces   []string  `json:"workspaces"`
	WorkingDir   string    `json:"working_dir"`
	Backend      string    `json:"backend"`
	ConnectedAt  time.Time `json:"connected_at"`
	LastSeen     time.Time `json:"last_seen"`
	OpenTurns    int       `json:"open_turns"`
	Git          *Git      `json:"git,omitempty"` // nil outside of a repository
	Hostname     string    `json:"hostname,omitempty"`
	OS           string    `json:"os,omitempty"`
	Features     []string  `json:"features,omitempty"`
}

// Git is the state of an agent's repository when it connected.
type Git struct {
	Branch string `json:"branch"`
	Commit string `json:"commit"`
	Remote string `json:"remote"`
	Dirty  bool   `json:"dirty"`
	Ahead  int    `json:"ahead"`
	Behind int    `json:"behind"`
}

func (a *API) listAgents(w http.ResponseWriter, r *http.Request) error {
	agents := a.Agents.List()
	if ws := r.URL.Query().Get("workspace"); ws != "" {
		agents = slices.DeleteFunc(agents, func(x Agent) bool { return !slices.Contains(x.Workspaces, ws) })
	}
	for i := range agents {
		x := &agents[i]
		x.Capabilities, x.Workspaces = notNil(x.Capabilities), notNil(x.Workspaces)
		x.ConnectedAt, x.LastSeen = x.ConnectedAt.UTC(), x.LastSeen.UTC()
	}
	return writeJSON(w, http.StatusOK, notNil(agents))
}

// history is the history of an agent, the oldest first; newest=true gives the last entries. A turn
// that failed in mid-answer is one line of the log and two entries, which are never parted: a page
// may have a few more entries than its limit.
func (a *API) history(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 50, 500)
	if err != nil {
		return err
	}
	q := conversation.HistoryQuery{AgentID: r.PathValue("id"), Limit: n}
	if q.Newest, err = flag(r, "newest"); err != nil {
		return err
	}
	if c := r.URL.Query().Get("cursor"); c != "" {
		if q.Newest {
			return fault.New(fault.Invalid, "newest=true gives the last entries only; it takes no cursor")
		}
		if q.After, err = fromCursor(c); err != nil {
			return err
		}
		q.Removed = true
	}
	page, err := a.Conversations.History(r.Context(), q)
	if err != nil {
		return orGone(r.Context(), err)
	}
	total, err := a.Conversations.UsageTotal(r.Context(), conversation.UsageFilter{AgentID: q.AgentID})
	if err != nil {
		return orGone(r.Context(), err)
	}
	events := make([]fields, len(page.Entries))
	for i, e := range page.Entries {
		events[i] = entryFields(e)
	}
	out := fields{"agent_id": q.AgentID, "events": events, "count": len(events), "has_more": page.More, "usage": totalFields(total)}
	if page.More && !q.Newest {
		out["next_cursor"] = toCursor(page.Next)
	}
	return writeJSON(w, http.StatusOK, out)
}

// entryFields is a line of history as existing clients know it.
func entryFields(e conversation.Entry) fields {
	f := fields{
		"id": e.ID, "direction": "outbound_from_agent", "author": e.Author, "type": e.Type, "timestamp": stamp(e.At),
		"thread_id": e.ThreadID, "request_id": e.TurnID, "seq": e.Seq,
	}
	if e.Inbound {
		f["direction"] = "inbound_to_agent"
	}
	if e.Text != "" {
		f["text"] = e.Text
	}
	if len(e.Files) > 0 {
		f["attachments"] = files(e.Files)
	}
	return f
}

// A cursor is a position that clients hand back as it is.
func toCursor(n int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(n, 10)))
}

func fromCursor(s string) (int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		var n int64
		if n, err = strconv.ParseInt(string(b), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, fault.Wrap(err, fault.Invalid, "cursor must be the next_cursor of an earlier answer")
}

// notNil makes an empty list out of none, which JSON tells apart.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
