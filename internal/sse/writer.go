// Package sse writes and reads server-sent events, the text/event-stream of the HTML standard.
package sse

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// WriteTimeout is how long one flush may take before the client counts as gone.
const WriteTimeout = 30 * time.Second

// A Writer sends events. It gathers them in memory until Flush. It belongs to one goroutine.
type Writer struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf []byte
}

// NewWriter makes an event stream of a response and sends its headers with the first Flush.
func NewWriter(w http.ResponseWriter) *Writer {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("Connection", "keep-alive")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the stream back
	return &Writer{w: w, rc: http.NewResponseController(w)}
}

// Event adds an event. An id of 0 is left out; name must not contain a line break.
func (w *Writer) Event(id int64, name string, data []byte) {
	b := w.buf
	if id != 0 {
		b = append(b, "id: "...)
		b = strconv.AppendInt(b, id, 10)
		b = append(b, '\n')
	}
	b = append(b, "event: "...)
	b = append(b, name...)
	b = append(b, '\n')
	for {
		line, rest, more := bytes.Cut(data, []byte{'\n'})
		b = append(b, "data: "...)
		b = append(b, line...)
		b = append(b, '\n')
		if !more {
			break
		}
		data = rest
	}
	w.buf = append(b, '\n')
}

// Comment adds a line that clients ignore.
func (w *Writer) Comment(text string) {
	w.buf = append(w.buf, ": "...)
	w.buf = append(w.buf, text...)
	w.buf = append(w.buf, '\n', '\n')
}

// Retry tells the client how long to wait before it connects again.
func (w *Writer) Retry(d time.Duration) {
	w.buf = append(w.buf, "retry: "...)
	w.buf = strconv.AppendInt(w.buf, d.Milliseconds(), 10)
	w.buf = append(w.buf, '\n', '\n')
}

// Flush sends what was added. An error means that the client is gone.
func (w *Writer) Flush() error {
	if err := w.rc.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	_, err := w.w.Write(w.buf)
	if cap(w.buf) > maxKept {
		w.buf = nil
	}
	w.buf = w.buf[:0]
	if err != nil {
		return err
	}
	return w.rc.Flush()
}

// maxKept is the largest buffer that is kept between flushes, in bytes.
const maxKept = 64 << 10
