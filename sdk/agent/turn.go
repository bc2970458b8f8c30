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
	// Fixed.
	message *Message
	size    int
	desk    *desk
	ctx     context.Context // the handler's; a child of desk.ctx
	cancel  context.CancelCauseFunc
	room    chan struct{} // capacity 1: less is kept, or the turn is over

	// Guarded by desk.mu.
	started bool
	over    bool // its answer is whole, or nobody wants it
	gone    bool // nobody wants it

	// Of an answer that can be gone on with, guarded by desk.mu.
	number    uint64             // of the last response
	kept      []*pb.AgentMessage // responses that are not known to be recorded
	keptBytes int
	sent      int    // how many of kept the connected session has taken
	served    uint64 // how often one was taken
}

// enqueue puts a message behind the others of its thread, or starts to answer the thread.
func (s *session) enqueue(p *pb.SendMessage) {
	d := s.desk
	t := &turn{
		message: &Message{RequestID: p.GetRequestId(), ThreadID: p.GetThreadId(), Sender: p.GetSender(), Content: p.GetContent()},
		size:    proto.Size(p), desk: d, room: make(chan struct{}, 1),
	}
	for _, a := range p.GetAttachments() {
		t.message.Attachments = append(t.message.Attachments, Attachment{Name: a.GetFilename(), Type: a.GetMimeType(), Data: a.GetData()})
	}
	thread := t.message.ThreadID

	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed: // the gateway hears that the stream ends
		return
	case d.turns[t.message.RequestID] != nil:
		s.opts.Logger.Warn("the gateway sent a request a second time; ignored", "agent_id", s.opts.ID, "request_id", t.message.RequestID)
		return
	case d.waiting >= maxWaiting, d.bytes+t.size > maxWaitingBytes:
		const busy = "the agent is busy: too many messages wait"
		s.reply(response(&pb.MessageResponse{RequestId: t.message.RequestID, Event: &pb.MessageResponse_Error{Error: busy}}))
		s.reply(response(&pb.MessageResponse{RequestId: t.message.RequestID, Event: done("Error: " + busy)}))
		return
	}
	t.ctx, t.cancel = context.WithCancelCause(context.WithValue(d.ctx, turnKey{}, t.message.RequestID))
	queue, running := d.threads[thread]
	d.threads[thread] = append(queue, t)
	d.turns[t.message.RequestID] = t
	d.waiting++
	d.bytes += t.size
	d.active.Add(1)
	if !running {
		d.tasks.Go(func() { d.answer(thread) })
	}
}

// answer handles the messages of a thread until none is left. Each takes a slot of its own, so that
// a busy thread does not keep the others from theirs.
func (d *desk) answer(thread string) {
	for {
		select {
		case d.slots <- struct{}{}:
		case <-d.ctx.Done():
			return
		}
		t := d.next(thread)
		if t != nil {
			d.handle(t)
		}
		<-d.slots
		if t == nil {
			return
		}
	}
}

// next starts the first turn that waits in a thread. When there is none, the thread is over.
func (d *desk) next(thread string) *turn {
	d.mu.Lock()
	defer d.mu.Unlock()
	queue := d.threads[thread]
	if len(queue) == 0 {
		delete(d.threads, thread)
		return nil
	}
	t := queue[0]
	queue[0] = nil
	d.threads[thread] = queue[1:]
	d.waiting--
	d.bytes -= t.size
	t.started = true
	return t
}

// turnKey is the key of the request id of the turn in its handler's context.
type turnKey struct{}

// handle answers one message and reports how it ended.
func (d *desk) handle(t *turn) {
	w := &Writer{turn: t}
	err := d.opts.Handler.Handle(t.ctx, t.message, w)
	if err := d.conclude(t, w, err); err != nil && d.ctx.Err() == nil && !errors.Is(err, ErrForgotten) {
		d.opts.Logger.Error("the end of a turn cannot be sent", "agent_id", d.opts.ID, "request_id", t.message.RequestID, "error", err)
	}
	t.cancel(ErrEnded)
	d.answered(t)
}

// conclude sends the end of a turn whose handler has returned err.
func (d *desk) conclude(t *turn, w *Writer, err error) error {
	send := func(e *pb.MessageResponse) error {
		e.RequestId = t.message.RequestID
		return d.respond(t.ctx, t, response(e), true, nil)
	}
	cause := context.Cause(t.ctx)
	cancelled, is := errors.AsType[Cancelled](cause)
	forgotten := errors.Is(cause, ErrForgotten)
	if err != nil && !is && !forgotten && d.ctx.Err() == nil {
		d.opts.Logger.Error("the handler failed", "agent_id", d.opts.ID, "request_id", t.message.RequestID, "error", err)
	}
	switch {
	case w.ended.Load() || forgotten:
		return nil
	case is:
		return send(&pb.MessageResponse{Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: cancelled.Reason}}})
	case err != nil && d.ctx.Err() != nil:
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
	d := s.desk
	d.mu.Lock()
	t := d.turns[requestID]
	switch {
	case t == nil || t.over: // it ended before it was stopped
		d.mu.Unlock()
		return
	case t.started:
		t.cancel(Cancelled{reason})
		d.mu.Unlock()
		return
	case d.closed:
		d.mu.Unlock()
		return
	}
	thread := t.message.ThreadID
	d.threads[thread] = slices.DeleteFunc(d.threads[thread], func(other *turn) bool { return other == t })
	d.waiting--
	d.bytes -= t.size
	t.over = true
	if !d.resumes {
		delete(d.turns, requestID)
	}
	t.cancel(Cancelled{reason})
	d.active.Add(-1)
	d.mu.Unlock()
	m := response(&pb.MessageResponse{
		RequestId: requestID, Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: reason}},
	})
	if d.resumes {
		_ = d.respond(t.ctx, t, m, true, nil) // it fails when the turn is gone
	} else {
		s.reply(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteIdle()
}

func response(r *pb.MessageResponse) *pb.AgentMessage {
	return &pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: r}}
}

func done(full string) *pb.MessageResponse_Done {
	return &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: full}}
}
