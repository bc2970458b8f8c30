// Package agent is for programs that answer messages: it connects to a coven gateway, registers,
// hands each message to a handler with a streaming writer, and comes back when the connection is
// lost.
//
// See Example for a whole agent.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
)

// MaxFile is the largest file an agent can send, in bytes.
const MaxFile = 10 << 20

// Options describe an agent. Only Server, ID and Handler are required.
type Options struct {
	Server  string // host:port of the gateway's gRPC listener; http:// in front is fine
	ID      string // who the agent is to the world
	Handler Handler

	Name         string   // for people; ID where empty
	Capabilities []string // what the agent asks for; base and chat where nil
	Features     []string // of the protocol, besides those the SDK speaks itself
	Backend      string
	WorkingDir   string // the current one where empty
	Workspaces   []string
	Tools        []Tool // offered to the gateway

	Concurrency    int           // threads that are answered side by side; 8 where 0
	Heartbeat      time.Duration // between heartbeats; 30 s where 0, none where negative
	BackoffMin     time.Duration // before the first reconnect; 200 ms where 0
	BackoffMax     time.Duration // between reconnects; 10 s where 0
	ExitOnShutdown bool          // return when the gateway shuts down instead of waiting for its return

	Logger      *slog.Logger // slog.Default where nil
	DialOptions []grpc.DialOption
	OnWelcome   func(Welcome) // called after each registration, before any message
}

// A Welcome is what the gateway tells an agent that has registered.
type Welcome struct {
	ServerID    string
	AgentID     string
	InstanceID  string // of this connection, for bindings
	PrincipalID string
	Secrets     map[string]string
}

// A Message is what somebody said to the agent.
type Message struct {
	RequestID   string
	ThreadID    string // stable for a conversation: the key of the agent's own session
	Sender      string
	Content     string
	Attachments []Attachment

	ctx context.Context // ends when the turn is cancelled; owned by the session
}

// An Attachment is a file that came with a message.
type Attachment struct {
	Name string
	Type string // media type
	Data []byte
}

// A Handler answers messages. Messages of one thread come one after the other, different threads
// side by side. ctx ends when the turn is cancelled (its cause is then a Cancelled), when the
// connection is lost or when the agent stops.
//
// When it returns nil the turn is done; an error is reported to whoever asked. After a cancellation
// the turn is reported as cancelled, whatever it returns.
type Handler interface {
	Handle(ctx context.Context, m *Message, w *Writer) error
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, m *Message, w *Writer) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, m *Message, w *Writer) error { return f(ctx, m, w) }

// Cancelled is the cause of a handler's context when somebody has stopped the turn.
type Cancelled struct{ Reason string }

// Error returns the reason.
func (c Cancelled) Error() string { return "the turn was cancelled: " + c.Reason }

// A Tool is something the agent can do for others.
type Tool struct {
	Name         string
	Description  string
	InputSchema  json.RawMessage // JSON Schema; any object where empty
	Capabilities []string        // that a caller needs
	Timeout      time.Duration   // of one call; 30 s where 0
	Call         func(ctx context.Context, input json.RawMessage) (output json.RawMessage, err error)
}

// Errors of Run that no retry would cure.
var (
	ErrTaken   = errors.New("another agent with this id is connected")
	ErrRefused = errors.New("the gateway refuses this agent")
)

// errShutdown says that the gateway is going away.
var errShutdown = errors.New("the gateway shut down")

// Run connects an agent and answers messages until ctx ends. It comes back by itself when the
// connection is lost. It returns nil when ctx has ended, and an error that wraps ErrTaken or
// ErrRefused when there is no point in trying again.
func Run(ctx context.Context, o Options) error {
	if o.Server == "" || o.ID == "" || o.Handler == nil {
		return errors.New("agent: Server, ID and Handler are required")
	}
	o = withDefaults(o)
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(o.Server, "http://"), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second}),
	}, o.DialOptions...)...)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer conn.Close()
	client := pb.NewCovenControlClient(conn)
	wait := o.BackoffMin
	taken := 0
	for {
		start := time.Now()
		err := runSession(ctx, client, o)
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errShutdown) && o.ExitOnShutdown:
			return nil
		case code == codes.AlreadyExists && taken < 3: // our own dead predecessor, perhaps
			taken++
		case code == codes.AlreadyExists:
			return fmt.Errorf("agent %s: %w: %s", o.ID, ErrTaken, status.Convert(err).Message())
		case code == codes.InvalidArgument, code == codes.Unauthenticated, code == codes.PermissionDenied, code == codes.Unimplemented:
			return fmt.Errorf("agent %s: %w: %s", o.ID, ErrRefused, status.Convert(err).Message())
		}
		if time.Since(start) > o.BackoffMax {
			wait, taken = o.BackoffMin, 0
		}
		pause := wait/2 + rand.N(wait/2+1)
		o.Logger.Info("connection to the gateway lost", "agent_id", o.ID, "error", err, "retry_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		conn.ResetConnectBackoff()
		wait = min(2*wait, o.BackoffMax)
	}
}

func withDefaults(o Options) Options {
	if o.Name == "" {
		o.Name = o.ID
	}
	if o.Capabilities == nil {
		o.Capabilities = []string{"base", "chat"}
	}
	if o.WorkingDir == "" {
		o.WorkingDir, _ = os.Getwd() // only told to people
	}
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 30 * time.Second
	}
	if o.BackoffMin == 0 {
		o.BackoffMin = 200 * time.Millisecond
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}
