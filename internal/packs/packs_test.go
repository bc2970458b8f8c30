package packs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// rights are those of all principals alike.
type rights struct {
	roles []auth.Role
	mu    sync.Mutex
	caps  map[string]bool
}

func (r *rights) HasRole(_ context.Context, _ auth.Principal, want auth.Role) (bool, error) {
	return auth.Principal{Roles: r.roles}.Has(want), nil
}

func (r *rights) HasCapability(_ context.Context, _ auth.Principal, c string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.caps[c], nil
}

func (r *rights) set(c string, has bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caps[c] = has
}

type fixture struct {
	*packs.Registry
	t      *testing.T
	rights *rights
	reg    *prometheus.Registry
}

func newFixture(t *testing.T, policies map[string]packs.Policy) *fixture {
	f := &fixture{t: t, rights: &rights{caps: map[string]bool{}}, reg: prometheus.NewRegistry()}
	f.Registry = packs.New(packs.Options{Logger: slog.New(slog.DiscardHandler), Registerer: f.reg, Rights: f.rights, Policies: policies})
	return f
}

func (f *fixture) add(p packs.Pack) *packs.Registration {
	f.t.Helper()
	r, err := f.Add(p)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

var caller = packs.Caller{Principal: auth.Principal{ID: "p"}, AgentID: "caller"}

// fails checks the words of an error and its code.
func fails(t *testing.T, err error, code fault.Code, words string) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code || !strings.Contains(fault.Message(err), words) {
		t.Errorf("got %v (%s), want %q (%s)", err, fault.CodeOf(err), words, code)
	}
}

// echo is a tool that returns its input.
func echo(name string) packs.Tool {
	return packs.Tool{Name: name, Call: func(_ context.Context, c *packs.Call) (string, error) { return string(c.Input), nil }}
}

// stuck is a tool that returns when it has to.
func stuck(name string, began chan<- struct{}) packs.Tool {
	return packs.Tool{Name: name, Call: func(ctx context.Context, _ *packs.Call) (string, error) {
		began <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}}
}

func TestCall(t *testing.T) {
	f := newFixture(t, nil)
	var got packs.Call
	var principal auth.Principal
	f.add(packs.Pack{ID: "p", Tools: []packs.Tool{
		{Name: "t", Call: func(ctx context.Context, c *packs.Call) (string, error) {
			got = *c
			principal, _ = auth.From(ctx)
			return `{"a":1}`, nil
		}},
		{Name: "fails", Call: func(context.Context, *packs.Call) (string, error) { return "", packs.Failed("no luck") }},
		{Name: "breaks", Call: func(context.Context, *packs.Call) (string, error) { return "", errors.New("a secret") }},
		{Name: "panics", Call: func(context.Context, *packs.Call) (string, error) { panic("a secret") }},
		{Name: "large", Call: func(context.Context, *packs.Call) (string, error) {
			return strings.Repeat("x", packs.MaxOutput+1), nil
		}},
		{Name: "bytes", Call: func(context.Context, *packs.Call) (string, error) { return "\xff", nil }},
	}})
	c := caller
	c.TurnID = "turn"
	out, err := f.Call(t.Context(), c, "t", json.RawMessage(" null"))
	if err != nil || out != `{"a":1}` {
		t.Fatal(out, err)
	}
	if got.AgentID != "caller" || got.TurnID != "turn" || got.Tool != "t" || string(got.Input) != "{}" || len(got.ID) < 20 || principal.ID != "p" {
		t.Errorf("the tool was called with %+v by %q", got, principal.ID)
	}
	for _, x := range []struct {
		tool, input string
		code        fault.Code
		words       string
	}{
		{"nothing", "", fault.NotFound, "tool not found"},
		{"fails", "", fault.ToolFailed, "no luck"},
		{"breaks", "", fault.Internal, "internal server error"},
		{"panics", "", fault.Internal, "internal server error"},
		{"large", "", fault.TooLarge, "3145728 bytes"},
		{"bytes", "", fault.ToolFailed, "not UTF-8"},
		{"t", `{"x":"` + strings.Repeat("x", packs.MaxInput) + `"}`, fault.TooLarge, "3145728 bytes"},
		{"t", `{`, fault.Invalid, "invalid input: it is not JSON"},
		{"t", `[]`, fault.Invalid, "invalid input: at /: got array, want object"},
		{"t", `{"n":1e999999999}`, fault.Invalid, "invalid input"},
	} {
		_, err := f.Call(t.Context(), caller, x.tool, json.RawMessage(x.input))
		fails(t, err, x.code, x.words)
	}
	if n := testutil.ToFloat64(counter(t, f.reg, "coven_tool_calls_total", "t", "ok")); n != 1 {
		t.Errorf("%v calls were counted", n)
	}
}

// counter finds a counter in a registry.
func counter(t *testing.T, reg *prometheus.Registry, name string, labels ...string) prometheus.Collector {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && cmp.Equal(values, []string{labels[1], labels[0]}) {
				g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"})
				g.Set(m.GetCounter().GetValue())
				return g
			}
		}
	}
	t.Fatalf("there is no %s %v", name, labels)
	return nil
}

// One bad tool does not take the others with it, and every rejection says why.
func TestRejection(t *testing.T) {
	f := newFixture(t, nil)
	f.add(packs.Pack{ID: "builtin:base", Kind: packs.Builtin, Tools: []packs.Tool{echo("todo_add")}})
	f.add(packs.Pack{ID: "bridge", Kind: packs.Remote, Tools: []packs.Tool{echo("mcp_list")}})
	bad := func(name string, edit func(*packs.Tool)) packs.Tool {
		x := echo(name)
		edit(&x)
		return x
	}
	deep := `{"$defs":{"d0":{}`
	for i := 1; i < 40; i++ {
		deep += fmt.Sprintf(`,"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i-1, i-1)
	}
	deep += `},"properties":{"x":{}},"$ref":"#/$defs/d39"}`
	schema := func(name, s string) packs.Tool { return bad(name, func(x *packs.Tool) { x.Schema = s }) }
	r := f.add(packs.Pack{ID: "p", Kind: packs.Remote, Tools: []packs.Tool{
		echo("fine"), echo("todo_add"), echo("mcp_list"), echo(""), echo("with space"), echo("fine"),
		schema("s1", "{"), schema("s2", `"x"`), schema("s3", `{"type":"string"}`), schema("s4", `{"type":"object","properties":3}`),
		schema("s5", `{"$ref":"https://example.com/schema"}`), schema("s6", `{"$ref":"file:///etc/passwd"}`), schema("s7", deep), schema("s8", `{"minProperties":1e999999999}`),
		schema("s9", `{"$ref":"#"}`), schema("ok1", `{"properties":{"x":{"$ref":"#/$defs/n"}},"$defs":{"n":{"properties":{"next":{"$ref":"#/$defs/n"}}}}}`),
		schema("ok2", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`),
		bad("n", func(x *packs.Tool) { x.Timeout = -1 }), bad("c", func(x *packs.Tool) { x.Needs = []string{""} }),
	}})
	got := map[string]string{}
	for _, x := range r.Rejected() {
		got[x.Tool] = x.Reason
	}
	for name, words := range map[string]string{
		"todo_add": "already registered as builtin", "mcp_list": "already registered by pack 'bridge'", "": "a tool needs a name",
		"with space": "a name is 1 to 128 letters", "fine": "is in this pack twice", "s1": "not a JSON object", "s2": "not a JSON object",
		"s3": `must have the type "object"`, "s4": "not valid", "s5": "not followed", "s6": "not followed", "s7": "combines too many", "s8": "not a JSON object", "s9": "too many",
		"n": "timeout_seconds must not be negative", "c": "a required capability",
	} {
		if !strings.Contains(got[name], words) {
			t.Errorf("tool %q was rejected with %q, want %q", name, got[name], words)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also rejected: %v", got)
	}
	if out, err := f.Call(t.Context(), caller, "fine", nil); err != nil || out != "{}" {
		t.Error(out, err)
	}
	if out, err := f.Call(t.Context(), caller, "ok1", json.RawMessage(`{"x":{"next":{}}}`)); err != nil || out == "" {
		t.Error(out, err)
	}
	for _, x := range []struct {
		pack  packs.Pack
		code  fault.Code
		words string
	}{
		{packs.Pack{}, fault.Invalid, "pack_id is required"},
		{packs.Pack{ID: "p", Tools: []packs.Tool{echo("x")}}, fault.Exists, "pack p already registered"},
		{packs.Pack{ID: "builtin:x", Kind: packs.Remote}, fault.Invalid, "must not begin"},
		{packs.Pack{ID: "agent:x", Kind: packs.Remote}, fault.Invalid, "must not begin"},
		{packs.Pack{ID: "a\nb"}, fault.Invalid, "control characters"},
		{packs.Pack{ID: "q", Tools: []packs.Tool{echo("todo_add")}}, fault.Exists, "tool collision: tool name collision: tool 'todo_add' already registered as builtin"},
		{packs.Pack{ID: "q", Tools: []packs.Tool{echo("mcp_list")}}, fault.Exists, "already registered by pack 'bridge'"},
		{packs.Pack{ID: "q", Tools: []packs.Tool{echo("a b")}}, fault.Invalid, "none of the pack's tools can be used"},
	} {
		_, err := f.Add(x.pack)
		fails(t, err, x.code, x.words)
	}
	f.add(packs.Pack{ID: "q", Tools: []packs.Tool{echo("free")}}) // what was refused left nothing behind
}

func TestInputNamesThePath(t *testing.T) {
	f := newFixture(t, nil)
	x := echo("t")
	x.Schema = `{"type":"object","required":["a"],"properties":{"a":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}},"e":{"enum":["x","y"]}}}`
	f.add(packs.Pack{ID: "p", Tools: []packs.Tool{x}})
	for input, words := range map[string]string{
		`{}`:                              "invalid input: at /: missing property 'a'",
		`{"a":[{"n":1},{"n":0}]}`:         "invalid input: at /a/1/n: minimum: got 0, want 1",
		`{"a":[{"n":"1"}],"e":"z"}`:       "at /a/0/n: got string, want integer",
		`{"a":[{"n":1.5}]}`:               "at /a/0/n: got number, want integer",
		`{"a":[],"e":"z"}`:                "at /e: value must be one of 'x', 'y'",
		`{"a":"` + strings.Repeat("x", 9): "it is not JSON",
	} {
		_, err := f.Call(t.Context(), caller, "t", json.RawMessage(input))
		fails(t, err, fault.Invalid, words)
	}
}

// What a caller may do is looked up at every call: what it had once, or asked for, is not enough.
func TestCapabilities(t *testing.T) {
	f := newFixture(t, map[string]packs.Policy{"t": {Needs: []string{"extra"}}, "r": {Roles: []auth.Role{auth.Leader, auth.Admin}}, "off": {Disabled: true}})
	x := echo("t")
	x.Needs = []string{"admin"}
	f.add(packs.Pack{ID: "p", Tools: []packs.Tool{x, echo("r"), echo("off"), echo("free")}})
	may := func(c packs.Caller, want ...string) {
		t.Helper()
		entries, err := f.Available(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, e := range entries {
			got = append(got, e.Name)
		}
		if !cmp.Equal(got, want) {
			t.Errorf("available are %v, want %v", got, want)
		}
	}
	onStream := caller
	onStream.OnStream = true
	_, err := f.Call(t.Context(), caller, "t", nil)
	fails(t, err, fault.Forbidden, "missing capability: admin")
	f.rights.set("admin", true)
	_, err = f.Call(t.Context(), caller, "t", nil)
	fails(t, err, fault.Forbidden, "missing capability: extra")
	f.rights.set("extra", true)
	if _, err := f.Call(t.Context(), caller, "t", nil); err != nil {
		t.Error(err)
	}
	may(caller, "free", "t")
	_, err = f.Call(t.Context(), onStream, "t", nil)
	fails(t, err, fault.Forbidden, "missing capability: admin") // its connection does not have it
	may(onStream, "free")
	onStream.Capabilities = []string{"extra", "admin"}
	if _, err := f.Call(t.Context(), onStream, "t", nil); err != nil {
		t.Error(err)
	}
	f.rights.set("admin", false)
	_, err = f.Call(t.Context(), onStream, "t", nil)
	fails(t, err, fault.Forbidden, "missing capability: admin") // it has lost it since

	_, err = f.Call(t.Context(), caller, "r", nil)
	fails(t, err, fault.Forbidden, "role leader or admin")
	f.rights.roles = []auth.Role{auth.Owner}
	may(caller, "free", "r")
	_, err = f.Call(t.Context(), caller, "off", nil)
	fails(t, err, fault.Forbidden, "disabled")
}

func TestTimeAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, map[string]packs.Policy{"slow": {Timeout: time.Minute}, "rare": {PerMinute: 2}})
		began := make(chan struct{}, 4)
		long := stuck("long", began)
		long.Timeout = 24 * time.Hour
		f.add(packs.Pack{ID: "p", Tools: []packs.Tool{stuck("standard", began), stuck("slow", began), long, echo("rare")}})
		for tool, want := range map[string]time.Duration{"standard": packs.DefaultTimeout, "slow": time.Minute, "long": packs.MaxTimeout} {
			start := time.Now()
			_, err := f.Call(t.Context(), caller, tool, nil)
			fails(t, err, fault.Unavailable, "context deadline exceeded: the tool "+tool+" has not answered within "+want.String())
			if took := time.Since(start); took != want {
				t.Errorf("%s took %s", tool, took)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := f.Call(ctx, caller, "slow", nil)
		fails(t, err, fault.Gone, "context canceled")

		for range 2 {
			if _, err := f.Call(t.Context(), caller, "rare", nil); err != nil {
				t.Error(err)
			}
		}
		_, err = f.Call(t.Context(), caller, "rare", nil)
		fails(t, err, fault.Limited, "too many requests")
		time.Sleep(30 * time.Second)
		if _, err := f.Call(t.Context(), caller, "rare", nil); err != nil {
			t.Error(err)
		}
	})
}

// When a pack goes away, its calls end at once and its names are free.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		changes := 0
		f.OnChange(func() { changes++ })
		const n = 100
		began := make(chan struct{}, n)
		r := f.add(packs.Pack{ID: "p", Tools: []packs.Tool{stuck("t", began)}})
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				_, err := f.Call(t.Context(), caller, "t", nil)
				fails(t, err, fault.Unavailable, "pack disconnected")
			})
		}
		for range n {
			<-began
		}
		start := time.Now()
		r.Remove()
		r.Remove()
		wg.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("the calls ended after %s", took)
		}
		_, err := f.Call(t.Context(), caller, "t", nil)
		fails(t, err, fault.NotFound, "tool not found")
		f.add(packs.Pack{ID: "p", Tools: []packs.Tool{echo("t")}})
		r.Remove() // the old one is gone already
		if out, err := f.Call(t.Context(), caller, "t", nil); err != nil || out != "{}" {
			t.Error(out, err)
		}
		if changes != 3 {
			t.Errorf("%d changes were told", changes)
		}
	})
}

// Agents that would wait for each other are told so, whatever way the wait leads.
func TestCycles(t *testing.T) {
	f := newFixture(t, nil)
	call := func(from, tool string) error {
		_, err := f.Call(t.Context(), packs.Caller{AgentID: from}, tool, nil)
		return err
	}
	var inside func() error // what the tool of b does
	f.add(packs.Pack{ID: "agent:b", Kind: packs.Hosted, AgentID: "b", Tools: []packs.Tool{{Name: "of_b", Call: func(context.Context, *packs.Call) (string, error) { return "{}", inside() }}}})
	f.add(packs.Pack{ID: "agent:c", Kind: packs.Hosted, AgentID: "c", Tools: []packs.Tool{{Name: "of_c", Call: func(context.Context, *packs.Call) (string, error) { return "{}", call("c", "ask_a") }}}})
	f.add(packs.Pack{ID: "asks", Tools: []packs.Tool{{Name: "ask_a", Call: func(_ context.Context, c *packs.Call) (string, error) {
		done, err := c.WaitFor("a")
		if err == nil {
			done()
		}
		return "{}", err
	}}}})
	inside = func() error { return nil }
	fails(t, call("b", "of_b"), fault.Conflict, `agent "b" would wait for itself`)
	fails(t, call("a", "ask_a"), fault.Conflict, `agent "a" would wait for itself`)
	for range 2 { // what has ended is forgotten
		if err := call("a", "of_b"); err != nil {
			t.Error(err)
		}
	}
	inside = func() error { return call("b", "ask_a") }
	fails(t, call("a", "of_b"), fault.Conflict, `agent "a" is waiting for agent "b"`)
	inside = func() error { return call("b", "of_c") }
	fails(t, call("a", "of_b"), fault.Conflict, `agent "a" is waiting for agent "c"`)
	if err := call("x", "of_b"); err != nil { // b waits for c, which waits for a, which waits for nobody
		t.Error(err)
	}
	if err := call("", "of_b"); err != nil {
		t.Error(err)
	}
}
