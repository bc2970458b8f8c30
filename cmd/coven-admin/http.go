package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"coven-gateway/internal/sse"
)

const (
	// askTimeout bounds a question to the gateway; streams have no bound.
	askTimeout = 10 * time.Second
	// maxAnswer bounds an answer in one piece, in bytes.
	maxAnswer = 64 << 20
	// again is how long to wait before a lost stream is opened again.
	again = time.Second
)

// do sends a request over HTTP and returns the response where it succeeded.
func (a *app) do(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	token, err := a.credential()
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url(path), r)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	var e struct{ Error string }
	if json.Unmarshal(b, &e) != nil || e.Error == "" {
		e.Error = fmt.Sprintf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return nil, refusal(resp.StatusCode, e.Error, token)
}

func (a *app) url(path string) string {
	base := strings.TrimSuffix(a.http, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return base + path
}

// ask returns an answer in one piece.
func (a *app) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return a.read(ctx, method, path, body)
}

// read is ask for what may take long.
func (a *app) read(ctx context.Context, method, path string, body any) ([]byte, error) {
	resp, err := a.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// errSeen is returned by a callback that has seen what it waited for.
var errSeen = errors.New("seen")

// stream opens a stream of events and calls each for every one, until each returns an error; errSeen
// is a good end. When the stream is lost it is opened again behind the last event.
func (a *app) stream(ctx context.Context, open func(ctx context.Context, last string) (*http.Response, error), each func(sse.Event) error) error {
	last, opened := "", false
	for {
		resp, err := open(ctx, last)
		if err == nil {
			opened = true
			var own bool
			if own, err = events(resp, func(e sse.Event) error {
				if e.ID != "" { // what a resumed stream repeats has none
					last = e.ID
				}
				return each(e)
			}); own {
				if errors.Is(err, errSeen) {
					return nil
				}
				return err
			}
		}
		f, refused := errors.AsType[*failure](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !opened, refused && f.status != http.StatusServiceUnavailable:
			return err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// events reads a stream to its end, which is an error of the connection, or of each: own says which.
func events(resp *http.Response, each func(sse.Event) error) (own bool, err error) {
	defer resp.Body.Close()
	r := sse.NewReader(resp.Body)
	for {
		e, err := r.Next()
		if err != nil {
			return false, err
		}
		if err := each(e); err != nil {
			return true, err
		}
	}
}
