package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
)

// search looks for what was said, the newest first.
func (a *API) search(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 20, 100)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	in := conversation.SearchQuery{AgentID: q.Get("agent_id"), ThreadID: q.Get("thread_id"), Limit: n}
	if c := q.Get("cursor"); c != "" {
		if in.Before, err = fromCursor(c); err != nil {
			return err
		}
	}
	hits, more, err := a.Conversations.Search(r.Context(), q.Get("q"), in)
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(hits))
	for i, h := range hits {
		list[i] = fields{
			"agent_id": h.AgentID, "thread_id": h.ThreadID, "title": h.Title, "request_id": h.TurnID, "seq": h.Seq, "time": stamp(h.At),
			"who": hitOf[h.Kind], "sender": h.Sender, "excerpt": notNil(h.Excerpt),
		}
	}
	out := fields{"results": list, "has_more": more}
	if more {
		out["next_cursor"] = toCursor(hits[len(hits)-1].Key)
	}
	return writeJSON(w, http.StatusOK, out)
}

// hitOf says who has said what was found.
var hitOf = map[conversation.Kind]string{conversation.KindMessage: "user", conversation.KindText: "agent", conversation.KindToolResult: "tool"}
