package gateway

import (
	"context"
	"net/http"
	"strings"

	"coven-gateway/internal/api"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/mcp"
)

// admit authenticates a request and authorizes it against a rule. The context that it returns is
// the request's, with the caller, and ends when the caller loses its rights.
//
// To the MCP server a token may be shown in the path; a session of the web pages does not count
// there, and the token of a connected agent does.
func admit(a *auth.Service, m *mcp.Server, baseURL string) func(*http.Request, auth.Rule) (context.Context, func(), error) {
	return func(r *http.Request, rule auth.Rule) (context.Context, func(), error) {
		if rule.Level == auth.Anybody {
			return r.Context(), func() {}, nil
		}
		c := auth.Credentials{Authorization: r.Header.Get("Authorization"), Address: auth.Address(r.RemoteAddr)}
		if a.Open() && (r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "") {
			c.Address = "unknown, behind a proxy" // and not this machine's, whatever the proxy's is
		}
		toMCP := r.URL.Path == "/mcp" || strings.HasPrefix(r.URL.Path, "/mcp/")
		if toMCP {
			shown := r.PathValue("token")
			if shown != "" {
				c.Authorization = "Bearer " + shown
			} else { // a token of OAuth is never in an address
				c.Resource = a.MCPResource()
			}
			if g := m.Granted(strings.TrimPrefix(c.Authorization, "Bearer ")); g != nil {
				return admitAgent(a, r, c.Address, g)
			}
			if shown != "" && a.Open() {
				return nil, nil, fault.New(fault.Unauthenticated, "invalid token")
			}
		} else {
			c.Session = api.SessionOf(r, baseURL)
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
		if auth.Fresh[r.Pattern] {
			if err := p.Fresh(); err != nil {
				return nil, nil, err
			}
		}
		return a.Enter(r.Context(), p)
	}
}

// admitAgent authorizes a request that shows the token of a connected agent. Scopes are not asked
// for: what was good enough for the connection is good enough for calling tools. The context ends
// with the connection, too.
func admitAgent(a *auth.Service, r *http.Request, address string, g *mcp.Grant) (context.Context, func(), error) {
	if a.Open() { // it still serves this machine only
		if _, err := a.Authenticate(r.Context(), auth.Credentials{Address: address}); err != nil {
			return nil, nil, err
		}
	}
	p := g.Caller().Principal
	if err := a.AllowRequest(p); err != nil {
		return nil, nil, err
	}
	ctx, leave, err := a.Enter(r.Context(), p)
	if err != nil {
		return nil, nil, err
	}
	ctx, end := g.With(ctx)
	return ctx, func() { end(); leave() }, nil
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
