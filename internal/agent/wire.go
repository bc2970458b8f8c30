package agent

import (
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// Limits of RegisterAgent, in bytes where they are not counts. They keep what a connection costs in
// memory within bounds.
const (
	MaxAgentID      = 200
	maxRegistration = 1 << 20 // the whole message
	maxName         = 200
	maxPath         = 4096
	maxWords        = 64 // capabilities, workspaces, features
	maxWord         = 200
	maxOpenRequests = 10_000
	maxTools        = 128
	maxToolName     = 128
	maxDescription  = 16 << 10
	maxSchema       = 64 << 10
)

// defaultToolTimeout is how long a call of a tool may take that does not say.
const defaultToolTimeout = 30 * time.Second

// features are the optional parts of the protocol that the gateway understands.
var features = []string{"token_usage", "tool_states", featureCancellation, featureToolUpdates, featureInjection, featureResume}

// registration reads the first message of a stream. Its faults are Invalid.
func registration(m *pb.AgentMessage) (Info, error) {
	r := m.GetRegister()
	if r == nil {
		return Info{}, fault.New(fault.Invalid, "first message must be RegisterAgent")
	}
	md := r.GetMetadata()
	if err := checkRegistration(r); err != nil {
		return Info{}, err
	}
	info := Info{
		ID: r.GetAgentId(), Name: r.GetName(), Capabilities: r.GetCapabilities(), Features: r.GetProtocolFeatures(),
		Workspaces: md.GetWorkspaces(), WorkingDir: md.GetWorkingDirectory(), Backend: md.GetBackend(),
		Hostname: md.GetHostname(), OS: md.GetOs(),
	}
	if g := md.GetGit(); g != nil {
		info.Git = &Git{
			Branch: g.GetBranch(), Commit: g.GetCommit(), Remote: g.GetRemote(), Dirty: g.GetDirty(),
			Ahead: int(g.GetAhead()), Behind: int(g.GetBehind()),
		}
	}
	for _, t := range r.GetTools() {
		timeout := time.Duration(t.GetTimeoutSeconds()) * time.Second
		if timeout == 0 {
			timeout = defaultToolTimeout
		}
		info.Tools = append(info.Tools, Tool{
			Name: t.GetName(), Description: t.GetDescription(), Schema: t.GetInputSchemaJson(),
			Needs: t.GetRequiredCapabilities(), Timeout: timeout,
		})
	}
	return info, nil
}

func checkRegistration(r *pb.RegisterAgent) error {
	md, git := r.GetMetadata(), r.GetMetadata().GetGit()
	if r.GetAgentId() == "" {
		return fault.New(fault.Invalid, "agent_id is required")
	}
	if strings.ContainsFunc(r.GetAgentId(), unicode.IsControl) {
		return fault.New(fault.Invalid, "agent_id must not contain control characters")
	}
	if n := proto.Size(r); n > maxRegistration {
		return fault.New(fault.Invalid, "RegisterAgent must not be larger than %d bytes; this one has %d", maxRegistration, n)
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"agent_id", r.GetAgentId(), MaxAgentID},
		{"name", r.GetName(), maxName},
		{"metadata.working_directory", md.GetWorkingDirectory(), maxPath},
		{"metadata.hostname", md.GetHostname(), maxWord},
		{"metadata.os", md.GetOs(), maxWord},
		{"metadata.backend", md.GetBackend(), maxWord},
		{"metadata.git.branch", git.GetBranch(), maxPath},
		{"metadata.git.commit", git.GetCommit(), maxWord},
		{"metadata.git.remote", git.GetRemote(), maxPath},
	} {
		if err := checkLength(f.name, f.value, f.limit); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		name  string
		words []string
	}{
		{"capabilities", r.GetCapabilities()},
		{"protocol_features", r.GetProtocolFeatures()},
		{"metadata.workspaces", md.GetWorkspaces()},
	} {
		if err := checkWords(l.name, l.words); err != nil {
			return err
		}
	}
	if n := len(r.GetOpenRequests()); n > maxOpenRequests {
		return fault.New(fault.Invalid, "open_requests must not have more than %d entries; this one has %d", maxOpenRequests, n)
	}
	if n := len(r.GetOpenToolCalls()); n > maxOpenToolCalls {
		return fault.New(fault.Invalid, "open_tool_calls must not have more than %d entries; this one has %d", maxOpenToolCalls, n)
	}
	if n := len(r.GetTools()); n > maxTools {
		return fault.New(fault.Invalid, "tools must not have more than %d entries; this one has %d", maxTools, n)
	}
	for _, t := range r.GetTools() {
		if err := checkTool(t); err != nil {
			return err
		}
	}
	return nil
}

func checkTool(t *pb.ToolDefinition) error {
	if t.GetName() == "" {
		return fault.New(fault.Invalid, "tools: name is required")
	}
	if t.GetTimeoutSeconds() < 0 {
		return fault.New(fault.Invalid, "tools: timeout_seconds must not be negative")
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"tools: name", t.GetName(), maxToolName},
		{"tools: description", t.GetDescription(), maxDescription},
		{"tools: input_schema_json", t.GetInputSchemaJson(), maxSchema},
	} {
		if err := checkLength(f.name, f.value, f.limit); err != nil {
			return err
		}
	}
	return checkWords("tools: required_capabilities", t.GetRequiredCapabilities())
}

func checkLength(name, value string, limit int) error {
	if len(value) > limit {
		return fault.New(fault.Invalid, "%s must not be longer than %d bytes; this one has %d", name, limit, len(value))
	}
	return nil
}

func checkWords(name string, words []string) error {
	if len(words) > maxWords {
		return fault.New(fault.Invalid, "%s must not have more than %d entries; this one has %d", name, maxWords, len(words))
	}
	for _, w := range words {
		if err := checkLength(name+": an entry", w, maxWord); err != nil {
			return err
		}
	}
	return nil
}

// responseBody returns what an event says; nil when its kind is unknown.
func responseBody(r *pb.MessageResponse) conversation.Body {
	switch e := r.GetEvent().(type) {
	case *pb.MessageResponse_Thinking:
		return conversation.Thinking{Text: e.Thinking}
	case *pb.MessageResponse_Text:
		return conversation.Text{Text: e.Text}
	case *pb.MessageResponse_ToolUse:
		return conversation.ToolCall{ID: e.ToolUse.GetId(), Name: e.ToolUse.GetName(), Input: e.ToolUse.GetInputJson()}
	case *pb.MessageResponse_ToolResult:
		return conversation.ToolResult{ID: e.ToolResult.GetId(), Output: e.ToolResult.GetOutput(), IsError: e.ToolResult.GetIsError()}
	case *pb.MessageResponse_ToolState:
		return toolState(e.ToolState)
	case *pb.MessageResponse_ToolApprovalRequest:
		a := e.ToolApprovalRequest
		return conversation.Approval{ID: a.GetId(), Name: a.GetName(), Input: a.GetInputJson()}
	case *pb.MessageResponse_Usage:
		u := e.Usage
		return conversation.Usage{
			Input: count(u.GetInputTokens()), Output: count(u.GetOutputTokens()),
			CacheRead: count(u.GetCacheReadTokens()), CacheWrite: count(u.GetCacheWriteTokens()),
			Thinking: count(u.GetThinkingTokens()),
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
		return cancelled(e.Cancelled.GetReason())
	}
	return nil
}

// count reads a number of tokens; a negative one is an agent's mistake.
func count(tokens int32) int64 { return int64(max(tokens, 0)) }

func cancelled(reason string) conversation.Body {
	return conversation.Ended{State: conversation.Cancelled, Cause: reason}
}

// toolStates are the words for the states of a tool (http.md 2.1).
var toolStates = map[pb.ToolState]string{
	pb.ToolState_TOOL_STATE_PENDING:           "pending",
	pb.ToolState_TOOL_STATE_AWAITING_APPROVAL: "awaiting_approval",
	pb.ToolState_TOOL_STATE_RUNNING:           "running",
	pb.ToolState_TOOL_STATE_COMPLETED:         "completed",
	pb.ToolState_TOOL_STATE_FAILED:            "failed",
	pb.ToolState_TOOL_STATE_DENIED:            "denied",
	pb.ToolState_TOOL_STATE_TIMEOUT:           "timeout",
	pb.ToolState_TOOL_STATE_CANCELLED:         "canceled",
}

// toolState returns what an update says; nil when there is none.
func toolState(u *pb.ToolStateUpdate) conversation.Body {
	if u == nil {
		return nil
	}
	word, ok := toolStates[u.GetState()]
	if !ok {
		word = "unknown"
	}
	return conversation.ToolState{ID: u.GetId(), State: word, Detail: u.GetDetail()}
}

func welcomeMessage(serverID string, i Info, secrets map[string]string) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{
		ServerId: serverID, AgentId: i.ID, InstanceId: i.InstanceID, PrincipalId: i.PrincipalID, ProtocolFeatures: features, Secrets: secrets,
	}}}
}

func sendMessage(d conversation.Dispatch) *pb.ServerMessage {
	m := &pb.SendMessage{RequestId: d.TurnID, ThreadId: d.ThreadID, Sender: d.Sender, Content: d.Text}
	for _, f := range d.Files {
		m.Attachments = append(m.Attachments, &pb.FileAttachment{Filename: f.Name, MimeType: f.Type, Data: f.Data})
	}
	return &pb.ServerMessage{Payload: &pb.ServerMessage_SendMessage{SendMessage: m}}
}

func cancelRequest(requestID, reason string) *pb.ServerMessage {
	m := &pb.CancelRequest{RequestId: requestID}
	if reason != "" {
		m.Reason = new(strings.ToValidUTF8(reason, "\uFFFD")) // what is not valid could not be sent
	}
	return &pb.ServerMessage{Payload: &pb.ServerMessage_CancelRequest{CancelRequest: m}}
}

func toolApproval(id string, approved, all bool) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_ToolApproval{ToolApproval: &pb.ToolApprovalResponse{
		Id: id, Approved: approved, ApproveAll: all,
	}}}
}

// decision is toolApproval for an agent that resumes, which is told which of its responses has the answer.
func decision(requestID string, asked uint64, d conversation.Decision) *pb.ServerMessage {
	m := toolApproval(d.ID, d.Approved, d.All)
	m.GetToolApproval().RequestId, m.GetToolApproval().ResponseSeq = requestID, asked
	return m
}

func shutdownMessage(reason string) *pb.ServerMessage {
	return &pb.ServerMessage{Payload: &pb.ServerMessage_Shutdown{Shutdown: &pb.Shutdown{Reason: reason}}}
}

// Infos returns the connected agents as clients are told of them, sorted by id.
func (r *Registry) Infos() []*pb.AgentInfo {
	infos := r.List()
	out := make([]*pb.AgentInfo, len(infos))
	for i, a := range infos {
		md := &pb.AgentMetadata{WorkingDirectory: a.WorkingDir, Hostname: a.Hostname, Os: a.OS, Workspaces: a.Workspaces, Backend: a.Backend}
		if g := a.Git; g != nil {
			md.Git = &pb.GitInfo{Branch: g.Branch, Commit: g.Commit, Dirty: g.Dirty, Remote: g.Remote, Ahead: int32(g.Ahead), Behind: int32(g.Behind)}
		}
		out[i] = &pb.AgentInfo{Id: a.ID, Name: a.Name, Backend: a.Backend, WorkingDir: a.WorkingDir, Connected: true, Metadata: md}
	}
	return out
}
