// Package mcp offers the tools of the gateway to MCP clients, over Streamable HTTP.
//
// The protocol itself is the SDK's: one [mcp.Server] without tools of its own, whose lists and calls
// are answered from the [packs.Registry] for the caller of the request. Two handlers of the SDK stand
// in front of it: the newest revision knows no sessions, older ones may have one. A session is never
// needed, because every request shows who it comes from; what it adds are notifications.
//
// Who owns what: a request runs on the goroutine of its HTTP handler, and what the SDK starts for it
// ends with it. A session belongs to the server, which ends it when its caller loses its rights, when
// it is not used, and with [Server.Close].
package mcp

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"sync"
	"time"

	sdkauth "github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Limits of the server.
const (
	// MaxBody bounds a request, in bytes: the input of a tool, and what is around it.
	MaxBody = packs.MaxInput + 64<<10
	// MaxSessions is how many sessions there may be. Clients that come later get none, and work
	// without.
	MaxSessions = 1024
	// MaxSessionsOfOne is how many of them one token may have. One more ends the oldest.
	MaxSessionsOfOne = 32
	// MaxRequestsOfOne is how many requests of one token may be open.
	MaxRequestsOfOne = 64
	// IdleTimeout is how long a session lives that is not used.
	IdleTimeout = 30 * time.Minute

	// maxPage and maxPageBytes bound a page of the list of tools. Existing agents read only the
	// first one, so it is large.
	maxPage      = 1000
	maxPageBytes = 3 << 20
	// maxComplaint bounds what is kept of an error of the SDK, in bytes.
	maxComplaint = 1 << 10
)

// stateless is the first revision of the protocol that knows no sessions.
const stateless = "2026-07-28"

// Options are what a Server needs. All fields are required.
type Options struct {
	Logger *slog.Logger
	Tools  *packs.Registry
	// Conversations returns who sends messages and keeps what was said, once the first request has come.
	Conversations func() Conversations
	// Endpoint is the URL that agents are told.
	Endpoint string
	// Enter returns a context that ends when a caller loses its rights; leave must be called.
	Enter func(context.Context, auth.Principal) (ctx context.Context, leave func(), err error)
	// Recheck returns why a caller may not call any more, an expired token included.
	Recheck func(context.Context, auth.Principal) error
}

// A Server answers MCP clients.
type Server struct {
	opts      Options
	sdk       *mcp.Server
	sessioned http.Handler // of the revisions that have sessions
	single    http.Handler // a request that stands for itself
	streamed  http.Handler // the same, with what is said on the way to its answer
	ctx       context.Context
	stop      context.CancelFunc
	closers   sync.WaitGroup // sessions that are being closed; started with mu held

	mu       sync.Mutex
	grants   map[[sha256.Size]byte]*Grant // by the hash of the token
	sessions map[string]*session          // by id
	opening  int                          // sessions that are about to be opened
	open     map[string]int               // requests, by the key of their caller
}

// New returns a server. It must be closed.
func New(o Options) *Server {
	s := &Server{
		opts: o, grants: make(map[[sha256.Size]byte]*Grant), sessions: make(map[string]*session), open: make(map[string]int),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	silent := slog.New(slog.DiscardHandler) // its lines know neither caller nor request; ours are written above
	s.sdk = mcp.NewServer(&mcp.Implementation{Name: "coven-gateway", Version: "1.0.0"}, &mcp.ServerOptions{
		Logger: silent, Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{ListChanged: true}, Resources: &mcp.ResourceCapabilities{}},
	})
	s.sdk.AddReceivingMiddleware(s.receive)
	handler := func(o mcp.StreamableHTTPOptions) http.Handler {
		o.Logger, o.MaxRequestBodyBytes, o.DisableLocalhostProtection = silent, MaxBody, true // the API has checked host and origin
		return sdkauth.RequireBearerToken(known, nil)(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s.sdk }, &o))
	}
	s.sessioned = handler(mcp.StreamableHTTPOptions{})
	s.single = handler(mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true, PropagateRequestCancellation: true})
	s.streamed = handler(mcp.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true})
	s.sdk.AddResource(&mcp.Resource{URI: doorURI, Name: door}, func(ctx context.Context, _ *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		read, ok := ctx.Value(throughKey{}).(func(context.Context) (*mcp.ReadResourceResult, error))
		if !ok {
			return nil, mcp.ResourceNotFoundError(doorURI)
		}
		return read(ctx)
	})
	s.enter()
	o.Tools.OnChange(s.changed)
	return s
}

// changed tells clients that tools have come or gone. The SDK has no other way to say so than a
// change of the server's own tools, which nobody sees. It waits for nothing.
func (s *Server) changed() {
	for range s.sdk.Sessions() {
		s.enter()
		return
	}
}

// The only tool and the only resource that the SDK knows.
const (
	door    = "door"
	doorURI = "coven://door"
)

type throughKey struct{}

// enter adds the door, through which every call of a tool goes: what the context carries for it. The SDK
// makes of a result what the client's revision wants only if one of its own tools has returned it.
func (s *Server) enter() {
	s.sdk.AddTool(&mcp.Tool{Name: door, InputSchema: map[string]any{"type": "object"}}, func(ctx context.Context, _ *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		run, ok := ctx.Value(throughKey{}).(func(context.Context) (*mcp.CallToolResult, error))
		if !ok {
			return nil, fault.New(fault.NotFound, "tool not found")
		}
		return run(ctx)
	})
}

// Stop ends the streams and calls that are open.
func (s *Server) Stop() { s.stop() }

// Close ends what is left, and returns when it has ended. No request may be under way.
func (s *Server) Close() {
	s.stop()
	s.mu.Lock()
	for _, x := range s.sessions {
		s.drop(x)
	}
	s.mu.Unlock()
	s.closers.Wait()
}

// Sessions is how many sessions there are.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// A caller is who has sent a request.
type caller struct {
	key       string // the same for all requests with one token
	principal auth.Principal
	grant     *Grant          // of an agent's token; nil for others
	modern    bool            // it speaks a revision without sessions
	request   context.Context // ends with the request, and with the caller's rights
}

type callerKey struct{}

// callerOf returns who has sent a request.
func callerOf(ctx context.Context) (*caller, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return nil, err
	}
	c := &caller{key: "token:" + string(p.Credential.Kind) + ":" + p.ID + ":" + p.Credential.ID, principal: p}
	if g, ok := ctx.Value(grantKey{}).(*Grant); ok {
		c.grant, c.key = g, g.key
	}
	return c, nil
}

// tools is the caller as tools know it, as of now.
func (c *caller) tools() packs.Caller {
	if c.grant != nil {
		return c.grant.caller()
	}
	return packs.Caller{Principal: c.principal}
}

// known hands the caller of a request to the SDK, which hands it to the methods. It keeps sessions
// apart by it, too.
func known(ctx context.Context, _ string, _ *http.Request) (*sdkauth.TokenInfo, error) {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return nil, sdkauth.ErrInvalidToken
	}
	return &sdkauth.TokenInfo{UserID: c.key, Expiration: time.Now().Add(time.Hour), Extra: map[string]any{"caller": c}}, nil
}

// begin counts a request of a caller; end must be called.
func (s *Server) begin(c *caller) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[c.key] >= MaxRequestsOfOne {
		return nil, fault.New(fault.Limited, "a token may have %d requests open; wait for one of them", MaxRequestsOfOne)
	}
	s.open[c.key]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[c.key]--; s.open[c.key] == 0 {
			delete(s.open, c.key)
		}
	}, nil
}
