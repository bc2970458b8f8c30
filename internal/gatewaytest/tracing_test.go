package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/metadata"

	"coven-gateway/internal/packs/packgrpc"
	pb "coven-gateway/proto/coven"
)

// What a caller says that traces.
const (
	callersTrace  = "0af7651916cd43dd8448eb211c80319c"
	callersSpan   = "b7ad6b7169203331"
	callersParent = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// traced starts a gateway with spans that go to the exporter.
func traced(t *testing.T) (*Gateway, spanLog) {
	exporter := spanLog{tracetest.NewInMemoryExporter(), make(chan struct{}, 1)}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	g := New(t)
	g.Observe(provider, slog.DiscardHandler)
	return g, exporter
}

// tree draws the spans of a trace, each below its parent, in the order in which they began.
func tree(spans tracetest.SpanStubs, trace string) string {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	var b strings.Builder
	var below func(parent, indent string)
	below = func(parent, indent string) {
		for _, s := range spans {
			if s.SpanContext.TraceID().String() != trace || s.Parent.SpanID().String() != parent {
				continue
			}
			fmt.Fprintf(&b, "%s%s", indent, s.Name)
			for _, e := range s.Events {
				fmt.Fprintf(&b, " (%s)", e.Name)
			}
			if s.Status.Code != codes.Unset {
				fmt.Fprintf(&b, " [%s %s]", s.Status.Code, s.Status.Description)
			}
			b.WriteString("\n")
			below(s.SpanContext.SpanID().String(), indent+"  ")
		}
	}
	below(callersSpan, "")
	return b.String()
}

// A spanLog keeps spans.
type spanLog struct {
	*tracetest.InMemoryExporter
	more chan struct{} // capacity 1: there are more
}

// ExportSpans implements sdk.SpanExporter.
func (l spanLog) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := l.InMemoryExporter.ExportSpans(ctx, spans)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return err
}

// await waits until n spans of a name have ended: some do after the caller has its answer.
func (l spanLog) await(t *testing.T, n int, name string) tracetest.SpanStubs {
	t.Helper()
	late := time.After(Patience)
	for {
		spans := l.GetSpans()
		found := 0
		for _, s := range spans {
			if s.Name == name {
				found++
			}
		}
		if found >= n {
			return spans
		}
		select {
		case <-l.more:
		case <-late:
			t.Fatalf("%d spans %q have ended, want %d", found, name, n)
		}
	}
}

// attributes returns those of the first span of a name that belong to the gateway.
func attributes(spans tracetest.SpanStubs, name string) map[string]string {
	found := make(map[string]string)
	for _, s := range spans {
		if s.Name != name {
			continue
		}
		for _, kv := range s.Attributes {
			if strings.HasPrefix(string(kv.Key), "coven.") && kv.Value.Type() == attribute.STRING {
				found[string(kv.Key)] = kv.Value.AsString()
			}
		}
		return found
	}
	return nil
}

// TestTraceOfATurn: whatever happens for one message is one trace, which the caller has begun and the pack
// continues.
func TestTraceOfATurn(t *testing.T) {
	g, exporter := traced(t)
	pack := g.Pack(metadata.AppendToOutgoingContext(context.Background(), packgrpc.FeaturesHeader, "something, trace_context"), testPack())
	plain := g.Pack(context.Background(), &pb.PackManifest{PackId: "plain", Version: "1", Tools: []*pb.ToolDefinition{definition("plain", 30)}})
	agent := g.Agent("a", everything)

	for _, c := range []struct {
		name, root string
		send       func()
	}{
		{"HTTP", "POST /api/send", func() {
			r, err := http.NewRequest(http.MethodPost, g.URL+"/api/send", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hello"}`))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json")
			r.Header.Set("Traceparent", callersParent)
			resp, err := g.Client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}},
		{"gRPC", "coven.ClientService/SendMessage", func() {
			ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", callersParent)
			_, err := pb.NewClientServiceClient(g.Dial()).SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hello", IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			exporter.Reset()
			sent := make(chan struct{})
			go func() { defer close(sent); c.send() }()
			m := agent.Message()
			agent.Text(m.GetRequestId(), "one moment")
			agent.Ask("1", "echo", `{}`)
			called := pack.Next()
			if err := pack.Return(called.GetRequestId(), `{}`); err != nil {
				t.Fatal(err)
			}
			agent.Result("1")
			agent.Ask("2", "plain", `{}`)
			other := plain.Next()
			if err := plain.Fail(other.GetRequestId(), "a secret reason"); err != nil {
				t.Fatal(err)
			}
			agent.Result("2")
			agent.Done(m.GetRequestId(), "one moment")
			<-sent
			exporter.await(t, 1, "turn")
			spans := exporter.await(t, 1, c.root)

			want := c.root + `
  record
  turn (first event)
    dispatch
    tool echo
    tool plain [Error tool_failed]
`
			if got := tree(spans, callersTrace); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			turn := attributes(spans, "turn")
			for key, want := range map[string]string{"coven.turn_id": m.GetRequestId(), "coven.agent_id": "a", "coven.thread_id": m.GetThreadId(), "coven.principal_id": "anonymous", "coven.turn_state": "done"} {
				if turn[key] != want {
					t.Errorf("%s of the turn is %q, want %q", key, turn[key], want)
				}
			}
			for _, name := range []string{c.root, "tool echo"} {
				if got := attributes(spans, name)["coven.turn_id"]; got != m.GetRequestId() {
					t.Errorf("%s has the turn %q, want %q", name, got, m.GetRequestId())
				}
			}
			var tool string
			for _, s := range spans {
				if s.Name == "tool echo" {
					tool = "00-" + callersTrace + "-" + s.SpanContext.SpanID().String() + "-01"
				}
				for _, said := range []string{"one moment", "hello", "a secret reason"} {
					if strings.Contains(fmt.Sprint(s), said) {
						t.Errorf("the span %s tells what was said: %v", s.Name, s)
					}
				}
			}
			if called.GetTraceparent() != tool {
				t.Errorf("the pack got the traceparent %q, want %q", called.GetTraceparent(), tool)
			}
			if other.GetTraceparent() != "" {
				t.Errorf("a pack that did not ask for it got a traceparent")
			}
		})
	}
}

// TestLogLines: the lines of requests, calls, turns and tools say which request, which turn and whose, so that
// one leads to the others; without tracing as well.
func TestLogLines(t *testing.T) {
	g := New(t)
	read, write := io.Pipe()
	defer write.Close() // what the gateway says when it stops goes nowhere
	lines := make(chan map[string]any, 1000)
	go func() {
		defer close(lines)
		for dec := json.NewDecoder(read); ; {
			var line map[string]any
			if dec.Decode(&line) != nil {
				return
			}
			lines <- line
		}
	}()
	g.Observe(nil, slog.NewJSONHandler(write, nil))
	agent := g.Agent("a", everything)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		r, err := http.NewRequest(http.MethodPost, g.URL+"/api/agents/a/send", strings.NewReader(`{"message":"hello"}`))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Request-Id", "over-http")
		resp, err := g.Client.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
	}()
	first := agent.Message()
	if _, words := agent.Call("todo_list", `{}`); words != "" {
		t.Fatal(words)
	}
	agent.Done(first.GetRequestId(), "")
	<-sent
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-request-id", "over-grpc")
	if _, err := pb.NewClientServiceClient(g.Dial()).SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hello", IdempotencyKey: "k"}); err != nil {
		t.Fatal(err)
	}
	second := agent.Message()
	agent.Done(second.GetRequestId(), "")

	want := map[string]map[string]string{
		"http " + first.GetRequestId():      {"request_id": "over-http", "principal": "anonymous"},
		"tool call " + first.GetRequestId(): {"agent_id": "a", "principal": "anonymous", "tool": "todo_list"},
		"turn " + first.GetRequestId():      {"agent_id": "a", "principal": "anonymous", "state": "done", "thread_id": first.GetThreadId()},
		"grpc " + second.GetRequestId():     {"request_id": "over-grpc", "principal": "anonymous"},
		"turn " + second.GetRequestId():     {"agent_id": "a", "state": "done"},
	}
	late := time.After(Patience)
	for len(want) > 0 {
		select {
		case line := <-lines:
			name := fmt.Sprintf("%s %s", line["msg"], line["turn_id"])
			for key, value := range want[name] {
				if line[key] != value {
					t.Errorf("%s of the line %v is not %q", key, line, value)
				}
			}
			delete(want, name)
		case <-late:
			t.Fatalf("there are no lines for %v", want)
		}
	}
}

// TestTraceOfFailures: what goes wrong is marked, and those who only watch are not traced.
func TestTraceOfFailures(t *testing.T) {
	g, exporter := traced(t)
	agent := g.Agent("a")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", callersParent)
		client := pb.NewClientServiceClient(g.Dial())
		if _, err := client.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hello", IdempotencyKey: "k"}); err != nil {
			t.Error(err)
		}
		if _, err := client.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "nobody", Content: "hello", IdempotencyKey: "l"}); err == nil {
			t.Error("a message to nobody was taken")
		}
	}()
	agent.Message()
	<-sent
	agent.Die()
	for _, path := range []string{"/health", "/health/ready", "/metrics"} {
		resp, err := g.Client.Get(g.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	exporter.await(t, 1, "turn")
	spans := exporter.await(t, 2, "coven.ClientService/SendMessage")
	want := `coven.ClientService/SendMessage
  record
  turn [Error interrupted]
    dispatch
coven.ClientService/SendMessage [Error NotFound]
`
	if got := tree(spans, callersTrace); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, s := range spans {
		if strings.Contains(s.Name, "health") || strings.Contains(s.Name, "metrics") || strings.Contains(s.Name, "AgentStream") {
			t.Errorf("there is a span %s", s.Name)
		}
	}
}
