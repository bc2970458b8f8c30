package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/sse"
)

const (
	// keepAlive is how often an idle stream sends a comment, so that nothing in between closes it.
	keepAlive = 15 * time.Second
	// retryHint is how long clients wait before they come back after a shutdown.
	retryHint = time.Second
	// replacedHint is how long, when another process has the sockets already.
	replacedHint = 50 * time.Millisecond
	// standardPage and mostEvents bound a page of events.
	standardPage = 100
	mostEvents   = 1000
)

func (a *API) conversationEvents(w http.ResponseWriter, r *http.Request) error {
	return a.events(w, r, r.PathValue("agent"), conversation.Filter{ThreadID: r.URL.Query().Get("thread_id")})
}

func (a *API) turnEvents(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Conversations.Turn(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return a.events(w, r, t.AgentID, conversation.Filter{TurnID: t.ID})
}

// events answers with what follows a position: a page of it, or all of it and then what comes.
func (a *API) events(w http.ResponseWriter, r *http.Request, agentID string, f conversation.Filter) error {
	after, err := resumeAfter(r)
	if err != nil {
		return err
	}
	if wants(r, "text/event-stream") {
		leave, err := a.EnterStream(r.Context())
		if err != nil {
			return err
		}
		defer leave()
		reader, err := a.Conversations.Reader(r.Context(), agentID, f, after)
		if err != nil {
			return err
		}
		defer reader.Close()
		return a.stream(w, r, reader, &encoder{form: objectForm, agentID: agentID}, f.TurnID != "", nil)
	}
	n, err := limit(r, standardPage, mostEvents)
	if err != nil {
		return err
	}
	page, err := a.Conversations.Events(r.Context(), agentID, f, after, n)
	if err != nil {
		return orGone(r.Context(), err)
	}
	enc := &encoder{form: objectForm, agentID: agentID}
	list := make([]json.RawMessage, len(page.Events))
	for i, e := range page.Events {
		if list[i], err = enc.object(e); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, fields{"events": list, "next": page.Next, "has_more": page.More, "head": page.Head})
}

// resumeAfter is the position of a client: what it received last, or what it asks for.
func resumeAfter(r *http.Request) (int64, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || n < 0 {
			return 0, fault.New(fault.Invalid, "Last-Event-ID must be the number of an event; got %q", id)
		}
		return n, nil
	}
	return position(r, "after")
}

// stream sends everything that a reader finds, as it comes. With toEnd it ends behind the end of a
// turn; else when the client leaves. A client that leaves ends nothing but its own reader. What the
// reader takes at once is one write, so that nobody keeps more than that in memory. started, unless
// nil, comes first and without an id: the client is further than the event it repeats.
func (a *API) stream(w http.ResponseWriter, r *http.Request, reader *conversation.Reader, enc *encoder, toEnd bool, started fields) error {
	if toEnd && reader.Over() {
		w.WriteHeader(http.StatusNoContent) // tells an EventSource not to come back
		return nil
	}
	s := sse.NewWriter(w)
	if r.Method == http.MethodHead {
		return nil // the headers are all there is; the client would use the connection again
	}
	if started != nil {
		data, err := marshal(started)
		if err != nil {
			return err
		}
		s.Event(0, "started", data)
	}
	idle := time.NewTicker(keepAlive)
	defer idle.Stop()
	if err := s.Flush(); err != nil { // at least the headers, before there is anything to say
		return clientGone(err)
	}
	for {
		evs, err := reader.Poll(r.Context())
		if err != nil {
			return orGone(r.Context(), err)
		}
		over := false
		for _, e := range evs {
			name, data, err := enc.encode(e)
			if err != nil {
				return err
			}
			s.Event(e.Seq, name, data)
			if toEnd && ends(e.Body) {
				over = true
				break
			}
		}
		if len(evs) > 0 {
			if err := s.Flush(); err != nil {
				return clientGone(err)
			}
			idle.Reset(keepAlive)
		}
		if over {
			return nil
		}
		if len(evs) > 0 {
			continue
		}
		select {
		case <-reader.Ready():
		case <-idle.C:
			s.Comment("keep-alive")
			if err := s.Flush(); err != nil {
				return clientGone(err)
			}
		case <-a.Stopping:
			if a.Replaced() {
				s.Comment("the gateway is being replaced: come back at once")
				s.Retry(replacedHint)
			} else {
				s.Retry(retryHint)
			}
			if err := s.Flush(); err != nil {
				return clientGone(err)
			}
			return nil
		case <-r.Context().Done():
			return orGone(r.Context(), r.Context().Err())
		}
	}
}

// ends reports whether an event is the last one that there will be of a turn.
func ends(b conversation.Body) bool {
	switch b.(type) {
	case conversation.Ended, conversation.Removed:
		return true
	}
	return false
}
