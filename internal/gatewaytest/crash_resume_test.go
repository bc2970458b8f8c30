package gatewaytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	"coven-gateway/sdk/agent"
)

// resumeRounds is how often TestCrashResume kills the gateway; COVEN_RESUME_ROUNDS changes it.
const resumeRounds = 5

// TestCrashResume kills a real gateway process under load whose agents resume. What each client has seen in the end
// is the same, byte for byte, as if nothing had happened.
func TestCrashResume(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	n := roundsOf(t, "COVEN_RESUME_ROUNDS", resumeRounds)
	p := newProcess(t)
	p.start()
	ctx, stop := context.WithCancel(context.Background())
	var agents, clients sync.WaitGroup
	var mu sync.Mutex
	turns, cuts, lost := 0, 0, 0
	begun := map[string]bool{}                            // messages that agents have got
	rest, end := context.WithCancel(context.Background()) // of the clients: they finish what they have begun
	for i := range 2 {
		id := fmt.Sprintf("agent-%d", i)
		agents.Go(func() {
			err := agent.Run(ctx, agent.Options{
				Server: p.grpc, ID: id, Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
					mu.Lock()
					begun[m.Content] = true
					mu.Unlock()
					return recite(ctx, m, w)
				}), Logger: slog.New(slog.DiscardHandler),
				BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
			})
			if err != nil {
				t.Error(err)
			}
		})
		for c := range 3 {
			clients.Go(func() {
				for k := 0; rest.Err() == nil; k++ {
					content := fmt.Sprintf("%s-%d-%d %d", id, c, k, 20+rand.IntN(300))
					got, broke := converse(t, p, id, content)
					mu.Lock()
					undelivered := !begun[content] && got == "error the agent came back without the turn\n"
					if undelivered { // the gateway died between record and dispatch, and nothing is run twice
						lost++
					}
					turns++
					cuts += broke
					mu.Unlock()
					if want := recital(content); got != want && !undelivered {
						t.Errorf("%s: a client has seen\n%s\ninstead of\n%s", content, got, want)
					}
				}
			})
		}
	}
	var slowest time.Duration
	for range n {
		time.Sleep(50*time.Millisecond + rand.N(300*time.Millisecond)) // how long it lives, not a wait
		p.kill()
		slowest = max(slowest, p.start())
	}
	end()
	clients.Wait()
	stop()
	agents.Wait()
	t.Logf("%d kills, slowest restart %v; %d turns, whose streams broke %d times; %d were interrupted before any agent had their message", n, slowest, turns, cuts, lost)
	if n > 0 && cuts == 0 {
		t.Error("no stream broke")
	}
}

// recite answers a message with what recital says, in pieces.
func recite(ctx context.Context, m *agent.Message, w *agent.Writer) error {
	name, count, _ := strings.Cut(m.Content, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for i := range n {
		if err := w.Textf("%s:%d ", name, i); err != nil {
			return err
		}
		switch {
		case i%40 == 7:
			if err := w.ToolUse(fmt.Sprint(i), "tool", i); err != nil {
				return err
			}
		case i%25 == 3:
			select {
			case <-time.After(10 * time.Millisecond): // it thinks
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// recital is what a client sees of the answer to a message, its text between two other events as one.
func recital(content string) string {
	name, count, _ := strings.Cut(content, " ")
	n, _ := strconv.Atoi(count)
	var whole, text, out strings.Builder
	for i := range n {
		piece := fmt.Sprintf("%s:%d ", name, i)
		whole.WriteString(piece)
		text.WriteString(piece)
		if i%40 == 7 {
			fmt.Fprintf(&out, "text %s\ntool_use %d\n", text.String(), i)
			text.Reset()
		}
	}
	if text.Len() > 0 {
		fmt.Fprintf(&out, "text %s\n", text.String())
	}
	fmt.Fprintf(&out, "done %s\n", whole.String())
	return out.String()
}

// converse sends a message and reads its answer to the end, over as many connections as it takes. It returns what
// was seen and how often the connection broke.
func converse(t *testing.T, p *process, agentID, content string) (transcript string, broke int) {
	var out, text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			fmt.Fprintf(&out, "text %s\n", text.String())
			text.Reset()
		}
	}
	turn, last := "", ""
	begun := time.Now()
	for time.Since(begun) < 3*gatewaytest.Patience {
		method, path, body := http.MethodPost, "/api/send", fmt.Sprintf(`{"agent_id":%q,"sender":"me","content":%q,"idempotency_key":%q}`, agentID, content, content)
		if turn != "" {
			method, path, body = http.MethodGet, "/api/turns/"+turn+"/events", ""
		}
		req, err := http.NewRequest(method, "http://"+p.http+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return "", broke
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			time.Sleep(2 * time.Millisecond) // the gateway is down
			continue
		}
		if resp.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable { // the agent is not back yet
				t.Errorf("%s: %s %s", content, resp.Status, b)
				return "", broke
			}
			time.Sleep(2 * time.Millisecond) // polls the gateway
			continue
		}
		for r := sse.NewReader(resp.Body); ; {
			e, err := r.Next()
			if err != nil {
				break
			}
			var data struct {
				RequestID    string `json:"request_id"`
				Text, Error  string
				ID           string
				FullResponse string `json:"full_response"`
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Error(err)
			}
			if e.ID != "" {
				last = e.ID
			}
			switch e.Name {
			case "started":
				turn = data.RequestID
			case "text":
				text.WriteString(data.Text)
			case "tool_use":
				flush()
				fmt.Fprintf(&out, "tool_use %s\n", data.ID)
			case "done", "error", "canceled":
				flush()
				fmt.Fprintf(&out, "%s %s%s\n", e.Name, data.FullResponse, data.Error)
				resp.Body.Close()
				return out.String(), broke
			}
		}
		resp.Body.Close()
		broke++
	}
	t.Errorf("%s: turn %s does not end", content, turn)
	return out.String(), broke
}
