package gatewaytest

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

var (
	sampleLine = regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="`)
	metricUse  = regexp.MustCompile(`\b((?:coven|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	labelUse   = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	docsOf     = regexp.MustCompile(`(?m)^\| (Coven\w+) \|`)
)

// series are the metrics of a gateway that has been used a little, with their labels. Those that Prometheus adds
// are among them.
func (g *Gateway) series() map[string]map[string]bool {
	g.t.Helper()
	a := g.Agent("a", everything)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		resp, err := g.Client.Post(g.URL+"/api/agents/a/send", "application/json", strings.NewReader(`{"message":"hi"}`))
		if err != nil {
			g.t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body) // the end of the turn
		resp.Body.Close()
	}()
	request := a.Message().GetRequestId()
	if _, words := a.Call("todo_list", `{}`); words != "" {
		g.t.Fatal(words)
	}
	a.Text(request, "ho")
	a.Done(request, "ho")
	<-sent
	resp, err := g.Client.Get(g.URL + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	served := make(map[string]map[string]bool)
	for _, m := range sampleLine.FindAllStringSubmatch(string(text), -1) {
		labels := map[string]bool{"job": true, "instance": true}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = true
		}
		served[m[1]] = labels
	}
	return served
}

// checkQuery checks what can be known of a query without Prometheus: that its metrics are served with the
// labels that it selects and groups by, and that its brackets match.
func checkQuery(t *testing.T, where, query string, served map[string]map[string]bool) {
	t.Helper()
	known := make(map[string]bool)
	for _, m := range metricUse.FindAllStringSubmatch(query, -1) {
		labels, ok := served[m[1]]
		if !ok {
			t.Errorf("%s: no gateway serves %s", where, m[1])
			continue
		}
		maps.Copy(known, labels)
		for _, l := range labelUse.FindAllStringSubmatch(m[2], -1) {
			if !labels[l[1]] {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for name := range strings.SplitSeq(g[1], ",") {
			if !known[strings.TrimSpace(name)] {
				t.Errorf("%s: nothing has a label %s to group by", where, name)
			}
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(query, pair[:1]) != strings.Count(query, pair[1:]) {
			t.Errorf("%s: the brackets of %s do not match", where, query)
		}
	}
}

// TestDashboard: the dashboard in deploy/ shows metrics that are served, in panels that do not overlap.
func TestDashboard(t *testing.T) {
	served := New(t).series()
	b, err := os.ReadFile("../../deploy/grafana/coven-gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title      string
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	for _, v := range board.Templating.List {
		checkQuery(t, "variable "+v.Name, v.Definition, served)
	}
	ids, places, shown := map[int]bool{}, map[[2]int]string{}, map[string]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: another panel has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := places[at]; taken || at[0] >= 24 {
					t.Fatalf("%s: it lies over %q, or outside", p.Title, other)
				}
				places[at] = p.Title
			}
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s: a %s with %d queries", p.Title, p.Type, len(p.Targets))
		}
		for _, q := range p.Targets {
			checkQuery(t, p.Title, q.Expr, served)
			for _, m := range metricUse.FindAllStringSubmatch(q.Expr, -1) {
				shown[base(m[1])] = true
			}
		}
	}
	for name := range served {
		if strings.HasPrefix(name, "coven_") && !shown[base(name)] {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// base is the name of a metric without what its series are called.
func base(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

// TestAlerts: the alert rules in deploy/ look at metrics that are served, and docs/OPERATIONS.md says of each
// what to do.
func TestAlerts(t *testing.T) {
	served := New(t).series()
	b, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(b, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, alerts []string
	for _, m := range docsOf.FindAllStringSubmatch(string(manual), -1) {
		documented = append(documented, m[1])
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			checkQuery(t, r.Alert, r.Expr, served)
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: the severity is %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: no summary or description", r.Alert)
			}
		}
	}
	if len(alerts) == 0 || !slices.Equal(slices.Sorted(slices.Values(alerts)), slices.Sorted(slices.Values(documented))) {
		t.Errorf("the alerts are\n%v, the documented ones\n%v", alerts, documented)
	}
}
