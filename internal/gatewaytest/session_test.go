package gatewaytest

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/config"
	"coven-gateway/internal/sse"
)

// request sends a request with a token, unless that is empty, and returns the answer and its body.
func (g *Gateway) request(method, path, token, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	if token != "" {
		header = append([]string{"Authorization", "Bearer " + token}, header...)
	}
	return g.do(context.Background(), method, path, body, header...)
}

// do sends a request with headers, given as names and values; of those with one name the last counts.
func (g *Gateway) do(ctx context.Context, method, path, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, g.URL+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := g.Client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, string(b)
}

// TestBrowserSession: a token opens a session, the session's cookie is enough for a stream, and the
// session ends with the token that opened it, streams included.
func TestBrowserSession(t *testing.T) {
	g := New(t, Locked)
	g.ConnectAs(Bearer(second(g.Principal("agent"))), "a").next()
	_, token := g.Principal("person")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.Client.Jar = jar
	status := func(method, path, token string, header ...string) int {
		t.Helper()
		resp, _ := g.request(method, path, token, "", header...)
		return resp.StatusCode
	}
	if got := status("GET", "/api/agents", ""); got != 401 {
		t.Errorf("without anything: %d", got)
	}
	resp, _ := g.request("POST", "/api/session", token, "")
	if c := resp.Cookies(); resp.StatusCode != 204 || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || strings.Contains(c[0].Value, token) {
		t.Fatalf("%d %v", resp.StatusCode, c)
	}
	cookie := resp.Cookies()[0].Value
	if got := status("GET", "/api/agents", ""); got != 200 {
		t.Errorf("with the cookie: %d", got)
	}
	if got := status("GET", "/api/agents", cookie); got != 401 {
		t.Errorf("the cookie's value as a token: %d", got)
	}
	if got := status("POST", "/api/send", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); got != 403 {
		t.Errorf("a post from another site: %d", got)
	}
	if got := status("POST", "/api/session", ""); got != 409 {
		t.Errorf("a session from a session: %d", got)
	}

	req, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/api/conversations/a/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	stream, err := g.Client.Do(req)
	if err != nil || stream.StatusCode != 200 {
		t.Fatal(stream, err)
	}
	defer stream.Body.Close()
	tokens, err := g.Identity().Tokens(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tokens {
		if x.Kind == "session" {
			if err := g.Identity().RevokeToken(Ctx(), x.Parent); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := sse.NewReader(stream.Body).Next(); err == nil {
		t.Error("the stream goes on")
	}
	if got := status("GET", "/api/agents", ""); got != 401 {
		t.Errorf("with the cookie of a revoked token: %d", got)
	}
}

// second drops the first of two values.
func second[A, B any](_ A, b B) B { return b }

// TestLogOut: a session that was ended is worth nothing.
func TestLogOut(t *testing.T) {
	g := New(t, Locked)
	_, token := g.Principal("person")
	resp, _ := g.request("POST", "/api/session", token, "")
	cookie := resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	for _, want := range []int{204, 401} {
		if resp, body := g.request("DELETE", "/api/session", "", "", "Cookie", cookie); resp.StatusCode != want {
			t.Errorf("%d %s, want %d", resp.StatusCode, body, want)
		}
	}
}

// TestRequestLimits: a principal, and an address that shows wrong credentials, are told when to come
// back; others are not concerned.
func TestRequestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked, func(c *config.Config) { c.Limits.RequestsPerSecond, c.Limits.AddressRequestsPerSecond = 5, 5 })
		_, busy := g.Principal("busy")
		_, other := g.Principal("other")
		count := func(token string) (good, limited int) {
			for range 40 {
				resp, body := g.request("GET", "/api/me", token, "")
				switch resp.StatusCode {
				case 200, 401:
					good++
				case 429:
					limited++
					if resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"rate_limited"`) {
						t.Errorf("%s %s", resp.Header.Get("Retry-After"), body)
					}
				default:
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			}
			return good, limited
		}
		if good, limited := count(busy); good != 10 || limited != 30 {
			t.Errorf("a principal: %d answers, %d refusals", good, limited)
		}
		if good, limited := count("wrong"); good != 20 || limited != 20 {
			t.Errorf("wrong tokens: %d answers, %d refusals", good, limited)
		}
		if good, _ := count(other); good != 10 {
			t.Errorf("another principal at that address: %d answers", good)
		}
		time.Sleep(time.Second)
		if good, _ := count(busy); good != 5 {
			t.Errorf("a second later: %d answers", good)
		}
	})
}

// TestCORS: pages of other web sites may call the API only when they are named, and never with
// cookies.
func TestCORS(t *testing.T) {
	const site = "https://app.example"
	g := New(t, Locked, func(c *config.Config) { c.Server.CORSOrigins = []string{site} })
	_, token := g.Principal("person")
	for _, c := range []struct {
		method, origin string
		status         int
		allowed        string
	}{
		{"OPTIONS", site, 204, site},
		{"OPTIONS", "https://evil.example", 405, ""},
		{"GET", site, 200, site},
		{"GET", "https://evil.example", 200, ""}, // the browser keeps it from the page
		{"POST", "https://evil.example", 403, ""},
		{"POST", site, 400, site},
	} {
		path := "/api/agents"
		if c.method == "POST" {
			path = "/api/send"
		}
		resp, body := g.request(c.method, path, token, "", "Origin", c.origin, "Access-Control-Request-Method", "GET")
		if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allowed || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s from %s: %d %v %s", c.method, c.origin, resp.StatusCode, resp.Header, body)
		}
	}
	plain := New(t, Locked)
	if resp, _ := plain.request("OPTIONS", "/api/agents", "", "", "Origin", site, "Access-Control-Request-Method", "GET"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("allowed without being configured")
	}
}
