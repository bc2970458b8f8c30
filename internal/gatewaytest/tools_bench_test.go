package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// BenchmarkBuiltinTool is an agent that calls a trivial built-in tool, 32 calls at a time.
func BenchmarkBuiltinTool(b *testing.B) {
	g := New(b)
	a := g.Agent("a", everything)
	const window = 32
	sent := 0
	for ; sent < min(window, b.N); sent++ {
		a.Ask(fmt.Sprint(sent), "note_list", "{}")
	}
	for n := range b.N {
		if r := a.next().GetPackToolResult(); r.GetError() != "" {
			b.Fatal(n, r.GetError())
		}
		if sent < b.N {
			a.Ask(fmt.Sprint(sent), "note_list", "{}")
			sent++
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkRemotePack is a call of a pack that answers at once, one at a time.
func BenchmarkRemotePack(b *testing.B) {
	g := New(b)
	p := g.Pack(context.Background(), testPack())
	go func() { _ = p.Serve(func(*pb.ExecuteToolRequest) string { return "{}" }) }()
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if _, err := g.Tools().Call(b.Context(), packs.Caller{Principal: auth.Anonymous}, "echo", json.RawMessage("{}")); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
