package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A front is an API without conversations, behind real HTTP.
type front struct {
	*API
	url string
	log log
}

// log is a log whose lines can be waited for: they are written behind the answer.
type log chan string

// Write takes a line.
func (l log) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func (l log) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is logged")
		return ""
	}
}

// A ruled is a route and who may use it.
type ruled struct {
	pattern string
	handle  handler
	rule    auth.Rule
}

var (
	anybody = auth.Rule{Level: auth.Anybody}
	caller  = auth.Rule{Level: auth.AnyCaller}
)

func newFront(t *testing.T, routes ...ruled) *front {
	f := &front{log: make(log, 100)}
	reg := prometheus.NewRegistry()
	f.API = New(Options{
		Identity: &auth.Service{}, // an open gateway
		Logger:   slog.New(slog.NewJSONHandler(f.log, nil)), Registerer: reg, RequestBody: 100,
		Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), MetricsPath: "/metrics",
		BaseURL: "https://Coven.example:8443", Pages: http.NotFoundHandler(),
		Admit: func(r *http.Request, rule auth.Rule) (context.Context, func(), error) {
			if rule.Level == auth.Anybody {
				return r.Context(), func() {}, nil
			}
			if r.Header.Get("X-Stranger") != "" {
				return nil, nil, fault.New(fault.Unauthenticated, "who are you?")
			}
			return auth.With(r.Context(), auth.Anonymous), func() {}, nil
		},
	})
	for _, r := range routes {
		f.add(route{r.pattern, r.handle}, r.rule)
	}
	srv := httptest.NewServer(f.Handler())
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

// do sends a request and returns the answer. Keys of header are those of http.Header, and "Host".
func (f *front) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// TestErrors: every error leaves with its status and a text for the caller; the cause is for the log.
func TestErrors(t *testing.T) {
	secret := errors.New("the disk at /secret is on fire")
	for _, c := range []struct {
		name   string
		err    error
		status int
		body   string
	}{
		{"plain", secret, 500, `{"code":"internal","error":"internal server error"}`},
		{"wrapped", fmt.Errorf("while cooking: %w", fault.Wrap(secret, fault.NotFound, "no soup")), 404, `{"code":"not_found","error":"no soup"}`},
		{"invalid", fault.New(fault.Invalid, "a <b> & \"c\""), 400, ""},
		{"unauthenticated", fault.New(fault.Unauthenticated, "x"), 401, `{"code":"unauthenticated","error":"x"}`},
		{"forbidden", fault.New(fault.Forbidden, "x"), 403, `{"code":"permission_denied","error":"x"}`},
		{"exists", fault.New(fault.Exists, "x"), 409, `{"code":"already_exists","error":"x"}`},
		{"conflict", fault.New(fault.Conflict, "x"), 409, `{"code":"conflict","error":"x"}`},
		{"lost", fault.New(fault.PositionLost, "x"), 410, `{"code":"position_lost","error":"x"}`},
		{"large", fault.New(fault.TooLarge, "x"), 413, `{"code":"too_large","error":"x"}`},
		{"limited", fault.New(fault.Limited, "x"), 429, `{"code":"rate_limited","error":"x"}`},
		{"unavailable", fault.New(fault.Unavailable, "x"), 503, `{"code":"unavailable","error":"x"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFront(t, ruled{"GET /api/test", func(http.ResponseWriter, *http.Request) error { return c.err }, caller})
			resp, body := f.do(t, "GET", "/api/test", "")
			if resp.StatusCode != c.status || (c.body != "" && body != c.body+"\n") {
				t.Errorf("got %d %swant %d %s", resp.StatusCode, body, c.status, c.body)
			}
			var e struct{ Error string }
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error != fault.Message(c.err) {
				t.Errorf("the text is %q (%v), want %q", e.Error, err, fault.Message(c.err))
			}
			if got := resp.Header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type is %q", got)
			}
			if got := resp.Header.Get("Retry-After") != ""; got != (c.status == 503 || c.status == 429) {
				t.Errorf("Retry-After: %v", got)
			}
			if strings.Contains(body, "secret") {
				t.Errorf("the caller reads %s", body)
			}
			if line := f.log.next(t); errors.Is(c.err, secret) && !strings.Contains(line, secret.Error()) {
				t.Errorf("the log does not have the cause: %s", line)
			}
		})
	}
}

// TestServe: what every answer has, whatever the handler does, and one line in the log.
func TestServe(t *testing.T) {
	f := newFront(t,
		ruled{"GET /api/fine/{id}", func(w http.ResponseWriter, r *http.Request) error {
			p, err := auth.From(r.Context())
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusCreated, fields{"id": r.PathValue("id"), "who": p.ID})
		}, caller},
		ruled{"GET /api/silent", func(http.ResponseWriter, *http.Request) error { return nil }, anybody},
		ruled{"GET /api/panics", func(http.ResponseWriter, *http.Request) error { panic("at the disco") }, caller},
		ruled{"GET /api/late", func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "begun")
			return errors.New("too late for a status")
		}, caller},
		ruled{"POST /api/body", func(w http.ResponseWriter, r *http.Request) error {
			var v any
			if err := decode(r, &v); err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, v)
		}, caller},
	)
	for i, c := range []struct {
		method, path, body string
		header             []string
		status             int
		answer             string // a part of it
		route, principal   string
		level, logged      string
	}{
		{"GET", "/api/fine/a%2Fb%20c", "", nil, 201, `{"id":"a/b c","who":"anonymous"}`, "GET /api/fine/{id}", "anonymous", "INFO", ""},
		{"HEAD", "/api/fine/x", "", nil, 201, ``, "GET /api/fine/{id}", "anonymous", "INFO", ""},
		{"GET", "/api/fine/x", "", []string{"X-Stranger", "1"}, 401, `"who are you?"`, "GET /api/fine/{id}", "", "INFO", "who are you?"},
		{"GET", "/api/silent", "", []string{"X-Stranger", "1"}, 200, "", "GET /api/silent", "", "INFO", ""},
		{"GET", "/api/panics", "", nil, 500, `{"code":"internal","error":"internal server error"}`, "GET /api/panics", "anonymous", "ERROR", "at the disco"},
		{"GET", "/api/late", "", nil, 200, "begun", "GET /api/late", "anonymous", "ERROR", "too late for a status"},
		{"POST", "/api/body", `{"a":[1]}`, []string{"Content-Type", "text/plain"}, 200, `{"a":[1]}`, "POST /api/body", "anonymous", "INFO", ""},
		{"POST", "/api/body", `{"a":`, nil, 400, `"invalid JSON body"`, "POST /api/body", "anonymous", "INFO", "unexpected EOF"},
		{"POST", "/api/body", ``, nil, 400, `"invalid JSON body"`, "POST /api/body", "anonymous", "INFO", "EOF"},
		{"POST", "/api/body", `1 2`, nil, 400, `"invalid JSON body"`, "POST /api/body", "anonymous", "INFO", ""},
		{"POST", "/api/body", `"` + strings.Repeat("x", 200) + `"`, nil, 413, `{"code":"too_large","error":"the request body must not be larger than 100 bytes"}`, "POST /api/body", "anonymous", "INFO", "too large"},
		{"DELETE", "/api/body", "", nil, 405, `{"code":"method_not_allowed","error":"method not allowed; this path has POST"}`, "unknown", "", "INFO", ""},
		{"GET", "/api/nothing", "", nil, 404, `{"code":"not_found","error":"unknown endpoint"}`, "unknown", "", "INFO", ""},
		{"GET", "/api", "", nil, 404, `"unknown endpoint"`, "unknown", "", "INFO", ""},
		{"POST", "/api//body", "1", nil, 404, `"unknown endpoint"`, "unknown", "", "INFO", ""},
		{"POST", "/api/x/../body", "1", nil, 404, `"unknown endpoint"`, "unknown", "", "INFO", ""},
		{"GET", "/api/agents/x/other", "", nil, 400, `"invalid path: must end with /history or /send"`, "unknown", "", "INFO", ""},
		{"GET", "/api/agents/x/send", "", nil, 405, `this path has POST`, "unknown", "", "INFO", ""},
		{"GET", "/health", "", []string{"X-Stranger", "1"}, 200, "OK", "/health", "", "INFO", ""},
		{"PUT", "/health", "", nil, 200, "OK", "/health", "", "INFO", ""},
		{"GET", "/elsewhere", "", nil, 404, "404 page not found", "page", "", "INFO", ""},
	} {
		resp, body := f.do(t, c.method, c.path, c.body, append([]string{"X-Request-Id", fmt.Sprintf("test-%d", i)}, c.header...)...)
		if resp.StatusCode != c.status || !strings.Contains(body, c.answer) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, resp.StatusCode, body, c.status, c.answer)
		}
		for name, want := range map[string]string{
			"X-Request-Id": fmt.Sprintf("test-%d", i), "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s %s: %s is %q, want %q", c.method, c.path, name, got, want)
			}
		}
		if c.status == 405 && resp.Header.Get("Allow") != "POST" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, resp.Header.Get("Allow"))
		}
		line := f.log.next(t)
		var l struct {
			Level, Method, Route, Principal, Error string
			Status                                 int
			RequestID                              string `json:"request_id"`
			Bytes                                  int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Method != c.method || l.Route != c.route || l.Principal != c.principal || l.Status != c.status || l.Level != c.level ||
			l.RequestID != fmt.Sprintf("test-%d", i) || !strings.Contains(l.Error, c.logged) || (c.method != "HEAD" && l.Bytes != len(body)) {
			t.Errorf("%s %s is logged as %s", c.method, c.path, line)
		}
	}
	if n := len(f.log); n > 0 {
		t.Errorf("%d lines too many are logged", n)
	}
	_, metrics := f.do(t, "GET", "/metrics", "")
	for _, want := range []string{
		`coven_http_requests_total{code="400",route="POST /api/body"} 3` + "\n",
		`coven_http_requests_total{code="201",route="GET /api/fine/{id}"} 2` + "\n",
		"coven_http_seconds_count 21\n",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics does not say %s", want)
		}
	}
	if resp, _ := f.do(t, "GET", "/metrics", "", "X-Stranger", "1"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("/metrics for a stranger: %d", resp.StatusCode)
	}
}

// TestNames: a page reaches the gateway under its own names only, and posts to it from nowhere else.
func TestNames(t *testing.T) {
	f := newFront(t, ruled{"/api/test", func(w http.ResponseWriter, _ *http.Request) error { return text(w, 200, "in") }, caller})
	for _, c := range []struct {
		method string
		header []string
		status int
	}{
		{"GET", []string{"Host", "localhost"}, 200},
		{"GET", []string{"Host", "LOCALHOST:1"}, 200},
		{"GET", []string{"Host", "a.localhost"}, 200},
		{"GET", []string{"Host", "127.1.2.3:80"}, 200},
		{"GET", []string{"Host", "[::1]"}, 200},
		{"GET", []string{"Host", "coven.example"}, 200},
		{"GET", []string{"Host", "COVEN.example:1"}, 200},
		{"GET", []string{"Host", "evil.example"}, 403},
		{"GET", []string{"Host", "coven.example.evil.example"}, 403},
		{"GET", []string{"Host", "localhost.evil.example"}, 403},
		{"GET", []string{"Host", "192.0.2.1"}, 403},
		{"GET", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 200}, // reads are for the browser to guard
		{"POST", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"POST", []string{"Sec-Fetch-Site", "none"}, 200},
		{"POST", []string{"Origin", "https://evil.example"}, 403},
		{"POST", []string{"Origin", "null"}, 403},
		{"POST", []string{"Origin", "https://Coven.example:8443"}, 200}, // a proxy in front has changed Host
		{"POST", nil, 200},
	} {
		if resp, body := f.do(t, c.method, "/api/test", "", c.header...); resp.StatusCode != c.status {
			t.Errorf("%s %v: %d %s, want %d", c.method, c.header, resp.StatusCode, body, c.status)
		}
	}
	if _, body := f.do(t, "GET", "/api/test", "", "Host", "evil.example"); !strings.Contains(body, `not known as \"evil.example\"`) {
		t.Errorf("the refusal does not say why: %s", body)
	}
}

// echo answers MCP clients.
type echo struct{}

func (echo) Serve(w http.ResponseWriter, r *http.Request) error {
	return text(w, 200, r.PathValue("token"))
}

// TestTokensAreNotLogged: a token in a path is not in the log, whatever becomes of the request.
func TestTokensAreNotLogged(t *testing.T) {
	f := newFront(t)
	f.MCP = echo{}
	for _, c := range []struct {
		method, path string
		status       int
		header       []string
	}{
		{"POST", "/mcp/sesame", 200, nil},
		{"POST", "/mcp/sesame/", 200, nil},
		{"POST", "/mcp/sesam%65", 200, nil},
		{"POST", "/mcp/sesame", 401, []string{"X-Stranger", "1"}},
		{"GET", "/mcp/sesame", 403, []string{"Origin", "https://evil.example"}},
		{"PUT", "/mcp/sesame", 405, nil},
		{"POST", "/mcp/sesame/x", 404, nil},
		{"POST", "/mcp//sesame", 404, nil},
		{"POST", "/mcp/sesame?x=" + strings.Repeat("x", 501), 400, nil},
	} {
		resp, body := f.do(t, c.method, c.path, "", c.header...)
		if line := f.log.next(t); resp.StatusCode != c.status || strings.Contains(line, "sesam") {
			t.Errorf("%s %s: %d %s; the log has %s", c.method, c.path, resp.StatusCode, body, line)
		}
	}
}

// TestRoutesNeedAccess: nobody forgets to say who may use a route.
func TestRoutesNeedAccess(t *testing.T) {
	f := newFront(t)
	defer func() {
		if p := recover(); p != "no entry in the authorization table: GET /api/forgotten" {
			t.Errorf("it panics with %v", p)
		}
	}()
	f.add(route{"GET /api/forgotten", f.health}, auth.Routes["GET /api/forgotten"])
}

// TestAttachmentNames: a name that an agent made up is a file name and nothing else.
func TestAttachmentNames(t *testing.T) {
	for name, want := range map[string]string{
		"a b.txt":            `attachment; filename="a b.txt"`,
		"":                   `attachment; filename="file"`,
		"..":                 `attachment; filename="file"`,
		"../../etc/passwd":   `attachment; filename=".._.._etc_passwd"`,
		`c:\x.exe`:           `attachment; filename="c:_x.exe"`,
		"a\r\nX-Evil: 1.txt": `attachment; filename="a__X-Evil: 1.txt"`,
		`say "hi".txt`:       `attachment; filename="say _hi_.txt"; filename*=UTF-8''say%20%22hi%22.txt`,
		"100%41.txt":         `attachment; filename="100_41.txt"; filename*=UTF-8''100%2541.txt`,
		"naïve +1.txt":       `attachment; filename="na_ve +1.txt"; filename*=UTF-8''na%C3%AFve%20%2B1.txt`,
		"\u202etxt.exe":      `attachment; filename="_txt.exe"`,
		"\xff.txt":           `attachment; filename="_.txt"`,
	} {
		if got := attachment(name); got != want {
			t.Errorf("%q: %s\nwant %s", name, got, want)
		}
	}
}

// TestCursors: a cursor comes back as what it was, anything else is refused.
func TestCursors(t *testing.T) {
	for _, n := range []int64{0, 1, 1 << 62} {
		if got, err := fromCursor(toCursor(n)); err != nil || got != n {
			t.Errorf("%d came back as %d: %v", n, got, err)
		}
	}
	for _, s := range []string{"x", "LTE", "MTIz=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk", "MjAyNi0wMS0wMQ"} {
		if _, err := fromCursor(s); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%q: %v", s, err)
		}
	}
}
