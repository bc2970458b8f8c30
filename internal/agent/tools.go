package agent

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/tracing"
	pb "coven-gateway/proto/coven"
)

// Limits of tools on a connection.
const (
	// maxToolCalls is how many tools an agent may have running.
	maxToolCalls = 64
	// maxHostedCalls is how many calls of the tools that it hosts may be open.
	maxHostedCalls = 256
	// maxToolList bounds the tools that an agent is told of, in bytes: it decodes at most 4 MiB.
	maxToolList = 3 << 20
)

// featureToolUpdates is what an agent declares that understands ToolUpdate.
const featureToolUpdates = "tool_updates"

// callTool runs a tool for the agent on a goroutine of its own, of which the connection has at most
// maxToolCalls. receive waits for them when the stream has ended; they end with it, but for those of an
// agent that resumes, which are errands. Results come in the order in which the calls end.
func (c *Conn) callTool(r *pb.ExecutePackTool) error {
	id := r.GetRequestId()
	c.mu.Lock()
	_, twice := c.asked[id]
	busy := len(c.asked) >= maxToolCalls
	if !twice && !busy {
		if c.asked == nil {
			c.asked = make(map[string]struct{})
		}
		c.asked[id] = struct{}{}
	}
	turn := c.calls[r.GetTurnRequestId()]
	if r.GetTurnRequestId() == "" {
		turn = c.onlyTurn()
	}
	c.mu.Unlock()
	switch {
	case twice:
		return c.answer(toolResult(id, "", fault.New(fault.Conflict, "duplicate request ID")))
	case busy:
		return c.answer(toolResult(id, "", fault.New(fault.Limited, "an agent can have %d tool calls open; wait for one of them", maxToolCalls)))
	}
	run := func(ctx context.Context) *pb.ServerMessage {
		output, err := c.runTool(ctx, turn, r)
		return toolResult(id, output, err)
	}
	if c.resumes() {
		c.registry.errands.start(c, id, run)
		return nil
	}
	c.tools.Go(func() {
		if err := c.finishTool(id, run(c.ctx)); err != nil {
			c.end(endingOf(err))
		}
	})
	return nil
}

// onlyTurn is the turn that the agent is answering, nil if it could be any of several. c.mu is held.
func (c *Conn) onlyTurn() (turn *call) {
	if len(c.calls) == 1 {
		for _, turn = range c.calls {
		}
	}
	return turn
}

// caller is the agent as tools know it.
func (c *Conn) caller(p auth.Principal, turn string) packs.Caller {
	return packs.Caller{Principal: p, AgentID: c.info.ID, TurnID: turn, OnStream: true, Capabilities: c.info.Capabilities}
}

// grant returns where the agent can call tools over MCP, and its token for that.
func (c *Conn) grant() (endpoint, token string) {
	p, err := auth.From(c.ctx)
	if err != nil || c.registry.opts.Grant == nil {
		return "", ""
	}
	return c.registry.opts.Grant(c.ctx, func() packs.Caller {
		c.mu.Lock()
		defer c.mu.Unlock()
		if turn := c.onlyTurn(); turn != nil {
			return c.caller(p, turn.requestID)
		}
		return c.caller(p, "")
	})
}

// runTool returns what a tool returns to the agent. turn is the one that needs it; nil if that is not known.
func (c *Conn) runTool(ctx context.Context, turn *call, r *pb.ExecutePackTool) (string, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return "", err
	}
	id := ""
	if turn != nil {
		ctx, id = tracing.Below(ctx, turn.span), turn.requestID
	}
	return c.registry.opts.Tools.Call(ctx, c.caller(p, id), r.GetToolName(), json.RawMessage(r.GetInputJson()))
}

// host offers the tools that the agent hosts. One that is rejected is known to the operator only:
// the protocol has no place for it.
func (c *Conn) host() {
	if c.registry.opts.Offer != nil {
		c.withdraw = c.registry.opts.Offer(c.info.ID)
	}
	if len(c.info.Tools) == 0 {
		return
	}
	p := packs.Pack{ID: "agent:" + c.info.ID, Kind: packs.Hosted, Principal: c.info.PrincipalID, AgentID: c.info.ID}
	for _, t := range c.info.Tools {
		p.Tools = append(p.Tools, packs.Tool{
			Name: t.Name, Description: t.Description, Schema: t.Schema, Needs: t.Needs, Timeout: t.Timeout, Call: c.callHosted,
		})
	}
	var err error
	if c.pack, err = c.registry.opts.Tools.Add(p); err != nil {
		c.log().Warn("the tools of an agent cannot be offered", "error", err)
	}
}

// unhost takes the tools away again. Their open calls end.
func (c *Conn) unhost() {
	if c.withdraw != nil {
		c.withdraw()
	}
	if c.pack != nil {
		c.pack.Remove()
	}
}

// callHosted has the agent run one of its tools.
func (c *Conn) callHosted(ctx context.Context, call *packs.Call) (string, error) {
	result := make(chan *pb.ExecuteToolResponse, 1)
	if err := c.waitForRoom(ctx); err != nil {
		return "", err
	}
	c.mu.Lock()
	if c.state != open || len(c.hosted) >= maxHostedCalls {
		gone := c.state != open
		c.mu.Unlock()
		<-c.room
		if gone {
			return "", conversation.ErrAgentGone
		}
		return "", fault.New(fault.Limited, "agent %s is busy: %d calls of its tools are open", c.info.ID, maxHostedCalls)
	}
	if c.hosted == nil {
		c.hosted = make(map[string]chan *pb.ExecuteToolResponse)
	}
	c.hosted[call.ID] = result
	c.push(executeTool(call))
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.hosted, call.ID)
	}()
	select {
	case r := <-result:
		if words := r.GetError(); words != "" {
			return "", packs.Failed(words)
		}
		return r.GetOutputJson(), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// hostedResult takes the agent's answer to a call of a tool that it hosts.
func (c *Conn) hostedResult(r *pb.ExecuteToolResponse) {
	c.mu.Lock()
	result := c.hosted[r.GetRequestId()]
	delete(c.hosted, r.GetRequestId())
	c.mu.Unlock()
	if result == nil {
		c.note("an agent answered a tool call that nobody waits for; ignored", r.GetRequestId())
		return
	}
	result <- r
}

// stale reports whether a queued message is a call of a tool that nobody waits for. c.mu is held.
func (c *Conn) stale(m *pb.ServerMessage) bool {
	call := m.GetExecutePackTool()
	return call != nil && c.hosted[call.GetRequestId()] == nil
}

// available returns the tools that the agent may use now, as many as fit into a message.
func (c *Conn) available(ctx context.Context) []*pb.ToolDefinition {
	p, err := auth.From(ctx)
	var entries []packs.Entry
	if err == nil {
		entries, err = c.registry.opts.Tools.Available(ctx, c.caller(p, ""))
	}
	if err != nil {
		c.log().Error("the tools that an agent may use could not be listed", "error", err)
		return nil
	}
	var list []*pb.ToolDefinition
	size := 0
	for _, e := range entries {
		d := &pb.ToolDefinition{
			Name: e.Name, Description: e.Description, InputSchemaJson: e.Schema, RequiredCapabilities: e.Needs,
			TimeoutSeconds: int32((e.Timeout + time.Second - 1) / time.Second),
		}
		if size += proto.Size(d) + 8; size > maxToolList {
			c.log().Warn("an agent is not told of all tools: the list would be too long", "tools", len(entries), "told", len(list))
			break
		}
		list = append(list, d)
	}
	return list
}

// toolsChanged tells the agents that understand it that tools have come or gone. It waits for
// nothing.
func (r *Registry) toolsChanged() {
	for _, c := range r.welcomed(func(c *Conn) bool { return slices.Contains(c.info.Features, featureToolUpdates) }) {
		c.mu.Lock()
		if c.state == open {
			c.retell = true
			c.startWriter()
		}
		c.mu.Unlock()
	}
}

func executeTool(call *packs.Call) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ExecutePackTool{ExecutePackTool: &pb.ExecuteToolRequest{
		ToolName: call.Tool, InputJson: strings.ToValidUTF8(string(call.Input), "\uFFFD"), RequestId: call.ID,
	}}}
}

func toolUpdate(list []*pb.ToolDefinition) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ToolUpdate{ToolUpdate: &pb.ToolUpdate{Tools: list}}}
}

// toolResult is the outcome of an agent's call of a tool.
func toolResult(requestID, output string, err error) *pb.ServerMessage {
	r := &pb.PackToolResult{RequestId: requestID, Result: &pb.PackToolResult_OutputJson{OutputJson: output}}
	if err != nil {
		r.Result = &pb.PackToolResult_Error{Error: fault.Message(err)}
	}
	return &pb.ServerMessage{Payload: &pb.ServerMessage_PackToolResult{PackToolResult: r}}
}
