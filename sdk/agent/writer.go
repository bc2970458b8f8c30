package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	pb "coven-gateway/proto/coven"
)

const (
	// maxText bounds the bytes of an increment; longer text is sent in several.
	maxText = 64 << 10
	// maxFull bounds the bytes of an answer that are repeated at its end.
	maxFull = 4 << 20
)

// ErrEnded is what a Writer returns after the end of its turn.
var ErrEnded = errors.New("the turn has ended")

// A Writer sends the answer to one message. Its methods return an error when the turn is cancelled
// or the connection is lost: the handler should return then. They wait while the gateway takes
// nothing.
//
// Its methods may be called by several goroutines, but those that write text, and Done, only by one
// at a time.
type Writer struct {
	turn *turn // fixed

	ended atomic.Bool // Done was called

	// Owned by whoever writes text.
	text strings.Builder // all increments, unless they are too many
	lost bool            // they are
	tail []byte          // the beginning of a character that Write was given
}

// Text sends an increment of the answer.
func (w *Writer) Text(s string) error {
	if len(w.tail) > 0 {
		s = string(w.tail) + s
		w.tail = nil
	}
	s = valid(s)
	for len(s) > maxText {
		n := maxText
		for !utf8.RuneStart(s[n]) {
			n--
		}
		if err := w.increment(s[:n]); err != nil {
			return err
		}
		s = s[n:]
	}
	if s == "" {
		return nil
	}
	return w.increment(s)
}

// increment sends valid text of at most maxText bytes.
func (w *Writer) increment(s string) error {
	if w.ended.Load() {
		return ErrEnded
	}
	// An answer is mostly this, so it is one allocation.
	var m struct {
		message  pb.AgentMessage
		payload  pb.AgentMessage_Response
		response pb.MessageResponse
		event    pb.MessageResponse_Text
	}
	m.event.Text = s
	m.response.RequestId = w.turn.message.RequestID
	m.response.Event = &m.event
	m.payload.Response = &m.response
	m.message.Payload = &m.payload
	if err := w.turn.desk.respond(w.turn.ctx, w.turn, &m.message, false, nil); err != nil {
		return err
	}
	if w.text.Len()+len(s) > maxFull {
		w.lost = true
		w.text.Reset()
	}
	if !w.lost {
		w.text.WriteString(s)
	}
	return nil
}

// Textf formats an increment like fmt.Sprintf.
func (w *Writer) Textf(format string, args ...any) error { return w.Text(fmt.Sprintf(format, args...)) }

// WriteString is Text; it makes the writer an io.StringWriter.
func (w *Writer) WriteString(s string) (int, error) {
	if err := w.Text(s); err != nil {
		return 0, err
	}
	return len(s), nil
}

// Write sends an increment; it makes the writer an io.Writer. A character that ends in the next
// Write is sent with that one.
func (w *Writer) Write(p []byte) (int, error) {
	data := p
	if len(w.tail) > 0 {
		data = append(w.tail, p...)
		w.tail = nil
	}
	whole := len(data) - begun(data)
	if err := w.Text(string(data[:whole])); err != nil {
		return 0, err
	}
	w.tail = slices.Clone(data[whole:])
	return len(p), nil
}

// begun returns how many bytes at the end of p are the beginning of a character.
func begun(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if end := p[len(p)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

// finish sends what Write has kept and returns the whole answer: nothing where it is too long to
// be repeated.
func (w *Writer) finish() (string, error) {
	if len(w.tail) > 0 {
		if err := w.Text(""); err != nil {
			return "", err
		}
	}
	if w.lost {
		return "", nil
	}
	return w.text.String(), nil
}

// Thinking sends an increment of the agent's reasoning, or a status.
func (w *Writer) Thinking(s string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Thinking{Thinking: valid(s)}})
}

// ToolUse says that the agent uses a tool of its own. id names the use for ToolState and ToolResult.
// input is made JSON.
func (w *Writer) ToolUse(id, name string, input any) error {
	in, err := encode(input)
	if err != nil {
		return err
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: valid(id), Name: valid(name), InputJson: in}}})
}

// A ToolState is where the use of a tool stands.
type ToolState = pb.ToolState

// The states of the use of a tool. Those from ToolCompleted on are final.
const (
	ToolPending          = pb.ToolState_TOOL_STATE_PENDING
	ToolAwaitingApproval = pb.ToolState_TOOL_STATE_AWAITING_APPROVAL
	ToolRunning          = pb.ToolState_TOOL_STATE_RUNNING
	ToolCompleted        = pb.ToolState_TOOL_STATE_COMPLETED
	ToolFailed           = pb.ToolState_TOOL_STATE_FAILED
	ToolDenied           = pb.ToolState_TOOL_STATE_DENIED
	ToolTimeout          = pb.ToolState_TOOL_STATE_TIMEOUT
	ToolCancelled        = pb.ToolState_TOOL_STATE_CANCELLED
)

// ToolState says how far the use of a tool is. detail may be empty.
func (w *Writer) ToolState(id string, state ToolState, detail string) error {
	u := &pb.ToolStateUpdate{Id: valid(id), State: state}
	if detail != "" {
		detail = valid(detail)
		u.Detail = &detail
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolState{ToolState: u}})
}

// ToolResult says what a tool returned.
func (w *Writer) ToolResult(id, output string, isError bool) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_ToolResult{
		ToolResult: &pb.ToolResult{Id: valid(id), Output: valid(output), IsError: isError},
	}})
}

// ToolApproval asks whether a tool may run and waits for the answer, at most until ctx ends. id is
// unique among the questions of the whole agent that wait for an answer.
func (w *Writer) ToolApproval(ctx context.Context, id, name string, input any) (bool, error) {
	in, err := encode(input)
	if err != nil {
		return false, err
	}
	id = valid(id)
	d := w.turn.desk
	question, forget, ok := d.ask(w.turn, id) // before asking: the answer may be quick
	if !ok {
		return false, fmt.Errorf("the approval %q is asked for already", id)
	}
	defer forget()
	if err := w.numbered(&pb.MessageResponse{Event: &pb.MessageResponse_ToolApprovalRequest{
		ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: valid(name), InputJson: in},
	}}, func(n uint64) { question.number = n }); err != nil {
		return false, err
	}
	select {
	case yes := <-question.answer:
		return yes, nil
	case <-w.turn.ctx.Done():
		return false, context.Cause(w.turn.ctx)
	case <-ctx.Done():
		return false, context.Cause(ctx)
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

// File sends a file of at most MaxFile bytes. The data must not change afterwards.
func (w *Writer) File(name, mediaType string, data []byte) error {
	if len(data) > MaxFile {
		return fmt.Errorf("the file %s has %d bytes; %d is the limit", name, len(data), MaxFile)
	}
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_File{
		File: &pb.FileData{Filename: valid(name), MimeType: valid(mediaType), Data: data},
	}})
}

// SessionInit says which session of its backend the agent uses for the thread.
func (w *Writer) SessionInit(id string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_SessionInit{SessionInit: &pb.SessionInit{SessionId: valid(id)}}})
}

// SessionOrphaned says that the backend's session is lost.
func (w *Writer) SessionOrphaned(reason string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_SessionOrphaned{SessionOrphaned: &pb.SessionOrphaned{Reason: valid(reason)}}})
}

// Error reports a problem. The turn goes on; returning an error from the handler ends it.
func (w *Writer) Error(text string) error {
	return w.event(&pb.MessageResponse{Event: &pb.MessageResponse_Error{Error: valid(text)}})
}

// Done ends the turn with a full response that differs from the text sent so far. A handler that
// does not need that just returns. After it the writer takes nothing more.
func (w *Writer) Done(full string) error {
	if _, err := w.finish(); err != nil { // the text of Write
		return err
	}
	if err := w.event(&pb.MessageResponse{Event: done(valid(full))}); err != nil {
		return err
	}
	w.ended.Store(true)
	return nil
}

// CallTool runs one of the gateway's tools and returns its output. input is made JSON. It waits until
// ctx or the turn ends. An error of the tool is a *ToolError.
func (w *Writer) CallTool(ctx context.Context, name string, input any) (json.RawMessage, error) {
	ctx, cancel := within(ctx, w.turn.ctx)
	defer cancel()
	s := w.turn.desk.connected()
	if s == nil {
		return nil, ErrDisconnected
	}
	return s.callTool(ctx, name, input)
}

func (w *Writer) event(r *pb.MessageResponse) error { return w.numbered(r, nil) }

// numbered is event that says which number the event gets, where they have numbers.
func (w *Writer) numbered(r *pb.MessageResponse, number func(uint64)) error {
	if w.ended.Load() {
		return ErrEnded
	}
	r.RequestId = w.turn.message.RequestID
	return w.turn.desk.respond(w.turn.ctx, w.turn, response(r), false, number)
}
