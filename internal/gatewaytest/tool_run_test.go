package gatewaytest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// TestToolRun: calls that the gateway runs are in the log of the turn that they are made in, with their
// outcome and how long they took, and in no other.
func TestToolRun(t *testing.T) {
	g := New(t)
	a := g.Agent("a", everything)
	turns := map[string]string{} // the request by what was said
	for _, said := range []string{"one", "two"} {
		go func() {
			_, _ = pb.NewClientServiceClient(g.Dial()).SendMessage(context.WithoutCancel(t.Context()), &pb.ClientSendMessageRequest{ConversationKey: "a", Content: said, IdempotencyKey: said})
		}()
		turns[said] = a.Message().RequestId
	}
	call := func(id, tool, turn string) {
		a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{
			RequestId: id, ToolName: tool, InputJson: "{}", TurnRequestId: turn,
		}}})
		a.Result(id)
	}
	call("1", "todo_list", turns["one"])
	call("2", "no_such_tool", turns["two"])
	call("3", "todo_list", "")        // of two turns, nobody knows which
	call("4", "todo_list", "another") // nor of one that is not the agent's
	a.Done(turns["one"], "")
	a.Done(turns["two"], "")

	for said, want := range map[string]string{"one": "todo_list builtin:base ok", "two": "no_such_tool  not_found"} {
		_, text := g.request("GET", "/api/turns/"+turns[said]+"/events", "", "", "Accept", "text/event-stream") // until the turn has ended
		var runs []string
		for r := sse.NewReader(strings.NewReader(text)); ; {
			e, err := r.Next()
			if err != nil {
				break
			}
			if e.Name != "tool_run" {
				continue
			}
			var run struct {
				ID, Name, Pack, Result string
				Duration               *int64 `json:"duration_us"`
			}
			if err := json.Unmarshal(e.Data, &run); err != nil || run.ID == "" || run.Duration == nil {
				t.Errorf("%s: %s: %v", said, e.Data, err)
			}
			runs = append(runs, run.Name+" "+run.Pack+" "+run.Result)
		}
		if want := []string{want}; !slices.Equal(runs, want) {
			t.Errorf("%s: got %q, want %q", said, runs, want)
		}
	}
}
