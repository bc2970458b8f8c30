// Package admin serves the gRPC service coven.AdminService. What else administrators need is part of
// the HTTP API; both call the same methods.
package admin

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// Register offers the service on a server. Its interceptors must put the caller into the context,
// see [auth.From], and turn faults into statuses.
func Register(s grpc.ServiceRegistrar, identity *auth.Service, conversations *conversation.Service) {
	pb.RegisterAdminServiceServer(s, service{identity: identity, conversations: conversations})
}

type service struct {
	pb.UnimplementedAdminServiceServer
	identity      *auth.Service
	conversations *conversation.Service
}

// maxLife bounds ttl_seconds before it is multiplied, in seconds: more than the longest life, so
// that the service says what is wrong with it.
const maxLife = int64(auth.MaxLife/time.Second) + 1

// CreateToken implements coven.AdminService.
func (s service) CreateToken(ctx context.Context, r *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	shown, t, err := s.identity.CreateToken(ctx, auth.TokenRequest{
		PrincipalID: r.GetPrincipalId(), Life: time.Duration(min(r.GetTtlSeconds(), maxLife)) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return &pb.CreateTokenResponse{Token: shown, ExpiresAt: t.ExpiresAt.UTC().Format(time.RFC3339)}, nil
}

// ListPrincipals implements coven.AdminService. The protocol has no pages, so it lists all.
func (s service) ListPrincipals(ctx context.Context, r *pb.ListPrincipalsRequest) (*pb.ListPrincipalsResponse, error) {
	f := auth.PrincipalFilter{Kind: auth.Kind(r.GetType()), Limit: auth.MaxPage}
	switch status := auth.Status(r.GetStatus()); status {
	case "online", "offline": // among the approved
		f.Status = auth.Approved
	default:
		f.Status = status
	}
	resp := &pb.ListPrincipalsResponse{}
	for {
		page, err := s.identity.Principals(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			m, err := s.principal(ctx, p)
			if err != nil {
				return nil, err
			}
			if want := r.GetStatus(); (want != "online" && want != "offline") || m.Status == want {
				resp.Principals = append(resp.Principals, m)
			}
		}
		if len(page) < f.Limit {
			return resp, nil
		}
		f.Before = page[len(page)-1].ID
	}
}

// CreatePrincipal implements coven.AdminService.
func (s service) CreatePrincipal(ctx context.Context, r *pb.CreatePrincipalRequest) (*pb.Principal, error) {
	n := auth.NewPrincipal{Kind: auth.Kind(r.GetType()), Name: r.GetDisplayName(), PublicKey: r.GetPubkey(), Fingerprint: r.GetPubkeyFp()}
	for _, word := range r.GetRoles() {
		role, err := auth.ParseRole(word)
		if err != nil {
			return nil, err
		}
		n.Roles = append(n.Roles, role)
	}
	p, err := s.identity.CreatePrincipal(ctx, n)
	if err != nil {
		return nil, err
	}
	return s.principal(ctx, p)
}

// DeletePrincipal implements coven.AdminService.
func (s service) DeletePrincipal(ctx context.Context, r *pb.DeletePrincipalRequest) (*pb.DeletePrincipalResponse, error) {
	if err := required("id", r.GetId()); err != nil {
		return nil, err
	}
	return &pb.DeletePrincipalResponse{}, notFound(s.identity.Delete(ctx, r.GetId()), "principal not found")
}

// principal is a principal as the protocol has it: an approved one that is here is online.
func (s service) principal(ctx context.Context, p auth.Principal) (*pb.Principal, error) {
	m := &pb.Principal{Id: p.ID, Type: string(p.Kind), DisplayName: p.Name, Status: string(p.Status), CreatedAt: p.CreatedAt.Format(time.RFC3339)}
	if p.Online && p.Status == auth.Approved {
		m.Status = "online"
	}
	for _, r := range p.Roles {
		m.Roles = append(m.Roles, string(r))
	}
	keys, err := s.identity.Keys(ctx, p.ID)
	if err == nil && len(keys) > 0 {
		m.PubkeyFp = &keys[0].Fingerprint
	}
	return m, err
}
