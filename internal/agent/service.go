package agent

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	pb "coven-gateway/proto/coven"
)

// MaxReceive bounds a message to the server, in bytes: agents send files of up to 10 MiB.
const MaxReceive = 16 << 20

// Keep-alive of the server's connections.
const (
	// pingTimeout is how long an answer to a ping may take.
	pingTimeout = 10 * time.Second
	// minPingInterval is how often clients may ping: existing ones do every 10 seconds, idle or not.
	minPingInterval = 5 * time.Second
)

// ServerOptions are the options that a server for agents needs. Connections are pinged after an
// idle time of keepAlive.
//
// The buffers stay as gRPC makes them: an idle TCP connection, or one that has ReadOnReady as gRPC knows
// it, holds neither a read nor a write buffer, they are pooled, so smaller ones save nothing. More than
// half of what an idle agent costs are the stacks of five goroutines, three of them gRPC's.
func (r *Registry) ServerOptions(keepAlive time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxReceive),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepAlive, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
	}
}

// Register offers coven.CovenControl on a server. Its interceptors must put the caller into the
// context, see [auth.From], and turn faults into statuses, see [fault.GRPC].
func (r *Registry) Register(s grpc.ServiceRegistrar) {
	pb.RegisterCovenControlServer(s, service{registry: r})
}

type service struct {
	pb.UnimplementedCovenControlServer
	registry *Registry
}

// AgentStream implements coven.CovenControl.
func (s service) AgentStream(stream grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]) error {
	return s.registry.serve(stream)
}

// serve runs a stream until it ends. The handler's own goroutine does nothing but wait, see [Conn].
func (r *Registry) serve(stream grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]) error {
	c := newConn(r, stream)
	if err := r.begin(c); err != nil {
		c.end(err)
		return err
	}
	c.receiver.Go(c.receive)
	<-c.ctx.Done()
	why, ours := c.ended()
	if !ours {
		c.receiver.Wait() // gRPC has ended the stream, so this takes no time
		why = c.why
	}
	return why.status
}
