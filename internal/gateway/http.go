package gateway

import (
	"context"
	"net/http"

	"coven-gateway/internal/api"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// admit authenticates a request and authorizes it against a rule. The context that it returns is
// the request's, with the caller, and ends when the caller loses its rights.
func admit(a *auth.Service) func(*http.Request, auth.Rule) (context.Context, func(), error) {
	return func(r *http.Request, rule auth.Rule) (context.Context, func(), error) {
		if rule.Level == auth.Anybody {
			return r.Context(), func() {}, nil
		}
		c := auth.Credentials{Authorization: r.Header.Get("Authorization"), Address: auth.Address(r.RemoteAddr)}
		if cookie, err := r.Cookie(api.SessionCookie); err == nil {
			c.Session = cookie.Value
		}
		if a.Open() && (r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "") {
			c.Address = "unknown, behind a proxy" // and not this machine's, whatever the proxy's is
		}
		p, err := a.Authenticate(r.Context(), c)
		if err != nil {
			return nil, nil, httpWords(err)
		}
		if err := a.AllowRequest(p); err != nil {
			return nil, nil, err
		}
		if err := rule.Allow(p); err != nil {
			return nil, nil, err
		}
		return a.Enter(r.Context(), p)
	}
}

// httpWords gives a refusal the words that it has over HTTP (http.md 1.5).
func httpWords(err error) error {
	switch fault.Message(err) {
	case "invalid or expired token":
		return fault.Wrap(err, fault.Unauthenticated, "invalid token")
	case "principal status is pending - admin approval required":
		return fault.Wrap(err, fault.Forbidden, "principal status is pending")
	}
	return err
}
