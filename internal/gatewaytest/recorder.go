package gatewaytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"coven-gateway/internal/api"
	"coven-gateway/internal/api/openapi"
	"coven-gateway/internal/config"
	"coven-gateway/internal/sse"
)

// An Answer is one kind of answer that the documentation of the API describes.
type Answer struct {
	Route  string // METHOD /path/{name}
	Status int
	Media  string // media type; "" without a body
}

// String shows the answer as test failures do.
func (a Answer) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %d %s", a.Route, a.Status, a.Media))
}

// maxRecorded bounds what the recorder keeps of one answer, in bytes. It looks at no more.
const maxRecorded = 16 << 20

// recorder compares what gateways answer with what the documentation says, and remembers which
// answers there have been. All gateways of a test binary share one.
type recorder struct {
	mux     *http.ServeMux // finds the route of a request
	schemas map[Answer]*jsonschema.Schema
	events  map[Answer]map[string]*jsonschema.Schema // of streams, by name

	mu   sync.Mutex
	seen map[Answer]bool // of all documented answers, whether it was seen
}

// theRecorder reads the documentation. Objects are taken strictly here: a field that is not
// described is a mistake.
var theRecorder = sync.OnceValues(func() (*recorder, error) {
	doc, err := Documentation()
	if err != nil {
		return nil, err
	}
	strict(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openapi.json", doc); err != nil {
		return nil, err
	}
	r := &recorder{mux: http.NewServeMux(), schemas: map[Answer]*jsonschema.Schema{}, events: map[Answer]map[string]*jsonschema.Schema{}, seen: map[Answer]bool{}}
	compile := func(pointer ...string) *jsonschema.Schema {
		for i, p := range pointer {
			pointer[i] = strings.NewReplacer("~", "~0", "/", "~1").Replace(p)
		}
		s, cerr := c.Compile("openapi.json#/" + strings.Join(pointer, "/"))
		err = errors.Join(err, cerr)
		return s
	}
	for where, item := range child(doc, "paths") {
		for method, op := range item.(map[string]any) {
			route := strings.ToUpper(method) + " " + where
			r.mux.Handle(route, http.NotFoundHandler())
			for status, answer := range child(op, "responses") {
				at := []string{"paths", where, method, "responses", status, "content"}
				if to, ok := answer.(map[string]any)["$ref"].(string); ok {
					name := to[strings.LastIndexByte(to, '/')+1:]
					answer, at = child(doc, "components", "responses")[name], []string{"components", "responses", name, "content"}
				}
				code, cerr := strconv.Atoi(status)
				err = errors.Join(err, cerr)
				content := child(answer, "content")
				if len(content) == 0 {
					r.seen[Answer{route, code, ""}] = false
				}
				for media, m := range content {
					a := Answer{route, code, media}
					r.seen[a] = false
					r.schemas[a] = compile(append(slices.Clone(at), media, "schema")...)
					for name := range child(m, "x-events") {
						if r.events[a] == nil {
							r.events[a] = map[string]*jsonschema.Schema{}
						}
						r.events[a][name] = compile(append(slices.Clone(at), media, "x-events", name)...)
					}
				}
			}
		}
	}
	return r, err
})

// Documentation is the OpenAPI document of a gateway with the usual configuration.
func Documentation() (any, error) {
	b, err := openapi.New(openapi.Options{MetricsPath: config.Default().Metrics.Path, SessionCookie: api.SessionCookie}).MarshalJSON()
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}

// child follows names into a document; nil where there is nothing.
func child(v any, names ...string) map[string]any {
	m, _ := v.(map[string]any)
	for _, n := range names {
		m, _ = m[n].(map[string]any)
	}
	return m
}

// strict forbids fields that a schema does not name.
func strict(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"].(map[string]any); ok && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, x := range v {
			strict(x)
		}
	case []any:
		for _, x := range v {
			strict(x)
		}
	}
}

// Unseen are the documented answers that no test of this binary has seen so far, and how many there
// are in all.
func Unseen() (missing []string, all int, err error) {
	r, err := theRecorder()
	if err != nil {
		return nil, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, seen := range r.seen {
		if !seen {
			missing = append(missing, a.String())
		}
	}
	return slices.Sorted(slices.Values(missing)), len(r.seen), nil
}

// recording is a transport whose answers the recorder sees. What is wrong with them is kept until
// the test ends.
type recording struct {
	*recorder
	next http.RoundTripper

	problemsMu sync.Mutex
	problems   map[string]bool
}

// record puts a recorder before a transport, which the test fails with at its end.
func record(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	if _, ok := t.(*testing.B); ok {
		return next // it would be measured too
	}
	r, err := theRecorder()
	if err != nil {
		t.Fatalf("the documentation of the API: %v", err)
	}
	x := &recording{recorder: r, next: next, problems: map[string]bool{}}
	t.Cleanup(func() {
		x.problemsMu.Lock()
		defer x.problemsMu.Unlock()
		for _, p := range slices.Sorted(maps.Keys(x.problems)) {
			t.Error(p)
		}
	})
	return x
}

func (x *recording) problem(format string, args ...any) {
	x.problemsMu.Lock()
	defer x.problemsMu.Unlock()
	x.problems[fmt.Sprintf(format, args...)] = true
}

// RoundTrip implements http.RoundTripper.
func (x *recording) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := x.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	_, route := x.mux.Handler(req)
	if p := req.URL.EscapedPath(); route == "" || p != path.Clean(p) || req.Method == http.MethodHead || resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge {
		return resp, nil // not documented, without a body that one could look at, or from net/http before there is a route
	}
	a := Answer{Route: route, Status: resp.StatusCode}
	if ct := resp.Header.Get("Content-Type"); ct != "" {
		if a.Media, _, err = mime.ParseMediaType(ct); err != nil {
			x.problem("%s %d: Content-Type %q: %v", route, resp.StatusCode, ct, err)
		}
	}
	if !x.note(&a) {
		x.problem("undocumented answer: %v", a)
		return resp, nil
	}
	if a.Media == "application/json" || x.events[a] != nil {
		resp.Body = &recordedBody{ReadCloser: resp.Body, done: func(b []byte, whole bool) { x.check(a, b, whole) }}
	}
	return resp, nil
}

// CloseIdleConnections is what http.Client looks for.
func (x *recording) CloseIdleConnections() {
	if t, ok := x.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// note remembers an answer. It reports whether there is one like it in the documentation, which may
// leave the media type open.
func (r *recorder) note(a *Answer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[*a]; !ok {
		a.Media = "*/*"
	}
	if _, ok := r.seen[*a]; !ok {
		return false
	}
	r.seen[*a] = true
	return true
}

// check compares the body of an answer, or the part of it that was read, with its schema.
func (x *recording) check(a Answer, body []byte, whole bool) {
	if x.events[a] == nil {
		if whole {
			x.validate(a.String(), x.schemas[a], body)
		}
		return
	}
	for stream := sse.NewReader(bytes.NewReader(body)); ; {
		e, err := stream.Next()
		if err != nil {
			return // the end of what was read
		}
		schema := x.events[a][e.Name]
		if schema == nil {
			x.problem("%v: undocumented event %q: %.200s", a, e.Name, e.Data)
			continue
		}
		x.validate(fmt.Sprintf("%v: event %s", a, e.Name), schema, e.Data)
	}
}

func (x *recording) validate(what string, schema *jsonschema.Schema, data []byte) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		x.problem("%s is not as documented: %v\n%.500s", what, err, data)
	}
}

// recordedBody keeps what is read of a body.
type recordedBody struct {
	io.ReadCloser
	done func(body []byte, whole bool)

	mu    sync.Mutex // a body may be closed while it is read
	buf   []byte
	ended bool
}

// Read implements io.Reader.
func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	fits := len(b.buf)+n <= maxRecorded
	if fits && !b.ended {
		b.buf = append(b.buf, p[:n]...)
	}
	if err != nil || !fits {
		b.end(fits && errors.Is(err, io.EOF))
	}
	return n, err
}

// Close implements io.Closer.
func (b *recordedBody) Close() error {
	err := b.ReadCloser.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(false)
	return err
}

// end looks at what was read, once. b.mu is held.
func (b *recordedBody) end(whole bool) {
	if !b.ended {
		b.ended = true
		b.done(b.buf, whole)
		b.buf = nil
	}
}
