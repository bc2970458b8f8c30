package fault

import "net/http"

// statusClientGone is what logs show when the caller left before the answer; it never reaches one.
const statusClientGone = 499

var httpStatus = map[Code]int{
	Invalid:         http.StatusBadRequest,
	Unauthenticated: http.StatusUnauthorized,
	Forbidden:       http.StatusForbidden,
	Reauthenticate:  http.StatusForbidden,
	NotFound:        http.StatusNotFound,
	MethodDenied:    http.StatusMethodNotAllowed,
	Exists:          http.StatusConflict,
	Conflict:        http.StatusConflict,
	PositionLost:    http.StatusGone,
	Removed:         http.StatusGone,
	TooLarge:        http.StatusRequestEntityTooLarge,
	Limited:         http.StatusTooManyRequests,
	Unavailable:     http.StatusServiceUnavailable,
	ToolFailed:      http.StatusUnprocessableEntity,
	Gone:            statusClientGone,
	Internal:        http.StatusInternalServerError,
}

// HTTPStatus returns the HTTP status of err.
func HTTPStatus(err error) int { return httpStatus[CodeOf(err)] }
