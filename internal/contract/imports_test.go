package contract

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Packages are written as their path below the module; "x/..." is x and all
// below it. Packages outside of the module are written in full.
var (
	leaves = []string{
		"internal/fault/...", "internal/sse/...", "internal/dedupe/...", "internal/config/...", "internal/tracing", "proto/...", "web/...",
	}
	core  = []string{"internal/conversation", "internal/packs"}
	edges = []string{
		"internal/api/...", "internal/webadmin/...", "internal/client/...", "internal/admin/...", "internal/mcp/...",
		"internal/agent/...", "internal/packs/packgrpc/...", "internal/builtins/...",
	}
	store   = []string{"internal/store/..."}
	gateway = []string{"internal/gateway/..."}
)

// imports are the rules about what a package imports. The code of tests is free.
var imports = []struct {
	who   []string
	only  []string // of the module's packages, beside the package's own
	never []string
	why   string
}{
	{
		who:  []string{"internal/fault/...", "internal/config/...", "internal/tracing/...", "internal/handover", "proto/...", "web/..."},
		only: []string{},
		why:  "leaves stand alone",
	},
	{
		who:  []string{"internal/sse/...", "internal/dedupe/..."},
		only: []string{"internal/fault/..."},
		why:  "leaves stand alone, but may use its error type",
	},
	{
		who:  []string{"internal/auth/..."},
		only: leaves,
		why:  "everything asks auth who the caller is, so it can ask nobody",
	},
	{
		who:   core,
		never: slices.Concat(store, edges, gateway, []string{"proto/...", "net/http/..."}),
		why:   "the core knows no transport and no database",
	},
	{
		who:   edges,
		never: slices.Concat(store, edges, gateway),
		why:   "an edge talks to the core; what two edges share belongs there",
	},
	{
		who:  []string{"internal/upstream"},
		only: []string{"internal/packs", "internal/auth/...", "internal/fault/..."},
		why:  "it is a source of tools beside the core, which edges administer",
	},
	{
		who:  store,
		only: slices.Concat(leaves, core, []string{"internal/auth/...", "internal/builtins", "internal/upstream"}),
		why:  "the store implements interfaces and uses nobody",
	},
	{
		who:  []string{"sdk/..."},
		only: []string{"proto/..."},
		why:  "the sdk is for other people's programs",
	},
	{
		who:  []string{"internal/harness"},
		only: []string{"sdk/agent", "internal/sse", "proto/..."},
		why:  "it looks at a gateway from outside, as everybody does",
	},
	{
		who:   []string{"cmd/coven-admin/..."},
		never: slices.Concat(store, gateway),
		why:   "the operator's tool speaks to a running gateway",
	},
}

// importers are the rules about who imports a package.
var importers = []struct {
	what, by []string
	why      string
}{
	{
		what: store,
		by:   []string{"internal/gateway/...", "internal/gatewaytest/...", "cmd/coven-gateway/..."},
		why:  "everybody else declares the interface it needs",
	},
	{
		what: gateway,
		by:   []string{"internal/gatewaytest/...", "cmd/coven-gateway/..."},
		why:  "it is the wiring and nothing else",
	},
	{
		what: []string{"internal/harness"},
		by:   []string{"cmd/coven-gateway/...", "internal/gatewaytest/..."},
		why:  "it is for those who test a gateway",
	},
	{
		what: []string{"internal/tracing/otlp"},
		by:   []string{"cmd/coven-gateway/..."},
		why:  "whoever runs a gateway decides where its traces go",
	},
	{
		what: []string{"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/exporters/..."},
		by:   []string{"internal/tracing/otlp"},
		why:  "everybody else knows the interface of OpenTelemetry only",
	},
	{
		what: []string{"internal/gatewaytest/...", "internal/store/storetest/..."},
		why:  "it is for tests",
	},
}

func TestImports(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if f.test {
			continue
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range violations(f.dir, path) {
				t.Errorf("%s: %s", f.path, v)
			}
		}
	}
}

// violations returns the rules that an import breaks. The importing package is
// given by its path below the module, the imported one as in an import.
func violations(from, path string) []string {
	to, ours := strings.CutPrefix(path, module+"/")
	var broken []string
	for _, r := range imports {
		own, applies := match(r.who, from)
		if !applies || matches([]string{own}, to) {
			continue
		}
		if r.only != nil && ours && !matches(r.only, to) || matches(r.never, to) {
			broken = append(broken, fmt.Sprintf("%s must not import %s: %s", from, to, r.why))
		}
	}
	for _, r := range importers {
		own, applies := match(r.what, to)
		if applies && !matches([]string{own}, from) && !matches(r.by, from) {
			broken = append(broken, fmt.Sprintf("%s must not import %s: %s", from, to, r.why))
		}
	}
	return broken
}

func matches(patterns []string, pkg string) bool {
	_, ok := match(patterns, pkg)
	return ok
}

// match returns the first pattern that stands for pkg.
func match(patterns []string, pkg string) (pattern string, ok bool) {
	for _, p := range patterns {
		if base, tree := strings.CutSuffix(p, "/..."); pkg == base || tree && strings.HasPrefix(pkg, base+"/") {
			return p, true
		}
	}
	return "", false
}

func TestViolations(t *testing.T) {
	for _, tt := range []struct {
		from, path string
		want       int
	}{
		{"internal/conversation", "coven-gateway/internal/auth", 0},
		{"internal/conversation", "coven-gateway/internal/store", 2},
		{"internal/conversation", "coven-gateway/proto/coven", 1},
		{"internal/conversation", "coven-gateway/internal/api", 1},
		{"internal/packs", "net/http", 1},
		{"internal/packs", "coven-gateway/internal/packs/packgrpc", 1},
		{"internal/packs/packgrpc", "coven-gateway/internal/packs", 0},
		{"internal/packs/packgrpc", "net/http", 0},
		{"internal/api", "coven-gateway/internal/api/openapi", 0},
		{"internal/api", "coven-gateway/internal/webadmin", 1},
		{"internal/api", "coven-gateway/internal/conversation", 0},
		{"internal/builtins", "coven-gateway/internal/store", 2},
		{"internal/fault", "google.golang.org/grpc/codes", 0},
		{"internal/fault", "coven-gateway/internal/auth", 1},
		{"internal/sse", "coven-gateway/internal/fault", 0},
		{"internal/conversation", "coven-gateway/internal/tracing", 0},
		{"internal/conversation", "go.opentelemetry.io/otel/trace", 0},
		{"internal/conversation", "go.opentelemetry.io/otel/sdk/trace", 1},
		{"internal/gateway", "coven-gateway/internal/tracing/otlp", 1},
		{"internal/tracing/otlp", "go.opentelemetry.io/otel/sdk/trace", 0},
		{"internal/config", "coven-gateway/internal/fault", 1},
		{"internal/auth", "coven-gateway/internal/conversation", 1},
		{"internal/store", "coven-gateway/internal/builtins", 0},
		{"internal/store", "coven-gateway/internal/upstream", 0},
		{"internal/api", "coven-gateway/internal/upstream", 0},
		{"internal/upstream", "coven-gateway/internal/store", 2},
		{"internal/upstream", "coven-gateway/internal/conversation", 1},
		{"internal/store", "coven-gateway/internal/agent", 1},
		{"internal/store/storetest", "coven-gateway/internal/store", 0},
		{"internal/gateway", "coven-gateway/internal/store", 0},
		{"internal/gateway", "coven-gateway/internal/store/storetest", 1},
		{"internal/gatewaytest", "coven-gateway/internal/gateway", 0},
		{"internal/somethingnew", "coven-gateway/internal/gateway", 1},
		{"cmd/coven-gateway", "coven-gateway/internal/gateway", 0},
		{"cmd/coven-gateway", "coven-gateway/internal/gatewaytest", 1},
		{"cmd/coven-admin", "coven-gateway/internal/store", 2},
		{"sdk/agent", "coven-gateway/proto/coven", 0},
		{"sdk/agent", "coven-gateway/internal/fault", 1},
		{"internal/harness", "coven-gateway/sdk/agent", 0},
		{"internal/harness", "coven-gateway/internal/gateway", 2},
		{"internal/gateway", "coven-gateway/internal/harness", 1},
	} {
		if got := violations(tt.from, tt.path); len(got) != tt.want {
			t.Errorf("%s imports %s: got %q, want %d broken rules", tt.from, tt.path, got, tt.want)
		}
	}
}
