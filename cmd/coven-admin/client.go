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

// client asks one gateway.
type client struct {
	base string
	json bool // print what the gateway sends
}

// failure is an answer that says no.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

// do sends a request and returns the response where it succeeded.
func (c *client) do(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base, "/")+path, r)
	if err != nil {
		return nil, err
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
	return nil, &failure{resp.StatusCode, e.Error}
}

// ask returns an answer in one piece.
func (c *client) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// show asks, and prints the answer as JSON or hands it to table.
func show[T any](ctx context.Context, c *client, out io.Writer, path string, table func(T) error) error {
	b, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if c.json {
		_, err := out.Write(b)
		return err
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("unexpected answer: %w", err)
	}
	return table(v)
}

// stream opens a stream of events and calls each for every one, until each returns io.EOF. When the
// stream is lost it is opened again behind the last event.
func (c *client) stream(ctx context.Context, open func(ctx context.Context, last string) (*http.Response, error), each func(sse.Event) error) error {
	last := ""
	for {
		resp, err := open(ctx, last)
		if err == nil {
			err = read(resp, func(e sse.Event) error {
				last = e.ID
				return each(e)
			})
		}
		f, refused := errors.AsType[*failure](err)
		switch {
		case errors.Is(err, errSeen):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case refused && f.status != http.StatusServiceUnavailable, last == "" && err != nil:
			return err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errSeen is returned by a callback that has seen what it waited for.
var errSeen = errors.New("seen")

// read reads a stream to its end, which is an error of the connection or of each.
func read(resp *http.Response, each func(sse.Event) error) error {
	defer resp.Body.Close()
	r := sse.NewReader(resp.Body)
	for {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
