package api

import (
	"net/http"

	"coven-gateway/internal/auth"
)

// secretFields is a secret without its value.
func secretFields(x auth.Secret) fields {
	return fields{
		"id": x.ID, "name": x.Name, "agent_id": x.AgentID, "created_at": stamp(x.CreatedAt), "created_by": x.CreatedBy,
		"updated_at": stamp(x.UpdatedAt), "updated_by": x.UpdatedBy,
	}
}

func (a *API) listSecrets(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Identity.Secrets(r.Context())
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(all))
	for i, x := range all {
		list[i] = secretFields(x)
	}
	return writeJSON(w, http.StatusOK, fields{"secrets": list})
}

// putSecret stores a secret, for all agents where agent_id is empty.
func (a *API) putSecret(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name    string `json:"name"`
		AgentID string `json:"agent_id"`
		Value   string `json:"value" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	x, err := a.Identity.SetSecret(r.Context(), in.AgentID, in.Name, in.Value)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, secretFields(x))
}

func (a *API) deleteSecret(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.DeleteSecret(r.Context(), r.PathValue("id")))
}

func (a *API) readSecret(w http.ResponseWriter, r *http.Request) error {
	value, err := a.Identity.ReadSecret(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"value": value})
}

func (a *API) rotateSecrets(w http.ResponseWriter, r *http.Request) error {
	n, err := a.Identity.RotateSecrets(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"sealed_again": n})
}
