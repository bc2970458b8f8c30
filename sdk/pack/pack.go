// Package pack is for programs that offer tools to the agents of a coven gateway: it connects,
// registers the tools, runs them with typed input, and comes back when the connection is lost.
//
// A pack is a set of [Options] with tools, most of them made with [Func]; [Run] does the rest. See
// the example for a whole program.
package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// Bounds of a connection.
const (
	// maxWaiting is how many calls wait until it is their turn; more are refused. The gateway has
	// no more open.
	maxWaiting = 256
	// credentialsLife is how long one set of credentials is used. Signatures are good for five
	// minutes, and one is good for all calls of a connection.
	credentialsLife = 4 * time.Minute
	// answerTimeout is how long a result may take to reach the gateway.
	answerTimeout = 30 * time.Second
	// rejectedHeader names the tools that the gateway has rejected.
	rejectedHeader = "x-coven-rejected-tools"
)

// Options describe a pack. Only Server, ID and Tools are required.
type Options struct {
	// Server is where the gateway's gRPC listener is: host:port or http://host:port. Without a port
	// it is 50051. The connection is not encrypted; https is refused.
	Server  string
	ID      string // unique among the packs of the gateway
	Version string // for people
	Tools   []Tool

	// Credentials returns the headers that identify the pack; see [KeyFile] and [Token]. Gateways
	// that are open to everybody need none.
	Credentials func(context.Context) (metadata.MD, error)

	Concurrency int           // calls that run at once; 8 where 0
	BackoffMin  time.Duration // before the first reconnect; 200 ms where 0
	BackoffMax  time.Duration // between reconnects; 10 s where 0
	RetryTaken  int           // attempts more when the id or all names are taken, perhaps by our own dying connection; 3 where 0, none where negative

	Logger      *slog.Logger // slog.Default where nil
	DialOptions []grpc.DialOption
	// OnRegister is called after each registration, with the names of tools that the gateway has
	// rejected: because others have them, or because their schemas are none.
	OnRegister func(rejected []string)
}

// Token returns credentials that show a bearer token.
func Token(token string) func(context.Context) (metadata.MD, error) { return agent.Token(token) }

// KeyFile returns credentials that sign with the private key in an OpenSSH key file without a
// passphrase.
func KeyFile(path string) (func(context.Context) (metadata.MD, error), error) {
	return agent.KeyFile(path)
}

// Why a call's context ends, besides its timeout.
var (
	ErrDisconnected = errors.New("the connection to the gateway is lost")
	ErrStopped      = errors.New("the pack stops")
)

// A RefusedError says that the gateway does not take the pack, and that trying again would not help.
type RefusedError struct {
	PackID string
	Code   codes.Code
	Reason string // in the gateway's words
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("pack %s: the gateway refuses it: %s", e.PackID, e.Reason)
}

// Run connects a pack and serves its tools until ctx ends. It comes back by itself when the
// connection is lost or the gateway restarts. It returns nil when ctx has ended, and a *RefusedError
// when there is no point in trying again. When it returns, no call runs any more.
func Run(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	wait, taken := o.BackoffMin, 0
	for {
		began := time.Now()
		registered, err := o.serve(ctx)
		refused := o.refusal(err)
		switch {
		case ctx.Err() != nil:
			return nil
		case registered:
			taken = 0
		case refused != nil && refused.Code == codes.AlreadyExists && taken < o.RetryTaken:
			taken++
		case refused != nil:
			return refused
		}
		if time.Since(began) > o.BackoffMax {
			wait = o.BackoffMin
		}
		pause := wait/2 + rand.N(wait/2+1)
		o.Logger.Info("not connected to the gateway", "pack", o.ID, "error", err, "retry_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		wait = min(2*wait, o.BackoffMax)
	}
}

// complete checks the options and fills in what is left out.
func (o *Options) complete() error {
	if o.Server == "" || o.ID == "" || len(o.Tools) == 0 {
		return errors.New("the options Server, ID and Tools are required")
	}
	if strings.HasPrefix(o.Server, "https://") {
		return fmt.Errorf("server %s: the gateway does not speak TLS", o.Server)
	}
	o.Server = strings.TrimSuffix(strings.TrimPrefix(o.Server, "http://"), "/")
	if _, _, err := net.SplitHostPort(o.Server); err != nil {
		o.Server = net.JoinHostPort(strings.Trim(o.Server, "[]"), "50051")
	}
	if o.Concurrency < 0 || o.BackoffMin < 0 || o.BackoffMax < 0 {
		return errors.New("the options Concurrency, BackoffMin and BackoffMax must not be negative")
	}
	names := make(map[string]bool)
	for _, t := range o.Tools {
		switch {
		case t.err != nil:
			return fmt.Errorf("tool %s: %w", t.Name, t.err)
		case t.Name == "" || t.Call == nil:
			return errors.New("a tool needs a Name and a Call")
		case names[t.Name]:
			return fmt.Errorf("tool %s: it is there twice", t.Name)
		case t.Timeout < 0:
			return fmt.Errorf("tool %s: the Timeout must not be negative", t.Name)
		}
		names[t.Name] = true
	}
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.BackoffMin == 0 {
		o.BackoffMin = 200 * time.Millisecond
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = 10 * time.Second
	}
	o.BackoffMax = max(o.BackoffMin, o.BackoffMax)
	if o.RetryTaken == 0 {
		o.RetryTaken = 3
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// refusal returns what is definite about a failed registration, or nil.
func (o *Options) refusal(err error) *RefusedError {
	s := status.Convert(err)
	switch s.Code() {
	case codes.AlreadyExists, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return &RefusedError{PackID: o.ID, Code: s.Code(), Reason: s.Message()}
	}
	return nil
}

// A session is one registration. Its receiving goroutine waits for nobody; the workers run the
// calls and send the results.
type session struct {
	opts   *Options
	client pb.PackServiceClient
	tools  map[string]Tool
	calls  chan *pb.ExecuteToolRequest // closed when nothing more comes
	work   context.Context             // of the calls; ends with the stream

	mu    sync.Mutex // held while credentials are made, which waits for nobody else
	md    metadata.MD
	since time.Time
}

// serve registers the pack and serves one stream to its end. It reports whether the gateway has
// taken the pack.
func (o *Options) serve(ctx context.Context) (registered bool, err error) {
	conn, err := grpc.NewClient("passthrough:///"+o.Server, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
	}, o.DialOptions...)...)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	work, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() { end(ErrStopped) })()
	s := &session{opts: o, client: pb.NewPackServiceClient(conn), tools: make(map[string]Tool), calls: make(chan *pb.ExecuteToolRequest, maxWaiting), work: work}
	m := &pb.PackManifest{PackId: o.ID, Version: o.Version}
	for _, t := range o.Tools {
		s.tools[t.Name] = t
		m.Tools = append(m.Tools, t.definition())
	}
	callCtx, err := s.authenticated(work)
	if err != nil {
		return false, err
	}
	stream, err := s.client.Register(callCtx, m)
	if err != nil {
		return false, err
	}
	header, err := stream.Header()
	if err != nil {
		return false, err
	}
	if header == nil { // it was refused, and Recv says why
		_, err := stream.Recv()
		return false, err
	}
	rejected := strings.FieldsFunc(strings.Join(header.Get(rejectedHeader), ","), func(r rune) bool { return r == ',' })
	for _, name := range rejected {
		o.Logger.Warn("the gateway has rejected a tool", "pack", o.ID, "tool", name)
	}
	if o.OnRegister != nil {
		o.OnRegister(rejected)
	}
	var workers sync.WaitGroup
	for range o.Concurrency {
		workers.Go(func() {
			for r := range s.calls {
				s.run(r)
			}
		})
	}
	err = s.receive(stream)
	end(ErrDisconnected)
	close(s.calls)
	workers.Wait()
	return true, err
}

// receive hands the calls to the workers until the stream ends.
func (s *session) receive(stream grpc.ServerStreamingClient[pb.ExecuteToolRequest]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the gateway has ended the stream")
		}
		if err != nil {
			return err
		}
		select {
		case s.calls <- r:
		default: // the gateway does not do that
			return fmt.Errorf("the gateway has more than %d calls open", maxWaiting)
		}
	}
}

// run runs a call and sends its result.
func (s *session) run(r *pb.ExecuteToolRequest) {
	if s.work.Err() != nil {
		return // nobody waits for it
	}
	answer := &pb.ExecuteToolResponse{RequestId: r.GetRequestId()}
	if output, err := s.call(r); err != nil {
		answer.Result = &pb.ExecuteToolResponse_Error{Error: reason(err)}
	} else {
		answer.Result = &pb.ExecuteToolResponse_OutputJson{OutputJson: strings.ToValidUTF8(string(output), "\uFFFD")}
	}
	ctx, cancel := context.WithTimeout(s.work, answerTimeout)
	defer cancel()
	ctx, err := s.authenticated(ctx)
	if err == nil {
		_, err = s.client.ToolResult(ctx, answer)
	}
	if err != nil && s.work.Err() == nil {
		s.opts.Logger.Error("the result of a call did not reach the gateway", "pack", s.opts.ID, "tool", r.GetToolName(), "error", err)
	}
}

// call runs a tool within its time. A panic is the failure of the call.
func (s *session) call(r *pb.ExecuteToolRequest) (output []byte, err error) {
	t, ok := s.tools[r.GetToolName()]
	if !ok {
		return nil, fmt.Errorf("unknown tool: %s", r.GetToolName())
	}
	defer func() {
		if p := recover(); p != nil {
			s.opts.Logger.Error("a tool panicked", "pack", s.opts.ID, "tool", t.Name, "panic", p)
			output, err = nil, errors.New("the tool failed")
		}
	}()
	ctx, cancel := context.WithTimeout(s.work, t.timeout())
	defer cancel()
	return t.Call(ctx, []byte(r.GetInputJson()))
}

// reason is the words of an error; an empty error would count as success.
func reason(err error) string {
	words := strings.ToValidUTF8(err.Error(), "\uFFFD")
	if words == "" {
		return "the tool failed"
	}
	return words
}

// authenticated returns a context for a call with credentials that are good.
func (s *session) authenticated(ctx context.Context) (context.Context, error) {
	if s.opts.Credentials == nil {
		return ctx, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.md == nil || time.Since(s.since) > credentialsLife {
		md, err := s.opts.Credentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("credentials: %s", err) //nolint:errorlint // a status in it would not be the gateway's
		}
		s.md, s.since = md, time.Now()
	}
	return metadata.NewOutgoingContext(ctx, s.md), nil
}
