package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

const (
	sessionHeader = "Mcp-Session-Id"
	versionHeader = "Mcp-Protocol-Version"
	streamType    = "text/event-stream"
)

// methods are those that the server has; true for what only revisions without sessions know.
var methods = map[string]bool{
	"initialize": false, "ping": false, "tools/list": false, "tools/call": false,
	"resources/list": false, "resources/templates/list": false, "resources/read": false, "server/discover": true, "subscriptions/listen": true,
}

// A message is what has to be known of a request before the SDK sees it.
type message struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  struct {
		Name string `json:"name"`
		Meta struct {
			ProgressToken any `json:"progressToken"`
		} `json:"_meta"`
	} `json:"params"`
}

// Serve answers a request. The context carries the caller, see [auth.From], and ends when it loses
// its rights. What is wrong with a message is said as JSON-RPC does, everything else as a fault:
// Invalid, NotFound for a session that is not there or somebody else's, Limited, TooLarge,
// MethodDenied, Conflict for a second stream of one session.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request) error {
	c, err := callerOf(r.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(fault.New(fault.Unavailable, "the gateway is shutting down")) })()
	c.request = ctx
	end, err := s.begin(c)
	if err != nil {
		return err
	}
	defer end()
	r = r.WithContext(context.WithValue(ctx, callerKey{}, c))
	switch r.Method {
	case http.MethodPost:
		return s.post(w, r, c, cancel)
	case http.MethodDelete:
		x, done, err := s.use(c, r.Header.Get(sessionHeader))
		if err != nil {
			return err
		}
		defer done()
		s.finish(x)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return s.listen(w, r, c, cancel)
}

// listen answers with the notifications of a session, for as long as the client listens.
func (s *Server) listen(w http.ResponseWriter, r *http.Request, c *caller, cancel context.CancelCauseFunc) error {
	id := r.Header.Get(sessionHeader)
	if id == "" {
		w.Header().Set("Allow", "POST")
		return fault.New(fault.MethodDenied, "method not allowed; without a session there is nothing to listen to")
	}
	x, done, err := s.use(c, id)
	if err != nil {
		return err
	}
	defer done()
	defer context.AfterFunc(x.ctx, func() { cancel(errNoSession) })()
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", streamType)
		return nil
	}
	return s.hand(s.sessioned, w, r, c, nil, false, cancel)
}

// post takes a message. Which handler of the SDK gets it depends on the revision of the protocol,
// and on whether the client has, or wants, a session.
func (s *Server) post(w http.ResponseWriter, r *http.Request, c *caller, cancel context.CancelCauseFunc) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return err
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return fault.New(fault.Invalid, "Content-Type must be application/json")
	}
	version := r.Header.Get(versionHeader)
	var m message
	switch err := json.Unmarshal(body, &m); {
	case strings.HasPrefix(strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n"), "["):
		return refuse(w, nil, jsonrpc.CodeInvalidRequest, "batches are not supported; send one message")
	case err != nil:
		return refuse(w, nil, jsonrpc.CodeParseError, "invalid JSON")
	case m.Version != "2.0":
		return refuse(w, nil, jsonrpc.CodeInvalidRequest, "invalid JSON-RPC version")
	}
	id := r.Header.Get(sessionHeader)
	if version >= stateless {
		id = ""
	}
	if id != "" {
		_, done, err := s.use(c, id)
		if err != nil {
			return err
		}
		defer done()
	}
	if len(m.ID) == 0 || m.Method == "" { // a notification or an answer, which without a session is to nothing
		if id == "" {
			w.WriteHeader(http.StatusAccepted)
			return nil
		}
		return s.hand(s.sessioned, w, r, c, body, false, cancel)
	}
	if !echoes(m.ID) {
		return refuse(w, nil, jsonrpc.CodeInvalidRequest, "id must be a string or an integer")
	}
	if late, ok := methods[m.Method]; (!ok || late && version < stateless) && version < stateless {
		return refuse(w, m.ID, jsonrpc.CodeMethodNotFound, "method not found")
	}
	if err := s.granted(c, m.Method, m.Params.Name); err != nil {
		return err
	}
	streams := accepts(r, streamType)
	c.modern = version >= stateless
	calls := m.Method == "tools/call"
	switch {
	case calls && streams && id == "" && (c.modern || m.Params.Meta.ProgressToken != nil):
		return s.hand(s.streamed, w, r, c, body, true, cancel)
	case version >= stateless || id == "" && m.Method != "initialize" || !streams:
		return s.hand(s.single, w, r, c, body, false, cancel)
	case id == "":
		done, ok := s.reserve()
		if !ok {
			return s.hand(s.single, w, r, c, body, false, cancel)
		}
		defer done()
	}
	return s.hand(s.sessioned, w, r, c, body, calls, cancel)
}

// granted refuses what a person has not let a client do; see [auth.Credential.Need].
func (s *Server) granted(c *caller, method, tool string) error {
	switch method {
	case "tools/list":
		return c.principal.Credential.Need(auth.ScopeTools, auth.ScopeAgents)
	case "tools/call":
		if s.asks(s.named(tool)) {
			return c.principal.Credential.Need(auth.ScopeAgents)
		}
		return c.principal.Credential.Need(auth.ScopeTools)
	case "resources/list", "resources/templates/list", "resources/read":
		return c.principal.Credential.Need(auth.ScopeResources)
	}
	return nil
}

// echoes reports whether the SDK will send an id back as it is.
func echoes(id json.RawMessage) bool {
	if id[0] == '"' {
		return true
	}
	n, err := strconv.ParseInt(string(id), 10, 64)
	return err == nil && math.Abs(float64(n)) <= 1<<53
}

// hand lets a handler of the SDK answer. It sees a request without credentials.
func (s *Server) hand(h http.Handler, w http.ResponseWriter, r *http.Request, c *caller, body []byte, slow bool, cancel context.CancelCauseFunc) error {
	r = r.Clone(r.Context())
	r.URL = &url.URL{Path: "/mcp"}
	r.RequestURI = ""
	r.Header.Del("Cookie")
	r.Header.Set("Authorization", "Bearer caller") // see known
	r.Body = http.NoBody
	if r.Method == http.MethodPost {
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	out := newAnswer(w, slow)
	stop := out.keepAlive(func() {
		if err := s.recheck(r.Context(), c); err != nil {
			cancel(err)
		}
	})
	h.ServeHTTP(out, r)
	stop()
	if out.begun() {
		return out.fault()
	}
	switch f, ok := errors.AsType[*fault.Error](context.Cause(r.Context())); {
	case ok:
		return f
	case r.Context().Err() != nil:
		return fault.New(fault.Gone, "the client closed the connection")
	}
	return errNoSession // it ended while it worked
}

// recheck returns why a caller may not call any more.
func (s *Server) recheck(ctx context.Context, c *caller) error {
	if c.grant != nil {
		return nil // it ends with its connection
	}
	err := s.opts.Recheck(ctx, c.principal)
	if code := fault.CodeOf(err); err == nil || code != fault.Unauthenticated && code != fault.Forbidden {
		return nil
	}
	return err
}

// refuse answers with an error of JSON-RPC, with status 200 as existing clients know it (http.md 4).
func refuse(w http.ResponseWriter, id json.RawMessage, code int, words string) error {
	if id == nil {
		id = json.RawMessage("null")
	}
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "error": map[string]any{"code": code, "message": words}})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(b)
	if err != nil {
		return fault.Wrap(err, fault.Gone, "the client closed the connection")
	}
	return nil
}

// accepts reports whether a request names a media type.
func accepts(r *http.Request, media string) bool {
	for _, v := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), media) {
				return true
			}
		}
	}
	return false
}

// keepAliveEvery is how often a stream says that it is there, and whether its caller still may listen
// is checked.
const keepAliveEvery = 15 * time.Second
