// Package upstream makes the tools of MCP servers callable through the gateway, each server as a
// [packs.Pack]. A server is a program that the gateway runs and speaks to over its stdin and stdout,
// or one that it reaches over Streamable HTTP.
//
// A server is not trusted. What it says of a tool (name, description, schemas, annotations) is shown
// to an administrator once and pinned; agents are told what was accepted and nothing else, and a tool
// that its server describes differently is held back until that is accepted, too.
//
// A call is sent once. When the connection is lost meanwhile its caller is told that the outcome is
// unknown; nothing is ever sent again by the gateway itself.
//
// Who owns what: the [Service] knows the servers. Each has one goroutine, run, which connects,
// watches, and starts again after a failure. A session belongs to the server that has opened it, and
// waits for its process. A call runs on its caller's goroutine. No lock is held while anything waits.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// Limits of servers and their sessions.
const (
	// MaxServers is how many servers there may be.
	MaxServers = 64
	// MaxCalls is how many calls of one server may be open.
	MaxCalls = 64
	// MaxAgentSessions is how many sessions one server has at once where each agent has its own.
	MaxAgentSessions = 32
	// IdleTimeout is how long such a session lives without a call.
	IdleTimeout = 10 * time.Minute
	// MaxLogLines is how many of the latest lines of a server are kept, and MaxLogLine how long one
	// may be, in bytes.
	MaxLogLines = 500
	MaxLogLine  = 1 << 10

	// connectTimeout is how long a server has to start and to list its tools.
	connectTimeout = 30 * time.Second
	// firstLook is how long whoever adds a server waits for that.
	firstLook = 20 * time.Second
	// checkEvery is how often a server is asked for its tools, to see that it lives and what it says.
	checkEvery = 30 * time.Second
	// minBackoff and maxBackoff bound the wait before a server is started again; it doubles with each
	// failure and begins anew after the server has run for steady. Half of it is random.
	minBackoff = time.Second
	maxBackoff = 2 * time.Minute
	steady     = time.Minute
)

// Options are what a Service needs. All fields are required.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Packs      *packs.Registry
	Store      Store
	Version    string // of the gateway
	// AllowCommands says that servers may be programs that the gateway runs.
	AllowCommands bool
	// Secret returns the value of a stored secret that is meant for everybody, or a NotFound fault.
	Secret func(ctx context.Context, name string) (string, error)
}

// A Store keeps servers and what was accepted of them. What is not there is a NotFound fault. Each
// change is stored together with its audit record.
type Store interface {
	// Servers returns all servers.
	Servers(ctx context.Context) ([]Server, error)
	// AddServer fails with an Exists fault if the name is taken.
	AddServer(ctx context.Context, s Server, r auth.AuditRecord) error
	EnableServer(ctx context.Context, name string, enabled bool, r auth.AuditRecord) error
	// RemoveServer also forgets what was accepted.
	RemoveServer(ctx context.Context, name string, r auth.AuditRecord) error

	// Accepted returns what was accepted of a server.
	Accepted(ctx context.Context, server string) ([]Definition, error)
	// Accept pins definitions; those of the same name are replaced.
	Accept(ctx context.Context, server string, tools []Definition, by string, r auth.AuditRecord) error
	// Note records something that changes nothing here.
	Note(ctx context.Context, r auth.AuditRecord) error
}

// A Service knows the servers.
type Service struct {
	opts    Options
	metrics *metrics
	ctx     context.Context
	stop    context.CancelFunc
	runs    sync.WaitGroup // of servers; added to with changing held
	// changing has one place: who has it may change the set of servers.
	changing chan struct{}

	mu      sync.Mutex
	servers map[string]*server
}

// New returns a service, and starts the servers that are stored. It must be closed.
func New(ctx context.Context, o Options) (*Service, error) {
	s := &Service{opts: o, metrics: newMetrics(o.Registerer), changing: make(chan struct{}, 1), servers: make(map[string]*server)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	stored, err := o.Store.Servers(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range stored {
		pinned, err := o.Store.Accepted(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		s.begin(c, pinned)
	}
	return s, nil
}

// Close ends all servers and waits for them: programs are told to end, and are killed when they do
// not.
func (s *Service) Close() {
	s.stop()
	s.changing <- struct{}{} // for ever: nothing is added any more
	s.runs.Wait()
}

// begin enters a server and starts it if it is enabled.
func (s *Service) begin(c Server, pinned []Definition) *server {
	x := &server{service: s, config: c, log: &ring{}, pinned: byName(pinned), refresh: make(chan struct{}, 1), looked: make(chan struct{}), ended: make(chan struct{})}
	x.state, x.since = Disabled, time.Now()
	x.calls = make(chan struct{}, MaxCalls)
	x.agents, x.opening = make(map[string]*session), make(map[string]chan struct{})
	x.publishing = make(chan struct{}, 1)
	x.ctx, x.cancel = context.WithCancel(s.ctx)
	s.mu.Lock()
	s.servers[c.Name] = x
	s.mu.Unlock()
	if !c.Enabled {
		close(x.looked)
		close(x.ended)
		return x
	}
	s.runs.Go(x.run)
	return x
}

// end stops a server and waits for that.
func (x *server) end() {
	x.cancel()
	<-x.ended
}

// change waits for its turn to change the set of servers.
func (s *Service) change(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.ctx.Done():
		return nil, fault.New(fault.Unavailable, "the gateway is shutting down")
	}
}

// find returns a server, or a NotFound fault.
func (s *Service) find(name string) (*server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.servers[name]
	if x == nil {
		return nil, fault.New(fault.NotFound, "no MCP server %q", name)
	}
	return x, nil
}

// Add stores a server, starts it, and waits a while for its tools. With accept they are accepted as
// they are; otherwise nobody can call them before [Service.Accept].
//
// Faults: Invalid about the server; Exists if the name is taken; Conflict when there are too many;
// Forbidden for a command, unless an owner adds it and commands are allowed.
func (s *Service) Add(ctx context.Context, c Server, accept bool) (Status, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Status{}, err
	}
	if err := c.check(); err != nil {
		return Status{}, err
	}
	if err := s.mayRun(p, c); err != nil {
		return Status{}, err
	}
	x, err := s.add(ctx, p, c)
	if err != nil {
		return Status{}, err
	}
	x.wait(ctx, firstLook)
	if accept {
		if accepted, err := s.Accept(ctx, c.Name, nil, ""); err == nil || fault.CodeOf(err) != fault.Conflict { // nothing waits
			return accepted, err
		}
	}
	return x.status(), nil
}

// add stores a server and starts it.
func (s *Service) add(ctx context.Context, p auth.Principal, c Server) (*server, error) {
	done, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := s.find(c.Name); err == nil {
		return nil, fault.New(fault.Exists, "there is an MCP server %q already", c.Name)
	}
	if len(s.all()) >= MaxServers {
		return nil, fault.New(fault.Conflict, "there must not be more than %d MCP servers", MaxServers)
	}
	c.Enabled, c.CreatedAt, c.CreatedBy = true, time.Now().UTC().Truncate(time.Microsecond), p.ID
	// It is stored whether or not the caller waits for the answer.
	record := auth.NewRecord(p, "add_mcp_server", "mcp_server", c.Name, map[string]any{
		"command": c.Command, "url": shownURL(c.URL), "allow_private": c.AllowPrivate, "auto_accept": c.AutoAccept, "secrets": c.secrets(),
	})
	if err := s.opts.Store.AddServer(context.WithoutCancel(ctx), c, record); err != nil {
		return nil, err
	}
	return s.begin(c, nil), nil
}

// mayRun refuses a command unless an owner asks for it: it is the right to run programs on the
// gateway's machine, as its user.
func (s *Service) mayRun(p auth.Principal, c Server) error {
	switch {
	case len(c.Command) == 0:
		return nil
	case !s.opts.AllowCommands:
		return fault.New(fault.Forbidden, "this gateway runs no commands: mcp.allow_commands is false")
	case !p.Has(auth.Owner):
		return fault.New(fault.Forbidden, "owner role required: a command runs as the gateway's own user")
	}
	return nil
}

// Enable starts a server that was stopped, or stops it. Its tools come and go with it.
func (s *Service) Enable(ctx context.Context, name string, enabled bool) (Status, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Status{}, err
	}
	x, err := s.enable(ctx, p, name, enabled)
	if err != nil {
		return Status{}, err
	}
	x.wait(ctx, firstLook)
	return x.status(), nil
}

func (s *Service) enable(ctx context.Context, p auth.Principal, name string, enabled bool) (*server, error) {
	done, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	x, err := s.find(name)
	if err != nil || x.config.Enabled == enabled {
		return x, err
	}
	if enabled {
		if err := s.mayRun(p, x.config); err != nil {
			return nil, err
		}
	}
	action := map[bool]string{true: "enable_mcp_server", false: "disable_mcp_server"}[enabled]
	if err := s.opts.Store.EnableServer(context.WithoutCancel(ctx), name, enabled, auth.NewRecord(p, action, "mcp_server", name, nil)); err != nil {
		return nil, err
	}
	x.end()
	c := x.config
	c.Enabled = enabled
	return s.begin(c, x.accepted()), nil
}

// Remove stops a server and forgets it, with what was accepted of it.
func (s *Service) Remove(ctx context.Context, name string) error {
	p, err := auth.From(ctx)
	if err != nil {
		return err
	}
	done, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	x, err := s.find(name)
	if err != nil {
		return err
	}
	if err := s.opts.Store.RemoveServer(context.WithoutCancel(ctx), name, auth.NewRecord(p, "remove_mcp_server", "mcp_server", name, nil)); err != nil {
		return err
	}
	x.end()
	s.mu.Lock()
	delete(s.servers, name)
	s.mu.Unlock()
	s.metrics.forget(name)
	return nil
}

// Accept accepts tools of a server as they are now, by the names that it gives them; with none, all
// that wait. A digest says what was looked at, see [Status]; with another one than that nothing is accepted.
//
// Faults: NotFound for a server or tool that is not there; Conflict if nothing waits, or it is not
// what was looked at.
func (s *Service) Accept(ctx context.Context, name string, tools []string, digest string) (Status, error) {
	p, err := auth.From(ctx)
	if err != nil {
		return Status{}, err
	}
	done, err := s.change(ctx)
	if err != nil {
		return Status{}, err
	}
	defer done()
	x, err := s.find(name)
	if err != nil {
		return Status{}, err
	}
	if err := x.accept(ctx, p, tools, digest); err != nil {
		return Status{}, err
	}
	return x.status(), nil
}

// A Trial is what a new session with a server has shown.
type Trial struct {
	Server, Version, Protocol string // what it says it is, and the revision of the protocol
	Tools                     []string
	Took                      time.Duration
}

// Test opens a session of its own with a server, lists its tools, and closes it.
//
// Faults: NotFound; Unavailable with what went wrong.
func (s *Service) Test(ctx context.Context, name string) (Trial, error) {
	x, err := s.find(name)
	if err != nil {
		return Trial{}, err
	}
	release, err := x.enter()
	if err != nil {
		return Trial{}, err
	}
	defer release()
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := x.connect(ctx)
	if err != nil {
		return Trial{}, unavailable(err, name)
	}
	defer c.close()
	tools, err := c.list(ctx)
	if err != nil {
		return Trial{}, unavailable(err, name)
	}
	t := Trial{Took: time.Since(start), Tools: slices.Sorted(maps.Keys(tools))}
	if r := c.client.InitializeResult(); r != nil {
		t.Protocol = r.ProtocolVersion
		if r.ServerInfo != nil {
			t.Server, t.Version = clip(r.ServerInfo.Name), clip(r.ServerInfo.Version)
		}
	}
	return t, nil
}

// unavailable says why a server could not be used.
func unavailable(err error, name string) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "the MCP server %s: %s", name, clip(err.Error()))
}

// clip keeps what a server says from filling a message.
func clip(s string) string {
	if len(s) > MaxLogLine {
		s = s[:MaxLogLine] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// all returns the servers, by name.
func (s *Service) all() []*server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.servers), func(a, b *server) int { return strings.Compare(a.config.Name, b.config.Name) })
}

// List returns the servers, by name.
func (s *Service) List() []Status {
	all := s.all()
	list := make([]Status, len(all))
	for i, x := range all {
		list[i] = x.status()
	}
	return list
}

// Get returns a server, or a NotFound fault.
func (s *Service) Get(name string) (Status, error) {
	x, err := s.find(name)
	if err != nil {
		return Status{}, err
	}
	return x.status(), nil
}

// Logs returns the latest lines of a server, the oldest first: what it writes to stderr, and what
// the gateway notes about it.
func (s *Service) Logs(name string) ([]Line, error) {
	x, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return x.log.lines(), nil
}

// resolve puts secrets into a value.
func (s *Service) resolve(ctx context.Context, value string) (string, error) {
	var failed error
	out := reference.ReplaceAllStringFunc(value, func(ref string) string {
		name := reference.FindStringSubmatch(ref)[1]
		v, err := s.opts.Secret(ctx, name)
		if err != nil && failed == nil {
			failed = fmt.Errorf("secret %s: %w", name, err)
		}
		return v
	})
	return out, failed
}
