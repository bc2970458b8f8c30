package tracing_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"coven-gateway/internal/tracing"
)

// TestOff: where nobody traces, nothing is allocated for it.
func TestOff(t *testing.T) {
	var off *tracing.Tracer
	headers := propagation.HeaderCarrier{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	if n := testing.AllocsPerRun(100, func() {
		ctx, span := off.Start(off.Extract(context.Background(), headers), "x", trace.SpanKindServer)
		if span.IsRecording() || off.Parent(ctx) != "" || tracing.TraceID(ctx) != "" || tracing.Below(ctx, span.SpanContext()) != ctx {
			t.Error("it traces")
		}
		span.AddEvent(tracing.FirstEvent)
		tracing.End(span, nil, error.Error)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNote: what a call is about is known to whoever has asked for it, and to nobody otherwise.
func TestNote(t *testing.T) {
	tracing.NoteTurn(context.Background(), "lost")
	ctx, note := tracing.WithNote(context.Background())
	if got := note.Turn(); got != "" {
		t.Errorf("got %q", got)
	}
	tracing.NoteTurn(ctx, "1")
	tracing.NoteTurn(ctx, "2")
	if got := note.Turn(); got != "2" {
		t.Errorf("got %q", got)
	}
}
