package api

import (
	"net/http"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

func tokenFields(t auth.Token) fields {
	f := fields{
		"id": t.ID, "principal_id": t.PrincipalID, "kind": t.Kind, "name": t.Name, "scopes": notNil(t.Scopes), "revoked": !t.RevokedAt.IsZero(),
		"created_at": stamp(t.CreatedAt), "created_by": t.CreatedBy, "expires_at": stamp(t.ExpiresAt),
	}
	return f.time("last_used", t.LastUsed).time("revoked_at", t.RevokedAt)
}

func (a *API) listTokens(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, auth.MaxPage)
	if err != nil {
		return err
	}
	ts, err := a.Identity.Tokens(r.Context(), r.URL.Query().Get("principal_id"), n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(ts))
	for i, t := range ts {
		list[i] = tokenFields(t)
	}
	return writeJSON(w, http.StatusOK, fields{"tokens": list})
}

// createToken issues a token: kind "jwt", which existing programs take, or "api", which may have
// scopes. The answer is the only place where the token itself is ever shown.
func (a *API) createToken(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		PrincipalID string       `json:"principal_id"`
		Kind        string       `json:"kind"`
		Name        string       `json:"name"`
		Scopes      []auth.Scope `json:"scopes"`
		TTL         int64        `json:"ttl_seconds"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Kind != "" && in.Kind != string(auth.JWT) && in.Kind != string(auth.APIToken) {
		return fault.New(fault.Invalid, "kind must be jwt or api; got %q", in.Kind)
	}
	if most := int64(auth.MaxLife / time.Second); in.TTL > most {
		return fault.New(fault.Invalid, "ttl_seconds exceeds maximum of %d", most)
	}
	shown, t, err := a.Identity.CreateToken(r.Context(), auth.TokenRequest{
		PrincipalID: in.PrincipalID, Life: time.Duration(max(in.TTL, 0)) * time.Second, Name: in.Name, Scopes: in.Scopes, API: in.Kind == string(auth.APIToken),
	})
	if err != nil {
		return err
	}
	f := tokenFields(t)
	f["token"] = shown
	return writeJSON(w, http.StatusCreated, f)
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RevokeToken(r.Context(), r.PathValue("id")))
}
