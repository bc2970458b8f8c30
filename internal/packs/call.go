package packs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/tracing"
)

// Call runs a tool and returns its output, one JSON document, or what a pack that is connected over
// gRPC has sent in its place. It returns when the tool has answered, when its time is over, when its
// pack goes away or when ctx ends.
//
// Faults: NotFound for a tool that does not exist; Forbidden where the caller may not use it;
// Limited where it does too often; Invalid and TooLarge about the input; Conflict where the caller
// would wait for itself; Unavailable when the pack goes away or does not answer in time; ToolFailed,
// or a fault of a built-in tool, when the tool has failed.
func (r *Registry) Call(ctx context.Context, c Caller, name string, input json.RawMessage) (string, error) {
	start := time.Now()
	call := &Call{Caller: c, ID: rand.Text(), Tool: name, Input: input, registry: r}
	t := r.find(name)
	ctx, span := r.opts.Tracer.Start(ctx, "tool "+clip(name), trace.SpanKindInternal)
	output, err := r.run(ctx, t, call)
	result := "ok"
	if err != nil {
		result = string(fault.CodeOf(err))
	}
	label, pack := "", ""
	if t != nil {
		label, pack = t.Name, t.pack.pack.ID
	}
	if span.IsRecording() {
		span.SetAttributes(tracing.Tool.String(clip(name)), tracing.PackID.String(pack), tracing.AgentID.String(c.AgentID), tracing.TurnID.String(c.TurnID), tracing.PrincipalID.String(c.Principal.ID))
	}
	tracing.End(span, err, code)
	took := time.Since(start)
	r.metrics.observe(label, result, took)
	if r.opts.Ran != nil && c.TurnID != "" {
		r.opts.Ran(ctx, Run{Caller: c, ID: call.ID, Tool: clip(name), Pack: pack, Result: result, Took: took})
	}
	level := slog.LevelInfo
	if fault.CodeOf(err) == fault.Internal && err != nil {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.String("tool", clip(name)), slog.String("pack", pack), slog.String("call_id", call.ID), slog.String("agent_id", c.AgentID),
		slog.String("turn_id", c.TurnID), slog.String("principal", c.Principal.ID), slog.String("result", result), slog.Duration("duration", took),
		slog.Int("input_bytes", len(input)), slog.Int("output_bytes", len(output)),
	}
	if id := tracing.TraceID(ctx); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	r.opts.Logger.LogAttrs(ctx, level, "tool call", attrs...)
	return output, err
}

// code is what is told of a failure where its words must not be: they may be what the tool was given.
func code(err error) string { return string(fault.CodeOf(err)) }

// run checks a call and makes it.
func (r *Registry) run(ctx context.Context, t *tool, call *Call) (string, error) {
	if t == nil {
		return "", fault.New(fault.NotFound, "tool not found")
	}
	if err := t.may(ctx, r.opts.Rights, call.Caller); err != nil {
		return "", err
	}
	if err := t.limiter.Allow(call.Principal.ID); err != nil {
		return "", err
	}
	if len(call.Input) > MaxInput {
		return "", fault.New(fault.TooLarge, "the input of a tool must not be longer than %d bytes; this one has %d", MaxInput, len(call.Input))
	}
	if in := bytes.TrimSpace(call.Input); len(in) == 0 || string(in) == "null" {
		call.Input = json.RawMessage("{}")
	}
	if !t.OwnWords {
		if err := validate(t.schema, call.Input); err != nil {
			return "", err
		}
	}
	if t.policy.Approval && call.byAgent() {
		asking, cancel := context.WithTimeoutCause(ctx, approvalWait, fault.New(fault.Forbidden, "nobody has approved the tool %s within %s", t.Name, approvalWait))
		err := r.opts.Approve(auth.With(asking, call.Principal), call)
		cancel()
		if err != nil {
			return "", err
		}
	}
	if host := t.pack.pack.AgentID; host != "" {
		done, err := call.WaitFor(host)
		if err != nil {
			return "", err
		}
		defer done()
	}
	late := fault.New(fault.Unavailable, "context deadline exceeded: the tool %s has not answered within %s", t.Name, t.Timeout)
	ctx, cancel := context.WithTimeoutCause(auth.With(ctx, call.Principal), t.Timeout, late)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(t.pack.here, func() { end(context.Cause(t.pack.here)) })()

	r.metrics.open.Inc()
	output, err := t.invoke(ctx, call)
	r.metrics.open.Dec()
	switch {
	case err != nil && ctx.Err() != nil:
		return "", ended(ctx, err)
	case err != nil:
		return "", err
	case len(output) > MaxOutput:
		return "", fault.New(fault.TooLarge, "the output of a tool must not be longer than %d bytes; that of %s has %d", MaxOutput, t.Name, len(output))
	case !utf8.ValidString(output): // it could not be sent
		return "", Failed("the output of " + t.Name + " is not UTF-8")
	}
	return output, nil
}

// approvalWait is how long people have to approve a call, which is not a part of its time: about as long
// as existing agents wait for a tool.
const approvalWait = 4*time.Minute + 30*time.Second

// byAgent reports whether an agent calls, and not a person, who knows what it is about.
func (c *Call) byAgent() bool {
	return c.AgentID != "" && (c.OnStream || c.Principal.Kind == auth.Agent)
}

// invoke keeps a panic to the call it happened in.
func (t *tool) invoke(ctx context.Context, call *Call) (output string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("tool %s: panic: %v\n%s", t.Name, p, debug.Stack())
		}
	}()
	return t.Call(ctx, call)
}

// ended returns why a call has failed whose context has ended.
func ended(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*fault.Error](context.Cause(ctx)); ok {
		return f
	}
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fault.Wrap(err, fault.Unavailable, "context deadline exceeded")
	}
	return fault.Wrap(err, fault.Gone, "context canceled")
}
