package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
)

// bindingStub serves bindings as the protocol describes them.
type bindingStub struct {
	pb.UnimplementedAdminServiceServer
	token, agent string // what it accepts

	mu  sync.Mutex
	all []*pb.Binding // the newest first
	n   int
}

// bindingServer starts a stub that knows one token and one agent, and returns its address.
func bindingServer(t *testing.T, token, agent string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stub := &bindingStub{token: token, agent: agent}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if !slices.Equal(md.Get("authorization"), []string{"Bearer " + token}) {
			return nil, status.Error(codes.PermissionDenied, "admin role required")
		}
		stub.mu.Lock()
		defer stub.mu.Unlock()
		return handler(ctx, req)
	}))
	pb.RegisterAdminServiceServer(s, stub)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func (s *bindingStub) ListBindings(_ context.Context, r *pb.ListBindingsRequest) (*pb.ListBindingsResponse, error) {
	found := &pb.ListBindingsResponse{}
	for _, b := range s.all {
		if (r.Frontend == nil || *r.Frontend == b.Frontend) && (r.AgentId == nil || *r.AgentId == b.AgentId) {
			found.Bindings = append(found.Bindings, b)
		}
	}
	return found, nil
}

func (s *bindingStub) CreateBinding(_ context.Context, r *pb.CreateBindingRequest) (*pb.Binding, error) {
	if r.AgentId != s.agent {
		return nil, status.Error(codes.NotFound, "agent not found")
	}
	for _, b := range s.all {
		if b.Frontend == r.Frontend && b.ChannelId == r.ChannelId {
			return nil, status.Error(codes.AlreadyExists, "channel already bound")
		}
	}
	s.n++
	b := &pb.Binding{Id: fmt.Sprintf("binding-%d", s.n), Frontend: r.Frontend, ChannelId: r.ChannelId, AgentId: r.AgentId, CreatedAt: "2026-01-02T03:04:05Z"}
	s.all = slices.Insert(s.all, 0, b)
	return b, nil
}

func (s *bindingStub) find(id string) (int, error) {
	i := slices.IndexFunc(s.all, func(b *pb.Binding) bool { return b.Id == id })
	if i < 0 {
		return 0, status.Error(codes.NotFound, "binding not found")
	}
	return i, nil
}

func (s *bindingStub) UpdateBinding(_ context.Context, r *pb.UpdateBindingRequest) (*pb.Binding, error) {
	i, err := s.find(r.Id)
	if err != nil {
		return nil, err
	}
	if r.AgentId != s.agent {
		return nil, status.Error(codes.NotFound, "agent not found")
	}
	s.all[i].AgentId = r.AgentId
	return s.all[i], nil
}

func (s *bindingStub) DeleteBinding(_ context.Context, r *pb.DeleteBindingRequest) (*pb.DeleteBindingResponse, error) {
	i, err := s.find(r.Id)
	if err != nil {
		return nil, err
	}
	s.all = slices.Delete(s.all, i, i+1)
	return &pb.DeleteBindingResponse{}, nil
}
