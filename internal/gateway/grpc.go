package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Bounds of a call, besides those of its message.
const (
	maxHeaders   = 64 << 10    // bytes
	unaryTimeout = time.Minute // of a call that is not a stream
)

// interceptors authenticate and authorize every call, keep a panic to the call it happened in, turn
// faults into statuses and log one line per call.
func interceptors(a *auth.Service, logger *slog.Logger) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StatsHandler(&connections{}),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
			ctx, cancel := context.WithTimeout(ctx, unaryTimeout)
			defer cancel()
			err = call(ctx, a, logger, info.FullMethod, func(ctx context.Context) (err error) {
				resp, err = handler(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return call(ss.Context(), a, logger, info.FullMethod, func(ctx context.Context) error {
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

// call runs one RPC. It is authenticated before headers are sent: existing agents react to a
// failure only when the call itself fails (grpc.md 2.6).
func call(ctx context.Context, a *auth.Service, logger *slog.Logger, method string, handle func(context.Context) error) (err error) {
	start := time.Now()
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	var principal auth.Principal
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
		logger.Log(ctx, level, "grpc", "method", method, "principal", principal.ID, "peer", addr, "code", status.Code(err).String(),
			"duration", time.Since(start), "error", cause)
	}()
	rule := auth.RPCs[method]
	if rule.Level == auth.Anybody {
		return handle(ctx)
	}
	if principal, err = a.Authenticate(ctx, credentials(ctx, addr)); err != nil {
		return err
	}
	if err := rule.Allow(principal); err != nil {
		return refused(method, err)
	}
	ctx, leave, err := a.Enter(ctx, principal)
	if err != nil {
		return err
	}
	defer leave()
	return handle(ctx)
}

// refused gives the refusal of two methods the words that they are known by (grpc.md 2.7).
func refused(method string, err error) error {
	if what, ok := strings.CutPrefix(method, "/coven.ClientService/Register"); ok && fault.Message(err) == "member role required" {
		return fault.Wrap(err, fault.Forbidden, "member role required to register %ss", strings.ToLower(what))
	}
	return err
}

// credentials are what a call shows. The first value of a header counts.
func credentials(ctx context.Context, addr string) auth.Credentials {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	connection, _ := ctx.Value(connectionKey{}).(uint64)
	return auth.Credentials{
		Authorization: first("authorization"),
		Proof: auth.Proof{
			PublicKey: first("x-ssh-pubkey"), Timestamp: first("x-ssh-timestamp"), Nonce: first("x-ssh-nonce"), Signature: first("x-ssh-signature"),
		},
		Address: auth.Address(addr), Connection: connection,
	}
}

// served refuses a server that has a method without an entry in the authorization table.
func served(s *grpc.Server) error {
	for name, service := range s.GetServiceInfo() {
		for _, m := range service.Methods {
			if method := "/" + name + "/" + m.Name; auth.RPCs[method].Level == 0 {
				return fmt.Errorf("%s has no entry in the authorization table", method)
			}
		}
	}
	return nil
}

// connections numbers the connections of the server, so that a signature can be bound to the one
// that it was first used on: addresses come again.
type connections struct{ last atomic.Uint64 }

type connectionKey struct{}

// TagConn implements stats.Handler.
func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connectionKey{}, c.last.Add(1))
}

// HandleConn implements stats.Handler.
func (*connections) HandleConn(context.Context, stats.ConnStats) {}

// TagRPC implements stats.Handler.
func (*connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (*connections) HandleRPC(context.Context, stats.RPCStats) {}
