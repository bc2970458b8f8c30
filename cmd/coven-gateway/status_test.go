package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// metricsAt is what a gateway tells that has started at 1000.
func metricsAt(events, fast, slow string) figures {
	return parseFigures([]byte(`# HELP coven_events_total Events.
# TYPE coven_events_total counter
coven_events_total ` + events + `
coven_turns_ended_total{state="done"} 3
coven_turns_ended_total{state="failed"} 2
coven_build_info{version="v1.2.3"} 1
process_start_time_seconds 1000
coven_commit_seconds_bucket{le="0.001"} ` + fast + `
coven_commit_seconds_bucket{le="0.1"} ` + slow + `
coven_commit_seconds_bucket{le="+Inf"} ` + slow + `
coven_store_bytes 1.234567e+06
coven_store_wal_bytes 999
nonsense
`))
}

// TestStatusScreen: rates and latencies are those since the last look at the same gateway, else since its start.
func TestStatusScreen(t *testing.T) {
	at := func(seconds int64, f figures) sight {
		return sight{at: time.Unix(seconds, 0), ready: "ready (1 agents)", figures: f}
	}
	first, second := at(1100, metricsAt("200", "100", "100")), at(1102, metricsAt("240", "100", "150"))
	second.agents = []agentRow{{ID: "idle", ConnectedAt: time.Unix(1092, 0), LastSeen: time.Unix(1092, 0)}, {ID: "busy\x1b[2J", OpenTurns: 2, ConnectedAt: time.Unix(1092, 0), LastSeen: time.Unix(1101, 0)}}
	for _, c := range []struct {
		name      string
		now, then sight
		want      []string
	}{
		{"first look", first, sight{}, []string{"version   v1.2.3, up 1m40s\n", "events    2.0/s on average, 200 since", "half within 1ms, 99% within 1ms,", "5 ended\n", "1.2 MB, and 999 bytes of"}},
		{"second look", second, first, []string{"events    20.0/s, 240 since", "half within 100ms, 99% within 100ms,"}},
		{"another process", second, at(1101, parseFigures([]byte("process_start_time_seconds 900\ncoven_events_total 1000\n"))), []string{"events    2.4/s on average", "half within 1ms, 99% within 100ms,"}},
		{"nothing new", first, first, []string{"events    0.0/s, 200", "half within –, 99% within –,"}},
		{"no figures", sight{ready: "ready (0 agents)", blind: errors.New("401"), hidden: errors.New("403")}, sight{}, []string{"figures  none: 401\n", "agents   unknown: 403\n"}},
		{"agents", second, first, []string{"busy [2J        2      10s            1s ago\nidle            0      10s            10s ago"}},
	} {
		got := c.now.screen(c.then)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing in\n%s", c.name, want, got)
			}
		}
		if strings.Contains(got, "\x1b") {
			t.Errorf("%s: it steers the terminal: %q", c.name, got)
		}
	}
}

// TestStatusLive: it looks once a second until it is interrupted, and writes over what it has written.
func TestStatusLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		var out strings.Builder
		looks := 0
		err := watch(ctx, &out, func(context.Context) sight {
			looks++
			return sight{at: time.Now(), unready: errors.New("connection refused"), blind: errors.New("x"), hidden: errors.New("x")}
		})
		if err != nil || looks != 4 || strings.Count(out.String(), "\x1b[H") != 4 || strings.Count(out.String(), "\x1b[2J") != 1 {
			t.Errorf("%d looks, %v: %q", looks, err, out.String())
		}
	})
}
