package packs

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/tracing"
)

// errDisconnected is why the calls of a pack end that goes away.
var errDisconnected = fault.New(fault.Unavailable, "pack disconnected")

// Options are what a Registry needs. Policies and Tracer may be nil, and Approve where no policy needs it; all else is required.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Rights     Rights
	Policies   map[string]Policy // by tool
	Tracer     *tracing.Tracer   // nil to trace nothing
	// Approve asks people whether a call may be made, and returns why it may not.
	Approve func(ctx context.Context, c *Call) error
	// Ran is told of each call that belongs to a turn, when it has ended and before its caller knows. Nil to tell nobody.
	Ran func(ctx context.Context, r Run)
}

// A Run is a call that has ended.
type Run struct {
	Caller
	ID     string // of the call
	Tool   string // as it was asked for, clipped
	Pack   string // "" where there is no such tool
	Result string // "ok", or the code of its fault
	Took   time.Duration
}

// A Registry knows all tools.
type Registry struct {
	opts    Options
	metrics *metrics
	waits   waits

	mu      sync.Mutex // never held during a call
	packs   map[string]*Registration
	others  int // packs that are not the gateway's own
	tools   map[string]*tool
	changed []func() // fixed before the first pack is added
}

// A Registration is a pack that is here.
type Registration struct {
	registry *Registry
	pack     Pack // without its Tools
	since    time.Time
	here     context.Context // ends when it goes away
	end      context.CancelCauseFunc

	// Guarded by registry.mu.
	tools    []string // that were accepted
	rejected []Rejection
	removed  bool
}

// A Rejection is a tool that was not accepted, while the rest of its pack was.
type Rejection struct {
	Tool   string // its name, as the pack gave it
	Reason string
}

// A tool is one that can be called.
type tool struct {
	Tool
	pack    *Registration
	schema  *jsonschema.Schema
	policy  Policy
	needs   []string // its own and those of the policy
	limiter *auth.Limiter
}

// New returns a registry without tools.
func New(o Options) *Registry {
	return &Registry{opts: o, metrics: newMetrics(o.Registerer), packs: make(map[string]*Registration), tools: make(map[string]*tool)}
}

// OnChange has fn called after tools have come or gone. It must not wait for anything, and must be
// set before the first pack is added.
func (r *Registry) OnChange(fn func()) { r.changed = append(r.changed, fn) }

// Add makes the tools of a pack callable. One that is malformed, or has the name of another one, is
// rejected alone. The pack must be removed when it goes away.
//
// Faults: Invalid about the pack; Exists if its id is taken, or if none of its tools was accepted
// because their names are taken.
func (r *Registry) Add(p Pack) (*Registration, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	reg := &Registration{registry: r, pack: p, since: time.Now().UTC()}
	reg.pack.Tools = nil
	offered := len(p.Tools)
	ready, rejected := r.prepareAll(reg, p.Tools) // compiled before the lock is taken
	reg.here, reg.end = context.WithCancelCause(context.Background())

	r.mu.Lock()
	collision, err := r.add(reg, p, ready, rejected)
	tools, rejected := len(reg.tools), reg.rejected
	r.mu.Unlock()
	if err == nil && offered > 0 && tools == 0 {
		reg.Remove()
		if collision == nil {
			collision = fault.New(fault.Invalid, "none of the pack's tools can be used: %s: %s", clip(rejected[0].Tool), rejected[0].Reason)
		}
		err = collision
	}
	if err != nil {
		reg.end(nil)
		return nil, err
	}
	reg.told(rejected)
	r.opts.Logger.Info("pack added", "pack", p.ID, "kind", p.Kind, "version", p.Version, "principal", p.Principal, "tools", tools, "rejected", len(rejected))
	r.notify()
	return reg, nil
}

// told logs the tools that were rejected.
func (reg *Registration) told(rejected []Rejection) {
	for _, x := range rejected {
		reg.registry.opts.Logger.Warn("a tool was rejected", "pack", reg.pack.ID, "tool", clip(x.Tool), "reason", x.Reason)
	}
}

// Update replaces the tools of a pack. Calls that are under way go on, also those of a tool that is
// no longer there. One that is malformed, or has the name of another one, is rejected alone. A pack
// that was removed stays so.
func (reg *Registration) Update(tools []Tool) error {
	r := reg.registry
	if len(tools) > MaxTools {
		return fault.New(fault.Invalid, "a pack must not have more than %d tools; this one has %d", MaxTools, len(tools))
	}
	ready, rejected := r.prepareAll(reg, tools)
	r.mu.Lock()
	if reg.removed {
		r.mu.Unlock()
		return errDisconnected
	}
	before := len(reg.rejected)
	for _, name := range reg.tools {
		delete(r.tools, name)
	}
	r.enter(reg, ready, rejected)
	n, rejected := len(reg.tools), slices.Clone(reg.rejected)
	r.mu.Unlock()
	if len(rejected) > before {
		reg.told(rejected)
	}
	r.opts.Logger.Info("pack updated", "pack", reg.pack.ID, "tools", n, "rejected", len(rejected))
	r.notify()
	return nil
}

// prepareAll compiles tools, and names those for which that is not possible.
func (r *Registry) prepareAll(reg *Registration, tools []Tool) (ready []*tool, rejected []Rejection) {
	for _, t := range tools {
		x, err := r.prepare(reg, t)
		if err != nil {
			rejected = append(rejected, Rejection{t.Name, err.Error()})
			continue
		}
		ready = append(ready, x)
	}
	return ready, rejected
}

// prepare compiles a tool.
func (r *Registry) prepare(reg *Registration, t Tool) (*tool, error) {
	err := t.check()
	var schema *jsonschema.Schema
	if err == nil {
		if reg.pack.Kind == Builtin {
			schema, t.Schema, err = compileOnce(t.Schema)
		} else {
			schema, t.Schema, err = compile(t.Schema)
		}
	}
	if err != nil {
		return nil, err
	}
	x := &tool{Tool: t, pack: reg, schema: schema, policy: r.opts.Policies[t.Name]}
	x.needs = slices.Concat(t.Needs, x.policy.Needs)
	if x.Timeout == 0 {
		x.Timeout = DefaultTimeout
	}
	if x.policy.Timeout > 0 {
		x.Timeout = x.policy.Timeout
	}
	x.Timeout = min(x.Timeout, MaxTimeout)
	x.limiter = auth.NewLimiter(float64(x.policy.PerMinute)/60, x.policy.PerMinute)
	return x, nil
}

// add enters a pack and those of its tools whose names are free. collision is the first that was
// not. r.mu is held.
func (r *Registry) add(reg *Registration, p Pack, ready []*tool, rejected []Rejection) (collision, err error) {
	switch {
	case r.packs[p.ID] != nil:
		return nil, fault.New(fault.Exists, "pack %s already registered", p.ID)
	case p.Kind != Builtin && r.others >= MaxPacks:
		return nil, fault.New(fault.Limited, "there are %d packs; there cannot be more", MaxPacks)
	}
	r.packs[p.ID] = reg
	if p.Kind != Builtin {
		r.others++
	}
	return r.enter(reg, ready, rejected), nil
}

// enter gives a pack its tools, whose names it has freed, and returns the first collision of a name,
// or nil. r.mu is held.
func (r *Registry) enter(reg *Registration, ready []*tool, rejected []Rejection) (collision error) {
	reg.tools, reg.rejected = nil, rejected
	for _, t := range ready {
		if taken := r.tools[t.Name]; taken != nil {
			reason := "already registered by pack '" + taken.pack.pack.ID + "'"
			switch {
			case taken.pack == reg:
				reason = "is in this pack twice"
			case taken.pack.pack.Kind == Builtin:
				reason = "already registered as builtin"
			}
			reg.rejected = append(reg.rejected, Rejection{t.Name, reason})
			if collision == nil {
				collision = fault.New(fault.Exists, "tool collision: tool name collision: tool '%s' %s", t.Name, reason)
			}
			continue
		}
		r.tools[t.Name] = t
		reg.tools = append(reg.tools, t.Name)
	}
	return collision
}

// Rejected returns the tools that were not accepted.
func (reg *Registration) Rejected() []Rejection {
	reg.registry.mu.Lock()
	defer reg.registry.mu.Unlock()
	return slices.Clone(reg.rejected)
}

// Remove takes the pack's tools away. Their open calls end at once. It may be called again.
func (reg *Registration) Remove() {
	r := reg.registry
	r.mu.Lock()
	if reg.removed {
		r.mu.Unlock()
		return
	}
	reg.removed = true
	delete(r.packs, reg.pack.ID)
	if reg.pack.Kind != Builtin {
		r.others--
	}
	tools := len(reg.tools)
	for _, name := range reg.tools {
		delete(r.tools, name)
	}
	r.mu.Unlock()
	reg.end(errDisconnected)
	r.opts.Logger.Info("pack removed", "pack", reg.pack.ID, "duration", time.Since(reg.since))
	if tools > 0 {
		r.notify()
	}
}

func (r *Registry) notify() {
	for _, fn := range r.changed {
		fn()
	}
}

// find returns a tool by name, or nil.
func (r *Registry) find(name string) *tool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tools[name]
}

// Has reports whether there is a tool with a name.
func (r *Registry) Has(name string) bool { return r.find(name) != nil }

// An Entry is what is told of a tool.
type Entry struct {
	Tool
	PackID  string
	Kind    Kind
	AgentID string // that hosts it
	Needs   []string
	Policy  Policy
}

// all returns all tools, by name.
func (r *Registry) all() []*tool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.AppendSeq(make([]*tool, 0, len(r.tools)), maps.Values(r.tools)) // as many as there are agents, at times
	slices.SortFunc(all, func(a, b *tool) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (t *tool) entry() Entry {
	p := t.pack.pack
	return Entry{Tool: t.Tool, PackID: p.ID, Kind: p.Kind, AgentID: p.AgentID, Needs: t.needs, Policy: t.policy}
}

// Tools returns all tools, by name.
func (r *Registry) Tools() []Entry {
	all := r.all()
	entries := make([]Entry, len(all))
	for i, t := range all {
		entries[i] = t.entry()
	}
	return entries
}

// Available returns the tools that a caller may use now, by name. Tools that the caller hosts
// itself are not among them.
func (r *Registry) Available(ctx context.Context, c Caller) ([]Entry, error) {
	var entries []Entry
	known := make(map[string]error) // hundreds of tools need the same few capabilities
	require := func(need string) error {
		err, ok := known[need]
		if !ok {
			err = c.require(ctx, r.opts.Rights, need)
			known[need] = err
		}
		return err
	}
	for _, t := range r.all() {
		if c.AgentID != "" && t.pack.pack.AgentID == c.AgentID {
			continue
		}
		switch err := t.allows(ctx, r.opts.Rights, c, require); {
		case err == nil:
			entries = append(entries, t.entry())
		case fault.CodeOf(err) != fault.Forbidden:
			return nil, err
		}
	}
	return entries, nil
}

// A PackInfo is what is told of a pack.
type PackInfo struct {
	ID, Version string
	Kind        Kind
	Principal   string
	AgentID     string
	Since       time.Time
	Tools       []string
	Rejected    []Rejection
}

// Packs returns all packs, by id.
func (r *Registry) Packs() []PackInfo {
	r.mu.Lock()
	infos := make([]PackInfo, 0, len(r.packs))
	for _, reg := range r.packs {
		p := reg.pack
		infos = append(infos, PackInfo{
			ID: p.ID, Version: p.Version, Kind: p.Kind, Principal: p.Principal, AgentID: p.AgentID, Since: reg.since,
			Tools: slices.Clone(reg.tools), Rejected: slices.Clone(reg.rejected),
		})
	}
	r.mu.Unlock()
	slices.SortFunc(infos, func(a, b PackInfo) int { return strings.Compare(a.ID, b.ID) })
	return infos
}
