package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/conversation"
)

// A state is what /debug/state shows.
type state struct {
	Version       string             `json:"version"`
	Go            string             `json:"go"`
	Now           time.Time          `json:"now"`
	UptimeSeconds float64            `json:"uptime_seconds"`
	Goroutines    int                `json:"goroutines"`
	HeapBytes     uint64             `json:"heap_bytes"`
	Figures       map[string]float64 `json:"figures"` // metrics of the gateway without labels, such as coven_store_wal_bytes
	Conversations conversation.State `json:"conversations"`
	AgentsOnline  int                `json:"agents_online"`
	Agents        []agentState       `json:"agents"` // the first conversation.MaxListed, by id
	Packs         []packState        `json:"packs"`  // likewise
}

// An agentState is a connected agent.
type agentState struct {
	ID          string    `json:"agent_id"`
	InstanceID  string    `json:"instance_id"`
	Principal   string    `json:"principal"`
	ConnectedAt time.Time `json:"connected_at"`
	LastSeen    time.Time `json:"last_seen"`
	OpenTurns   int       `json:"open_turns"`
	Queue       int       `json:"queue"`        // messages that it has not read
	ToolCalls   int       `json:"tool_calls"`   // that it waits for
	HostedCalls int       `json:"hosted_calls"` // that others wait for
}

// A packState is a pack that is here.
type packState struct {
	ID    string `json:"pack_id"`
	Kind  string `json:"kind"`
	Tools int    `json:"tools"`
}

// debugHandler serves profiles and the inner state. It asks for no credentials, but serves programs of this
// machine only: the listener is a loopback one, and web pages are refused, whatever name they use for it.
func (g *Gateway) debugHandler(reg prometheus.Gatherer, version string, started time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/state", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.MarshalIndent(g.state(reg, version, started), "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(b, '\n')) // whoever asked may be gone
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		host, site := r.Host, r.Header.Get("Sec-Fetch-Site")
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) || site == "cross-site" || site == "same-site" {
			http.Error(w, "only programs of this machine are served here", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// state gathers what the gateway is doing. No part waits for another one or for the disk.
func (g *Gateway) state(reg prometheus.Gatherer, version string, started time.Time) state {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	s := state{
		Version: version, Go: runtime.Version(), Now: time.Now().UTC(), UptimeSeconds: time.Since(started).Seconds(),
		Goroutines: runtime.NumGoroutine(), HeapBytes: mem.HeapAlloc, Figures: figures(reg), Conversations: g.conversations.State(),
	}
	agents := g.agents.List()
	s.AgentsOnline = len(agents)
	for _, a := range agents[:min(len(agents), conversation.MaxListed)] {
		s.Agents = append(s.Agents, agentState{
			a.ID, a.InstanceID, a.PrincipalID, a.ConnectedAt, a.LastSeen, a.OpenTurns, a.Queue, a.ToolCalls, a.HostedCalls,
		})
	}
	packs := g.tools.Packs()
	for _, p := range packs[:min(len(packs), conversation.MaxListed)] {
		s.Packs = append(s.Packs, packState{p.ID, string(p.Kind), len(p.Tools)})
	}
	return s
}

// figures returns the counters and gauges that have no labels. What cannot be gathered is missing.
func figures(reg prometheus.Gatherer) map[string]float64 {
	families, _ := reg.Gather()
	values := make(map[string]float64)
	for _, f := range families {
		if len(f.GetMetric()) != 1 || len(f.GetMetric()[0].GetLabel()) > 0 {
			continue
		}
		switch m := f.GetMetric()[0]; {
		case m.GetGauge() != nil:
			values[f.GetName()] = m.GetGauge().GetValue()
		case m.GetCounter() != nil:
			values[f.GetName()] = m.GetCounter().GetValue()
		}
	}
	return values
}

// listenLocally opens a listener that other machines cannot reach. The configuration was checked, but names
// may mean anything.
func listenLocally(given net.Listener, addr string) (net.Listener, error) {
	l, err := listen(given, addr, "admin", "admin.listen")
	if err != nil {
		return nil, err
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		_ = l.Close() // nobody has used it
		return nil, fmt.Errorf("admin.listen: %s is %s, which is not a loopback address", addr, l.Addr())
	}
	return l, nil
}
