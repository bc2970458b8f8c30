// Package tracing is how the gateway tells what a call and a turn consist of: as OpenTelemetry
// spans, and as the ids on log lines. It knows the interface of OpenTelemetry only; who exports
// spans, and where to, is decided where the gateway is put together (see package otlp below it).
package tracing

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// The attributes of spans. Their values are ids, names and figures, never what anybody has said.
const (
	AgentID     = attribute.Key("coven.agent_id")
	PackID      = attribute.Key("coven.pack_id")
	PrincipalID = attribute.Key("coven.principal_id")
	State       = attribute.Key("coven.turn_state") // how a turn has ended
	ThreadID    = attribute.Key("coven.thread_id")
	Tool        = attribute.Key("coven.tool")
	TurnID      = attribute.Key("coven.turn_id")
)

// FirstEvent is the event of a turn's span that the agent's first sign of life is.
const FirstEvent = "first event"

// context as W3C has standardised it: traceparent and tracestate.
var w3c propagation.TraceContext

// A Tracer begins spans. The nil Tracer begins none and costs nothing.
type Tracer struct{ tracer trace.Tracer }

// New returns a Tracer whose spans go to p, or the nil Tracer where p is nil.
func New(p trace.TracerProvider) *Tracer {
	if p == nil {
		return nil
	}
	return &Tracer{p.Tracer("coven-gateway")}
}

// Start begins a span below the one in ctx. It must be ended. Attributes are for those who have looked
// whether the span is recording: to make them costs something.
func (t *Tracer) Start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	if t == nil {
		return ctx, off
	}
	return t.tracer.Start(ctx, name, trace.WithSpanKind(kind))
}

// off is the span that records nothing.
var off = trace.SpanFromContext(context.Background())

// Extract returns ctx as part of the trace that a caller has named in its headers, if it has.
func (t *Tracer) Extract(ctx context.Context, headers propagation.TextMapCarrier) context.Context {
	if t == nil {
		return ctx
	}
	return w3c.Extract(ctx, headers)
}

// Parent returns the traceparent for somebody who is to continue the trace in ctx; "" if there is none.
func (t *Tracer) Parent(ctx context.Context) string {
	if t == nil {
		return ""
	}
	headers := propagation.MapCarrier{}
	w3c.Inject(ctx, headers)
	return headers["traceparent"]
}

// Below returns ctx with the span of parent as the one that new spans are below of.
func Below(ctx context.Context, parent trace.SpanContext) context.Context {
	if !parent.IsValid() {
		return ctx
	}
	return trace.ContextWithSpanContext(ctx, parent)
}

// End ends a span, as failed unless err is nil. The text of err must be one for the caller.
func End(span trace.Span, err error, words func(error) string) {
	if err != nil && span.IsRecording() {
		span.SetStatus(codes.Error, words(err))
	}
	span.End()
}

// TraceID returns the id of the trace in ctx as log lines have it; "" if there is none.
func TraceID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

type noteKey struct{}

// A Note is what a call has turned out to be about, for its log line.
type Note struct{ turn atomic.Pointer[string] }

// WithNote returns a context whose call can be noted down.
func WithNote(ctx context.Context) (context.Context, *Note) {
	n := new(Note)
	return context.WithValue(ctx, noteKey{}, n), n
}

// NoteTurn says which turn the call of ctx has begun or concerns. The last one counts.
func NoteTurn(ctx context.Context, id string) {
	if n, ok := ctx.Value(noteKey{}).(*Note); ok {
		n.turn.Store(&id)
	}
}

// Turn returns the turn that was noted; "" if none was.
func (n *Note) Turn() string {
	if id := n.turn.Load(); id != nil {
		return *id
	}
	return ""
}
