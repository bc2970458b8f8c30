package gatewaytest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdkauth "github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
)

// oauthRedirect is where the programs of tests get their answers; the port does not count.
const oauthRedirect = "http://127.0.0.1/callback"

var inForm = []string{"Content-Type", "application/x-www-form-urlencoded"}

// oauthClient registers a program, and returns with what it asks for rights.
func (g *Gateway) oauthClient(name string, redirects ...string) (id string, query url.Values, verifier string) {
	g.t.Helper()
	if len(redirects) == 0 {
		redirects = []string{oauthRedirect}
	}
	from := make([]byte, 8) // each program registers from an address of its own
	_, _ = rand.Read(from)  // never fails
	c, err := g.Identity().RegisterOAuthClient(context.Background(), name, redirects, fmt.Sprintf("2001:db8:%x:%x::1", from[:2], from[2:4]))
	if err != nil {
		g.t.Fatal(err)
	}
	verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	return c.ID, url.Values{
		"client_id": {c.ID}, "redirect_uri": {redirects[0]}, "response_type": {"code"}, "state": {"a state"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "resource": {g.Identity().MCPResource()},
	}, verifier
}

// consent decides about a request in a browser; more is added to the body.
func (a *authenticator) consent(query url.Values, more string) (*http.Response, string) {
	a.t.Helper()
	fields := map[string]string{}
	for name := range query {
		fields[name] = query.Get(name)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.call("POST", "/api/oauth/consent", strings.TrimSuffix(string(b), "}")+more+"}")
}

// sentBack is what a client finds in the address that the browser is sent to.
func sentBack(t testing.TB, body string) url.Values {
	t.Helper()
	var to struct {
		To string `json:"redirect_to"`
	}
	if err := json.Unmarshal([]byte(body), &to); err != nil || to.To == "" {
		t.Fatal(body, err)
	}
	u, err := url.Parse(to.To)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// tokens are an answer of the token endpoint, good or not.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Scope   string
	Error   string
}

func (g *Gateway) exchange(fields ...string) (tokens, int) {
	g.t.Helper()
	q := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		q.Set(fields[i], fields[i+1])
	}
	resp, body := g.web("POST", "/oauth/token", q.Encode(), inForm...)
	var got tokens
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		g.t.Fatal(body, err)
	}
	return got, resp.StatusCode
}

// granted makes a program to which a person grants scopes; nil is all.
func (g *Gateway) granted(a *authenticator, scopes ...string) (client string, got tokens) {
	g.t.Helper()
	client, query, verifier := g.oauthClient("A program")
	query.Set("scope", strings.Join(scopes, " "))
	_, body := a.consent(query, `,"allow":true`)
	got, status := g.exchange("grant_type", "authorization_code", "client_id", client, "code", sentBack(g.t, body).Get("code"), "code_verifier", verifier)
	if status != http.StatusOK || got.Access == "" || got.Refresh == "" {
		g.t.Fatal(status, got)
	}
	return client, got
}

const pingMCP = `{"jsonrpc":"2.0","id":1,"method":"ping"}`

func (g *Gateway) pings(token string) int {
	g.t.Helper()
	status, _, _ := g.post("/mcp", pingMCP, "Authorization", "Bearer "+token)
	return status
}

// TestOAuthWithSDK is the whole way of a client of the SDK: it finds the documents, registers, asks, and
// calls a tool.
func TestOAuthWithSDK(t *testing.T) {
	g := New(t, Locked)
	a := g.signer("bea", "a long password of bea")
	asked := 0
	handler, err := sdkauth.NewAuthorizationCodeHandler(&sdkauth.AuthorizationCodeHandlerConfig{
		Client: g.Client, RedirectURL: oauthRedirect,
		DynamicClientRegistrationConfig: &sdkauth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "SDK", RedirectURIs: []string{oauthRedirect}, GrantTypes: []string{"authorization_code", "refresh_token"},
		}},
		AuthorizationCodeFetcher: func(_ context.Context, args *sdkauth.AuthorizationArgs) (*sdkauth.AuthorizationResult, error) {
			asked++
			u, err := url.Parse(args.URL)
			if err != nil {
				return nil, err
			}
			resp, body := g.web("GET", "/api/oauth/consent?"+u.RawQuery, "", "Cookie", a.session)
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"client_name":"SDK"`) || !strings.Contains(body, `"redirect_host":"127.0.0.1"`) {
				t.Errorf("the page is told %s %s", resp.Status, body)
			}
			_, body = a.consent(u.Query(), `,"allow":true`)
			q := sentBack(t, body)
			return &sdkauth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		x, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(),
			&mcp.StreamableClientTransport{Endpoint: g.Identity().MCPResource(), HTTPClient: g.Client, OAuthHandler: handler}, &mcp.ClientSessionOptions{ProtocolVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.ListTools(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	if asked != 1 {
		t.Errorf("the person was asked %d times", asked)
	}
}

// TestOAuthRefusals: what a client must not get, it does not get.
func TestOAuthRefusals(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Limits.AddressRequestsPerSecond = 0 })
	a := g.signer("bea", "a long password of bea")

	resp, _ := g.web("POST", "/mcp", pingMCP, "Content-Type", "application/json")
	where := g.Identity().MCPResource()
	want := `Bearer resource_metadata="` + strings.TrimSuffix(where, "/mcp") + `/.well-known/oauth-protected-resource/mcp", scope="tools agents resources"`
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != http.StatusUnauthorized || got != want {
		t.Errorf("%s with %q, want %q", resp.Status, got, want)
	}

	t.Run("requests", func(t *testing.T) {
		id, good, _ := g.oauthClient("A program", "https://app.example/cb", "http://localhost/cb?x=1")
		follow := func(change ...string) (int, string) {
			q := url.Values{}
			for name := range good {
				q.Set(name, good.Get(name))
			}
			for i := 0; i < len(change); i += 2 {
				q.Set(change[i], change[i+1])
			}
			req, err := http.NewRequest("GET", g.URL+"/oauth/authorize?"+q.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := g.Client.Transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			return resp.StatusCode, resp.Header.Get("Location")
		}
		if status, to := follow(); status != http.StatusFound || !strings.HasPrefix(to, "consent?") || !strings.Contains(to, id) {
			t.Error(status, to)
		}
		if status, to := follow("redirect_uri", "http://localhost:5123/cb?x=1"); status != http.StatusFound || !strings.HasPrefix(to, "consent?") {
			t.Error("another port of this machine:", status, to)
		}
		for _, redirect := range []string{
			"https://app.example/cb/", "https://app.example/cb?x=1", "https://APP.example/cb", "https://app.example:444/cb", "https://app.example.evil.example/cb",
			"https://app.example@evil.example/cb", "http://localhost/cb", "http://localhost:5123/other?x=1", "http://127.0.0.1/cb?x=1", "http://localhost:1@evil.example/cb?x=1", "",
		} {
			if status, to := follow("redirect_uri", redirect); status != http.StatusBadRequest || to != "" {
				t.Errorf("redirect %q: %d %q", redirect, status, to)
			}
		}
		for _, c := range []struct{ name, value, word string }{
			{"code_challenge", "", "invalid_request"},
			{"code_challenge", "short", "invalid_request"},
			{"code_challenge_method", "plain", "invalid_request"},
			{"code_challenge_method", "", "invalid_request"},
			{"response_type", "token", "unsupported_response_type"},
			{"resource", "https://other.example/mcp", "invalid_target"},
			{"scope", "admin", "invalid_scope"},
		} {
			if status, to := follow(c.name, c.value); status != http.StatusBadRequest || to != "" {
				t.Errorf("%s=%s leads to another web site: %d %q", c.name, c.value, status, to)
			}
			_, to := follow(c.name, c.value, "redirect_uri", "http://localhost:5123/cb?x=1")
			u, err := url.Parse(to)
			if err != nil || u.Host != "localhost:5123" || u.Query().Get("error") != c.word || u.Query().Get("state") != "a state" || u.Query().Get("x") != "1" || u.Query().Get("iss") != g.Identity().OAuthIssuer() {
				t.Errorf("%s=%s: %q", c.name, c.value, to)
			}
			q := url.Values{}
			for name := range good {
				q.Set(name, good.Get(name))
			}
			q.Set(c.name, c.value)
			if resp, body := a.consent(q, `,"allow":true`); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s=%s is agreed to: %s", c.name, c.value, body)
			}
		}
		if resp, body := g.web("POST", "/oauth/authorize", ""); resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusFound {
			t.Error(resp.Status, body)
		}
	})

	t.Run("registration", func(t *testing.T) {
		for _, redirect := range []string{"http://app.example/cb", "javascript:alert(1)", "data:text/html,x", "/cb", "https://app.example/#f", "https://u:p@app.example/", "https:", "https://a.example/" + strings.Repeat("x", auth.MaxRedirect)} {
			b, err := json.Marshal(map[string]any{"redirect_uris": []string{redirect}})
			if err != nil {
				t.Fatal(err)
			}
			if resp, body := g.web("POST", "/oauth/register", string(b)); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%q: %s %s", redirect, resp.Status, body)
			}
		}
		limited := false
		for range 30 {
			resp, _ := g.web("POST", "/oauth/register", `{"client_name":"one of many","redirect_uris":["https://app.example/cb"]}`)
			limited = limited || resp.StatusCode == http.StatusTooManyRequests
		}
		if !limited {
			t.Error("one address may register any number of programs")
		}
		resp, body := g.web("POST", "/oauth/register", `{"redirect_uris":[]}`, "Origin", "https://evil.example")
		if resp.StatusCode != http.StatusForbidden {
			t.Error("another web site may register:", resp.Status, body)
		}
	})

	t.Run("consent", func(t *testing.T) {
		_, query, _ := g.oauthClient("A program")
		_, body := a.consent(query, `,"allow":false`)
		if q := sentBack(t, body); q.Get("error") != "access_denied" || q.Get("code") != "" || q.Get("state") != "a state" {
			t.Error(q)
		}
		fields := map[string]any{"allow": true}
		for name := range query {
			fields[name] = query.Get(name)
		}
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
			if resp, body := g.web("POST", "/api/oauth/consent", string(b), append(header, "Cookie", a.session)...); resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%q: %s %s", header, resp.Status, body)
			}
		}
		if resp, body := a.consent(query, `,"allow":true,"scopes":["admin"]`); resp.StatusCode != http.StatusBadRequest {
			t.Error(resp.Status, body)
		}
		page, _ := g.web("GET", "/oauth/consent", "")
		if policy := page.Header.Get("Content-Security-Policy"); page.StatusCode != http.StatusOK || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Error("the page may be framed:", page.Status, policy)
		}
	})

	t.Run("codes", func(t *testing.T) {
		client, query, verifier := g.oauthClient("A program")
		other, _, _ := g.oauthClient("Another program")
		_, body := a.consent(query, `,"allow":true`)
		q := sentBack(t, body)
		if q.Get("state") != "a state" || q.Get("iss") != g.Identity().OAuthIssuer() {
			t.Error(q)
		}
		good := []string{"grant_type", "authorization_code", "client_id", client, "code", q.Get("code"), "code_verifier", verifier, "redirect_uri", oauthRedirect, "resource", where}
		for _, c := range [][]string{
			{"code_verifier", "", "invalid_grant"},
			{"code_verifier", strings.Repeat("x", 43), "invalid_grant"},
			{"client_id", other, "invalid_grant"},
			{"client_id", "", "invalid_grant"},
			{"redirect_uri", "https://app.example/", "invalid_grant"},
			{"resource", "https://other.example/mcp", "invalid_target"},
			{"code", "x", "invalid_grant"},
			{"grant_type", "password", "unsupported_grant_type"},
		} {
			if got, status := g.exchange(append(slices.Clone(good), c[:2]...)...); status != http.StatusBadRequest || got.Error != c[2] || got.Access != "" {
				t.Errorf("%s=%s: %d %+v", c[0], c[1], status, got)
			}
		}
		got, status := g.exchange(good...)
		if status != http.StatusOK || got.Scope != "tools agents resources" || g.pings(got.Access) != http.StatusOK {
			t.Fatal(status, got)
		}
		if again, status := g.exchange(good...); status != http.StatusBadRequest || again.Error != "invalid_grant" {
			t.Error("the code is good twice:", status, again)
		}
		if status := g.pings(got.Access); status != http.StatusUnauthorized {
			t.Error("a code that was shown twice leaves its token good:", status)
		}
	})

	t.Run("refresh", func(t *testing.T) {
		client, first := g.granted(a)
		second, status := g.exchange("grant_type", "refresh_token", "client_id", client, "refresh_token", first.Refresh)
		if status != http.StatusOK || second.Refresh == first.Refresh || g.pings(second.Access) != http.StatusOK || g.pings(first.Access) != http.StatusUnauthorized {
			t.Fatal(status, second)
		}
		if got, status := g.exchange("grant_type", "refresh_token", "client_id", client, "refresh_token", second.Access); status != http.StatusBadRequest {
			t.Error("an access token refreshes:", got)
		}
		if got, status := g.exchange("grant_type", "refresh_token", "client_id", client, "refresh_token", first.Refresh); status != http.StatusBadRequest || got.Error != "invalid_grant" {
			t.Error(status, got)
		}
		if g.pings(second.Access) != http.StatusUnauthorized {
			t.Error("a stolen refresh token leaves the others good")
		}
		if got, status := g.exchange("grant_type", "refresh_token", "client_id", client, "refresh_token", second.Refresh); status != http.StatusBadRequest {
			t.Error(got)
		}
	})

	t.Run("audience", func(t *testing.T) {
		_, got := g.granted(a)
		for _, path := range []string{"/api/me", "/api/agents", "/api/oauth/grants"} {
			if resp, _ := g.web("GET", path, "", "Authorization", "Bearer "+got.Access); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
		if status, _, _ := g.post("/mcp/"+got.Access, pingMCP); status != http.StatusUnauthorized {
			t.Error("the token is good in an address:", status)
		}
		if g.pings(got.Refresh) != http.StatusUnauthorized {
			t.Error("a refresh token is good for requests")
		}
	})

	t.Run("scopes", func(t *testing.T) {
		_, got := g.granted(a, "resources")
		for method, want := range map[string]int{"tools/list": http.StatusForbidden, "tools/call": http.StatusForbidden, "resources/list": http.StatusOK, "ping": http.StatusOK} {
			status, h, body := g.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":{"name":"x"}}`, "Authorization", "Bearer "+got.Access)
			if status != want || want == http.StatusForbidden && !strings.HasPrefix(h.Get("WWW-Authenticate"), `Bearer error="insufficient_scope", resource_metadata="`) {
				t.Errorf("%s: %d %v %s", method, status, h, body)
			}
		}
		_, got = g.granted(a, "tools")
		if status, _, body := g.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"resources/list"}`, "Authorization", "Bearer "+got.Access); status != http.StatusForbidden {
			t.Error(status, body)
		}
	})

	t.Run("ends", func(t *testing.T) {
		client, got := g.granted(a)
		_, list := a.call("GET", "/api/oauth/grants", "")
		if !strings.Contains(list, client) {
			t.Error(list)
		}
		other := g.signer("cai", "a long password of cai")
		var all struct{ Grants []struct{ ID string } }
		if err := json.Unmarshal([]byte(list), &all); err != nil || len(all.Grants) == 0 {
			t.Fatal(list, err)
		}
		if resp, _ := other.call("DELETE", "/api/oauth/grants/"+all.Grants[0].ID, ""); resp.StatusCode != http.StatusNotFound {
			t.Error("somebody else may end it:", resp.Status)
		}
		if resp, body := a.call("DELETE", "/api/oauth/grants/"+all.Grants[0].ID, ""); resp.StatusCode != http.StatusNoContent || g.pings(got.Access) != http.StatusUnauthorized {
			t.Error(resp.Status, body)
		}
		client, got = g.granted(a)
		if resp, body := g.web("POST", "/oauth/revoke", url.Values{"token": {got.Refresh}, "client_id": {"x"}}.Encode(), inForm...); resp.StatusCode != http.StatusOK || g.pings(got.Access) != http.StatusOK {
			t.Error("another client may end it:", resp.Status, body)
		}
		if resp, body := g.web("POST", "/oauth/revoke", url.Values{"token": {got.Refresh}, "client_id": {client}}.Encode(), inForm...); resp.StatusCode != http.StatusOK || g.pings(got.Access) != http.StatusUnauthorized {
			t.Error(resp.Status, body)
		}
		client, got = g.granted(other)
		people, err := g.Identity().Principals(Ctx(), auth.PrincipalFilter{Kind: auth.User, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range people {
			if p.Name == "cai" {
				if err := g.Identity().Revoke(Ctx(), p.ID); err != nil {
					t.Fatal(err)
				}
				if status := g.pings(got.Access); status != http.StatusUnauthorized {
					t.Error("a revoked person's client goes on:", status)
				}
				if err := g.Identity().Approve(Ctx(), p.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		if again, _ := g.exchange("grant_type", "refresh_token", "client_id", client, "refresh_token", got.Refresh); again.Access != "" || g.pings(got.Access) != http.StatusUnauthorized {
			t.Error("the grant has survived its person's rights")
		}
	})
}

// TestOAuthLimits: whoever guesses is slowed down.
func TestOAuthLimits(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Limits.AddressRequestsPerSecond = 1 })
	for _, path := range []string{"/oauth/token", "/oauth/revoke"} {
		limited := false
		for range 30 {
			resp, _ := g.web("POST", path, "grant_type=refresh_token&refresh_token=x&token=x", inForm...)
			limited = limited || resp.StatusCode == http.StatusTooManyRequests
		}
		if !limited {
			t.Errorf("%s may be asked any number of times", path)
		}
	}
	if got, status := g.exchange("grant_type", strings.Repeat("x", auth.MaxRedirect+1)); status != http.StatusBadRequest || got.Error != "invalid_request" {
		t.Error(status, got)
	}
	if resp, body := g.web("POST", "/oauth/token", "client_id=a&client_id=b", inForm...); resp.StatusCode != http.StatusBadRequest {
		t.Error(resp.Status, body)
	}
}

// TestOAuthExpiry: tokens, codes and the sign-in are good for as long as they say.
func TestOAuthExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		a := g.signer("bea", "a long password of bea")
		client, query, verifier := g.oauthClient("A program")
		_, body := a.consent(query, `,"allow":true`)
		_, got := g.granted(a)
		time.Sleep(auth.OAuthCodeLife)
		if late, status := g.exchange("grant_type", "authorization_code", "client_id", client, "code", sentBack(t, body).Get("code"), "code_verifier", verifier); status != http.StatusBadRequest {
			t.Error("a code is good for too long:", late)
		}
		time.Sleep(auth.FreshFor)
		if resp, body := a.consent(query, `,"allow":true`); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "reauthentication_required") {
			t.Error("a sign-in of long ago agrees:", resp.Status, body)
		}
		if g.pings(got.Access) != http.StatusOK {
			t.Error("the token has ended too early")
		}
		time.Sleep(auth.OAuthAccessLife - auth.FreshFor - auth.OAuthCodeLife)
		if g.pings(got.Access) != http.StatusUnauthorized {
			t.Error("the token is good for too long")
		}
	})
}

// TestOAuthOpen: a gateway that asks nobody who they are has nothing of it.
func TestOAuthOpen(t *testing.T) {
	g := New(t)
	for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server", "/oauth/authorize"} {
		if resp, body := g.web("GET", path, ""); resp.StatusCode != http.StatusNotFound {
			t.Error(path, resp.Status, body)
		}
	}
	if resp, body := g.web("POST", "/oauth/register", `{"redirect_uris":["https://app.example/"]}`); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status, body)
	}
	for _, path := range []string{"/oauth/token", "/oauth/revoke"} {
		if resp, body := g.web("POST", path, "token=x", inForm...); resp.StatusCode != http.StatusNotFound {
			t.Error(path, resp.Status, body)
		}
	}
	if status, h, body := g.post("/mcp", pingMCP); status != http.StatusOK || h.Get("WWW-Authenticate") != "" {
		t.Error(status, h, body)
	}
}
