package gatewaytest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// A viewer reads a stream of coven.ClientService and notes what it says, a word for each message.
type viewer struct {
	t      *testing.T
	stream pb.ClientService_StreamEventsClient
	seen   []string
	ids    []string // of the events among them
	stop   context.CancelFunc
}

func view(t *testing.T, c pb.ClientServiceClient, ctx context.Context, key string, since ...string) *viewer {
	t.Helper()
	r := &pb.StreamEventsRequest{ConversationKey: key}
	if len(since) > 0 {
		r.SinceEventId = &since[0]
	}
	ctx, stop := context.WithTimeout(ctx, Patience)
	t.Cleanup(stop)
	stream, err := c.StreamEvents(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // at once, whatever happens in the conversation
		t.Fatal(err)
	}
	return &viewer{t: t, stream: stream, stop: stop}
}

// until reads up to a message that begins with a word.
func (v *viewer) until(word string) *pb.ClientStreamEvent {
	v.t.Helper()
	for {
		m, err := v.stream.Recv()
		if err != nil {
			v.t.Fatalf("the stream ended with %v after %q", err, v.seen)
		}
		said := describe(m)
		v.seen = append(v.seen, said)
		if e := m.GetEvent(); e != nil {
			v.ids = append(v.ids, e.GetId())
		}
		if strings.HasPrefix(said, word) {
			return m
		}
	}
}

func describe(m *pb.ClientStreamEvent) string {
	switch p := m.GetPayload().(type) {
	case *pb.ClientStreamEvent_Text:
		return "text " + p.Text.GetContent()
	case *pb.ClientStreamEvent_Thinking:
		return "thinking " + p.Thinking.GetContent()
	case *pb.ClientStreamEvent_ToolUse:
		return "tool_use " + p.ToolUse.GetName()
	case *pb.ClientStreamEvent_ToolResult:
		return "tool_result " + p.ToolResult.GetOutput()
	case *pb.ClientStreamEvent_ToolState:
		return "tool_state " + p.ToolState.GetState().String()
	case *pb.ClientStreamEvent_ToolApproval:
		return "approval " + p.ToolApproval.GetToolId()
	case *pb.ClientStreamEvent_Usage:
		return fmt.Sprint("usage ", p.Usage.GetInputTokens())
	case *pb.ClientStreamEvent_Done:
		return "done " + p.Done.GetFullResponse()
	case *pb.ClientStreamEvent_Error:
		return fmt.Sprintf("error %s %v", p.Error.GetMessage(), p.Error.GetRecoverable())
	case *pb.ClientStreamEvent_Event:
		return "event " + p.Event.GetType() + " " + p.Event.GetDirection()[:3] + " " + p.Event.GetText()
	}
	return fmt.Sprintf("%T", m.GetPayload())
}

func (v *viewer) want(words ...string) {
	v.t.Helper()
	if got, want := strings.Join(v.seen, " | "), strings.Join(words, " | "); got != want {
		v.t.Errorf("saw  %s\nwant %s", got, want)
	}
	v.seen = nil
}

// say sends a message as existing clients do and returns its id.
func say(t *testing.T, c pb.ClientServiceClient, ctx context.Context, key, text string) string {
	t.Helper()
	r, err := c.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: key, Content: text, IdempotencyKey: text + t.Name()})
	if err != nil || r.GetStatus() != "accepted" {
		t.Fatalf("%v %v", r, err)
	}
	return r.GetMessageId()
}

// TestClientOrders: whoever subscribes first and whoever sends first sees its turn from the
// beginning to its one end, and each turn only once.
func TestClientOrders(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	answer := func(text string) {
		t.Helper()
		m := a.Message()
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Thinking{Thinking: "hm"}})
		a.Text(m.RequestId, text)
		a.Done(m.RequestId, "")
	}
	library, bridge := pb.NewClientServiceClient(g.Dial()), pb.NewClientServiceClient(g.Dial())
	ctx := context.Background()

	first := view(t, library, ctx, "a")
	say(t, library, ctx, "a", "one")
	answer("eins")
	first.until("event message out")
	first.want("event message inb one", "thinking hm", "text eins", "done eins", "event message out eins")

	// A bridge sends, the whole answer is there, and only then it subscribes.
	say(t, bridge, ctx, "a", "two")
	answer("zwei")
	first.until("event message out") // so it is
	late := view(t, bridge, ctx, "a")
	late.until("event message out")
	late.want("event message inb two", "thinking hm", "text zwei", "done zwei", "event message out zwei")

	// What was shown is not shown again: the next stream would take it for its answer.
	say(t, bridge, ctx, "a", "three")
	again := view(t, bridge, ctx, "a")
	answer("drei")
	again.until("event message out")
	again.want("thinking hm", "text drei", "done drei", "event message out drei")
}

// TestClientResume: a stream continues behind an event, with history where turns have ended and
// live payloads where they go on; a foreign event is an error.
func TestClientResume(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	c := pb.NewClientServiceClient(g.Dial())
	ctx := context.Background()
	v := view(t, c, ctx, "a")
	start := say(t, c, ctx, "a", "one")
	m := a.Message()
	a.Text(m.RequestId, "eins ", "uno")
	a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "t", Name: "look", InputJson: "{}"}}})
	a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "t", Output: "seen"}}})
	a.Done(m.RequestId, "")
	v.until("event message out")
	v.stop()

	say(t, c, ctx, "a", "two")
	m = a.Message()
	a.Text(m.RequestId, "zwei ")
	g.waitForText(t, m.RequestId, "zwei ")
	v = view(t, c, ctx, "a", start)
	v.until("text zwei")
	v.want("event tool_call out "+`{"id":"t","input":{},"name":"look"}`, "event tool_result out "+`{"id":"t","is_error":false,"output":"seen"}`,
		"event message out eins uno", "event message inb two", "text zwei ")
	a.Die()
	v.until("event error")
	v.want("error the agent disconnected true", "event message out zwei ", "event error out the agent disconnected")
	if _, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a", SinceEventId: new("nonsense")}); err == nil {
		stream, _ := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a", SinceEventId: new("nonsense")})
		_, err = stream.Recv()
		refused(t, err, codes.OutOfRange, `event "nonsense" is not an event of this conversation`)
	}
	r, err := c.GetEvents(ctx, &pb.GetEventsRequest{ConversationKey: "a", Limit: new(int32(2))})
	if err != nil || len(r.GetEvents()) < 2 || r.GetEvents()[len(r.GetEvents())-1].GetType() != "error" || !r.GetHasMore() {
		t.Errorf("the newest page: %v %v", r, err)
	}
	var all []string
	for cursor := (*string)(nil); ; {
		req := &pb.GetEventsRequest{ConversationKey: "a", Limit: new(int32(2)), Cursor: cursor, Since: new("2000-01-01T00:00:00Z")}
		r, err := c.GetEvents(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.GetEvents() {
			all = append(all, e.GetType())
		}
		if cursor = r.NextCursor; !r.GetHasMore() {
			break
		}
	}
	if got := strings.Join(all, " "); got != "message tool_call tool_result message message message error" {
		t.Errorf("all pages: %s", got)
	}
}

// waitForText waits until a turn has said something.
func (g *Gateway) waitForText(t *testing.T, turn, text string) {
	t.Helper()
	ctx, stop := context.WithTimeout(Ctx(), Patience)
	defer stop()
	r, err := g.Conversations().Reader(ctx, "a", conversation.Filter{TurnID: turn}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for said := ""; said != text; {
		evs, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range evs {
			if b, ok := e.Body.(conversation.Text); ok {
				said += b.Text
			}
		}
	}
}

// TestApprovalsOfOthers: who began a turn is asked for approvals in it, and others only while that
// one is not there: bridges refuse whatever they are asked.
func TestApprovalsOfOthers(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	user, bridge := pb.NewClientServiceClient(g.Dial()), pb.NewClientServiceClient(g.Dial())
	ctx := context.Background()
	mine, other := view(t, user, ctx, "a"), view(t, bridge, ctx, "a")
	say(t, user, ctx, "a", "work")
	m := a.Message()
	ask := func(id string) {
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolApprovalRequest{ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: "rm", InputJson: "{}"}}})
	}
	ask("1")
	mine.until("approval 1")
	r, err := user.ApproveTool(ctx, &pb.ApproveToolRequest{AgentId: "a", ToolId: "1", Approved: true})
	if err != nil || !r.GetSuccess() || !a.next().GetToolApproval().GetApproved() {
		t.Errorf("%v %v", r, err)
	}
	mine.stop()
	for { // until the gateway has noticed
		if _, err := mine.stream.Recv(); err != nil {
			break
		}
	}
	a.Done(m.RequestId, "done")
	other.until("event message out")
	other.want("event message inb work", "done done", "event message out done")
	for _, c := range []struct {
		r    *pb.ApproveToolRequest
		code codes.Code
		text string
	}{
		{&pb.ApproveToolRequest{ToolId: "1"}, codes.InvalidArgument, "agent_id required"},
		{&pb.ApproveToolRequest{AgentId: "a"}, codes.InvalidArgument, "tool_id required"},
		{&pb.ApproveToolRequest{AgentId: "x", ToolId: "1"}, codes.OK, "agent not found"},
		{&pb.ApproveToolRequest{AgentId: "a", ToolId: "1"}, codes.OK, "does not wait"},
	} {
		r, err := user.ApproveTool(ctx, c.r)
		if c.code != codes.OK {
			refused(t, err, c.code, c.text)
		} else if err != nil || r.GetSuccess() || !strings.Contains(r.GetError(), c.text) {
			t.Errorf("%v: %v %v", c.r, r, err)
		}
	}
}

// TestSendMessageRefusals: the words that existing clients know.
func TestSendMessageRefusals(t *testing.T) {
	g := New(t)
	g.Agent("a")
	c := pb.NewClientServiceClient(g.Dial())
	ctx := context.Background()
	for _, x := range []struct {
		r    *pb.ClientSendMessageRequest
		code codes.Code
		text string
	}{
		{&pb.ClientSendMessageRequest{ConversationKey: "a", Content: "x"}, codes.InvalidArgument, "idempotency_key required"},
		{&pb.ClientSendMessageRequest{ConversationKey: "a", Content: "x", IdempotencyKey: strings.Repeat("k", 101)}, codes.InvalidArgument, "idempotency_key too long"},
		{&pb.ClientSendMessageRequest{Content: "x", IdempotencyKey: "k"}, codes.InvalidArgument, "conversation_key required"},
		{&pb.ClientSendMessageRequest{ConversationKey: "a", IdempotencyKey: "k"}, codes.InvalidArgument, "content required"},
		{&pb.ClientSendMessageRequest{ConversationKey: "nobody", Content: "x", IdempotencyKey: "k"}, codes.NotFound, "agent not found"},
	} {
		_, err := c.SendMessage(ctx, x.r)
		refused(t, err, x.code, x.text)
	}
	first := say(t, c, ctx, "a", "hello")
	r, err := c.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hello", IdempotencyKey: "hello" + t.Name()})
	if err != nil || r.GetStatus() != "duplicate" || r.GetMessageId() != first {
		t.Errorf("%v %v, want a duplicate of %s", r, err, first)
	}
	_, err = c.GetEvents(ctx, &pb.GetEventsRequest{ConversationKey: "a", Cursor: new("x")})
	refused(t, err, codes.InvalidArgument, "cursor must be")
	_, err = c.GetEvents(ctx, &pb.GetEventsRequest{ConversationKey: "a", Since: new("yesterday")})
	refused(t, err, codes.InvalidArgument, "invalid since timestamp")
	agents, err := c.ListAgents(ctx, &pb.ListAgentsRequest{})
	if err != nil || len(agents.GetAgents()) != 1 || agents.GetAgents()[0].GetMetadata() == nil {
		t.Errorf("%v %v", agents, err)
	}
}

// TestApprovals: a question is listed until it is answered, once; everybody sees the answer; one
// for all answers what the agent asks later in the turn; each is in the audit log.
func TestApprovals(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	turn, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: "work"})
	if err != nil {
		t.Fatal(err)
	}
	m := a.Message()
	ask := func(id string) {
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolApprovalRequest{ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: "rm", InputJson: `{"path":"` + id + `"}`}}})
	}
	r, err := g.Conversations().Reader(Ctx(), "a", conversation.Filter{TurnID: turn.ID}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := func() conversation.Body { // the next question or answer
		t.Helper()
		for {
			ctx, stop := context.WithTimeout(Ctx(), Patience)
			evs, err := r.Next(ctx)
			stop()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range evs {
				switch e.Body.(type) {
				case conversation.Approval, conversation.Decision, conversation.Ended:
					return e.Body
				}
			}
		}
	}
	ask("1")
	next()
	qs, err := g.Conversations().Questions(Ctx(), "a")
	if err != nil || len(qs) != 1 || qs[0].Name != "rm" || qs[0].InputHash() == "" {
		t.Fatalf("%+v %v", qs, err)
	}
	approve := func(body string) (int, string) {
		resp, text := g.request("POST", "/api/tools/approve", "", body)
		return resp.StatusCode, text
	}
	if code, text := approve(`{"agent_id":"a","tool_id":"1","approved":true,"input_sha256":"` + strings.Repeat("0", 64) + `"}`); code != 409 {
		t.Errorf("other arguments: %d %s", code, text)
	}
	if code, text := approve(`{"agent_id":"a","tool_id":"1","approved":true,"approve_all":true,"input_sha256":"` + qs[0].InputHash() + `"}`); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := approve(`{"agent_id":"a","tool_id":"1","approved":false}`); code != 404 {
		t.Errorf("a second answer: %d", code)
	}
	if d, ok := next().(conversation.Decision); !ok || !d.Approved || !d.All || d.By != "anonymous" {
		t.Errorf("%+v", d)
	}
	if got := a.next().GetToolApproval(); got.GetId() != "1" || !got.GetApproved() {
		t.Errorf("the agent was told %v", got)
	}
	ask("2")
	next()
	if got := a.next().GetToolApproval(); got.GetId() != "2" || !got.GetApproved() {
		t.Errorf("the agent was told %v", got)
	}
	if d, ok := next().(conversation.Decision); !ok || d.ID != "2" || !d.Approved || d.PrincipalID != "" {
		t.Errorf("%+v", d)
	}
	if qs, err := g.Conversations().Questions(Ctx(), ""); err != nil || len(qs) != 0 {
		t.Errorf("%+v %v", qs, err)
	}
	if v, err := g.Identity().VerifyAudit(t.Context()); err != nil || !v.OK || v.Records != 1 {
		t.Errorf("%+v %v", v, err)
	}
	a.Done(m.RequestId, "")
	next()
}
