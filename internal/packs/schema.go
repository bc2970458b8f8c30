package packs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"coven-gateway/internal/fault"
)

// anyObject is the schema of a tool that has none.
const anyObject = `{"type":"object"}`

// maxPaths bounds the ways through a schema that one value is checked by, so that a schema of a few
// lines cannot keep the gateway busy for ever.
const maxPaths = 10_000

// maxComplaints bounds what a refusal says about an input.
const maxComplaints = 3

// here is what a schema is called while it is compiled. It refers to nothing.
const here = "tool:input"

// noLoader loads nothing: a schema is what the pack says, not what some server says later.
type noLoader struct{}

// Load implements jsonschema.URLLoader.
func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("references to other documents are not followed: %s", url)
}

// compiled are the schemas of this program, by their texts: each agent that can be asked is a tool with the
// same one.
var compiled sync.Map

// compileOnce is compile for a text that is part of this program.
func compileOnce(text string) (*jsonschema.Schema, string, error) {
	type result struct {
		schema *jsonschema.Schema
		text   string
	}
	if r, ok := compiled.Load(text); ok {
		return r.(result).schema, r.(result).text, nil
	}
	schema, told, err := compile(text)
	if err == nil {
		compiled.Store(text, result{schema, told})
	}
	return schema, told, err
}

// compile returns a schema and its text as callers are told it: always of an object.
func compile(text string) (*jsonschema.Schema, string, error) {
	if strings.TrimSpace(text) == "" {
		text = anyObject
	}
	// Numbers become float64: what is larger is refused here and costs nothing later.
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil || doc == nil {
		return nil, "", errors.New("the input schema is not a JSON object")
	}
	switch t, ok := doc["type"]; {
	case !ok:
		doc["type"] = "object" // or some callers could not call it
		b, err := json.Marshal(doc)
		if err != nil {
			return nil, "", err
		}
		text = string(b)
	case t != "object":
		return nil, "", errors.New(`the input schema must have the type "object"`)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(here, doc); err != nil {
		return nil, "", fmt.Errorf("the input schema is not valid: %s", oneLine(err))
	}
	s, err := c.Compile(here)
	if err != nil {
		return nil, "", fmt.Errorf("the input schema is not valid: %s", oneLine(err))
	}
	if (&weigher{seen: map[*jsonschema.Schema]int{}}).paths(s) > maxPaths {
		return nil, "", errors.New("the input schema combines too many others")
	}
	return s, text, nil
}

func oneLine(err error) string {
	s := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), here+"#", "#")), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// A weigher counts the ways through a schema.
type weigher struct{ seen map[*jsonschema.Schema]int }

// paths returns how many schemas one value is checked by, counting one that is reached in several
// ways each time; more than maxPaths if it cannot be told.
func (w *weigher) paths(s *jsonschema.Schema) int {
	if s == nil {
		return 0
	}
	if n, ok := w.seen[s]; ok {
		return n
	}
	w.seen[s] = maxPaths + 1 // of one that leads to itself without looking deeper into the value
	n := 1
	for _, next := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf, {s.Not, s.If, s.Then, s.Else, s.Ref, s.RecursiveRef}} {
		for _, x := range next {
			n = min(n+w.paths(x), maxPaths+1)
		}
	}
	if s.DynamicRef != nil {
		n = min(n+w.paths(s.DynamicRef.Ref), maxPaths+1)
	}
	for _, x := range s.DependentSchemas {
		n = min(n+w.paths(x), maxPaths+1)
	}
	w.seen[s] = n
	return n
}

// validate returns an Invalid fault that names the places where an input does not match.
func validate(s *jsonschema.Schema, input json.RawMessage) error {
	var v any
	if err := json.Unmarshal(input, &v); err != nil {
		return fault.Wrap(err, fault.Invalid, "invalid input: it is not JSON")
	}
	err := s.Validate(v)
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fault.Wrap(err, fault.Invalid, "invalid input: it cannot be checked")
	}
	var said []string
	var complain func(*jsonschema.OutputUnit)
	complain = func(u *jsonschema.OutputUnit) {
		if len(u.Errors) == 0 && u.Error != nil && len(said) < maxComplaints {
			where := u.InstanceLocation
			if where == "" {
				where = "/"
			}
			said = append(said, fmt.Sprintf("at %s: %s", clip(where), clip(u.Error.String())))
		}
		for i := range u.Errors {
			complain(&u.Errors[i])
		}
	}
	complain(bad.DetailedOutput())
	return fault.New(fault.Invalid, "invalid input: %s", strings.Join(said, "; "))
}

// clip keeps what callers write from filling a message.
func clip(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
