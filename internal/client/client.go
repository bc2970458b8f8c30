// Package client serves the gRPC service coven.ClientService: what people's programs use.
package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	pb "coven-gateway/proto/coven"
)

// Register offers the service on a server. Its interceptors must put the caller into the context,
// see [auth.From], and turn faults into statuses.
func Register(s grpc.ServiceRegistrar, identity *auth.Service) {
	pb.RegisterClientServiceServer(s, service{identity: identity})
}

type service struct {
	pb.UnimplementedClientServiceServer
	identity *auth.Service
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
