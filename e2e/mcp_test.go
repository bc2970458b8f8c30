package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/sdk/agent"
	"coven-gateway/sdk/pack"
)

// What npm installs, below e2e/mcp; package-lock.json has the exact versions.
const (
	clients = "mcp"
	bin     = clients + "/node_modules/.bin/"
)

// installed installs what e2e/mcp/package.json names, once for all tests, and returns its Node, which
// may be newer than that of the machine.
var installed = sync.OnceValues(func() (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("the tests with MCP clients need npm, which comes with Node; on Debian: apt-get install npm")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = clients
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New("npm ci in e2e/mcp: " + err.Error() + "\n" + string(out))
	}
	found, err := filepath.Glob(clients + "/node_modules/node-*/bin/node")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return exec.LookPath("node")
	}
	return filepath.Abs(found[0])
})

// node returns a command that runs a script.
func node(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	if script, err = filepath.Abs(script); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "PATH="+filepath.Dir(path)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return cmd
}

// background runs a program until the test ends. It returns when the program has called ready.
func background(t *testing.T, program func(ctx context.Context, ready func()) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- program(ctx, func() { ready <- struct{}{} }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the program is not there")
	}
}

// schema2020 is what the suite wants to see again in the list of tools.
const schema2020 = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",` +
	`"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},` +
	`"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},` +
	`"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},` +
	`"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`

// conformancePack has those of the tools that the suite asks for whose results are JSON.
func conformancePack(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	background(t, func(ctx context.Context, ready func()) error {
		return pack.Run(ctx, pack.Options{
			Server: g.GRPCAddr(), ID: "conformance", Logger: slog.New(slog.DiscardHandler), OnRegister: func([]string) { ready() },
			Tools: []pack.Tool{
				pack.Func("test_simple_text", "Returns a text", func(context.Context, struct{}) (string, error) {
					return "This is a simple text response for testing.", nil
				}),
				pack.Func("test_error_handling", "Fails", func(context.Context, struct{}) (string, error) {
					return "", errors.New("This tool intentionally returns an error for testing") //nolint:staticcheck // the suite's words
				}),
				{
					Name: "json_schema_2020_12_tool", Description: "Tool with JSON Schema 2020-12 features", InputSchema: json.RawMessage(schema2020),
					Call: func(context.Context, json.RawMessage) ([]byte, error) { return []byte("null"), nil },
				},
			},
		})
	})
}

// notApplicable reads which checks of a revision are not for the gateway: scenario or scenario/check.
func notApplicable(t *testing.T, revision string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(clients + "/not-applicable.txt")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if len(words) < 3 {
			t.Errorf("not-applicable.txt: no reason: %s", line)
			continue
		}
		if words[0] == revision {
			found[words[1]] = true
		}
	}
	return found
}

// result is the name of the folder that the suite makes for a scenario.
var result = regexp.MustCompile(`^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$`)

// TestConformance runs the suite of the protocol in both eras, with everything that it has for servers.
func TestConformance(t *testing.T) {
	g := gatewaytest.New(t)
	conformancePack(t, g)
	for revision, least := range map[string]int{"2025-11-25": 33, "2026-07-28": 50} {
		t.Run(revision, func(t *testing.T) {
			out := t.TempDir()
			cmd := node(t, bin+"conformance", "server", "--url", g.URL+"/mcp", "--requirements", revision, "--output-dir", out)
			said, err := cmd.CombinedOutput()
			if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed { // what has failed is looked at below
				t.Fatal(err)
			}
			folders, err := os.ReadDir(out)
			if err != nil || len(folders) < least {
				t.Fatalf("%d scenarios have run, want %d: %v\n%s", len(folders), least, err, said)
			}
			listed, used := notApplicable(t, revision), make(map[string]bool)
			passed := 0
			for _, f := range folders {
				name := result.FindStringSubmatch(f.Name())
				if name == nil {
					t.Fatalf("not a result: %s", f.Name())
				}
				b, err := os.ReadFile(filepath.Join(out, f.Name(), "checks.json"))
				if err != nil {
					t.Fatal(err)
				}
				var checks []struct{ ID, Status, ErrorMessage string }
				if err := json.Unmarshal(b, &checks); err != nil {
					t.Fatal(err)
				}
				for _, c := range checks {
					if c.Status != "FAILURE" {
						passed++
						continue
					}
					check := name[1] + "/" + c.ID
					switch {
					case listed[check]:
						used[check] = true
					case listed[name[1]]:
						used[name[1]] = true
					default:
						t.Errorf("%s: %s", check, c.ErrorMessage)
					}
				}
			}
			for x := range listed {
				if !used[x] {
					t.Errorf("%s is in not-applicable.txt and does not fail", x)
				}
			}
			t.Logf("%d scenarios, %d checks passed, %d are not applicable", len(folders), passed, len(used))
		})
	}
}

// asks is an agent that asks before it works; everything else it does until it is stopped.
func asks(ctx context.Context, m *agent.Message, w *agent.Writer) error {
	if err := w.Textf("one moment"); err != nil {
		return err
	}
	if m.Content != "work" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	said, err := w.CallTool(ctx, "ask_user", map[string]any{"question": "Ship?", "options": []any{map[string]any{"label": "Yes"}, map[string]any{"label": "No"}}})
	if err != nil {
		return err
	}
	return w.Textf(" said: %s", said)
}

// TestMCPClients: the clients of the protocol's TypeScript SDK, in both eras, list, call an agent, hear
// how far it is, are asked what it asks, read the thread, and cancel; and the inspector's command line lists.
func TestMCPClients(t *testing.T) {
	g := gatewaytest.New(t)
	background(t, func(ctx context.Context, ready func()) error {
		return agent.Run(ctx, agent.Options{
			Server: g.GRPCAddr(), ID: "a", Logger: slog.New(slog.DiscardHandler), Handler: agent.HandlerFunc(asks),
			Capabilities: []string{"ui"}, OnWelcome: func(agent.Welcome) { ready() },
		})
	})
	for _, era := range []string{"old", "new"} {
		t.Run(era, func(t *testing.T) {
			var complaint strings.Builder
			cmd := node(t, clients+"/talk.mjs", era, g.URL+"/mcp")
			cmd.Stderr = &complaint
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, complaint.String())
			}
			var saw struct {
				Tools, Progress, Asked []string
				Answer                 struct{ Content []struct{ Text string } }
				Thread, Cancelled      string
			}
			if err := json.Unmarshal(out, &saw); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !slices.Contains(saw.Tools, "ask_a") || !slices.Contains(saw.Progress, "one moment") || !slices.Equal(saw.Asked, []string{"Ship?"}) {
				t.Errorf("the client saw %s", out)
			}
			if len(saw.Answer.Content) != 1 || !strings.Contains(saw.Answer.Content[0].Text, "Yes") || !strings.Contains(saw.Thread, "work") || saw.Cancelled == "no" {
				t.Errorf("the client got %s", out)
			}
			for end := time.Now().Add(patience); ; {
				page, err := g.Conversations().Events(gatewaytest.Ctx(), "a", conversation.Filter{}, 0, 1000)
				if err != nil {
					t.Fatal(err)
				}
				if last, ok := page.Events[len(page.Events)-1].Body.(conversation.Ended); ok && last.State == conversation.Cancelled {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the turn goes on that the client has cancelled")
				}
			}
		})
	}
	t.Run("inspector", func(t *testing.T) {
		out, err := node(t, bin+"mcp-inspector", "--cli", g.URL+"/mcp", "--transport", "http", "--method", "tools/list").Output()
		if err != nil || !strings.Contains(string(out), `"ask_a"`) {
			t.Errorf("%v: %s", err, out)
		}
	})
}
