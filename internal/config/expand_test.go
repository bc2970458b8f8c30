package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	env := environment(vars{"A": "alpha", "EMPTY": "", "REF": "${A}", "file": "f"}.lookup)
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"plain $A $ {A} }", "plain $A $ {A} }"},
		{"${A}", "alpha"},
		{"x${A}y${A}z", "xalphayalphaz"},
		{"${NO:-b}", "b"},
		{"${EMPTY:-b}", "b"},
		{"${A:-b}", "alpha"},
		{"${NO:-}", ""},
		{"${NO:-a:-b}", "a:-b"},
		{"${file:-x}", "f"},
		{"$${A}", "${A}"},
		{"$$${A}", "$${A}"},
		{"${A}$${A}${A}", "alpha${A}alpha"},
		{"$$", "$$"},
		{"${REF}", "${A}"}, // what comes out is not looked at again
	} {
		got, refs, err := env.expand(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("expand(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if want := got != tt.in && !strings.HasPrefix(tt.in, "$$"); refs != want {
			t.Errorf("expand(%q): references: %v, want %v", tt.in, refs, want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"${NO}", "the environment variable NO is unset or empty; set it or write ${NO:-default}"},
		{"${EMPTY}", "the environment variable EMPTY is unset or empty; set it or write ${EMPTY:-default}"},
		{"${A", "${ without a closing }; write $${ for a literal ${"},
		{"${}", "${} is neither ${NAME}, ${NAME:-default} nor ${file:/path}; write $${ for a literal ${"},
		{"${1A}", "${1A} is neither ${NAME}, ${NAME:-default} nor ${file:/path}; write $${ for a literal ${"},
		{"${A-b}", "${A-b} is neither ${NAME}, ${NAME:-default} nor ${file:/path}; write $${ for a literal ${"},
		{"${NO:-${A}}", "the default of ${NO:-...} contains another ${; references cannot be nested"},
		{"${NO}${NO2}", "the environment variable NO is unset or empty; set it or write ${NO:-default}\nthe environment variable NO2 is unset or empty; set it or write ${NO2:-default}"},
		{"${file:x}", "${file:x} needs an absolute path"},
	} {
		if got, _, err := env.expand(tt.in); err == nil || err.Error() != tt.want {
			t.Errorf("expand(%q) = %q, %v, want error %q", tt.in, got, err, tt.want)
		}
	}
}

func TestExpandFile(t *testing.T) {
	home := t.TempDir()
	env := environment(vars{"HOME": home}.lookup)
	for name, content := range map[string]string{
		"secret": " s${A}\nt \r\n\n", "empty": "\n", "binary": "\xff", "big": strings.Repeat("x", maxSecretFile+1),
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"${file:" + home + "/secret}", "${file:~/secret}"} {
		if got, refs, err := env.expand(ref); got != " s${A}\nt " || !refs || err != nil {
			t.Errorf("expand(%q) = %q, %v, %v", ref, got, refs, err)
		}
	}
	for name, want := range map[string]string{
		"empty":   "is empty",
		"binary":  "is not valid UTF-8",
		"big":     "has more than 64KiB",
		"missing": "no such file",
		".":       "is not a regular file",
	} {
		if _, _, err := env.expand("${file:~/" + name + "}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
