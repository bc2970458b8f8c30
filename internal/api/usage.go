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
	for _, p := range []struct {
		name string
		at   *time.Time
	}{{"since", &f.Since}, {"until", &f.Until}} {
		s := q.Get(p.name)
		if s == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fault.Wrap(err, fault.Invalid, "invalid '%s' format (use RFC3339)", p.name)
		}
		*p.at = t
	}
	total, err := a.Conversations.UsageTotal(r.Context(), f)
	if err != nil {
		return orGone(r.Context(), err)
	}
	out := totalFields(total)
	if by := q.Get("group_by"); by != "" {
		groups, err := a.Conversations.UsageGroups(r.Context(), f, conversation.UsageKey(by))
		if err != nil {
			return orGone(r.Context(), err)
		}
		list := make([]fields, len(groups))
		for i, g := range groups {
			list[i] = totalFields(g.UsageTotal)
			list[i]["key"] = g.Key
		}
		out["groups"] = list
	}
	return writeJSON(w, http.StatusOK, out)
}
