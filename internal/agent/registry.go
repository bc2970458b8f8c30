// Package agent serves the agents: the gRPC service coven.CovenControl, one stream for each running
// agent.
//
// A stream is a [Conn]; the [Registry] knows which of them are here, finds them by id and hands
// them the messages of conversations.
//
// Ordering an agent may rely on: Welcome comes first, and everything else in the order in which the
// gateway decided to send it; a CancelRequest therefore never overtakes the message it cancels.
// Ordering a [conversation.Sink] may rely on: events come in the order of the stream, and Gone
// after the last of them.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Bounds of a shutdown.
const (
	// leaveGrace is how long agents have to leave by themselves after they were told.
	leaveGrace = 500 * time.Millisecond
	// endGrace is how long streams have to end after we have ended them. Only a sink that does not
	// obey its context can take that long.
	endGrace = time.Second
)

var errClosing = fault.New(fault.Unavailable, "the gateway is shutting down")

// Options are what a Registry needs. All fields are required.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tools      *packs.Registry
	ServerID   string // what Welcome calls this gateway; the same after every start

	// Admit decides whether the caller in ctx may be an agent with an id. It returns the
	// capabilities that take effect of those the agent asks for, and the secrets that it gets.
	Admit func(ctx context.Context, agentID string, asks []string) (capabilities []string, secrets map[string]string, err error)

	// Resume returns the turns that an agent that is back may go on with, of those that it still works on,
	// and ends the others that it had when its stream broke; nil where no turn outlives a stream.
	Resume func(agentID string, working []string) []conversation.Resumable
	// Grant returns the URL of the MCP server and a token for the agent whose connection ctx is, good
	// until it ends; nil for none. Caller says who it is, and what it is doing.
	Grant func(ctx context.Context, caller func() packs.Caller) (endpoint, token string)

	// Offer makes an agent that has become reachable a tool for others; withdraw is called when it leaves.
	// nil for none.
	Offer func(agentID string) (withdraw func())

	// Arrived is called after an agent has become reachable; nil for nobody.
	Arrived func(agentID string)

	ReconnectGrace   time.Duration // how long an agent waits for its own dying stream to free the id
	HeartbeatTimeout time.Duration // after which a stream that did send a heartbeat and is silent ends
}

// Info is what is known of a connected agent.
type Info struct {
	ID           string
	InstanceID   string // of this connection
	Name         string
	Capabilities []string // that the agent asked for and its principal has
	Workspaces   []string
	WorkingDir   string
	Backend      string
	Git          *Git // nil outside of a repository
	Hostname     string
	OS           string
	Features     []string // optional parts of the protocol that the agent understands
	Tools        []Tool   // that the agent hosts
	PrincipalID  string
	ConnectedAt  time.Time
	LastSeen     time.Time // when the agent's last message had been handled
	OpenTurns    int
	Queue        int // messages that wait for the agent to read them
	ToolCalls    int // tools that it has called and that have not returned
	HostedCalls  int // calls of its own tools that it has not answered
}

// Git is the state of an agent's repository when it registered.
type Git struct {
	Branch, Commit, Remote string
	Dirty                  bool
	Ahead, Behind          int
}

// A Tool is one that an agent hosts for others.
type Tool struct {
	Name        string
	Description string
	Schema      string        // JSON Schema of the input, unchecked
	Needs       []string      // capabilities that a caller must have
	Timeout     time.Duration // of a call
}

// A Registry knows the connected agents. It implements [conversation.Dispatcher].
type Registry struct {
	opts    Options
	logger  *slog.Logger
	metrics *metrics
	started time.Time // Conn.seen counts from here
	errands errands

	mu        sync.Mutex
	agents    map[string]*Conn // who holds an agent id; not all are welcomed yet
	instances map[string]*Conn // the same connections by instance id
	streams   map[*Conn]bool   // every stream with a goroutine, registered or not
	closing   bool
	idle      chan struct{} // closed when closing and no stream is left
	settled   bool          // idle is closed
}

// A newcomer waits for the id of an earlier stream. Its verdict is guarded by Registry.mu and true
// once decided is closed.
type newcomer struct {
	conn    *Conn
	decided chan struct{}
	verdict error // nil: the id is yours
}

// New returns a Registry without agents.
func New(o Options) *Registry {
	r := &Registry{
		opts: o, logger: o.Logger, started: time.Now(),
		agents:    make(map[string]*Conn),
		instances: make(map[string]*Conn),
		streams:   make(map[*Conn]bool),
		idle:      make(chan struct{}),
	}
	r.metrics = newMetrics(o.Registerer, r)
	o.Tools.OnChange(r.toolsChanged)
	return r
}

// begin counts a stream. It refuses it when the gateway is shutting down.
func (r *Registry) begin(c *Conn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return errClosing
	}
	r.streams[c] = true
	return nil
}

// finished forgets a stream none of whose goroutines is left.
func (r *Registry) finished(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, c)
	r.settle()
}

// settle notes that a shutdown is over. r.mu is held.
func (r *Registry) settle() {
	if r.closing && !r.settled && len(r.streams) == 0 {
		r.settled = true
		close(r.idle)
	}
}

// enter gives a connection the id that it asks for. When an earlier stream of the same principal
// has it, enter waits for that one to end, unless it shows that it is alive: an agent that was
// restarted keeps its id, and two agents that were given the same id do not push each other out.
func (r *Registry) enter(ctx context.Context, c *Conn) error {
	taken := fault.New(fault.Exists, "agent %s already registered", c.info.ID)
	r.mu.Lock()
	holder := r.agents[c.info.ID]
	switch {
	case r.closing:
		r.mu.Unlock()
		return errClosing
	case holder == nil && r.instances[c.info.ID] == nil:
		r.seat(c)
		r.mu.Unlock()
		return nil
	case holder == nil || holder.info.PrincipalID != c.info.PrincipalID || holder.next != nil:
		r.mu.Unlock()
		return taken
	}
	n := &newcomer{conn: c, decided: make(chan struct{})}
	holder.next = n
	holder.contested.Store(true)
	r.mu.Unlock()

	grace := time.NewTimer(r.opts.ReconnectGrace)
	defer grace.Stop()
	select {
	case <-n.decided:
	case <-grace.C:
	case <-ctx.Done():
	}
	var verdict error = taken
	if ctx.Err() != nil {
		verdict = errLeft
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decide(holder, n, verdict) // without effect when it is decided
	return n.verdict
}

// decide answers the newcomer that waits for a connection's id. r.mu is held.
func (r *Registry) decide(holder *Conn, n *newcomer, verdict error) {
	if n == nil || holder.next != n {
		return
	}
	holder.next = nil
	holder.contested.Store(false)
	n.verdict = verdict
	close(n.decided)
}

// seat makes a connection the holder of its id. r.mu is held and the id is free.
func (r *Registry) seat(c *Conn) {
	for c.info.InstanceID == "" || r.instances[c.info.InstanceID] != nil || r.agents[c.info.InstanceID] != nil {
		c.info.InstanceID = uuid.NewString()[:12]
	}
	r.agents[c.info.ID] = c
	r.instances[c.info.InstanceID] = c
}

// publish makes a connection visible.
func (r *Registry) publish(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.welcomed = true
}

// alive says that a contested connection has sent something.
func (r *Registry) alive(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decide(c, c.next, fault.New(fault.Exists, "agent %s already registered", c.info.ID))
}

// leave takes the id from a connection. If a newcomer waits for it, nobody else can get it first.
func (r *Registry) leave(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agents[c.info.ID] != c {
		return // it never had one
	}
	delete(r.agents, c.info.ID)
	delete(r.instances, c.info.InstanceID)
	if n := c.next; n != nil {
		r.seat(n.conn)
		r.decide(c, n, nil)
	}
}

// find returns a welcomed connection by agent id or instance id, or nil.
func (r *Registry) find(id string) *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.agents[id]
	if c == nil {
		c = r.instances[id]
	}
	if c == nil || !c.welcomed {
		return nil
	}
	return c
}

// Resolve implements [conversation.Dispatcher].
func (r *Registry) Resolve(id string) (agentID string, ok bool) {
	c := r.find(id)
	if c == nil {
		return "", false
	}
	return c.info.ID, true
}

// ResolvePrincipal implements [conversation.Dispatcher].
func (r *Registry) ResolvePrincipal(principalID, workingDir string) (agentID string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.agents {
		if c.welcomed && c.info.PrincipalID == principalID && (workingDir == "" || workingDir == c.info.WorkingDir) && (!ok || id < agentID) {
			agentID, ok = id, true
		}
	}
	return agentID, ok
}

// Dispatch implements [conversation.Dispatcher]. A message of more than MaxDispatch bytes is a
// TooLarge fault.
func (r *Registry) Dispatch(ctx context.Context, agentID string, m conversation.Dispatch, to conversation.Sink) (conversation.Call, error) {
	msg := sendMessage(m)
	if n := proto.Size(msg); n > MaxDispatch {
		return nil, fault.New(fault.TooLarge, "a message to an agent must not be larger than %d bytes, attachments included; this one has %d", MaxDispatch, n)
	}
	c := r.find(agentID)
	if c == nil {
		return nil, conversation.ErrAgentGone
	}
	return c.dispatch(ctx, m.TurnID, msg, to)
}

// Approve answers an agent that asked whether it may use a tool. all says that the answer holds for
// the rest of the request. It does not wait for the agent. It fails with
// [conversation.ErrAgentGone], or with an Unavailable fault when the agent does not read.
func (r *Registry) Approve(agentID, toolID string, approved, all bool) error {
	c := r.find(agentID)
	if c == nil {
		return conversation.ErrAgentGone
	}
	return c.tell(toolApproval(toolID, approved, all))
}

// Resumable implements [conversation.Dispatcher].
func (r *Registry) Resumable(agentID string) bool {
	c := r.find(agentID)
	return c != nil && c.resumes()
}

// Agent returns what is known of a connected agent, by agent id or instance id.
func (r *Registry) Agent(id string) (Info, bool) {
	c := r.find(id)
	if c == nil {
		return Info{}, false
	}
	return c.snapshot(), true
}

// End ends the stream of an agent, if there is one, with a cause for those who wait for it and a
// status for the agent.
func (r *Registry) End(agentID, cause string, status error) {
	r.mu.Lock()
	c := r.agents[agentID]
	r.mu.Unlock()
	if c != nil {
		c.end(&ending{cause, false, status})
	}
}

// List returns the connected agents, sorted by id.
func (r *Registry) List() []Info {
	conns := r.welcomed(nil)
	infos := make([]Info, len(conns))
	for i, c := range conns {
		infos[i] = c.snapshot()
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.ID, b.ID) })
	return infos
}

// Len returns the number of connected agents.
func (r *Registry) Len() int { return len(r.welcomed(nil)) }

// welcomed returns the connections that clients can see, of those for which which is true; of all if it is nil.
func (r *Registry) welcomed(which func(*Conn) bool) []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	var conns []*Conn
	for _, c := range r.agents {
		if c.welcomed && (which == nil || which(c)) {
			conns = append(conns, c)
		}
	}
	return conns
}

// Shutdown tells every agent that the gateway is going away, and refuses new ones. Agents have
// leaveGrace, or until ctx ends, to leave; the streams of those that stay are then ended with OK.
// It returns when no stream is left.
func (r *Registry) Shutdown(ctx context.Context, reason string) error {
	defer r.errands.close()
	r.mu.Lock()
	r.closing = true
	streams := make([]*Conn, 0, len(r.streams))
	for c := range r.streams {
		streams = append(streams, c)
		r.decide(c, c.next, errClosing)
	}
	r.settle()
	r.mu.Unlock()

	for _, c := range streams {
		c.bye(reason)
	}
	grace := time.NewTimer(leaveGrace)
	defer grace.Stop()
	select {
	case <-r.idle:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	for _, c := range streams {
		c.end(errShutDown)
	}
	grace.Reset(endGrace)
	select {
	case <-r.idle:
		return nil
	case <-grace.C:
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("%d agent streams did not end", len(r.streams))
	}
}

// shuttingDown reports whether Shutdown was called.
func (r *Registry) shuttingDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closing
}

var _ conversation.Dispatcher = (*Registry)(nil)
