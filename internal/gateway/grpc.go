package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// interceptors authenticate every call, keep a panic to the call it happened in, turn faults into
// statuses and log one line per call.
func interceptors(logger *slog.Logger) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
			err = call(ctx, logger, info.FullMethod, func(ctx context.Context) (err error) {
				resp, err = handler(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return call(ss.Context(), logger, info.FullMethod, func(ctx context.Context) error {
				return handler(srv, stream{ss, ctx})
			})
		}),
	}
}

// stream is a server stream with the caller in its context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context with the caller.
func (s stream) Context() context.Context { return s.ctx }

// call runs one RPC.
func call(ctx context.Context, logger *slog.Logger, method string, handle func(context.Context) error) (err error) {
	start := time.Now()
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	defer func() {
		if p := recover(); p != nil {
			err = fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), fault.Internal, "internal server error")
		}
		cause := err
		err = fault.GRPC(err)
		level := slog.LevelInfo
		if status.Code(err) == codes.Internal {
			level = slog.LevelError
		}
		logger.Log(ctx, level, "grpc", "method", method, "peer", addr, "code", status.Code(err).String(), "duration", time.Since(start), "error", cause)
	}()
	principal, err := auth.Open(addr)
	if err != nil {
		return err
	}
	return handle(auth.With(ctx, principal))
}
