// Package api is the HTTP front door: JSON and server-sent events, one file per resource.
//
// Handlers decode, call the conversation service once and render. wire.go alone knows the form of
// an event; errors become responses in one place.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/sse"
	"coven-gateway/internal/tracing"
	"coven-gateway/internal/upstream"
)

// Options are what the API needs. All fields but Metrics, BaseURL and Tracer are required.
type Options struct {
	Conversations *conversation.Service
	Agents        Agents
	Files         Files
	Tools         *packs.Registry
	Records       Records
	Disk          func() error // why nothing can be stored, or nil
	MCP           MCP
	Servers       *upstream.Service // MCP servers whose tools the gateway offers
	Logger        *slog.Logger
	Registerer    prometheus.Registerer
	Metrics       http.Handler // served at MetricsPath; nil for none
	MetricsPath   string
	Version       string // of the gateway
	Started       time.Time
	Settings      []config.Setting // what the gateway was configured with
	Pages         http.Handler     // everything outside of the API
	RequestBody   int64            // bytes a request may have
	BaseURL       string           // where people reach the gateway; its host is accepted besides loopback
	AnyHost       bool             // every host is accepted
	Identity      *auth.Service
	CORSOrigins   []string // web sites whose pages may call the API
	// Admit authenticates a request and authorizes it. The context that it returns replaces the
	// request's; leave is called when the request is done.
	Admit func(*http.Request, auth.Rule) (ctx context.Context, leave func(), err error)
	// EnterStream counts a stream of the caller in ctx, or refuses it; leave is called when it has ended.
	EnterStream func(ctx context.Context) (leave func(), err error)
	Stopping    <-chan struct{} // closed when streams have to end
	Replaced    func() bool     // whether they end because another process takes over: readers may come back at once
	Tracer      *tracing.Tracer // nil to trace nothing
}

// Agents tells who is connected.
type Agents interface {
	// List returns the connected agents in the order of their ids. The slice is the caller's.
	List() []Agent
	// Len is how many there are.
	Len() int
}

// Files opens stored content.
type Files interface {
	// Open returns the content with a SHA-256 in hex, or a NotFound fault. The caller closes it.
	Open(sha256 string) (io.ReadSeekCloser, error)
}

// MCP answers MCP clients.
type MCP interface {
	// Serve answers a request whose context carries the caller.
	Serve(w http.ResponseWriter, r *http.Request) error
}

// API serves the routes.
type API struct {
	Options
	mux      *http.ServeMux
	unknown  http.Handler // what no route serves
	page     http.Handler // everything outside of the API
	host     string       // accepted besides loopback; may be empty
	origins  *http.CrossOriginProtection
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	patterns []string
	docs     documentation
}

// handler is a route's function. An error becomes the response.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes is the whole API. Who may use a route is in [auth.Routes]; one that is not there does not
// start.
func (a *API) routes() []route {
	return []route{
		{"/health", a.health},
		{"/health/ready", a.ready},
		{"GET /api/health/stream", a.healthStream},
		{"GET /api/openapi.json", a.openAPI},
		{"GET /api/docs", a.docsPage},

		{"POST /api/send", a.send},
		{"POST /api/agents/{id}/send", a.sendToAgent},
		{"GET /api/agents", a.listAgents},
		{"GET /api/agents/{id}/history", a.history},
		{"POST /api/agents/{id}/inject", a.inject},

		{"GET /api/conversations/{agent}/events", a.conversationEvents},
		{"GET /api/turns", a.listTurns},
		{"GET /api/turns/{id}", a.turn},
		{"GET /api/turns/{id}/events", a.turnEvents},
		{"POST /api/turns/{id}/cancel", a.cancelTurn},

		{"GET /api/approvals", a.listApprovals},
		{"POST /api/tools/approve", a.approveTool},

		{"GET /api/tools", a.listTools},
		{"POST /api/tools/{name}/call", a.callTool},
		{"GET /api/packs", a.listPacks},
		{"GET /api/agents/{id}/log", a.records(LogRecords)},
		{"GET /api/agents/{id}/todos", a.records(TodoRecords)},
		{"GET /api/agents/{id}/mail", a.records(MailRecords)},
		{"GET /api/agents/{id}/notes", a.records(NoteRecords)},
		{"GET /api/board", a.board},
		{"GET /api/board/{id}", a.boardThread},

		{"POST /mcp", a.mcp},
		{"GET /mcp", a.mcp},
		{"DELETE /mcp", a.mcp},
		{"POST /mcp/{token}", a.mcp},
		{"GET /mcp/{token}", a.mcp},
		{"DELETE /mcp/{token}", a.mcp},

		{"GET " + resourceDocument, a.protectedResource},
		{"GET " + serverDocument, a.authorizationServer},
		{"GET /oauth/authorize", a.authorize},
		{"POST /oauth/register", a.inOAuth(a.registerClient)},
		{"POST /oauth/token", a.inOAuth(a.oauthTokens)},
		{"POST /oauth/revoke", a.inOAuth(a.forgetToken)},
		{"GET /api/oauth/consent", a.consentQuestion},
		{"POST /api/oauth/consent", a.consent},
		{"GET /api/oauth/grants", a.listGrants},
		{"DELETE /api/oauth/grants/{id}", a.revokeGrant},
		{"GET /api/admin/oauth/grants", a.listAllGrants},
		{"DELETE /api/admin/oauth/grants/{id}", a.revokeAnyGrant},

		{"GET /api/questions", a.listQuestions},
		{"POST /api/questions/answer", a.answerQuestion},

		{"GET /api/search", a.search},

		{"GET /api/threads", a.listThreads},
		{"GET /api/threads/{id}", a.thread},
		{"PATCH /api/threads/{id}", a.editThread},
		{"DELETE /api/threads/{id}", a.deleteThread},
		{"GET /api/threads/{id}/export", a.exportThread},
		{"GET /api/threads/{id}/messages", a.threadMessages},
		{"GET /api/threads/{id}/turns", a.threadTurns},
		{"GET /api/threads/{id}/usage", a.threadUsage},
		{"GET /api/threads/{id}/files", a.threadFiles},
		{"GET /api/files/{id}", a.file},
		{"GET /api/stats/usage", a.usage},

		{"GET /api/bindings", a.listBindings},
		{"POST /api/bindings", a.bind},
		{"DELETE /api/bindings", a.unbind},

		{"POST /api/link/request", a.requestLink},
		{"GET /api/link/status/{code}", a.linkStatus},

		{"POST /api/invites/accept", a.acceptInvite},

		{"GET /api/sign-in", a.signInState},
		{"POST /api/sign-in/password", a.signInPassword},
		{"POST /api/sign-in/passkey-options", a.beginSignIn},
		{"POST /api/sign-in/passkey", a.signInPasskey},
		{"POST /api/sign-in/link", a.signInLink},

		{"GET /api/me", a.me},
		{"PATCH /api/me", a.editMe},
		{"PUT /api/me/password", a.setPassword},
		{"GET /api/me/passkeys", a.listPasskeys},
		{"POST /api/me/passkey-options", a.beginPasskey},
		{"POST /api/me/passkeys", a.addPasskey},
		{"PATCH /api/me/passkeys/{id}", a.renamePasskey},
		{"DELETE /api/me/passkeys/{id}", a.removePasskey},
		{"GET /api/me/sessions", a.listSessions},
		{"DELETE /api/me/sessions", a.endSessions},
		{"DELETE /api/me/sessions/{id}", a.endSessions},
		{"POST /api/session", a.logIn},
		{"POST /api/session/reauthenticate", a.reauthenticate},
		{"DELETE /api/session", a.logOut},

		{"GET /api/admin/principals", a.listPrincipals},
		{"POST /api/admin/principals", a.createPrincipal},
		{"GET /api/admin/principals/{id}", a.principal},
		{"PATCH /api/admin/principals/{id}", a.renamePrincipal},
		{"DELETE /api/admin/principals/{id}", a.deletePrincipal},
		{"POST /api/admin/principals/{id}/approve", a.approvePrincipal},
		{"POST /api/admin/principals/{id}/revoke", a.revokePrincipal},
		{"PUT /api/admin/principals/{id}/roles/{role}", a.setRole},
		{"DELETE /api/admin/principals/{id}/roles/{role}", a.setRole},
		{"PUT /api/admin/principals/{id}/capabilities/{capability}", a.setCapability},
		{"DELETE /api/admin/principals/{id}/capabilities/{capability}", a.setCapability},
		{"GET /api/admin/principals/{id}/keys", a.listKeys},
		{"POST /api/admin/principals/{id}/keys", a.addKey},
		{"DELETE /api/admin/principals/{id}/keys/{fingerprint}", a.removeKey},

		{"GET /api/admin/users", a.listUsers},
		{"GET /api/admin/users/{id}", a.user},
		{"PATCH /api/admin/users/{id}", a.editUser},
		{"DELETE /api/admin/users/{id}", a.deleteUser},
		{"POST /api/admin/users/{id}/reset", a.resetUser},
		{"DELETE /api/admin/users/{id}/sessions", a.endUserSessions},
		{"DELETE /api/admin/users/{id}/sessions/{session}", a.endUserSessions},

		{"GET /api/admin/tokens", a.listTokens},
		{"POST /api/admin/tokens", a.createToken},
		{"DELETE /api/admin/tokens/{id}", a.revokeToken},

		{"GET /api/admin/invites", a.listInvites},
		{"POST /api/admin/invites", a.createInvite},
		{"DELETE /api/admin/invites/{id}", a.revokeInvite},

		{"GET /api/admin/agents", a.listOwners},
		{"GET /api/admin/agents/{id}/approval-policy", a.approvalPolicy},
		{"PUT /api/admin/agents/{id}/approval-policy", a.setApprovalPolicy},
		{"POST /api/admin/agents/{id}/transfer", a.transferAgent},
		{"DELETE /api/admin/agents/{id}/ownership", a.releaseAgent},
		{"GET /api/admin/stats", a.stats},

		{"GET /api/admin/secrets", a.listSecrets},
		{"PUT /api/admin/secrets", a.putSecret},
		{"DELETE /api/admin/secrets/{id}", a.deleteSecret},
		{"GET /api/admin/secrets/{id}/value", a.readSecret},
		{"POST /api/admin/secrets/rotate", a.rotateSecrets},

		{"GET /api/admin/mcp/servers", a.listServers},
		{"POST /api/admin/mcp/servers", a.addServer},
		{"GET /api/admin/mcp/servers/{name}", a.server},
		{"PATCH /api/admin/mcp/servers/{name}", a.enableServer},
		{"DELETE /api/admin/mcp/servers/{name}", a.removeServer},
		{"POST /api/admin/mcp/servers/{name}/accept", a.acceptTools},
		{"POST /api/admin/mcp/servers/{name}/test", a.testServer},
		{"GET /api/admin/mcp/servers/{name}/logs", a.serverLogs},

		{"GET /api/admin/link", a.listLinks},
		{"POST /api/admin/link/{code}/approve", a.approveLink},
		{"POST /api/admin/link/{code}/deny", a.denyLink},

		{"GET /api/admin/gateway", a.gateway},

		{"GET /api/admin/audit", a.listAudit},
		{"GET /api/admin/audit/verify", a.verifyAudit},
		{"GET /api/admin/audit/export", a.exportAudit},
	}
}

type route struct {
	pattern string
	handle  handler
}

// New returns the API. It panics when a route has no entry in the authorization table.
func New(o Options) *API {
	a := &API{
		Options: o, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_http_requests_total", Help: "HTTP requests, by route and status."}, []string{"route", "code"}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_http_seconds", Help: "Duration of HTTP requests, streams included.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}),
	}
	o.Registerer.MustRegister(a.requests, a.seconds)
	var err error
	if a.docs, err = describe(o); err != nil {
		panic(fmt.Sprintf("the documentation of the API: %v", err)) // a mistake in its source
	}
	if u, err := url.Parse(o.BaseURL); err == nil && u.Hostname() != "" {
		a.host = strings.ToLower(u.Hostname())
		// A proxy in front may hide from us under which name a page has reached it.
		if err := a.origins.AddTrustedOrigin(u.Scheme + "://" + u.Host); err != nil {
			panic(fmt.Sprintf("base URL %q: %v", o.BaseURL, err)) // the configuration was checked
		}
	}
	for _, origin := range o.CORSOrigins {
		if err := a.origins.AddTrustedOrigin(origin); err != nil {
			panic(fmt.Sprintf("origin %q: %v", origin, err)) // the configuration was checked
		}
	}
	public := auth.Rule{Level: auth.Anybody}
	a.unknown = a.serve("unknown", public, a.noRoute)
	a.page = a.serve("page", public, func(w http.ResponseWriter, r *http.Request) error {
		o.Pages.ServeHTTP(w, r)
		return nil
	})
	for _, r := range a.routes() {
		a.add(r, auth.Routes[r.pattern])
	}
	if o.Metrics != nil {
		a.add(route{"GET " + o.MetricsPath, func(w http.ResponseWriter, r *http.Request) error {
			o.Metrics.ServeHTTP(w, r)
			return nil
		}}, auth.Routes["GET /metrics"])
	}
	return a
}

func (a *API) add(r route, rule auth.Rule) {
	if rule.Level == 0 {
		panic("no entry in the authorization table: " + r.pattern)
	}
	a.mux.Handle(r.pattern, a.serve(r.pattern, rule, r.handle))
	a.patterns = append(a.patterns, r.pattern)
}

// Routes returns the patterns of the routes that are served.
func (a *API) Routes() []string { return slices.Clone(a.patterns) }

// Handler returns the whole front door.
func (a *API) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.crossOrigin(w, r) {
			return
		}
		inAPI := r.URL.Path == "/api" || strings.HasPrefix(r.URL.Path, "/api/") || r.URL.Path == "/mcp" || strings.HasPrefix(r.URL.Path, "/mcp/")
		if strings.HasPrefix(r.URL.Path, "/mcp/") { // some clients end it with a slash
			to := *r.URL
			to.Path, to.RawPath = strings.TrimSuffix(to.Path, "/"), strings.TrimSuffix(to.RawPath, "/")
			r = r.Clone(r.Context())
			r.URL = &to
		}
		r = a.toDocument(r)
		_, pattern := a.mux.Handler(r)
		switch p := r.URL.EscapedPath(); {
		case inAPI && p != path.Clean(p):
			a.unknown.ServeHTTP(w, r) // the mux would redirect, and clients would repeat a POST as a GET
		case pattern != "":
			a.mux.ServeHTTP(w, r)
		case inAPI:
			a.unknown.ServeHTTP(w, r)
		default:
			a.page.ServeHTTP(w, r)
		}
	})
}

// noRoute answers what no route serves.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) error {
	// The mux knows which methods the path has; it says so in the Allow header.
	probe := &headerOnly{header: http.Header{}}
	a.mux.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		return fault.New(fault.MethodDenied, "method not allowed; this path has %s", allow)
	}
	if strings.HasPrefix(r.URL.Path, "/api/agents/") { // as existing clients know it
		return fault.New(fault.Invalid, "invalid path: must end with /history or /send")
	}
	return fault.New(fault.NotFound, "unknown endpoint")
}

// headerOnly is a response that nobody sees.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }

// serve runs a handler: it identifies the caller, bounds the body and the time that writing takes,
// turns an error or a panic into a response, counts and logs one line.
func (a *API) serve(route string, rule auth.Rule, handle handler) http.Handler {
	parts := pathParts(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := RequestID(r.Header.Get("X-Request-Id"))
		rw := &response{ResponseWriter: w}
		h := rw.Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		extendDeadline(w)
		body := timeBody(w, r)
		var principal auth.Principal
		ctx, note := tracing.WithNote(r.Context())
		span := quiet
		if !a.untraced(route) {
			ctx, span = a.Tracer.Start(a.Tracer.Extract(ctx, propagation.HeaderCarrier(r.Header)), route, trace.SpanKindServer)
		}
		r = r.WithContext(ctx)
		err := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), fault.Internal, "internal server error")
				}
			}()
			if err := a.checkOrigin(r); err != nil {
				return err
			}
			ctx, leave, err := a.Admit(r, rule)
			if err != nil {
				return err
			}
			defer leave()
			principal, _ = auth.From(ctx) // there is none where anybody may
			r = r.WithContext(ctx)
			if err := checkParameters(r, parts); err != nil {
				return err
			}
			// w itself, so that the server closes the connection behind a body that is too large.
			r.Body = http.MaxBytesReader(w, body, a.RequestBody)
			return handle(rw, r)
		}()
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			err = fault.Wrap(err, fault.TooLarge, "the request body must not be larger than %d bytes", tooLarge.Limit)
		}
		if err != nil {
			a.challengeMCP(rw, r, err)
			writeError(rw, err)
		}
		status := rw.status
		switch {
		case err != nil && fault.CodeOf(err) == fault.Gone:
			status = fault.HTTPStatus(err)
		case status == 0:
			status = http.StatusOK // what the server answers for a handler that said nothing
		}
		a.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
		a.seconds.Observe(time.Since(start).Seconds())
		level := slog.LevelInfo
		if err != nil && fault.CodeOf(err) == fault.Internal {
			level = slog.LevelError
		}
		path := r.URL.Path
		switch { // codes and invites are as good as a token for a while
		case strings.Contains(route, "{code}"):
			path = route
		case strings.HasPrefix(path, "/mcp/"):
			path = "/mcp/{token}"
		case strings.HasPrefix(path, "/invite/"):
			path = "/invite/{token}"
		}
		attrs := []slog.Attr{
			slog.String("method", r.Method), slog.String("route", route), slog.String("path", path), slog.Int("status", status),
			slog.Int64("bytes", rw.bytes), slog.Duration("duration", time.Since(start)), slog.String("request_id", id),
			slog.String("principal", principal.ID), slog.String("peer", r.RemoteAddr),
		}
		if turn := note.Turn(); turn != "" {
			attrs = append(attrs, slog.String("turn_id", turn))
		}
		if id := tracing.TraceID(ctx); id != "" {
			attrs = append(attrs, slog.String("trace_id", id))
		}
		if err != nil {
			attrs = append(attrs, slog.Any("error", err))
		}
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String("http.request.method", r.Method), attribute.String("http.route", route), attribute.Int("http.response.status_code", status),
				attribute.String("coven.request_id", id), tracing.PrincipalID.String(principal.ID), tracing.TurnID.String(note.Turn()),
			)
			if status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
		}
		span.End()
		a.Logger.LogAttrs(r.Context(), level, "http", attrs...)
	})
}

// quiet is a span that records nothing.
var quiet = trace.SpanFromContext(context.Background())

// untraced reports whether nobody wants to see the traces of a route: those who watch the gateway ask all
// the time.
func (a *API) untraced(route string) bool {
	switch route {
	case "GET " + a.MetricsPath, "/health", "/health/ready", "GET /api/health/stream", "page", "unknown":
		return true
	}
	return false
}

// extendDeadline gives a response its time to be written, from now on. Not every connection has
// deadlines.
func extendDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sse.WriteTimeout))
}

// checkOrigin keeps other web sites out of a gateway that trusts its host's loopback addresses: a
// page must not reach it under a name of its own, nor post to it from elsewhere. Where credentials
// are asked for, the name makes no difference.
func (a *API) checkOrigin(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	ip := net.ParseIP(host)
	known := a.AnyHost || host == "localhost" || strings.HasSuffix(host, ".localhost") || (ip != nil && ip.IsLoopback())
	if !known && (a.host == "" || host != a.host) {
		return fault.New(fault.Forbidden, "this gateway is not known as %q; set webadmin.base_url to the address people use", host)
	}
	if err := a.origins.Check(r); err != nil {
		return fault.Wrap(err, fault.Forbidden, "cross-origin request refused")
	}
	return nil
}

// bodyTimeout is how long a request's body may take.
const bodyTimeout = time.Minute

// timedBody ends the deadline of a body at its end: streams learn that the client has left by reading on.
// One that fails keeps it, because the server reads what is left of a body before it answers.
type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

// timeBody gives the body of a request its deadline, also where nobody reads it but the server.
func timeBody(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	rc := http.NewResponseController(w)
	if r.ContentLength != 0 {
		_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every connection has deadlines
	}
	return &timedBody{r.Body, rc}
}

// Read reads a part of the body.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// response remembers what was sent.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap lets http.ResponseController reach deadlines and flushing.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the status.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// writeError answers with an error, unless the answer has begun.
func writeError(w *response, err error) {
	if w.status != 0 {
		return
	}
	body := map[string]any{"error": fault.Message(err), "code": fault.CodeOf(err)}
	switch fault.CodeOf(err) {
	case fault.Unavailable:
		w.Header().Set("Retry-After", "1")
	case fault.Limited:
		if f, ok := errors.AsType[*fault.Error](err); ok {
			w.Header().Set("Retry-After", strconv.Itoa(retryAfter(f.After)))
		}
	case fault.Unauthenticated:
		if w.Header().Get("WWW-Authenticate") == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
	}
	_ = writeJSON(w, fault.HTTPStatus(err), body) // the client may be gone
}

// writeJSON answers with a JSON document.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	extendDeadline(w) // the answer may have taken its time
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		return clientGone(err)
	}
	return nil
}

// clientGone marks a failed write as what it is.
func clientGone(err error) error {
	return fault.Wrap(err, fault.Gone, "the client closed the connection")
}

// RequestID returns the identity of a request: the one that the caller gives it where that is harmless.
func RequestID(id string) string {
	harmless := func(c rune) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.ContainsRune("._-", c)
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return !harmless(c) }) {
		return uuid.NewString()
	}
	return id
}

// decode reads a JSON body into v, a pointer to a struct, and refuses texts that are too long, see
// [checkLengths]. Unknown fields are ignored, as existing clients expect.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(v); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return fault.Wrap(err, fault.Invalid, "invalid JSON body")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return fault.New(fault.Invalid, "invalid JSON body")
	}
	return checkLengths(v)
}

// limit reads the query parameter limit.
func limit(r *http.Request, standard, most int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, fault.New(fault.Invalid, "limit must be a positive integer")
	}
	return min(n, most), nil
}

// flag reads a query parameter that is true or false.
func flag(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, fault.New(fault.Invalid, "%s must be true or false; got %q", name, s)
	}
	return v, nil
}

// position reads a query parameter that is a position in a log.
func position(r *http.Request, name string) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "%s must be the number of an event, 0 or more; got %q", name, s)
	}
	return n, nil
}

// wants reports whether the request accepts a media type by name.
func wants(r *http.Request, mediaType string) bool {
	for _, v := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), mediaType) {
				return true
			}
		}
	}
	return false
}

// orGone gives a context's end its meaning: the client has left, or has lost its rights.
func orGone(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if f, ok := errors.AsType[*fault.Error](context.Cause(ctx)); ok {
		return f
	}
	return clientGone(err)
}

// retryAfter is a time in whole seconds, at least one: rounded up, so that who waits for so long is not refused
// again. A millisecond more or less is none.
func retryAfter(d time.Duration) int {
	return max(1, int((d+time.Second-time.Millisecond)/time.Second))
}
