package pack

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// schema is the part of JSON Schema that Go types need.
type schema struct {
	Type        string            `json:"type,omitempty"`
	Format      string            `json:"format,omitempty"`
	Description string            `json:"description,omitempty"`
	Enum        []string          `json:"enum,omitempty"`
	Properties  map[string]schema `json:"properties,omitempty"`
	Required    []string          `json:"required,omitempty"`
	Items       *schema           `json:"items,omitempty"`
	Values      *schema           `json:"additionalProperties,omitempty"`
	Minimum     *int              `json:"minimum,omitempty"`
}

// schemaOf makes the schema of a struct.
func schemaOf[In any]() (json.RawMessage, error) {
	t := reflect.TypeFor[In]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the input must be a struct, not %s", t)
	}
	s, err := schemaOfType(t, nil)
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func schemaOfType(t reflect.Type, inside []reflect.Type) (schema, error) {
	switch t {
	case reflect.TypeFor[time.Time]():
		return schema{Type: "string", Format: "date-time"}, nil
	case reflect.TypeFor[json.RawMessage]():
		return schema{}, nil // anything
	}
	switch t.Kind() {
	case reflect.String:
		return schema{Type: "string"}, nil
	case reflect.Bool:
		return schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return schema{Type: "integer"}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return schema{Type: "integer", Minimum: new(0)}, nil
	case reflect.Float32, reflect.Float64:
		return schema{Type: "number"}, nil
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return schema{}, nil
		}
	case reflect.Pointer:
		return schemaOfType(t.Elem(), inside)
	case reflect.Slice, reflect.Array:
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			return schema{Type: "string", Description: "base64"}, nil
		}
		items, err := schemaOfType(t.Elem(), inside)
		return schema{Type: "array", Items: &items}, err
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			values, err := schemaOfType(t.Elem(), inside)
			return schema{Type: "object", Values: &values}, err
		}
	case reflect.Struct:
		if slices.Contains(inside, t) {
			return schema{}, fmt.Errorf("%s contains itself: write its InputSchema by hand", t)
		}
		s := schema{Type: "object", Properties: make(map[string]schema)}
		err := s.addFields(t, append(inside, t))
		return s, err
	}
	return schema{}, fmt.Errorf("%s has no schema", t)
}

// addFields adds the fields of a struct.
func (s *schema) addFields(t reflect.Type, inside []reflect.Type) error {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" && options == "":
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			if slices.Contains(inside, f.Type) {
				return fmt.Errorf("%s contains itself: write its InputSchema by hand", f.Type)
			}
			if err := s.addFields(f.Type, append(inside, f.Type)); err != nil {
				return err
			}
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		p, err := schemaOfType(f.Type, inside)
		if err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
		if d := f.Tag.Get("description"); d != "" {
			p.Description = d
		}
		if e := f.Tag.Get("enum"); e != "" {
			if p.Type != "string" {
				return errors.New("field " + f.Name + ": only a string can have an enum")
			}
			p.Enum = strings.Split(e, ",")
		}
		s.Properties[name] = p
		optional := f.Type.Kind() == reflect.Pointer || slices.ContainsFunc(strings.Split(options, ","), func(o string) bool { return o == "omitempty" || o == "omitzero" })
		if !optional {
			s.Required = append(s.Required, name)
		}
	}
	return nil
}
