package upstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/packs"
)

// maxDefinition bounds what a server says of one tool, in bytes.
const maxDefinition = 128 << 10

// maxBinary bounds an image, a sound or another binary content of a result, in bytes. Of a larger
// one only its kind and size are told.
const maxBinary = 1 << 20

// A Definition is what a server says of a tool.
type Definition struct {
	Name         string          `json:"name"` // the server's own
	Title        string          `json:"title,omitempty"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"input_schema,omitempty"`
	OutputSchema json.RawMessage `json:"output_schema,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`
}

// define returns what a server says of a tool, in the one form that is compared.
func define(t *mcp.Tool) (Definition, error) {
	d := Definition{Name: t.Name, Title: t.Title, Description: t.Description}
	for _, part := range []struct {
		to   *json.RawMessage
		from any
		has  bool
	}{{&d.InputSchema, t.InputSchema, t.InputSchema != nil}, {&d.OutputSchema, t.OutputSchema, t.OutputSchema != nil}, {&d.Annotations, t.Annotations, t.Annotations != nil}} {
		if !part.has {
			continue
		}
		b, err := json.Marshal(part.from)
		if err != nil {
			return d, err
		}
		*part.to = b
	}
	if b, err := json.Marshal(d); err != nil || len(b) > maxDefinition {
		return d, fmt.Errorf("the tool %s: what is said of it has more than %d bytes", clip(t.Name), maxDefinition)
	}
	return d, nil
}

// Digest is a SHA-256 over everything that is said of the tool, in hex.
func (d Definition) Digest() string {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // its parts are JSON
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func byName(list []Definition) map[string]Definition {
	m := make(map[string]Definition, len(list))
	for _, d := range list {
		m[d.Name] = d
	}
	return m
}

// ToolState says whether a tool can be called.
type ToolState string

// The states of a tool.
const (
	Usable  ToolState = "usable"  // it is as it was accepted
	Unknown ToolState = "new"     // nobody has accepted it
	Changed ToolState = "changed" // it is not as it was accepted
	Refused ToolState = "refused" // accepted, but its name is taken, or its schema cannot be used
	Missing ToolState = "missing" // accepted, but the server does not offer it now
	Unused  ToolState = "unused"  // not on the list of tools that may be used
)

// A Tool is a tool of a server.
type Tool struct {
	Definition            // as the server offers it now
	Callable   string     // its name for agents
	State      ToolState  //
	Reason     string     // why it is refused
	Accepted   Definition // as it was accepted, where that differs; else zero
}

// digest is a SHA-256 over the tools that wait, in hex; "" for none.
func digest(waiting []Definition) string {
	if len(waiting) == 0 {
		return ""
	}
	h := sha256.New()
	for _, d := range waiting {
		h.Write([]byte(d.Digest()))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// output is a result as one JSON document: what is structured; else text, as it is where it is JSON
// itself; and with other contents a list of all.
func output(r *mcp.CallToolResult) (string, error) {
	var text []string
	contents := make([]json.RawMessage, 0, len(r.Content))
	plain := true
	for _, c := range r.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			text = append(text, t.Text)
		} else {
			plain = false
		}
		b, err := bounded(c)
		if err != nil {
			return "", err
		}
		contents = append(contents, b)
	}
	if r.IsError {
		words := strings.Join(text, "\n")
		if words == "" {
			words = "the tool has failed and does not say why"
		}
		return "", packs.Failed(words)
	}
	structured, err := json.Marshal(r.StructuredContent)
	if err != nil {
		return "", err
	}
	has := r.StructuredContent != nil
	switch {
	case plain && has:
		return string(structured), nil
	case plain:
		all := strings.Join(text, "\n")
		if json.Valid([]byte(all)) {
			return all, nil
		}
		return encode(map[string]any{"text": all})
	case has:
		return encode(map[string]any{"structured": json.RawMessage(structured), "content": contents})
	}
	return encode(map[string]any{"content": contents})
}

func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// bounded is a content without what is too large to be handed on.
func bounded(c mcp.Content) (json.RawMessage, error) {
	kind, mime, data := "", "", []byte(nil)
	switch c := c.(type) {
	case *mcp.ImageContent:
		kind, mime, data = "image", c.MIMEType, c.Data
	case *mcp.AudioContent:
		kind, mime, data = "audio", c.MIMEType, c.Data
	case *mcp.EmbeddedResource:
		if c.Resource != nil {
			kind, mime, data = "resource", c.Resource.MIMEType, c.Resource.Blob
		}
	}
	if len(data) > maxBinary {
		return json.Marshal(map[string]any{"type": kind, "mimeType": mime, "bytes": len(data), "omitted": fmt.Sprintf("it is larger than %d bytes", maxBinary)})
	}
	return c.MarshalJSON()
}

// sorted returns definitions by name.
func sorted(m map[string]Definition) []Definition {
	list := make([]Definition, 0, len(m))
	for _, d := range m {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	return list
}
