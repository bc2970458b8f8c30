package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// What is kept of the results that an agent was sent, in case its stream has broken before it read them. The
// outcome of what does not fit is unknown to it then.
const (
	maxKeptResults     = 16
	maxKeptResultBytes = 128 << 10
)

// maxOpenToolCalls bounds the calls that an agent says it waits for.
const maxOpenToolCalls = 256

// errAway ends the calls of an agent that has not come back.
var errAway = fault.New(fault.Gone, "the agent that called has not come back")

// errands are the calls of tools by agents that resume. They do not end with the stream on which they were
// made: the agent hears of the result on its next one, once it names the call there. Nothing is called a
// second time.
type errands struct {
	tasks sync.WaitGroup // calls; started with mu held and only while not closed

	mu     sync.Mutex // never held while something waits
	closed bool
	of     map[string]*errandsOf // by agent id; nil before the first
}

// errandsOf are those of one agent. Guarded by errands.mu.
type errandsOf struct {
	agentID   string
	principal string
	conn      *Conn                              // where the agent is; nil while it is away
	open      map[string]context.CancelCauseFunc // by request id
	results   []*pb.ServerMessage                // the newest ones, the oldest first
	bytes     int                                // of them
	late      *time.Timer                        // ends all when the agent does not return; nil while it is here
}

// start runs a call on a goroutine of its own and sends its result to wherever the agent is then.
func (e *errands) start(c *Conn, id string, call func(context.Context) *pb.ServerMessage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return // the stream is about to end
	}
	o := e.of[c.info.ID]
	if o == nil || o.conn != c {
		e.drop(o, errAway) // somebody else's
		o = &errandsOf{agentID: c.info.ID, principal: c.info.PrincipalID, conn: c, open: make(map[string]context.CancelCauseFunc)}
		if e.of == nil {
			e.of = make(map[string]*errandsOf)
		}
		e.of[o.agentID] = o
	}
	o.forget(id) // of an earlier call
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.ctx))
	o.open[id] = cancel
	e.tasks.Go(func() {
		defer cancel(nil)
		e.finish(o, id, call(ctx))
	})
}

// finish keeps a result and sends it, if somebody waits for it.
func (e *errands) finish(o *errandsOf, id string, result *pb.ServerMessage) {
	e.mu.Lock()
	_, wanted := o.open[id]
	delete(o.open, id)
	c := o.conn
	if wanted {
		o.keep(result)
	}
	e.mu.Unlock()
	if !wanted || c == nil {
		return
	}
	if err := c.finishTool(id, result); err != nil {
		c.end(endingOf(err))
	}
}

// keep remembers a result, as long as there is room.
func (o *errandsOf) keep(m *pb.ServerMessage) {
	size := proto.Size(m)
	if size > maxKeptResultBytes {
		return
	}
	for len(o.results) == maxKeptResults || o.bytes+size > maxKeptResultBytes {
		o.bytes -= proto.Size(o.results[0])
		o.results = slices.Delete(o.results, 0, 1)
	}
	o.results, o.bytes = append(o.results, m), o.bytes+size
}

// forget lets go of the result of a call.
func (o *errandsOf) forget(id string) {
	o.results = slices.DeleteFunc(o.results, func(m *pb.ServerMessage) bool {
		if m.GetPackToolResult().GetRequestId() != id {
			return false
		}
		o.bytes -= proto.Size(m)
		return true
	})
}

// lost says that the stream of an agent has ended, and whether the agent may come back.
func (e *errands) lost(c *Conn, broke bool, grace time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.of[c.info.ID]
	if o == nil || o.conn != c {
		return
	}
	o.conn = nil
	if !broke || e.closed || len(o.open)+len(o.results) == 0 {
		e.drop(o, errAway)
		return
	}
	o.late = time.AfterFunc(grace, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if o.conn == nil {
			e.drop(o, errAway)
		}
	})
}

// returned makes a stream the one that results go to. It returns which of the calls that the agent waits for
// go on, and what is to be said of the others. What the agent does not wait for ends.
func (e *errands) returned(c *Conn, waits []string) (running []string, ended []*pb.ServerMessage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.of[c.info.ID]
	if o != nil && o.principal != c.info.PrincipalID {
		e.drop(o, errAway)
		o = nil
	}
	results := make(map[string]*pb.ServerMessage)
	if o != nil {
		o.conn = c
		if o.late != nil {
			o.late.Stop()
			o.late = nil
		}
		for _, m := range o.results {
			results[m.GetPackToolResult().GetRequestId()] = m
		}
		for id, end := range maps.Clone(o.open) {
			if !slices.Contains(waits, id) {
				delete(o.open, id)
				end(errAway)
			}
		}
		for id := range results {
			if !slices.Contains(waits, id) {
				o.forget(id)
			}
		}
	}
	for _, id := range waits {
		switch {
		case o != nil && o.open[id] != nil:
			running = append(running, id)
		case results[id] != nil:
			ended = append(ended, results[id])
		default:
			ended = append(ended, toolResult(id, "", fault.New(fault.Unavailable, "the outcome of this call is not known: the gateway does not have it any more")))
		}
	}
	return running, ended
}

// drop ends the calls of an agent; nil is nobody. e.mu is held.
func (e *errands) drop(o *errandsOf, why error) {
	if o == nil {
		return
	}
	if o.late != nil {
		o.late.Stop()
	}
	for _, end := range o.open {
		end(why)
	}
	clear(o.open)
	if e.of[o.agentID] == o {
		delete(e.of, o.agentID)
	}
}

// close ends all calls and waits for them.
func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	for _, o := range e.of {
		e.drop(o, errClosing)
	}
	e.mu.Unlock()
	e.tasks.Wait()
}
