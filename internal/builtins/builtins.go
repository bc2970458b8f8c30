// Package builtins has the tools that the gateway runs itself: one file for each pack, with the
// small store interfaces that it needs. Names, inputs and the keys of outputs are those that agents
// know (http.md 5): objects have the names of Go fields as keys, lists are never null, times are
// RFC 3339 in UTC.
//
// What a tool works on belongs to the agent that calls it, known from its connection; a person can
// call on behalf of an agent that they oversee. Nothing here is kept in memory, and no goroutine is
// started.
package builtins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Limits of what agents store, in bytes where they are not counts.
const (
	maxText    = 256 << 10 // one message, content, value or notes
	maxLine    = 1000      // one subject, key or description of a tag
	maxTags    = 32
	maxTag     = 100
	maxTodos   = 10_000 // of one agent
	maxNotes   = 10_000 // of one agent
	maxLimit   = 500    // of one page
	maxPage    = 1 << 20
	version    = "builtin"
	needsAgent = "this tool works on what belongs to an agent: say on behalf of which one you call, with agent_id"
)

// A Time is a time as tools show it; null where it is zero.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(time.RFC3339) + `"`), nil
}

// A Page is a part of a list, the newest first.
type Page struct {
	Before int64 // only what has a lower Seq; 0 for all
	Limit  int
}

// newID returns a random identity that sorts by time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

func now() Time { return Time{time.Now().UTC().Truncate(time.Microsecond)} }

// tool makes a tool of a function from its input, decoded, to its output, which is encoded.
func tool[In any](name, description, schema, need string, run func(context.Context, *packs.Call, In) (any, error)) packs.Tool {
	return packs.Tool{
		Name: name, Description: description, Schema: schema, Needs: []string{need}, OwnWords: true,
		Call: func(ctx context.Context, c *packs.Call) (string, error) {
			var in In
			if err := decode(c.Input, &in); err != nil {
				return "", err
			}
			out, err := run(ctx, c, in)
			if err != nil {
				return "", err
			}
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(out); err != nil {
				return "", err
			}
			return strings.TrimSuffix(b.String(), "\n"), nil
		},
	}
}

// decode reads an input. Fields that nobody knows are ignored, as they always were.
func decode(input json.RawMessage, in any) error {
	err := json.Unmarshal(input, in)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return fault.Wrap(err, fault.Invalid, "invalid input: it is not JSON")
	}
	want := "object"
	switch t := wrong.Type; {
	case t == reflect.TypeFor[bool]():
		want = "boolean"
	case t.Kind() == reflect.String:
		want = "string"
	case t.Kind() == reflect.Slice:
		want = "array"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		want = "integer"
	}
	got, _, _ := strings.Cut(wrong.Value, " ") // "number 1.5" is a number
	if got == "bool" {
		got = "boolean"
	}
	return fault.New(fault.Invalid, "invalid input: at /%s: got %s, want %s", strings.ReplaceAll(wrong.Field, ".", "/"), got, want)
}

// agent returns the agent that a call is about.
func agent(c *packs.Call) (string, error) {
	if c.AgentID == "" {
		return "", fault.New(fault.Invalid, needsAgent)
	}
	return c.AgentID, nil
}

// text checks a text that must be there.
func text(name, value string, most int) error {
	if value == "" {
		return fault.New(fault.Invalid, "%s is required", name)
	}
	return atMost(name, value, most)
}

// atMost checks a text that may be empty.
func atMost(name, value string, most int) error {
	if len(value) > most {
		return fault.New(fault.TooLarge, "%s must not be longer than %d bytes; this one has %d", name, most, len(value))
	}
	if !utf8.ValidString(value) {
		return fault.New(fault.Invalid, "%s must be UTF-8", name)
	}
	return nil
}

// page reads limit and cursor. One more than the limit is asked for, so that it is known whether
// there are more.
func page(limit, standard int, cursor string) (Page, error) {
	if limit <= 0 {
		limit = standard
	}
	p := Page{Limit: min(limit, maxLimit) + 1}
	if cursor == "" {
		return p, nil
	}
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || n <= 0 {
		return p, fault.New(fault.Invalid, "cursor must be the next_cursor of an earlier answer")
	}
	p.Before = n
	return p, nil
}

// list is the output of a list: under key what fits, with its count, and where it goes on.
func list[T any](key string, p Page, items []T, seq func(T) int64, size func(T) int) map[string]any {
	kept := make([]T, 0, len(items)) // not null
	bytes := 0
	for _, x := range items {
		if bytes += size(x); len(kept) == p.Limit-1 || len(kept) > 0 && bytes > maxPage {
			break
		}
		kept = append(kept, x)
	}
	out := map[string]any{"count": len(kept), key: kept}
	if len(kept) < len(items) {
		out["has_more"], out["next_cursor"] = true, strconv.FormatInt(seq(kept[len(kept)-1]), 10)
	}
	return out
}

// A change is a new value of a field, if there is one: a field that is left out stays as it is, one
// that is null is cleared.
type change struct {
	given, null bool
	value       string
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *change) UnmarshalJSON(b []byte) error {
	c.given = true
	if string(b) == "null" {
		c.null = true
		return nil
	}
	return json.Unmarshal(b, &c.value)
}

// oneOf checks a word.
func oneOf(name, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	last := len(words) - 1
	return fault.New(fault.Invalid, "invalid %s %q: must be %s, or %s", name, clip(value), strings.Join(words[:last], ", "), words[last])
}

func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// date reads a time; it may be empty.
func date(name, value string) (Time, error) {
	if value == "" {
		return Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		return Time{}, fault.Wrap(err, fault.Invalid, "invalid %s: want a time like 2026-01-31T09:00:00Z, got %q", name, clip(value))
	}
	return Time{t.UTC()}, nil
}

// ErrNotFound is the fault of a store that has not what was asked for.
var ErrNotFound = fault.New(fault.NotFound, "not found")

// pagingSchema are the properties of a list's input.
func pagingSchema(standard int) string {
	return fmt.Sprintf(`"limit":{"type":"integer","description":"At most this many; %d by default, %d at most"},"cursor":{"type":"string","description":"The next_cursor of the page before"}`, standard, maxLimit)
}
