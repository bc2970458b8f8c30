package fault

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var grpcCode = map[Code]codes.Code{
	Invalid:         codes.InvalidArgument,
	Unauthenticated: codes.Unauthenticated,
	Forbidden:       codes.PermissionDenied,
	Reauthenticate:  codes.PermissionDenied,
	NotFound:        codes.NotFound,
	MethodDenied:    codes.Unimplemented,
	Exists:          codes.AlreadyExists,
	Conflict:        codes.FailedPrecondition,
	PositionLost:    codes.OutOfRange,
	Removed:         codes.NotFound,
	TooLarge:        codes.ResourceExhausted,
	Limited:         codes.ResourceExhausted,
	Unavailable:     codes.Unavailable,
	ToolFailed:      codes.Aborted,
	Gone:            codes.Canceled,
	Internal:        codes.Internal,
}

// maxStatusMessage keeps a gRPC status well inside the header limits of every client, bytes.
const maxStatusMessage = 1024

// GRPC returns err as a gRPC status error. A status that came from gRPC itself is kept.
func GRPC(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			return s.GRPCStatus().Err()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return status.Error(codes.DeadlineExceeded, "deadline exceeded")
		}
	}
	msg := Message(err)
	if len(msg) > maxStatusMessage {
		msg = msg[:maxStatusMessage]
	}
	return status.Error(grpcCode[CodeOf(err)], msg)
}
