package e2e

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"coven-gateway/internal/config"
	"coven-gateway/internal/demo"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/sdk/agent"
)

// A window is a browser with the pages of a gateway. What it complains about, and each request that leaves the
// gateway, fails its test.
type window struct {
	t   *testing.T
	g   *gatewaytest.Gateway
	ctx context.Context

	mu    sync.Mutex
	down  bool     // the gateway is being restarted: what cannot be loaded is no complaint
	asks  bool     // the gateway asks who is there: what it refuses is no complaint
	wrong []string // guarded by mu
}

// open shows a page in a browser of its own, which is made ready before.
func open(t *testing.T, g *gatewaytest.Gateway, path string, ready ...func(*window)) *window {
	t.Helper()
	w := &window{t: t, g: g}
	ctx := browser(t)
	if err := chromedp.Listen(ctx, w.watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, x := range w.wrong {
			t.Error(x)
		}
	})
	w.ctx = ctx
	w.size(1280, 800)
	for _, f := range ready {
		f(w)
	}
	run(t, ctx, chromedp.Navigate(g.URL+path))
	return w
}

func (w *window) watch(ev any) {
	complain := func(format string, args ...any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
	}
	switch e := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, a := range e.Args {
				complain("console: %s %s", a.Value, a.Description)
			}
		}
	case *runtime.EventExceptionThrown:
		complain("exception: %v %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *log.EventEntryAdded:
		w.mu.Lock()
		expected := w.down || w.asks && strings.Contains(e.Entry.Text, "with a status of 4")
		w.mu.Unlock()
		if e.Entry.Level == log.EntryLevelError && (!expected || e.Entry.Source != log.EntrySourceNetwork) {
			complain("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if own, _ := url.Parse(w.g.URL); err != nil || (u.Host != own.Host && u.Scheme != "data" && u.Scheme != "blob") {
			complain("a request leaves the gateway: %s", e.Request.URL)
		}
	}
}

// restart stops the gateway and starts it again, which the window does not complain about.
func (w *window) restart() {
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.g.Restart()
}

func (w *window) size(width, height int64) { run(w.t, w.ctx, chromedp.EmulateViewport(width, height)) }

// await waits until an expression is true in the page.
func (w *window) await(expression string) {
	w.t.Helper()
	deadline := time.Now().Add(patience / 6)
	for !eval[bool](w, "!!("+expression+")") {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not true in time; the page says\n%s", expression, eval[string](w, "document.body.innerText"))
		}
		<-time.After(pollEvery)
	}
}

// pollEvery is how often a page is looked at.
const pollEvery = 30 * time.Millisecond

// text waits until the conversation has a text.
func (w *window) text(s string) {
	w.t.Helper()
	w.await(fmt.Sprintf("document.querySelector('.log')?.innerText.includes(%q)", s))
}

func eval[T any](w *window, expression string) T {
	w.t.Helper()
	return run(w.t, w.ctx, chromedp.Evaluate[T](expression))
}

// say writes a message and sends it with Enter.
func (w *window) say(s string) {
	w.t.Helper()
	w.await("document.querySelector('.composer textarea:enabled')?.placeholder.startsWith('Message')")
	eval[bool](w, fmt.Sprintf(`(() => {
		const a = document.querySelector('.composer textarea')
		a.focus()
		a.value = %q
		a.dispatchEvent(new Event('input', {bubbles: true}))
		a.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true}))
		return true
	})()`, s))
	w.await("document.querySelector('.composer textarea')?.value === ''")
}

// press clicks what has a name.
func (w *window) press(name string) {
	w.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll('button, a, [role=option]')].find(b => !b.disabled && (b.ariaLabel ?? b.innerText).trim().startsWith(%q))`, name)
	w.await(find)
	eval[bool](w, find+".click() ?? true")
}

// withDemo runs a gateway with the demo agent, whose pace is quick.
func withDemo(t *testing.T, pace time.Duration) (*gatewaytest.Gateway, func()) {
	t.Helper()
	g := gatewaytest.New(t, func(c *config.Config) { c.Server.ShutdownGrace = 100 * time.Millisecond })
	return g, startAgent(t, g, demo.ID, demo.Handler{Pace: pace})
}

// startAgent connects an agent until the test ends, and returns what waits until it is there.
func startAgent(t *testing.T, g *gatewaytest.Gateway, id string, h agent.Handler, configure ...func(*agent.Options)) (welcomed func()) {
	t.Helper()
	welcome := make(chan struct{}, 1)
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	o := agent.Options{
		Server: g.GRPCAddr(), ID: id, Name: strings.ToUpper(id[:1]) + id[1:], Logger: slog.New(slog.DiscardHandler), Handler: h,
		BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Capabilities: []string{"base", "chat", "notes", "ui"},
		OnWelcome: func(agent.Welcome) { welcome <- struct{}{} },
	}
	for _, f := range configure {
		f(&o)
	}
	go func() { done <- agent.Run(running, o) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-welcome
	return func() { <-welcome }
}

// TestChat: a conversation from its first word on, in two windows, across a reload.
func TestChat(t *testing.T) {
	g, _ := withDemo(t, time.Millisecond)
	w := open(t, g, "/")
	w.say("a word & <b>another</b>")
	w.text("That is 4 words")
	w.await("location.pathname.startsWith('/t/')")
	w.await("document.querySelector('.markdown table') && document.querySelector('.code pre code span.hl-string')")
	w.await("document.querySelector('.turn-foot')?.innerText.includes('tokens in')")
	thread := eval[string](w, "location.pathname")

	t.Run("another window sees the same, live", func(t *testing.T) {
		other := open(t, g, thread)
		other.text("That is 4 words")
		w.say("/count 40")
		for _, x := range []*window{w, other} {
			x.text("39 40")
			x.await("document.querySelectorAll('.turn').length == 2 && document.querySelector('.turn:last-child').ariaBusy == 'false'")
		}
		if a, b := eval[string](w, "document.querySelector('.log-inner').innerText"), eval[string](other, "document.querySelector('.log-inner').innerText"); a != b {
			t.Errorf("one window has\n%s\nthe other\n%s", a, b)
		}
	})
	t.Run("reload in mid-answer", func(t *testing.T) {
		w.say("/long 600")
		w.text("A long answer")
		run(t, w.ctx, chromedp.Reload())
		w.await("document.querySelectorAll('.turn').length == 3 && document.querySelector('.turn:last-child').ariaBusy == 'false'")
		words := strings.Fields("A long answer is only many short ones, and each of them is stored before you see it.")
		got := strings.Fields(eval[string](w, "document.querySelector('.turn:last-child .markdown').innerText"))
		for i, word := range got {
			if word != words[i%len(words)] {
				t.Fatalf("word %d is %q, want %q", i, word, words[i%len(words)])
			}
		}
		if len(got) != 600 {
			t.Errorf("after a reload the answer has %d words", len(got))
		}
	})
	t.Run("tools, thoughts, files, failures", func(t *testing.T) {
		for message, wait := range map[string]string{
			"/tool":    `document.querySelector('.turn:last-child .tool')?.innerText.includes('done')`,
			"/think":   `document.querySelector('.turn:last-child details.thinking')`,
			"/file":    `document.querySelector('.turn:last-child .file img')?.naturalWidth > 0`,
			"/trouble": `document.querySelector('.turn:last-child .note.bad')?.innerText.includes('overloaded')`,
			"/error":   `document.querySelector('.turn:last-child .problem')?.innerText.includes('this is what a failure looks like')`,
		} {
			w.say(message)
			w.await(wait)
			w.await("document.querySelector('.turn:last-child').ariaBusy == 'false'")
		}
	})
	t.Run("stop", func(t *testing.T) {
		w.say("/cancel")
		w.text("Please press")
		w.press("Stop")
		w.await("document.querySelector('.turn:last-child .stopped')")
	})
	t.Run("search", func(t *testing.T) {
		eval[bool](w, "dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true, bubbles: true}))")
		w.await("document.querySelector('.palette[open] input')")
		eval[bool](w, `(() => { const i = document.querySelector('.palette input'); i.value = 'stored before'; i.dispatchEvent(new Event('input', {bubbles: true})); return true })()`)
		w.await(`[...document.querySelectorAll('.palette [role=option]')].some(o => o.innerText.includes('stored before'))`)
		eval[bool](w, "dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true, bubbles: true}))")
	})
}

// TestChatRestart: the gateway is restarted in mid-answer; the page comes back by itself, and the answer, which
// the agent resumes, is there once and without a gap.
func TestChatRestart(t *testing.T) {
	g, welcomed := withDemo(t, time.Millisecond)
	w := open(t, g, "/")
	w.say("/cancel")
	w.text("stop.\n\n1 2 ")
	w.restart()
	welcomed()
	w.text(" 5 6")
	got := eval[string](w, "document.querySelector('.turn:last-child .answer').innerText")
	if strings.Count(got, "Please press") != 1 || !strings.Contains(got, "1 2 3 4 5 6") {
		t.Errorf("after a restart the answer is\n%s", got)
	}
	w.press("Stop")
	w.await("document.querySelector('.turn:last-child .stopped')")
	w.say("/count 5")
	w.await("document.querySelector('.turn:last-child').innerText.includes('5') && document.querySelector('.turn:last-child').ariaBusy == 'false'")
}

// TestAnswers: approvals and questions are answered in one window and are settled in the other.
func TestAnswers(t *testing.T) {
	g, _ := withDemo(t, time.Millisecond)
	one := open(t, g, "/")
	one.say("/approve")
	one.await("document.querySelector('.ask')")
	two := open(t, g, eval[string](one, "location.pathname"))
	two.await("document.querySelector('.ask')")
	two.press("Allow")
	for _, w := range []*window{one, two} {
		w.text("You said yes")
		w.await("!document.querySelector('.ask') && document.querySelector('.verdict').innerText.includes('Allowed by')")
	}
	one.say("/ask")
	two.await("document.querySelector('.ask')")
	one.press("Tea")
	for _, w := range []*window{one, two} {
		w.text("Tea it is")
		w.await("!document.querySelector('.ask') && document.querySelector('.asked').innerText.includes('Tea')")
	}
}

// TestUpload: a file goes to the agent with its message, and is in the conversation.
func TestUpload(t *testing.T) {
	g, _ := withDemo(t, time.Millisecond)
	w := open(t, g, "/")
	w.await("document.querySelector('.composer input[type=file]')")
	name := filepath.Join(t.TempDir(), "<img src=x onerror=alert(1)>.txt")
	if err := os.WriteFile(name, []byte("the first line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, w.ctx, chromedp.SetUploadFiles(".composer input[type=file]", []string{name}))
	w.await("document.querySelector('.chips li')")
	w.say("/attachments")
	w.text("the first line")
	w.await("document.querySelector('.mine .file').innerText.includes('onerror')")
}

// corpus is what must never run, whoever says it.
var corpus = []string{
	`<script>window.hacked=1</script>`, `<img src=x onerror="window.hacked=2">`, `<svg onload="window.hacked=3">`, `[x](javascript:window.hacked=4)`,
	`<a href="javascript:window.hacked=5">x</a>`, `![x](x" onerror="window.hacked=6)`, `<iframe srcdoc="<script>parent.hacked=7</script>">`,
	"```<img src=x onerror=window.hacked=8>\n<script>window.hacked=9</script>\n```", `<style>body{display:none}</style>`, `<form action=//evil.example><button>x</button></form>`,
	`[x](data:text/html,<script>window.hacked=10</script>)`, `<math><mtext><table><mglyph><style><img src=x onerror=window.hacked=11>`, `<details open ontoggle=window.hacked=12>`,
	`![pixel](https://evil.example/pixel.png)`, `<b id=app name=body>x</b>`, `[x]: javascript:window.hacked=13` + "\n\n[x]", `<https://evil.example/"onmouseover=window.hacked=14>`,
}

// TestNothingRuns: whatever is said in messages, names, tools, results and file names, it stays text.
func TestNothingRuns(t *testing.T) {
	g := gatewaytest.New(t)
	startAgent(t, g, "evil", agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
		for i, x := range corpus {
			id := fmt.Sprintf("%s-%d", m.RequestID, i)
			name := strings.NewReplacer("/", "_", "\n", " ").Replace(x)
			for _, err := range []error{
				w.Text("\n\n" + x + "\n\n"), w.Thinking(x), w.ToolUse(id, x, map[string]string{x: x}), w.ToolState(id, agent.ToolRunning, x), w.ToolResult(id, x, i%2 == 0),
				w.File(name, "image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg" onload="top.hacked=20"><script>top.hacked=21</script></svg>`)),
			} {
				if err != nil {
					return err
				}
			}
		}
		return w.Error(corpus[1])
	}))
	w := open(t, g, "/")
	w.say(strings.Join(corpus, "\n"))
	w.await("document.querySelector('.turn')?.ariaBusy == 'false'")
	eval[bool](w, "document.querySelectorAll('details').forEach(d => d.open = true) ?? true")
	w.await("document.querySelectorAll('.file').length > 10")
	if bad := eval[string](w, `JSON.stringify({hacked: window.hacked ?? 0,
		tags: [...document.querySelectorAll('.log script, .log iframe, .log style, .log form, .log object, .log math')].map(e => e.outerHTML),
		handlers: [...document.querySelectorAll('.log *')].filter(e => e.getAttributeNames().some(n => n.startsWith('on'))).map(e => e.outerHTML),
		links: [...document.querySelectorAll('.log a[href]')].filter(a => !/^(https?|mailto):/.test(a.href)).map(a => a.outerHTML),
		images: [...document.querySelectorAll('.log img')].filter(i => new URL(i.src).origin != location.origin).map(i => i.outerHTML)})`); bad != `{"hacked":0,"tags":[],"handlers":[],"links":[],"images":[]}` {
		t.Error(bad)
	}
	run(t, w.ctx, chromedp.Reload()) // from history, and as the title of the thread
	w.await("document.querySelector('.turn') && document.querySelector('.thread')")
	if n := eval[int](w, "window.hacked ?? 0"); n != 0 {
		t.Errorf("%d ran", n)
	}
}

//go:embed testdata/axe.min.js
var axe string

// accessible reports what axe has against the page, in both themes.
func (w *window) accessible(what string) {
	w.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		eval[bool](w, fmt.Sprintf("(document.documentElement.dataset.theme = %q, true)", theme))
		run(w.t, w.ctx, chromedp.EvaluateAsDevTools[chromedp.Void](axe+"\n;void 0"))
		found := run(w.t, w.ctx, chromedp.Evaluate[string](`new Promise(r => setTimeout(r, 300)).then(() => axe.run(document)).then(r => r.violations.map(v => v.id + ': ' + v.help + '\n' + v.nodes.map(n => '   ' + n.target + ' ' + n.failureSummary).join('\n')).join('\n'))`, chromedp.EvalAwaitPromise))
		if found != "" {
			w.t.Errorf("%s, %s:\n%s", what, theme, found)
		}
	}
}

// TestAccessible: axe has nothing against any page, in both themes, wide and narrow.
func TestAccessible(t *testing.T) {
	g, _ := withDemo(t, 0)
	w := open(t, g, "/")
	w.await("document.querySelector('.agent')")
	w.accessible("the beginning")
	for _, message := range []string{"a word", "/tool", "/think", "/error", "/file", "/approve", "/ask"} {
		w.say(message)
		w.await("document.querySelector('.turn:last-child .turn-foot, .turn:last-child .ask')")
		if message == "/approve" {
			w.accessible("an approval")
			w.press("Deny")
			w.await("document.querySelector('.turn:last-child').ariaBusy == 'false'")
		}
	}
	eval[bool](w, "document.querySelectorAll('details').forEach(d => d.open = true) ?? true")
	w.accessible("a conversation")
	w.size(390, 800)
	w.accessible("a conversation on a phone")
	if wide := eval[int](w, "document.documentElement.scrollWidth"); wide > 390 {
		t.Errorf("the page is %d pixels wide on a phone", wide)
	}
	eval[bool](w, "dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true, bubbles: true}))")
	w.await("document.querySelector('.palette[open] [role=option]')")
	w.accessible("the palette")
}

// TestScreenshots writes a picture of each page, light and dark, wide and narrow, where it is told to.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("COVEN_SCREENSHOTS")
	if dir == "" {
		t.Skip("COVEN_SCREENSHOTS is not set")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g, _ := withDemo(t, 0)
	w := open(t, g, "/")
	w.shoot(dir, "new")
	for _, message := range []string{"a word", "/think", "/tool", "/file", "/error", "/usage", "/approve"} {
		w.say(message)
		w.await("document.querySelector('.turn:last-child .turn-foot, .turn:last-child .ask')")
	}
	w.shoot(dir, "conversation")
	w.press("Deny")
	w.say("/ask")
	w.await("document.querySelector('form.ask')")
	w.shoot(dir, "question")
	eval[bool](w, "dispatchEvent(new KeyboardEvent('keydown', {key: 'k', ctrlKey: true, bubbles: true}))")
	w.await("document.querySelector('.palette[open] [role=option]')")
	w.shoot(dir, "palette")
	run(t, w.ctx, chromedp.Navigate(g.URL+"/login"))
	w.await("document.querySelector('.login')")
	w.shoot(dir, "login-open")
	signInScreenshots(t, dir)
}

// shoot takes the four pictures of what is shown.
func (w *window) shoot(dir, name string) {
	w.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 390} {
			eval[bool](w, fmt.Sprintf("(document.documentElement.dataset.theme = %q, true)", theme))
			w.size(width, 800)
			run(w.t, w.ctx, chromedp.Evaluate[int](`new Promise(r => setTimeout(() => r(1), 400))`, chromedp.EvalAwaitPromise))
			picture := run(w.t, w.ctx, chromedp.CaptureScreenshot())
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%s-%d.png", name, theme, width)), picture, 0o644); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}
