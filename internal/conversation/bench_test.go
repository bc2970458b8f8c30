package conversation_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"coven-gateway/internal/conversation"
)

// BenchmarkIncrements is the core without transports: turns write increments as fast as they can,
// each followed by a reader, into a durable store.
func BenchmarkIncrements(b *testing.B) {
	for _, shape := range []struct{ agents, turns int }{{1, 1}, {8, 8}, {20, 1}} {
		b.Run(fmt.Sprintf("agents=%d/turns=%d", shape.agents, shape.turns), func(b *testing.B) {
			w := newWorld(b, filepath.Join(b.TempDir(), "gateway.db"))
			defer w.stop(false)
			const increments = 2000
			cpu, start := cpuTime(b), time.Now()
			var wg sync.WaitGroup
			for b.Loop() {
				for i := range shape.agents * shape.turns {
					agent := fmt.Sprintf("agent-%d", i%shape.agents)
					t, err := w.service.Send(w.ctx(), conversation.SendRequest{AgentID: agent, Sender: "me", Frontend: "direct", Text: "go"})
					if err != nil {
						b.Fatal(err)
					}
					sink := w.agents.sink(t.ID)
					wg.Go(func() {
						for range increments {
							if err := sink.On(context.Background(), conversation.Text{Text: "word "}); err != nil {
								b.Error(err)
								return
							}
						}
						_ = sink.On(context.Background(), conversation.Ended{State: conversation.Done})
					})
					wg.Go(func() { follow(b, w, t) })
				}
				wg.Wait()
			}
			n := float64(b.N * shape.agents * shape.turns * increments)
			b.ReportMetric(n/time.Since(start).Seconds(), "increments/s")
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/increment")
		})
	}
}

// follow reads a turn to its end.
func follow(tb testing.TB, w *world, t conversation.Turn) {
	r, err := w.service.Reader(w.ctx(), t.AgentID, conversation.Filter{TurnID: t.ID}, 0)
	if err != nil {
		tb.Error(err)
		return
	}
	defer r.Close()
	for {
		evs, err := r.Next(w.ctx())
		if err != nil {
			tb.Error(err)
			return
		}
		if _, ok := evs[len(evs)-1].Body.(conversation.Ended); ok {
			return
		}
	}
}

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
