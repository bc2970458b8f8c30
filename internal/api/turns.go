package api

import (
	"errors"
	"io"
	"net/http"
)

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
