package sse_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"coven-gateway/internal/sse"
)

func TestReader(t *testing.T) {
	const stream = ": hello\n\nid: 1\nevent: text\ndata: a\ndata: b\n\nretry: 5\n\nid: 7\r\ndata:c\r\n\r\ndata: d\nunknown: x\n\nid: 9\n"
	r := sse.NewReader(strings.NewReader(stream))
	for _, want := range []sse.Event{{"1", "text", []byte("a\nb")}, {"7", "message", []byte("c")}, {"7", "message", []byte("d")}} {
		got, err := r.Next()
		if err != nil || got.ID != want.ID || got.Name != want.Name || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that ends inside an event: %v", err)
	}
	if _, err := sse.NewReader(strings.NewReader("data: x\n\n")).Next(); err != nil {
		t.Error(err)
	}
	if _, err := sse.NewReader(strings.NewReader(": only\n\n")).Next(); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that ends: %v", err)
	}
	big := "data: " + strings.Repeat("x", sse.MaxEvent) + "\n\n"
	if _, err := sse.NewReader(strings.NewReader(big)).Next(); !errors.Is(err, sse.ErrTooLarge) {
		t.Errorf("an event that is too large: %v", err)
	}
}

// TestWriter sends everything there is over HTTP and reads it back.
func TestWriter(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := sse.NewWriter(w)
		s.Retry(time.Second)
		s.Event(1, "text", []byte("one\ntwo\n"))
		s.Comment("idle")
		s.Event(0, "done", nil)
		if err := s.Flush(); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	const want = "retry: 1000\n\nid: 1\nevent: text\ndata: one\ndata: two\ndata: \n\n: idle\n\nevent: done\ndata: \n\n"
	if string(body) != want {
		t.Errorf("sent %q, want %q", body, want)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(int64(1), []byte("a\nb"), []byte("id: x\n\ndata: y"))
	f.Fuzz(func(t *testing.T, id int64, data, noise []byte) {
		for r := sse.NewReader(bytes.NewReader(noise)); ; { // anything may come, nothing may panic
			if _, err := r.Next(); err != nil {
				break
			}
		}
		rec := httptest.NewRecorder()
		w := sse.NewWriter(deadlines{rec})
		w.Event(id, "text", bytes.ReplaceAll(data, []byte("\r"), nil))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		got, err := sse.NewReader(rec.Body).Next()
		if err != nil || got.Name != "text" || !bytes.Equal(got.Data, bytes.ReplaceAll(data, []byte("\r"), nil)) {
			t.Errorf("sent %q, received %q: %v", data, got.Data, err)
		}
	})
}

// deadlines is a recorder that accepts a deadline.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkFlush(b *testing.B) {
	data := []byte(`{"text":"word "}`)
	w := sse.NewWriter(deadlines{httptest.NewRecorder()})
	b.ReportAllocs()
	for b.Loop() {
		w.Event(12345, "text", data)
	}
}
