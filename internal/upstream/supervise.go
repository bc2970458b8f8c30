package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// State says how a server is.
type State string

// The states of a server.
const (
	Starting State = "starting"
	Running  State = "running"
	Failed   State = "failed"   // it is started again soon
	Disabled State = "disabled" // by an administrator
)

// Status is what is told of a server.
type Status struct {
	Server          // see [Server.Shown]
	State    State  //
	Error    string // why it last failed
	Since    time.Time
	Restarts int
	Sessions int // that are open
	Tools    []Tool
	Digest   string // over the tools that wait; "" if none does
}

// A server is one that is here.
type server struct {
	service *Service
	config  Server // fixed
	log     *ring
	ctx     context.Context // ends when it has to stop
	cancel  context.CancelFunc
	refresh chan struct{} // capacity 1: its tools may have changed
	looked  chan struct{} // closed once its tools were listed, or could not be
	ended   chan struct{} // closed when it has stopped
	calls   chan struct{} // a place for each open call
	// publishing has one place: who has it may change what agents know of the server.
	publishing chan struct{}
	users      sync.WaitGroup // who uses sessions or opens them; added to with mu held, before stopped

	mu       sync.Mutex
	state    State
	err      string
	since    time.Time
	restarts int
	stopped  bool
	offered  map[string]Definition // as last listed; nil before that
	pinned   map[string]Definition // as accepted
	held     map[string]string     // digests of changes that were reported
	refused  map[string]string     // why a tool cannot be used, by the name for agents
	pack     *packs.Registration   // nil before there is a tool that can be called

	published string                   // what agents know, as digests
	main      *session                 // nil while it does not run
	agents    map[string]*session      // by the agent or principal that has it
	opening   map[string]chan struct{} // closed when the session was opened, or could not be
}

// enter counts a user of the server's sessions; it fails once the server stops.
func (x *server) enter() (release func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped || x.state == Disabled {
		return nil, fault.New(fault.Unavailable, "the MCP server %s is disabled", x.config.Name)
	}
	x.users.Add(1)
	return x.users.Done, nil
}

func (x *server) set(state State, err error) {
	x.mu.Lock()
	x.state, x.since = state, time.Now()
	if err != nil {
		x.err = clip(err.Error())
	}
	if state == Failed {
		x.restarts++
	}
	x.mu.Unlock()
	up := 0.0
	if state == Running {
		up = 1
	}
	x.service.metrics.up.WithLabelValues(x.config.Name).Set(up)
	x.service.metrics.held.WithLabelValues(x.config.Name) // none are known until it is reached
}

// run keeps the server connected until its context ends.
func (x *server) run() {
	defer close(x.ended)
	looked := sync.OnceFunc(func() { close(x.looked) })
	defer looked()
	delay := minBackoff
	for x.ctx.Err() == nil {
		x.set(Starting, nil)
		began := time.Now()
		err := x.serve(looked)
		if x.ctx.Err() != nil {
			break
		}
		x.log.add("gateway: " + err.Error())
		x.service.opts.Logger.Warn("an MCP server has failed; it is started again", "server", x.config.Name, "error", err)
		x.set(Failed, err)
		looked()
		if time.Since(began) > steady {
			delay = minBackoff
		}
		x.service.metrics.restarts.WithLabelValues(x.config.Name).Inc()
		again := time.NewTimer(delay/2 + rand.N(delay/2))
		select {
		case <-again.C:
		case <-x.ctx.Done():
		}
		again.Stop()
		delay = min(2*delay, maxBackoff)
	}
	x.publishing <- struct{}{}
	x.mu.Lock()
	pack := x.pack
	x.pack, x.stopped = nil, true
	x.mu.Unlock()
	<-x.publishing
	x.service.metrics.up.WithLabelValues(x.config.Name).Set(0)
	if pack != nil {
		pack.Remove() // ends the open calls
	}
	x.users.Wait()
	x.closeAgents(func(*session) bool { return true })
}

// serve connects to the server and watches it until the connection ends or the server has to stop.
// looked is called when its tools are known.
func (x *server) serve(looked func()) error {
	if len(x.config.Command) > 0 && !x.service.opts.AllowCommands {
		return errors.New("this gateway runs no commands: mcp.allow_commands is false")
	}
	ctx, cancel := context.WithTimeout(x.ctx, connectTimeout)
	s, err := x.connect(ctx)
	if err == nil {
		defer s.close()
		err = x.look(ctx, s)
	}
	cancel()
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.main = s
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		x.main = nil
		x.mu.Unlock()
	}()
	x.set(Running, nil)
	x.log.add("gateway: connected")
	looked()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		case <-s.gone:
			return fmt.Errorf("the connection has ended: %w", s.why())
		case <-x.refresh:
		case <-tick.C:
			now := time.Now()
			x.closeAgents(func(s *session) bool { return s.open == 0 && now.Sub(s.used) > IdleTimeout })
		}
		ctx, cancel := context.WithTimeout(x.ctx, connectTimeout)
		err := x.look(ctx, s)
		cancel()
		if err != nil {
			return fmt.Errorf("listing its tools: %w", err)
		}
	}
}

// look lists the tools of the server and has agents know those that are as they were accepted.
func (x *server) look(ctx context.Context, s *session) error {
	offered, err := s.list(ctx)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.offered = offered
	x.mu.Unlock()
	if x.config.AutoAccept {
		if err := x.acceptNew(ctx); err != nil {
			return err
		}
	}
	if err := x.report(ctx); err != nil {
		return err
	}
	return x.publish()
}

// acceptNew accepts tools that nobody has seen before, as auto_accept says.
func (x *server) acceptNew(ctx context.Context) error {
	x.mu.Lock()
	var fresh []Definition
	for _, d := range sorted(x.offered) {
		if _, has := x.pinned[d.Name]; !has && x.config.allows(d.Name) {
			fresh = append(fresh, d)
		}
	}
	x.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	return x.pin(ctx, auth.Principal{}, fresh, "auto_accept")
}

// pin stores definitions as accepted.
func (x *server) pin(ctx context.Context, by auth.Principal, tools []Definition, how string) error {
	told := make([]string, len(tools))
	for i, d := range tools {
		told[i] = clip(d.Name) + " " + d.Digest()
	}
	record := auth.NewRecord(by, "accept_mcp_tools", "mcp_server", x.config.Name, map[string]any{"tools": told, "how": how})
	if err := x.service.opts.Store.Accept(context.WithoutCancel(ctx), x.config.Name, tools, by.ID, record); err != nil {
		return err
	}
	x.mu.Lock()
	x.pinned = maps.Clone(x.pinned) // who has the old one may go on reading it
	for _, d := range tools {
		x.pinned[d.Name] = d
	}
	x.mu.Unlock()
	return nil
}

// report writes down, once, that a tool is not as it was accepted.
func (x *server) report(ctx context.Context) error {
	x.mu.Lock()
	held := make(map[string]string)
	var fresh []Definition
	for _, d := range sorted(x.offered) {
		was, has := x.pinned[d.Name]
		if !has || !x.config.allows(d.Name) || was.Digest() == d.Digest() {
			continue
		}
		held[d.Name] = d.Digest()
		if x.held[d.Name] != held[d.Name] {
			fresh = append(fresh, d)
		}
	}
	x.held = held
	x.mu.Unlock()
	for _, d := range fresh {
		x.log.add("gateway: the tool " + d.Name + " is not as it was accepted; it is held back")
		x.service.opts.Logger.Warn("a tool of an MCP server is not as it was accepted; it is held back", "server", x.config.Name, "tool", clip(d.Name))
		r := auth.NewRecord(auth.Principal{}, "hold_mcp_tool", "mcp_server", x.config.Name, map[string]any{"tool": clip(d.Name), "digest": d.Digest()})
		if err := x.service.opts.Store.Note(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// publish has agents know the tools that can be called.
func (x *server) publish() error {
	x.publishing <- struct{}{}
	defer func() { <-x.publishing }()
	x.mu.Lock()
	var tools []packs.Tool
	var digests []string
	for _, t := range x.tools() {
		if t.State != Usable && t.State != Refused {
			continue
		}
		name := t.Name
		digests = append(digests, t.Digest())
		tools = append(tools, packs.Tool{
			Name: t.Callable, Description: t.Description, Schema: string(t.InputSchema), Timeout: x.config.Timeout,
			Call: func(ctx context.Context, c *packs.Call) (string, error) { return x.call(ctx, c, name) },
		})
	}
	key := strings.Join(digests, " ")
	pack, was, stopped, held := x.pack, x.published, x.stopped, len(x.waiting())
	x.mu.Unlock()
	if stopped {
		return nil
	}
	x.service.metrics.held.WithLabelValues(x.config.Name).Set(float64(held))
	if key == was {
		return nil
	}
	if pack == nil {
		// Added empty, so that the names of some that are taken are no reason to refuse the others.
		var err error
		if pack, err = x.service.opts.Packs.Add(packs.Pack{ID: string(packs.MCP) + ":" + x.config.Name, Kind: packs.MCP}); err != nil {
			return err
		}
		x.mu.Lock()
		x.pack = pack
		x.mu.Unlock()
	}
	if err := pack.Update(tools); err != nil {
		return err
	}
	refused := map[string]string{}
	for _, r := range pack.Rejected() {
		refused[r.Tool] = r.Reason
	}
	x.mu.Lock()
	x.published, x.refused = key, refused
	x.mu.Unlock()
	return nil
}

// tools returns all tools of the server, by name. x.mu is held.
func (x *server) tools() []Tool {
	names := slices.Collect(maps.Keys(x.offered))
	for name := range x.pinned {
		if _, has := x.offered[name]; !has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	list := make([]Tool, len(names))
	for i, name := range names {
		now, offers := x.offered[name]
		was, accepted := x.pinned[name]
		t := Tool{Definition: now, Callable: x.config.Prefix + name, State: Usable}
		switch reason, refused := x.refused[t.Callable]; {
		case !x.config.allows(name):
			t.State = Unused
		case !offers:
			t.Definition, t.State = was, Missing
		case !accepted:
			t.State = Unknown
		case was.Digest() != now.Digest():
			t.State, t.Accepted = Changed, was
		case refused:
			t.State, t.Reason = Refused, reason
		}
		if !offers {
			t.Definition = was
		}
		list[i] = t
	}
	return list
}

// waiting returns the tools that wait to be accepted, by name. x.mu is held.
func (x *server) waiting() []Definition {
	var list []Definition
	for _, t := range x.tools() {
		if t.State == Unknown || t.State == Changed {
			list = append(list, t.Definition)
		}
	}
	return list
}

// accept accepts tools as the server offers them now. The caller has the turn to change servers.
func (x *server) accept(ctx context.Context, by auth.Principal, names []string, seen string) error {
	x.mu.Lock()
	waiting := x.waiting()
	now := digest(waiting)
	x.mu.Unlock()
	if seen != "" && seen != now {
		return fault.New(fault.Conflict, "the tools of %s that wait are not those that were looked at; look again", x.config.Name)
	}
	accepted := waiting
	if len(names) > 0 {
		accepted = nil
		for _, name := range names {
			i := slices.IndexFunc(waiting, func(d Definition) bool { return d.Name == name })
			if i < 0 {
				return fault.New(fault.NotFound, "no tool %q of %s waits to be accepted", clip(name), x.config.Name)
			}
			accepted = append(accepted, waiting[i])
		}
	}
	if len(accepted) == 0 {
		return fault.New(fault.Conflict, "no tool of %s waits to be accepted", x.config.Name)
	}
	if err := x.pin(ctx, by, accepted, "accept"); err != nil {
		return err
	}
	return x.publish()
}

// accepted returns what was accepted.
func (x *server) accepted() []Definition {
	x.mu.Lock()
	defer x.mu.Unlock()
	return sorted(x.pinned)
}

// wait waits until the server's tools are known or cannot be, but not for longer than a while.
func (x *server) wait(ctx context.Context, while time.Duration) {
	t := time.NewTimer(while)
	defer t.Stop()
	select {
	case <-x.looked:
	case <-t.C:
	case <-ctx.Done():
	}
}

func (x *server) status() Status {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Status{
		Server: x.config.Shown(), State: x.state, Error: x.err, Since: x.since, Restarts: x.restarts, Sessions: len(x.agents),
		Tools: x.tools(), Digest: digest(x.waiting()),
	}
	if x.main != nil {
		s.Sessions++
	}
	return s
}
