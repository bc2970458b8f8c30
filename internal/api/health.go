package api

import (
	"fmt"
	"net/http"
	"time"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/sse"
)

func (a *API) health(w http.ResponseWriter, _ *http.Request) error {
	return text(w, http.StatusOK, "OK")
}

// ready says whether messages can be taken. Unlike older gateways this one is ready without agents:
// an orchestrator that acts on readiness would keep a healthy gateway from the very agents it waits
// for, or kill it because they have left.
func (a *API) ready(w http.ResponseWriter, _ *http.Request) error {
	if a.Conversations.Closing() {
		return text(w, http.StatusServiceUnavailable, "shutting down")
	}
	if err := a.Disk(); err != nil {
		a.Logger.Warn("not ready", "error", err)
		return text(w, http.StatusServiceUnavailable, cause(err))
	}
	if err := a.Conversations.Healthy(); err != nil {
		a.Logger.Warn("not ready", "error", err)
		return text(w, http.StatusServiceUnavailable, "the conversation log cannot be written: "+cause(err))
	}
	return text(w, http.StatusOK, fmt.Sprintf("ready (%d agents)", a.Agents.Len()))
}

// cause is the reason as an operator needs it: it comes from the store and names no content.
func cause(err error) string {
	if fault.CodeOf(err) == fault.Internal {
		return err.Error()
	}
	return fault.Message(err)
}

// healthStream shows a browser that the gateway is there.
func (a *API) healthStream(w http.ResponseWriter, r *http.Request) error {
	leave, err := a.EnterStream(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	s := sse.NewWriter(w)
	if r.Method == http.MethodHead {
		return nil
	}
	s.Event(0, "", []byte("ok"))
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	for {
		if err := s.Flush(); err != nil {
			return clientGone(err)
		}
		select {
		case <-beat.C:
			s.Comment("heartbeat")
		case <-a.Stopping:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

func text(w http.ResponseWriter, status int, s string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write([]byte(s)); err != nil {
		return clientGone(err)
	}
	return nil
}
