package e2e

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"coven-gateway/internal/gatewaytest"
)

// inspected is a gateway of which the administration has something to show on every page, and a thread in it.
func inspected(t *testing.T) (w *window, thread string) {
	t.Helper()
	g, _ := withDemo(t, time.Millisecond)
	for _, c := range [][2]string{
		{"log_entry", `{"message":"the tests are green","tags":["build"]}`},
		{"todo_add", `{"description":"water the plants","priority":"high"}`},
		{"note_set", `{"key":"colour","value":"green"}`},
		{"bbs_create_thread", `{"subject":"Moving","content":"We move on Monday."}`},
		{"mail_send", `{"to_agent_id":"demo","subject":"Hello","content":"From me to me."}`},
	} {
		callTool(t, g, c[0], c[1])
	}
	w = open(t, g, "/")
	w.say("a word about kingfishers")
	w.await("document.querySelector('.turn:last-child .turn-foot')")
	w.say("/usage")
	w.await("document.querySelector('.turn:last-child .turn-foot')")
	return w, strings.TrimPrefix(eval[string](w, "location.pathname"), "/t/")
}

func callTool(t *testing.T, g *gatewaytest.Gateway, tool, input string) {
	t.Helper()
	resp, err := g.Client.Post(g.URL+"/api/tools/"+tool+"/call", "application/json", strings.NewReader(fmt.Sprintf(`{"agent_id":"demo","input":%s}`, input)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %s", tool, resp.Status)
	}
}

// goTo shows a page of the administration and waits for a text in it.
func (w *window) goTo(path, text string) {
	w.t.Helper()
	run(w.t, w.ctx, chromedp.Navigate(w.g.URL+"/admin/"+path))
	w.shows(text)
}

// shows waits until the page has a text.
func (w *window) shows(text string) {
	w.t.Helper()
	w.await(fmt.Sprintf("document.querySelector('main')?.innerText.includes(%q)", text))
}

// fillLabel writes into the field with a label, or chooses there.
func (w *window) fillLabel(label, value string) {
	w.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll('label')].filter(l => l.innerText.trim() == %q).map(l => document.getElementById(l.htmlFor)).find(e => e && !e.closest('dialog:not([open])'))`, label)
	w.await(find)
	eval[bool](w, fmt.Sprintf(`(() => {
		const e = %s
		e.value = %q
		e.dispatchEvent(new Event(e.tagName == 'SELECT' || e.type == 'date' ? 'change' : 'input', {bubbles: true}))
		return true
	})()`, find, value))
}

// refused says whether the gateway is about to refuse something, of which browsers complain.
func (w *window) refused(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = is
}

// inspectPages are the pages, and what shows that they are there.
func inspectPages(thread string) [][2]string {
	return [][2]string{
		{"waiting", "Turns that are not over"},
		{"tools", "log_entry"},
		{"tools/todo_add", "Try it"},
		{"threads", "a word about kingfishers"},
		{"threads?q=kingfishers", "kingfishers"},
		{"threads/" + url.PathEscape(thread), "message"},
		{"records", "The board is shared"},
		{"records/log?agent=demo", "the tests are green"},
		{"records/todos?agent=demo", "water the plants"},
		{"records/mail?agent=demo", "From me to me"},
		{"records/notes?agent=demo", "colour"},
		{"records/board", "We move on Monday"},
		{"usage", "Tokens by day"},
		{"health", "ready"},
		{"settings", "limits.attachments"},
	}
}

// TestInspect uses every page of the administration that looks into the gateway, and what can be done there.
func TestInspect(t *testing.T) {
	w, _ := inspected(t)
	g := w.g
	t.Run("a tool is tried", func(t *testing.T) {
		w.goTo("tools", "log_entry")
		w.fillLabel("Search", "todo_add")
		w.await("document.querySelectorAll('main table')[0].tBodies[0].rows.length == 1")
		w.press("todo_add")
		w.shows("Try it")
		w.press("Call")
		w.shows("This is required")
		w.await(`[...document.querySelectorAll('main select option')].some(o => o.value == 'demo')`)
		w.fillLabel("Agent", "demo")
		w.fillLabel("description *", "feed the cat")
		w.fillLabel("priority", "low")
		w.press("Call")
		w.shows("It worked")
		w.fillLabel("due_date", "never")
		w.refused(true)
		w.press("Call")
		w.shows("It failed")
		w.refused(false)
		w.goTo("records/todos?agent=demo", "feed the cat")
		w.press("Mail")
		w.shows("From me to me")
		w.press("Board")
		w.press("Moving")
		w.shows("We move on Monday")
		w.await("location.pathname.startsWith('/admin/records/board/')")
	})
	t.Run("threads and events", func(t *testing.T) {
		w.goTo("threads", "kingfishers")
		w.fillLabel("Search in what was said", "kingfish")
		eval[bool](w, "document.querySelector('main form[role=search]').requestSubmit() ?? true")
		w.await("document.querySelector('main mark')")
		eval[bool](w, "document.querySelector('main mark').closest('a').click() ?? true")
		w.await("document.querySelector('.events .wanted') && new URLSearchParams(location.search).get('event')")
		w.fillLabel("Kind of event", "done")
		w.await("[...document.querySelectorAll('.event-head code')].every(c => c.innerText == 'done')")
		eval[bool](w, "document.querySelector('.events details').open = true")
		w.await(`document.querySelector('.events .raw')?.innerText.includes('"type": "done"')`)
	})
	t.Run("usage", func(t *testing.T) {
		w.goTo("usage", "Tokens by day")
		w.await("document.querySelectorAll('main table').length >= 2 && [...document.querySelectorAll('main td a')].some(a => a.innerText == 'demo')")
		w.await("document.querySelectorAll('main .chart-bar').length > 0")
		w.await(`(window.saved ??= (URL.createObjectURL = b => { b.text().then(s => window.csv = s); return 'blob:' + location.origin + '/x' }, HTMLAnchorElement.prototype.click = () => {}, true))`)
		eval[bool](w, `[...document.querySelectorAll('main button')].filter(b => b.innerText.trim() == 'CSV')[1].dispatchEvent(new MouseEvent('click', {bubbles: true}))`)
		w.await(`window.csv?.startsWith('agent,total_input') && window.csv.includes('\r\ndemo,')`)
		w.goTo("usage", "Tokens by day")
		w.fillLabel("From", "2001-01-01")
		w.fillLabel("To, in UTC", "2001-01-02")
		w.shows("No tokens were reported")
	})
	t.Run("health and settings", func(t *testing.T) {
		w.goTo("health", "Free for")
		w.goTo("settings", "limits.attachments")
		w.press("retention")
		w.await("location.pathname == '/admin/settings/retention' && document.querySelectorAll('main tbody tr').length > 1 && [...document.querySelectorAll('main tbody tr')].every(r => r.innerText.startsWith('retention.'))")
	})
	t.Run("what waits", func(t *testing.T) {
		begin := func(message string) {
			resp, err := g.Client.Post(g.URL+"/api/send", "application/json", strings.NewReader(fmt.Sprintf(`{"agent_id":"demo","sender":"me","content":%q}`, message)))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close() // a turn belongs to no connection
		}
		w.goTo("waiting", "No turn is queued")
		begin("/approve")
		w.press("Allow")
		w.shows("Nothing waits for people")
		begin("/ask")
		w.press("Tea")
		w.shows("Nothing waits for people")
		w.shows("No turn is queued") // so that it is the next one that is stopped
		begin("/cancel")
		w.shows("running")
		w.press("Stop")
		w.await("document.querySelector('dialog[open]')")
		eval[bool](w, "document.querySelector('dialog[open] .danger').click() ?? true")
		w.shows("No turn is queued")
	})
}

// TestInspectAccessible: axe has nothing against these pages, in both themes, and they fit on a phone.
func TestInspectAccessible(t *testing.T) {
	w, thread := inspected(t)
	for _, p := range inspectPages(thread) {
		w.size(1280, 800)
		w.goTo(p[0], p[1])
		w.accessible(p[0])
		w.size(390, 800)
		if wide := eval[int](w, "document.documentElement.scrollWidth"); wide > 390 {
			t.Errorf("%s is %d pixels wide on a phone", p[0], wide)
		}
	}
}

// TestScreenshotsInspect takes pictures of these pages.
func TestScreenshotsInspect(t *testing.T) {
	dir := os.Getenv("COVEN_SCREENSHOTS")
	if dir == "" {
		t.Skip("COVEN_SCREENSHOTS is not set")
	}
	w, thread := inspected(t)
	for _, p := range inspectPages(thread) {
		w.goTo(p[0], p[1])
		w.shoot(dir, "admin-"+strings.NewReplacer("/", "-", "?", "-", "=", "-", thread, "one").Replace(p[0]))
	}
}
