package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/api"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/tracing"
)

// Bounds of a call, besides those of its message.
const (
	maxHeaders   = 64 << 10    // bytes
	unaryTimeout = time.Minute // of a call that is not a stream
	// maxStreams is how many calls one connection may have open; clients wait with more. It bounds what
	// calls that are begun and reset at once can keep busy, too.
	maxStreams = 1000
	// handshakeTimeout is how long a connection may take to say that it speaks HTTP/2.
	handshakeTimeout = 10 * time.Second
	// unreadTimeout is how long a message may wait for a peer that answers pings and reads nothing. A
	// message is sent when it has been copied into the connection's buffers of 64 KiB.
	unreadTimeout = 30 * time.Second
)

// interceptors authenticate and authorize every call, keep a panic to the call it happened in, turn
// faults into statuses and log one line per call.
//
// A message that a peer does not read ends its stream. sends waits for those that were being sent then:
// gRPC lets go of them when their stream has ended. encrypted is nil for plaintext.
func interceptors(a *auth.Service, open *streams, sends *sync.WaitGroup, encrypted *tls.Config, trusted proxies, logger *slog.Logger, tracer *tracing.Tracer) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(newConnections(encrypted)),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
			ctx, cancel := context.WithTimeout(ctx, unaryTimeout)
			defer cancel()
			err = call(ctx, a, trusted, logger, tracer, info.FullMethod, func(ctx context.Context) (err error) {
				if bounded(info.FullMethod) {
					if err := checkLengths(req); err != nil {
						return err
					}
				}
				resp, err = handler(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return call(ss.Context(), a, trusted, logger, tracer, info.FullMethod, func(ctx context.Context) error {
				leave, err := open.Enter(ctx)
				if err != nil {
					return err
				}
				defer leave()
				return handler(srv, stream{ss, ctx, bounded(info.FullMethod), open, sends})
			})
		}),
	}
}

// stream is a server stream with the caller in its context.
type stream struct {
	grpc.ServerStream
	ctx   context.Context
	check bool // what is received
	open  *streams
	sends *sync.WaitGroup
}

// SendMsg sends a message. One that the peer does not read is an Unavailable fault after unreadTimeout; the
// handler has to return then, which ends the send.
func (s stream) SendMsg(m any) error {
	sent := make(chan error, 1)
	s.sends.Go(func() { sent <- s.ServerStream.SendMsg(m) })
	late := time.NewTimer(unreadTimeout)
	defer late.Stop()
	select {
	case err := <-sent:
		return err
	case <-late.C:
		s.open.refusals.WithLabelValues(keyUnread).Inc()
		return fault.New(fault.Unavailable, "the stream was not read for %s", unreadTimeout)
	}
}

// RecvMsg receives a message.
func (s stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || !s.check {
		return err
	}
	return checkLengths(m)
}

// Context returns the context with the caller.
func (s stream) Context() context.Context { return s.ctx }

// call runs one RPC. It is authenticated before headers are sent: existing agents react to a
// failure only when the call itself fails (grpc.md 2.6).
func call(ctx context.Context, a *auth.Service, trusted proxies, logger *slog.Logger, tracer *tracing.Tracer, method string, handle func(context.Context) error) (err error) {
	start := time.Now()
	var in admission
	ctx, note := tracing.WithNote(ctx)
	id, span := callID(ctx), trace.SpanFromContext(context.Background())
	if !untraced[method] {
		md, _ := metadata.FromIncomingContext(ctx)
		ctx, span = tracer.Start(tracer.Extract(ctx, headers(md)), strings.TrimPrefix(method, "/"), trace.SpanKindServer)
	}
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		cause := err
		err = fault.GRPC(err)
		level := slog.LevelInfo
		if status.Code(err) == codes.Internal {
			level = slog.LevelError
		}
		attrs := []slog.Attr{
			slog.String("method", method), slog.String("code", status.Code(err).String()), slog.Duration("duration", time.Since(start)),
			slog.String("request_id", id), slog.String("principal", in.principalID), slog.String("peer", in.peer),
		}
		if turn := note.Turn(); turn != "" {
			attrs = append(attrs, slog.String("turn_id", turn))
		}
		if id := tracing.TraceID(ctx); id != "" {
			attrs = append(attrs, slog.String("trace_id", id))
		}
		if cause != nil {
			attrs = append(attrs, slog.Any("error", cause))
		}
		if span.IsRecording() {
			service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
			span.SetAttributes(
				attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", name),
				attribute.Int("rpc.grpc.status_code", int(status.Code(err))),
				attribute.String("coven.request_id", id), tracing.PrincipalID.String(in.principalID), tracing.TurnID.String(note.Turn()),
			)
		}
		tracing.End(span, err, func(err error) string { return status.Code(err).String() })
		logger.LogAttrs(ctx, level, "grpc", attrs...)
	}()
	// Stacks grow and hardly shrink. Authentication has a goroutine, and so a stack, of its own, so
	// that those of streams that live long stay small: 4 KiB less for each agent.
	admitted := make(chan struct{})
	go func() {
		defer close(admitted)
		defer func() {
			if p := recover(); p != nil {
				in.err = panicked(p)
			}
		}()
		in.admit(ctx, a, trusted, method)
	}()
	<-admitted
	if in.err != nil {
		return in.err
	}
	defer in.leave()
	return handle(in.ctx)
}

// untraced are the calls that nobody wants to see the traces of: streams that live as long as the program at
// their other end, and those who watch the gateway.
var untraced = map[string]bool{
	"/coven.CovenControl/AgentStream": true,
	"/coven.PackService/Register":     true,
	"/grpc.health.v1.Health/Check":    true,
	"/grpc.health.v1.Health/Watch":    true,
}

// callID returns the identity of a call: the caller's own where it is harmless.
func callID(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, "x-request-id"); len(v) > 0 {
		return api.RequestID(v[0])
	}
	return api.RequestID("")
}

// headers are the metadata of a call, as what a trace is continued from.
type headers metadata.MD

// Get returns the first value of a header.
func (h headers) Get(key string) string {
	if v := metadata.MD(h).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set sets a header.
func (h headers) Set(key, value string) { metadata.MD(h).Set(key, value) }

// Keys returns the names of the headers.
func (h headers) Keys() []string { return slices.Collect(maps.Keys(h)) }

func panicked(p any) error {
	return fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), fault.Internal, "internal server error")
}

// An admission is whether a call may be made, and by whom.
type admission struct {
	principalID, peer string
	ctx               context.Context // with the caller; ends when the caller loses its rights
	leave             func()          // for the end of the call
	err               error           // why it may not be made
}

// admit authenticates and authorizes a call.
func (in *admission) admit(ctx context.Context, a *auth.Service, trusted proxies, method string) {
	connection := uint64(0)
	if p, ok := peer.FromContext(ctx); ok {
		md, _ := metadata.FromIncomingContext(ctx)
		in.peer = trusted.caller(p.Addr.String(), md)
		if n, ok := p.AuthInfo.(numbered); ok {
			connection = n.connection
		}
	}
	rule := auth.RPCs[method]
	if rule.Level == auth.Anybody {
		in.ctx, in.leave = ctx, func() {}
		return
	}
	p, err := a.Authenticate(ctx, shown(ctx, in.peer, connection))
	in.principalID = p.ID
	if err == nil {
		err = refused(method, rule.Allow(p))
	}
	if err == nil {
		in.ctx, in.leave, err = a.Enter(ctx, p)
	}
	in.err = err
}

// refused gives the refusal of two methods the words that they are known by (grpc.md 2.7).
func refused(method string, err error) error {
	if err == nil {
		return nil
	}
	if what, ok := strings.CutPrefix(method, "/coven.ClientService/Register"); ok && fault.Message(err) == "member role required" {
		return fault.Wrap(err, fault.Forbidden, "member role required to register %ss", strings.ToLower(what))
	}
	return err
}

// shown is what a call shows. The first value of a header counts.
func shown(ctx context.Context, addr string, connection uint64) auth.Credentials {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
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
	for _, method := range methods(s) {
		if auth.RPCs[method].Level == 0 {
			return fmt.Errorf("%s has no entry in the authorization table", method)
		}
	}
	return nil
}

// methods returns the full methods of a server.
func methods(s *grpc.Server) []string {
	var all []string
	for name, service := range s.GetServiceInfo() {
		for _, m := range service.Methods {
			all = append(all, "/"+name+"/"+m.Name)
		}
	}
	return all
}

// connections numbers the connections of the server, so that a signature can be bound to the one
// that it was first used on: addresses come again.
type connections struct {
	credentials.TransportCredentials
	last *atomic.Uint64
}

func newConnections(encrypted *tls.Config) connections {
	if encrypted != nil {
		return connections{credentials.NewTLS(encrypted), new(atomic.Uint64)}
	}
	return connections{insecure.NewCredentials(), new(atomic.Uint64)}
}

// A numbered is what is known of a connection.
type numbered struct {
	credentials.AuthInfo
	connection uint64
}

// ServerHandshake implements credentials.TransportCredentials.
func (c connections) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, numbered{info, c.last.Add(1)}, nil
}

// Clone implements credentials.TransportCredentials.
func (c connections) Clone() credentials.TransportCredentials { return c }
