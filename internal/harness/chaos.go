package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ChaosOptions say what a run of chaos does. All but Progress and Dir are required.
type ChaosOptions struct {
	Bin      string        // the gateway's program
	Dir      string        // where the data goes; "" for a temporary folder, which is left when something is wrong
	Duration time.Duration // of the load
	Seed     uint64        // of the schedule
	Faults   []string      // names from [Faults]
	Agents   int           // that answer, besides those that misbehave
	Clients  int           // that talk to each of these
	Resume   bool          // agents go on with their turns on another stream
	Progress io.Writer     // told of each fault; nil for nobody

	tamper func(*ledger, []*record) // is shown what is to be compared; for the test of the checker
}

// A Fault is something that goes wrong.
type Fault struct {
	Name, About string

	// do makes it happen once and returns when it is over; nil for one that goes on all the time.
	do func(*chaos) error
	// begin adds who misbehaves all the time.
	begin func(*chaos)
}

// Faults are all there are.
func Faults() []Fault {
	return []Fault{
		{Name: "kill", About: "kill -9 of the gateway, which starts again", do: (*chaos).kill},
		{Name: "pause", About: "SIGSTOP and, up to two seconds later, SIGCONT", do: (*chaos).pause},
		{Name: "restart", About: "SIGTERM, exit code 0, start", do: (*chaos).restart},
		{Name: "disk", About: "no file may grow any more (RLIMIT_FSIZE), for up to a second", do: (*chaos).disk},
		{Name: "cut", About: "TCP connections of agents and clients are reset", do: (*chaos).cut},
		{Name: "stall", About: "all bytes wait, for up to a second", do: (*chaos).stall},
		{Name: "delay", About: "all bytes come up to 50 ms late, for up to two seconds", do: (*chaos).delay},
		{Name: "half-open", About: "one direction of connections is lost without a word", do: (*chaos).halfOpen},
		{Name: "corrupt", About: "bytes of some connections are changed", begin: (*chaos).corrupt},
		{Name: "hang", About: "agents that never answer", begin: (*chaos).hang},
		{Name: "lie", About: "agents that speak in turns of others, of nobody, and after the end", begin: (*chaos).lie},
		{Name: "flood", About: "agents that say more than anybody reads", begin: (*chaos).flood},
		{Name: "garbage", About: "bytes that no protocol knows, on both ports and inside of streams", begin: (*chaos).garbage},
		{Name: "deaf-agents", About: "agents that never read", begin: (*chaos).deafAgents},
		{Name: "deaf-clients", About: "clients that open streams and never read", begin: (*chaos).deafClients},
		{Name: "flit", About: "clients that hang up all the time", begin: (*chaos).flit},
	}
}

// chaosConfig is the gateway's configuration: the defaults, apart from waits that would make a run long and
// rates that its clients, who are one principal, would reach.
const chaosConfig = `server:
  shutdown_grace: 2s
limits:
  requests_per_second: 100000
  address_requests_per_second: 100000
`

// A ChaosReport is what came of it.
type ChaosReport struct {
	Seed       uint64              `json:"seed"`
	Seconds    float64             `json:"seconds"`
	Agents     string              `json:"agents"` // plain or resume
	Hardware   Hardware            `json:"hardware"`
	Faults     map[string]int      `json:"faults"` // how often each happened; -1 for one that went on all the time
	Turns      map[string]int      `json:"turns"`  // of agents that answer, by how they ended
	Others     int                 `json:"other_turns"`
	Events     int64               `json:"events"`
	Streams    int                 `json:"streams"` // that clients opened
	Answers    int                 `json:"answers"` // that clients read to their end
	Readers    int                 `json:"readers"` // that read a whole conversation
	Stalls     map[string]Quantile `json:"stalls"`  // the longest silence in an answer, by what happened during it; "none" without a fault
	Starts     Quantile            `json:"starts"`  // from the start of the process to /health
	PeakBytes  int64               `json:"peak_bytes"`
	Wrong      []string            `json:"wrong"`              // the first difference first; empty when all is well
	DataFolder string              `json:"data_dir,omitempty"` // what was left to look at
}

// A Quantile is a list of durations in short, in milliseconds.
type Quantile struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func quantiles(took []time.Duration) Quantile {
	if len(took) == 0 {
		return Quantile{}
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Quantile{len(took), ms(took[len(took)/2]), ms(took[len(took)*99/100]), ms(took[len(took)-1])}
}

// chaos is a run. Only the goroutine of Chaos uses the process.
type chaos struct {
	ChaosOptions
	fleet

	p        *Process
	rnd      *rand.Rand
	proxies  []*Proxy // of agents, of clients over gRPC and over HTTP
	mangling *Proxy   // nil unless bytes are changed
	honest   []string // agents that answer by the script
	others   []string // agents that do not
	culprits sync.WaitGroup
	happened []incident
	starts   []time.Duration
	peak     int64
}

// An incident is a fault and when it happened.
type incident struct {
	name       string
	begin, end time.Time
}

// Chaos runs a gateway and its fleet under faults, and compares what everybody saw with the log. The
// report's Wrong is empty when all is well; an error means that there is none to make.
func Chaos(ctx context.Context, o ChaosOptions) (_ *ChaosReport, err error) {
	var faults []Fault
	for _, name := range o.Faults {
		i := slices.IndexFunc(Faults(), func(f Fault) bool { return f.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q", name)
		}
		faults = append(faults, Faults()[i])
	}
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "coven-chaos-"); err != nil {
			return nil, err
		}
	}
	c := &chaos{ChaosOptions: o, rnd: rand.New(rand.NewPCG(o.Seed, 0))}
	if c.p, err = NewProcess(o.Bin, dir, chaosConfig); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.p.Kill()) }() // unless it has been stopped
	began := time.Now()
	r, err := c.run(ctx, faults)
	if err != nil {
		return nil, err
	}
	r.Seed, r.Seconds, r.Hardware = o.Seed, time.Since(began).Seconds(), ThisMachine(dir)
	if len(r.Wrong) > 0 || o.Dir != "" {
		r.DataFolder = dir
		return r, nil
	}
	return r, os.RemoveAll(dir)
}

// run has the fleet at work for the duration, then everybody come to an end, and checks.
func (c *chaos) run(ctx context.Context, faults []Fault) (*ChaosReport, error) {
	c.ledger, c.resume = newLedger(c.Resume), c.Resume
	for _, target := range []string{c.p.GRPC, c.p.GRPC, c.address()} {
		p, err := NewProxy(target)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		c.proxies = append(c.proxies, p)
	}
	c.agents = Target{GRPC: c.proxies[0].Addr()}
	c.clients = Target{GRPC: c.proxies[1].Addr(), HTTP: "http://" + c.proxies[2].Addr()}
	var end, settled, behave, stop context.CancelFunc
	c.over, end = context.WithCancel(ctx)
	c.settled, settled = context.WithCancel(c.over)
	c.mischief, behave = context.WithCancel(c.over)
	c.stopping, stop = context.WithCancel(c.mischief)
	var agents, chats, readers sync.WaitGroup
	defer func() {
		stop()
		behave()
		settled()
		end()
		for _, g := range []*sync.WaitGroup{&chats, &c.culprits, &readers, &agents} {
			g.Wait()
		}
		if c.mangling != nil {
			c.mangling.Close()
		}
	}()

	for i := range c.Agents {
		id := fmt.Sprintf("agent-%d", i)
		c.honest = append(c.honest, id)
		var first sync.Once
		connected := make(chan struct{})
		agents.Go(func() { c.serve(id, func() { first.Do(func() { close(connected) }) }) })
		select {
		case <-connected: // from now on it is known, also while it is away
		case <-time.After(settleTimeout):
			return nil, fmt.Errorf("%s cannot connect\n%s", id, c.p.Output())
		}
		for j := range c.Clients {
			rnd := c.fork()
			chats.Go(func() { c.chat(id, fmt.Sprintf("client-%d", j), rnd) })
		}
		readers.Go(func() { c.follow(id) })
		readers.Go(func() { c.followGRPC(id) })
	}
	counts, err := c.breakThings(ctx, faults)
	if err != nil {
		return nil, err
	}
	stop()
	late := time.AfterFunc(settleTimeout, end)
	defer late.Stop()
	chats.Wait()
	behave()
	c.culprits.Wait()
	if err := c.settle(c.over); err != nil {
		c.ledger.fault("%v", err)
	}
	settled()
	readers.Wait()
	c.peak = max(c.peak, c.p.Usage().Peak)
	end()
	agents.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.finish(ctx, counts)
}

// breakThings has faults happen for the duration, or until something is wrong, and counts them.
func (c *chaos) breakThings(ctx context.Context, faults []Fault) (map[string]int, error) {
	counts := make(map[string]int)
	var once []Fault
	for _, f := range faults {
		if f.begin != nil {
			f.begin(c)
			counts[f.Name] = -1
		} else {
			once = append(once, f)
		}
	}
	deadline := time.Now().Add(c.Duration)
	for !c.ledger.failed() {
		if pause := minPause + time.Duration(c.rnd.Int64N(int64(maxPause-minPause))); !sleep(ctx, min(pause, time.Until(deadline))) || time.Now().After(deadline) {
			break
		}
		if len(once) == 0 {
			continue
		}
		f := once[c.rnd.IntN(len(once))]
		begin := time.Now()
		c.peak = max(c.peak, c.p.Usage().Peak)
		switch err := f.do(c); {
		case errors.Is(err, errors.ErrUnsupported):
			once = slices.DeleteFunc(once, func(o Fault) bool { return o.Name == f.Name })
			c.say("%s: not on this system", f.Name)
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		counts[f.Name]++
		c.happened = append(c.happened, incident{f.Name, begin, time.Now()})
		c.say("%5.1fs %-10s for %v", time.Until(deadline).Seconds(), f.Name, time.Since(begin).Round(time.Millisecond))
	}
	return counts, nil
}

// finish starts the gateway again, reads the log, and compares.
func (c *chaos) finish(ctx context.Context, counts map[string]int) (*ChaosReport, error) {
	if err := errors.Join(c.p.Kill(), c.start(ctx)); err != nil {
		return nil, err
	}
	var records []*record
	for i, id := range slices.Concat(c.honest, c.others) {
		r, err := c.read(ctx, c.p.Target, id, i < len(c.honest))
		if err != nil {
			return nil, fmt.Errorf("the log of %s: %w", id, err)
		}
		records = append(records, r)
	}
	if err := c.p.Stop(); err != nil {
		c.ledger.fault("%v", err)
	}
	if out, err := c.p.Run(ctx, "doctor"); err != nil {
		c.ledger.fault("coven-gateway doctor: %v: %s", err, out)
	}
	if c.tamper != nil {
		c.tamper(c.ledger, records)
	}
	l := c.ledger
	l.check(records)
	r := &ChaosReport{
		Agents: "plain", Faults: counts, Turns: make(map[string]int), Streams: l.streams, Readers: len(l.tales), Starts: quantiles(c.starts),
		Stalls: c.stalls(), PeakBytes: c.peak, Wrong: l.wrong,
	}
	if c.Resume {
		r.Agents = "resume"
	}
	for _, s := range l.sights {
		if len(s.ends) > 0 {
			r.Answers++
		}
	}
	for _, x := range records {
		r.Events += x.tale.last
		for _, t := range x.turns {
			switch {
			case !x.honest:
				r.Others++
			default:
				r.Turns[strings.Join(t.ends, "+")]++
			}
		}
	}
	return r, nil
}

// stalls sorts the longest silence of each answer by the faults that happened meanwhile.
func (c *chaos) stalls() map[string]Quantile {
	took := make(map[string][]time.Duration)
	for _, s := range c.ledger.sights {
		if len(s.ends) == 0 || s.began.IsZero() {
			continue
		}
		names := map[string]bool{}
		for _, i := range c.happened {
			if s.began.Before(i.end) && i.begin.Before(s.ended) {
				names[i.name] = true
			}
		}
		if len(names) == 0 {
			names["none"] = true
		}
		for n := range names {
			took[n] = append(took[n], s.stall)
		}
	}
	all := make(map[string]Quantile)
	for n, t := range took {
		all[n] = quantiles(t)
	}
	return all
}

// Bounds of the time between two faults.
const (
	minPause = 200 * time.Millisecond
	maxPause = 1200 * time.Millisecond
)

func (c *chaos) address() string { return strings.TrimPrefix(c.p.HTTP, "http://") }

func (c *chaos) say(format string, args ...any) {
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, format+"\n", args...)
	}
}

// fork returns a source of randomness for a goroutine of its own.
func (c *chaos) fork() *rand.Rand { return rand.New(rand.NewPCG(c.rnd.Uint64(), c.rnd.Uint64())) }

// span is a random time up to most.
func (c *chaos) span(most time.Duration) time.Duration {
	return most/20 + time.Duration(c.rnd.Int64N(int64(most-most/20)))
}

// some chooses about every other connection.
func (c *chaos) some() bool { return c.rnd.IntN(2) == 0 }

func (c *chaos) start(ctx context.Context) error {
	took, err := c.p.Start(ctx)
	c.starts = append(c.starts, took)
	return err
}

func (c *chaos) kill() error { return errors.Join(c.p.Kill(), c.start(c.over)) }

func (c *chaos) restart() error {
	if err := c.p.Stop(); err != nil {
		c.ledger.fault("%v", err)
	}
	return errors.Join(c.p.Kill(), c.start(c.over))
}

func (c *chaos) pause() error {
	if err := c.p.Pause(); err != nil {
		return err
	}
	sleep(c.over, c.span(2*time.Second))
	return c.p.Continue()
}

func (c *chaos) disk() error {
	if err := c.p.LimitFiles(1); err != nil {
		return err
	}
	sleep(c.over, c.span(time.Second))
	return c.p.LimitFiles(Unlimited)
}

func (c *chaos) cut() error {
	for _, p := range c.proxies {
		p.Cut(c.some)
	}
	return nil
}

func (c *chaos) stall() error {
	for _, p := range c.proxies {
		p.Stall(true)
	}
	sleep(c.over, c.span(time.Second))
	for _, p := range c.proxies {
		p.Stall(false)
	}
	return nil
}

func (c *chaos) delay() error {
	d := c.span(50 * time.Millisecond)
	for _, p := range c.proxies {
		p.Delay(d)
	}
	sleep(c.over, c.span(2*time.Second))
	for _, p := range c.proxies {
		p.Delay(0)
	}
	return nil
}

func (c *chaos) halfOpen() error {
	direction := c.rnd.IntN(2)
	var cuts []func()
	for _, p := range c.proxies {
		cuts = append(cuts, p.Halve(direction, c.some))
	}
	sleep(c.over, c.span(2*time.Second))
	for _, cut := range cuts {
		cut()
	}
	return nil
}

// add starts an agent that misbehaves, and somebody who writes to it.
func (c *chaos) add(id, server string, size int, serve func(context.Context, raw) error) {
	c.others = append(c.others, id)
	c.culprits.Go(func() { c.misbehave(server, id, serve) })
	rnd := c.fork()
	c.culprits.Go(func() { c.poke(id, size, rnd) })
}

func (c *chaos) hang()       { c.add("hanging", c.agents.GRPC, 0, hang) }
func (c *chaos) lie()        { c.add("lying", c.agents.GRPC, 0, c.fleet.lie) }
func (c *chaos) flood()      { c.add("flooding", c.agents.GRPC, 0, flood) }
func (c *chaos) deafAgents() { c.add("deaf", c.agents.GRPC, 100<<10, deaf) }

// corrupt adds an agent whose bytes are changed on their way. TCP does not notice, so nothing that it says
// can be compared with a script; the record must be sound all the same.
func (c *chaos) corrupt() {
	p, err := NewProxy(c.p.GRPC)
	if err != nil {
		c.ledger.fault("%v", err)
		return
	}
	c.mangling = p
	p.Corrupt(c.fork())
	c.add("mangled", p.Addr(), 0, flood)
}

func (c *chaos) garbage() {
	rnd, other := c.fork(), c.fork()
	c.culprits.Go(func() { c.garble(c.p.Target, rnd) })
	c.culprits.Go(func() { c.nonsense(c.p.GRPC, other) })
}

func (c *chaos) deafClients() {
	for _, id := range c.honest {
		rnd := c.fork()
		c.culprits.Go(func() { c.ignore(id, rnd) })
	}
}

func (c *chaos) flit() {
	for i, id := range c.honest {
		rnd := c.fork()
		c.culprits.Go(func() { c.fleet.flit(id, fmt.Sprintf("flitting-%d", i), rnd) })
	}
}

// Write prints the report as a table.
func (r *ChaosReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, agents %s, %.0f s\n%s\n\n", r.Seed, r.Agents, r.Seconds, r.Hardware)
	fmt.Fprintf(&b, "%-14s %6s %9s %9s %9s   longest silence in an answer, ms\n", "fault", "times", "p50", "p99", "max")
	row := func(name, times string) {
		q := r.Stalls[name]
		fmt.Fprintf(&b, "%-14s %6s %9.1f %9.1f %9.1f   of %d answers\n", name, times, q.P50, q.P99, q.Max, q.N)
	}
	row("none", "")
	var constant []string
	for _, f := range Faults() {
		switch n, ok := r.Faults[f.Name]; {
		case n < 0:
			constant = append(constant, f.Name)
		case ok:
			row(f.Name, fmt.Sprint(n))
		}
	}
	if len(constant) > 0 {
		fmt.Fprintf(&b, "all the time: %s\n", strings.Join(constant, ", "))
	}
	fmt.Fprintf(&b, "\n%d turns", r.Turns["done"]+r.Turns["error"]+r.Turns["canceled"])
	for _, end := range slices.Sorted(maps.Keys(r.Turns)) {
		fmt.Fprintf(&b, ", %d %s", r.Turns[end], end)
	}
	fmt.Fprintf(&b, "; %d of agents that misbehave; %d events\n", r.Others, r.Events)
	fmt.Fprintf(&b, "%d streams of clients, %d answers read to their end, %d readers of a whole conversation\n", r.Streams, r.Answers, r.Readers)
	fmt.Fprintf(&b, "starts of the gateway: %d, p50 %.0f ms, slowest %.0f ms; most memory %.0f MB\n\n", r.Starts.N, r.Starts.P50, r.Starts.Max, float64(r.PeakBytes)/1e6)
	if len(r.Wrong) == 0 {
		b.WriteString("What everybody saw is what the log has.\n")
	} else {
		fmt.Fprintf(&b, "WRONG (seed %d; the data is in %s):\n", r.Seed, r.DataFolder)
		for _, s := range r.Wrong {
			fmt.Fprintf(&b, "* %s\n", s)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
