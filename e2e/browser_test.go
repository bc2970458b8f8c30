// Package e2e tests a gateway with a real browser. It is a module of its own, so that what drives
// the browser is no dependency of the gateway.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/sdk/agent"
)

// patience is how long a test may take; a browser comes back a second after it was told to.
const patience = time.Minute

// browser starts a browser and returns the context of its one tab. The test is skipped where there
// is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("there is no Chromium; on Debian: apt-get install chromium")
	}
	ctx, kill := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true))...)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(func() { closeTab(); kill() })
	if _, err := chromedp.Run(ctx, chromedp.Title()); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// follow opens an EventSource as a page would and keeps everything that it brings.
const follow = `
window.opened = 0
window.seen = []
window.source = new EventSource("/api/conversations/a/events")
source.onopen = () => { opened++ }
for (const name of ["message", "text", "tool_use", "tool_result", "done", "canceled", "error"]) {
	source.addEventListener(name, e => { if (e.data !== undefined) seen.push({id: e.lastEventId, name, data: e.data}) })
}
true`

// TestEventSource: a browser follows a conversation; the gateway is restarted under it twice, once
// in mid-answer. The browser comes back by itself, and has every event once.
func TestEventSource(t *testing.T) {
	ctx := browser(t)
	g := gatewaytest.New(t, func(c *config.Config) { c.Server.ShutdownGrace = 100 * time.Millisecond })
	welcome := make(chan struct{}, 1)
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(running, agent.Options{
			Server: g.GRPCAddr(), ID: "a", Logger: slog.New(slog.DiscardHandler), Handler: agent.HandlerFunc(count), NoResume: true,
			BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
			OnWelcome: func(agent.Welcome) { welcome <- struct{}{} },
		})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-welcome
	send(t, g, "endless")
	run(t, ctx, chromedp.Navigate(g.URL+"/"))
	run(t, ctx, chromedp.Evaluate[bool](follow))
	await(t, ctx, `seen.filter(e => e.name == "text").length >= 50`)
	g.Restart()
	<-welcome
	send(t, g, "300")
	await(t, ctx, `opened >= 2 && seen.some(e => e.name == "error") && seen.some(e => e.name == "text" && e.data.includes("300:5 "))`)
	await(t, ctx, `seen.at(-1).name == "done"`)
	g.Restart() // between answers
	<-welcome
	send(t, g, "20")
	await(t, ctx, `opened >= 3 && seen.filter(e => e.name == "done").length == 2`)

	seen := run(t, ctx, chromedp.Evaluate[[]event]("seen"))
	var got transcript
	position := int64(0)
	for _, e := range seen {
		x := got.add(t, []byte(e.Data))
		if x.First != position+1 || e.ID != fmt.Sprint(x.Seq) || e.Name != x.Type {
			t.Errorf("behind event %d the browser has %d to %d, id %s, named %s", position, x.First, x.Seq, e.ID, e.Name)
		}
		position = x.Seq
	}
	var want transcript
	for after := int64(0); ; {
		var page struct {
			Events []json.RawMessage
			Next   int64
			More   bool `json:"has_more"`
		}
		get(t, g, fmt.Sprintf("/api/conversations/a/events?limit=1000&after=%d", after), &page)
		for _, e := range page.Events {
			want.add(t, e)
		}
		if after = page.Next; !page.More {
			break
		}
	}
	if got.String() != want.String() {
		t.Errorf("the browser has\n%s\nthe log\n%s", got.String(), want.String())
	}
	if !strings.Contains(got.String(), "\nerror\n") || !strings.HasSuffix(got.String(), "20:19 \ndone\n") {
		t.Errorf("the conversation is\n%s", got.String())
	}
}

// count answers "N" with N increments, and anything else with increments until the turn is over.
func count(ctx context.Context, m *agent.Message, w *agent.Writer) error {
	n := 1 << 30
	_, _ = fmt.Sscan(m.Content, &n)
	tick := time.NewTicker(2 * time.Millisecond) // as a model does
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.Textf("%s:%d ", m.Content, i); err != nil {
			return err
		}
	}
	return nil
}

// An event is what a browser makes of an event.
type event struct{ ID, Name, Data string }

// A transcript is a conversation in words, with increments joined.
type transcript struct{ strings.Builder }

type object struct {
	Seq     int64
	First   int64 `json:"first_seq"`
	Type    string
	Text    string
	Content string
}

func (s *transcript) add(t *testing.T, data []byte) (x object) {
	t.Helper()
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	if x.First == 0 {
		x.First = x.Seq
	}
	if x.Type == "text" {
		s.WriteString(x.Text)
	} else {
		fmt.Fprintf(s, "%s\n%s", x.Content, x.Type)
		s.WriteString("\n")
	}
	return x
}

func run[T any](t *testing.T, ctx context.Context, action chromedp.Action[T]) T {
	t.Helper()
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	x, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// await waits until an expression is true in the page.
func await(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	poll := chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience))
	if _, err := chromedp.Run(ctx, poll); err != nil {
		state := run(t, ctx, chromedp.Evaluate[string](`JSON.stringify({opened, ready: source.readyState, last: seen.slice(-3)})`))
		t.Fatalf("%s: %v; the page has %s", expression, err, state)
	}
}

func send(t *testing.T, g *gatewaytest.Gateway, text string) {
	t.Helper()
	resp, err := g.Client.Post(g.URL+"/api/send", "application/json", strings.NewReader(fmt.Sprintf(`{"agent_id":"a","sender":"me","content":%q}`, text)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // a turn belongs to no connection
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, b)
	}
}

func get(t *testing.T, g *gatewaytest.Gateway, path string, v any) {
	t.Helper()
	resp, err := g.Client.Get(g.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
}
