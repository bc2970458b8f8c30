package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"coven-gateway/internal/gatewaytest"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// TestEnds: how a handler's end is reported.
func TestEnds(t *testing.T) {
	handler := agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		if err := w.Text("some "); err != nil {
			return err
		}
		switch m.Content {
		case "error":
			return errors.New("no model")
		case "done":
			return w.Done("other")
		case "cancel":
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return w.Text("text")
	})
	play(t, agent.Options{Handler: handler}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		for content, want := range map[string]string{
			"":       `text:"some " text:"text" done:{full_response:"some text"}`,
			"error":  `text:"some " error:"no model" done:{full_response:"Error: no model"}`,
			"done":   `text:"some " done:{full_response:"other"}`,
			"cancel": `text:"some " cancelled:{reason:"enough"}`,
		} {
			id := "r-" + content // a gateway never uses one twice
			send(t, s, message(id, "t", content))
			var got []string
			for {
				r := next(t, s).GetResponse()
				if r.GetRequestId() != id {
					t.Fatalf("an answer to %q", r.GetRequestId())
				}
				r.RequestId = ""
				got = append(got, strings.Join(strings.Fields(fmt.Sprint(r)), " "))
				if content == "cancel" && len(got) == 1 {
					reason := "enough"
					send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_CancelRequest{CancelRequest: &pb.CancelRequest{RequestId: id, Reason: &reason}}})
				}
				if r.GetDone() != nil || r.GetCancelled() != nil {
					break
				}
			}
			if plain(strings.Join(got, " ")) != plain(want) {
				t.Errorf("%q: got %s, want %s", content, got, want)
			}
		}
	})
}

// plain takes out the white space that protobuf's text form varies on purpose.
func plain(s string) string { return strings.ReplaceAll(s, " ", "") }

// TestOrder: messages of a thread come one after the other, different threads side by side.
func TestOrder(t *testing.T) {
	release := make(chan struct{})
	handler := agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		if err := w.Text(m.Content); err != nil {
			return err
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	})
	play(t, agent.Options{Handler: handler}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		for _, m := range []*pb.ServerMessage{message("1", "x", "x1"), message("2", "x", "x2"), message("3", "y", "y1")} {
			send(t, s, m)
		}
		begun := map[string]bool{next(t, s).GetResponse().GetText(): true, next(t, s).GetResponse().GetText(): true}
		if !begun["x1"] || !begun["y1"] {
			t.Errorf("begun: %v", begun)
		}
		close(release)
		var last string
		for range 4 { // the ends of both, then x2
			last += next(t, s).GetResponse().GetText()
		}
		if last != "x2" {
			t.Errorf("then came %q", last)
		}
	})
}

// TestApproval: an answer that comes at once is not missed.
func TestApproval(t *testing.T) {
	handler := agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
		yes, err := w.ToolApproval(ctx, "t1", "bash", map[string]string{"command": "ls"})
		if err != nil {
			return err
		}
		return w.Textf("%v", yes)
	})
	play(t, agent.Options{Handler: handler}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		if r := next(t, s).GetResponse().GetToolApprovalRequest(); r.GetInputJson() != `{"command":"ls"}` {
			t.Errorf("asked %v", r)
		}
		send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_ToolApproval{ToolApproval: &pb.ToolApprovalResponse{Id: "t1", Approved: true}}})
		if got := next(t, s).GetResponse().GetText(); got != "true" {
			t.Errorf("the agent understood %q", got)
		}
	})
}

// TestTools: the gateway runs the agent's tools, and the agent the gateway's.
func TestTools(t *testing.T) {
	tools := []agent.Tool{{Name: "double", Call: func(_ context.Context, in json.RawMessage) (json.RawMessage, error) {
		var n int
		if err := json.Unmarshal(in, &n); err != nil {
			return nil, err
		}
		return json.Marshal(2 * n)
	}}, {Name: "slow", Timeout: time.Second, Call: func(ctx context.Context, _ json.RawMessage) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}}
	handler := agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
		out, err := w.CallTool(ctx, "todo_list", map[string]int{"limit": 1})
		if err != nil {
			return err
		}
		return w.Text(string(out))
	})
	play(t, agent.Options{Handler: handler, Tools: tools}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		for _, c := range []struct{ tool, input, output, failure string }{
			{"double", "21", "42", ""}, {"double", "x", "", "invalid character"}, {"slow", "", "", "deadline exceeded"}, {"none", "", "", "unknown tool: none"},
		} {
			send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_ExecutePackTool{ExecutePackTool: &pb.ExecuteToolRequest{RequestId: "c", ToolName: c.tool, InputJson: c.input}}})
			r := next(t, s).GetPackToolResult()
			if r.GetRequestId() != "c" || r.GetOutputJson() != c.output || !strings.Contains(r.GetError(), c.failure) {
				t.Errorf("%s: %v", c.tool, r)
			}
		}
		send(t, s, message("1", "x", ""))
		call := next(t, s).GetExecutePackTool()
		if call.GetToolName() != "todo_list" || call.GetInputJson() != `{"limit":1}` {
			t.Errorf("called %v", call)
		}
		send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_PackToolResult{PackToolResult: &pb.PackToolResult{
			RequestId: call.GetRequestId(), Result: &pb.PackToolResult_OutputJson{OutputJson: "[]"},
		}}})
		if got := next(t, s).GetResponse().GetText(); got != "[]" {
			t.Errorf("the agent got %q", got)
		}
	})
}

// TestReconnect: a lost stream is opened again; what no retry cures ends Run.
func TestReconnect(t *testing.T) {
	echo := agent.HandlerFunc(func(_ context.Context, m *agent.Message, w *agent.Writer) error { return w.Text(m.Content) })
	play(t, agent.Options{Handler: echo}, func(t *testing.T, g *gateway, _ <-chan error) {
		for range 5 {
			s := <-g.streams
			send(t, s, message("1", "x", "hi"))
			if got := next(t, s).GetResponse().GetText(); got != "hi" {
				t.Errorf("got %q", got)
			}
			g.end <- struct{}{}
		}
		s := <-g.streams
		send(t, s, &pb.ServerMessage{Payload: &pb.ServerMessage_Shutdown{Shutdown: &pb.Shutdown{}}})
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after Shutdown the agent leaves with %v", err)
		}
		g.end <- struct{}{}
		<-g.streams
	})
}

// TestHeartbeats: an agent that says nothing still shows that it is alive.
func TestHeartbeats(t *testing.T) {
	echo := agent.HandlerFunc(func(context.Context, *agent.Message, *agent.Writer) error { return nil })
	play(t, agent.Options{Handler: echo}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		start := time.Now()
		for range 3 {
			if m, err := s.Recv(); err != nil || m.GetHeartbeat() == nil {
				t.Fatalf("got %v: %v", m, err)
			}
		}
		if took := time.Since(start); took != 90*time.Second {
			t.Errorf("three heartbeats took %v", took)
		}
	})
}

// TestBigFile sends the largest file through a real gateway.
func TestBigFile(t *testing.T) {
	gw := gatewaytest.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		err := agent.Run(ctx, agent.Options{
			Server: gw.GRPCAddr(), ID: "a", OnWelcome: func(agent.Welcome) { close(ready) }, Logger: slog.New(slog.DiscardHandler),
			Handler: agent.HandlerFunc(func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
				if err := w.File("big", "application/octet-stream", make([]byte, agent.MaxFile+1)); err == nil {
					t.Error("a file that is too large was sent")
				}
				return w.File("big", "application/octet-stream", make([]byte, agent.MaxFile))
			}),
		})
		if err != nil {
			t.Error(err)
		}
	}()
	<-ready
	req, err := http.NewRequest(http.MethodPost, gw.URL+"/api/send", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := gw.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var turn struct {
		State  string
		Events []struct {
			Size int
			URL  string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&turn); err != nil || turn.State != "done" || len(turn.Events) != 1 || turn.Events[0].Size != agent.MaxFile {
		t.Fatalf("the turn is %+v: %v", turn, err)
	}
	file, err := gw.Client.Get(gw.URL + turn.Events[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Body.Close()
	if n, err := io.Copy(io.Discard, file.Body); err != nil || n != agent.MaxFile {
		t.Errorf("downloaded %d bytes: %v", n, err)
	}
	cancel()
	<-done
}
