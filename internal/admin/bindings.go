package admin

import (
	"context"
	"time"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// ListBindings implements coven.AdminService.
func (s service) ListBindings(ctx context.Context, r *pb.ListBindingsRequest) (*pb.ListBindingsResponse, error) {
	bs, err := s.conversations.Bindings(ctx, r.GetFrontend(), r.GetAgentId())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListBindingsResponse{}
	for _, b := range bs {
		resp.Bindings = append(resp.Bindings, binding(b))
	}
	return resp, nil
}

// CreateBinding implements coven.AdminService.
func (s service) CreateBinding(ctx context.Context, r *pb.CreateBindingRequest) (*pb.Binding, error) {
	b, err := s.conversations.Bind(ctx, conversation.Binding{Frontend: r.GetFrontend(), ChannelID: r.GetChannelId(), AgentID: r.GetAgentId(), Delivery: conversation.Delivery(r.GetDelivery())})
	if err != nil {
		return nil, err
	}
	return binding(b), nil
}

// UpdateBinding implements coven.AdminService.
func (s service) UpdateBinding(ctx context.Context, r *pb.UpdateBindingRequest) (*pb.Binding, error) {
	b, err := s.conversations.Rebind(ctx, r.GetId(), r.GetAgentId(), conversation.Delivery(r.GetDelivery()))
	if err != nil {
		return nil, err
	}
	return binding(b), nil
}

// DeleteBinding implements coven.AdminService.
func (s service) DeleteBinding(ctx context.Context, r *pb.DeleteBindingRequest) (*pb.DeleteBindingResponse, error) {
	if err := s.conversations.Unbind(ctx, r.GetId()); err != nil {
		return nil, err
	}
	return &pb.DeleteBindingResponse{}, nil
}

func binding(b conversation.Binding) *pb.Binding {
	return &pb.Binding{
		Id: b.ID, Frontend: b.Frontend, ChannelId: b.ChannelID, AgentId: b.AgentID, CreatedAt: b.CreatedAt.Format(time.RFC3339),
		CreatedBy: &b.CreatedBy, Delivery: string(b.Delivery),
	}
}
