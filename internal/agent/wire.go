package agent

import (
	"fmt"
	"strings"
	"unicode"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// Features of the protocol that change what an agent is sent.
const (
	FeatureCancellation = "cancellation" // understands CancelRequest
)

// features is what this gateway understands beyond the shared protocol.
var features = []string{FeatureCancellation, "token_usage", "tool_states"}

// Limits of a registration.
const (
	MaxAgentID = 200 // bytes, also of the name
	maxList    = 100 // entries of each list
	maxEntry   = 1000
	maxTools   = 500
	maxSchema  = 256 << 10 // bytes of one tool's schema
)

// infoOf reads the first message of a stream.
func infoOf(m *pb.AgentMessage) (Info, error) {
	r := m.GetRegister()
	if r == nil {
		return Info{}, fault.New(fault.Invalid, "first message must be RegisterAgent")
	}
	if r.GetAgentId() == "" {
		return Info{}, fault.New(fault.Invalid, "agent_id is required")
	}
	meta := r.GetMetadata()
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"agent_id", r.GetAgentId(), MaxAgentID},
		{"name", r.GetName(), MaxAgentID},
		{"metadata.working_directory", meta.GetWorkingDirectory(), 4096},
		{"metadata.hostname", meta.GetHostname(), maxEntry},
		{"metadata.os", meta.GetOs(), maxEntry},
		{"metadata.backend", meta.GetBackend(), maxEntry},
	} {
		if len(f.value) > f.limit {
			return Info{}, fault.New(fault.Invalid, "%s must not be longer than %d bytes; this one has %d", f.name, f.limit, len(f.value))
		}
		if strings.ContainsFunc(f.value, unicode.IsControl) {
			return Info{}, fault.New(fault.Invalid, "%s must not contain control characters", f.name)
		}
	}
	for _, l := range []struct {
		name   string
		values []string
	}{
		{"capabilities", r.GetCapabilities()},
		{"protocol_features", r.GetProtocolFeatures()},
		{"metadata.workspaces", meta.GetWorkspaces()},
	} {
		if len(l.values) > maxList {
			return Info{}, fault.New(fault.Invalid, "%s must not have more than %d entries; this one has %d", l.name, maxList, len(l.values))
		}
		for i, v := range l.values {
			if len(v) > maxEntry {
				return Info{}, fault.New(fault.Invalid, "%s[%d] must not be longer than %d bytes; this one has %d", l.name, i, maxEntry, len(v))
			}
		}
	}
	if len(r.GetTools()) > maxTools {
		return Info{}, fault.New(fault.Invalid, "tools must not have more than %d entries; this one has %d", maxTools, len(r.GetTools()))
	}
	for i, t := range r.GetTools() {
		if t.GetName() == "" || len(t.GetName()) > maxEntry || len(t.GetInputSchemaJson()) > maxSchema {
			return Info{}, fault.New(fault.Invalid, "tools[%d] must have a name of at most %d bytes and a schema of at most %d bytes", i, maxEntry, maxSchema)
		}
	}
	name := r.GetName()
	if name == "" {
		name = r.GetAgentId()
	}
	return Info{
		ID: r.GetAgentId(), Name: name, Capabilities: r.GetCapabilities(), Features: r.GetProtocolFeatures(), Tools: r.GetTools(),
		Workspaces: meta.GetWorkspaces(), WorkingDir: meta.GetWorkingDirectory(), Backend: meta.GetBackend(),
		Hostname: meta.GetHostname(), OS: meta.GetOs(), Git: meta.GetGit(),
	}, nil
}

func (c *Conn) welcome() *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{
		ServerId: c.registry.opts.ServerID, AgentId: c.info.ID, InstanceId: c.info.InstanceID,
		PrincipalId: c.info.Principal.ID, ProtocolFeatures: features,
	}}}
}

func messageOf(m conversation.Dispatch) *pb.SendMessage {
	s := &pb.SendMessage{RequestId: m.TurnID, ThreadId: m.ThreadID, Sender: m.Sender, Content: m.Text}
	for _, f := range m.Files {
		s.Attachments = append(s.Attachments, &pb.FileAttachment{Filename: f.Name, MimeType: f.Type, Data: f.Data})
	}
	return s
}

// bodyOf returns what a response says, nil when it says nothing that is known.
func bodyOf(r *pb.MessageResponse) conversation.Body {
	switch e := r.GetEvent().(type) {
	case *pb.MessageResponse_Text:
		return conversation.Text{Text: e.Text}
	case *pb.MessageResponse_Thinking:
		return conversation.Thinking{Text: e.Thinking}
	case *pb.MessageResponse_ToolUse:
		return conversation.ToolCall{ID: e.ToolUse.GetId(), Name: e.ToolUse.GetName(), Input: e.ToolUse.GetInputJson()}
	case *pb.MessageResponse_ToolState:
		return toolState(e.ToolState)
	case *pb.MessageResponse_ToolResult:
		return conversation.ToolResult{ID: e.ToolResult.GetId(), Output: e.ToolResult.GetOutput(), IsError: e.ToolResult.GetIsError()}
	case *pb.MessageResponse_ToolApprovalRequest:
		a := e.ToolApprovalRequest
		return conversation.Approval{ID: a.GetId(), Name: a.GetName(), Input: a.GetInputJson()}
	case *pb.MessageResponse_Usage:
		u := e.Usage
		return conversation.Usage{
			Input: count(u.GetInputTokens()), Output: count(u.GetOutputTokens()), Thinking: count(u.GetThinkingTokens()),
			CacheRead: count(u.GetCacheReadTokens()), CacheWrite: count(u.GetCacheWriteTokens()),
		}
	case *pb.MessageResponse_File:
		return conversation.FileData{Name: e.File.GetFilename(), Type: e.File.GetMimeType(), Data: e.File.GetData()}
	case *pb.MessageResponse_SessionInit:
		return conversation.Session{ID: e.SessionInit.GetSessionId()}
	case *pb.MessageResponse_SessionOrphaned:
		return conversation.SessionOrphaned{Reason: e.SessionOrphaned.GetReason()}
	case *pb.MessageResponse_Error:
		return conversation.Trouble{Text: e.Error}
	case *pb.MessageResponse_Done:
		return conversation.Ended{State: conversation.Done, Response: e.Done.GetFullResponse()}
	case *pb.MessageResponse_Cancelled:
		return conversation.Ended{State: conversation.Cancelled, Cause: e.Cancelled.GetReason()}
	default:
		return nil
	}
}

// count is a number of tokens; a negative one is a mistake of the agent.
func count(n int32) int64 { return int64(max(n, 0)) }

var stateWords = map[pb.ToolState]string{
	pb.ToolState_TOOL_STATE_PENDING:           "pending",
	pb.ToolState_TOOL_STATE_AWAITING_APPROVAL: "awaiting_approval",
	pb.ToolState_TOOL_STATE_RUNNING:           "running",
	pb.ToolState_TOOL_STATE_COMPLETED:         "completed",
	pb.ToolState_TOOL_STATE_FAILED:            "failed",
	pb.ToolState_TOOL_STATE_DENIED:            "denied",
	pb.ToolState_TOOL_STATE_TIMEOUT:           "timeout",
	pb.ToolState_TOOL_STATE_CANCELLED:         "canceled",
}

func toolState(u *pb.ToolStateUpdate) conversation.Body {
	word, ok := stateWords[u.GetState()]
	if !ok {
		word = "unknown"
	}
	return conversation.ToolState{ID: u.GetId(), State: word, Detail: u.GetDetail()}
}

func payloadName(m *pb.AgentMessage) string { return fmt.Sprintf("%T", m.GetPayload()) }
