package gatewaytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
)

// heard is what a program shows of one turn.
type heard struct {
	text  string   // as the answer
	error string   // as an error
	end   string   // of the turn for this program: "done", "error", "stream end" or "refused"
	asked []string // tools whose approval it was asked for
	tools []string // that it shows
	usage int32    // input tokens, added up
}

// A talker is a program with which people talk to agents.
type talker interface {
	// say sends a message to an agent and follows its turn. It does not fail the test: it runs
	// beside it. agent is what the program was told to talk to.
	say(agent, text string) (heard, error)
	// answer is what the user presses when asked for an approval.
	answer(approve, all bool)
}

// A desk is what a program works with: the gateway, its credentials, and what a test wants to know.
type desk struct {
	g       *Gateway
	context func() context.Context // of a call, with fresh credentials

	patience        time.Duration // of a call; 0 for Patience
	beforeFollowing func()        // what happens between the first of the two calls and the second
	text            chan string   // what comes, as it comes; unread increments are no failure
}

// call returns a context for a call; existing programs set no deadline, the test does.
func (d *desk) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.context(), cmp.Or(d.patience, Patience))
}

// dial opens a channel as existing programs do.
func (d *desk) dial() (*grpc.ClientConn, pb.ClientServiceClient) {
	conn := d.g.Dial(grpc.WithDefaultCallOptions(grpc.WaitForReady(true))) // a channel reconnects with the next call
	return conn, pb.NewClientServiceClient(conn)
}

func (d *desk) note(text string) {
	select {
	case d.text <- text:
	default:
	}
}

// well checks what every program relies on in a message of a stream: its key is echoed and its time
// is RFC 3339 in UTC, to which clients compare (grpc.md 6.4, 10).
func well(m *pb.ClientStreamEvent, key string) error {
	if m.GetConversationKey() != key {
		return fmt.Errorf("conversation_key %q instead of %q", m.GetConversationKey(), key)
	}
	times := []string{m.GetTimestamp()}
	if e := m.GetEvent(); e != nil {
		if times = append(times, e.GetTimestamp()); e.GetId() == "" || e.GetConversationKey() != key {
			return fmt.Errorf("event %v", e)
		}
	}
	for _, s := range times {
		if _, err := time.Parse(time.RFC3339, s); err != nil || !strings.HasSuffix(s, "Z") {
			return errors.Join(fmt.Errorf("timestamp %q", s), err)
		}
	}
	return nil
}

// tonic is how the programs print a status; the Matrix bridge looks for words in it.
func tonic(err error) string {
	s := status.Convert(err)
	return fmt.Sprintf("status: %v, message: %q, details: [], metadata: MetadataMap { headers: {} }", s.Code(), s.Message())
}

// library is coven-client, below the TUI, `send` and the phones: it subscribes, waits for headers,
// and only then sends, on the same new channel (grpc.md 9.6).
type library struct {
	*desk
	approve, all bool
	stale        bool // its list of agents is from before
	sent         int
}

func (l *library) answer(approve, all bool) { l.approve, l.all = approve, all }

// idleFinish is the rule by which the library ends a turn that has no end; a gateway must not need it.
const idleFinish = 3 * time.Second

func (l *library) say(agent, text string) (h heard, err error) {
	conn, c := l.dial()
	defer conn.Close()
	ctx, stop := l.call()
	defer stop()
	if !l.stale {
		list, err := c.ListAgents(ctx, &pb.ListAgentsRequest{})
		if err != nil {
			return h, err
		}
		known := false
		for _, a := range list.GetAgents() {
			known = known || a.GetId() == agent && a.GetConnected()
		}
		if !known {
			return heard{error: "AgentNotFound", end: "refused"}, nil
		}
	}
	conn, c = l.dial()
	defer conn.Close()
	start := time.Now()
	ctx, stop = l.call()
	defer stop()
	stream, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: agent})
	if err == nil {
		_, err = stream.Header() // the message waits for them
	}
	if err != nil {
		return h, err
	}
	if l.beforeFollowing != nil {
		l.beforeFollowing()
	}
	ctx, stop = l.call()
	defer stop()
	l.sent++
	r, err := c.SendMessage(ctx, &pb.ClientSendMessageRequest{
		ConversationKey: agent, Content: text, IdempotencyKey: fmt.Sprintf("coven-client-%d-%d", time.Now().UnixMilli(), l.sent),
	})
	if err != nil {
		return heard{error: tonic(err), end: "refused"}, nil
	}
	if r.GetStatus() != "accepted" || r.GetMessageId() == "" {
		return h, fmt.Errorf("the answer to a message is %v", r)
	}
	var ledger time.Time // when the idle rule was armed
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			h.end = "stream end"
			return h, nil
		}
		if err == nil {
			err = well(m, agent)
		}
		if !ledger.IsZero() && time.Since(ledger) > idleFinish {
			err = errors.New("a turn has no end but that of the idle rule")
		}
		if err != nil {
			return h, err
		}
		switch p := m.GetPayload().(type) {
		case *pb.ClientStreamEvent_Text:
			h.text += p.Text.GetContent()
			l.note(h.text)
		case *pb.ClientStreamEvent_ToolUse:
			h.tools = append(h.tools, p.ToolUse.GetName())
		case *pb.ClientStreamEvent_ToolResult:
			h.tools = append(h.tools, p.ToolResult.GetOutput())
		case *pb.ClientStreamEvent_Usage:
			h.usage += p.Usage.GetInputTokens()
		case *pb.ClientStreamEvent_ToolApproval:
			h.asked = append(h.asked, p.ToolApproval.GetToolName())
			if err := l.decide(p.ToolApproval, l.approve, l.all); err != nil {
				return h, err
			}
		case *pb.ClientStreamEvent_Done:
			h.end = "done"
			return h, nil
		case *pb.ClientStreamEvent_Error:
			h.error, h.end = p.Error.GetMessage(), "error"
			return h, nil
		case *pb.ClientStreamEvent_Event:
			at, err := time.Parse(time.RFC3339, p.Event.GetTimestamp())
			if err == nil && at.Before(start.Add(-5*time.Second)) || p.Event.GetDirection() != "outbound_from_agent" {
				continue
			}
			switch p.Event.GetType() {
			case "message":
				h.text += p.Event.GetText() // a second time, if it comes before the end
				ledger = time.Now()
			case "tool_call", "error":
				h.tools = append(h.tools, p.Event.GetType())
			}
		}
	}
}

// decide answers on a channel of its own.
func (d *desk) decide(q *pb.ClientToolApprovalRequest, approve, all bool) error {
	conn, c := d.dial()
	defer conn.Close()
	ctx, stop := d.call()
	defer stop()
	r, err := c.ApproveTool(ctx, &pb.ApproveToolRequest{AgentId: q.GetAgentId(), ToolId: q.GetToolId(), Approved: approve, ApproveAll: all})
	if err == nil && !r.GetSuccess() {
		err = errors.New(r.GetError())
	}
	return err
}

// bridge is coven-matrix, coven-slack or coven-telegram: it sends and then subscribes, all its life
// on one channel; it refuses every approval it sees (grpc.md 9.12 to 9.14).
type bridge struct {
	*desk
	client pb.ClientServiceClient
	listed bool // it binds rooms only to agents that it has listed, as Matrix does
}

func newBridge(d *desk, listed bool) *bridge {
	_, c := d.dial()
	return &bridge{desk: d, client: c, listed: listed}
}

func (b *bridge) answer(bool, bool) {}

func (b *bridge) say(agent, text string) (h heard, err error) {
	ctx, stop := b.call()
	defer stop()
	r, err := b.client.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: agent, Content: text, IdempotencyKey: uuid.NewString()})
	if err != nil {
		h.end, h.error = "refused", "Error: "+tonic(err)
		if words := strings.ToLower(tonic(err)); b.listed && strings.Contains(words, "not found") {
			h.error = "agent offline"
		} else if b.listed && (strings.Contains(words, "connection") || strings.Contains(words, "unavailable")) {
			h.error = "gateway unreachable"
		}
		return h, nil
	}
	if r.GetStatus() != "accepted" {
		return h, fmt.Errorf("the answer to a message is %v", r)
	}
	if b.beforeFollowing != nil {
		b.beforeFollowing()
	}
	ctx, stop = b.call()
	defer stop()
	stream, err := b.client.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: agent})
	if err == nil {
		_, err = stream.Header() // the Matrix bridge is locked until they come
	}
	if err != nil {
		return h, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			h.end = "stream end"
			return h, nil
		}
		if err == nil {
			err = well(m, agent)
		}
		if err != nil {
			return h, err
		}
		switch p := m.GetPayload().(type) {
		case *pb.ClientStreamEvent_Text:
			h.text += p.Text.GetContent()
			b.note(h.text)
		case *pb.ClientStreamEvent_ToolApproval:
			h.asked = append(h.asked, p.ToolApproval.GetToolName())
			ctx, stop := b.call()
			r, err := b.client.ApproveTool(ctx, &pb.ApproveToolRequest{AgentId: p.ToolApproval.GetAgentId(), ToolId: p.ToolApproval.GetToolId()})
			stop()
			if err == nil && !r.GetSuccess() {
				err = errors.New(r.GetError())
			}
			if err != nil {
				return h, err
			}
		case *pb.ClientStreamEvent_Done:
			if full := p.Done.GetFullResponse(); full != "" {
				h.text = full
			}
			h.end = "done"
			return h, nil
		case *pb.ClientStreamEvent_Error:
			h.error, h.end = "Error: "+p.Error.GetMessage(), "error"
			return h, nil
		}
	}
}

// bind is how a room gets its agent: Matrix wants an id that is listed.
func (b *bridge) bind(id string) error {
	if !b.listed {
		return nil
	}
	ctx, stop := b.call()
	defer stop()
	list, err := b.client.ListAgents(ctx, &pb.ListAgentsRequest{})
	for _, a := range list.GetAgents() {
		if a.GetId() == id && a.GetMetadata() != nil { // it prints metadata.working_directory
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("agent %s is not in the list", id))
}
