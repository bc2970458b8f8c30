package api

import (
	"net/http"
	"strings"
	"time"

	"coven-gateway/internal/auth"
)

// Names of cookies. Over TLS they have the prefix that keeps other hosts and plain connections from
// setting them.
const (
	SessionCookie  = "coven_admin_session" // of a browser that has signed in
	ceremonyCookie = "coven_passkey"       // of one that is asked for a passkey
	hostPrefix     = "__Host-"
)

// secure reports whether people reach the gateway over TLS, be it that of a proxy: whoever serves the API
// puts the scheme into the URL.
func secure(r *http.Request, baseURL string) bool {
	return r.URL.Scheme == "https" || strings.HasPrefix(baseURL, "https://")
}

// cookieName is the name of a cookie here.
func cookieName(r *http.Request, baseURL, name string) string {
	if secure(r, baseURL) {
		return hostPrefix + name
	}
	return name
}

// SessionOf returns what the session cookie of a request holds, or "". A request that a page of another
// web site makes has none, whatever it may be allowed to do with a token.
func SessionOf(r *http.Request, baseURL string) string {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return ""
	}
	c, err := r.Cookie(cookieName(r, baseURL, SessionCookie))
	if err != nil {
		return ""
	}
	return c.Value
}

// browser is where a request comes from.
func browser(r *http.Request) auth.Browser {
	return auth.Browser{Device: r.UserAgent(), Address: auth.Address(r.RemoteAddr)}
}

// logIn opens a session for a browser whose user has shown a token, so that pages can follow
// streams, which send no headers of their own. Other web sites cannot use the cookie: requests
// from them are refused, see checkOrigin.
func (a *API) logIn(w http.ResponseWriter, r *http.Request) error {
	if a.Identity.Open() {
		return done(w, nil) // nothing asks for one
	}
	shown, t, err := a.Identity.LogIn(r.Context(), browser(r))
	if err != nil {
		return err
	}
	a.setSession(w, r, shown, t.ExpiresAt)
	return done(w, nil)
}

func (a *API) logOut(w http.ResponseWriter, r *http.Request) error {
	if err := a.Identity.LogOut(r.Context()); err != nil {
		return err
	}
	a.setSession(w, r, "", time.Unix(1, 0))
	return done(w, nil)
}

func (a *API) setSession(w http.ResponseWriter, r *http.Request, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r, a.BaseURL, SessionCookie), Value: value, Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: secure(r, a.BaseURL),
	})
}

// setCeremony has the browser keep a challenge until it answers; "" has it forget.
func (a *API) setCeremony(w http.ResponseWriter, r *http.Request, value string) {
	life := int(auth.CeremonyLife / time.Second)
	if value == "" {
		life = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r, a.BaseURL, ceremonyCookie), Value: value, Path: "/", MaxAge: life, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: secure(r, a.BaseURL),
	})
}

// takeCeremony returns the challenge that the browser keeps, and has it forget it.
func (a *API) takeCeremony(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(cookieName(r, a.BaseURL, ceremonyCookie))
	if err != nil {
		return ""
	}
	a.setCeremony(w, r, "")
	return c.Value
}

func sessionFields(t auth.Token, current string) fields {
	return fields{
		"id": t.ID, "device": t.Device, "address": t.Address, "opened_with": t.Name, "created_at": stamp(t.CreatedAt), "expires_at": stamp(t.ExpiresAt),
		"current": t.ID == current,
	}.time("last_used", t.LastUsed)
}

func sessionList(ts []auth.Token, current string) []fields {
	list := make([]fields, len(ts))
	for i, t := range ts {
		list[i] = sessionFields(t, current)
	}
	return list
}

// listSessions lists the caller's own sessions.
func (a *API) listSessions(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	ts, err := a.Identity.OpenSessions(r.Context(), p.ID)
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, fields{"sessions": sessionList(ts, p.Credential.ID)})
}

// endSessions ends one of the caller's own sessions, or all others.
func (a *API) endSessions(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	return done(w, a.Identity.EndSession(r.Context(), p.ID, r.PathValue("id")))
}

// reauthenticate has whoever sits at a browser show again who it is.
func (a *API) reauthenticate(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Password string   `json:"password"`
		Passkey  document `json:"passkey" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if len(in.Passkey) > 0 {
		answer, err := passkeyAnswer(in.Passkey)
		if err != nil {
			return err
		}
		return done(w, a.Identity.ProvePasskey(r.Context(), a.takeCeremony(w, r), answer))
	}
	return done(w, a.Identity.ProvePassword(r.Context(), in.Password))
}
