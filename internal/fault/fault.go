// Package fault is the one error type that crosses package borders on its way to a caller, and the
// tables that turn it into an HTTP status or a gRPC code.
//
// A fault has a code that programs branch on, a message for the caller and a cause for the log. An
// error without a fault in its chain is internal: the caller learns nothing but that, the log
// learns everything.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code is the machine word of a fault; it is the `code` of JSON errors.
type Code string

// The codes. Each has a row in the HTTP and in the gRPC table.
const (
	Invalid         Code = "invalid_argument"
	Unauthenticated Code = "unauthenticated"
	Forbidden       Code = "permission_denied"
	Reauthenticate  Code = "reauthentication_required"
	NotFound        Code = "not_found"
	MethodDenied    Code = "method_not_allowed"
	Exists          Code = "already_exists"
	Conflict        Code = "conflict"
	PositionLost    Code = "position_lost"
	Removed         Code = "removed"
	TooLarge        Code = "too_large"
	Limited         Code = "rate_limited"
	Unavailable     Code = "unavailable"
	ToolFailed      Code = "tool_failed"
	Gone            Code = "client_gone"
	Internal        Code = "internal"
)

// Error is a fault.
type Error struct {
	Code  Code
	Msg   string        // for the caller
	Err   error         // for the log; may be nil
	After time.Duration // when to try again; 0 where it makes no difference
}

// Error returns the message for the caller and, where there is one, the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns a fault whose message is formatted like fmt.Sprintf.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault with a cause that only the log sees.
func Wrap(err error, code Code, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...), Err: err}
}

// TooOften returns a Limited fault that says when to come back.
func TooOften(after time.Duration, format string, args ...any) *Error {
	return &Error{Code: Limited, Msg: fmt.Sprintf(format, args...), After: after}
}

// CodeOf returns the code of the first fault in err's chain. A context that ended because the
// caller left is Gone, everything unknown is Internal.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if errors.Is(err, context.Canceled) {
		return Gone
	}
	return Internal
}

// Message returns what the caller may read of err.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Msg
	}
	if errors.Is(err, context.Canceled) {
		return "the client closed the request"
	}
	return "internal server error"
}
