package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// idleLimit is how long a stream without a position says nothing, while no turn is open, until it
// ends: a client that has come too late for its turn takes that for the end.
const idleLimit = 5 * time.Minute

// StreamEvents implements coven.ClientService. Headers are sent at once: some clients send their
// message only when they have them.
func (s service) StreamEvents(r *pb.StreamEventsRequest, stream grpc.ServerStreamingServer[pb.ClientStreamEvent]) error {
	ctx := stream.Context()
	if err := required("conversation_key", r.GetConversationKey()); err != nil {
		return err
	}
	agentID := s.agentID(r.GetConversationKey())
	after := int64(-1)
	if r.SinceEventId != nil {
		var err error
		if after, err = s.conversations.Position(ctx, agentID, r.GetSinceEventId()); err != nil {
			return err
		}
	}
	f, err := s.conversations.Follow(ctx, agentID, after)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := stream.SendHeader(nil); err != nil {
		return gone(err)
	}
	out := &renderer{service: s.conversations, key: r.GetConversationKey(), agentID: agentID, since: r.GetSinceEventId(), asks: f.Asks, endedInReplay: map[string]bool{}}
	if after >= 0 {
		out.replayed = f.Head()
	}
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	for {
		evs, more, err := f.Poll(ctx)
		if err != nil {
			return err
		}
		for _, e := range evs {
			msgs, err := out.render(ctx, e)
			if err != nil {
				return err
			}
			for _, m := range msgs {
				if err := stream.Send(m); err != nil {
					return gone(err)
				}
			}
		}
		if more {
			idle.Reset(idleLimit)
			continue
		}
		select {
		case <-f.Ready():
		case <-idle.C:
			if after < 0 && !f.Busy() {
				return nil
			}
			idle.Reset(idleLimit)
		case <-s.stopping:
			return nil // all turns have ended
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// maxPage bounds a page of history, in bytes of text, so that existing clients can decode it.
const maxPage = 3 << 20

// GetEvents implements coven.ClientService. Without since, until and cursor it is the newest page.
func (s service) GetEvents(ctx context.Context, r *pb.GetEventsRequest) (*pb.GetEventsResponse, error) {
	key := r.GetConversationKey()
	if err := required("conversation_key", key); err != nil {
		return nil, err
	}
	q := conversation.HistoryQuery{AgentID: s.agentID(key), Limit: 50}
	if n := r.GetLimit(); n > 0 {
		q.Limit = int(min(n, 500))
	}
	var err error
	if q.Since, err = when(r.Since, "since"); err != nil {
		return nil, err
	}
	if q.Until, err = when(r.Until, "until"); err != nil {
		return nil, err
	}
	switch {
	case r.Cursor != nil:
		if q.After, err = s.conversations.Position(ctx, q.AgentID, r.GetCursor()); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "cursor must be the next_cursor of an earlier answer")
		}
		q.Removed = true
	case q.Since.IsZero() && q.Until.IsZero():
		q.Newest = true
	}
	page, err := s.conversations.History(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetEventsResponse{HasMore: page.More}
	if q.Newest {
		resp.Events = newest(key, page.Entries)
		resp.HasMore = resp.HasMore || len(resp.Events) < len(page.Entries)
		return resp, nil // what is missing came before
	}
	size := 0
	for i, e := range page.Entries {
		if r.Cursor != nil && e.ID == r.GetCursor() {
			continue // the text of a turn, whose error follows
		}
		m := event(key, e)
		if size += len(m.GetText()) + eventSize; size > maxPage && len(resp.Events) > 0 {
			resp.HasMore, resp.NextCursor = true, new(page.Entries[i-1].ID)
			return resp, nil
		}
		resp.Events = append(resp.Events, m)
	}
	if resp.HasMore {
		cursor, err := s.conversations.EventID(ctx, q.AgentID, page.Next)
		if err != nil {
			return nil, err
		}
		resp.NextCursor = &cursor
	}
	return resp, nil
}

// eventSize is about what an event has besides its text, in bytes.
const eventSize = 300

// newest returns the last entries that fit into a page.
func newest(key string, entries []conversation.Entry) []*pb.Event {
	size, from := 0, len(entries)
	for from > 0 {
		if size += min(len(entries[from-1].Text), maxText) + eventSize; size > maxPage && from < len(entries) {
			break
		}
		from--
	}
	var events []*pb.Event
	for _, e := range entries[from:] {
		events = append(events, event(key, e))
	}
	return events
}

// when reads a time.
func when(s *string, name string) (time.Time, error) {
	if s == nil || *s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, *s)
	if err != nil {
		return t, fault.Wrap(err, fault.Invalid, "invalid %s timestamp", name)
	}
	return t, nil
}

// gone says that the client has left.
func gone(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok { // it reads nothing
		return f
	}
	return fault.Wrap(err, fault.Gone, "the client closed the connection")
}

// ended says why a call has ended: its caller has lost its rights, or has left.
func ended(ctx context.Context) error {
	if f, ok := errors.AsType[*fault.Error](context.Cause(ctx)); ok {
		return f
	}
	return gone(ctx.Err())
}
