package api

import (
	"net/http"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

func inviteFields(i auth.Invite) fields {
	f := fields{
		"id": i.ID, "role": i.Role, "note": i.Note, "status": i.Status(time.Now()),
		"created_at": stamp(i.CreatedAt), "created_by": i.CreatedBy, "expires_at": stamp(i.ExpiresAt),
	}
	if i.UsedBy != "" {
		f["used_by"] = i.UsedBy
	}
	return f.time("used_at", i.UsedAt).time("revoked_at", i.RevokedAt)
}

func (a *API) listInvites(w http.ResponseWriter, r *http.Request) error {
	invites, err := a.Identity.Invites(r.Context())
	if err != nil {
		return orGone(r.Context(), err)
	}
	list := make([]fields, len(invites))
	for n, i := range invites {
		list[n] = inviteFields(i)
	}
	return writeJSON(w, http.StatusOK, fields{"invites": list})
}

// createInvite makes an invite. The answer is the only place where its link is ever shown.
func (a *API) createInvite(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Role auth.Role `json:"role"`
		Note string    `json:"note"`
		TTL  int64     `json:"ttl_seconds"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Role == "" {
		in.Role = auth.Member
	}
	if most := int64(auth.MaxInviteLife / time.Second); in.TTL < 0 || in.TTL > most {
		return fault.New(fault.Invalid, "ttl_seconds must be from 60 to %d; got %d", most, in.TTL)
	}
	token, i, err := a.Identity.CreateInvite(r.Context(), in.Role, in.Note, time.Duration(in.TTL)*time.Second)
	if err != nil {
		return err
	}
	f := inviteFields(i)
	f["url"] = a.baseURL(r) + "/invite/" + token
	return writeJSON(w, http.StatusCreated, f)
}

// baseURL is where people reach the gateway: as configured, or else where this caller has.
func (a *API) baseURL(r *http.Request) string {
	if a.BaseURL != "" {
		return strings.TrimSuffix(a.BaseURL, "/")
	}
	if secure(r, "") {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func (a *API) revokeInvite(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RevokeInvite(r.Context(), r.PathValue("id")))
}

// acceptInvite makes whoever holds an invite a principal, and gives it a token, or a session where it
// has chosen a name to sign in with.
func (a *API) acceptInvite(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Invite   string `json:"invite"`
		Display  string `json:"display_name"`
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	shown, p, t, err := a.Identity.AcceptInvite(r.Context(), in.Invite, auth.Guest{Name: in.Name, Display: in.Display, Password: in.Password, Browser: browser(r)})
	if err != nil {
		return err
	}
	f := fields{"principal_id": p.ID, "display_name": p.Name, "roles": p.Roles, "expires_at": stamp(t.ExpiresAt)}
	if t.Kind == auth.Session {
		a.setSession(w, r, shown, t.ExpiresAt)
	} else {
		f["token"] = shown
	}
	return writeJSON(w, http.StatusCreated, f)
}
