package gatewaytest

import (
	"os"
	"regexp"
	"testing"
)

// TestMetricsAreDocumented: docs/OPERATIONS.md names all metrics of the gateway, and no others.
func TestMetricsAreDocumented(t *testing.T) {
	g := New(t)
	a := g.Agent("a", everything)
	if _, words := a.Call("note_list", ""); words != "" {
		t.Fatal(words)
	}
	go func() { a.Done(a.Message().RequestId, "") }()
	g.request("POST", "/api/send", "", `{"agent_id":"a","sender":"me","content":"hi"}`)
	if resp, text := g.request("POST", "/api/admin/mcp/servers", "", `{"name":"away","url":"http://127.0.0.1:1/mcp","allow_private":true}`); resp.StatusCode/100 != 2 {
		t.Fatal(resp.Status, text)
	}
	_, text := g.request("GET", "/metrics", "", "")
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (coven_\w+) `).FindAllStringSubmatch(text, -1) {
		served[m[1]] = true
	}
	doc, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`(coven_\\w+)").FindAllSubmatch(doc, -1) {
		documented[string(m[1])] = true
	}
	for name := range served {
		if !documented[name] {
			t.Errorf("docs/OPERATIONS.md does not name %s", name)
		}
	}
	for name := range documented {
		if !served[name] {
			t.Errorf("docs/OPERATIONS.md names %s, which is not served", name)
		}
	}
}
