package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
)

// inject gives an agent something to know. An agent that has not answered is 202: what becomes of
// the injection is its affair then.
func (a *API) inject(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Content  string                `json:"content" max:"-"`
		Priority conversation.Priority `json:"priority"`
		Source   string                `json:"source" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	out, err := a.Conversations.Inject(r.Context(), conversation.Injection{
		AgentID: r.PathValue("id"), Content: in.Content, Priority: in.Priority, Source: in.Source,
	})
	if err != nil {
		return orGone(r.Context(), err)
	}
	f := fields{"injection_id": out.ID, "agent_id": out.AgentID, "outcome": out.Outcome}
	if out.Reason != "" {
		f["reason"] = out.Reason
	}
	status := http.StatusOK
	if out.Outcome == conversation.InjectionUnknown {
		status = http.StatusAccepted
	}
	return writeJSON(w, status, f)
}
