package api

import (
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// listQuestions lists the questions that agents have put to people and that the caller may answer.
func (a *API) listQuestions(w http.ResponseWriter, r *http.Request) error {
	pending, err := a.Conversations.PendingQuestions(r.Context(), r.URL.Query().Get("agent_id"))
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(pending))
	for i, q := range pending {
		list[i] = fields{
			"question_id": q.ID, "agent_id": q.AgentID, "request_id": q.TurnID, "thread_id": q.ThreadID, "question": q.Question, "header": q.Header,
			"options": optionFields(q.Options), "multi_select": q.Multi, "asked_at": stamp(q.AskedAt), "expires_at": stamp(q.ExpiresAt),
		}
	}
	return writeJSON(w, http.StatusOK, fields{"questions": list})
}

// optionFields are what a question suggests.
func optionFields(options []conversation.Option) []fields {
	list := make([]fields, len(options))
	for i, o := range options {
		list[i] = fields{"label": o.Label}
		if o.Description != "" {
			list[i]["description"] = o.Description
		}
	}
	return list
}

// answerQuestion answers a question. An answer that does not fit leaves it open.
func (a *API) answerQuestion(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		AgentID    string   `json:"agent_id"`
		QuestionID string   `json:"question_id"`
		Selected   []string `json:"selected" max:"1000"`
		Text       string   `json:"custom_text" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	switch {
	case in.AgentID == "":
		return fault.New(fault.Invalid, "agent_id is required")
	case in.QuestionID == "":
		return fault.New(fault.Invalid, "question_id is required")
	case len(in.Selected) == 0 && in.Text == "":
		return fault.New(fault.Invalid, "at least one selection or custom_text is required")
	}
	err := a.Conversations.AnswerQuestion(r.Context(), conversation.Answer{AgentID: in.AgentID, ID: in.QuestionID, Selected: in.Selected, Text: in.Text})
	if fault.CodeOf(err) == fault.Conflict { // it is another agent's, which changes nothing for who asks
		err = fault.Wrap(err, fault.NotFound, "question not found or already answered")
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"success": true})
}
