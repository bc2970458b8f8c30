package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

func (a *API) approvalPolicy(w http.ResponseWriter, r *http.Request) error {
	id, rules := a.Conversations.ApprovalPolicy(r.PathValue("id"))
	return writeJSON(w, http.StatusOK, policyFields(id, rules))
}

// setApprovalPolicy replaces all rules at once.
func (a *API) setApprovalPolicy(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Rules []struct {
			Tool   string              `json:"tool"`
			Action conversation.Action `json:"action"`
		} `json:"rules" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Rules == nil {
		return fault.New(fault.Invalid, "rules is required; an empty list removes all of them")
	}
	rules := make([]conversation.ToolRule, len(in.Rules))
	for i, x := range in.Rules {
		rules[i] = conversation.ToolRule{Tool: x.Tool, Action: x.Action}
	}
	id, err := a.Conversations.SetApprovalPolicy(r.Context(), r.PathValue("id"), rules)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, policyFields(id, rules))
}

func policyFields(agentID string, rules []conversation.ToolRule) fields {
	list := make([]fields, len(rules))
	for i, x := range rules {
		list[i] = fields{"tool": x.Tool, "action": x.Action}
	}
	return fields{"agent_id": agentID, "rules": list}
}
