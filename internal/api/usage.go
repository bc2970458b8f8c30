package api

import (
	"net/http"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

func (a *API) usage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f := conversation.UsageFilter{AgentID: q.Get("agent_id"), ThreadID: q.Get("thread_id")}
	for name, at := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if s := q.Get(name); s != "" {
			t, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return fault.Wrap(err, fault.Invalid, "invalid '%s' format (use RFC3339)", name)
			}
			*at = t
		}
	}
	total, err := a.Conversations.UsageTotal(r.Context(), f)
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, totalFields(total))
}
