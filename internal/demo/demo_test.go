package demo

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// control is a gateway that sends one message and records the answer.
type control struct {
	pb.UnimplementedCovenControlServer
	message *pb.SendMessage
	on      func(*pb.MessageResponse) *pb.ServerMessage // what it says to an event; may be nil
	events  chan *pb.MessageResponse
}

func (c *control) AgentStream(s pb.CovenControl_AgentStreamServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	for _, m := range []*pb.ServerMessage{
		{Payload: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{}}},
		{Payload: &pb.ServerMessage_SendMessage{SendMessage: c.message}},
	} {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		if call := m.GetExecutePackTool(); call != nil {
			result := &pb.PackToolResult{RequestId: call.RequestId, Result: &pb.PackToolResult_OutputJson{OutputJson: outputs[call.ToolName]}}
			if outputs[call.ToolName] == "" {
				result.Result = &pb.PackToolResult_Error{Error: "not found"}
			}
			if err := s.Send(&pb.ServerMessage{Payload: &pb.ServerMessage_PackToolResult{PackToolResult: result}}); err != nil {
				return err
			}
			continue
		}
		r := m.GetResponse()
		if r == nil {
			continue // a heartbeat
		}
		c.events <- r
		if c.on == nil {
			continue
		}
		if reply := c.on(r); reply != nil {
			if err := s.Send(reply); err != nil {
				return err
			}
		}
	}
}

// outputs are what the tools of the gateway return; the others fail.
var outputs = map[string]string{
	"ask_user": `{"answered":true,"selected":["Tea"]}`,
	"note_set": `{"key":"demo","status":"saved"}`,
}

// ask returns the events of an answer, text that follows on text as one, and how long it took.
func ask(t *testing.T, pace time.Duration, m *pb.SendMessage, on func(*pb.MessageResponse) *pb.ServerMessage) (events []string, increments int, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 20)
		m.RequestId, m.Sender = "r", "me"
		c := &control{message: m, on: on, events: make(chan *pb.MessageResponse)}
		s := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
		pb.RegisterCovenControlServer(s, c)
		go func() { _ = s.Serve(l) }()
		defer s.Stop()
		o := Options("gateway")
		o.Handler = Handler{Pace: pace}
		o.Logger = slog.New(slog.DiscardHandler)
		o.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		left := make(chan error, 1)
		start := time.Now()
		go func() { left <- agent.Run(ctx, o) }()
		for {
			r := <-c.events
			text, isText := r.GetEvent().(*pb.MessageResponse_Text)
			if last := len(events) - 1; isText && last >= 0 && strings.HasPrefix(events[last], "text ") {
				events[last] += text.Text
			} else {
				events = append(events, event(r))
			}
			if isText {
				increments++
			}
			if r.GetDone() != nil || r.GetCancelled() != nil {
				break
			}
		}
		took = time.Since(start)
		stop()
		if err := <-left; err != nil {
			t.Error(err)
		}
	})
	return events, increments, took
}

// event is an event in a few words; of usage and done only the kind.
func event(r *pb.MessageResponse) string {
	switch e := r.GetEvent().(type) {
	case *pb.MessageResponse_Text:
		return "text " + e.Text
	case *pb.MessageResponse_Error:
		return "error " + e.Error
	case *pb.MessageResponse_Done:
		if strings.HasPrefix(e.Done.GetFullResponse(), "Error: ") {
			return "done " + e.Done.GetFullResponse()
		}
		return "done"
	case *pb.MessageResponse_Cancelled:
		return "cancelled " + e.Cancelled.GetReason()
	case *pb.MessageResponse_Thinking:
		return "thinking"
	case *pb.MessageResponse_ToolUse:
		return "tool_use " + e.ToolUse.GetName()
	case *pb.MessageResponse_ToolState:
		return "tool_state " + strings.ToLower(strings.TrimPrefix(e.ToolState.GetState().String(), "TOOL_STATE_"))
	case *pb.MessageResponse_ToolResult:
		return fmt.Sprintf("tool_result %v", e.ToolResult.GetIsError())
	case *pb.MessageResponse_ToolApprovalRequest:
		return "approval " + e.ToolApprovalRequest.GetName()
	case *pb.MessageResponse_Usage:
		return "usage"
	case *pb.MessageResponse_File:
		return fmt.Sprintf("file %s %s", e.File.GetFilename(), e.File.GetMimeType())
	case *pb.MessageResponse_SessionInit:
		return "session_init"
	case *pb.MessageResponse_SessionOrphaned:
		return "session_orphaned"
	}
	return fmt.Sprintf("%T", r.GetEvent())
}

func decide(yes bool) func(*pb.MessageResponse) *pb.ServerMessage {
	return func(r *pb.MessageResponse) *pb.ServerMessage {
		q := r.GetToolApprovalRequest()
		if q == nil {
			return nil
		}
		return &pb.ServerMessage{Payload: &pb.ServerMessage_ToolApproval{ToolApproval: &pb.ToolApprovalResponse{Id: q.GetId(), Approved: yes}}}
	}
}

// stopAt stops the turn when it has said something.
func stopAt(text string) func(*pb.MessageResponse) *pb.ServerMessage {
	reason := "enough"
	return func(r *pb.MessageResponse) *pb.ServerMessage {
		if !strings.Contains(r.GetText(), text) {
			return nil
		}
		return &pb.ServerMessage{Payload: &pb.ServerMessage_CancelRequest{CancelRequest: &pb.CancelRequest{RequestId: "r", Reason: &reason}}}
	}
}

// TestAnswers: what each command, and what is none, is answered with. A text stands for what it
// contains.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		say  string
		on   func(*pb.MessageResponse) *pb.ServerMessage
		want []string
	}{
		{"Hello!", nil, []string{"text Hello, me! I am the demo agent", "usage", "done"}},
		{"  thank you. ", nil, []string{"text You are welcome, me", "usage", "done"}},
		{"Who are you?", nil, []string{"text I am the **demo agent**", "usage", "done"}},
		{"?", nil, []string{"text Say `/help`, with the slash", "usage", "done"}},
		{"", nil, []string{"text You said nothing", "usage", "done"}},
		{"one two\nthree", nil, []string{"text ## You said\n\n> one two\n> three\n\nThat is **3 words** in 13 characters", "usage", "done"}},
		{"/nonsense", nil, []string{"text I don't know `/nonsense`. Say `/help`", "done"}},
		{"/help", nil, []string{"text * `/count N` count to N", "done"}},
		{"/echo a  b\nc", nil, []string{"text a  b\nc", "done"}},
		{"/echo", nil, []string{"text `/echo` what?", "done"}},
		{"/count 3", nil, []string{"text 1\n2\n3\n", "done"}},
		{"/count much", nil, []string{"error \"much\" is not a number from 1 to 1000000", "done Error: \"much\" is not"}},
		{"/long 3", nil, []string{"text A long answer ", "done"}},
		{"/burst 3", nil, []string{"text 0 1 2 ", "done"}},
		{"/think", nil, []string{"thinking", "thinking", "thinking", "text the answer is yes", "done"}},
		{"/tool", nil, []string{
			"tool_state pending", "tool_use list_files", "tool_state running", "tool_result false", "tool_state completed",
			"text The tool found", "done",
		}},
		{"/approve", decide(true), []string{
			"text I would like", "tool_use bash", "tool_state awaiting_approval", "approval bash",
			"tool_state running", "tool_result false", "tool_state completed", "text You said yes", "done",
		}},
		{"/approve", decide(false), []string{
			"text I would like", "tool_use bash", "tool_state awaiting_approval", "approval bash",
			"tool_result true", "tool_state denied", "text You said no", "done",
		}},
		{"/approve", nil, []string{
			"text I would like", "tool_use bash", "tool_state awaiting_approval", "approval bash",
			"tool_result true", "tool_state timeout", "text Nobody answered", "done",
		}},
		{"/ask", nil, []string{"text Let me ask you something. Tea it is.", "done"}},
		{"/note milk", nil, []string{"text I have written it down", "done"}},
		{"/note", nil, []string{"text There is no note", "done"}},
		{"/file", nil, []string{"file coven.svg image/svg+xml", "text Here is a picture", "done"}},
		{"/attachments", nil, []string{"text No file came", "done"}},
		{"/usage", nil, []string{"usage", "usage", "text 2600 tokens in, 230 out", "done"}},
		{"/session", nil, []string{"session_init", "text A session has begun", "session_orphaned", "text and is lost again", "done"}},
		{"/trouble", nil, []string{"text This is half", "error the model is overloaded", "text the other half", "done"}},
		{"/error", nil, []string{"error this is what a failure", "done Error: this is what a failure"}},
		{"/cancel", stopAt("17"), []string{"text Please press **stop**.\n\n1 2 3", "cancelled enough"}},
		{"/cancel", nil, []string{"text 3599 3600 \n\nNobody stopped me", "done"}},
		{"/silent", nil, []string{"text That was a minute", "done"}},
	} {
		t.Run(tt.say, func(t *testing.T) {
			got, _, _ := ask(t, 0, &pb.SendMessage{Content: tt.say}, tt.on)
			same := slices.EqualFunc(got, tt.want, func(got, want string) bool {
				if text, ok := strings.CutPrefix(want, "text "); ok {
					return strings.HasPrefix(got, "text ") && strings.Contains(got, text)
				}
				return strings.HasPrefix(got, want)
			})
			if !same {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestMarkdown: the answer to free text shows a chat everything that it may have to render.
func TestMarkdown(t *testing.T) {
	got, _, _ := ask(t, 0, &pb.SendMessage{Content: "tell me more"}, nil)
	for _, pattern := range []string{`(?m)^### `, `(?m)^> tell me more$`, `\*\*\d words\*\*`, `(?m)^1\. `, "`code`", "(?ms)^```go\n.*^```$", `(?m)^\| --- \| --- \|$`} {
		if !regexp.MustCompile(pattern).MatchString(got[0]) {
			t.Errorf("no match for %s in:\n%s", pattern, got[0])
		}
	}
}

// TestHelp: the list is complete.
func TestHelp(t *testing.T) {
	got, _, _ := ask(t, 0, &pb.SendMessage{Content: "/help"}, nil)
	for _, c := range commands() {
		if want := strings.TrimSpace("/"+c.name+" "+c.args) + "` " + c.help + "\n"; !strings.Contains(got[0], "* `"+want) {
			t.Errorf("/help does not mention %s", want)
		}
	}
}

// TestPace: answers are typed, and come in the increments that were asked for.
func TestPace(t *testing.T) {
	const pace = 10 * time.Millisecond
	for say, want := range map[string]struct {
		increments int
		took       time.Duration
	}{
		"/echo one two three": {3, 3 * pace},
		"/count 5":            {5, 5 * pace},
		"/count":              {10, 10 * pace},
		"/long":               {2000, 2000 * pace / 10},
		"/burst 300":          {300, 0},
		"/burst":              {1000, 0},
	} {
		if _, increments, took := ask(t, pace, &pb.SendMessage{Content: say}, nil); increments != want.increments || took != want.took {
			t.Errorf("%s: got %d increments in %v, want %d in %v", say, increments, took, want.increments, want.took)
		}
	}
	if _, _, took := ask(t, 0, &pb.SendMessage{Content: "/silent"}, nil); took != time.Minute {
		t.Errorf("/silent took %v", took)
	}
}

// TestSilenceCanBeStopped: not only between words.
func TestSilenceCanBeStopped(t *testing.T) {
	got, _, took := ask(t, time.Hour, &pb.SendMessage{Content: "/count"}, stopAt("1"))
	if want := []string{"text 1\n", "cancelled enough"}; !slices.Equal(got, want) || took != 0 {
		t.Errorf("got %q after %v", got, took)
	}
}

func TestAttachments(t *testing.T) {
	got, _, _ := ask(t, 0, &pb.SendMessage{Content: "/attachments", Attachments: []*pb.FileAttachment{
		{Filename: "a|b.txt", MimeType: "text/plain", Data: []byte("Dear all,\nthis")},
		{Filename: "c.bin", MimeType: "application/octet-stream", Data: []byte{0xff, 0, 1}},
		{Filename: "d.txt", MimeType: "text/plain", Data: []byte(strings.Repeat("ä", 50))},
	}}, nil)
	for _, want := range []string{
		`| a\|b.txt | text/plain | 14 | Dear all, |`, "| c.bin | application/octet-stream | 3 | `ff 00 01` |",
		"| d.txt | text/plain | 100 | " + strings.Repeat("ä", 40) + "… |",
	} {
		if !strings.Contains(got[0], want) {
			t.Errorf("got %s, want %s", got[0], want)
		}
	}
}

// TestImports: the demo is written as anybody would write an agent.
func TestImports(t *testing.T) {
	src, err := os.ReadFile("demo.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"(coven-gateway/[^"]*)"`).FindAllStringSubmatch(string(src), -1) {
		if m[1] != "coven-gateway/sdk/agent" {
			t.Errorf("the demo imports %s", m[1])
		}
	}
}
