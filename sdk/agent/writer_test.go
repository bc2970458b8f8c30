package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"coven-gateway/sdk/agent"
)

// TestEvents: every kind of event, in the order in which it was sent.
func TestEvents(t *testing.T) {
	o := agent.Options{Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		return errors.Join(
			w.Thinking("hm"), w.ToolUse("1", "ls", map[string]int{"n": 1}), w.ToolUse("2", "ls", nil),
			w.ToolState("1", agent.ToolRunning, "soon"), w.ToolResult("1", "out", true),
			w.Usage(agent.Usage{Input: 1, Output: 2, CacheRead: 3, CacheWrite: 4, Thinking: 5}),
			w.File("f", "text/plain", []byte("data")), w.SessionInit("s"), w.SessionOrphaned("gone"), w.Error("oh"),
			w.Text("a"), w.Text(""), w.Textf("%d", 1), w.Thinking("not \xff UTF-8"),
		)
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		expect(t, s, "1", "thinking hm", `tool_use 1 ls {"n":1}`, "tool_use 2 ls {}",
			"tool_state 1 TOOL_STATE_RUNNING soon", "tool_result 1 out true", "usage 1 2 3 4 5", "file f text/plain data",
			"session_init s", "session_orphaned gone", "error oh", "text a", "text 1", "thinking not \uFFFD UTF-8", "done a1")
	})
}

// TestStreams: text that comes in bytes arrives in characters, however it is cut.
func TestStreams(t *testing.T) {
	const text = "aäⅷ😀z\xf0\x9f and €"
	const want = "aäⅷ😀z\uFFFD and €"
	o := agent.Options{Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
		var r io.Reader = strings.NewReader(text)
		switch m.Content {
		case "one by one":
			r = iotest.OneByteReader(r)
		case "in halves":
			r = iotest.HalfReader(r)
		case "unfinished":
			_, err := io.WriteString(struct{ io.Writer }{w}, "a\xe2\x82")
			return err
		}
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 5))
		return err
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		for content, want := range map[string]string{"": want, "one by one": want, "in halves": want, "unfinished": "a\uFFFD"} {
			send(t, s, message(content+"1", "x", content)) // no id comes twice: the agent may not have forgotten it yet
			var got strings.Builder
			for {
				r := next(t, s).GetResponse()
				got.WriteString(r.GetText())
				if d := r.GetDone(); d != nil {
					if got.String() != want || d.GetFullResponse() != want {
						t.Errorf("%q: got %q and done with %q, want %q", content, got.String(), d.GetFullResponse(), want)
					}
					break
				}
			}
		}
	})
}

// TestLongText: text of any length is sent in pieces, and repeated at the end only where it fits.
func TestLongText(t *testing.T) {
	text := strings.Repeat("aäⅷ😀", 600_000) // 6 MB
	o := agent.Options{Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		_, err := w.WriteString(text)
		return err
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		var got strings.Builder
		for {
			r := next(t, s).GetResponse()
			got.WriteString(r.GetText())
			if d := r.GetDone(); d != nil {
				if d.GetFullResponse() != "" {
					t.Errorf("done repeats %d bytes", len(d.GetFullResponse()))
				}
				break
			}
		}
		if got.String() != text {
			t.Errorf("got %d bytes, want %d", got.Len(), len(text))
		}
	})
}

// TestLimits: what is too large is refused and does not hurt the stream; files go one at a time.
func TestLimits(t *testing.T) {
	file := bytes.Repeat([]byte("x"), agent.MaxFile)
	o := agent.Options{Heartbeat: -1, Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		if w.File("f", "", append(file, 'x')) == nil {
			return errors.New("a file that is too large was sent")
		}
		if w.ToolResult("1", strings.Repeat("x", 16<<20), false) == nil {
			return errors.New("a result that is too large was sent")
		}
		for range 3 {
			if err := w.File("f", "", file); err != nil {
				return err
			}
		}
		return errors.New(strings.Repeat("x", 16<<20))
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		for range 3 {
			if got := next(t, s).GetResponse(); !bytes.Equal(got.GetFile().GetData(), file) {
				t.Fatalf("got %.100q", event(got))
			}
		}
		if got := next(t, s).GetResponse().GetError(); len(got) != 64<<10 {
			t.Errorf("the error has %d bytes", len(got))
		}
		next(t, s) // done
		send(t, s, message("2", "x", ""))
		next(t, s)
	})
}

// TestAfterTheEnd: nothing follows Done, and nothing the handler's return.
func TestAfterTheEnd(t *testing.T) {
	leaked := make(chan *agent.Writer, 1)
	o := agent.Options{Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
		if m.Content == "leak" {
			leaked <- w
			return nil
		}
		if err := w.Done("all"); err != nil {
			return err
		}
		for _, err := range []error{w.Text("more"), w.Thinking("more"), w.Done("more")} {
			if !errors.Is(err, agent.ErrEnded) {
				return err
			}
		}
		return errors.New("only for the log")
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		expect(t, s, "1", "done all")
		send(t, s, message("2", "x", "leak"))
		expect(t, s, "2", "done ")
		send(t, s, message("3", "x", "")) // after it the second turn is over
		expect(t, s, "3", "done all")
		if err := (<-leaked).Text("more"); !errors.Is(err, agent.ErrEnded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestApprovals: yes, no, nobody, stopped, and the same question twice.
func TestApprovals(t *testing.T) {
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		yes, err := w.ToolApproval(ctx, m.Content, "rm", nil)
		if err != nil {
			return err
		}
		return w.Textf("%v", yes)
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		ask := func(id, tool string) {
			send(t, s, message(id, id, tool))
			expect(t, s, id, "approval "+tool+" rm {}")
		}
		ask("1", "yes")
		ask("2", "no")
		send(t, s, approval("no", false))
		expect(t, s, "2", "text false", "done false")
		send(t, s, approval("yes", true))
		expect(t, s, "1", "text true", "done true")
		send(t, s, approval("yes", false)) // nobody waits for it
		ask("3", "nobody")
		expect(t, s, "3", "error context deadline exceeded", "done Error: context deadline exceeded")
		ask("4", "stopped")
		send(t, s, cancelRequest("4", "enough"))
		expect(t, s, "4", "cancelled enough")
		ask("5", "twice")
		send(t, s, message("6", "6", "twice"))
		expect(t, s, "6", `error the approval "twice" is asked for already`, `done Error: the approval "twice" is asked for already`)
		send(t, s, approval("twice", true))
		expect(t, s, "5", "text true", "done true")
	})
}
