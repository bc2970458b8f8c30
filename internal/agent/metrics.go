package agent

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of this package.
type metrics struct {
	connected     prometheus.Gauge
	messages      *prometheus.CounterVec // by direction
	registrations *prometheus.CounterVec // by result
}

func newMetrics(reg prometheus.Registerer, r *Registry) *metrics {
	m := &metrics{
		connected:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_agents_connected", Help: "Agents that are connected."}),
		messages:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_agent_messages_total", Help: "Messages from (in) and to (out) agents."}, []string{"direction"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_agent_registrations_total", Help: "Registrations of agents, by result."}, []string{"result"}),
	}
	queued := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_agent_out_queue", Help: "Messages that wait to be sent to agents."}, func() float64 {
		n := 0
		for _, c := range r.all() {
			n += len(c.out)
		}
		return float64(n)
	})
	reg.MustRegister(m.connected, m.messages, m.registrations, queued)
	return m
}
