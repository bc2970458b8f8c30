package gateway

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// newGrace is how long a connection that has brought no request yet may still bring one during a stop.
	newGrace = 250 * time.Millisecond
	// arrivalGrace is how long requests may arrive on connections that are asked to come anew.
	arrivalGrace = 250 * time.Millisecond
	// returnGrace is how long clients wait for the agents that were connected to the process before this one.
	returnGrace = 2 * time.Second
	// healthInterval is how often those who watch the health service are told of changes.
	healthInterval = time.Second
)

// newcomers are the HTTP connections that have brought no request. http.Server.Shutdown waits five
// seconds for each of them.
type newcomers struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// state is a hook of http.Server.
func (n *newcomers) state(c net.Conn, s http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s != http.StateNew {
		delete(n.conns, c)
		return
	}
	if n.closed {
		_ = c.Close() // nobody is served any more
		return
	}
	if n.conns == nil {
		n.conns = make(map[net.Conn]struct{})
	}
	n.conns[c] = struct{}{}
}

// close ends those that are there and those that come.
func (n *newcomers) close() {
	n.mu.Lock()
	n.closed = true
	gone := n.conns
	n.conns = nil
	n.mu.Unlock()
	for c := range gone {
		_ = c.Close() // nothing was said on it
	}
}

// healthService is grpc.health.v1: the gateway is serving while it is ready, as /health/ready says.
type healthService struct {
	*health.Server
	ready func() error
	stop  chan struct{}
	done  sync.WaitGroup
}

func newHealth(ready func() error) *healthService {
	h := &healthService{Server: health.NewServer(), ready: ready, stop: make(chan struct{})}
	h.look()
	return h
}

// watch looks from time to time, until close.
func (h *healthService) watch() {
	h.done.Go(func() {
		tick := time.NewTicker(healthInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.look()
			case <-h.stop:
				return
			}
		}
	})
}

func (h *healthService) look() {
	status := healthpb.HealthCheckResponse_SERVING
	if h.ready() != nil {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	h.SetServingStatus("", status)
}

// Check implements the health service; it looks at once.
func (h *healthService) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.look()
	return h.Server.Check(ctx, r)
}

// close says that the gateway is not serving, whatever is asked later.
func (h *healthService) close() {
	close(h.stop)
	h.done.Wait()
	h.Shutdown()
}

// A reunion is the wait for agents that were connected to the process before this one. Until they are
// back clients wait, who would otherwise hear that their agents are offline.
type reunion struct {
	done  chan struct{}
	timer *time.Timer

	mu      sync.Mutex
	missing map[string]bool // nil when it is over
}

func newReunion(agents []string) *reunion {
	r := &reunion{done: make(chan struct{}), missing: make(map[string]bool)}
	for _, id := range agents {
		r.missing[id] = true
	}
	if len(agents) == 0 {
		r.end()
		return r
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = time.AfterFunc(returnGrace, r.end)
	return r
}

func (r *reunion) arrived(agentID string) {
	r.mu.Lock()
	delete(r.missing, agentID)
	over := len(r.missing) == 0
	r.mu.Unlock()
	if over {
		r.end()
	}
}

// end lets everybody in.
func (r *reunion) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return
	default:
	}
	r.missing = nil
	if r.timer != nil {
		r.timer.Stop()
	}
	close(r.done)
}

// wait waits for the end of the reunion or of ctx.
func (r *reunion) wait(ctx context.Context) {
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// waits reports whether callers of an RPC wait for agents: all but agents, packs and those who watch.
func waits(method string) bool {
	return !strings.HasPrefix(method, "/coven.CovenControl/") && !strings.HasPrefix(method, "/coven.PackService/") && !strings.HasPrefix(method, "/grpc.")
}

func (r *reunion) interceptors() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if waits(info.FullMethod) {
				r.wait(ctx)
			}
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if waits(info.FullMethod) {
				r.wait(ss.Context())
			}
			return handler(srv, ss)
		}),
	}
}

// handler has requests wait, but for those who watch the gateway and agents' calls of tools.
func (r *reunion) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/api/") {
			r.wait(req.Context())
		}
		next.ServeHTTP(w, req)
	})
}
