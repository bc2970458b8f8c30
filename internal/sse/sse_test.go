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
	const stream = "\ufeff: hello\n\nid: 1\nevent: text\ndata: a\ndata: b\n\nretry: 5\n\nid: 7\r\ndata:c\r\n\r\n" +
		"data: d\nunknown: x\n\nevent: lost\n\nevent\ndata\n\nid: no\x00pe\nevent:  two\ndata:  e\n\nid: 9\n"
	r := sse.NewReader(strings.NewReader(stream))
	for _, want := range []sse.Event{
		{"1", "text", []byte("a\nb")},
		{"7", "message", []byte("c")},
		{"7", "message", []byte("d")},
		{"7", "message", nil},
		{"7", " two", []byte(" e")},
	} {
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
}

// TestReaderBounds: an event may have MaxEvent bytes, in one line or in many; comments between
// events do not count.
func TestReaderBounds(t *testing.T) {
	const line = "data: " + "0123456789"
	for _, c := range []struct {
		what   string
		stream io.Reader
		err    error
	}{
		{"a long line", strings.NewReader("data: " + strings.Repeat("x", sse.MaxEvent) + "\n\n"), sse.ErrTooLarge},
		{"a line without end", &endless{}, sse.ErrTooLarge},
		{"many lines", strings.NewReader(strings.Repeat(line+"\n", sse.MaxEvent/len(line)+1) + "\n"), sse.ErrTooLarge},
		{"the largest", strings.NewReader("data: " + strings.Repeat("x", sse.MaxEvent-8) + "\n\n"), nil},
		{"a stream that was idle for long", strings.NewReader(strings.Repeat(": "+strings.Repeat("x", 1<<20)+"\n\n", 40) + "data: x\n\n"), nil},
	} {
		if _, err := sse.NewReader(c.stream).Next(); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.what, err, c.err)
		}
	}
}

// endless is a line that never ends.
type endless struct{}

func (*endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestWriter sends everything there is over HTTP and reads it back.
func TestWriter(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := sse.NewWriter(w)
		s.Retry(time.Second)
		s.Event(1, "text", []byte("one\ntwo\n"))
		s.Event(2, "text", []byte("a\r\nb\rc\r\r\n"))
		s.Comment("idle\ndata: no event")
		s.Event(0, "done", nil)
		s.Event(0, "", []byte("ok"))
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
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Connection": "keep-alive",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	const want = "retry: 1000\n\nid: 1\nevent: text\ndata: one\ndata: two\ndata: \n\n" +
		"id: 2\nevent: text\ndata: a\ndata: b\ndata: c\ndata: \ndata: \n\n" +
		": idle\n: data: no event\n\nevent: done\ndata: \n\ndata: ok\n\n"
	if string(body) != want {
		t.Errorf("sent %q\nwant %q", body, want)
	}
}

// TestFlushOnce: however much was added, it leaves in one write under one deadline.
func TestFlushOnce(t *testing.T) {
	rec := &counter{ResponseRecorder: httptest.NewRecorder()}
	w := sse.NewWriter(rec)
	for i := range int64(100) {
		w.Event(i, "text", []byte("x"))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if rec.writes != 1 || rec.flushes != 1 || len(rec.deadlines) != 1 {
		t.Errorf("%d writes, %d flushes, %d deadlines", rec.writes, rec.flushes, len(rec.deadlines))
	}
	if d := time.Until(rec.deadlines[0]); d <= 0 || d > sse.WriteTimeout {
		t.Errorf("the deadline is in %v", d)
	}
	rec.fail = io.ErrClosedPipe
	w.Comment("lost")
	if err := w.Flush(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a client that is gone: %v", err)
	}
}

type counter struct {
	*httptest.ResponseRecorder
	writes, flushes int
	deadlines       []time.Time
	fail            error
}

func (c *counter) Write(b []byte) (int, error) {
	c.writes++
	if c.fail != nil {
		return 0, c.fail
	}
	return c.ResponseRecorder.Write(b)
}
func (c *counter) Flush() { c.flushes++; c.ResponseRecorder.Flush() }
func (c *counter) SetWriteDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return nil
}

// FuzzRoundTrip: what the Writer writes the Reader reads, and whatever comes, it does not panic.
func FuzzRoundTrip(f *testing.F) {
	f.Add(int64(1), []byte("a\nb"), []byte("id: x\n\ndata: y"))
	f.Add(int64(0), []byte("\r\n\r\r\n\n"), []byte("\ufeffdata\r\n\r\n"))
	f.Fuzz(func(t *testing.T, id int64, data, noise []byte) {
		for r := sse.NewReader(bytes.NewReader(noise)); ; {
			if _, err := r.Next(); err != nil {
				break
			}
		}
		rec := &sink{}
		w := sse.NewWriter(rec)
		w.Comment(string(noise))
		w.Event(id, "text", data)
		w.Event(0, "", []byte("end"))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		r := sse.NewReader(&rec.body)
		got, err := r.Next()
		if err != nil || got.Name != "text" || !bytes.Equal(got.Data, want) {
			t.Errorf("sent %q, received %q: %v", data, got.Data, err)
		}
		if got, err = r.Next(); err != nil || got.Name != "message" || string(got.Data) != "end" {
			t.Errorf("after %q came %+v: %v", data, got, err)
		}
		if _, err = r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// sink is a response that keeps its body.
type sink struct {
	header http.Header
	body   bytes.Buffer
}

func (s *sink) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}
func (s *sink) WriteHeader(int)                  {}
func (s *sink) Write(b []byte) (int, error)      { return s.body.Write(b) }
func (s *sink) FlushError() error                { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkWriter(b *testing.B) {
	data := []byte(`{"text":"a few words of an answer "}`)
	for _, c := range []struct {
		name   string
		events int
	}{{"events=1", 1}, {"events=8", 8}} {
		b.Run(c.name, func(b *testing.B) {
			s := &sink{}
			w := sse.NewWriter(s)
			b.ReportAllocs()
			for b.Loop() {
				s.body.Reset()
				for range c.events {
					w.Event(12345, "text", data)
				}
				if err := w.Flush(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	const events = 1000
	stream := strings.Repeat("id: 12345\nevent: text\ndata: {\"text\":\"a few words of an answer \"}\n\n", events)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		r := sse.NewReader(strings.NewReader(stream))
		for range events {
			if _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
