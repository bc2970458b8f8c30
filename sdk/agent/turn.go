package agent

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "coven-gateway/proto/coven"
)

// Limits of what waits for a handler. The gateway is told about messages beyond them.
const (
	maxWaiting      = 1000
	maxWaitingBytes = 64 << 20
)

// A turn is a message and its answer.
type turn struct {
	message *Message
	size    int
	ctx     context.Context // the handler's; a child of session.work
	cancel  context.CancelCauseFunc
	started bool // guarded by session.mu
}

// enqueue puts a message behind the others of its thread, or starts to answer the thread.
func (s *session) enqueue(p *pb.SendMessage) {
	t := &turn{
		message: &Message{RequestID: p.GetRequestId(), ThreadID: p.GetThreadId(), Sender: p.GetSender(), Content: p.GetContent()},
		size:    proto.Size(p),
	}
	for _, a := range p.GetAttachments() {
		t.message.Attachments = append(t.message.Attachments, Attachment{Name: a.GetFilename(), Type: a.GetMimeType(), Data: a.GetData()})
	}
	thread := t.message.ThreadID

	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	switch {
	case st.closed: // the gateway hears that the stream ends
		return
	case st.turns[t.message.RequestID] != nil:
		s.opts.Logger.Warn("the gateway sent a request a second time; ignored", "agent_id", s.opts.ID, "request_id", t.message.RequestID)
		return
	case st.waiting >= maxWaiting, st.bytes+t.size > maxWaitingBytes:
		const busy = "the agent is busy: too many messages wait"
		s.reply(response(&pb.MessageResponse{RequestId: t.message.RequestID, Event: &pb.MessageResponse_Error{Error: busy}}))
		s.reply(response(&pb.MessageResponse{RequestId: t.message.RequestID, Event: done("Error: " + busy)}))
		return
	}
	t.ctx, t.cancel = context.WithCancelCause(context.WithValue(s.work, turnKey{}, t.message.RequestID))
	queue, running := st.threads[thread]
	st.threads[thread] = append(queue, t)
	st.turns[t.message.RequestID] = t
	st.waiting++
	st.bytes += t.size
	st.active++
	if !running {
		s.tasks.Go(func() { s.answer(thread) })
	}
}

// answer handles the messages of a thread until none is left. Each takes a slot of its own, so that
// a busy thread does not keep the others from theirs.
func (s *session) answer(thread string) {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.work.Done():
			return
		}
		t := s.next(thread)
		if t != nil {
			s.handle(t)
		}
		<-s.slots
		if t == nil {
			return
		}
	}
}

// next starts the first turn that waits in a thread. When there is none, the thread is over.
func (s *session) next(thread string) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	queue := st.threads[thread]
	if len(queue) == 0 {
		delete(st.threads, thread)
		return nil
	}
	t := queue[0]
	queue[0] = nil
	st.threads[thread] = queue[1:]
	st.waiting--
	st.bytes -= t.size
	t.started = true
	return t
}

// turnKey is the key of the request id of the turn in its handler's context.
type turnKey struct{}

// handle answers one message and reports how it ended.
func (s *session) handle(t *turn) {
	w := &Writer{session: s, turn: t}
	err := s.opts.Handler.Handle(t.ctx, t.message, w)
	if err := s.conclude(t, w, err); err != nil && s.work.Err() == nil {
		s.opts.Logger.Error("the end of a turn cannot be sent", "agent_id", s.opts.ID, "request_id", t.message.RequestID, "error", err)
	}
	t.cancel(ErrEnded)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.state.turns, t.message.RequestID)
	s.state.active--
	s.noteIdle()
}

// conclude sends the end of a turn whose handler has returned err.
func (s *session) conclude(t *turn, w *Writer, err error) error {
	send := func(e *pb.MessageResponse) error {
		e.RequestId = t.message.RequestID
		return s.send(s.ctx, response(e)) // not t.ctx, which may have ended
	}
	cancelled, is := errors.AsType[Cancelled](context.Cause(t.ctx))
	if err != nil && !is && s.work.Err() == nil {
		s.opts.Logger.Error("the handler failed", "agent_id", s.opts.ID, "request_id", t.message.RequestID, "error", err)
	}
	switch {
	case w.ended.Load():
		return nil
	case is:
		return send(&pb.MessageResponse{Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: cancelled.Reason}}})
	case err != nil && s.work.Err() != nil:
		return nil // it was cut short; the gateway reports it as interrupted
	case err != nil:
		text := reason(err)
		if err := send(&pb.MessageResponse{Event: &pb.MessageResponse_Error{Error: text}}); err != nil {
			return err
		}
		return send(&pb.MessageResponse{Event: done("Error: " + text)})
	}
	full, err := w.finish()
	if err != nil {
		return err
	}
	return send(&pb.MessageResponse{Event: done(full)})
}

// cancel stops a turn. One that waits for its handler is over at once.
func (s *session) cancel(requestID, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	t := st.turns[requestID]
	switch {
	case t == nil: // it ended before it was stopped
		return
	case t.started:
		t.cancel(Cancelled{reason})
		return
	case st.closed:
		return
	}
	thread := t.message.ThreadID
	st.threads[thread] = slices.DeleteFunc(st.threads[thread], func(other *turn) bool { return other == t })
	delete(st.turns, requestID)
	st.waiting--
	st.bytes -= t.size
	st.active--
	t.cancel(Cancelled{reason})
	s.reply(response(&pb.MessageResponse{
		RequestId: requestID, Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: reason}},
	}))
	s.noteIdle()
}

func response(r *pb.MessageResponse) *pb.AgentMessage {
	return &pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: r}}
}

func done(full string) *pb.MessageResponse_Done {
	return &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: full}}
}
