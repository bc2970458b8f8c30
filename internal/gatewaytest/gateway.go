// Package gatewaytest runs a whole gateway inside a test: the real store in a temporary folder,
// real gRPC and HTTP, on loopback ports or inside a testing/synctest bubble. Agents and clients
// speak the wire protocols.
package gatewaytest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/gateway"
)

// Patience is how long helpers wait for something before they fail the test.
const Patience = 20 * time.Second

// A Gateway is a running gateway.
type Gateway struct {
	t      testing.TB
	bubble bool
	cfg    config.Config
	traces trace.TracerProvider // nil for none
	logger *slog.Logger
	gw     *gateway.Gateway // nil while stopped
	cancel context.CancelFunc
	done   chan error

	grpc atomic.Pointer[bufconn.Listener] // in a bubble; another one after each start
	http *bufconn.Listener                // likewise

	// URL is where it serves HTTP, Client what reaches it there.
	URL    string
	Client *http.Client
}

// New starts a gateway on loopback ports. It is stopped and checked when the test ends.
func New(t testing.TB, configure ...func(*config.Config)) *Gateway {
	return start(t, &Gateway{t: t}, configure)
}

// NewInBubble starts a gateway inside a synctest bubble: its listeners are in memory, and time is
// the bubble's.
func NewInBubble(t testing.TB, configure ...func(*config.Config)) *Gateway {
	return start(t, &Gateway{t: t, bubble: true}, configure)
}

func start(t testing.TB, g *Gateway, configure []func(*config.Config)) *Gateway {
	g.cfg = config.Default()
	g.logger = logger(t)
	g.cfg.DataDir = t.TempDir()
	g.cfg.Database.Path = filepath.Join(g.cfg.DataDir, "gateway.db")
	g.cfg.Server.GRPCAddr, g.cfg.Server.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0"
	g.cfg.Server.ShutdownGrace = time.Second
	for _, f := range configure {
		f(&g.cfg)
	}
	g.Start()
	t.Cleanup(func() {
		if g.gw != nil {
			g.Check()
			g.Stop()
		}
	})
	return g
}

// Start starts the gateway after Stop, on the same data and the same addresses.
func (g *Gateway) Start() {
	g.t.Helper()
	o := gateway.Options{Config: g.cfg, Logger: g.logger, Version: "v0.0.0-test", Traces: g.traces}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, ForceAttemptHTTP2: true}
	if g.bubble {
		g.grpc.Store(bufconn.Listen(1 << 20))
		g.http = bufconn.Listen(1 << 20)
		o.GRPC, o.HTTP = g.grpc.Load(), g.http
		// A deadline of bufconn may fire after it was moved, and then break the next request.
		transport.DisableKeepAlives = true
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return g.http.DialContext(ctx) }
	}
	var err error
	if transport.TLSClientConfig, err = gateway.ClientTLS(g.cfg.Server.TLS); err != nil {
		g.t.Fatal(err)
	}
	if g.gw, err = gateway.New(context.Background(), o); err != nil {
		g.t.Fatal(err)
	}
	g.Client = &http.Client{Transport: record(g.t, transport)}
	g.URL = "http://127.0.0.1"
	if !g.bubble {
		g.cfg.Server.GRPCAddr, g.cfg.Server.HTTPAddr = g.gw.GRPCAddr().String(), g.gw.HTTPAddr().String()
		g.URL = "http://" + g.cfg.Server.HTTPAddr
		if g.cfg.Server.TLS.Enabled() {
			g.URL = "https://" + g.cfg.Server.HTTPAddr
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.done = cancel, make(chan error, 1)
	gw := g.gw
	go func() { g.done <- gw.Run(ctx) }()
}

// Stop stops the gateway as a SIGTERM would.
func (g *Gateway) Stop() {
	g.t.Helper()
	g.Client.CloseIdleConnections() // the server would wait for those that were never used
	g.cancel()
	if err := <-g.done; err != nil {
		g.t.Errorf("the gateway stopped with: %v", err)
	}
	g.Client.CloseIdleConnections()
	g.gw = nil
}

// Restart stops and starts the gateway.
func (g *Gateway) Restart() {
	g.t.Helper()
	g.Reconfigure(func(*config.Config) {})
}

// Reconfigure stops the gateway and starts it with another configuration.
func (g *Gateway) Reconfigure(f func(*config.Config)) {
	g.t.Helper()
	g.Stop()
	f(&g.cfg)
	g.Start()
}

// Conversations is the service behind all edges.
func (g *Gateway) Conversations() *conversation.Service { return g.gw.Conversations() }

// Handler serves a request as the gateway's HTTP listener would.
func (g *Gateway) Handler() http.Handler { return g.gw.Handler() }

// Observe starts the gateway again, with spans that go to p, unless that is nil, and log lines that go to l.
func (g *Gateway) Observe(p trace.TracerProvider, l slog.Handler) {
	g.t.Helper()
	g.Stop()
	g.traces, g.logger = p, slog.New(l)
	g.Start()
}

// Routes are the patterns of the HTTP API that it serves.
func (g *Gateway) Routes() []string { return g.gw.Routes() }

// RPCs are the full methods that it serves over gRPC.
func (g *Gateway) RPCs() []string { return g.gw.RPCs() }

// GRPCAddr is where it serves gRPC.
func (g *Gateway) GRPCAddr() string { return g.cfg.Server.GRPCAddr }

// Ctx is the context of a caller that may do everything.
func Ctx() context.Context { return auth.With(context.Background(), auth.Anonymous) }

// Dial returns a gRPC connection to the gateway; it is closed when the test ends.
func (g *Gateway) Dial(opts ...grpc.DialOption) *grpc.ClientConn {
	g.t.Helper()
	target := "passthrough:///" + g.cfg.Server.GRPCAddr
	creds := insecure.NewCredentials()
	if encrypted, err := gateway.ClientTLS(g.cfg.Server.TLS); err != nil {
		g.t.Fatal(err)
	} else if encrypted != nil && g.cfg.Server.TLS.GRPC {
		creds = credentials.NewTLS(encrypted)
	}
	opts = append(opts, grpc.WithTransportCredentials(creds))
	if g.bubble {
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.grpc.Load().DialContext(ctx) }))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() }) // may be closed already
	return conn
}

func logger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}
