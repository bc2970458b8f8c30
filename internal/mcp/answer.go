package mcp

import (
	"bytes"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/sse"
)

// An answer is what the SDK writes to. It gives every write its time, keeps streams alive, and
// takes errors in plain text for itself, so that they can be said as everywhere in the API.
type answer struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	h    http.Header   // what the SDK says; its own until it writes
	slow bool          // it will be a stream, of an answer that may take long
	turn chan struct{} // holds one token: who has it may write, and touch the headers of w

	// Owned by who has the token.
	status int
	stream bool
	text   bytes.Buffer // of an error
	failed bool         // the status is one
}

func newAnswer(w http.ResponseWriter, slow bool) *answer {
	return &answer{w: w, rc: http.NewResponseController(w), h: http.Header{}, slow: slow, turn: make(chan struct{}, 1)}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.h }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	a.begin(status, a.h)
}

func (a *answer) begin(status int, h http.Header) {
	if a.status != 0 {
		return
	}
	a.status = status
	if status >= 400 && strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
		a.failed = true
		return
	}
	a.stream = h.Get("Content-Type") == streamType
	maps.Copy(a.w.Header(), h)
	a.extend()
	a.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	a.begin(http.StatusOK, a.h)
	if a.failed {
		a.text.Write(b[:min(len(b), maxComplaint-min(maxComplaint, a.text.Len()))])
		return len(b), nil
	}
	a.extend()
	return a.w.Write(b)
}

// FlushError is what http.ResponseController looks for.
func (a *answer) FlushError() error {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.failed {
		return nil
	}
	return a.rc.Flush()
}

func (a *answer) extend() {
	_ = a.rc.SetWriteDeadline(time.Now().Add(sse.WriteTimeout)) // not every connection has deadlines
}

// keepAlive writes a comment into a stream every now and then, and calls check. It does so until
// stop is called, which waits for it.
func (a *answer) keepAlive(check func()) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(keepAliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				check()
				a.comment()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// comment writes a comment if this is a stream. It begins one that has not begun: the client, and
// what is between it and us, would lose patience.
func (a *answer) comment() {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.status == 0 && a.slow {
		a.begin(http.StatusOK, http.Header{"Content-Type": {streamType}, "Cache-Control": {"no-cache, no-transform"}})
	}
	if !a.stream {
		return
	}
	a.extend()
	if _, err := a.w.Write([]byte(": keep-alive\n\n")); err == nil {
		_ = a.rc.Flush() // the next one will fail as well
	}
}

// begun reports whether there was an answer.
func (a *answer) begun() bool {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	return a.status != 0
}

// fault is the error that the SDK has answered with, if it has.
func (a *answer) fault() error {
	if !a.failed {
		return nil
	}
	code := fault.Internal
	switch a.status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusNotAcceptable:
		code = fault.Invalid
	case http.StatusNotFound:
		code = fault.NotFound
	case http.StatusForbidden:
		code = fault.Forbidden
	case http.StatusConflict:
		code = fault.Conflict
	case http.StatusMethodNotAllowed:
		code = fault.MethodDenied
	case http.StatusRequestEntityTooLarge:
		code = fault.TooLarge
	}
	return fault.New(code, "%s", strings.TrimSpace(a.text.String()))
}
