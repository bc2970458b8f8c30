package gatewaytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/sse"
)

// expect makes a request as the browser and returns its answer, which has a status.
func (a *authenticator) expect(status int, method, path, body string, cookies ...string) string {
	a.t.Helper()
	resp, answer := a.call(method, path, body, cookies...)
	if resp.StatusCode != status {
		a.t.Errorf("%s %s: %s %s, want %d", method, path, resp.Status, answer, status)
	}
	return answer
}

// TestPasskeys: a passkey signs in and shows again who sits there, and nothing that is nearly one does.
func TestPasskeys(t *testing.T) {
	g := New(t, Locked)
	a := g.signer("bea", "a long word and another")
	other := g.signer("ben", "a long word and another")
	const path = "/api/sign-in/passkey"
	ceremony, answer := a.signIn()
	body := `{"passkey":` + answer + `}`
	a.expect(400, "POST", path, body)                       // another browser
	a.expect(400, "POST", path, body, "coven_passkey=x")    // a cookie of its own making
	a.expect(400, "POST", path, `{"passkey":{}}`, ceremony) // no answer
	if got := a.expect(200, "POST", path, body, ceremony); !strings.Contains(got, `"name":"bea"`) || !strings.Contains(got, `"passkeys":1`) {
		t.Error(got)
	}
	a.expect(400, "POST", path, body, ceremony) // again
	for what, spoil := range map[string]func(*authenticator){
		"another origin":         func(a *authenticator) { a.origin = "https://evil.example" },
		"another port":           func(a *authenticator) { a.origin = "http://localhost:1" },
		"nobody has looked":      func(a *authenticator) { a.flags = userPresent },
		"nobody is there":        func(a *authenticator) { a.flags = userVerified },
		"somebody else's handle": func(a *authenticator) { a.handle = other.handle },
		"somebody else's key":    func(a *authenticator) { a.key = other.key },
		"an unknown passkey":     func(a *authenticator) { a.id = []byte("unknown") },
		"a counter that stands":  func(a *authenticator) { a.count-- },
		"a counter that falls":   func(a *authenticator) { a.count = 0 },
		"backup appears":         func(a *authenticator) { a.flags |= backupEligible },
	} {
		x := *a
		spoil(&x)
		ceremony, answer := x.signIn()
		t.Log(what)
		x.expect(401, "POST", path, `{"passkey":`+answer+`}`, ceremony)
	}
	// Another purpose.
	begun, challenge, rpID := a.challenge("/api/me/passkey-options")
	a.expect(400, "POST", path, `{"passkey":`+a.assert(challenge, rpID)+`}`, begun)
	// Somebody else's browser brings the answer to a registration.
	other.expect(400, "POST", "/api/me/passkeys", `{"passkey":`+g.authenticator().register(challenge, rpID)+`}`, begun)
	evil := g.authenticator()
	evil.origin = "https://evil.example"
	a.expect(400, "POST", "/api/me/passkeys", `{"passkey":`+evil.register(challenge, rpID)+`}`, begun)
	a.expect(409, "POST", "/api/me/passkeys", `{"passkey":`+a.register(challenge, rpID)+`}`, begun) // it is there already
	// Showing again who one is: only with one's own.
	ceremony, answer = other.signIn()
	a.expect(403, "POST", "/api/session/reauthenticate", `{"passkey":`+answer+`}`, ceremony)
	ceremony, answer = a.signIn()
	a.expect(204, "POST", "/api/session/reauthenticate", `{"passkey":`+answer+`}`, ceremony)

	var list struct{ Passkeys []struct{ ID, Name string } }
	if err := json.Unmarshal([]byte(a.expect(200, "GET", "/api/me/passkeys", "")), &list); err != nil || len(list.Passkeys) != 1 || list.Passkeys[0].Name != "key" {
		t.Fatal(list, err)
	}
	own := "/api/me/passkeys/" + list.Passkeys[0].ID
	a.expect(204, "PATCH", own, `{"name":"laptop"}`)
	other.expect(404, "PATCH", own, `{"name":"mine"}`)
	other.expect(404, "DELETE", own, "")
	a.expect(204, "DELETE", own, "")
	ceremony, answer = a.signIn()
	a.expect(401, "POST", path, `{"passkey":`+answer+`}`, ceremony)
	for _, x := range []struct{ method, path string }{
		{"POST", "/api/sign-in/passkey-options"}, {"POST", "/api/sign-in/passkey"}, {"POST", "/api/sign-in/password"}, {"POST", "/api/sign-in/link"},
	} {
		if resp, body := New(t).request(x.method, x.path, "", "{}"); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s in open mode: %s %s", x.path, resp.Status, body)
		}
	}
}

// TestFirstOwner: the link that an empty gateway has signs the first owner in, once and not for long.
func TestFirstOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		a := g.authenticator()
		open := func(status int, link string) string {
			t.Helper()
			_, token, _ := strings.Cut(link, "/setup#")
			resp, body := a.call("POST", "/api/sign-in/link", fmt.Sprintf(`{"link":%q,"name":"Ann","display_name":"Ann A."}`, token))
			if resp.StatusCode != status {
				t.Errorf("%s %s, want %d", resp.Status, body, status)
			}
			if c := cookie(resp, SessionName); c != "" {
				a.session = c
			}
			return body
		}
		link := func() string {
			l, _, err := g.gw.FirstOwner(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		if got := a.expect(200, "GET", "/api/sign-in", ""); !strings.Contains(got, `"needs_owner":true`) {
			t.Error(got)
		}
		first := link()
		second := link()
		open(404, first) // the second replaces it
		time.Sleep(auth.OwnerLinkLife)
		open(404, second)
		third := link()
		if got := open(200, third); !strings.Contains(got, `"roles":["owner"]`) || !strings.Contains(got, `"name":"ann"`) {
			t.Error(got)
		}
		open(404, third)
		if l := link(); l != "" {
			t.Error("there is another link: " + l)
		}
		var me struct {
			ID string `json:"principal_id"`
		}
		if err := json.Unmarshal([]byte(a.expect(200, "GET", "/api/me", "")), &me); err != nil {
			t.Fatal(err)
		}
		if got := a.expect(409, "DELETE", "/api/admin/users/"+me.ID, ""); !strings.Contains(got, "you cannot delete yourself") {
			t.Error(got)
		}
		a.expect(400, "PUT", "/api/me/password", `{"password":"short"}`)
		a.expect(400, "PUT", "/api/me/password", `{"password":"passwordpassword"}`)
		a.expect(204, "PUT", "/api/me/password", `{"password":"a long word and another"}`)
		a.session = ""
		a.expect(401, "POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and anothe"}`)
		a.expect(401, "POST", "/api/sign-in/password", `{"name":"nobody","password":"a long word and another"}`)
		a.expect(200, "POST", "/api/sign-in/password", `{"name":"ANN","password":"a long word and another"}`)
	})
}

// TestFreshSignIn: what gives rights away needs a sign-in that is fresh, and the page is told so.
func TestFreshSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		a := g.signer("ann", "a long word and another", auth.Owner)
		a.expect(201, "POST", "/api/admin/invites", `{}`)
		time.Sleep(auth.FreshFor)
		for route := range auth.Fresh {
			method, path, _ := strings.Cut(route, " ")
			if got := a.expect(403, method, strings.NewReplacer("{", "", "}", "").Replace(path), "{}"); !strings.Contains(got, `"code":"reauthentication_required"`) {
				t.Errorf("%s: %s", route, got)
			}
		}
		a.expect(403, "PUT", "/api/me/password", `{"password":"quite another long one"}`)
		a.expect(403, "PUT", "/api/me/password", `{"password":"quite another long one","old_password":"wrong"}`)
		a.expect(204, "PUT", "/api/me/password", `{"password":"quite another long one","old_password":"a long word and another"}`)
		a.expect(403, "POST", "/api/session/reauthenticate", `{"password":"a long word and another"}`)
		a.expect(403, "POST", "/api/admin/invites", `{}`)
		a.expect(204, "POST", "/api/session/reauthenticate", `{"password":"quite another long one"}`)
		a.expect(201, "POST", "/api/admin/invites", `{}`)
	})
}

// TestPasswordThrottle: who tries passwords is slowed down, and keeps nobody out who is in already.
func TestPasswordThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		g.signer("ann", "a long word and another")
		limited := 0
		for range 20 {
			_, err := g.Identity().SignIn(t.Context(), "ann", "wrong", auth.Browser{Address: "192.0.2.7"})
			if err != nil && strings.Contains(err.Error(), "too many requests") {
				limited++
			}
		}
		if limited != 10 {
			t.Errorf("%d of 20 tries from one address were refused", limited)
		}
		for i := range 100 { // from many
			_, _ = g.Identity().SignIn(t.Context(), "ann", "wrong", auth.Browser{Address: fmt.Sprintf("198.51.100.%d", i)})
		}
		if _, err := g.Identity().SignIn(t.Context(), "ann", "a long word and another", auth.Browser{Address: "203.0.113.1"}); err == nil {
			t.Error("a stranger may go on")
		}
		// Where she has a session.
		a := g.authenticator()
		a.expect(200, "POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	})
}

// TestSessionsEnd: a session ends when it is not used, after its time at the latest, and when somebody
// who may ends it, with its streams.
func TestSessionsEnd(t *testing.T) {
	g := New(t, Locked)
	g.ConnectAs(Bearer(second(g.Principal("agent"))), "a").next()
	_, token := g.Principal("admin", auth.Admin)
	a := g.signer("ann", "a long word and another")
	b := *a
	resp, _ := b.call("POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	b.session = cookie(resp, SessionName)
	follow := func(x *authenticator) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/api/conversations/a/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Cookie", x.session)
		stream, err := g.Client.Do(req)
		if err != nil || stream.StatusCode != 200 {
			t.Fatal(stream, err)
		}
		return stream
	}
	ended := func(stream *http.Response) {
		t.Helper()
		defer stream.Body.Close()
		if _, err := sse.NewReader(stream.Body).Next(); err == nil {
			t.Error("the stream goes on")
		}
	}
	var list struct {
		Sessions []struct {
			ID, Device, Address string
			Current             bool
		}
	}
	if err := json.Unmarshal([]byte(a.expect(200, "GET", "/api/me/sessions", "")), &list); err != nil || len(list.Sessions) != 2 || !list.Sessions[1].Current || list.Sessions[0].Device != "Test Browser" || list.Sessions[0].Address != "127.0.0.1" {
		t.Fatal(list, err)
	}
	stranger := g.signer("ben", "a long word and another")
	stranger.expect(404, "DELETE", "/api/me/sessions/"+list.Sessions[0].ID, "")
	stream := follow(&b)
	a.expect(204, "DELETE", "/api/me/sessions/"+list.Sessions[0].ID, "")
	ended(stream)
	b.expect(401, "GET", "/api/me", "")
	if got := a.expect(200, "GET", "/api/me", ""); !strings.Contains(got, `"name":"ann"`) {
		t.Error(got)
	}
	resp, _ = b.call("POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	b.session = cookie(resp, SessionName)
	a.expect(204, "DELETE", "/api/me/sessions", "")
	b.expect(401, "GET", "/api/me", "")

	// Administrators.
	var users struct {
		Users []struct{ ID, Name string }
	}
	g.ask(token, "GET", "/api/admin/users", "", &users)
	ann := "/api/admin/users/" + users.Users[1].ID
	if users.Users[1].Name != "ann" {
		t.Fatal(users)
	}
	admin := func(status int, method, path, body string) string {
		t.Helper()
		resp, answer := g.request(method, path, token, body)
		if resp.StatusCode != status {
			t.Errorf("%s %s: %s %s, want %d", method, path, resp.Status, answer, status)
		}
		return answer
	}
	stream = follow(a)
	admin(204, "DELETE", ann+"/sessions", "")
	ended(stream)
	for _, x := range []struct{ method, path, body string }{
		{"GET", "", ""}, {"PATCH", "", "{}"}, {"DELETE", "", ""}, {"POST", "/reset", ""}, {"DELETE", "/sessions", ""}, {"DELETE", "/sessions/x", ""},
	} {
		admin(404, x.method, "/api/admin/users/x"+x.path, x.body)
	}
	admin(409, "PATCH", ann, `{"name":"ben"}`)
	admin(403, "PATCH", ann, `{"role":"owner"}`)
	resp, _ = a.call("POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	a.session = cookie(resp, SessionName)
	if got := admin(200, "PATCH", ann, `{"role":"leader","disabled":true}`); !strings.Contains(got, `"roles":["leader"]`) || !strings.Contains(got, `"disabled":true`) || !strings.Contains(got, `"sessions":[]`) {
		t.Error(got)
	}
	a.expect(401, "GET", "/api/me", "")
	a.expect(403, "POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	admin(200, "PATCH", ann, `{"disabled":false}`)
	a.expect(401, "GET", "/api/me", "") // the old session stays ended

	// A reset takes all that was before.
	var reset struct{ URL string }
	if err := json.Unmarshal([]byte(admin(201, "POST", ann+"/reset", "")), &reset); err != nil {
		t.Fatal(err)
	}
	a.expect(200, "POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	_, link, _ := strings.Cut(reset.URL, "#")
	resp, body := a.call("POST", "/api/sign-in/link", fmt.Sprintf(`{"link":%q}`, link))
	if resp.StatusCode != 200 || !strings.Contains(body, `"has_password":false`) || !strings.Contains(body, `"passkeys":0`) {
		t.Error(resp.Status, body)
	}
	a.session = cookie(resp, SessionName)
	a.expect(401, "POST", "/api/sign-in/password", `{"name":"ann","password":"a long word and another"}`)
	a.expect(404, "POST", "/api/sign-in/link", fmt.Sprintf(`{"link":%q}`, link))
	// Then the only passkey is the last way in.
	ceremony, challenge, rpID := a.challenge("/api/me/passkey-options")
	var key struct{ ID string }
	if err := json.Unmarshal([]byte(a.expect(201, "POST", "/api/me/passkeys", `{"passkey":`+a.register(challenge, rpID)+`}`, ceremony)), &key); err != nil {
		t.Fatal(err)
	}
	a.expect(409, "DELETE", "/api/me/passkeys/"+key.ID, "")
	a.expect(204, "PATCH", "/api/me", `{"name":"anna"}`)
	a.expect(204, "DELETE", "/api/session", "")
	a.expect(401, "GET", "/api/me", "")
	admin(204, "DELETE", ann, "")
	for _, record := range g.audited() {
		if strings.Contains(record, "a long word") || strings.Contains(record, link) {
			t.Error(record)
		}
	}
}

// audited are the details of all records of the audit log.
func (g *Gateway) audited() (all []string) {
	g.t.Helper()
	records, err := g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Limit: 500})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, r := range records {
		all = append(all, r.Detail)
	}
	return all
}

// TestCookiesOfOtherSites: no route that changes anything takes a cookie from a page of another site.
func TestCookiesOfOtherSites(t *testing.T) {
	const site = "https://app.example"
	g := New(t, Locked, func(c *config.Config) { c.Server.CORSOrigins = []string{site} })
	a := g.signer("ann", "a long word and another", auth.Owner)
	for _, pattern := range g.Routes() {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok || method == http.MethodGet {
			continue
		}
		rule := auth.Routes[pattern]
		path = strings.NewReplacer("{", "", "}", "").Replace(path)
		for origin, status := range map[string]int{"https://evil.example": 403, site: 401} {
			if rule.Level == auth.Anybody && origin == site || strings.HasPrefix(path, "/mcp") {
				continue
			}
			for _, where := range []string{"cross-site", "same-site"} {
				resp, body := g.request(method, path, "", "{}", "Cookie", a.session, "Origin", origin, "Sec-Fetch-Site", where)
				if resp.StatusCode != status {
					t.Errorf("%s from %s, %s: %s %s", pattern, origin, where, resp.Status, body)
				}
			}
		}
	}
}

// TestSecureCookies: over TLS cookies have the prefix that ties them to the host, and others count for
// nothing.
func TestSecureCookies(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.WebAdmin.BaseURL = "https://coven.example" })
	a := g.authenticator()
	resp, body := a.call("POST", "/api/invites/accept", fmt.Sprintf(`{"invite":%q,"display_name":"A","name":"ann","password":"a long word and another"}`, g.invite(auth.Member)))
	c := resp.Cookies()
	if len(c) != 1 || c[0].Name != "__Host-"+SessionName || !c[0].Secure || !c[0].HttpOnly || c[0].Path != "/" || c[0].Domain != "" || c[0].SameSite != http.SameSiteLaxMode {
		t.Fatal(body, c)
	}
	a.session = c[0].Name + "=" + c[0].Value
	a.expect(200, "GET", "/api/me", "")
	a.session = SessionName + "=" + c[0].Value
	a.expect(401, "GET", "/api/me", "")
}
