package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
)

// adminPages are the pages that this file knows.
var adminPages = []string{"", "agents", "bindings", "users", "principals", "tokens", "devices", "secrets", "audit"}

// administrator opens a gateway that asks who one is, as its owner.
func administrator(t *testing.T) (*window, auth.Principal) {
	t.Helper()
	g := gatewaytest.New(t, gatewaytest.Locked, func(c *config.Config) { c.Server.ShutdownGrace = 100 * time.Millisecond })
	p, token := g.Principal("Olga", auth.Owner)
	w := open(t, g, "/login")
	eval[bool](w, fmt.Sprintf("fetch('/api/session', {method: 'POST', headers: {Authorization: 'Bearer %s'}}).then(r => { window.in = r.ok }), true", token))
	w.await("window.in")
	return w, p
}

func (w *window) visitAdmin(page string) {
	w.t.Helper()
	run(w.t, w.ctx, chromedp.Navigate(w.g.URL+"/admin/"+page))
	w.await("document.querySelector('.content .card, .content .table-box, .content .empty') && !document.querySelector('.content .skeleton')")
}

// enter puts a text into the field with a label.
func (w *window) enter(label, text string) {
	w.t.Helper()
	field := fmt.Sprintf("[...document.querySelectorAll('dialog[open] label')].find(l => l.innerText.trim() == %q)", label)
	w.await(field)
	eval[bool](w, fmt.Sprintf(`(() => {
		const f = document.getElementById(%s.htmlFor)
		f.value = %q
		f.dispatchEvent(new Event(f.tagName == 'SELECT' ? 'change' : 'input', {bubbles: true}))
		return true
	})()`, field, text))
}

// confirm presses a button of the dialog that is open.
func (w *window) confirm(name string) {
	w.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll('dialog[open] button')].find(b => !b.disabled && b.innerText.trim() == %q)`, name)
	w.await(find)
	eval[bool](w, find+".click() ?? true")
}

func (w *window) sees(text string) {
	w.t.Helper()
	w.await(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// TestAdministration: whoever administers a gateway makes and takes away what its pages show; a secret is in
// no page until it is revealed.
func TestAdministration(t *testing.T) {
	w, me := administrator(t)
	w.visitAdmin("principals")
	w.sees("Olga")
	w.press("New principal")
	w.enter("Name", "Robot")
	w.confirm("Create")
	w.sees("Robot")
	w.press("Grant a capability")
	w.enter("Capability", "notes")
	w.confirm("Grant")
	w.await("document.querySelector('.plain-list')?.innerText.includes('notes')")
	w.press("Revoke")
	w.confirm("Revoke")
	w.sees("Robot is revoked")

	w.visitAdmin("tokens")
	w.press("New token")
	w.await("document.querySelectorAll('dialog[open] select option').length > 6")
	w.enter("Belongs to", me.ID)
	w.enter("Name", "build")
	w.confirm("Create")
	w.sees("cannot be shown again")
	w.confirm("I have it")
	w.press("Revoke build")
	w.confirm("Revoke")
	w.await("document.querySelector('tbody').innerText.includes('revoked')")

	w.visitAdmin("secrets")
	w.press("New secret")
	w.enter("Name", "KEY")
	w.enter("Value", "hush-hush")
	w.confirm("Create")
	w.await("document.querySelector('tbody')?.innerText.includes('KEY')")
	if eval[bool](w, "document.documentElement.outerHTML.includes('hush-hush')") {
		t.Error("the value of a secret is in the page")
	}
	w.press("Reveal KEY")
	w.confirm("Reveal")
	w.await("document.querySelector('.once')?.innerText.includes('hush-hush')")
	w.confirm("I have it")
	w.press("Delete KEY")
	w.confirm("Delete")
	w.sees("There are no secrets")

	if err := w.g.Identity().TransferAgent(gatewaytest.Ctx(), "worker", me.ID); err != nil {
		t.Fatal(err)
	}
	w.visitAdmin("bindings")
	w.press("New binding")
	w.enter("Frontend", "matrix")
	w.enter("Channel", "!room")
	w.enter("Agent", "worker")
	w.confirm("Create")
	w.await("document.querySelector('tbody')?.innerText.includes('!room')")
	w.press("Delete !room")
	w.confirm("Delete")
	w.sees("No channel is bound")

	w.visitAdmin("users")
	w.press("Invite somebody")
	w.enter("Note", "Ada")
	w.confirm("Invite somebody")
	w.await("document.querySelector('.once')?.innerText.includes('/invite/')")
	w.confirm("I have it")
	w.press("Revoke Ada")
	w.confirm("Revoke")
	w.await("document.querySelector('tbody')?.innerText.includes('revoked')")

	w.visitAdmin("audit")
	w.sees("Yes: ")
}

// TestAdministrationAccessible: axe has nothing against the pages of the administration, and they are no wider
// than a phone.
func TestAdministrationAccessible(t *testing.T) {
	w, _ := administrator(t)
	for _, page := range adminPages {
		w.visitAdmin(page)
		w.accessible("admin/" + page)
		w.size(390, 800)
		if wide := eval[int](w, "document.documentElement.scrollWidth"); wide > 390 {
			t.Errorf("admin/%s is %d pixels wide on a phone", page, wide)
		}
		w.size(1280, 800)
	}
}

// TestScreenshotsOfAdministration writes pictures as TestScreenshots does.
func TestScreenshotsOfAdministration(t *testing.T) {
	dir := os.Getenv("COVEN_SCREENSHOTS")
	if dir == "" {
		t.Skip("COVEN_SCREENSHOTS is not set")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w, _ := administrator(t)
	for _, page := range adminPages {
		w.visitAdmin(page)
		w.shoot(dir, "admin-"+page)
	}
}
