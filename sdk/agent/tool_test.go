package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// TestToolOutputs: what an agent's tool returns is what the gateway gets, where it can be sent.
func TestToolOutputs(t *testing.T) {
	outputs := map[string]string{"": "null", `{"a":1}`: `{"a":1}`, "{": "the tool's output is not JSON", `"` + strings.Repeat("x", 16<<20) + `"`: "cannot be sent"}
	var output string
	o := agent.Options{Tools: []agent.Tool{{Name: "t", Call: func(context.Context, json.RawMessage) (json.RawMessage, error) {
		return json.RawMessage(output), nil
	}}}}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		var want string
		for output, want = range outputs {
			send(t, s, toolCall("1", "t", "{}"))
			if r := next(t, s).GetPackToolResult(); r.GetOutputJson() != want && (r.GetError() == "" || !strings.Contains(r.GetError(), want)) {
				t.Errorf("got %.100v, want %s", r, want)
			}
		}
	})
}

// TestToolCalls: calls run side by side within a bound, beside messages, and their time runs while
// they wait.
func TestToolCalls(t *testing.T) {
	var running atomic.Int32
	var release chan struct{} // of the bubble
	o := agent.Options{Tools: []agent.Tool{{Name: "t", Timeout: time.Minute, Call: func(ctx context.Context, _ json.RawMessage) (json.RawMessage, error) {
		running.Add(1)
		select {
		case <-release:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}}}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		release = make(chan struct{})
		s := <-g.streams
		for i := range 256 + 1 {
			send(t, s, toolCall(fmt.Sprint(i), "t", ""))
		}
		if r := next(t, s).GetPackToolResult(); r.GetRequestId() != "256" || !strings.Contains(r.GetError(), "busy") {
			t.Errorf("got %v", r)
		}
		synctest.Wait()
		if n := running.Load(); n != 16 {
			t.Errorf("%d calls run", n)
		}
		send(t, s, message("1", "x", "hi"))
		expect(t, s, "1", "text hi", "done hi")
		time.Sleep(time.Minute)
		for range 256 {
			if r := next(t, s).GetPackToolResult(); !strings.Contains(r.GetError(), "deadline exceeded") {
				t.Errorf("got %v", r)
			}
		}
		close(release)
		send(t, s, toolCall("last", "t", ""))
		if r := next(t, s).GetPackToolResult(); r.GetRequestId() != "last" || r.GetOutputJson() != "null" {
			t.Errorf("got %v", r)
		}
	})
}

// TestCallTool: the agent calls the gateway's tools, inside and outside of a turn.
func TestCallTool(t *testing.T) {
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
		_, err := w.CallTool(ctx, "todo_list", nil)
		return err
	})}
	playAgent(t, newGateway, o, func(t *testing.T, g *gateway, a *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		s := <-g.streams
		result := func(r *pb.PackToolResult) {
			r.RequestId = next(t, s).GetExecutePackTool().GetRequestId()
			send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_PackToolResult{PackToolResult: r}})
		}
		synctest.Wait() // the welcome has arrived
		called := make(chan error, 1)
		call := func(ctx context.Context) {
			go func() {
				out, err := a.CallTool(ctx, "todo_list", nil)
				if err == nil && string(out) != "[]" {
					err = fmt.Errorf("got %s", out)
				}
				called <- err
			}()
		}

		call(t.Context())
		result(&pb.PackToolResult{Result: &pb.PackToolResult_OutputJson{OutputJson: "[]"}})
		if err := <-called; err != nil {
			t.Error(err)
		}

		call(t.Context())
		result(&pb.PackToolResult{Result: &pb.PackToolResult_Error{Error: "tool not found"}})
		if e, ok := errors.AsType[*agent.ToolError](<-called); !ok || e.Tool != "todo_list" || e.Reason != "tool not found" {
			t.Errorf("got %v", e)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call(ctx)
		next(t, s)
		if err := <-called; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}

		send(t, s, message("1", "x", ""))
		next(t, s)
		send(t, s, cancelRequest("1", "enough"))
		expect(t, s, "1", "cancelled enough")

		call(t.Context())
		next(t, s)
		g.end <- struct{}{}
		if err := <-called; !errors.Is(err, agent.ErrDisconnected) {
			t.Errorf("got %v", err)
		}
	})
}
