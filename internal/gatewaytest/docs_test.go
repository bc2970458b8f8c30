package gatewaytest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/demo"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	"coven-gateway/sdk/agent"
)

// TestClientDocs runs the examples of docs/CLIENTS.md against a gateway that asks for credentials,
// and the demo agent. Those that go on after a lost connection lose it again and again.
func TestClientDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/CLIENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	examples := map[string]bool{} // by file name
	for _, m := range regexp.MustCompile("(?s)```(sh|js|go)\n(?:#|//) (\\S+)\n(.*?)```").FindAllSubmatch(doc, -1) {
		name := string(m[2])
		if examples[name] {
			t.Errorf("there are two examples %s", name)
		}
		examples[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), m[3], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(doc), "```sh\n") + strings.Count(string(doc), "```js\n") + strings.Count(string(doc), "```go\n"); n != len(examples) {
		t.Errorf("of %d examples %d have a file name", n, len(examples))
	}
	browser, err := filepath.Abs("testdata/docs/browser.mjs")
	if err != nil {
		t.Fatal(err)
	}

	numbers := ""
	for n := range 20 {
		numbers += strconv.Itoa(n+1) + "\n"
	}
	const tidy = "I would like to tidy up. \nbash {\"command\":\"rm -r ./everything\"}: yes\nYou said yes. Don't worry: nothing was run."
	for _, c := range []struct {
		file    string
		command []string
		want    string
		breaks  bool // the connection is lost while the answer comes
	}{
		{"send.sh", []string{"sh", "-eu", "send.sh"}, "1\n2\n3\n", false},
		{"send.mjs", []string{"node", "send.mjs"}, "1\n2\n3\n", false},
		{"send.go", []string{"go", "run", "send.go", "gateway.go"}, "1\n2\n3\n", false},
		{"resume.sh", []string{"sh", "-eu", "resume.sh"}, numbers, false},
		{"resume.mjs", []string{"node", "resume.mjs"}, numbers, true},
		{"resume.go", []string{"go", "run", "resume.go", "gateway.go"}, numbers, true},
		{"follow.mjs", []string{"node", "--import", browser, "follow.mjs"}, "> /count 20\n" + numbers + "\n", true},
		{"approve.sh", []string{"sh", "-eu", "approve.sh"}, "I would like to tidy up. You said yes. Don't worry: nothing was run.", false},
		{"approve.mjs", []string{"node", "approve.mjs"}, tidy, false},
		{"approve.go", []string{"go", "run", "approve.go", "gateway.go"}, tidy, false},
	} {
		if !examples[c.file] {
			t.Errorf("there is no example %s", c.file)
			continue
		}
		delete(examples, c.file)
		t.Run(c.file, func(t *testing.T) {
			program := c.command[0]
			if program == "sh" {
				program = "curl"
			}
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed: the example is not run", program)
			}
			gw := gatewaytest.New(t, gatewaytest.Locked)
			_, token := gw.Principal("me", auth.Member)
			withDemo(t, gw, token)
			address, broken := gw.URL, new(atomic.Int32)
			if c.breaks {
				address = breaking(t, gw.URL, broken)
			}
			if c.file == "follow.mjs" { // it follows what is said elsewhere
				var asked sync.WaitGroup
				asked.Go(func() { askDemo(t, gw, token, "/count 20") })
				defer asked.Wait()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*gatewaytest.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "COVEN_GATEWAY_HTTP="+address, "COVEN_TOKEN="+token, "GOFLAGS=", "GOWORK=off")
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s%s", err, out, errs.String())
			}
			got := string(out)
			if c.command[0] == "sh" {
				got = spoken(t, got)
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q\nin %s%s", got, c.want, out, errs.String())
			}
			if c.breaks && broken.Load() == 0 {
				t.Error("no connection was lost")
			}
		})
	}
	for name := range examples {
		if name != "gateway.mjs" && name != "gateway.go" {
			t.Errorf("no test runs %s", name)
		}
	}
}

// withDemo connects the demo agent until the test ends.
func withDemo(t *testing.T, gw *gatewaytest.Gateway, token string) {
	t.Helper()
	o := demo.Options(gw.GRPCAddr())
	welcome := make(chan struct{}, 1)
	o.Credentials, o.Logger = agent.Token(token), slog.New(slog.DiscardHandler)
	o.OnWelcome = func(agent.Welcome) { welcome <- struct{}{} }
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- agent.Run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-welcome:
	case err := <-stopped:
		stopped <- nil
		t.Fatal(err)
	}
}

// askDemo sends a message to the demo agent and waits for the end of the answer.
func askDemo(t *testing.T, gw *gatewaytest.Gateway, token, content string) {
	body, err := json.Marshal(map[string]string{"agent_id": demo.ID, "sender": "me", "content": content})
	if err != nil {
		t.Error(err)
		return
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gw.URL+"/api/send", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := gw.Client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %v", resp.Status, err)
	}
}

// mostAtOnce is how many bytes of a stream come through a proxy that breaks.
const mostAtOnce = 700

// breaking is a proxy before a gateway that breaks the connection of every long stream, and counts
// them.
func breaking(t *testing.T, gateway string, broken *atomic.Int32) (address string) {
	t.Helper()
	to, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get("Content-Type") == "text/event-stream" {
				r.Body = &breakingBody{r.Body, mostAtOnce, broken}
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// breakingBody is a body that fails after some bytes.
type breakingBody struct {
	io.ReadCloser
	left   int
	broken *atomic.Int32
}

// Read implements io.Reader.
func (b *breakingBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		b.broken.Add(1)
		return 0, errors.New("broken on purpose")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// spoken is the text of the events that curl has printed.
func spoken(t *testing.T, stream string) string {
	t.Helper()
	var text strings.Builder
	for r := sse.NewReader(strings.NewReader(stream)); ; {
		e, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return text.String()
		}
		if e.Name == "text" {
			var data struct{ Text string }
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Error(err)
			}
			text.WriteString(data.Text)
		}
	}
}
