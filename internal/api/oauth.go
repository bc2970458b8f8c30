package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Where OAuth has its documents (RFC 9728 and 8414); the path of what they are about follows.
const (
	resourceDocument = "/.well-known/oauth-protected-resource"
	serverDocument   = "/.well-known/oauth-authorization-server"
)

// described returns where the document about an identifier is.
func described(document, id string) string {
	u, err := url.Parse(id)
	if err != nil {
		return "" // the gateway has made it
	}
	return u.Scheme + "://" + u.Host + document + strings.TrimRight(u.Path, "/")
}

// toDocument takes from the address of a document the path of what it is about, where that is ours.
func (a *API) toDocument(r *http.Request) *http.Request {
	if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
		return r
	}
	for document, id := range map[string]string{resourceDocument: a.Identity.MCPResource(), serverDocument: a.Identity.OAuthIssuer()} {
		u, err := url.Parse(id)
		if rest, ok := strings.CutPrefix(r.URL.Path, document+"/"); ok && err == nil && strings.Trim(rest, "/") == strings.Trim(u.Path, "/") {
			to := *r.URL
			to.Path, to.RawPath = document, ""
			r = r.Clone(r.Context())
			r.URL = &to
		}
	}
	return r
}

func (a *API) protectedResource(w http.ResponseWriter, r *http.Request) error {
	if !a.Identity.OAuth() {
		return fault.New(fault.NotFound, "unknown endpoint")
	}
	return writeJSON(w, http.StatusOK, fields{
		"resource": a.Identity.MCPResource(), "authorization_servers": []string{a.Identity.OAuthIssuer()}, "scopes_supported": auth.OAuthScopes,
		"bearer_methods_supported": []string{"header"}, "resource_name": "coven-gateway",
	})
}

func (a *API) authorizationServer(w http.ResponseWriter, r *http.Request) error {
	issuer := a.Identity.OAuthIssuer()
	if !a.Identity.OAuth() {
		return fault.New(fault.NotFound, "unknown endpoint")
	}
	return writeJSON(w, http.StatusOK, fields{
		"issuer": issuer, "authorization_endpoint": issuer + "/oauth/authorize", "token_endpoint": issuer + "/oauth/token",
		"registration_endpoint": issuer + "/oauth/register", "revocation_endpoint": issuer + "/oauth/revoke",
		"scopes_supported": auth.OAuthScopes, "response_types_supported": []string{"code"}, "response_modes_supported": []string{"query"},
		"grant_types_supported":                 []string{"authorization_code", "refresh_token"},
		"token_endpoint_auth_methods_supported": []string{"none"}, "revocation_endpoint_auth_methods_supported": []string{"none"},
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
	})
}

// challengeMCP tells an MCP client that was refused how it may get in (RFC 9728, 5.1, and RFC 6750, 3).
func (a *API) challengeMCP(w http.ResponseWriter, r *http.Request, err error) {
	if !a.Identity.OAuth() || r.URL.Path != "/mcp" && !strings.HasPrefix(r.URL.Path, "/mcp/") {
		return
	}
	where := `resource_metadata="` + described(resourceDocument, a.Identity.MCPResource()) + `", scope="`
	scope, lacking := errors.AsType[*auth.ScopeError](err)
	switch {
	case lacking:
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", `+where+words(scope.Need)+`"`)
	case fault.CodeOf(err) != fault.Unauthenticated:
	case r.Header.Get("Authorization") == "":
		w.Header().Set("WWW-Authenticate", `Bearer `+where+words(auth.OAuthScopes)+`"`)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", `+where+words(auth.OAuthScopes)+`"`)
	}
}

func words(scopes []auth.Scope) string {
	list := make([]string, len(scopes))
	for i, s := range scopes {
		list[i] = string(s)
	}
	return strings.Join(list, " ")
}

// inOAuth answers refusals as OAuth does (RFC 6749, 5.2).
func (a *API) inOAuth(handle handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := handle(w, r)
		if refused, ok := errors.AsType[*auth.OAuthError](err); ok {
			return errors.Join(err, writeJSON(w, http.StatusBadRequest, fields{"error": refused.Word, "error_description": fault.Message(err)}))
		}
		return err
	}
}

// closedToOAuth refuses what needs people who sign in.
func (a *API) closedToOAuth() error {
	if a.Identity.OAuth() {
		return nil
	}
	return fault.New(fault.NotFound, "unknown endpoint")
}

// readForm reads the fields of a request, each of which may be there once. They have at most
// [auth.MaxRedirect] bytes.
func readForm(r *http.Request) (url.Values, error) {
	wrong := func(why string) error {
		return &auth.OAuthError{Word: "invalid_request", Err: fault.New(fault.Invalid, "%s", why)}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, wrong("Content-Type must be application/x-www-form-urlencoded")
	}
	fields, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, wrong("the form cannot be read")
	}
	for name, values := range fields {
		if len(values) > 1 {
			return nil, wrong("a field is there more than once")
		}
		if err := checkLength(name[:min(len(name), 50)], values[0], auth.MaxRedirect); err != nil {
			return nil, &auth.OAuthError{Word: "invalid_request", Err: err}
		}
	}
	return fields, nil
}

// registerClient takes down a program that wants to ask people for rights (RFC 7591). All of them are
// public: whatever a program asks for, it gets no secret.
func (a *API) registerClient(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name      string   `json:"client_name"`
		Redirects []string `json:"redirect_uris"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := a.closedToOAuth(); err != nil {
		return err
	}
	c, err := a.Identity.RegisterOAuthClient(r.Context(), in.Name, in.Redirects, auth.Address(r.RemoteAddr))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, fields{
		"client_id": c.ID, "client_id_issued_at": c.CreatedAt.Unix(), "client_name": c.Name, "redirect_uris": c.Redirects,
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
		"token_endpoint_auth_method": "none", "scope": words(auth.OAuthScopes),
	})
}

func authorizationRequest(q url.Values) auth.OAuthRequest {
	return auth.OAuthRequest{
		ClientID: q.Get("client_id"), Redirect: q.Get("redirect_uri"), ResponseType: q.Get("response_type"), Scope: q.Get("scope"), State: q.Get("state"),
		Challenge: q.Get("code_challenge"), Method: q.Get("code_challenge_method"), Resource: q.Get("resource"),
	}
}

// answerTo is where a browser goes with an answer for a client (RFC 6749, 4.1.2, and RFC 9207).
func (a *API) answerTo(o auth.OAuthRequest, name, value string) string {
	u, err := url.Parse(o.Redirect)
	if err != nil {
		return "" // it was registered
	}
	q := url.Values{name: {value}, "iss": {a.Identity.OAuthIssuer()}}
	if o.State != "" {
		q.Set("state", o.State)
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += q.Encode()
	return u.String()
}

// authorize sends a browser to the page where people are asked. A client hears at once of a request that
// makes no sense if it is on the person's own machine; no other web site is opened without being asked.
func (a *API) authorize(w http.ResponseWriter, r *http.Request) error {
	if err := a.closedToOAuth(); err != nil {
		return err
	}
	q := r.URL.Query()
	for _, values := range q {
		if len(values) > 1 {
			return fault.New(fault.Invalid, "a parameter is there more than once")
		}
	}
	o := authorizationRequest(q)
	_, _, err := a.Identity.CheckOAuth(r.Context(), o)
	to := "consent?" + r.URL.RawQuery
	if refused, ok := errors.AsType[*auth.OAuthError](err); ok && strings.HasPrefix(o.Redirect, "http://") {
		to = a.answerTo(o, "error", refused.Word)
	} else if err != nil {
		return orGone(r.Context(), err)
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
	return nil
}

// consentQuestion tells the page what a client asks for.
func (a *API) consentQuestion(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	if err := p.InBrowser(); err != nil {
		return err
	}
	o := authorizationRequest(r.URL.Query())
	c, scopes, err := a.Identity.CheckOAuth(r.Context(), o)
	if err != nil {
		return orGone(r.Context(), err)
	}
	u, err := url.Parse(o.Redirect)
	if err != nil {
		return err
	}
	host := u.Host
	if host == "" {
		host = u.Scheme + ":"
	}
	return writeJSON(w, http.StatusOK, fields{
		"client_id": c.ID, "client_name": c.Name, "redirect_host": host, "on_this_machine": u.Scheme != "https", "scopes": scopes,
		"registered_at": stamp(c.CreatedAt), "fresh": p.Fresh() == nil,
	})
}

// consent takes what a person has decided, and tells the page where the browser goes next.
func (a *API) consent(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		ClientID     string       `json:"client_id"`
		Redirect     string       `json:"redirect_uri"`
		ResponseType string       `json:"response_type"`
		Scope        string       `json:"scope"`
		State        string       `json:"state" max:"2000"` // auth.MaxState
		Challenge    string       `json:"code_challenge"`
		Method       string       `json:"code_challenge_method"`
		Resource     string       `json:"resource"`
		Allow        bool         `json:"allow"`
		Scopes       []auth.Scope `json:"scopes"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	if err := p.InBrowser(); err != nil {
		return err
	}
	o := auth.OAuthRequest{
		ClientID: in.ClientID, Redirect: in.Redirect, ResponseType: in.ResponseType, Scope: in.Scope, State: in.State,
		Challenge: in.Challenge, Method: in.Method, Resource: in.Resource,
	}
	if !in.Allow {
		if err := a.Identity.RefuseOAuth(r.Context(), o); err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, fields{"redirect_to": a.answerTo(o, "error", "access_denied")})
	}
	code, err := a.Identity.ConsentOAuth(r.Context(), o, in.Scopes)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{"redirect_to": a.answerTo(o, "code", code)})
}

// oauthTokens gives a client its tokens (RFC 6749, 4.1.3 and 6).
func (a *API) oauthTokens(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	if err := a.closedToOAuth(); err != nil {
		return err
	}
	e := auth.OAuthExchange{ClientID: f.Get("client_id"), Resource: f.Get("resource"), Address: auth.Address(r.RemoteAddr)}
	switch f.Get("grant_type") {
	case "authorization_code":
		e.Kind, e.Shown, e.Redirect, e.Verifier = auth.OAuthCode, f.Get("code"), f.Get("redirect_uri"), f.Get("code_verifier")
	case "refresh_token":
		e.Kind, e.Shown, e.Scope = auth.OAuthRefresh, f.Get("refresh_token"), f.Get("scope")
	default:
		return &auth.OAuthError{Word: "unsupported_grant_type", Err: fault.New(fault.Invalid, "grant_type must be authorization_code or refresh_token")}
	}
	got, err := a.Identity.ExchangeOAuth(r.Context(), e)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{
		"access_token": got.Access, "token_type": "Bearer", "expires_in": int64(got.Life / time.Second), "refresh_token": got.Refresh, "scope": words(got.Scopes),
	})
}

// forgetToken ends the grant of a token (RFC 7009).
func (a *API) forgetToken(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	if err := a.closedToOAuth(); err != nil {
		return err
	}
	if err := a.Identity.ForgetOAuth(r.Context(), f.Get("client_id"), f.Get("token"), auth.Address(r.RemoteAddr)); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fields{})
}

func grantFields(g auth.OAuthGrant) fields {
	host := g.Redirect
	if u, err := url.Parse(g.Redirect); err == nil && u.Host != "" {
		host = u.Host
	}
	return fields{
		"id": g.ID, "principal_id": g.PrincipalID, "client_id": g.ClientID, "client_name": g.ClientName, "redirect_host": host, "scopes": notNil(g.Scopes),
		"resource": g.Resource, "created_at": stamp(g.CreatedAt), "expires_at": stamp(g.ExpiresAt),
	}.time("last_used", g.LastUsed)
}

// listGrants lists what the caller lets MCP clients do.
func (a *API) listGrants(w http.ResponseWriter, r *http.Request) error {
	p, err := auth.From(r.Context())
	if err != nil {
		return err
	}
	return a.grantsOf(w, r, p.ID, auth.MaxGrants)
}

// listAllGrants lists what everybody, or one principal, lets MCP clients do.
func (a *API) listAllGrants(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, 100, auth.MaxPage)
	if err != nil {
		return err
	}
	return a.grantsOf(w, r, r.URL.Query().Get("principal_id"), n)
}

func (a *API) grantsOf(w http.ResponseWriter, r *http.Request, principalID string, n int) error {
	all, err := a.Identity.OAuthGrants(r.Context(), principalID, n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	all = slices.DeleteFunc(all, func(g auth.OAuthGrant) bool { return g.LastUsed.IsZero() }) // nobody has come with the code yet
	list := make([]fields, len(all))
	for i, g := range all {
		list[i] = grantFields(g)
	}
	return writeJSON(w, http.StatusOK, fields{"grants": list})
}

func (a *API) revokeGrant(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RevokeOAuthGrant(r.Context(), r.PathValue("id"), false))
}

func (a *API) revokeAnyGrant(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Identity.RevokeOAuthGrant(r.Context(), r.PathValue("id"), true))
}
