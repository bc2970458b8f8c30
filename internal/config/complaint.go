package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Origin says where a value came from. The zero Origin is a built-in default.
type Origin struct {
	File   string // path of the configuration file
	Line   int    // from 1; 0 if the file as a whole is meant
	Column int    // from 1
	Env    string // name of the environment variable
	Via    string // for a default: the key from which it was derived
}

// IsDefault reports whether neither the file nor the environment gave the value.
func (o Origin) IsDefault() bool { return o.File == "" && o.Env == "" }

// String is "default", "default, from data_dir", "gateway.yaml:12" or
// "environment COVEN_DB_PATH".
func (o Origin) String() string {
	switch {
	case o.Env != "":
		return "environment " + o.Env
	case o.File != "" && o.Line > 0:
		return fmt.Sprintf("%s:%d", printable(o.File), o.Line)
	case o.File != "":
		return printable(o.File)
	case o.Via != "":
		return "default, from " + o.Via
	}
	return "default"
}

// place is the origin as the head of a message, with the column.
func (o Origin) place() string {
	switch {
	case o.IsDefault():
		return ""
	case o.File != "" && o.Line > 0:
		return fmt.Sprintf("%v:%d: ", o, o.Column)
	}
	return o.String() + ": "
}

// A Complaint is one thing that is wrong with one key. The error that [Load] returns
// for an unacceptable configuration is a join of *Complaint, in the order of the file.
type Complaint struct {
	Origin  Origin
	Key     string // such as "server.grpc_addr"; "" if the file as a whole is meant
	Message string // names neither place nor secrets; one line
}

// Error is "file:line:col: key: message".
func (c *Complaint) Error() string { return c.Origin.place() + keyed(c.Key, c.Message) }

// A Warning is something in an accepted configuration that has no effect.
type Warning struct {
	Origin  Origin
	Key     string
	Message string
}

// String is "file:line:col: key: message".
func (w Warning) String() string { return w.Origin.place() + keyed(w.Key, w.Message) }

// keyed puts the key in front, unless the message is a sentence that begins with it.
func keyed(key, message string) string {
	if key == "" || strings.HasPrefix(message, key+" ") {
		return message
	}
	return key + ": " + message
}

// joined orders complaints: those about the file first, by line.
func joined(cs []*Complaint) error {
	slices.SortStableFunc(cs, func(a, b *Complaint) int {
		return cmp.Or(
			cmp.Compare(b.Origin.File, a.Origin.File),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
		)
	})
	errs := make([]error, len(cs))
	for i, c := range cs {
		errs[i] = c
	}
	return errors.Join(errs...)
}
