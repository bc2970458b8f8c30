package openapi

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// An object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// with returns the object with one member more, unless the value says nothing.
func (o object) with(name string, value any) object {
	if value == "" {
		return o
	}
	return append(slices.Clip(o), member{name, value})
}

// get returns the object that a member is; nil without one.
func (o object) get(name string) object {
	for _, m := range o {
		if m.name == name {
			v, _ := m.value.(object)
			return v
		}
	}
	return nil
}

// text returns the string that a member is.
func (o object) text(name string) string {
	for _, m := range o {
		if m.name == name {
			v, _ := m.value.(string)
			return v
		}
	}
	return ""
}

// The types of fields.
var (
	str     = object{{"type", "string"}}
	number  = object{{"type", "integer"}, {"format", "int64"}}
	boolean = object{{"type", "boolean"}}
	moment  = object{{"type", "string"}, {"format", "date-time"}}
	encoded = object{{"type", "string"}, {"contentEncoding", "base64"}}
	binary  = object{{"type", "string"}, {"contentMediaType", "application/octet-stream"}}
	words   = list(str)
	texts   = object{{"type", "object"}, {"additionalProperties", str}}
)

// upTo is a string of at most so many characters. Where a limit counts bytes, the description says
// so: no string that it allows is refused here.
func upTo(n int) object { return str.with("maxLength", n) }

// oneOf is one of some words.
func oneOf[S ~string](values ...S) object { return str.with("enum", values) }

func list(of object) object { return object{{"type", "array"}, {"items", of}} }

func ref(schema string) object { return object{{"$ref", "#/components/schemas/" + schema}} }

// A string, or a time, or null.
var (
	orNull       = object{{"type", []string{"string", "null"}}}
	momentOrNull = orNull.with("format", "date-time")
)

// A field is a member of an object that is sent. Its name ends in "?" where it may be missing.
type field struct {
	name string
	of   object
	text string
}

type fields []field

// and returns the fields followed by others.
func (f fields) and(more ...field) fields { return append(slices.Clip(f), more...) }

// record is an object with fields.
func record(text string, fs ...field) object {
	properties, required := object{}, []string{}
	for _, f := range fs {
		name, optional := strings.CutSuffix(f.name, "?")
		if !optional {
			required = append(required, name)
		}
		properties = properties.with(name, f.of.with("description", f.text))
	}
	o := object{{"type", "object"}}.with("description", text)
	if len(required) > 0 {
		o = o.with("required", required)
	}
	return o.with("properties", properties)
}
