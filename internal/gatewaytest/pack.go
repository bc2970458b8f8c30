package gatewaytest

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"coven-gateway/internal/packs"
	pb "coven-gateway/proto/coven"
)

// Tools is what can be called.
func (g *Gateway) Tools() *packs.Registry { return g.gw.Tools() }

// A Pack is a scripted pack: like existing ones it uses one connection and, where it shows a
// signature, that one signature for all of its calls.
type Pack struct {
	t      testing.TB
	Header metadata.MD // of the response to Register
	ctx    context.Context
	client pb.PackServiceClient
	stream grpc.ServerStreamingClient[pb.ExecuteToolRequest]
	cancel context.CancelFunc
}

// Pack registers a pack with the credentials that are in ctx, and waits for the headers as existing
// packs do. It fails the test unless the pack is registered.
func (g *Gateway) Pack(ctx context.Context, m *pb.PackManifest) *Pack {
	g.t.Helper()
	p, err := g.TryPack(ctx, m)
	if err != nil {
		g.t.Fatalf("pack %s: %v", m.GetPackId(), err)
	}
	return p
}

// TryPack is Pack for one that may be refused.
func (g *Gateway) TryPack(ctx context.Context, m *pb.PackManifest) (*Pack, error) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	g.t.Cleanup(cancel)
	p := &Pack{t: g.t, ctx: ctx, client: pb.NewPackServiceClient(g.Dial()), cancel: cancel}
	var err error
	if p.stream, err = p.client.Register(ctx, m); err != nil {
		return nil, err
	}
	if p.Header, err = p.stream.Header(); p.Header == nil {
		_, err = p.stream.Recv()
	}
	return p, err
}

// Next waits for the next call of a tool.
func (p *Pack) Next() *pb.ExecuteToolRequest {
	p.t.Helper()
	late := time.AfterFunc(Patience, p.cancel)
	defer late.Stop()
	r, err := p.stream.Recv()
	if err != nil {
		p.t.Fatalf("no call came: %v", err)
	}
	return r
}

// End waits for the end of the stream and returns why it has ended; io.EOF is OK.
func (p *Pack) End() error {
	p.t.Helper()
	late := time.AfterFunc(Patience, p.cancel)
	defer late.Stop()
	for {
		if _, err := p.stream.Recv(); err != nil {
			return err
		}
	}
}

// Return answers a call.
func (p *Pack) Return(requestID, output string) error {
	return p.Answer(&pb.ExecuteToolResponse{RequestId: requestID, Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: output}})
}

// Fail answers a call with an error.
func (p *Pack) Fail(requestID, words string) error {
	return p.Answer(&pb.ExecuteToolResponse{RequestId: requestID, Result: &pb.ExecuteToolResponse_Error{Error: words}})
}

// Answer sends a result.
func (p *Pack) Answer(r *pb.ExecuteToolResponse) error {
	_, err := p.client.ToolResult(p.ctx, r)
	return err
}

// Ctx returns the context of the pack's calls.
func (p *Pack) Ctx() context.Context { return p.ctx }

// Serve answers calls one after the other, as existing packs do, until the stream ends.
func (p *Pack) Serve(handle func(*pb.ExecuteToolRequest) string) error {
	for {
		r, err := p.stream.Recv()
		if err != nil {
			return err
		}
		if err := p.Return(r.GetRequestId(), handle(r)); err != nil {
			return err
		}
	}
}

// Die cuts the stream.
func (p *Pack) Die() { p.cancel() }
