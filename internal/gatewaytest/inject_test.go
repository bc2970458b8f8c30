package gatewaytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// injection waits for the next injection.
func (a *Agent) injection() *pb.InjectContext {
	a.t.Helper()
	m := a.next()
	if m.GetInjectContext() == nil {
		a.t.Fatalf("agent %s: got %v instead of an injection", a.ID, m)
	}
	return m.GetInjectContext()
}

// TestInject: whoever injects something hears what the agent says to it, or that it said nothing.
func TestInject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.Agent("a", takesInjections)
		g.Agent("old")
		type answer struct {
			status int
			body   string
			after  time.Duration
		}
		inject := func(agent, body string) <-chan answer {
			ch, began := make(chan answer, 1), time.Now()
			go func() {
				resp, body := g.web(http.MethodPost, "/api/agents/"+agent+"/inject", body)
				ch <- answer{resp.StatusCode, body, time.Since(began)}
			}()
			return ch
		}
		check := func(what string, got answer, status int, after time.Duration, words ...string) {
			t.Helper()
			if got.status != status || got.after != after {
				t.Errorf("%s: %d after %s, want %d after %s: %s", what, got.status, got.after, status, after, got.body)
			}
			for _, w := range words {
				if !strings.Contains(got.body, w) {
					t.Errorf("%s: %s is not in %s", what, w, got.body)
				}
			}
		}

		answered := inject("a", `{"content":"the build is broken","priority":"immediate","source":"ci"}`)
		i := a.injection()
		if i.GetContent() != "the build is broken" || i.GetPriority() != pb.InjectionPriority_INJECTION_PRIORITY_IMMEDIATE || i.GetSource() != "ci" {
			t.Error(i)
		}
		a.Ack(i, true, "")
		check("accepted", <-answered, 200, 0, `"outcome":"accepted"`, i.GetInjectionId())
		records, err := g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Action: "inject_context", Limit: 10})
		if err != nil || len(records) != 1 || records[0].Target != "a" || !strings.Contains(records[0].Detail, i.GetInjectionId()) || strings.Contains(records[0].Detail, "broken") {
			t.Errorf("%+v %v", records, err)
		}

		answered = inject(a.Welcome.GetInstanceId(), `{"content":"x"}`)
		i = a.injection()
		if i.GetPriority() != pb.InjectionPriority_INJECTION_PRIORITY_NORMAL || i.Source != nil {
			t.Error(i)
		}
		a.Ack(i, false, "I know")
		check("refused", <-answered, 200, 0, `"outcome":"refused"`, `"reason":"I know"`, `"agent_id":"a"`)

		answered = inject("a", `{"content":"x","priority":"deferred"}`)
		late := a.injection()
		if late.GetPriority() != pb.InjectionPriority_INJECTION_PRIORITY_DEFERRED {
			t.Error(late)
		}
		check("no answer", <-answered, 202, conversation.InjectTimeout, `"outcome":"unknown"`, "has not answered in time")
		a.Ack(late, true, "") // too late, and no harm

		check("an agent that does not understand it", <-inject("old", `{"content":"x"}`), 409, 0, "does not understand injections")
		check("nobody", <-inject("nobody", `{"content":"x"}`), 503, 0, "agent unavailable")
		check("nothing", <-inject("a", `{}`), 400, 0, "content is required")
		check("a strange priority", <-inject("a", `{"content":"x","priority":"low"}`), 400, 0, "priority must be immediate, normal or deferred")

		// As many as an agent may have to answer, and one more; then it goes.
		var open []<-chan answer
		for n := range 16 {
			open = append(open, inject("a", fmt.Sprintf(`{"content":"%d"}`, n)))
			a.injection()
		}
		check("too many", <-inject("a", `{"content":"x"}`), 429, 0, "agent a has 16 injections to answer")
		a.Die()
		for _, ch := range open {
			check("the agent goes", <-ch, 202, 0, `"outcome":"unknown"`, "disconnected before it answered")
		}
	})
}

// TestInjectUnread: what an agent that reads nothing has not been sent is taken back, and whoever
// injects hears that.
func TestInjectUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		stream, err := pb.NewCovenControlClient(g.Dial()).AgentStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "a", ProtocolFeatures: []string{"injection"}}}}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); m.GetWelcome() == nil {
			t.Fatal(m, err)
		}
		body, err := json.Marshal(map[string]string{"content": strings.Repeat("x", conversation.MaxInjection)})
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan int, 16)
		for range cap(answers) {
			go func() {
				resp, _ := g.web(http.MethodPost, "/api/agents/a/inject", string(body))
				answers <- resp.StatusCode
			}()
		}
		sent, unsent := 0, 0
		for range cap(answers) {
			switch status := <-answers; status {
			case http.StatusAccepted:
				sent++
			case http.StatusServiceUnavailable:
				unsent++
			default:
				t.Errorf("status %d", status)
			}
		}
		if sent == 0 || unsent == 0 {
			t.Fatalf("%d are unknown, %d were taken back", sent, unsent)
		}
		got := 0
		go func() { time.Sleep(time.Second); _ = stream.CloseSend() }()
		for {
			m, err := stream.Recv()
			if err != nil {
				break
			}
			if m.GetInjectContext() != nil {
				got++
			}
		}
		if got != sent {
			t.Errorf("the agent got %d injections, and %d are unknown", got, sent)
		}
	})
}
