package api

import (
	"context"
	"net/http"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// userFields describe a person, without what its sessions are.
func (a *API) userFields(ctx context.Context, p auth.Principal) (fields, error) {
	u, err := a.Identity.Person(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	return fields{
		"id": p.ID, "name": u.Name, "display_name": p.Name, "roles": notNil(p.Roles), "disabled": p.Status != auth.Approved, "online": p.Online,
		"has_password": u.Password != "", "passkeys": u.Passkeys, "created_at": stamp(p.CreatedAt), "created_by": p.CreatedBy,
	}.time("last_seen", p.LastSeen), nil
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, auth.MaxPage)
	if err != nil {
		return err
	}
	ps, err := a.Identity.Principals(r.Context(), auth.PrincipalFilter{Kind: auth.User, Before: r.URL.Query().Get("cursor"), Limit: n})
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(ps))
	for i, p := range ps {
		if list[i], err = a.userFields(r.Context(), p); err != nil {
			return orGone(r.Context(), err)
		}
	}
	out := fields{"users": list, "has_more": len(ps) == n}
	if len(ps) == n {
		out["next_cursor"] = ps[n-1].ID
	}
	return writeJSON(w, http.StatusOK, out)
}

// user is a person with its passkeys and sessions.
func (a *API) user(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	p, err := a.Identity.Principal(r.Context(), id)
	if err == nil && p.Kind != auth.User {
		err = fault.New(fault.NotFound, "no user %q", id)
	}
	if err != nil {
		return err
	}
	f, err := a.userFields(r.Context(), p)
	if err != nil {
		return err
	}
	keys, err := a.Identity.OwnPasskeys(r.Context(), id)
	if err != nil {
		return err
	}
	ts, err := a.Identity.OpenSessions(r.Context(), id)
	if err != nil {
		return err
	}
	caller, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	f["passkey_list"], f["sessions"] = passkeyList(keys), sessionList(ts, caller.Credential.ID)
	return writeJSON(w, http.StatusOK, f)
}

func (a *API) editUser(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Role     *auth.Role `json:"role"`
		Disabled *bool      `json:"disabled"`
		Name     *string    `json:"name"`
		Display  *string    `json:"display_name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := a.Identity.EditUser(r.Context(), r.PathValue("id"), auth.UserEdit{Role: in.Role, Disabled: in.Disabled, Name: in.Name, Display: in.Display}); err != nil {
		return err
	}
	return a.user(w, r)
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.DeleteUser(r.Context(), r.PathValue("id")))
}

// resetUser makes a link that signs a person in. The answer is the only place where it is ever shown.
func (a *API) resetUser(w http.ResponseWriter, r *http.Request) error {
	token, expires, err := a.Identity.ResetUser(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, fields{"url": a.baseURL(r) + "/setup#" + token, "expires_at": stamp(expires)})
}

// endUserSessions ends one session of a person, or all.
func (a *API) endUserSessions(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.EndSession(r.Context(), r.PathValue("id"), r.PathValue("session")))
}
