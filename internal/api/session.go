package api

import (
	"net/http"
	"strings"
	"time"
)

// SessionCookie is the name of the cookie of a browser that has logged in.
const SessionCookie = "coven_admin_session"

// logIn opens a session for a browser whose user has shown a token, so that pages can follow
// streams, which send no headers of their own. Other web sites cannot use the cookie: requests
// from them are refused, see checkOrigin.
func (a *API) logIn(w http.ResponseWriter, r *http.Request) error {
	if a.Identity.Open() {
		return done(w, nil) // nothing asks for one
	}
	shown, t, err := a.Identity.LogIn(r.Context())
	if err != nil {
		return err
	}
	http.SetCookie(w, a.sessionCookie(r, shown, t.ExpiresAt))
	return done(w, nil)
}

func (a *API) logOut(w http.ResponseWriter, r *http.Request) error {
	if err := a.Identity.LogOut(r.Context()); err != nil {
		return err
	}
	http.SetCookie(w, a.sessionCookie(r, "", time.Unix(1, 0)))
	return done(w, nil)
}

func (a *API) sessionCookie(r *http.Request, value string, expires time.Time) *http.Cookie {
	return &http.Cookie{
		Name: SessionCookie, Value: value, Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || strings.HasPrefix(a.BaseURL, "https://"),
	}
}
