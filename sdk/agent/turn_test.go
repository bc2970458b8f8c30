package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// TestConcurrency: no more handlers than allowed run, and a busy thread keeps no other from its turn.
func TestConcurrency(t *testing.T) {
	var begun []string
	o := agent.Options{Concurrency: 1, Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, _ *agent.Writer) error {
		begun = append(begun, m.RequestID) // the race detector sees a second handler
		time.Sleep(time.Second)
		return nil
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		for _, m := range []struct{ id, thread string }{{"x1", "x"}, {"x2", "x"}, {"x3", "x"}, {"y1", "y"}, {"", "z"}} {
			send(t, s, message(m.id, m.thread, ""))
			synctest.Wait()
		}
		for range 5 {
			next(t, s)
		}
		if want := []string{"x1", "y1", "", "x2", "x3"}; !slices.Equal(begun, want) {
			t.Errorf("got %q, want %q", begun, want)
		}
	})
}

// TestCancellation: a running turn ends with its cause, one that waits is never begun.
func TestCancellation(t *testing.T) {
	var begun []string
	cause := make(chan error, 1)
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, _ *agent.Writer) error {
		begun = append(begun, m.RequestID)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		send(t, s, message("2", "x", ""))
		send(t, s, message("1", "x", "again"))
		send(t, s, cancelRequest("none", ""))
		synctest.Wait()
		send(t, s, cancelRequest("2", "not needed"))
		expect(t, s, "2", "cancelled not needed")
		send(t, s, cancelRequest("1", "enough"))
		expect(t, s, "1", "cancelled enough")
		var c agent.Cancelled
		if err := <-cause; !errors.Is(err, agent.ErrCancelled) || !errors.As(err, &c) || c.Reason != "enough" {
			t.Errorf("the cause is %v", err)
		}
		send(t, s, message("3", "x", ""))
		synctest.Wait()
		send(t, s, cancelRequest("3", ""))
		expect(t, s, "3", "cancelled ")
		if want := []string{"1", "3"}; !slices.Equal(begun, want) {
			t.Errorf("begun: %q, want %q", begun, want)
		}
	})
}

// TestBackPressure: a handler is not faster than the gateway reads, and can be stopped all the same.
func TestBackPressure(t *testing.T) {
	const n = 3000
	const format = "%01024d" // 1 KiB each
	written := 0
	stopped := make(chan error, 1)
	o := agent.Options{Heartbeat: -1, Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
		for written = 0; written < n || m.Content == "endless"; written++ {
			if err := w.Textf(format, written); err != nil {
				stopped <- err
				return err
			}
		}
		return w.Done("")
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		synctest.Wait()
		if written > n/2 {
			t.Errorf("%d increments are on their way to a gateway that does not read", written)
		}
		for i := range n {
			if got, want := next(t, s).GetResponse().GetText(), fmt.Sprintf(format, i); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		expect(t, s, "1", "done ")

		send(t, s, message("2", "x", "endless"))
		synctest.Wait()
		send(t, s, cancelRequest("2", "enough"))
		if err := <-stopped; !errors.Is(err, agent.ErrCancelled) {
			t.Errorf("got %v", err)
		}
		for next(t, s).GetResponse().GetCancelled() == nil {
		}
	})
}

// TestBusy: what exceeds the bound of waiting messages is answered at once.
func TestBusy(t *testing.T) {
	var release chan struct{} // of the bubble
	o := agent.Options{Handler: agent.HandlerFunc(func(context.Context, *agent.Message, *agent.Writer) error { <-release; return nil })}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		release = make(chan struct{})
		s := <-g.streams
		for i := range 1 + 1000 + 1 {
			send(t, s, message(fmt.Sprint(i), "x", ""))
			if i == 0 {
				synctest.Wait() // it runs, the others wait
			}
		}
		const busy = "the agent is busy: too many messages wait"
		expect(t, s, "1001", "error "+busy, "done Error: "+busy)
		close(release)
		for i := range 1001 {
			expect(t, s, fmt.Sprint(i), "done ")
		}
	})
}

// TestAttachments: files arrive with the message.
func TestAttachments(t *testing.T) {
	o := agent.Options{Handler: agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error {
		return w.Textf("%s %s %+v", m.Sender, m.ThreadID, m.Attachments)
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		m := message("1", "x", "")
		m.GetSendMessage().Sender = "me"
		m.GetSendMessage().Attachments = []*pb.FileAttachment{{Filename: "f", MimeType: "text/plain", Data: []byte("A")}}
		send(t, s, m)
		expect(t, s, "1", "text me x [{Name:f Type:text/plain Data:[65]}]")
	})
}
