package api

import (
	"encoding/json"
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// mostFiles bounds the list of a thread's files.
const mostFiles = 1000

func (a *API) listThreads(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 50, 500)
	if err != nil {
		return err
	}
	var before int64
	if c := r.URL.Query().Get("cursor"); c != "" {
		if before, err = fromCursor(c); err != nil {
			return err
		}
	}
	archived, err := flag(r, "archived")
	if err != nil {
		return err
	}
	threads, err := a.Conversations.Threads(r.Context(), conversation.ThreadQuery{
		AgentID: r.URL.Query().Get("agent_id"), Archived: archived, Before: before, Limit: n + 1,
	})
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, pageOf("threads", threads, n, threadFields, func(t conversation.Thread) int64 { return t.Activity }))
}

// pageOf is a page of n rows, of which one more was asked for to see whether there are more. position is what
// the next page begins behind.
func pageOf[T any](name string, rows []T, n int, show func(T) fields, position func(T) int64) fields {
	out := fields{"has_more": len(rows) > n}
	if len(rows) > n {
		rows = rows[:n]
		out["next_cursor"] = toCursor(position(rows[n-1]))
	}
	list := make([]fields, len(rows))
	for i, row := range rows {
		list[i] = show(row)
	}
	out[name] = list
	return out
}

func threadFields(t conversation.Thread) fields {
	return fields{
		"id": t.ID, "agent_id": t.AgentID, "frontend": t.Frontend, "title": t.Title,
		"created_at": stamp(t.CreatedAt), "updated_at": stamp(t.UpdatedAt), "turns": t.Turns, "archived": !t.ArchivedAt.IsZero(),
	}
}

// editThread renames a thread or archives it.
func (a *API) editThread(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Title    *string `json:"title" max:"-"`
		Archived *bool   `json:"archived"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Title == nil && in.Archived == nil {
		return fault.New(fault.Invalid, "title or archived is required")
	}
	t, err := a.Conversations.EditThread(r.Context(), r.PathValue("id"), conversation.ThreadEdit{Title: in.Title, Archived: in.Archived})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, threadFields(t))
}

// deleteThread removes a thread with everything that was said in it.
func (a *API) deleteThread(w http.ResponseWriter, r *http.Request) error {
	if err := a.Conversations.DeleteThread(r.Context(), r.PathValue("id")); err != nil {
		return orGone(r.Context(), err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) thread(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Conversations.Thread(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, threadFields(t))
}

// threadTurns lists the turns of a thread, the newest first, so that a page can begin at the end.
func (a *API) threadTurns(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 20, 500)
	if err != nil {
		return err
	}
	var before int64
	if c := r.URL.Query().Get("cursor"); c != "" {
		if before, err = fromCursor(c); err != nil {
			return err
		}
	}
	turns, err := a.Conversations.ThreadTurns(r.Context(), r.PathValue("id"), before, n+1)
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, pageOf("turns", turns, n, turnFields, func(t conversation.Turn) int64 { return t.First }))
}

// threadMessages is the newest part of a thread's history in ascending order. Any id names a thread,
// not only a UUID.
func (a *API) threadMessages(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 50, 1000)
	if err != nil {
		return err
	}
	t, err := a.Conversations.Thread(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	page, err := a.Conversations.History(r.Context(), conversation.HistoryQuery{AgentID: t.AgentID, ThreadID: t.ID, Limit: n, Newest: true})
	if err != nil {
		return orGone(r.Context(), err)
	}
	entries, more := page.Entries, page.More
	if len(entries) > n { // see history
		entries, more = entries[len(entries)-n:], true
	}
	messages := make([]fields, len(entries))
	for i, e := range entries {
		messages[i] = messageFields(e)
	}
	return writeJSON(w, http.StatusOK, fields{"thread_id": t.ID, "messages": messages, "has_more": more})
}

// messageFields is a line of history as the messages of a thread show it.
func messageFields(e conversation.Entry) fields {
	f := fields{
		"id": e.ID, "thread_id": e.ThreadID, "sender": e.Author, "content": e.Text, "type": string(e.Type),
		"created_at": stamp(e.At), "request_id": e.TurnID,
	}
	switch e.Type {
	case conversation.EntryToolCall:
		var call struct{ Input json.RawMessage }
		if json.Unmarshal([]byte(e.Text), &call) == nil {
			f["content"] = string(call.Input)
			var raw string // input that is no JSON object is kept as a string
			if json.Unmarshal(call.Input, &raw) == nil {
				f["content"] = raw
			}
		}
		f["type"], f["tool_name"], f["tool_id"] = "tool_use", e.ToolName, e.ToolID
	case conversation.EntryToolResult:
		var result struct {
			Output  string
			IsError bool `json:"is_error"`
		}
		if json.Unmarshal([]byte(e.Text), &result) == nil {
			f["content"], f["is_error"] = result.Output, result.IsError
		}
		f["tool_id"] = e.ToolID
	}
	if len(e.Files) > 0 {
		f["attachments"] = files(e.Files)
	}
	return f
}

// threadUsage lists the usage reports of a thread. A list that goes on says so, and where.
func (a *API) threadUsage(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 500, 1000)
	if err != nil {
		return err
	}
	after, err := position(r, "after")
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	reports, err := a.Conversations.UsageReports(r.Context(), id, after, n+1)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := fields{"thread_id": id}
	if len(reports) > n {
		reports = reports[:n]
		out["has_more"], out["next"] = true, reports[n-1].ID
	}
	list := make([]fields, len(reports))
	for i, u := range reports {
		f := usageFields(u.Usage)
		f["id"], f["request_id"], f["agent_id"], f["created_at"] = itoa(u.ID), u.TurnID, u.AgentID, stamp(u.At)
		list[i] = f
	}
	out["usage"] = list
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) threadFiles(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	found, err := a.Conversations.ThreadFiles(r.Context(), id, mostFiles+1)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := fields{"thread_id": id}
	if len(found) > mostFiles {
		found = found[:mostFiles]
		out["has_more"] = true
	}
	list := make([]fields, len(found))
	for i, x := range found {
		f := fileFields(x.File)
		f["request_id"], f["seq"], f["created_at"] = x.TurnID, x.Seq, stamp(x.At)
		if !x.ExpiredAt.IsZero() {
			f["expired_at"] = stamp(x.ExpiredAt)
		}
		list[i] = f
	}
	out["files"] = list
	return writeJSON(w, http.StatusOK, out)
}
