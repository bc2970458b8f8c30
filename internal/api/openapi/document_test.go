package openapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"coven-gateway/internal/auth"
)

var all = Options{MetricsPath: "/metrics", SessionCookie: "cookie"}

// TestTable: every route of the authorization table is described once, under a name of its own, and
// what is said of parts of paths is said of parts that there are.
func TestTable(t *testing.T) {
	routes, ids := map[string]bool{}, map[string]bool{}
	parts := map[string]bool{}
	for _, g := range groups {
		for _, o := range g.operations {
			if routes[o.route] || ids[o.id] || o.summary == "" || len(o.answers) == 0 {
				t.Errorf("%s (%s) is described twice, or not at all", o.route, o.id)
			}
			routes[o.route], ids[o.id] = true, true
			before := ""
			for part := range strings.SplitSeq(o.route, "/") {
				if strings.HasPrefix(part, "{") {
					parts[before+"/"+part] = true
				}
				before = part
			}
		}
	}
	for route := range auth.Routes {
		if !routes[route] {
			t.Errorf("%s is not described", route)
		}
	}
	for part := range parts {
		if inPaths[part] == "" {
			t.Errorf("nothing is said of %s", part)
		}
	}
	for part := range inPaths {
		if !parts[part] {
			t.Errorf("no path has %s", part)
		}
	}
}

// TestReferences: what the document refers to is there, and every schema is used.
func TestReferences(t *testing.T) {
	d := New(all)
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"#/components/(\w+)/(\w+)"`).FindAllStringSubmatch(string(b), -1) {
		if d.get("components").get(m[1]).get(m[2]) == nil {
			t.Errorf("there is no %s", m[0])
		}
		used[m[2]] = true
	}
	for _, s := range d.get("components").get("schemas") {
		if !used[s.name] {
			t.Errorf("nothing uses the schema %s", s.name)
		}
	}
}

// TestPage: the page links to nothing but itself and the document, loads nothing, and its links lead
// somewhere.
func TestPage(t *testing.T) {
	b, policy, err := New(all).Page()
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if strings.Contains(page, "<script") || strings.Contains(page, "src=") || strings.Contains(page, "url(") || !strings.Contains(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("the page loads something; its policy is %s", policy)
	}
	var anchors []string
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if slices.Contains(anchors, m[1]) {
			t.Errorf("%s is there twice", m[1])
		}
		anchors = append(anchors, m[1])
	}
	for _, m := range regexp.MustCompile(`href="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if id, ok := strings.CutPrefix(m[1], "#"); m[1] != "/api/openapi.json" && (!ok || !slices.Contains(anchors, id)) {
			t.Errorf("the page links to %s", m[1])
		}
	}
	for _, g := range groups {
		for _, o := range g.operations {
			if _, path, _ := strings.Cut(" "+o.route, " "); !strings.Contains(page, path[strings.IndexByte(path, '/'):]) {
				t.Errorf("%s is not on the page", o.route)
			}
		}
	}
}

// TestWithoutMetrics: what is not served is not described.
func TestWithoutMetrics(t *testing.T) {
	d := New(Options{SessionCookie: "cookie"})
	if d.get("paths").get("/metrics") != nil || New(Options{MetricsPath: "/m", SessionCookie: "c"}).get("paths").get("/m") == nil {
		t.Error("the path of the metrics is not that of the options")
	}
}
