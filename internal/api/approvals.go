package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// listApprovals lists the approvals that agents wait for and that the caller may answer.
func (a *API) listApprovals(w http.ResponseWriter, r *http.Request) error {
	questions, err := a.Conversations.Questions(r.Context(), r.URL.Query().Get("agent_id"))
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(questions))
	for i, q := range questions {
		list[i] = fields{
			"agent_id": q.AgentID, "request_id": q.TurnID, "thread_id": q.ThreadID, "tool_id": q.ToolID, "tool_name": q.Name,
			"input_json": q.Input, "input_sha256": q.InputHash(), "asked_at": stamp(q.AskedAt),
		}
		if !q.ExpiresAt.IsZero() {
			list[i]["expires_at"] = stamp(q.ExpiresAt)
		}
	}
	return writeJSON(w, http.StatusOK, fields{"approvals": list})
}

// approveTool answers an agent's question whether it may run a tool. A missing approved is a no.
func (a *API) approveTool(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		AgentID    string `json:"agent_id"`
		ToolID     string `json:"tool_id"`
		Approved   bool   `json:"approved"`
		ApproveAll bool   `json:"approve_all"`
		InputHash  string `json:"input_sha256"` // unless empty: of the arguments that were shown
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
	err := a.Conversations.Approve(r.Context(), conversation.Verdict{
		AgentID: in.AgentID, ToolID: in.ToolID, Approved: in.Approved, All: in.ApproveAll, InputHash: in.InputHash,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"approved": in.Approved, "success": true})
}
