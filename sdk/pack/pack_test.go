package pack_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/packs"
	"coven-gateway/sdk/pack"
)

type greeting struct {
	Name  string   `json:"name" description:"whom"`
	Tone  string   `json:"tone,omitempty" enum:"warm,cold"`
	Times *int     `json:"times"`
	Tags  []string `json:"tags,omitempty"`
}

// start runs a pack until the test ends, or stop is called, and waits until it is registered.
func start(t *testing.T, o pack.Options) (registered chan []string, stop func() error) {
	t.Helper()
	registered = make(chan []string, 8)
	o.OnRegister = func(rejected []string) { registered <- rejected }
	o.Logger = slog.New(slog.DiscardHandler)
	o.BackoffMin, o.BackoffMax = time.Millisecond, 20*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pack.Run(ctx, o) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case r := <-registered:
		registered <- r
	case <-time.After(gatewaytest.Patience):
		t.Fatal("the pack was not registered")
	}
	return registered, stop
}

func call(g *gatewaytest.Gateway, tool, input string) (string, error) {
	return g.Tools().Call(context.Background(), packs.Caller{Principal: auth.Anonymous}, tool, json.RawMessage(input))
}

func TestPack(t *testing.T) {
	g := gatewaytest.New(t)
	var running, most atomic.Int32
	release := make(chan struct{})
	ended := make(chan error, 1)
	registered, stop := start(t, pack.Options{Server: g.GRPCAddr(), ID: "p", Version: "1", Concurrency: 4, Tools: []pack.Tool{
		pack.Func("greet", "Greet somebody", func(_ context.Context, in greeting) (map[string]string, error) {
			return map[string]string{"text": in.Tone + " hello " + in.Name}, nil
		}),
		pack.Func("fails", "", func(context.Context, struct{}) (any, error) { return nil, errors.New("no luck") }),
		pack.Func("panics", "", func(context.Context, struct{}) (any, error) { panic("oh") }),
		pack.Func("slow", "", func(context.Context, struct{}) (any, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			return nil, nil
		}),
		{Name: "timed", Timeout: time.Second, Call: func(ctx context.Context, _ json.RawMessage) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}},
		{Name: "todo_add", Call: func(context.Context, json.RawMessage) ([]byte, error) { return nil, nil }},
	}})
	if got := fmt.Sprint(<-registered); got != "[todo_add]" {
		t.Errorf("rejected are %s", got)
	}
	for _, x := range []struct{ tool, input, output, words string }{
		{"greet", `{"name":"Ada","tone":"warm"}`, `{"text":"warm hello Ada"}`, ""},
		{"greet", `{}`, "", "invalid input: at /: missing property 'name'"},
		{"greet", `{"name":"Ada","tone":"odd"}`, "", "invalid input: at /tone: value must be one of 'warm', 'cold'"},
		{"greet", `{"name":"Ada","times":"x"}`, "", "invalid input: at /times: got string, want integer"},
		{"fails", `{}`, "", "no luck"},
		{"panics", `{}`, "", "the tool failed"},
		{"timed", `{}`, "", "context deadline exceeded"},
	} {
		out, err := call(g, x.tool, x.input)
		if out != x.output || (err != nil) != (x.words != "") || err != nil && !strings.HasPrefix(fault.Message(err), x.words) {
			t.Errorf("%s %s: %s, %v", x.tool, x.input, out, err)
		}
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}

	done := make(chan error, 20)
	for range 20 {
		go func() {
			_, err := call(g, "slow", "")
			done <- err
		}()
	}
	close(release)
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := most.Load(); n < 1 || n > 4 {
		t.Errorf("%d calls ran at once", n)
	}

	// It comes back when the gateway does.
	g.Restart()
	<-registered
	if out, err := call(g, "greet", `{"name":"Ada"}`); err != nil || out != `{"text":" hello Ada"}` {
		t.Error(out, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A pack identifies itself with a key, and with one signature for many calls.
func TestCredentials(t *testing.T) {
	g := gatewaytest.New(t, gatewaytest.Locked)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key := gatewaytest.KeyOf(t, private)
	if _, err := g.Identity().CreatePrincipal(gatewaytest.Ctx(), auth.NewPrincipal{Kind: auth.Pack, Name: "p", PublicKey: key.Line()}); err != nil {
		t.Fatal(err)
	}
	credentials, err := pack.KeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var signed atomic.Int32
	counted := func(ctx context.Context) (metadata.MD, error) {
		signed.Add(1)
		return credentials(ctx)
	}
	echo := pack.Tool{Name: "echo", Call: func(_ context.Context, in json.RawMessage) ([]byte, error) { return in, nil }}
	start(t, pack.Options{Server: g.GRPCAddr(), ID: "p", Credentials: counted, Tools: []pack.Tool{echo}})
	for range 10 {
		if out, err := call(g, "echo", `{"a":1}`); err != nil || out != `{"a":1}` {
			t.Error(out, err)
		}
	}
	if n := signed.Load(); n != 1 {
		t.Errorf("it has signed %d times", n)
	}

	// Whoever is refused is told so.
	_, token := g.Principal("other")
	for _, x := range []struct {
		options pack.Options
		code    codes.Code
		words   string
	}{
		{pack.Options{}, codes.Unauthenticated, "missing authorization header"},
		{pack.Options{Credentials: pack.Token("x")}, codes.Unauthenticated, "invalid or expired token"},
		{pack.Options{Credentials: pack.Token(token), RetryTaken: -1}, codes.AlreadyExists, "pack p already registered"},
	} {
		o := x.options
		o.Server, o.ID, o.Tools, o.Logger = g.GRPCAddr(), "p", []pack.Tool{echo}, slog.New(slog.DiscardHandler)
		err := pack.Run(t.Context(), o)
		if e, ok := errors.AsType[*pack.RefusedError](err); !ok || e.Code != x.code || e.Reason != x.words {
			t.Errorf("got %v, want %s", err, x.words)
		}
	}
}

func TestOptions(t *testing.T) {
	type loop struct {
		Next []loop `json:"next"`
	}
	nothing := func(context.Context, json.RawMessage) ([]byte, error) { return nil, nil }
	ok := pack.Tool{Name: "t", Call: nothing}
	for want, o := range map[string]pack.Options{
		"the options Server, ID and Tools are required": {Server: "s", ID: "p"},
		"does not speak TLS":                            {Server: "https://s", ID: "p", Tools: []pack.Tool{ok}},
		"must not be negative":                          {Server: "s", ID: "p", Tools: []pack.Tool{ok}, Concurrency: -1},
		"tool t: it is there twice":                     {Server: "s", ID: "p", Tools: []pack.Tool{ok, ok}},
		"a tool needs a Name and a Call":                {Server: "s", ID: "p", Tools: []pack.Tool{{Name: "t"}}},
		"tool t: the Timeout must not be negative":      {Server: "s", ID: "p", Tools: []pack.Tool{{Name: "t", Call: nothing, Timeout: -1}}},
		"tool t: the input must be a struct, not int":   {Server: "s", ID: "p", Tools: []pack.Tool{pack.Func("t", "", func(context.Context, int) (int, error) { return 0, nil })}},
		"contains itself":                               {Server: "s", ID: "p", Tools: []pack.Tool{pack.Func("t", "", func(context.Context, loop) (int, error) { return 0, nil })}},
		"chan int has no schema":                        {Server: "s", ID: "p", Tools: []pack.Tool{pack.Func("t", "", func(context.Context, struct{ C chan int }) (int, error) { return 0, nil })}},
	} {
		if err := pack.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestSchema(t *testing.T) {
	type inner struct {
		N uint `json:"n"`
	}
	type embedded struct {
		E bool `json:"e"`
	}
	type everything struct {
		embedded
		S       string            `json:"s" description:"a string" enum:"a,b"`
		F       float64           `json:"f,omitempty"`
		At      time.Time         `json:"at,omitzero"`
		Bytes   []byte            `json:"bytes"`
		Inner   inner             `json:"inner"`
		List    []inner           `json:"list"`
		Map     map[string]int    `json:"map"`
		Raw     json.RawMessage   `json:"raw,omitempty"`
		Any     any               `json:"any"`
		Pointer *string           `json:"pointer"`
		Skipped string            `json:"-"`
		private string            //nolint:unused // is not in the schema
		Named   map[string]string // has its own name
	}
	got := pack.Func("t", "", func(context.Context, everything) (any, error) { return nil, nil }).InputSchema
	const want = `{"type":"object","properties":{
		"Named":{"type":"object","additionalProperties":{"type":"string"}},"any":{},"at":{"type":"string","format":"date-time"},
		"bytes":{"type":"string","description":"base64"},"e":{"type":"boolean"},"f":{"type":"number"},
		"inner":{"type":"object","properties":{"n":{"type":"integer","minimum":0}},"required":["n"]},
		"list":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer","minimum":0}},"required":["n"]}},
		"map":{"type":"object","additionalProperties":{"type":"integer"}},"pointer":{"type":"string"},"raw":{},
		"s":{"type":"string","description":"a string","enum":["a","b"]}},
		"required":["e","s","bytes","inner","list","map","any","Named"]}`
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(want)); err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("got  %s\nwant %s", got, b.String())
	}
}
