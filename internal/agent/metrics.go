package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/fault"
)

// metrics are the figures of this package.
type metrics struct {
	received, sent prometheus.Counter
	registrations  *prometheus.CounterVec // by result
}

// registrationOK is the result of a registration that did not fail; the others are fault codes.
const registrationOK = "ok"

func newMetrics(reg prometheus.Registerer, r *Registry) *metrics {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_agent_messages_total", Help: "Messages on agent streams, by direction as the gateway sees it."}, []string{"direction"})
	m := &metrics{
		received:      messages.WithLabelValues("in"),
		sent:          messages.WithLabelValues("out"),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_agent_registrations_total", Help: "Attempts of agents to register, by result."}, []string{"result"}),
	}
	for _, result := range []string{registrationOK, string(fault.Exists), string(fault.Invalid), string(fault.Gone)} {
		m.registrations.WithLabelValues(result)
	}
	reg.MustRegister(messages, m.registrations,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_agents_connected", Help: "Agents that are connected."},
			func() float64 { return float64(r.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coven_agent_out_queue", Help: "Messages that wait for their agent to read."},
			func() float64 {
				n := 0
				for _, c := range r.welcomed(nil) {
					n += c.waiting()
				}
				return float64(n)
			}),
	)
	return m
}

// accepted counts an agent that is registered.
func (m *metrics) accepted() { m.registrations.WithLabelValues(registrationOK).Inc() }

// refused counts a stream that ends without that.
func (m *metrics) refused(why *ending) {
	result := fault.Gone // it left by itself
	if why.status != nil {
		result = fault.CodeOf(why.status)
	}
	m.registrations.WithLabelValues(string(result)).Inc()
}
