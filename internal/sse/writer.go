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

// Event adds an event. An id of 0 and an empty name are left out; name must not contain a line
// break. Every line break in data, CR and CRLF included, reaches the client as LF.
func (w *Writer) Event(id int64, name string, data []byte) {
	if id != 0 {
		w.buf = append(w.buf, "id: "...)
		w.buf = strconv.AppendInt(w.buf, id, 10)
		w.buf = append(w.buf, '\n')
	}
	if name != "" {
		w.buf = append(w.buf, "event: "...)
		w.buf = append(w.buf, name...)
		w.buf = append(w.buf, '\n')
	}
	w.lines("data: ", data)
	w.buf = append(w.buf, '\n')
}

// Comment adds text that clients ignore.
func (w *Writer) Comment(text string) {
	w.lines(": ", []byte(text))
	w.buf = append(w.buf, '\n')
}

// lines adds each line of text behind a prefix.
func (w *Writer) lines(prefix string, text []byte) {
	for {
		line, rest, more := cutLine(text)
		w.buf = append(w.buf, prefix...)
		w.buf = append(w.buf, line...)
		w.buf = append(w.buf, '\n')
		if !more {
			return
		}
		text = rest
	}
}

// cutLine cuts text at its first line break: LF, CR or CRLF.
func cutLine(text []byte) (line, rest []byte, more bool) {
	line, rest, more = bytes.Cut(text, []byte{'\n'})
	i := bytes.IndexByte(line, '\r')
	if i < 0 {
		return line, rest, more
	}
	if more && i == len(line)-1 { // CRLF
		return line[:i], rest, true
	}
	return line[:i], text[i+1:], true
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
