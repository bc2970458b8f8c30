package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	pb "coven-gateway/proto/coven"
)

// A Writer sends the answer to one message. Its methods return an error when the turn is cancelled
// or the connection is lost: the handler should return then. They wait while the gateway takes
// nothing. A Writer belongs to one goroutine.
type Writer struct {
	session *session
	ctx     context.Context
	request string
	text    strings.Builder // all increments
	failure string          // the last error
	ended   bool
}

// Text sends an increment of the answer.
func (w *Writer) Text(s string) error {
	w.text.WriteString(s)
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Text{Text: s}})
}

// Textf formats an increment like fmt.Sprintf.
func (w *Writer) Textf(format string, args ...any) error { return w.Text(fmt.Sprintf(format, args...)) }

// Write sends an increment; it makes the writer an io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.Text(string(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Thinking sends an increment of the agent's reasoning, or a status.
func (w *Writer) Thinking(s string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Thinking{Thinking: s}})
}

// ToolUse says that the agent calls a tool of its own. input is made JSON.
func (w *Writer) ToolUse(id, name string, input any) error {
	b, err := json.Marshal(input)
	if err != nil {
		return err
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: id, Name: name, InputJson: string(b)}}})
}

// ToolState says how far a tool call is. detail may be empty.
func (w *Writer) ToolState(id string, state pb.ToolState, detail string) error {
	u := &pb.ToolStateUpdate{Id: id, State: state}
	if detail != "" {
		u.Detail = &detail
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolState{ToolState: u}})
}

// ToolResult says what a tool returned.
func (w *Writer) ToolResult(id, output string, isError bool) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: id, Output: output, IsError: isError}}})
}

// ToolApproval asks whether a tool may run and waits for the answer, at most until ctx ends.
func (w *Writer) ToolApproval(ctx context.Context, id, name string, input any) (bool, error) {
	b, err := json.Marshal(input)
	if err != nil {
		return false, err
	}
	answer, forget := await(w.session, w.session.approvals, id) // before asking: the answer may be quick
	defer forget()
	err = w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolApprovalRequest{
		ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: name, InputJson: string(b)},
	}})
	if err != nil {
		return false, err
	}
	select {
	case yes := <-answer:
		return yes, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-w.ctx.Done():
		return false, context.Cause(w.ctx)
	}
}

// Usage counts tokens: an increment, not a running total.
type Usage struct{ Input, Output, CacheRead, CacheWrite, Thinking int32 }

// Usage reports tokens spent.
func (w *Writer) Usage(u Usage) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{
		InputTokens: u.Input, OutputTokens: u.Output, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, ThinkingTokens: u.Thinking,
	}}})
}

// File sends a file of at most MaxFile bytes.
func (w *Writer) File(name, mediaType string, data []byte) error {
	if len(data) > MaxFile {
		return fmt.Errorf("the file %s has %d bytes, at most %d can be sent", name, len(data), MaxFile)
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: name, MimeType: mediaType, Data: data}}})
}

// SessionInit says which session of its backend the agent uses for the thread.
func (w *Writer) SessionInit(id string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_SessionInit{SessionInit: &pb.SessionInit{SessionId: id}}})
}

// SessionOrphaned says that the backend's session is lost.
func (w *Writer) SessionOrphaned(reason string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_SessionOrphaned{SessionOrphaned: &pb.SessionOrphaned{Reason: reason}}})
}

// Error reports a problem. The turn goes on; returning an error from the handler ends it.
func (w *Writer) Error(text string) error {
	w.failure = text
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Error{Error: text}})
}

// Done ends the turn with a full response that differs from the text sent so far. A handler that
// does not need that just returns.
func (w *Writer) Done(full string) error { return w.done(full) }

func (w *Writer) done(full string) error {
	w.ended = true
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: full}}})
}

// CallTool runs a tool of the gateway and returns its output.
func (w *Writer) CallTool(name string, input any) (json.RawMessage, error) {
	b, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	return w.session.callTool(w.ctx, name, b)
}

func (w *Writer) event(r *pb.MessageResponse) error {
	r.RequestId = w.request
	return w.session.send(w.ctx, &pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: r}})
}
