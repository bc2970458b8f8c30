// Package packgrpc serves coven.PackService: packs that run as programs of their own and are
// connected over gRPC, each as a [packs.Pack].
//
// What a pack may rely on: headers come as soon as it is registered; it gets the calls of its tools
// in the order in which they were made, except those that nobody waits for any more; and its
// results are always accepted, late ones too.
//
// Who owns what: the [Service] knows the streams and the open calls. A stream has two goroutines:
// its handler, which only waits for the end, and write, the only sender; the handler can be in no
// Send because gRPC ends one that is under way only when the handler returns. The service waits for
// the writers.
package packgrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/tracing"
	pb "coven-gateway/proto/coven"
)

// Limits of a pack.
const (
	// maxCalls is how many calls of a pack may be open at once. Existing packs run one at a time.
	maxCalls = 256
	// maxBytes bounds the inputs of those that wait to be sent, in bytes.
	maxBytes = 32 << 20
)

// RejectedHeader is the response header of Register that names the tools that were rejected,
// separated by commas. Names that no tool can have are not among them.
const RejectedHeader = "x-coven-rejected-tools"

// FeaturesHeader is the request header of Register that names what a pack understands beside what all packs
// do, separated by commas.
const FeaturesHeader = "x-coven-features"

// featureTrace is what a pack understands that continues the traces of its calls.
const featureTrace = "trace_context"

// maxRejectedHeader bounds that header, in bytes.
const maxRejectedHeader = 4 << 10

// Options are what a Service needs. All fields but Tracer are required.
type Options struct {
	Logger *slog.Logger
	Packs  *packs.Registry
	// TakeoverGrace is how long a pack waits for an earlier stream with its id to end before it
	// takes the id over.
	TakeoverGrace time.Duration
	Tracer        *tracing.Tracer // nil to trace nothing
}

// A Service serves packs.
type Service struct {
	pb.UnimplementedPackServiceServer
	opts Options

	streams sync.WaitGroup // handlers and writers; added to with mu held and only while not closing

	mu      sync.Mutex // never held across a Send or a call of another package
	closing bool
	here    map[string]*stream // by pack id; from before it is added to the registry until after it is removed
	calls   map[string]*call   // by the id of the call
}

// A stream is the connection of one pack.
type stream struct {
	service   *Service
	id        string
	principal string
	traces    bool // it understands featureTrace
	server    grpc.ServerStreamingServer[pb.ExecuteToolRequest]
	ctx       context.Context // ends with the stream
	end       context.CancelCauseFunc
	work      chan struct{} // capacity 1: something is queued
	gone      chan struct{} // closed when the id is free again

	// Guarded by service.mu.
	contested bool // a newcomer waits for the id
	alive     bool // it has answered a call since
	queue     []*call
	bytes     int // of the inputs in queue
	open      int // calls that have no result yet
}

// A call is one that a pack has not answered.
type call struct {
	stream  *stream
	request *pb.ExecuteToolRequest
	result  chan *pb.ExecuteToolResponse // capacity 1
	over    bool                         // nobody waits for it; guarded by service.mu
}

// Why the gateway ends a stream.
var (
	errClosing = fault.New(fault.Unavailable, "the gateway is shutting down")
	errTaken   = fault.New(fault.Conflict, "another stream of the same principal has taken the pack id over")
	errLeaving = errors.New("the gateway is shutting down") // to packs that are registered: OK, so that they end in peace
)

// New returns a service without packs.
func New(o Options) *Service {
	return &Service{opts: o, here: make(map[string]*stream), calls: make(map[string]*call)}
}

// Register implements coven.PackService: it offers a pack's tools until the stream ends.
//
// Invalid: about the manifest. Exists: the id belongs to another stream, or no tool was accepted
// because of names that are taken.
func (s *Service) Register(m *pb.PackManifest, server grpc.ServerStreamingServer[pb.ExecuteToolRequest]) error {
	p, err := auth.From(server.Context())
	if err != nil {
		return err
	}
	if m.GetPackId() == "" {
		return fault.New(fault.Invalid, "pack_id is required")
	}
	x := &stream{service: s, id: m.GetPackId(), principal: p.ID, server: server, work: make(chan struct{}, 1), gone: make(chan struct{})}
	x.traces = understands(server.Context(), featureTrace)
	x.ctx, x.end = context.WithCancelCause(server.Context())
	defer x.end(nil)
	if err := s.enter(x); err != nil {
		return err
	}
	defer s.streams.Done()
	defer s.leave(x)
	reg, err := s.opts.Packs.Add(x.pack(m))
	if err != nil {
		return err
	}
	defer reg.Remove() // before the id is free: whoever takes it over finds the names free, too
	var header metadata.MD
	if names := rejected(reg.Rejected()); names != "" {
		header = metadata.Pairs(RejectedHeader, names)
	}
	if err := server.SendHeader(header); err != nil { // existing packs wait for them without a bound
		return fmt.Errorf("sending headers: %w", err)
	}
	s.streams.Go(x.write)
	<-x.ctx.Done()
	return x.why()
}

// pack is the stream as the registry knows it.
func (x *stream) pack(m *pb.PackManifest) packs.Pack {
	p := packs.Pack{ID: x.id, Kind: packs.Remote, Version: m.GetVersion(), Principal: x.principal}
	for _, t := range m.GetTools() {
		p.Tools = append(p.Tools, packs.Tool{
			Name: t.GetName(), Description: t.GetDescription(), Schema: t.GetInputSchemaJson(), Needs: t.GetRequiredCapabilities(),
			Timeout: time.Duration(t.GetTimeoutSeconds()) * time.Second, Call: x.call,
		})
	}
	return p
}

// understands reports whether a pack has named a feature.
func understands(ctx context.Context, feature string) bool {
	for _, list := range metadata.ValueFromIncomingContext(ctx, FeaturesHeader) {
		for name := range strings.SplitSeq(list, ",") {
			if strings.TrimSpace(name) == feature {
				return true
			}
		}
	}
	return false
}

// rejected names tools in a header.
func rejected(list []packs.Rejection) string {
	var b strings.Builder
	for _, r := range list {
		if strings.ContainsFunc(r.Tool, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ',' }) || r.Tool == "" {
			continue
		}
		if b.Len()+len(r.Tool) >= maxRejectedHeader {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.Tool)
	}
	return b.String()
}

// enter gives a stream its id. One that an earlier stream of the same principal has is taken over
// when that one has not ended within the grace and has answered nothing meanwhile: it may be dead,
// and nobody knows yet. It counts the stream.
func (s *Service) enter(x *stream) error {
	taken := fault.New(fault.Exists, "pack %s already registered", x.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		old := s.here[x.id]
		switch {
		case s.closing:
			return errClosing
		case old == nil:
			s.here[x.id] = x
			s.streams.Add(1)
			return nil
		case old.principal != x.principal || old.contested:
			return taken
		}
		old.contested, old.alive = true, false
		s.mu.Unlock()
		grace := time.NewTimer(s.opts.TakeoverGrace)
		select {
		case <-old.gone:
		case <-grace.C:
		case <-x.ctx.Done():
		}
		grace.Stop()
		s.mu.Lock()
		old.contested = false
		switch {
		case x.ctx.Err() != nil:
			return context.Cause(x.ctx)
		case s.here[x.id] != old:
		case old.alive:
			return taken
		default:
			old.end(errTaken)
			s.mu.Unlock()
			<-old.gone // its handler has nothing else to do
			s.mu.Lock()
		}
	}
}

// leave frees the stream's id.
func (s *Service) leave(x *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.here, x.id)
	close(x.gone)
}

// why is the status of a stream that has ended.
func (x *stream) why() error {
	switch cause := context.Cause(x.ctx); {
	case errors.Is(cause, errLeaving), errors.Is(cause, context.Canceled):
		return nil
	default:
		return cause
	}
}

// call runs a tool: it hands the call to the pack and waits for the result.
func (x *stream) call(ctx context.Context, c *packs.Call) (string, error) {
	s := x.service
	y := &call{
		stream: x, result: make(chan *pb.ExecuteToolResponse, 1),
		request: &pb.ExecuteToolRequest{RequestId: c.ID, ToolName: c.Tool, InputJson: string(c.Input)},
	}
	if x.traces {
		y.request.Traceparent = s.opts.Tracer.Parent(ctx)
	}
	s.mu.Lock()
	open := x.open
	if open >= maxCalls || x.bytes+len(c.Input) > maxBytes && len(x.queue) > 0 {
		s.mu.Unlock()
		return "", fault.New(fault.Limited, "pack %s is busy: %d of its calls are open", x.id, open)
	}
	s.calls[c.ID] = y
	x.open++
	x.bytes += len(c.Input)
	x.queue = append(x.queue, y)
	s.mu.Unlock()
	select {
	case x.work <- struct{}{}:
	default: // it is awake
	}
	select {
	case r := <-y.result:
		return output(r)
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	y.over = true
	if s.calls[c.ID] == y {
		delete(s.calls, c.ID)
		x.open--
	}
	return "", context.Cause(ctx)
}

// output reads a result. An error without words counts as success, as it always has.
func output(r *pb.ExecuteToolResponse) (string, error) {
	if words := r.GetError(); words != "" {
		return "", packs.Failed(words)
	}
	return r.GetOutputJson(), nil
}

// write sends the calls, until the stream ends. It is the only sender.
func (x *stream) write() {
	for {
		y := x.next()
		if y == nil {
			select {
			case <-x.work:
				continue
			case <-x.ctx.Done():
				return
			}
		}
		if err := x.server.Send(y.request); err != nil {
			x.end(err)
			return
		}
	}
}

// next takes the next call from the queue that somebody waits for, or returns nil.
func (x *stream) next() *call {
	s := x.service
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(x.queue) > 0 {
		y := x.queue[0]
		x.queue[0] = nil
		x.queue = x.queue[1:]
		x.bytes -= len(y.request.GetInputJson())
		if !y.over {
			return y
		}
	}
	x.queue = nil
	return nil
}

// ToolResult implements coven.PackService. It succeeds whatever becomes of the result: a failure
// would end an existing pack, and one that is late is not the pack's fault. A result counts only if
// it comes from the principal of the pack that was called.
func (s *Service) ToolResult(ctx context.Context, r *pb.ExecuteToolResponse) (*emptypb.Empty, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	y := s.calls[r.GetRequestId()]
	own := y != nil && y.stream.principal == p.ID
	if own {
		delete(s.calls, r.GetRequestId())
		y.stream.open--
		y.stream.alive = true
	}
	s.mu.Unlock()
	switch {
	case own:
		y.result <- r
	case y != nil:
		s.opts.Logger.Warn("a tool call was answered by somebody else than its pack; ignored", "pack", y.stream.id, "principal", p.ID)
	default:
		s.opts.Logger.Debug("a tool call was answered that nobody waits for; ignored", "principal", p.ID)
	}
	return &emptypb.Empty{}, nil
}

// Shutdown ends the streams of all packs with OK, and refuses new ones. It returns when none is
// left, or when ctx ends.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for _, x := range s.here {
		x.end(errLeaving)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.streams.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New("a pack's stream has not ended") // the server's stop ends it
	}
}
