package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// TestCall: who is let in, what a panic and an error become, and what the log keeps.
func TestCall(t *testing.T) {
	for _, c := range []struct {
		peer   string
		handle func(context.Context) error
		code   codes.Code
		text   string // of the status
		logged string
	}{
		{"127.0.0.1:1", func(ctx context.Context) error { _, err := auth.From(ctx); return err }, codes.OK, "", "code=OK"},
		{"192.0.2.7:1", func(context.Context) error { t.Error("a remote peer was let in"); return nil }, codes.PermissionDenied, "loopback addresses only; your address is 192.0.2.7:1", "code=PermissionDenied"},
		{"127.0.0.1:1", func(context.Context) error { panic("oh no") }, codes.Internal, "internal server error", "panic: oh no"},
		{"127.0.0.1:1", func(context.Context) error { return errors.New("disk on fire") }, codes.Internal, "internal server error", "disk on fire"},
		{"127.0.0.1:1", func(context.Context) error {
			return fault.Wrap(errors.New("secret reason"), fault.NotFound, "no such thing")
		}, codes.NotFound, "no such thing", "secret reason"},
		{"127.0.0.1:1", func(context.Context) error { return status.Error(codes.DataLoss, "from gRPC") }, codes.DataLoss, "from gRPC", "code=DataLoss"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.peer)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: addr})
		err = call(ctx, slog.New(slog.NewTextHandler(&log, nil)), "/coven.X/Y", c.handle)
		if s := status.Convert(err); s.Code() != c.code || !strings.Contains(s.Message(), c.text) || (c.text != "" && strings.Contains(s.Message(), "secret")) {
			t.Errorf("got %v, want %v %q", err, c.code, c.text)
		}
		if n := strings.Count(log.String(), "msg=grpc"); n != 1 || !strings.Contains(log.String(), c.logged) {
			t.Errorf("logged %q, want %q", log.String(), c.logged)
		}
	}
}
