package api

import (
	"errors"
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
	if err := a.unready(); err != nil {
		a.Logger.Warn("not ready", "error", err)
		return text(w, http.StatusServiceUnavailable, err.Error())
	}
	return text(w, http.StatusOK, fmt.Sprintf("ready (%d agents)", a.Agents.Len()))
}

// unready is why no messages can be taken, for people; nil where they can.
func (a *API) unready() error {
	if a.Conversations.Closing() {
		return errors.New("shutting down")
	}
	if err := a.Disk(); err != nil {
		return errors.New(cause(err))
	}
	if err := a.Conversations.Healthy(); err != nil {
		return errors.New("the conversation log cannot be written: " + cause(err))
	}
	return nil
}

// gateway shows administrators how the gateway is and how it is configured.
func (a *API) gateway(w http.ResponseWriter, _ *http.Request) error {
	settings := make([]fields, len(a.Settings))
	for i, s := range a.Settings {
		settings[i] = fields{"key": s.Key, "value": s.Value, "origin": s.Origin.String(), "default": s.Origin.IsDefault(), "secret": s.Secret}
	}
	out := fields{"version": a.Version, "started_at": stamp(a.Started), "ready": true, "agents": a.Agents.Len(), "settings": settings}
	if err := a.unready(); err != nil {
		out["ready"], out["reason"] = false, err.Error()
	}
	return writeJSON(w, http.StatusOK, out)
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
