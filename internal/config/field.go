package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A field is one key of the configuration, bound to the place of its value.
type field struct {
	key    string
	env    string // the environment variable that wins over the file, if any
	takes  shape  // what may be written in the file, besides a list; 0 if only a list
	want   string // the same in words, for messages
	path   bool   // ~ is expanded
	secret bool   // the value appears in no message

	set  func(string) error
	show func() string // as YAML that reads back as the same value, on one line

	// For a key that takes a list of strings, else nil.
	item   func(string) error // what is wrong with one of them
	setAll func([]string)
}

// shape is a set of kinds of YAML scalar.
type shape uint8

const (
	isText shape = 1 << iota
	isNumber
	isBool
)

func (f field) from(env string) field {
	f.env = env
	return f
}

func (f field) name() string { return f.key[strings.LastIndexByte(f.key, '.')+1:] }

func text[T ~string](key string, p *T) field {
	return field{
		key: key, takes: isText, want: "a string",
		set: func(s string) error {
			if err := legible(s); err != nil {
				return err
			}
			*p = T(s)
			return nil
		},
		show: func() string { return quote(string(*p)) },
	}
}

func legible(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("not valid UTF-8")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%q contains a control character", s)
	}
	return nil
}

// list is a list of strings, called what in messages. An empty one becomes nil.
func list(key, what string, p *[]string) field {
	return field{
		key: key, want: "a list of " + what,
		item:   legible,
		setAll: func(items []string) { *p = append([]string(nil), items...) },
		show:   func() string { return flow(*p) },
	}
}

func path(key string, p *string) field {
	f := text(key, p)
	f.path = true
	return f
}

// link is a URL, kept without a slash at its end so that paths can be appended.
func link(key string, p *string) field {
	f := text(key, p)
	set := f.set
	f.set = func(s string) error { return set(strings.TrimRight(s, "/")) }
	return f
}

func secret(key string, p *Secret) field {
	return field{
		key: key, takes: isText, want: "a string", secret: true,
		set: func(s string) error {
			if err := notRedacted(s); err != nil {
				return err
			}
			*p = Secret(s)
			return nil
		},
		show: func() string { return quote(p.String()) },
	}
}

func notRedacted(s string) error {
	if s == redacted {
		return errors.New("this is how a secret is printed, not the secret")
	}
	return nil
}

// secrets is one secret or a list of them. An empty one alone is none at all, so that
// ${NAME:-} may be empty in either form.
func secrets(key string, p *[]Secret) field {
	f := field{key: key, takes: isText, want: "a string or a list of strings", secret: true, item: notRedacted}
	f.setAll = func(items []string) {
		*p = nil
		if len(items) == 1 && items[0] == "" {
			return
		}
		for _, s := range items {
			*p = append(*p, Secret(s))
		}
	}
	f.set = func(s string) error {
		if err := notRedacted(s); err != nil {
			return err
		}
		f.setAll([]string{s})
		return nil
	}
	f.show = func() string {
		switch len(*p) {
		case 0:
			return `""`
		case 1:
			return quote((*p)[0].String())
		}
		shown := make([]string, len(*p))
		for i, s := range *p {
			shown[i] = s.String()
		}
		return flow(shown)
	}
	return f
}

func boolean(key string, p *bool) field {
	return field{
		key: key, takes: isBool, want: "true or false",
		set: func(s string) error {
			if s != "true" && s != "false" {
				return fmt.Errorf("expected true or false, got %q", s)
			}
			*p = s == "true"
			return nil
		},
		show: func() string { return strconv.FormatBool(*p) },
	}
}

func count(key string, p *int) field {
	return field{
		key: key, takes: isNumber, want: "a whole number",
		set: func(s string) error {
			n, err := strconv.Atoi(s)
			if err != nil {
				return fmt.Errorf("expected a whole number, got %q", s)
			}
			*p = n
			return nil
		},
		show: func() string { return strconv.Itoa(*p) },
	}
}

func size(key string, p *Size) field {
	return field{
		key: key, takes: isText | isNumber, want: "a size such as 4MiB",
		set: func(s string) error {
			n, err := ParseSize(s)
			if err != nil {
				return fmt.Errorf("%q: %w", s, err)
			}
			*p = n
			return nil
		},
		show: func() string { return p.String() },
	}
}

func duration(key string, p *time.Duration) field {
	f := field{
		key: key, takes: isText | isNumber, want: "a duration such as 30s",
		show: func() string { return formatDuration(*p) },
	}
	name := f.name()
	f.set = func(s string) (err error) {
		*p, err = parseDuration(name, s)
		return err
	}
	return f
}

// age is a duration in days, or as other durations are written.
func age(key string, p *time.Duration) field {
	f := duration(key, p)
	f.want = "an age such as 90d"
	f.set = func(s string) (err error) {
		*p, err = parseAge(f.name(), s)
		return err
	}
	f.show = func() string { return formatAge(*p) }
	return f
}

func level(key string, p *slog.Level) field {
	return field{
		key: key, takes: isText, want: "a string",
		set: func(s string) error {
			for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
				if s == strings.ToLower(l.String()) {
					*p = l
					return nil
				}
			}
			return fmt.Errorf("must be debug, info, warn or error, not %q", s)
		},
		show: func() string { return strings.ToLower(p.String()) },
	}
}

// Quote writes a string as a YAML scalar that reads back as the same string.
func Quote(s string) string { return quote(s) }

// quote writes a YAML scalar in double quotes. JSON strings are YAML strings.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(strings.ReplaceAll(s, "${", "$${")); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// flow writes a YAML list on one line.
func flow(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// printable is for text out of a file that goes into a one-line message or comment.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
