package contract

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestGoMod checks that no module of the repository replaces a dependency: a
// replacement does not reach whoever builds on top of it.
//
// A nested module may point to this repository's own packages.
func TestGoMod(t *testing.T) {
	replace := regexp.MustCompile(`(?m)^\s*replace\b.*$`)
	own := regexp.MustCompile(`^\s*replace\s+` + module + `\s+=>\s+\.\.`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && d.Name()[0] == '.':
			return filepath.SkipDir
		case d.IsDir() || d.Name() != "go.mod":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, line := range replace.FindAllString(string(data), -1) {
			if !own.MatchString(line) {
				t.Errorf("%s: %s", path, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
