package client

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// maxText bounds the text of one message to a client, in bytes: existing clients decode messages of
// at most 4 MiB.
const maxText = 1 << 20

// cutMark stands where a text was too long for a client. The whole of it is in the history over HTTP.
const cutMark = "\n… (cut)"

// clip returns a text that fits into a message, and valid UTF-8, without which nothing could be
// sent.
func clip(s string) string {
	if len(s) > maxText {
		n := maxText - len(cutMark)
		for n > 0 && !utf8.RuneStart(s[n]) { // not in the middle of a character
			n--
		}
		s = s[:n] + cutMark
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// pieces cuts a text that increments may bring in several.
func pieces(s string) []string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	var parts []string
	for len(s) > maxText {
		n := maxText
		for !utf8.RuneStart(s[n]) { // it is valid, so this ends
			n--
		}
		parts, s = append(parts, s[:n]), s[n:]
	}
	return append(parts, s)
}

// stamp is a time as clients compare it: RFC 3339 in UTC, to the microsecond.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// event is an entry of the history.
func event(key string, e conversation.Entry) *pb.Event {
	m := &pb.Event{
		Id: e.ID, ConversationKey: key, Direction: "outbound_from_agent", Author: strings.ToValidUTF8(e.Author, "\uFFFD"),
		Timestamp: stamp(e.At), Type: string(e.Type),
	}
	if e.Inbound {
		m.Direction = "inbound_to_agent"
	}
	if e.Text != "" {
		m.Text = new(clip(e.Text))
	}
	if e.Principal != "" {
		m.ActorPrincipalId = &e.Principal
	}
	return m
}

// A renderer turns events of a conversation into what its stream sends.
type renderer struct {
	service       *conversation.Service
	key           string // as the client asked for it
	agentID       string
	since         string                           // the event that the client has already; "" for none
	asks          func(turnID, toolID string) bool // whether the client is asked for an approval
	replayed      int64                            // events up to here are shown as history where their turn has ended
	endedInReplay map[string]bool                  // by turn
}

// render returns the messages that an event is, in order.
func (r *renderer) render(ctx context.Context, e conversation.Event) ([]*pb.ClientStreamEvent, error) {
	msgs, err := r.shown(ctx, e)
	if fault.CodeOf(err) == fault.NotFound { // its turn was removed since it was read
		return r.history(ctx, conversation.Event{First: e.First, Seq: e.Seq, Body: conversation.Removed{}})
	}
	return msgs, err
}

// shown is render of an event whose turn is still there: of a turn that goes on its typed payloads, and
// behind its end the record of the answer; of a turn that had ended when the stream began, its history.
// What was removed is an entry of a type of its own, which existing clients pass over (grpc.md 6.4).
func (r *renderer) shown(ctx context.Context, e conversation.Event) ([]*pb.ClientStreamEvent, error) {
	switch b := e.Body.(type) {
	case conversation.Removed:
		return r.history(ctx, e)
	case conversation.ThreadDeleted:
		now := stamp(time.Now())
		return []*pb.ClientStreamEvent{{ConversationKey: r.key, Timestamp: now, Payload: &pb.ClientStreamEvent_Event{Event: &pb.Event{
			ConversationKey: r.key, Direction: "outbound_from_agent", Author: "system", Timestamp: now, Type: "thread_deleted", Text: &b.ThreadID,
		}}}}, nil
	}
	if e.Seq <= r.replayed {
		ended, known := r.endedInReplay[e.TurnID]
		if !known {
			t, err := r.service.Turn(ctx, e.TurnID)
			if err != nil {
				return nil, err
			}
			ended = t.Last > 0 && t.Last <= r.replayed
			r.endedInReplay[e.TurnID] = ended
		}
		if ended {
			return r.history(ctx, e)
		}
	}
	var msgs []*pb.ClientStreamEvent
	add := func(m *pb.ClientStreamEvent) {
		m.ConversationKey, m.Timestamp = r.key, stamp(e.At)
		msgs = append(msgs, m)
	}
	switch b := e.Body.(type) {
	case conversation.Text:
		for _, s := range pieces(b.Text) {
			add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Text{Text: &pb.TextChunk{Content: s}}})
		}
	case conversation.Thinking:
		for _, s := range pieces(b.Text) {
			add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Thinking{Thinking: &pb.ThinkingChunk{Content: s}}})
		}
	case conversation.ToolCall:
		add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_ToolUse{ToolUse: &pb.ToolUse{Id: clip(b.ID), Name: clip(b.Name), InputJson: clip(b.Input)}}})
	case conversation.ToolState:
		m := &pb.ToolStateUpdate{Id: clip(b.ID), State: toolState[b.State]}
		if b.Detail != "" {
			m.Detail = new(clip(b.Detail))
		}
		add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_ToolState{ToolState: m}})
	case conversation.ToolResult:
		add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_ToolResult{ToolResult: &pb.ToolResult{Id: clip(b.ID), Output: clip(b.Output), IsError: b.IsError}}})
	case conversation.Usage:
		add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Usage{Usage: &pb.TokenUsage{
			InputTokens: int32(b.Input), OutputTokens: int32(b.Output), CacheReadTokens: int32(b.CacheRead),
			CacheWriteTokens: int32(b.CacheWrite), ThinkingTokens: int32(b.Thinking),
		}}})
	case conversation.Approval:
		if r.asks(e.TurnID, b.ID) {
			add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_ToolApproval{ToolApproval: &pb.ClientToolApprovalRequest{
				AgentId: r.agentID, RequestId: e.TurnID, ToolId: clip(b.ID), ToolName: clip(b.Name), InputJson: clip(b.Input),
			}}})
		}
	case conversation.Asked:
		if r.asks(e.TurnID, b.ID) {
			m := &pb.UserQuestionRequest{AgentId: r.agentID, QuestionId: b.ID, Question: b.Question, MultiSelect: b.Multi, TimeoutSeconds: int32(b.Seconds)}
			if b.Header != "" {
				m.Header = &b.Header
			}
			for _, o := range b.Options {
				option := &pb.QuestionOption{Label: o.Label}
				if o.Description != "" {
					option.Description = &o.Description
				}
				m.Options = append(m.Options, option)
			}
			add(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_UserQuestion{UserQuestion: m}})
		}
	case conversation.Ended:
		m, err := r.end(ctx, e, b)
		if err != nil {
			return nil, err
		}
		add(m)
		more, err := r.history(ctx, e) // after the end, because some clients show both (grpc.md 6.4)
		return append(msgs, more...), err
	default:
		return r.history(ctx, e)
	}
	return msgs, nil
}

// end is the one done or error of a turn.
func (r *renderer) end(ctx context.Context, e conversation.Event, b conversation.Ended) (*pb.ClientStreamEvent, error) {
	switch b.State {
	case conversation.Done:
		text := b.Response
		if text == "" {
			var err error
			if text, err = r.service.Answer(ctx, e.TurnID); err != nil {
				return nil, err
			}
		}
		m := &pb.StreamDone{}
		if len(text) <= maxText { // a longer one the client has from its pieces
			m.FullResponse = new(clip(text))
		}
		return &pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Done{Done: m}}, nil
	case conversation.Cancelled:
		return &pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Error{Error: &pb.StreamError{Message: clip("stopped: " + b.Cause)}}}, nil
	default:
		return &pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Error{Error: &pb.StreamError{
			Message: clip(b.Cause), Recoverable: b.State == conversation.Interrupted || b.State == conversation.Expired,
		}}}, nil
	}
}

// history is what an event is in the record.
func (r *renderer) history(ctx context.Context, e conversation.Event) ([]*pb.ClientStreamEvent, error) {
	entries, err := r.service.Entries(ctx, r.agentID, e)
	var msgs []*pb.ClientStreamEvent
	for _, x := range entries {
		if x.ID == r.since {
			continue // the position is before it, see Position
		}
		msgs = append(msgs, &pb.ClientStreamEvent{
			ConversationKey: r.key, Timestamp: stamp(x.At), Payload: &pb.ClientStreamEvent_Event{Event: event(r.key, x)},
		})
	}
	return msgs, err
}

// toolState is the state of a tool by the word that it is stored under.
var toolState = map[string]pb.ToolState{
	"pending": pb.ToolState_TOOL_STATE_PENDING, "awaiting_approval": pb.ToolState_TOOL_STATE_AWAITING_APPROVAL,
	"running": pb.ToolState_TOOL_STATE_RUNNING, "completed": pb.ToolState_TOOL_STATE_COMPLETED, "failed": pb.ToolState_TOOL_STATE_FAILED,
	"denied": pb.ToolState_TOOL_STATE_DENIED, "timeout": pb.ToolState_TOOL_STATE_TIMEOUT, "canceled": pb.ToolState_TOOL_STATE_CANCELLED,
}

// required refuses a field that is empty.
func required(name, value string) error {
	if value == "" {
		return fault.New(fault.Invalid, "%s required", name)
	}
	return nil
}
