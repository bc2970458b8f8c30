// Package gateway puts the parts together: it opens the store, wires the services to their
// transports, listens, and takes everything down again in the reverse order.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"coven-gateway/internal/admin"
	"coven-gateway/internal/agent"
	"coven-gateway/internal/api"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/client"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/mcp"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/packs/packgrpc"
	"coven-gateway/internal/store"
	"coven-gateway/internal/tracing"
	"coven-gateway/internal/upstream"
	"coven-gateway/internal/webadmin"
	pb "coven-gateway/proto/coven"
)

// Bounds of a stop, besides the configured grace for open turns.
const (
	stopAgents    = time.Second     // for agents to leave after Shutdown
	stopPacks     = time.Second     // for the streams of packs to end
	stopListeners = 2 * time.Second // for responses that are being written
)

// Options are what a gateway is made of.
type Options struct {
	Config config.Config
	Logger *slog.Logger
	// Version is what the gateway says it is.
	Version string
	// Demo serves pages for developers, too.
	Demo bool

	// Traces is where spans go; nil to trace nothing.
	Traces trace.TracerProvider

	// Listeners to use instead of the configured addresses; nil to listen there.
	GRPC, HTTP, Admin net.Listener

	// Returning are the ids of agents that were connected to a process that this one takes over from:
	// clients wait a moment for them.
	Returning []string
}

// A Gateway is a running gateway.
type Gateway struct {
	logger        *slog.Logger
	identity      *auth.Service
	conversations *conversation.Service
	agents        *agent.Registry
	tools         *packs.Registry
	mcp           *mcp.Server
	upstream      *upstream.Service
	grpc, http    net.Listener
	admin         net.Listener // nil unless it is configured
	adminServer   *http.Server // serves there
	certificate   *certificate // nil for plaintext
	grpcServer    *grpc.Server
	sends         sync.WaitGroup // messages of streams that gRPC has not let go of
	httpServer    *http.Server
	newcomers     newcomers
	health        *healthService
	reunion       *reunion
	goodbye       chan struct{} // closed when grpcServer has stopped gracefully; nil before it is told to
	replaced      atomic.Bool   // somebody takes over
	routes        []string      // patterns that httpServer serves
	origin        string        // where people reach the pages
	stopping      chan struct{} // closed when readers have to end
	failed        chan error    // a listener died; capacity 3
	stops         []stop        // run backwards
	stopped       atomic.Bool
}

// A stop undoes one step of the start.
type stop struct {
	name string
	fn   func(context.Context) error
}

func (g *Gateway) onStop(name string, fn func(context.Context) error) {
	g.stops = append(g.stops, stop{name, fn})
}

// New opens everything, listeners included: when it returns, the addresses are true and
// connections wait in the listeners until Start. A New that fails leaves nothing behind.
func New(ctx context.Context, o Options) (*Gateway, error) {
	g := &Gateway{logger: o.Logger, stopping: make(chan struct{}), failed: make(chan error, 3)}
	if err := g.setup(ctx, o); err != nil {
		return nil, errors.Join(err, g.Stop(ctx))
	}
	return g, nil
}

// setup is one straight function on purpose: the order is the point, and what is registered last
// is stopped first.
func (g *Gateway) setup(ctx context.Context, o Options) error {
	cfg := o.Config
	if cfg.Tailscale.Enabled {
		return errors.New("tailscale.enabled: this version cannot listen on a tailnet; set it to false and use the addresses of the host")
	}
	tracer := tracing.New(o.Traces)
	trusted := newProxies(cfg.Server.TrustedProxies)
	started := time.Now()
	var err error
	if g.http, err = listen(o.HTTP, cfg.Server.HTTPAddr, "HTTP", "--http-addr or server.http_addr"); err != nil {
		return err
	}
	g.onStop("HTTP listener", closeListener(g.http))
	if g.grpc, err = listen(o.GRPC, cfg.Server.GRPCAddr, "gRPC", "--grpc-addr or server.grpc_addr"); err != nil {
		return err
	}
	g.onStop("gRPC listener", closeListener(g.grpc))
	if cfg.Admin.Listen != "" || o.Admin != nil {
		if g.admin, err = listenLocally(o.Admin, cfg.Admin.Listen); err != nil {
			return err
		}
		g.onStop("admin listener", closeListener(g.admin))
	}

	if cfg.Server.TLS.Enabled() {
		if g.certificate, err = openCertificate(cfg.Server.TLS, o.Logger); err != nil {
			return err
		}
		g.onStop("certificate", g.certificate.close)
	}

	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	serverID, err := serverID(cfg.DataDir)
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "coven_build_info", Help: "1, with the version of the gateway.", ConstLabels: prometheus.Labels{"version": o.Version},
	}, func() float64 { return 1 }))
	db, err := store.Open(ctx, store.Options{Path: cfg.Database.Path, Synchronous: string(cfg.Database.Synchronous), Logger: o.Logger, Registerer: reg})
	if err != nil {
		return err
	}
	g.onStop("database", func(context.Context) error { return db.Close() })
	files := store.OpenBlobs(filepath.Join(cfg.DataDir, "files"))
	disk := store.NewWatch(store.WatchOptions{DB: db, Blobs: files, MinFree: int64(cfg.Database.MinFree), Logger: o.Logger, Registerer: reg})
	g.onStop("disk watch", func(context.Context) error { disk.Close(); return nil })

	endpoint := g.mcpEndpoint(cfg)
	g.origin = origin(cfg.WebAdmin.BaseURL, g.scheme(), g.http.Addr())
	g.identity, err = identity(ctx, cfg, db, o.Logger, serverID, auth.Options{
		Origin: g.origin, OAuthIssuer: g.issuer(cfg), MCPResource: endpoint,
		Ended: func(principalID string) {
			g.conversations.EndTurnsOf(principalID, "the rights of the sender have ended")
		},
		Disowned: func(agentID string) { g.agents.End(agentID, "the agent's id was given to somebody else", errDisowned) },
	})
	if err != nil {
		return err
	}
	g.onStop("identity", func(context.Context) error { return g.identity.Close() })
	g.warnIfOpen(cfg)

	g.reunion = newReunion(o.Returning)
	g.onStop("wait for agents", func(context.Context) error { g.reunion.end(); return nil })
	g.tools = packs.New(packs.Options{Logger: o.Logger, Registerer: reg, Rights: g.identity, Policies: policies(cfg.Tools), Tracer: tracer, Approve: func(ctx context.Context, c *packs.Call) error {
		return g.conversations.AskApproval(ctx, c.AgentID, c.TurnID, conversation.Approval{ID: c.ID, Name: c.Tool, Input: string(c.Input)})
	}, Ran: func(ctx context.Context, r packs.Run) {
		err := g.conversations.NoteTool(ctx, r.AgentID, r.TurnID, conversation.ToolRun{ID: r.ID, Name: r.Tool, Pack: r.Pack, Result: r.Result, Duration: r.Took})
		if err != nil && ctx.Err() == nil {
			o.Logger.Error("a tool call is not in the log of its turn", "call_id", r.ID, "turn_id", r.TurnID, "error", err)
		}
	}})
	g.mcp = mcp.New(mcp.Options{Logger: o.Logger, Tools: g.tools, Conversations: func() mcp.Conversations { return g.conversations }, Endpoint: endpoint, Enter: g.identity.Enter, Recheck: g.identity.Recheck})
	g.onStop("MCP sessions", func(context.Context) error { g.mcp.Close(); return nil })
	remote := packgrpc.New(packgrpc.Options{Logger: o.Logger, Packs: g.tools, TakeoverGrace: cfg.Agents.ReconnectGracePeriod, Tracer: tracer})
	g.agents = agent.New(agent.Options{
		Logger: o.Logger, Registerer: reg, Tools: g.tools, ServerID: serverID, Admit: g.identity.Admit,
		Resume:           func(id string, working []string) []conversation.Resumable { return g.conversations.Resume(id, working) },
		Grant:            g.mcp.Grant,
		Offer:            g.mcp.Offer,
		Arrived:          func(id string) { g.conversations.Arrived(id); g.reunion.arrived(id) },
		ReconnectGrace:   cfg.Agents.ReconnectGracePeriod,
		HeartbeatTimeout: cfg.Agents.HeartbeatTimeout,
	})
	figures := conversation.NewMetrics(reg)
	open := newStreams(cfg.Limits.Streams, figures.Refusals)
	g.guard(cfg.Limits, trusted, figures.Refusals, open, reg)
	g.conversations, err = conversation.New(ctx, conversation.Options{
		Log: db.Log(g.identity.Audit), Dispatcher: g.agents, Files: files, Policy: g.identity, Bindings: db.Bindings(g.identity.Audit), Approvals: db.ApprovalPolicies(g.identity.Audit), Audit: g.identity.Note, Logger: o.Logger, Metrics: figures, Tracer: tracer,
		SilenceTimeout: cfg.Agents.TurnSilenceTimeout, ReconnectGrace: cfg.Agents.ReconnectGracePeriod, CancelGrace: cfg.Agents.CancelGracePeriod, ApprovalTimeout: cfg.Agents.ApprovalTimeout,
		MaxMessage: int64(cfg.Limits.Message), MaxFile: int64(cfg.Limits.File), MaxFiles: cfg.Limits.Attachments,
		MaxTurn: int64(cfg.Limits.Turn), AgentTurns: cfg.Limits.AgentTurns, TurnsPerMinute: cfg.Limits.TurnsPerMinute,
		Retention: conversation.Retention{
			Events: cfg.Retention.Events, EventsBytes: int64(cfg.Retention.EventsSize),
			Files: cfg.Retention.Files, FilesBytes: int64(cfg.Retention.FilesSize),
		},
	})
	if err != nil {
		return err
	}
	g.onStop("conversations", func(context.Context) error { return g.conversations.Close() })
	if err := g.addBuiltins(db); err != nil {
		return err
	}
	// After the gateway's own tools, so that no server takes their names.
	g.upstream, err = upstream.New(ctx, upstream.Options{
		Logger: o.Logger, Registerer: reg, Packs: g.tools, Store: db.Upstream(g.identity.Audit), Version: o.Version,
		AllowCommands: cfg.MCP.AllowCommands, Secret: g.identity.SharedSecret,
	})
	if err != nil {
		return err
	}
	g.onStop("MCP servers", func(context.Context) error { g.upstream.Close(); return nil })

	var metrics http.Handler
	if cfg.Metrics.Enabled {
		metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	}
	pages, err := webadmin.Handler(o.Demo)
	if err != nil {
		return err
	}
	front := api.New(api.Options{
		Conversations: g.conversations, Agents: agentList{g.agents}, Files: files, Tools: g.tools, Records: records{db.Tools()}, MCP: g.mcp, Servers: g.upstream, Disk: disk.Healthy,
		Logger: o.Logger, Registerer: reg, Metrics: metrics, MetricsPath: cfg.Metrics.Path, Version: o.Version, Started: started, Settings: cfg.Settings(),
		Pages: pages, RequestBody: int64(cfg.Limits.RequestBody), BaseURL: cfg.WebAdmin.BaseURL,
		AnyHost:  !g.identity.Open() || cfg.Auth.OpenRemote,
		Identity: g.identity, Admit: admit(g.identity, g.mcp, cfg.WebAdmin.BaseURL), CORSOrigins: cfg.Server.CORSOrigins,
		Stopping: g.stopping, Replaced: g.replaced.Load, Tracer: tracer, EnterStream: open.Enter,
	})
	g.routes = front.Routes()
	g.httpServer = &http.Server{
		Handler: trusted.handler(g.reunion.handler(front.Handler())), ConnState: g.newcomers.state, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	if g.certificate != nil {
		g.httpServer.TLSConfig = g.certificate.config()
		g.httpServer.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: idlePing}
	}
	g.onStop("HTTP server", g.stopHTTP)
	g.grpcServer = grpc.NewServer(slices.Concat(g.agents.ServerOptions(cfg.Agents.HeartbeatInterval), g.reunion.interceptors(), interceptors(g.identity, open, &g.sends, g.grpcTLS(cfg), trusted, o.Logger, tracer))...)
	g.agents.Register(g.grpcServer)
	pb.RegisterPackServiceServer(g.grpcServer, remote)
	client.Register(g.grpcServer, client.Options{Identity: g.identity, Conversations: g.conversations, Agents: g.agents, Stopping: g.stopping})
	admin.Register(g.grpcServer, g.identity, g.conversations)
	g.health = newHealth(func() error {
		if err := disk.Healthy(); err != nil {
			return err
		}
		return g.conversations.Healthy()
	})
	healthpb.RegisterHealthServer(g.grpcServer, g.health)
	reflection.Register(g.grpcServer)
	if err := served(g.grpcServer); err != nil {
		return err
	}
	g.onStop("gRPC server", g.stopGRPC)

	if g.admin != nil {
		g.adminServer = &http.Server{
			Handler: g.debugHandler(reg, o.Version, started), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		}
		g.onStop("admin server", func(context.Context) error { return g.adminServer.Close() }) // a profile may take a minute
	}
	g.onStop("readers", func(context.Context) error { close(g.stopping); g.mcp.Stop(); return nil })
	g.onStop("packs", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, stopPacks)
		defer cancel()
		return remote.Shutdown(ctx)
	})
	g.onStop("agents", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, stopAgents)
		defer cancel()
		return g.agents.Shutdown(ctx, g.farewell())
	})
	// First of all: no new turns, and the open ones may finish. Agents hear of the shutdown only
	// after that, because they leave at once when they do.
	g.onStop("turns", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, cfg.Server.ShutdownGrace)
		defer cancel()
		return g.conversations.Drain(ctx)
	})
	g.onStop("health service", func(context.Context) error { g.health.close(); return nil })
	return nil
}

// farewell is what agents are told at the end.
func (g *Gateway) farewell() string {
	if g.replaced.Load() {
		return "the gateway is being replaced: come back at once"
	}
	return "the gateway is shutting down"
}

// Start serves. It returns at once.
func (g *Gateway) Start() {
	g.health.watch()
	if g.certificate != nil {
		g.certificate.watch()
	}
	go func() {
		if err := g.serveHTTP(); !errors.Is(err, http.ErrServerClosed) {
			g.failed <- fmt.Errorf("HTTP listener: %w", err)
		}
	}()
	if g.admin != nil {
		go func() {
			if err := g.adminServer.Serve(g.admin); !errors.Is(err, http.ErrServerClosed) {
				g.failed <- fmt.Errorf("admin listener: %w", err)
			}
		}()
	}
	go func() {
		if err := g.grpcServer.Serve(g.grpc); err != nil && !g.stopped.Load() {
			g.failed <- fmt.Errorf("gRPC listener: %w", err)
		}
	}()
}

// Run serves until ctx ends or a listener dies, and stops.
func (g *Gateway) Run(ctx context.Context) error {
	g.Start()
	var err error
	select {
	case <-ctx.Done():
	case err = <-g.failed:
	}
	return errors.Join(err, g.Stop(context.WithoutCancel(ctx)))
}

// Failed receives when a listener dies.
func (g *Gateway) Failed() <-chan error { return g.failed }

// Release stops as Stop does, for somebody who holds the same sockets and serves next. Before anything
// else it stops accepting, so that whoever comes waits for the next process and is not refused, and asks
// its HTTP and gRPC connections to come anew; what is under way on them goes on as in any stop.
func (g *Gateway) Release(ctx context.Context) error {
	g.replaced.Store(true)
	g.httpServer.SetKeepAlivesEnabled(false)
	var errs []error
	for _, l := range []net.Listener{g.http, g.grpc, g.admin} {
		if l != nil {
			errs = append(errs, closeListener(l)(ctx))
		}
	}
	g.leaveGRPC()
	select { // messages that are on their way are still taken
	case <-time.After(arrivalGrace):
	case <-ctx.Done():
	}
	return errors.Join(append(errs, g.Stop(ctx))...)
}

// Stop takes everything down, the latest first. Open turns get the configured grace, or as much of
// it as ctx allows. Each failure is named; none keeps the rest from being stopped.
func (g *Gateway) Stop(ctx context.Context) error {
	if !g.stopped.CompareAndSwap(false, true) {
		return nil
	}
	var errs []error
	for _, s := range slices.Backward(g.stops) {
		if err := s.fn(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

// HTTPAddr is where the gateway listens for HTTP.
func (g *Gateway) HTTPAddr() net.Addr { return g.http.Addr() }

// GRPCAddr is where the gateway listens for gRPC.
func (g *Gateway) GRPCAddr() net.Addr { return g.grpc.Addr() }

// AdminAddr is where the gateway serves its inner state; nil if it does not.
func (g *Gateway) AdminAddr() net.Addr {
	if g.admin == nil {
		return nil
	}
	return g.admin.Addr()
}

// Handler serves what the HTTP listener serves.
func (g *Gateway) Handler() http.Handler { return g.httpServer.Handler }

// Routes returns the patterns of the HTTP API that are served.
func (g *Gateway) Routes() []string { return g.routes }

// RPCs returns the full methods that are served over gRPC.
func (g *Gateway) RPCs() []string { return methods(g.grpcServer) }

// Pages is where people reach the pages, without a slash at the end.
func (g *Gateway) Pages() string { return g.origin }

// FirstOwner returns a link that signs the first owner in, and when it expires; "" where there is an
// owner, and in open mode. The link before it is not good any more.
func (g *Gateway) FirstOwner(ctx context.Context) (link string, expires time.Time, err error) {
	token, expires, err := g.identity.FirstLink(ctx)
	if err != nil || token == "" {
		return "", expires, err
	}
	return SetupLink(g.origin, token), expires, nil
}

// Identity is who is who.
func (g *Gateway) Identity() *auth.Service { return g.identity }

// Conversations is the service behind all edges.
func (g *Gateway) Conversations() *conversation.Service { return g.conversations }

// Tools knows what can be called.
func (g *Gateway) Tools() *packs.Registry { return g.tools }

// Upstream knows the MCP servers whose tools the gateway offers.
func (g *Gateway) Upstream() *upstream.Service { return g.upstream }

// MCP answers MCP clients.
func (g *Gateway) MCP() *mcp.Server { return g.mcp }

// Agents knows who is connected.
func (g *Gateway) Agents() *agent.Registry { return g.agents }

// stopHTTP waits a moment for the requests that are open. A client that does not read what it asked for
// keeps its own open for longer: it is cut off, which is no failure of the gateway.
func (g *Gateway) stopHTTP(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopListeners)
	defer cancel()
	defer time.AfterFunc(newGrace, g.newcomers.close).Stop()
	err := g.httpServer.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return g.httpServer.Close()
	}
	return err
}

func (g *Gateway) stopGRPC(context.Context) error {
	g.leaveGRPC()
	select {
	case <-g.goodbye:
	case <-time.After(stopListeners):
		g.grpcServer.Stop() // makes GracefulStop return
		<-g.goodbye
	}
	g.sends.Wait()
	return nil
}

// leaveGRPC asks gRPC clients to come anew for their next call; stopGRPC waits for those under way. Only
// Release and Stop call it, one after the other.
func (g *Gateway) leaveGRPC() {
	if g.goodbye != nil {
		return
	}
	g.goodbye = make(chan struct{})
	go func() {
		defer close(g.goodbye)
		g.grpcServer.GracefulStop()
	}()
}

// guard bounds the connections of the listeners.
func (g *Gateway) guard(limits config.Limits, trusted proxies, refusals *prometheus.CounterVec, open *streams, reg prometheus.Registerer) {
	sorry := busy
	if g.certificate != nil {
		sorry = nil // it could not be read
	}
	http := newDoorman(g.http, limits.Connections, limits.AddressConnections, trusted, sorry, refusals)
	rpc := newDoorman(g.grpc, limits.Connections, limits.AddressConnections, trusted, nil, refusals)
	g.http, g.grpc = http, rpc
	for _, key := range []string{keyConnections, keyAddressConnections, keyStreams, keyUnread} {
		refusals.WithLabelValues(key)
	}
	const help = "Connections that are open, by listener."
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_connections", Help: help, ConstLabels: prometheus.Labels{"listener": "http"}}, http.count),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_connections", Help: help, ConstLabels: prometheus.Labels{"listener": "grpc"}}, rpc.count),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_streams", Help: "Streams that are open, over HTTP and gRPC."}, open.count),
	)
}

// listen opens a listener; an address that is taken is explained.
func listen(given net.Listener, addr, what, setting string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the %s address %s is taken by another program: stop that program, or choose another address with %s", what, addr, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen for %s on %s (%s): %w", what, addr, setting, err)
	}
	return l, nil
}

func closeListener(l net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err // the server has closed it unless it never started
		}
		return nil
	}
}

var errDisowned = fault.New(fault.Forbidden, "the agent id was given to somebody else")

// warnIfOpen says at every start that nobody is asked for credentials.
func (g *Gateway) warnIfOpen(cfg config.Config) {
	switch {
	case !g.identity.Open():
	case cfg.Auth.OpenRemote:
		g.logger.Warn("open mode: auth.jwt_secret is not set and auth.open_remote is true, so EVERYBODY who reaches this gateway has all rights")
	default:
		g.logger.Warn("open mode: auth.jwt_secret is not set, so everybody on this machine has all rights; other machines are refused")
	}
}

// agentList shows the connected agents to the HTTP API.
type agentList struct{ *agent.Registry }

// List returns the connected agents, sorted by id.
func (l agentList) List() []api.Agent {
	infos := l.Registry.List()
	agents := make([]api.Agent, len(infos))
	for i, a := range infos {
		agents[i] = api.Agent{
			ID: a.ID, Name: a.Name, Connected: true, InstanceID: a.InstanceID, PrincipalID: a.PrincipalID, Capabilities: a.Capabilities, Workspaces: a.Workspaces,
			WorkingDir: a.WorkingDir, Backend: a.Backend, ConnectedAt: a.ConnectedAt, LastSeen: a.LastSeen, OpenTurns: a.OpenTurns,
			Git: (*api.Git)(a.Git), Hostname: a.Hostname, OS: a.OS, Features: a.Features,
		}
	}
	return agents
}
