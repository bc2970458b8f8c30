package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
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

// BenchmarkStreamBesideTools is the time from an increment that an agent sends to a reader that sees
// it, with nothing else on the agent's connection, and with 50 calls of a slow tool and a question to
// people that wait on it.
func BenchmarkStreamBesideTools(b *testing.B) {
	for _, calls := range []int{0, 50} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			g := New(b)
			p := g.Pack(context.Background(), testPack())
			a := g.Agent("a", everything)
			turn, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"})
			if err != nil {
				b.Fatal(err)
			}
			a.Message()
			for n := range calls {
				a.Ask(fmt.Sprint(n), "echo", "{}")
				p.Next() // and never answers
			}
			if calls > 0 {
				a.Ask("question", "ask_user", `{"question":"q","options":[{"label":"a"}],"timeout_seconds":300}`)
			}
			r, err := g.Conversations().Reader(Ctx(), "a", conversation.Filter{TurnID: turn.ID}, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			took := make([]time.Duration, 0, b.N)
			for n := 0; b.Loop(); n++ {
				word, start := fmt.Sprint(n, " "), time.Now()
				a.Text(turn.ID, word)
				for seen := false; !seen; {
					evs, err := r.Next(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					for _, e := range evs {
						t, ok := e.Body.(conversation.Text)
						seen = seen || ok && t.Text == word
					}
				}
				took = append(took, time.Since(start))
			}
			a.Done(turn.ID, "")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
