// Package client serves the gRPC service coven.ClientService: what people's programs use. Its
// streams are readers of the same log as everything else.
package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// Options are what the service needs. All fields are required.
type Options struct {
	Identity      *auth.Service
	Conversations *conversation.Service
	Agents        Agents
	Stopping      <-chan struct{} // closed when streams have to end
}

// Agents tells who is connected.
type Agents interface {
	// Infos returns the connected agents in the order of their ids.
	Infos() []*pb.AgentInfo
	// Resolve returns the agent id that an agent id or the instance id of a connection names.
	Resolve(id string) (agentID string, ok bool)
}

// Register offers the service on a server. Its interceptors must put the caller into the context,
// see [auth.From], and turn faults into statuses.
func Register(s grpc.ServiceRegistrar, o Options) {
	pb.RegisterClientServiceServer(s, service{identity: o.Identity, conversations: o.Conversations, agents: o.Agents, stopping: o.Stopping})
}

type service struct {
	pb.UnimplementedClientServiceServer
	identity      *auth.Service
	conversations *conversation.Service
	agents        Agents
	stopping      <-chan struct{}
}

// agentID is the agent whose conversation a key names.
func (s service) agentID(key string) string {
	if id, ok := s.agents.Resolve(key); ok {
		return id
	}
	return key
}

// GetMe implements coven.ClientService.
func (service) GetMe(ctx context.Context, _ *emptypb.Empty) (*pb.MeResponse, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return nil, err
	}
	m := &pb.MeResponse{PrincipalId: p.ID, PrincipalType: string(p.Kind), DisplayName: p.Name, Status: string(p.Status)}
	for _, r := range p.Roles {
		m.Roles = append(m.Roles, string(r))
	}
	return m, nil
}

// ListAgents implements coven.ClientService.
func (s service) ListAgents(_ context.Context, r *pb.ListAgentsRequest) (*pb.ListAgentsResponse, error) {
	resp := &pb.ListAgentsResponse{}
	for _, a := range s.agents.Infos() {
		if ws := r.GetWorkspace(); ws == "" || slices.Contains(a.GetMetadata().GetWorkspaces(), ws) {
			resp.Agents = append(resp.Agents, a)
		}
	}
	return resp, nil
}

// SendMessage implements coven.ClientService. Each principal has one thread with each agent: the
// protocol knows no others.
func (s service) SendMessage(ctx context.Context, r *pb.ClientSendMessageRequest) (*pb.ClientSendMessageResponse, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case r.GetIdempotencyKey() == "":
		return nil, fault.New(fault.Invalid, "idempotency_key required")
	case len(r.GetIdempotencyKey()) > conversation.MaxIdempotencyKey:
		return nil, fault.New(fault.Invalid, "idempotency_key too long")
	case r.GetConversationKey() == "":
		return nil, fault.New(fault.Invalid, "conversation_key required")
	case r.GetContent() == "" && len(r.GetAttachments()) == 0:
		return nil, fault.New(fault.Invalid, "content required")
	}
	agentID := s.agentID(r.GetConversationKey())
	thread := agentID + " " + p.ID
	in := conversation.SendRequest{
		AgentID: agentID, ThreadID: uuid.NewSHA1(threads, []byte(thread)).String(), Frontend: "grpc", ExternalID: thread,
		Sender: p.Name, Text: r.GetContent(), Key: r.GetIdempotencyKey(), Detached: true,
		Delivery: conversation.Delivery(r.GetDelivery()), Wait: time.Duration(r.GetWaitSeconds()) * time.Second,
	}
	if most := int64(conversation.MaxWait / time.Second); r.GetWaitSeconds() < 0 || r.GetWaitSeconds() > most {
		return nil, fault.New(fault.Invalid, "wait_seconds must be from 1 to %d; got %d", most, r.GetWaitSeconds())
	}
	for _, f := range r.GetAttachments() {
		in.Files = append(in.Files, conversation.FileData{Name: f.GetFilename(), Type: f.GetMimeType(), Data: f.GetData()})
	}
	t, err := s.conversations.Send(ctx, in)
	if errors.Is(err, conversation.ErrAgentGone) {
		return nil, fault.Wrap(err, fault.NotFound, "agent not found")
	}
	if err != nil {
		return nil, err
	}
	resp := &pb.ClientSendMessageResponse{Status: "accepted", RequestId: t.ID, State: string(t.State)}
	if t.Repeated {
		resp.Status = "duplicate"
	}
	resp.MessageId, err = s.conversations.EventID(ctx, t.AgentID, t.First)
	return resp, err
}

// threads is the name space of the threads of gRPC clients.
var threads = uuid.MustParse("5b1a1e0c-6a0f-4c0e-9d43-0e8f6d2d7c11")

// ApproveTool implements coven.ClientService. That nobody waits for the answer is not an error of
// the call.
func (s service) ApproveTool(ctx context.Context, r *pb.ApproveToolRequest) (*pb.ApproveToolResponse, error) {
	if err := errors.Join(required("agent_id", r.GetAgentId()), required("tool_id", r.GetToolId())); err != nil {
		return nil, err
	}
	err := s.conversations.Approve(ctx, conversation.Verdict{
		AgentID: r.GetAgentId(), ToolID: r.GetToolId(), Approved: r.GetApproved(), All: r.GetApproveAll(),
	})
	switch fault.CodeOf(err) {
	case fault.NotFound, fault.Unavailable:
		return &pb.ApproveToolResponse{Error: new(fault.Message(err))}, nil
	}
	return &pb.ApproveToolResponse{Success: err == nil}, err
}

// CancelTurn implements coven.ClientService.
func (s service) CancelTurn(ctx context.Context, r *pb.CancelTurnRequest) (*pb.CancelTurnResponse, error) {
	if err := required("conversation_key", r.GetConversationKey()); err != nil {
		return nil, err
	}
	agentID, id := s.agentID(r.GetConversationKey()), r.GetRequestId()
	switch message := r.GetMessageId(); {
	case (id == "") == (message == ""):
		return nil, fault.New(fault.Invalid, "either request_id or message_id is required")
	case id == "":
		var err error
		if id, err = s.conversations.TurnOf(ctx, agentID, message); err != nil {
			return nil, err
		}
	}
	t, err := s.conversations.Turn(ctx, id)
	if err == nil && t.AgentID != agentID {
		err = fault.New(fault.NotFound, "no turn %q", id) // as if it were not the caller's: it may be
	}
	if err != nil {
		return nil, err
	}
	if err := s.conversations.Cancel(ctx, id, r.GetReason()); err != nil {
		return nil, err
	}
	if t, err = s.conversations.Turn(ctx, id); err != nil {
		return nil, err
	}
	return &pb.CancelTurnResponse{RequestId: t.ID, State: string(t.State)}, nil
}

// AnswerQuestion implements coven.ClientService. That nobody waits for the answer is not an error of
// the call, nor is an answer that does not fit.
func (s service) AnswerQuestion(ctx context.Context, r *pb.AnswerQuestionRequest) (*pb.AnswerQuestionResponse, error) {
	if err := errors.Join(required("agent_id", r.GetAgentId()), required("question_id", r.GetQuestionId())); err != nil {
		return nil, err
	}
	err := s.conversations.AnswerQuestion(ctx, conversation.Answer{
		AgentID: r.GetAgentId(), ID: r.GetQuestionId(), Selected: r.GetSelected(), Text: r.GetCustomText(),
	})
	switch fault.CodeOf(err) {
	case fault.NotFound:
		return &pb.AnswerQuestionResponse{Error: new("no pending question with ID " + r.GetQuestionId())}, nil
	case fault.Conflict, fault.Invalid, fault.TooLarge:
		return &pb.AnswerQuestionResponse{Error: new(fault.Message(err))}, nil
	}
	return &pb.AnswerQuestionResponse{Success: err == nil}, err
}

// RegisterAgent implements coven.ClientService.
func (s service) RegisterAgent(ctx context.Context, r *pb.RegisterAgentRequest) (*pb.RegisterAgentResponse, error) {
	p, err := s.identity.RegisterKey(ctx, auth.Agent, r.GetDisplayName(), r.GetFingerprint())
	if err != nil {
		return nil, err
	}
	return &pb.RegisterAgentResponse{PrincipalId: p.ID, Status: string(p.Status)}, nil
}

// RegisterClient implements coven.ClientService.
func (s service) RegisterClient(ctx context.Context, r *pb.RegisterClientRequest) (*pb.RegisterClientResponse, error) {
	p, err := s.identity.RegisterKey(ctx, auth.Client, r.GetDisplayName(), r.GetFingerprint())
	if err != nil {
		return nil, err
	}
	return &pb.RegisterClientResponse{PrincipalId: p.ID, Status: string(p.Status)}, nil
}
