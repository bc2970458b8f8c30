package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// TestCall: who is let in, what a panic and an error become, and what the log keeps.
func TestCall(t *testing.T) {
	open := auth.New(auth.Options{})
	const known = "/coven.ClientService/GetMe"
	for _, c := range []struct {
		method string
		peer   string
		handle func(context.Context) error
		code   codes.Code
		text   string // of the status
		logged string
	}{
		{known, "127.0.0.1:1", func(ctx context.Context) error { _, err := auth.From(ctx); return err }, codes.OK, "", "code=OK"},
		{known, "192.0.2.7:1", func(context.Context) error { t.Error("a remote peer was let in"); return nil }, codes.PermissionDenied, "loopback addresses only; your address is 192.0.2.7", "code=PermissionDenied"},
		{"/coven.X/Y", "127.0.0.1:1", func(context.Context) error { t.Error("a method without a rule was served"); return nil }, codes.PermissionDenied, "", "code=PermissionDenied"},
		{known, "127.0.0.1:1", func(context.Context) error { panic("oh no") }, codes.Internal, "internal server error", "panic: oh no"},
		{known, "127.0.0.1:1", func(context.Context) error { return errors.New("disk on fire") }, codes.Internal, "internal server error", "disk on fire"},
		{known, "127.0.0.1:1", func(context.Context) error {
			return fault.Wrap(errors.New("secret reason"), fault.NotFound, "no such thing")
		}, codes.NotFound, "no such thing", "secret reason"},
		{known, "127.0.0.1:1", func(context.Context) error { return status.Error(codes.DataLoss, "from gRPC") }, codes.DataLoss, "from gRPC", "code=DataLoss"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.peer)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: addr})
		err = call(ctx, open, nil, slog.New(slog.NewTextHandler(&log, nil)), nil, c.method, c.handle)
		if s := status.Convert(err); s.Code() != c.code || !strings.Contains(s.Message(), c.text) || (c.text != "" && strings.Contains(s.Message(), "secret reason")) {
			t.Errorf("got %v, want %v %q", err, c.code, c.text)
		}
		if n := strings.Count(log.String(), "msg=grpc"); n != 1 || !strings.Contains(log.String(), c.logged) {
			t.Errorf("logged %q, want %q", log.String(), c.logged)
		}
	}
	if err := open.Close(); err != nil {
		t.Error(err)
	}
}

// TestServed: a server with a method that nobody has made a rule for does not start.
func TestServed(t *testing.T) {
	s := grpc.NewServer()
	pb.RegisterAdminServiceServer(s, pb.UnimplementedAdminServiceServer{})
	if err := served(s); err != nil {
		t.Error(err)
	}
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "coven.Forgotten", Methods: []grpc.MethodDesc{{MethodName: "Do"}}}, nil)
	if err := served(s); err == nil || !strings.Contains(err.Error(), "/coven.Forgotten/Do") {
		t.Errorf("got %v", err)
	}
}
