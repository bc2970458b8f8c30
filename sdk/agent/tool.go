package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	pb "coven-gateway/proto/coven"
)

const (
	// maxCalls bounds the agent's tools that run side by side.
	maxCalls = 16
	// maxOpenCalls bounds them together with those that wait; more are refused.
	maxOpenCalls = 256
	// toolTimeout is how long a call of a tool may take that does not say.
	toolTimeout = 30 * time.Second
)

// A Tool is something the agent can do for others.
type Tool struct {
	Name                 string // unique at the gateway
	Description          string // for the model that decides whether to call it
	InputSchema          json.RawMessage
	RequiredCapabilities []string      // that a caller needs, all of them
	Timeout              time.Duration // of one call, waiting included; 30 s where 0; seconds on the wire

	// Call does it. Calls run side by side, at most 16. The output must be JSON; none is null.
	// ctx ends after Timeout and when the connection ends.
	Call func(ctx context.Context, input json.RawMessage) (output json.RawMessage, err error)
}

// A ToolError is what a tool of the gateway reports as its failure.
type ToolError struct {
	Tool   string
	Reason string
}

func (e *ToolError) Error() string { return "tool " + e.Tool + ": " + e.Reason }

func (t Tool) definition() *pb.ToolDefinition {
	schema := string(t.InputSchema)
	if schema == "" {
		schema = `{"type":"object"}`
	}
	return &pb.ToolDefinition{
		Name: t.Name, Description: t.Description, InputSchemaJson: schema, RequiredCapabilities: t.RequiredCapabilities,
		TimeoutSeconds: int32((t.Timeout + time.Second - 1) / time.Second),
	}
}

func toolOf(d *pb.ToolDefinition) Tool {
	return Tool{
		Name: d.GetName(), Description: d.GetDescription(), InputSchema: json.RawMessage(d.GetInputSchemaJson()),
		RequiredCapabilities: d.GetRequiredCapabilities(), Timeout: time.Duration(d.GetTimeoutSeconds()) * time.Second,
	}
}

func checkTools(tools []Tool) error {
	names := make(map[string]bool)
	for _, t := range tools {
		switch {
		case t.Name == "" || t.Call == nil:
			return errors.New("a tool needs a Name and a Call")
		case names[t.Name]:
			return fmt.Errorf("tool %s: it is there twice", t.Name)
		case len(t.InputSchema) > 0 && !json.Valid(t.InputSchema):
			return fmt.Errorf("tool %s: the InputSchema is not JSON", t.Name)
		case t.Timeout < 0:
			return fmt.Errorf("tool %s: the Timeout must not be negative", t.Name)
		}
		names[t.Name] = true
	}
	return nil
}

// runTool starts one of the agent's tools for the gateway.
func (s *session) runTool(r *pb.ExecuteToolRequest) {
	tool := s.tool(r.GetToolName())
	if tool == nil {
		s.reply(failed(r.GetRequestId(), "unknown tool: "+r.GetToolName()))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.closed:
		return
	case s.state.toolCalls >= maxOpenCalls:
		s.reply(failed(r.GetRequestId(), "the agent is busy: too many calls of its tools are open"))
		return
	}
	s.state.toolCalls++
	s.state.active++
	timeout := tool.Timeout
	if timeout == 0 {
		timeout = toolTimeout
	}
	ctx, cancel := context.WithTimeout(s.work, timeout)
	s.tasks.Go(func() {
		defer cancel()
		answer := failed(r.GetRequestId(), "")
		if output, err := s.call(ctx, tool, json.RawMessage(r.GetInputJson())); err != nil {
			answer = failed(r.GetRequestId(), reason(err))
		} else {
			answer.GetPackToolResult().Result = &pb.ExecuteToolResponse_OutputJson{OutputJson: output}
		}
		if err := s.send(s.ctx, answer); err != nil && s.ctx.Err() == nil {
			_ = s.send(s.ctx, failed(r.GetRequestId(), reason(err))) // the output was too large
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.toolCalls--
		s.state.active--
		s.noteIdle()
	})
}

// call runs a tool when it is its turn.
func (s *session) call(ctx context.Context, tool *Tool, input json.RawMessage) (string, error) {
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	case <-ctx.Done():
		return "", fmt.Errorf("the call did not start: %w", context.Cause(ctx))
	}
	output, err := tool.Call(ctx, input)
	switch {
	case err != nil:
		return "", err
	case len(output) == 0:
		return "null", nil
	case !json.Valid(output):
		return "", errors.New("the tool's output is not JSON")
	}
	return valid(string(output)), nil
}

func (s *session) tool(name string) *Tool {
	for i := range s.opts.Tools {
		if s.opts.Tools[i].Name == name {
			return &s.opts.Tools[i]
		}
	}
	return nil
}

// reason is an error in words for others.
func reason(err error) string {
	text := err.Error()
	return valid(text[:min(len(text), maxText)])
}

func failed(requestID, reason string) *pb.AgentMessage {
	return &pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: &pb.ExecuteToolResponse{
		RequestId: requestID, Result: &pb.ExecuteToolResponse_Error{Error: reason},
	}}}
}

// callTool runs one of the gateway's tools for the agent.
func (s *session) callTool(ctx context.Context, name string, input any) (json.RawMessage, error) {
	in, err := encode(input)
	if err != nil {
		return nil, err
	}
	ctx, cancel := within(ctx, s.desk.ctx)
	defer cancel()
	sending, sent := within(ctx, s.work)
	defer sent()
	id := uuid.NewString()
	result, forget := s.desk.await(id)
	defer forget()
	turn, _ := ctx.Value(turnKey{}).(string)
	if err := s.send(sending, &pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{
		RequestId: id, ToolName: valid(name), InputJson: in, TurnRequestId: turn,
	}}}); err != nil {
		return nil, err
	}
	select {
	case r, ok := <-result:
		if !ok {
			return nil, ErrDisconnected
		}
		if e, failed := r.GetResult().(*pb.PackToolResult_Error); failed {
			return nil, &ToolError{name, e.Error}
		}
		return json.RawMessage(r.GetOutputJson()), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// within returns ctx that ends with outer, too.
func within(ctx, outer context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(outer, func() { cancel(context.Cause(outer)) })
	return ctx, func() { stop(); cancel(nil) }
}

// encode makes JSON of an input. Nothing is an empty object.
func encode(input any) (string, error) {
	if raw, ok := input.(json.RawMessage); input == nil || ok && len(raw) == 0 {
		return "{}", nil
	}
	b, err := json.Marshal(input)
	return valid(string(b)), err
}
