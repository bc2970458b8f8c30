package conversation

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the figures of this package.
type Metrics struct {
	Turns             prometheus.Counter
	TurnsEnded        *prometheus.CounterVec // by state
	TurnsOpen         prometheus.Gauge
	TurnsWaiting      prometheus.Gauge
	TurnSeconds       prometheus.Histogram
	FirstEventSeconds prometheus.Histogram
	Events            prometheus.Counter
	Bytes             prometheus.Counter
	CommitEvents      prometheus.Histogram
	CommitSeconds     prometheus.Histogram
	CommitFailures    prometheus.Counter
	CommitQueue       prometheus.Gauge
	Readers           prometheus.Gauge
	PrunedTurns       prometheus.Counter
	PrunedEvents      prometheus.Counter
	PrunedBytes       prometheus.Counter
	ExpiredFiles      prometheus.Counter
	RemovedContents   prometheus.Counter
	RemovedFileBytes  prometheus.Counter
	LastRun           prometheus.Gauge
	Refusals          *prometheus.CounterVec // by the key of the limit; those of other packages, too
}

// NewMetrics registers the figures of this package.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		Turns:             prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_turns_total", Help: "Turns begun."}),
		TurnsEnded:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_turns_ended_total", Help: "Turns ended, by state."}, []string{"state"}),
		TurnsOpen:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_turns_open", Help: "Turns that are open now."}),
		TurnsWaiting:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_turns_waiting", Help: "Turns whose message waits for its agent."}),
		TurnSeconds:       prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_turn_seconds", Help: "Time from a message to the end of its turn.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 10)}),
		FirstEventSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_turn_first_event_seconds", Help: "Time from a message to the agent's first event.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}),
		Events:            prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_events_total", Help: "Events committed, text increments included."}),
		Bytes:             prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_event_bytes_total", Help: "Bytes of committed events."}),
		CommitEvents:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_commit_events", Help: "Events per commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		CommitSeconds:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coven_commit_seconds", Help: "Duration of commits.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14)}),
		CommitFailures:    prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_commit_failures_total", Help: "Commits that failed and were tried again or reported."}),
		CommitQueue:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_commit_queue", Help: "Turns and messages that wait for the commit after the next."}),
		Readers:           prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_readers", Help: "Readers that follow a conversation."}),
		PrunedTurns:       prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_pruned_turns_total", Help: "Turns removed, by deletion or retention."}),
		PrunedEvents:      prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_pruned_events_total", Help: "Events removed, text increments included."}),
		PrunedBytes:       prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_pruned_event_bytes_total", Help: "Bytes of removed events."}),
		ExpiredFiles:      prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_expired_files_total", Help: "Files whose content retention has given up."}),
		RemovedContents:   prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_removed_contents_total", Help: "Contents of files removed from the disk."}),
		RemovedFileBytes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "coven_removed_content_bytes_total", Help: "Bytes of contents of files removed from the disk."}),
		LastRun:           prometheus.NewGauge(prometheus.GaugeOpts{Name: "coven_retention_last_run_timestamp_seconds", Help: "When retention was last applied; 0 if it was not yet."}),
	}
	m.Refusals = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coven_limit_refusals_total", Help: "What was refused or ended because of a limit, by its key."}, []string{"limit"})
	for _, key := range []string{KeyTurn, keyAgentTurns, keyTurnsPerMin} {
		m.Refusals.WithLabelValues(key)
	}
	reg.MustRegister(m.Refusals, m.Turns, m.TurnsEnded, m.TurnsOpen, m.TurnsWaiting, m.TurnSeconds, m.FirstEventSeconds, m.Events, m.Bytes,
		m.CommitEvents, m.CommitSeconds, m.CommitFailures, m.CommitQueue, m.Readers,
		m.PrunedTurns, m.PrunedEvents, m.PrunedBytes, m.ExpiredFiles, m.RemovedContents, m.RemovedFileBytes, m.LastRun)
	for _, s := range []TurnState{Done, Failed, Cancelled, Interrupted, Expired} {
		m.TurnsEnded.WithLabelValues(string(s))
	}
	return m
}
