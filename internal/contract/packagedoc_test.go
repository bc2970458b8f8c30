package contract

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// TestPackageDoc checks that every package has exactly one package comment, and
// that it opens with what the package is.
func TestPackageDoc(t *testing.T) {
	packages := make(map[string][]sourceFile)
	for _, f := range sourceFiles(t) {
		if !f.test {
			packages[f.dir] = append(packages[f.dir], f)
		} else if f.Doc != nil {
			t.Errorf("%s: a test file has a package comment", f.path)
		}
	}
	for dir, files := range packages {
		documented := slices.DeleteFunc(files, func(f sourceFile) bool { return f.Doc == nil })
		if len(documented) != 1 {
			var names []string
			for _, f := range documented {
				names = append(names, path.Base(f.path))
			}
			t.Errorf("%s has %d package comments %v, want 1", dir, len(documented), names)
			continue
		}
		f := documented[0]
		if doc := f.Doc.Text(); !opensWell(doc, f.Name.Name, path.Base(dir)) {
			first, _, _ := strings.Cut(doc, "\n")
			t.Errorf("%s: the package comment opens with %q", f.path, first)
		}
	}
}

// opensWell reports whether a package comment opens with "Package x …", or for
// a command with its name. A banner, a licence or a build note does not.
func opensWell(doc, pkg, dir string) bool {
	if pkg != "main" {
		return strings.HasPrefix(doc, "Package "+pkg+" ")
	}
	return strings.HasPrefix(doc, "Command "+dir+" ") ||
		strings.HasPrefix(doc, strings.ToUpper(dir[:1])+dir[1:]+" ")
}

func TestOpensWell(t *testing.T) {
	for _, tt := range []struct {
		doc, pkg, dir string
		want          bool
	}{
		{"Package sse writes event streams.\n", "sse", "sse", true},
		{"Package auth checks who calls.\n", "sse", "sse", false},
		{"===== SSE =====\n", "sse", "sse", false},
		{"Copyright the authors.\nPackage sse writes event streams.\n", "sse", "sse", false},
		{"Command coven-admin is the operator's tool.\n", "main", "coven-admin", true},
		{"Coven-admin is the operator's tool.\n", "main", "coven-admin", true},
		{"Package main is the operator's tool.\n", "main", "coven-admin", false},
	} {
		if got := opensWell(tt.doc, tt.pkg, tt.dir); got != tt.want {
			t.Errorf("opensWell(%q, %q, %q) = %t, want %t", tt.doc, tt.pkg, tt.dir, got, tt.want)
		}
	}
}
