// Package otlp sends spans to an OpenTelemetry collector, as the standard environment variables say.
package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// StopTimeout bounds how long the last spans may take.
const StopTimeout = 3 * time.Second

// complaintInterval is how often it is logged that spans cannot be sent.
const complaintInterval = time.Minute

// Provider returns what sends spans over OTLP/HTTP, or nil where the environment does not ask for it:
// it does with OTEL_TRACES_EXPORTER=otlp, OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. Endpoint, headers, time-outs, certificates, sampler, limits,
// batches and resource attributes are read from the other OTEL_ variables, as the OpenTelemetry
// specification has them. Spans that cannot be sent are dropped; the gateway does not wait for them.
// It must be shut down. An exporter or protocol that there is not is an error.
func Provider(ctx context.Context, getenv func(string) string, version string, logger *slog.Logger) (*sdk.TracerProvider, error) {
	exporter := getenv("OTEL_TRACES_EXPORTER")
	endpoint := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") + getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none", exporter == "" && endpoint == "":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER is %q: the gateway has otlp and none", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := getenv(name); p != "" {
			if p != "http/protobuf" {
				return nil, fmt.Errorf("%s is %q: the gateway speaks http/protobuf", name, p)
			}
			break
		}
	}
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry exporter: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "coven-gateway"), attribute.String("service.version", version),
	), resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv()) // what comes later wins
	if err != nil {
		logger.Warn("OTEL_RESOURCE_ATTRIBUTES is only partly understood", "error", err)
	}
	otel.SetErrorHandler(complaints(logger))
	return sdk.NewTracerProvider(sdk.WithBatcher(client), sdk.WithResource(about)), nil
}

// complaints logs what goes wrong with the spans, at most once in complaintInterval.
func complaints(logger *slog.Logger) otel.ErrorHandler {
	var last atomic.Int64
	return otel.ErrorHandlerFunc(func(err error) {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before >= int64(complaintInterval) && last.CompareAndSwap(before, now) {
			logger.Warn("spans cannot be sent; they are dropped", "error", err)
		}
	})
}
