package api

import (
	"encoding/json"
	"net/http"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A document is JSON that another package reads.
type document = json.RawMessage

// signInState tells a page how people sign in here.
func (a *API) signInState(w http.ResponseWriter, r *http.Request) error {
	needs, err := a.Identity.NeedsOwner(r.Context())
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, fields{
		"open": a.Identity.Open(), "needs_owner": needs, "passkeys": a.Identity.Passkeys(), "password_min_length": auth.MinPassword,
	})
}

// signedIn answers whoever has signed in, with the cookie.
func (a *API) signedIn(w http.ResponseWriter, r *http.Request, l auth.Login, err error) error {
	if err != nil {
		return err
	}
	u, err := a.Identity.Person(r.Context(), l.Principal.ID)
	if err != nil {
		return err
	}
	a.setSession(w, r, l.Shown, l.Session.ExpiresAt)
	return writeJSON(w, http.StatusOK, fields{
		"principal_id": l.Principal.ID, "display_name": l.Principal.Name, "name": u.Name, "roles": notNil(l.Principal.Roles),
		"has_password": u.Password != "", "passkeys": u.Passkeys, "expires_at": stamp(l.Session.ExpiresAt),
	})
}

func (a *API) signInPassword(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	l, err := a.Identity.SignIn(r.Context(), in.Name, in.Password, browser(r))
	return a.signedIn(w, r, l, err)
}

func (a *API) beginSignIn(w http.ResponseWriter, r *http.Request) error {
	options, cookie, err := a.Identity.BeginSignIn(auth.Address(r.RemoteAddr))
	return a.challenge(w, r, options, cookie, err)
}

// challenge asks a browser for a passkey.
func (a *API) challenge(w http.ResponseWriter, r *http.Request, options any, cookie string, err error) error {
	if err != nil {
		return err
	}
	a.setCeremony(w, r, cookie)
	return writeJSON(w, http.StatusOK, options)
}

// passkeyAnswer reads what a browser has got from an authenticator.
func passkeyAnswer(b document) (document, error) {
	if len(b) > auth.MaxPasskey {
		return nil, fault.New(fault.Invalid, "passkey must not be longer than %d bytes; this one has %d", auth.MaxPasskey, len(b))
	}
	return b, nil
}

func (a *API) signInPasskey(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Passkey document `json:"passkey" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	answer, err := passkeyAnswer(in.Passkey)
	if err != nil {
		return err
	}
	l, err := a.Identity.SignInWithPasskey(r.Context(), a.takeCeremony(w, r), answer, browser(r))
	return a.signedIn(w, r, l, err)
}

// signInLink signs in whoever holds a link.
func (a *API) signInLink(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Link    string `json:"link"`
		Name    string `json:"name"`
		Display string `json:"display_name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	l, err := a.Identity.OpenLink(r.Context(), in.Link, in.Name, in.Display, browser(r))
	return a.signedIn(w, r, l, err)
}

// editMe changes the caller's names.
func (a *API) editMe(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name    string `json:"name"`
		Display string `json:"display_name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	return done(w, a.Identity.SetNames(r.Context(), in.Name, in.Display))
}

func (a *API) setPassword(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Password string `json:"password"`
		Old      string `json:"old_password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	return done(w, a.Identity.SetPassword(r.Context(), in.Old, in.Password))
}

func passkeyFields(k auth.Passkey) fields {
	return fields{
		"id": k.ID, "name": k.Name, "created_at": stamp(k.CreatedAt), "transports": notNil(k.Transports), "backup_eligible": k.BackupEligible, "backed_up": k.BackedUp,
	}.time("last_used", k.LastUsed)
}

func passkeyList(keys []auth.Passkey) []fields {
	list := make([]fields, len(keys))
	for i, k := range keys {
		list[i] = passkeyFields(k)
	}
	return list
}

func (a *API) listPasskeys(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	keys, err := a.Identity.OwnPasskeys(r.Context(), p.ID)
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, fields{"passkeys": passkeyList(keys)})
}

func (a *API) beginPasskey(w http.ResponseWriter, r *http.Request) error {
	options, cookie, err := a.Identity.BeginPasskey(r.Context())
	return a.challenge(w, r, options, cookie, err)
}

func (a *API) addPasskey(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name    string   `json:"name"`
		Passkey document `json:"passkey" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	answer, err := passkeyAnswer(in.Passkey)
	if err != nil {
		return err
	}
	k, err := a.Identity.AddPasskey(r.Context(), a.takeCeremony(w, r), in.Name, answer)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, passkeyFields(k))
}

func (a *API) renamePasskey(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name string `json:"name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	return done(w, a.Identity.RenamePasskey(r.Context(), r.PathValue("id"), in.Name))
}

func (a *API) removePasskey(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RemovePasskey(r.Context(), r.PathValue("id")))
}
