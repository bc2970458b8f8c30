package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// BenchOptions say what is measured. Bin is required unless Running is set.
type BenchOptions struct {
	Bin      string    // the gateway's program; each case has a process of its own
	Running  *Target   // measure this gateway instead; memory and processor time are then unknown
	Cases    []string  // names from [Cases]
	Progress io.Writer // told of each case; nil for nobody

	Agents, Clients int // of throughput: agents, and clients of each
	Increments      int // of an answer, in throughput
	Burst           int // increments of the one answer of burst
	Streams, Rate   int // of latency: agents, and increments a second of each
	Idle            int // agents, or readers, that do nothing
	Readers         int // of fan-out
	Turns           int // of the case turns
}

// DefaultBench are sizes for a run of about a minute.
func DefaultBench() BenchOptions {
	return BenchOptions{
		Agents: 8, Clients: 8, Increments: 2000, Burst: 20_000, Streams: 20, Rate: 50, Idle: 1000, Readers: 200, Turns: 10_000,
	}
}

// A Case is something that is measured.
type Case struct {
	Name, About string

	own bool // it needs a process of its own
	run func(*bench) error
}

// Cases are all there are.
func Cases() []Case {
	return []Case{
		{Name: "throughput", About: "answers as fast as agents can send, every one compared; also through the bare relay, and with half the clients slow", run: (*bench).throughput},
		{Name: "latency", About: "a paced stream, from the agent's send to the client's receive; also through the bare relay", run: (*bench).latency},
		{Name: "locked", About: "latency at a gateway that asks for credentials, then with 1,000 wrong ones a second", own: true, run: (*bench).locked},
		{Name: "burst", About: "one long answer at once", run: (*bench).burst},
		{Name: "fan-out", About: "many readers of one conversation, half over SSE and half over gRPC", run: (*bench).fanOut},
		{Name: "idle-agents", About: "memory of a connected agent, and the time to the first event of an active one", run: (*bench).idleAgents},
		{Name: "idle-readers", About: "memory of an open stream, over SSE and over gRPC", run: (*bench).idleReaders},
		{Name: "catch-up", About: "a reader 10,000 events behind", run: (*bench).catchUp},
		{Name: "start", About: "from the start of the process to the first answer", own: true, run: (*bench).starts},
		{Name: "turns", About: "many turns, with memory and goroutines of the gateway over time", run: (*bench).turns},
	}
}

// benchConfig has all of a gateway's defaults but the rates, which its clients, who are one principal,
// would reach.
const benchConfig = `limits:
  requests_per_second: 1000000
  address_requests_per_second: 1000000
`

// A BenchReport is what was measured, and on what.
type BenchReport struct {
	Hardware Hardware `json:"hardware"`
	Gateway  string   `json:"gateway"` // its version
	Figures  []Figure `json:"figures"`
	Samples  []Sample `json:"samples,omitempty"` // of the case turns
}

// A Figure is one number.
type Figure struct {
	Case  string  `json:"case"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// A Sample is the gateway at one moment of the case turns.
type Sample struct {
	Turns      int     `json:"turns"`
	Seconds    float64 `json:"seconds"`
	Resident   int64   `json:"resident_bytes"`
	Heap       int64   `json:"heap_bytes"` // in use by Go; SQLite's caches are outside of it
	Goroutines int     `json:"goroutines"`
}

// bench is a run.
type bench struct {
	BenchOptions

	ctx     context.Context
	report  *BenchReport
	samples sync.Mutex // guards report.Samples
	now     string     // the case that runs
	p       *Process   // nil for a gateway that somebody else runs
	target  Target
	prefix  string // of agent ids, so that a gateway that is used may be measured again
	rounds  int

	connected sync.WaitGroup // agents
	leave     context.CancelFunc
	agents    context.Context
}

// Bench measures. The error says which case could not be measured, or which answer was not what was sent.
func Bench(ctx context.Context, o BenchOptions) (*BenchReport, error) {
	b := &bench{BenchOptions: o, ctx: ctx}
	b.report = &BenchReport{Hardware: ThisMachine(os.TempDir())}
	for _, c := range Cases() {
		if !slices.Contains(o.Cases, c.Name) {
			continue
		}
		if b.now = c.Name; o.Running != nil && c.own {
			b.say("%s: not with a gateway that runs already", c.Name)
			continue
		}
		b.say("%s: %s", c.Name, c.About)
		start := func() error { return b.gateway(false) }
		if c.own {
			start = func() error { return nil }
		}
		if err := b.within(start, func() error { return c.run(b) }); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return b.report, nil
}

// within runs what is measured between the start of what it is measured at and its end.
func (b *bench) within(start, run func() error) (err error) {
	b.agents, b.leave = context.WithCancel(b.ctx)
	b.renew()
	defer func() {
		b.leave()
		b.connected.Wait()
		http.DefaultClient.CloseIdleConnections()
		if b.p != nil {
			err = errors.Join(err, b.p.Kill(), os.RemoveAll(b.p.Dir))
			b.p = nil
		}
	}()
	if err := start(); err != nil {
		return err
	}
	return run()
}

func (b *bench) say(format string, args ...any) {
	if b.Progress != nil {
		fmt.Fprintf(b.Progress, format+"\n", args...)
	}
}

func (b *bench) note(name string, value float64, unit string) {
	b.report.Figures = append(b.report.Figures, Figure{b.now, name, value, unit})
}

func (b *bench) noteTimes(name string, took []time.Duration) error {
	if len(took) == 0 {
		return errors.New("nothing was measured")
	}
	q := quantiles(took)
	b.note(name+"p50", q.P50, "ms")
	b.note(name+"p99", q.P99, "ms")
	return nil
}

// gateway starts a gateway, or takes the one that runs.
func (b *bench) gateway(locked bool) error {
	if b.Running != nil {
		b.target = *b.Running
		return b.version()
	}
	dir, err := os.MkdirTemp("", "coven-bench-")
	if err != nil {
		return err
	}
	config := benchConfig
	if locked {
		config += "auth:\n  jwt_secret: " + strings.Repeat("c2VjcmV0", 6) + "\n"
	}
	if b.p, err = NewProcess(b.Bin, dir, config); err != nil {
		return err
	}
	if locked {
		if err := b.p.Bootstrap(b.ctx); err != nil {
			return err
		}
	}
	_, err = b.p.Start(b.ctx)
	b.target = b.p.Target
	return errors.Join(err, b.version())
}

func (b *bench) version() error {
	var me struct {
		Version string `json:"version"`
	}
	err := b.target.get(b.ctx, "/api/me", &me)
	b.report.Gateway = me.Version
	return err
}

// relay starts the bare relay.
func (b *bench) relay() error {
	b.p = &Process{Bin: b.Bin}
	if err := b.p.addresses(); err != nil {
		return err
	}
	b.p.Args = []string{"relay", b.p.GRPC, strings.TrimPrefix(b.p.HTTP, "http://")}
	_, err := b.p.Start(b.ctx)
	b.target = b.p.Target
	return err
}

func (b *bench) usage() Usage {
	if b.p == nil {
		return Usage{}
	}
	return b.p.Usage()
}

func (b *bench) id(n int) string { return b.prefix + strconv.Itoa(n) }

// renew has the agents that follow get other ids, because the ones before are still connected.
func (b *bench) renew() {
	b.rounds++
	b.prefix = fmt.Sprintf("bench-%x-%d-", time.Now().UnixNano(), b.rounds)
}

// connect runs an agent until the case is over.
func (b *bench) connect(id string, h agent.HandlerFunc) error {
	welcome, failed := make(chan struct{}, 1), make(chan error, 1)
	o := agent.Options{
		Server: b.target.GRPC, ID: id, Handler: h, Logger: slog.New(slog.DiscardHandler), Concurrency: 1000, Heartbeat: -1,
		OnWelcome: func(agent.Welcome) {
			select {
			case welcome <- struct{}{}:
			default: // a reconnect
			}
		},
	}
	if b.target.Token != "" {
		o.Credentials = agent.Token(b.target.Token)
	}
	ctx := b.agents
	b.connected.Go(func() { failed <- agent.Run(ctx, o) })
	select {
	case <-welcome:
		return nil
	case err := <-failed:
		return errors.Join(err, b.ctx.Err())
	}
}

// parallel runs n functions side by side and returns the first error.
func parallel(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// numbers answers "N" with N increments as fast as it can.
func numbers(_ context.Context, m *agent.Message, w *agent.Writer) error {
	n, err := strconv.Atoi(m.Content)
	if err != nil {
		return err
	}
	for i := range n {
		if err := w.Text(strconv.Itoa(i) + " "); err != nil {
			return err
		}
	}
	return nil
}

// expected is the answer of numbers.
func expected(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(strconv.Itoa(i) + " ")
	}
	return s.String()
}

// askNumbers asks numbers and compares the answer.
func (b *bench) askNumbers(id string, n int, want string, each func(sse.Event)) (events int, err error) {
	text, events, err := b.target.ask(b.ctx, id, strconv.Itoa(n), each)
	if err == nil && text != want {
		err = fmt.Errorf("the agent sent %s, the client received %s", excerpt(want, text), excerpt(text, want))
	}
	return events, err
}

const slowClient = 2 * time.Millisecond // for each event

func (b *bench) throughput() error {
	if err := b.flow("gateway, ", false); err != nil {
		return err
	}
	if err := b.flow("gateway, half the clients slow, ", true); err != nil || b.Running != nil {
		return err
	}
	return b.beside(b.relay, func() error { return b.flow("relay, ", false) })
}

// beside measures something else in the middle of a case.
func (b *bench) beside(start, run func() error) error {
	b.leave()
	b.connected.Wait()
	if b.p != nil {
		if err := errors.Join(b.p.Kill(), os.RemoveAll(b.p.Dir)); err != nil {
			return err
		}
		b.p = nil
	}
	return b.within(start, run)
}

func (b *bench) flow(name string, slow bool) error {
	const rounds = 3
	want := expected(b.Increments)
	b.renew()
	for i := range b.Agents {
		if err := b.connect(b.id(i), numbers); err != nil {
			return err
		}
	}
	before, start := b.usage(), time.Now()
	var mu sync.Mutex
	events := 0
	for range rounds {
		err := parallel(b.Agents*b.Clients, func(i int) error {
			var each func(sse.Event)
			if slow && i%2 == 1 {
				each = func(sse.Event) { time.Sleep(slowClient) }
			}
			n, err := b.askNumbers(b.id(i%b.Agents), b.Increments, want, each)
			mu.Lock()
			defer mu.Unlock()
			events += n
			return err
		})
		if err != nil {
			return err
		}
	}
	n, after := float64(rounds*b.Agents*b.Clients*b.Increments), b.usage()
	b.note(name+"increments", n/time.Since(start).Seconds(), "1/s")
	if b.p != nil && !slow {
		b.note(name+"processor time of the process per increment", float64((after.CPU-before.CPU).Nanoseconds())/n/1000, "µs")
		b.note(name+"events per increment that clients receive", float64(events)/n, "")
		b.note(name+"most memory", float64(after.Peak)/1e6, "MB")
	}
	return nil
}

func (b *bench) burst() error {
	if err := b.connect(b.id(0), numbers); err != nil {
		return err
	}
	const rounds = 10
	want, start := expected(b.Burst), time.Now()
	for range rounds {
		if _, err := b.askNumbers(b.id(0), b.Burst, want, nil); err != nil {
			return err
		}
	}
	b.note("increments", float64(rounds*b.Burst)/time.Since(start).Seconds(), "1/s")
	return nil
}

func (b *bench) latency() error {
	if err := b.pace("gateway, "); err != nil || b.Running != nil {
		return err
	}
	return b.beside(b.relay, func() error { return b.pace("relay, ") })
}

// pace measures how long increments of paced streams take.
func (b *bench) pace(name string) error {
	const seconds = 3
	b.renew()
	for i := range b.Streams {
		if err := b.connect(b.id(i), stamps(seconds*b.Rate, time.Second/time.Duration(b.Rate))); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var took []time.Duration
	err := parallel(b.Streams, func(i int) error {
		var broken error
		_, _, err := b.target.ask(b.ctx, b.id(i), "go", func(e sse.Event) {
			now := time.Now()
			if e.Name != "text" {
				return
			}
			text, err := eventText(e)
			if err != nil {
				broken = err
			}
			mu.Lock()
			defer mu.Unlock()
			for s := range strings.FieldsSeq(text) {
				ns, _ := strconv.ParseInt(s, 10, 64)
				took = append(took, now.Sub(time.Unix(0, ns)))
			}
		})
		return errors.Join(err, broken)
	})
	if err != nil {
		return err
	}
	if want := b.Streams * seconds * b.Rate; len(took) != want {
		return fmt.Errorf("%d increments were sent, %d received", want, len(took))
	}
	return b.noteTimes(name, took)
}

// stamps answers with the time, n times, one every so often; 0 is as fast as it can.
func stamps(n int, every time.Duration) agent.HandlerFunc {
	return func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		tick := time.NewTicker(max(every, time.Nanosecond))
		defer tick.Stop()
		for range n {
			if every > 0 {
				<-tick.C
			}
			if err := w.Text(strconv.FormatInt(time.Now().UnixNano(), 10) + " "); err != nil {
				return err
			}
		}
		return nil
	}
}

func (b *bench) locked() error {
	if err := b.gateway(true); err != nil {
		return err
	}
	if err := b.pace("locked, "); err != nil {
		return err
	}
	stop := make(chan struct{})
	var flood sync.WaitGroup
	conn, err := dial(b.target)
	if err != nil {
		return err
	}
	defer func() { close(stop); flood.Wait(); _ = conn.Close() }()
	for range 2 {
		flood.Go(func() {
			for tick := time.NewTicker(2 * time.Millisecond); ; {
				select {
				case <-tick.C:
					wrong := b.target
					wrong.Token += "x"
					_, _ = wrong.request(b.ctx, http.MethodGet, "/api/agents", nil)
					ctx := metadata.AppendToOutgoingContext(b.ctx, "authorization", "Bearer "+wrong.Token)
					_, _ = pb.NewClientServiceClient(conn).GetMe(ctx, &emptypb.Empty{})
				case <-stop:
					tick.Stop()
					return
				}
			}
		})
	}
	return b.pace("with wrong credentials, ")
}

func dial(t Target) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+t.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(0)) // there may be thousands
}

// authorized has calls over gRPC show the token.
func (b *bench) authorized(ctx context.Context) context.Context {
	if b.target.Token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+b.target.Token)
}

// opened counts many streams that are opened side by side, at most 64 at once, and says what each costs.
func (b *bench) open(n int, what string, one func(i int) error) error {
	before := b.usage()
	slots := make(chan struct{}, 64)
	err := parallel(n, func(i int) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		return one(i)
	})
	if err != nil {
		return err
	}
	sleep(b.ctx, 3*time.Second) // the garbage of the handshakes goes
	if b.p != nil {
		b.note("memory of "+what, float64(b.usage().Resident-before.Resident)/float64(n)/1024, "KiB")
	}
	return nil
}

func (b *bench) idleAgents() error {
	if err := b.connect(b.id(0), numbers); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(b.authorized(b.ctx))
	defer stop()
	conns := make([]*grpc.ClientConn, b.Idle)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	err := b.open(b.Idle, "an agent", func(i int) (err error) {
		if conns[i], err = dial(b.target); err != nil {
			return err
		}
		stream, err := pb.NewCovenControlClient(conns[i]).AgentStream(ctx)
		if err != nil {
			return err
		}
		id := b.prefix + "idle-" + strconv.Itoa(i)
		err = stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
			AgentId: id, Name: "idle", Capabilities: []string{"base", "chat"},
		}}})
		if err != nil {
			return err
		}
		if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
			return fmt.Errorf("agent %s was welcomed with %v: %w", id, m, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var first []time.Duration
	for range 200 {
		start := time.Now()
		_, err := b.askNumbers(b.id(0), 1, expected(1), func(e sse.Event) {
			if e.Name == "text" {
				first = append(first, time.Since(start))
			}
		})
		if err != nil {
			return err
		}
	}
	return b.noteTimes("first event of an active agent, ", first)
}

func (b *bench) idleReaders() error {
	if err := b.connect(b.id(0), numbers); err != nil {
		return err
	}
	if _, err := b.askNumbers(b.id(0), 1, expected(1), nil); err != nil {
		return err // there has to be a conversation
	}
	ctx, stop := context.WithCancel(b.ctx)
	var open sync.WaitGroup
	defer func() { stop(); open.Wait() }()
	err := b.open(b.Idle, "an SSE stream", func(int) error {
		resp, err := b.target.request(ctx, http.MethodGet, "/api/conversations/"+b.id(0)+"/events?after=0", nil, "Accept", "text/event-stream")
		if err != nil {
			return err
		}
		open.Go(func() {
			defer resp.Body.Close()
			_ = events(resp, func(sse.Event) error { return nil }) // ends with ctx
		})
		return nil
	})
	if err != nil {
		return err
	}
	conns := make([]*grpc.ClientConn, b.Idle)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	return b.open(b.Idle, "a gRPC stream with its connection", func(i int) (err error) {
		if conns[i], err = dial(b.target); err != nil {
			return err
		}
		stream, err := pb.NewClientServiceClient(conns[i]).StreamEvents(b.authorized(ctx), &pb.StreamEventsRequest{ConversationKey: b.id(0)})
		if err == nil {
			_, err = stream.Header()
		}
		return err
	})
}

// How often a start and a catch-up are measured.
const (
	startRounds   = 10
	catchUpRounds = 10
)

func (b *bench) starts() error {
	for _, existing := range []bool{false, true} {
		var took []time.Duration
		for i := range startRounds {
			if i == 0 || !existing {
				if err := b.beside(func() error { return nil }, func() error { return nil }); err != nil {
					return err
				}
				dir, err := os.MkdirTemp("", "coven-bench-")
				if err != nil {
					return err
				}
				if b.p, err = NewProcess(b.Bin, dir, benchConfig); err != nil {
					return err
				}
				if existing {
					if _, err := b.p.Start(b.ctx); err != nil {
						return err
					}
				}
			}
			if err := b.p.Kill(); err != nil {
				return err
			}
			d, err := b.p.Start(b.ctx)
			if err != nil {
				return err
			}
			took = append(took, d)
		}
		if err := b.noteTimes(map[bool]string{false: "new database, ", true: "existing database, "}[existing], took); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) catchUp() error {
	const parts = 3333
	err := b.connect(b.id(0), func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		for i := range parts { // text, tool call, result: nothing that merges
			id := strconv.Itoa(i)
			if err := errors.Join(w.Text("word "), w.ToolUse(id, "tool", i), w.ToolResult(id, "result", false)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, _, err := b.target.ask(b.ctx, b.id(0), "go", nil); err != nil {
		return err
	}
	var took []time.Duration
	for range catchUpRounds {
		start, n := time.Now(), 0
		err := b.target.follow(b.ctx, "/api/conversations/"+b.id(0)+"/events", 0, nil, func(e sse.Event) error {
			if n++; e.Name == "done" {
				return io.EOF
			}
			return nil
		})
		if !errors.Is(err, io.EOF) || n != 3*parts+2 {
			return fmt.Errorf("%d events came instead of %d: %w", n, 3*parts+2, err)
		}
		took = append(took, time.Since(start))
	}
	return b.noteTimes("10,000 events, ", took)
}

// Write prints the report as a table.
func (r *BenchReport) Write(out io.Writer) error {
	fmt.Fprintf(out, "gateway %s\n%s\n\n", r.Gateway, r.Hardware)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range r.Figures {
		digits := 2
		if f.Value >= 100 {
			digits = 0
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\n", f.Case, f.Name, strconv.FormatFloat(f.Value, 'f', digits, 64), f.Unit)
	}
	if len(r.Samples) > 0 {
		fmt.Fprintf(w, "\nturns\tseconds\tresident\tof it Go's heap\tgoroutines\n")
	}
	for _, s := range r.Samples {
		fmt.Fprintf(w, "%d\t%.1f\t%.1f MB\t%.1f MB\t%d\n", s.Turns, s.Seconds, float64(s.Resident)/1e6, float64(s.Heap)/1e6, s.Goroutines)
	}
	return w.Flush()
}
