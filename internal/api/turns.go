package api

import (
	"errors"
	"io"
	"net/http"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// listTurns lists the turns that are not over.
func (a *API) listTurns(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	state := conversation.TurnState(q.Get("state"))
	if state != "" && state.Over() {
		return fault.New(fault.Invalid, "state must be %s or %s; got %q", conversation.Open, conversation.Queued, state)
	}
	n, err := limit(r, 100, 500)
	if err != nil {
		return err
	}
	turns, more, err := a.Conversations.Live(r.Context(), q.Get("agent_id"), state, n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(turns))
	for i, t := range turns {
		list[i] = turnFields(t)
	}
	return writeJSON(w, http.StatusOK, fields{"turns": list, "has_more": more})
}

func (a *API) turn(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Conversations.Turn(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, turnFields(t))
}

// cancelTurn asks for the end of a turn: 202, because an agent may take a moment to stop.
func (a *API) cancelTurn(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Reason string `json:"reason" max:"-"`
	}
	if err := decode(r, &in); err != nil && !errors.Is(err, io.EOF) { // no body is fine
		return err
	}
	id := r.PathValue("id")
	if err := a.Conversations.Cancel(r.Context(), id, in.Reason); err != nil {
		return err
	}
	t, err := a.Conversations.Turn(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusAccepted, turnFields(t))
}
