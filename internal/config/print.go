package config

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// A Setting is a key of the configuration, for people.
type Setting struct {
	Key    string // such as "server.grpc_addr"
	Value  string // as it would be written in the file; redacted where it is secret
	Origin Origin
	Secret bool
}

// Settings are all keys in the order in which they are printed.
func (c Config) Settings() []Setting {
	var all []Setting
	for _, f := range c.fields() {
		all = append(all, Setting{f.key, f.show(), c.Origin(f.key), f.secret})
	}
	return all
}

// Print writes the configuration in effect as YAML, with a comment behind each value
// saying where it came from. A secret that is set appears as a comment line, redacted;
// everything else reads back as it is.
func Print(w io.Writer, c Config) error {
	out := bufio.NewWriter(w) // keeps the first error for Flush
	var in []string           // the sections that are open
	for _, f := range c.fields() {
		at := strings.Split(f.key, ".")
		at = at[:len(at)-1]
		for i, section := range at {
			if i < len(in) && in[i] == section {
				continue
			}
			if i == 0 {
				fmt.Fprintln(out)
			}
			fmt.Fprintf(out, "%s%s:\n", strings.Repeat("  ", i), section)
			in = at[:i]
		}
		in = at
		line := f.name() + ": " + f.show()
		if f.secret && f.show() != `""` {
			line = "# " + line
		}
		fmt.Fprintf(out, "%s%s # %v\n", strings.Repeat("  ", len(at)), line, c.Origin(f.key))
	}
	return out.Flush()
}
