package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/upstream"
)

func serverFields(s upstream.Status) fields {
	tools := make([]fields, len(s.Tools))
	for i, t := range s.Tools {
		tools[i] = fields{"name": t.Name, "callable": t.Callable, "state": t.State, "reason": t.Reason, "offered": definitionFields(t.Definition)}
		if t.Accepted.Name != "" {
			tools[i]["accepted"] = definitionFields(t.Accepted)
		}
	}
	return fields{
		"name": s.Name, "command": notNil(s.Command), "cwd": s.Dir, "env": s.Env, "url": s.URL, "headers": s.Headers, "prefix": s.Prefix,
		"allowed": notNil(s.Server.Tools), "session": s.Server.Sessions, "auto_accept": s.AutoAccept, "allow_private": s.AllowPrivate,
		"timeout_seconds": int(s.Timeout / time.Second), "enabled": s.Enabled, "created_at": stamp(s.CreatedAt), "created_by": s.CreatedBy,
		"state": s.State, "error": s.Error, "since": stamp(s.Since), "restarts": s.Restarts, "sessions": s.Sessions, "tools": tools, "digest": s.Digest,
	}
}

func definitionFields(d upstream.Definition) fields {
	f := fields{"title": d.Title, "description": d.Description, "digest": d.Digest()}
	for name, v := range map[string]json.RawMessage{"input_schema": d.InputSchema, "output_schema": d.OutputSchema, "annotations": d.Annotations} {
		if v != nil {
			f[name] = v
		}
	}
	return f
}

func writeServer(w http.ResponseWriter, r *http.Request, status int, s upstream.Status, err error) error {
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, status, serverFields(s))
}

func (a *API) listServers(w http.ResponseWriter, _ *http.Request) error {
	all := a.Servers.List()
	list := make([]fields, len(all))
	for i, s := range all {
		list[i] = serverFields(s)
	}
	return writeJSON(w, http.StatusOK, fields{"servers": list})
}

func (a *API) addServer(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Name         string            `json:"name"`
		Command      []string          `json:"command" max:"-"`
		Dir          string            `json:"cwd" max:"-"`
		Env          map[string]string `json:"env" max:"-"`
		URL          string            `json:"url" max:"-"`
		Headers      map[string]string `json:"headers" max:"-"`
		Prefix       *string           `json:"prefix"`
		Allowed      []string          `json:"allowed" max:"-"`
		Session      upstream.Sessions `json:"session"`
		AutoAccept   bool              `json:"auto_accept"`
		AllowPrivate bool              `json:"allow_private"`
		Seconds      int               `json:"timeout_seconds"`
		Accept       bool              `json:"accept"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if limit := 24 * 60 * 60; in.Seconds < 0 || in.Seconds > limit { // the service knows the real limit
		return fault.New(fault.Invalid, "timeout_seconds must be 0 to %d", limit)
	}
	prefix := in.Name + "_"
	if in.Prefix != nil {
		prefix = *in.Prefix
	}
	s, err := a.Servers.Add(r.Context(), upstream.Server{
		Name: in.Name, Command: in.Command, Dir: in.Dir, Env: in.Env, URL: in.URL, Headers: in.Headers, Prefix: prefix, Tools: in.Allowed,
		Sessions: in.Session, AutoAccept: in.AutoAccept, AllowPrivate: in.AllowPrivate, Timeout: time.Duration(in.Seconds) * time.Second,
	}, in.Accept)
	return writeServer(w, r, http.StatusCreated, s, err)
}

func (a *API) server(w http.ResponseWriter, r *http.Request) error {
	s, err := a.Servers.Get(r.PathValue("name"))
	return writeServer(w, r, http.StatusOK, s, err)
}

func (a *API) enableServer(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Enabled *bool `json:"enabled"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Enabled == nil {
		return fault.New(fault.Invalid, "enabled is required")
	}
	s, err := a.Servers.Enable(r.Context(), r.PathValue("name"), *in.Enabled)
	return writeServer(w, r, http.StatusOK, s, err)
}

func (a *API) removeServer(w http.ResponseWriter, r *http.Request) error {
	return done(w, a.Servers.Remove(r.Context(), r.PathValue("name")))
}

// acceptTools accepts tools as they are offered now, all that wait where none is named.
func (a *API) acceptTools(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Tools  []string `json:"tools"`
		Digest string   `json:"digest"`
	}
	if err := decode(r, &in); err != nil && !errors.Is(err, io.EOF) { // no body is fine
		return err
	}
	s, err := a.Servers.Accept(r.Context(), r.PathValue("name"), in.Tools, in.Digest)
	return writeServer(w, r, http.StatusOK, s, err)
}

func (a *API) testServer(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Servers.Test(r.Context(), r.PathValue("name"))
	if err != nil {
		return orGone(r.Context(), err)
	}
	return writeJSON(w, http.StatusOK, fields{
		"server": t.Server, "version": t.Version, "protocol": t.Protocol, "tools": notNil(t.Tools), "duration_ms": t.Took.Milliseconds(),
	})
}

func (a *API) serverLogs(w http.ResponseWriter, r *http.Request) error {
	lines, err := a.Servers.Logs(r.PathValue("name"))
	if err != nil {
		return err
	}
	list := make([]fields, len(lines))
	for i, l := range lines {
		list[i] = fields{"at": stamp(l.At), "text": l.Text}
	}
	return writeJSON(w, http.StatusOK, fields{"lines": list})
}
