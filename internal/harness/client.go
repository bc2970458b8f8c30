package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"coven-gateway/internal/sse"
)

// maxAnswer bounds an answer that is no stream, in bytes.
const maxAnswer = 64 << 20

// A statusError is an answer of the gateway that is no success.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d: %s", e.status, e.body) }

// passes reports whether the same request may be taken later.
func (e *statusError) passes() bool {
	return e.status == http.StatusServiceUnavailable || e.status == http.StatusTooManyRequests
}

// request sends a request and returns its answer if it is 200 or 204.
func (t Target) request(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.HTTP+path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.Token != "" {
		req.Header.Set("Authorization", "Bearer "+t.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, errors.Join(&statusError{resp.StatusCode, string(b)}, err)
	}
	return resp, nil
}

// get decodes what a path answers.
func (t Target) get(ctx context.Context, path string, v any) error {
	resp, err := t.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v)
}

// pages reads the log of a conversation and calls each for its events.
func (t Target) pages(ctx context.Context, agentID string, each func(event, []byte)) error {
	for after := int64(0); ; {
		var page struct {
			Events []json.RawMessage `json:"events"`
			Next   int64             `json:"next"`
			More   bool              `json:"has_more"`
		}
		err := t.get(ctx, fmt.Sprintf("/api/conversations/%s/events?limit=1000&after=%d", agentID, after), &page)
		if s, ok := errors.AsType[*statusError](err); ok && s.status == http.StatusNotFound && after == 0 {
			return nil // nothing was ever said
		}
		if err != nil {
			return err
		}
		for _, b := range page.Events {
			var e event
			if err := json.Unmarshal(b, &e); err != nil {
				return err
			}
			each(e, b)
		}
		if after = page.Next; !page.More {
			return nil
		}
	}
}

// head is the number of the last event of a conversation.
func (t Target) head(ctx context.Context, agentID string) (int64, error) {
	var page struct {
		Head int64 `json:"head"`
	}
	return page.Head, t.get(ctx, "/api/conversations/"+agentID+"/events?limit=1", &page)
}

// follow reads a conversation from behind a number until it ends or each returns an error.
func (t Target) follow(ctx context.Context, path string, after int64, opened func(), each func(sse.Event) error) error {
	resp, err := t.request(ctx, http.MethodGet, path, nil, "Accept", "text/event-stream", "Last-Event-ID", strconv.FormatInt(after, 10))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if opened != nil {
		opened()
	}
	return events(resp, each)
}

func events(resp *http.Response, each func(sse.Event) error) error {
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// send sends a message and calls each for every event of the answer; io.EOF at its end is no error.
func (t Target) send(ctx context.Context, m map[string]string, each func(sse.Event) error) error {
	resp, err := t.request(ctx, http.MethodPost, "/api/send", m, "Accept", "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return events(resp, each)
}

// ask sends a message and returns the text and the number of text events of the answer, which has to end
// as done.
func (t Target) ask(ctx context.Context, agentID, content string, each func(sse.Event)) (text string, n int, err error) {
	var out bytes.Buffer
	last := ""
	err = t.send(ctx, map[string]string{"agent_id": agentID, "sender": "bench", "content": content}, func(e sse.Event) error {
		if each != nil {
			each(e)
		}
		if last = e.Name; last != "text" {
			return nil
		}
		n++
		s, err := eventText(e)
		out.WriteString(s)
		return err
	})
	if !errors.Is(err, io.EOF) || last != "done" {
		return out.String(), n, fmt.Errorf("the answer ended after %q with %w", last, err)
	}
	return out.String(), n, nil
}

func eventText(e sse.Event) (string, error) {
	var d struct{ Text string }
	err := json.Unmarshal(e.Data, &d)
	return d.Text, err
}

// within returns a context that also ends when touch was not called for a while.
func within(ctx context.Context, silence time.Duration) (_ context.Context, touch, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	t := time.AfterFunc(silence, cancel)
	return ctx, func() { t.Reset(silence) }, func() { t.Stop(); cancel() }
}
