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
	takes  shape  // what may be written in the file
	want   string // the same in words, for messages
	path   bool   // ~ is expanded
	secret bool   // the value appears in no message

	set  func(string) error
	show func() string // as a YAML scalar that reads back as the same value
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
			if !utf8.ValidString(s) {
				return errors.New("not valid UTF-8")
			}
			if strings.ContainsFunc(s, unicode.IsControl) {
				return fmt.Errorf("%q contains a control character", s)
			}
			*p = T(s)
			return nil
		},
		show: func() string { return quote(string(*p)) },
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
			if s == redacted {
				return errors.New("this is how a secret is printed, not the secret")
			}
			*p = Secret(s)
			return nil
		},
		show: func() string { return quote(p.String()) },
	}
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

// printable is for text out of a file that goes into a one-line message or comment.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
