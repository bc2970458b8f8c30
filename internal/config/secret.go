package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a string that no formatter, encoder or logger shows: what they show is
// [redacted], or nothing if the secret is empty. Only Reveal gives the text. The exception
// is a map with Secret as its key type, which encoding/json takes for strings.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]", or "" if the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// Format covers the verbs for which fmt does not ask String, such as %d.
func (s Secret) Format(f fmt.State, verb rune) {
	shown := s.String()
	if verb == 'v' && f.Flag('#') {
		shown = s.GoString()
	}
	_, _ = io.WriteString(f, shown) // fmt has nowhere to put an error
}

// MarshalText redacts the secret in every encoder that asks for text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON redacts the secret in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML redacts the secret in YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue redacts the secret in the log.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
