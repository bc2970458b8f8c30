package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/demo"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/sdk/agent"
)

const password = "three old bicycles in the rain"

// locked runs a gateway that asks who is there, at the name that its passkeys are for.
func locked(t *testing.T) *gatewaytest.Gateway {
	t.Helper()
	g := gatewaytest.New(t, gatewaytest.Locked, func(c *config.Config) { c.Server.ShutdownGrace = 100 * time.Millisecond })
	named(g)
	return g
}

func named(g *gatewaytest.Gateway) { g.URL = strings.Replace(g.URL, "127.0.0.1", "localhost", 1) }

// stranger is a browser that has not signed in.
func stranger(w *window) { w.asks = true }

// authenticator gives a browser something that makes passkeys, and whose owner is always there. It would also
// take whatever is offered where names are filled in, at once and before anybody can press a button: this
// browser cannot do that, see [offered].
func authenticator(w *window) {
	offered(w)
	run(w.t, w.ctx, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "PublicKeyCredential.isConditionalMediationAvailable = async () => false"})
		return chromedp.Void{}, err
	})
}

// offered gives a browser an authenticator that takes what is offered where names are filled in, too.
func offered(w *window) {
	stranger(w)
	run(w.t, w.ctx, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		if _, err := cdp.Call(ctx, t, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return chromedp.Void{}, err
		}
		_, err := cdp.Call(ctx, t, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true,
		}})
		return chromedp.Void{}, err
	})
}

// fill writes into a field, with its keyboard.
func (w *window) fill(field, s string) {
	w.t.Helper()
	w.await(fmt.Sprintf("document.querySelector(%q)", field))
	eval[bool](w, fmt.Sprintf("(() => { const i = document.querySelector(%q); i.focus(); i.select(); return true })()", field))
	w.write(s)
}

// write sends a text to whatever has the focus.
func (w *window) write(s string) {
	w.t.Helper()
	run(w.t, w.ctx, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: s})
		return chromedp.Void{}, err
	})
}

// key presses keys, such as Tab and Enter.
func (w *window) key(keys string) { w.t.Helper(); run(w.t, w.ctx, chromedp.KeyEvent(keys)) }

// says waits until the page says something.
func (w *window) says(s string) {
	w.t.Helper()
	w.await(fmt.Sprintf("document.body.innerText.includes(%q)", s))
}

// visit shows another page of the gateway.
func (w *window) visit(path string) { w.t.Helper(); run(w.t, w.ctx, chromedp.Navigate(w.g.URL+path)) }

// owner becomes the first owner with the link that the gateway prints, and has a password or, with an
// authenticator, a passkey.
func owner(t *testing.T, g *gatewaytest.Gateway, ready func(*window), passkey bool) *window {
	t.Helper()
	w := open(t, g, strings.TrimPrefix(g.FirstOwner(), g.URL), ready)
	w.says("Become the owner")
	w.fill("input[name=display_name]", "Ann Archer")
	w.press("Go on")
	w.says("Welcome, Ann Archer")
	if passkey {
		w.press("With a passkey")
	} else {
		w.fill("input[name=password]", password)
		w.press("Set the password")
	}
	w.await("location.pathname == '/' && document.querySelector('.side-foot')")
	return w
}

// signOut signs out by the menu of the side bar.
func (w *window) signOut() {
	w.t.Helper()
	w.await("document.querySelector('.side-foot button')")
	eval[bool](w, "(document.querySelector('.side-foot button').click(), true)")
	w.await("[...document.querySelectorAll('[role^=menuitem]')].some(b => b.innerText.includes('Log out'))")
	eval[bool](w, "([...document.querySelectorAll('[role^=menuitem]')].find(b => b.innerText.includes('Log out')).click(), true)")
	w.await("location.pathname == '/login' && document.querySelector('.login form')")
}

// TestFirstOwnerWithPasskey: whoever opens the link of an empty gateway becomes its owner, with a passkey that
// signs in afterwards, and can be renamed, joined by others and, but for the last way in, removed.
func TestFirstOwnerWithPasskey(t *testing.T) {
	g := locked(t)
	link := g.FirstOwner() // an older one, which another replaces
	w := owner(t, g, authenticator, true)
	w.visit(strings.TrimPrefix(link, g.URL))
	w.says("Sign in with your link")
	w.press("Go on")
	w.says("This link is not good, or not any more.")
	w.visit("/account")
	w.says("on one device")
	if got := eval[string](w, "document.querySelector('#you .badge').innerText + document.querySelector('input[name=username]').value"); got != "ownerann.archer" {
		t.Errorf("the owner is %q", got)
	}
	w.press("What to do with")
	w.press("Rename")
	w.await("document.querySelector('dialog[open] input')")
	w.fill("dialog[open] input", "Laptop")
	w.key(kb.Enter)
	w.says("Laptop")
	w.press("What to do with Laptop")
	w.press("Remove")
	w.await("document.querySelector('dialog[open] .danger')")
	eval[bool](w, "(document.querySelector('dialog[open] .danger').click(), true)")
	w.says("this is your last way in")
	w.signOut()
	w.press("Sign in with a passkey")
	w.await("location.pathname == '/' && document.querySelector('.side-foot')")
	w.visit("/account")
	w.says("last used")
	w.says("with a passkey")
}

// TestOfferedPasskey: a passkey that is chosen where names are filled in signs in.
func TestOfferedPasskey(t *testing.T) {
	w := owner(t, locked(t), offered, true)
	run(t, w.ctx, chromedp.Evaluate[bool]("fetch('api/session', {method: 'DELETE'}).then(r => r.ok)", chromedp.EvalAwaitPromise))
	w.visit("/account") // which asks for a sign-in
	w.says("with a passkey")
}

// TestInviteWithPassword: an invite makes a person with a password; whoever knows it signs in, and whoever does
// not is told so and, at last, to wait. All of it is done with the keyboard.
func TestInviteWithPassword(t *testing.T) {
	g := locked(t)
	boss := owner(t, g, stranger, false)
	invite := run(t, boss.ctx, chromedp.Evaluate[string]("fetch('api/admin/invites', {method: 'POST', body: '{}'}).then(r => r.json()).then(i => i.url)", chromedp.EvalAwaitPromise))
	w := open(t, g, strings.TrimPrefix(invite, g.URL), stranger)
	w.await("document.activeElement?.name == 'display_name'")
	w.write("Bea")
	w.await("document.querySelector('input[name=username]').value == 'bea'")
	w.key(kb.Tab)
	w.await("document.activeElement?.name == 'username'")
	w.key(kb.Enter)
	w.says("Welcome, Bea")
	w.fill("input[name=password]", "short")
	w.key(kb.Enter) // the browser says what is missing
	w.fill("input[name=password]", "passwordpassword")
	w.key(kb.Enter)
	w.await("document.querySelector('[role=alert]')?.innerText.includes('everybody tries first')")
	w.fill("input[name=password]", password)
	w.key(kb.Enter)
	w.await("location.pathname == '/' && document.querySelector('.side-foot')")
	if again := open(t, g, strings.TrimPrefix(invite, g.URL), stranger); true {
		again.fill("input[name=display_name]", "Ben")
		again.key(kb.Enter)
		again.await("document.querySelector('[role=alert]')?.innerText.includes('already been used')")
	}
	w.visit("/account")
	w.signOut()
	for i := 0; ; i++ {
		w.await("document.querySelector('input[name=username]')")
		w.fill("input[name=username]", "Bea")
		w.key(kb.Tab)
		w.await("document.activeElement?.name == 'password'")
		eval[bool](w, "(document.activeElement.select(), true)")
		w.write("not the password of Bea")
		w.key(kb.Enter)
		w.await("document.querySelector('[role=alert]') && !document.querySelector('.spinner')")
		said := eval[string](w, "document.querySelector('[role=alert]').innerText")
		if strings.Contains(said, "too many attempts") {
			w.await("[...document.querySelectorAll('button:disabled')].some(b => b.innerText.startsWith('Wait '))")
			w.await("[...document.querySelectorAll('button:disabled')].some(b => b.innerText == 'Wait 1 second')")
			w.await("!document.querySelector('[role=alert]')") // the wait is over
			break
		}
		if said != "Wrong name or password." || i > 20 {
			t.Fatalf("attempt %d: %s", i, said)
		}
	}
	w.fill("input[name=username]", "bea")
	w.fill("input[name=password]", password)
	w.key(kb.Enter)
	w.await("location.pathname == '/' && document.querySelector('.side-foot')")
	w.says("Bea")
}

// TestEndSession: a session that is ended elsewhere loses its page at once, and a new password ends all others.
func TestEndSession(t *testing.T) {
	g := locked(t)
	_, token := g.Principal("agents", auth.Member)
	startAgent(t, g, demo.ID, demo.Handler{Pace: time.Millisecond}, func(o *agent.Options) { o.Credentials = agent.Token(token) })
	one := owner(t, g, stranger, false)
	signIn := func() *window {
		w := open(t, g, "/", stranger)
		w.fill("input[name=username]", "ann.archer")
		w.fill("input[name=password]", password)
		w.key(kb.Enter)
		w.await("location.pathname == '/' && document.querySelector('.side-foot')")
		return w
	}
	other := signIn()
	other.say("a word") // and follows the conversation
	other.await("document.querySelector('.turn')?.ariaBusy == 'false'")
	eval[bool](other, "(window.asked = 0, window.fetch = new Proxy(fetch, {apply(f, self, args) { if (String(args[0]).endsWith('api/me')) asked++; return Reflect.apply(f, self, args) }}), true)")
	one.visit("/account")
	one.says("this one")
	one.press("End the session of")
	one.await("document.querySelectorAll('#sessions li').length == 1")
	other.await("location.pathname == '/login' && document.querySelector('.login form')")
	if eval[int](other, "asked") == 0 {
		t.Error("a stream that ends does not ask whether its session has")
	}
	other = signIn()
	one.visit("/account")
	one.press("End all others")
	one.await("document.querySelector('dialog[open] .danger')")
	eval[bool](one, "(document.querySelector('dialog[open] .danger').click(), true)")
	one.await("document.querySelectorAll('#sessions li').length == 1")
	other.await("location.pathname == '/login'")
	other = signIn()
	one.visit("/account")
	one.fill("#password input[name=password]", password+" again")
	one.key(kb.Enter)
	one.says("Your other sessions have ended")
	other.await("location.pathname == '/login'")
}

// age makes all sign-ins older than what needs a fresh one takes.
func age(t *testing.T, g *gatewaytest.Gateway, windows ...*window) {
	t.Helper()
	for _, w := range windows {
		w.mu.Lock()
		w.down = true
		w.mu.Unlock()
	}
	g.Reconfigure(func(c *config.Config) {
		db, err := sql.Open("sqlite", "file:"+c.Database.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("UPDATE tokens SET proved_at = 1 WHERE proved_at > 0"); err != nil {
			t.Fatal(err)
		}
	})
	named(g)
}

// TestReauthentication: what gives rights away asks again who sits there, goes on where that was shown and
// does nothing where it was not.
func TestReauthentication(t *testing.T) {
	g := locked(t)
	w := owner(t, g, authenticator, false)
	w.visit("/account")
	w.says("You have no passkey yet")
	age(t, g, w)
	add := func() {
		t.Helper()
		w.press("Add a passkey")
		w.await("document.querySelector('dialog[open] input')")
		w.key(kb.Enter)
		w.await("document.querySelector('dialog[open]')?.innerText.includes('Show again who you are')")
	}
	add()
	w.key(kb.Escape)
	w.await("!document.querySelector('dialog[open]')")
	w.says("show again who you are")
	add()
	w.await("document.activeElement?.name == 'password'")
	w.write("not the password")
	w.key(kb.Enter)
	w.await("document.querySelector('dialog[open] [role=alert]')?.innerText.includes('wrong password')")
	eval[bool](w, "(document.querySelector('dialog[open] input[name=password]').select(), true)")
	w.fill("dialog[open] input[name=password]", password)
	w.key(kb.Enter)
	w.says("on one device")
	if eval[bool](w, "!!document.querySelector('dialog[open]')") {
		t.Error("the dialog is still there")
	}
	age(t, g, w)
	w.fill("#password input[name=password]", password+" again")
	w.key(kb.Enter)
	w.press("Use a passkey")
	w.says("Your other sessions have ended")
}

// TestOpenMode: a gateway that asks nobody says so, and how that is changed.
func TestOpenMode(t *testing.T) {
	g := gatewaytest.New(t)
	w := open(t, g, "/login")
	for _, path := range []string{"/login", "/setup", "/invite/x", "/account"} {
		w.visit(path)
		w.says("Nobody has to sign in here")
		w.says("coven-gateway init")
	}
	w.visit("/login")
	w.press("Go to the chat")
	w.await("document.querySelector('.side-foot')")
}

// TestAccessibleSignIn: axe has nothing against the pages of signing in.
func TestAccessibleSignIn(t *testing.T) {
	g := locked(t)
	fresh := open(t, g, "/login", authenticator)
	fresh.says("This gateway has no owner yet")
	fresh.accessible("a login without an owner")
	signInPages(t, g, func(w *window, what string) {
		w.accessible(what)
		w.size(390, 800)
		if wide := eval[int](w, "document.documentElement.scrollWidth"); wide > 390 {
			t.Errorf("%s is %d pixels wide on a phone", what, wide)
		}
	})
}

// signInScreenshots takes pictures of the pages of signing in.
func signInScreenshots(t *testing.T, dir string) {
	g := locked(t)
	open(t, g, "/login", authenticator).shoot(dir, "login-no-owner")
	signInPages(t, g, func(w *window, name string) { w.shoot(dir, name) })
}

// signInPages shows one page after the other to somebody who becomes the owner with a passkey.
func signInPages(t *testing.T, g *gatewaytest.Gateway, see func(w *window, name string)) {
	t.Helper()
	w := open(t, g, strings.TrimPrefix(g.FirstOwner(), g.URL), authenticator)
	w.fill("input[name=display_name]", "Ann Archer")
	see(w, "setup")
	w.press("Go on")
	w.says("Welcome, Ann Archer")
	see(w, "welcome")
	w.press("With a passkey")
	w.await("location.pathname == '/' && document.querySelector('.side-foot')")
	w.visit("/account")
	w.says("this one")
	w.await("document.querySelector('#passkeys li')")
	see(w, "account")
	eval[bool](w, "(document.getElementById('sessions').scrollIntoView(), true)")
	see(w, "account-sessions")
	age(t, g, w)
	w.press("Add a passkey")
	w.await("document.querySelector('dialog[open] input')")
	w.key(kb.Enter)
	w.await("document.querySelector('dialog[open]')?.innerText.includes('Show again who you are')")
	see(w, "reauthentication")
	w.key(kb.Escape)
	w.visit("/invite/none")
	w.says("You are invited")
	see(w, "invite")
	w.visit("/setup#none")
	w.says("Sign in with your link")
	w.press("Go on")
	w.says("not any more")
	see(w, "setup-spent")
	w.size(1280, 800)
	w.visit("/account")
	w.signOut()
	w.fill("input[name=username]", "ann")
	w.fill("input[name=password]", "wrong")
	w.key(kb.Enter)
	w.says("Wrong name or password.")
	eval[bool](w, "(document.querySelector('.login summary').click(), true)")
	see(w, "login")
}
