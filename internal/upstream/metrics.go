package upstream

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of this package. There are at most MaxServers names at once.
type metrics struct {
	up       *prometheus.GaugeVec
	held     *prometheus.GaugeVec
	restarts *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		up:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "coven_mcp_server_up", Help: "1 while an MCP server whose tools agents use is connected, else 0."}, []string{"server"}),
		held:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "coven_mcp_tools_held", Help: "Tools of an MCP server that wait to be accepted: new ones, and those that are not as they were."}, []string{"server"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_mcp_server_restarts_total", Help: "Times that an MCP server was started again after a failure."}, []string{"server"}),
	}
	reg.MustRegister(m.up, m.held, m.restarts)
	return m
}

func (m *metrics) forget(server string) {
	m.up.DeleteLabelValues(server)
	m.held.DeleteLabelValues(server)
	m.restarts.DeleteLabelValues(server)
}
