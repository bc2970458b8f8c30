package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// callTool sends a call of a tool.
func (a *remote) callTool(id, tool, input string) {
	a.t.Helper()
	a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{RequestId: id, ToolName: tool, InputJson: input}}})
}

// result waits for the result of a call, as id, output and error.
func (a *remote) result() string {
	a.t.Helper()
	m := a.next()
	r := m.GetPackToolResult()
	if r == nil {
		a.t.Fatalf("got %v instead of a result", m)
	}
	return strings.TrimSpace(r.GetRequestId() + " " + r.GetOutputJson() + " " + r.GetError())
}

// offer adds tools to the gateway.
func (g *gateway) offer(tools ...packs.Tool) *packs.Registration {
	g.t.Helper()
	r, err := g.tools.Add(packs.Pack{ID: fmt.Sprintf("pack of %s", tools[0].Name), Kind: packs.Builtin, Tools: tools})
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// names are the names of tools.
func names(list []*pb.ToolDefinition) string {
	var all []string
	for _, t := range list {
		all = append(all, t.GetName())
	}
	return strings.Join(all, " ")
}

// hosting registers an agent that hosts tools.
func hosting(id string, tools ...*pb.ToolDefinition) *pb.AgentMessage {
	return &pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: id, Name: id, Tools: tools}}}
}

// connect registers with any message and waits for Welcome.
func (g *gateway) connect(register *pb.AgentMessage) (*remote, *pb.Welcome) {
	g.t.Helper()
	a := g.stream("p")
	a.send(register)
	w := a.next().GetWelcome()
	if w == nil {
		g.t.Fatal("there was no welcome")
	}
	return a, w
}

// Tools run side by side, never in the way of what the agent says meanwhile, and results come as
// the calls end.
func TestToolCalls(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		release := make(chan struct{})
		began := make(chan packs.Call, maxToolCalls)
		g.offer(
			packs.Tool{Name: "slow", Call: func(ctx context.Context, c *packs.Call) (string, error) {
				began <- *c
				select {
				case <-release:
				case <-ctx.Done():
				}
				return string(c.Input), ctx.Err()
			}},
			packs.Tool{Name: "fast", Call: func(_ context.Context, c *packs.Call) (string, error) { return string(c.Input), nil }},
			packs.Tool{Name: "fails", Call: func(context.Context, *packs.Call) (string, error) { return "", packs.Failed("no luck") }},
			packs.Tool{Name: "secret", Needs: []string{"chat", "admin"}, Call: func(context.Context, *packs.Call) (string, error) { return "{}", nil }},
		)
		a := g.agent("a")
		_, sink := g.say("a", "turn")
		a.message()
		a.callTool("1", "slow", `{"n":1}`)
		c := <-began
		equal(t, "caller", c.Principal.ID+" "+c.AgentID+" "+c.TurnID, "p a turn")
		if c.ID == "1" {
			t.Error("the id of the call is the agent's")
		}
		a.callTool("2", "fast", `{"n":2}`)
		equal(t, "result", a.result(), `2 {"n":2}`)
		a.text("turn", "hello")
		a.callTool("3", "fails", "")
		equal(t, "result", a.result(), "3  no luck")
		equal(t, "events", len(sink.events()), 1)
		a.callTool("1", "fast", "")
		equal(t, "result", a.result(), "1  duplicate request ID")
		a.callTool("4", "nothing", "")
		equal(t, "result", a.result(), "4  tool not found")
		a.callTool("5", "secret", "") // it has chat, and has not asked for admin
		equal(t, "result", a.result(), "5  missing capability: admin")
		g.say("a", "another turn")
		a.message()
		for i := range maxToolCalls - 1 {
			a.callTool(fmt.Sprintf("s%d", i), "slow", "")
			equal(t, "turn", (<-began).TurnID, "") // it could be either
		}
		a.callTool("6", "fast", "")
		equal(t, "result", a.result(), "6  an agent can have 64 tool calls open; wait for one of them")
		close(release)
		got := map[string]bool{}
		for range maxToolCalls {
			id, _, _ := strings.Cut(a.result(), " ")
			got[id] = true
		}
		equal(t, "results", len(got), maxToolCalls)
		a.callTool("1", "fast", "") // an id can be used again
		equal(t, "result", a.result(), "1 {}")
	})
}

// The calls of an agent end with its stream, and a shutdown waits for them.
func TestToolCallsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		began, ended := make(chan struct{}), make(chan time.Time, 1)
		var returned atomic.Bool
		g.offer(packs.Tool{Name: "slow", Call: func(ctx context.Context, _ *packs.Call) (string, error) {
			close(began)
			<-ctx.Done()
			ended <- time.Now()
			time.Sleep(endGrace / 2) // it is not as quick as it should be
			returned.Store(true)
			return "", ctx.Err()
		}})
		a := g.agent("a")
		a.callTool("1", "slow", "")
		<-began
		start := time.Now()
		a.cancel()
		equal(t, "time", (<-ended).Sub(start), 0)
		if err := g.Shutdown(t.Context(), "bye"); err != nil || !returned.Load() {
			t.Errorf("the shutdown did not wait for the tool: %v", err)
		}
	})
}

// What an agent may call it is told, and again when that changes if it understands it.
func TestAvailableTools(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.offer(packs.Tool{Name: "b", Timeout: 1500 * time.Millisecond, Needs: []string{"chat"}}, packs.Tool{Name: "a"}, packs.Tool{Name: "c", Needs: []string{"admin"}})
		_, w := g.connect(hosting("plain"))
		equal(t, "tools", names(w.GetAvailableTools()), "a")
		a := g.register("a", "p", featureToolUpdates)
		w = a.next().GetWelcome()
		equal(t, "tools", names(w.GetAvailableTools()), "a b")
		b := w.GetAvailableTools()[1]
		equal(t, "definition", fmt.Sprint(b.GetInputSchemaJson(), b.GetRequiredCapabilities(), b.GetTimeoutSeconds()), `{"type":"object"}[chat] 2`)

		r := g.offer(packs.Tool{Name: "d"})
		equal(t, "tools", names(a.next().GetToolUpdate().GetTools()), "a b d")
		r.Remove()
		equal(t, "tools", names(a.next().GetToolUpdate().GetTools()), "a b")
		host, w := g.connect(hosting("host", &pb.ToolDefinition{Name: "hosted"}, &pb.ToolDefinition{Name: "a"}))
		equal(t, "tools", names(w.GetAvailableTools()), "a") // not its own
		equal(t, "tools", names(a.next().GetToolUpdate().GetTools()), "a b hosted")
		host.cancel()
		equal(t, "tools", names(a.next().GetToolUpdate().GetTools()), "a b")
	})
}

// An agent can host tools for others.
func TestHostedTools(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		host, _ := g.connect(hosting("host", &pb.ToolDefinition{Name: "hosted", TimeoutSeconds: 5}))
		type outcome struct {
			output string
			err    error
		}
		results := make(chan outcome, 1)
		call := func(ctx context.Context) {
			out, err := g.tools.Call(ctx, packs.Caller{AgentID: "caller"}, "hosted", json.RawMessage(`{"n":1}`))
			results <- outcome{out, err}
		}
		answer := func(r *pb.ExecuteToolResponse) {
			host.send(&pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: r}})
		}
		go call(t.Context())
		r := host.next().GetExecutePackTool()
		equal(t, "call", r.GetToolName()+r.GetInputJson(), `hosted{"n":1}`)
		answer(&pb.ExecuteToolResponse{RequestId: "another", Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: "1"}})
		answer(&pb.ExecuteToolResponse{RequestId: r.GetRequestId(), Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: "2"}})
		answer(&pb.ExecuteToolResponse{RequestId: r.GetRequestId(), Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: "3"}})
		equal(t, "result", <-results, outcome{"2", nil})
		go call(t.Context())
		answer(&pb.ExecuteToolResponse{RequestId: host.next().GetExecutePackTool().GetRequestId(), Result: &pb.ExecuteToolResponse_Error{Error: "no luck"}})
		equal(t, "failure", fault.Message((<-results).err), "no luck")
		go call(t.Context())
		host.next()
		equal(t, "late", fault.Message((<-results).err), "context deadline exceeded: the tool hosted has not answered within 5s")

		host.callTool("1", "hosted", "")
		equal(t, "own tool", host.result(), `1  agent "host" would wait for itself: the call could never end`)

		for range 3 {
			go call(t.Context())
		}
		for range 3 {
			host.next()
		}
		start := time.Now()
		host.cancel()
		for range 3 {
			equal(t, "disconnected", fault.Message((<-results).err), "pack disconnected")
		}
		equal(t, "time", time.Since(start), 0)
		g.connect(hosting("host", &pb.ToolDefinition{Name: "hosted"})) // the names are free again
		equal(t, "tools", len(g.tools.Tools()), 1)
	})
}

// Calls of hosted tools that nobody waits for are not sent to an agent that reads late.
func TestStaleHostedCalls(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		host, _ := g.connect(hosting("host", &pb.ToolDefinition{Name: "hosted"}))
		ctx, cancel := context.WithCancel(t.Context())
		large := json.RawMessage(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`)
		done := make(chan error, 40)
		for range 40 {
			go func() {
				_, err := g.tools.Call(ctx, packs.Caller{}, "hosted", large)
				done <- err
			}()
		}
		time.Sleep(time.Second)
		cancel()
		for range 40 {
			equal(t, "cancelled", fault.Message(<-done), "context canceled")
		}
		go func() {
			_, err := g.tools.Call(t.Context(), packs.Caller{}, "hosted", nil)
			done <- err
		}()
		stale := 0
		for ; host.next().GetExecutePackTool().GetInputJson() != "{}"; stale++ {
		}
		if stale > 3 { // that were on their way
			t.Errorf("%d calls were sent that nobody waited for", stale)
		}
		host.cancel()
		<-done
	})
}
