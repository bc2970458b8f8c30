package packs

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxNamed is how many tools have figures of their own; those of the others are summed up.
const maxNamed = 1000

// Names in the figures of tools that have none of their own.
const (
	otherTools  = "other"
	unknownTool = "unknown"
)

// metrics are the figures of this package.
type metrics struct {
	calls   *prometheus.CounterVec // by tool and result: ok, or the code of a fault
	seconds *prometheus.HistogramVec
	open    prometheus.Gauge

	mu    sync.Mutex
	named map[string]bool
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_tool_calls_total", Help: "Calls of tools, by tool and result."}, []string{"tool", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "coven_tool_seconds", Help: "Duration of calls of tools.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 11)}, []string{"tool"}),
		open:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_tool_calls_open", Help: "Calls of tools under way."}),
		named:   make(map[string]bool),
	}
	reg.MustRegister(m.calls, m.seconds, m.open)
	return m
}

func (m *metrics) observe(tool, result string, took time.Duration) {
	label := m.label(tool)
	m.calls.WithLabelValues(label, result).Inc()
	m.seconds.WithLabelValues(label).Observe(took.Seconds())
}

// label bounds the names: tools come and go, figures stay.
func (m *metrics) label(tool string) string {
	if tool == "" {
		return unknownTool
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.named[tool] {
		if len(m.named) >= maxNamed {
			return otherTools
		}
		m.named[tool] = true
	}
	return tool
}
