package api

import (
	"net/http"

	"coven-gateway/internal/fault"
)

// approveTool answers an agent's question whether it may run a tool. A missing approved is a no.
func (a *API) approveTool(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		AgentID    string `json:"agent_id"`
		ToolID     string `json:"tool_id"`
		Approved   bool   `json:"approved"`
		ApproveAll bool   `json:"approve_all"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	switch {
	case in.AgentID == "":
		return fault.New(fault.Invalid, "agent_id is required")
	case in.ToolID == "":
		return fault.New(fault.Invalid, "tool_id is required")
	}
	if err := a.Conversations.Approve(r.Context(), in.AgentID, in.ToolID, in.Approved, in.ApproveAll); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"approved": in.Approved, "success": true})
}
