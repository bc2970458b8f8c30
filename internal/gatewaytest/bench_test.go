package gatewaytest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// The benchmarks measure a gateway in a process of its own, from outside, as docs/BENCHMARKS.md
// says. Agents and clients share its processors, so only ratios mean something elsewhere.

// startRelay starts the bare relay.
func startRelay(b *testing.B) *process {
	p := &process{t: b, grpc: freeAddr(b), http: freeAddr(b)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), "COVEN_TEST_RELAY="+p.grpc, "COVEN_TEST_RELAY_HTTP="+p.http)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.kill)
	for {
		if resp, err := http.Get("http://" + p.http + "/health"); err == nil {
			resp.Body.Close()
			return p
		}
		time.Sleep(time.Millisecond) // polls a process
	}
}

func startGateway(b *testing.B) *process {
	p := newProcess(b)
	p.start()
	return p
}

// startLocked starts a gateway that asks for credentials; the process has the owner's token.
func startLocked(b *testing.B) *process {
	p := newProcess(b)
	file := filepath.Join(p.dir, "coven", "gateway.yaml")
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, []byte("data_dir: "+p.dir+"\nauth:\n  jwt_secret: "+gatewaytest.JWTSecret+"\n"), 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command(p.bin, "bootstrap", "--name", "bench", "--config", file).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	token, err := os.ReadFile(filepath.Join(p.dir, "coven", "token"))
	if err != nil {
		b.Fatal(err)
	}
	p.token = strings.TrimSpace(string(token))
	p.start()
	return p
}

// startFlooded starts a gateway that asks for credentials and gets a thousand wrong ones a second.
func startFlooded(b *testing.B) *process {
	p := startLocked(b)
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	var flood sync.WaitGroup
	stop := make(chan struct{})
	b.Cleanup(func() { close(stop); flood.Wait(); _ = conn.Close() })
	each := func(wrong func() error) {
		flood.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					if err := wrong(); err == nil {
						b.Error("wrong credentials were accepted")
						return
					}
				case <-stop:
					return
				}
			}
		})
	}
	key := gatewaytest.NewKey(b)
	each(func() error { // a signature of a key that nobody knows
		_, err := pb.NewClientServiceClient(conn).GetMe(key.Sign(), &emptypb.Empty{})
		return err
	})
	each(func() error {
		req, _ := http.NewRequest("GET", "http://"+p.http+"/api/agents", nil)
		req.Header.Set("Authorization", "Bearer "+p.token+"x")
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode == http.StatusOK {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, errors.New(resp.Status))
	})
	return p
}

// stat returns the processor time a process has used and its resident memory.
func (p *process) stat() (cpu time.Duration, resident int64) {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, 0 // not Linux
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, pages * int64(os.Getpagesize())
}

// peak returns the most memory a process has had, in bytes.
func (p *process) peak() int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// credentials are what an agent shows; nil where none are asked for.
func (p *process) credentials() func(context.Context) (metadata.MD, error) {
	if p.token == "" {
		return nil
	}
	return agent.Token(p.token)
}

// connect runs an agent at a process until the benchmark ends.
func connect(b *testing.B, p *process, id string, h agent.HandlerFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	welcome := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := agent.Run(ctx, agent.Options{
			Server: p.grpc, ID: id, Handler: h, Logger: slog.New(slog.DiscardHandler), Concurrency: 1000, Heartbeat: -1,
			Credentials: p.credentials(),
			OnWelcome:   func(agent.Welcome) { welcome <- struct{}{} },
		})
		if err != nil {
			b.Error(err)
		}
	}()
	b.Cleanup(func() { cancel(); <-done })
	<-welcome
}

// ask sends a message and returns the text and the number of text events of the answer. each is
// called for every event; it may be nil.
func ask(b *testing.B, p *process, agentID, content string, each func(sse.Event)) (text string, n int) {
	body, _ := json.Marshal(map[string]string{"agent_id": agentID, "sender": "bench", "content": content})
	req, _ := http.NewRequest("POST", "http://"+p.http+"/api/send", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Error(err)
		return "", 0
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		msg, _ := io.ReadAll(resp.Body)
		b.Errorf("%s: %s", resp.Status, msg)
		return "", 0
	}
	var out strings.Builder
	last := ""
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) || last != "done" {
				b.Errorf("the stream ended after %q with %v", last, err)
			}
			return out.String(), n
		}
		if each != nil {
			each(e)
		}
		if last = e.Name; last == "text" {
			var d struct{ Text string }
			if err := json.Unmarshal(e.Data, &d); err != nil {
				b.Error(err)
			}
			out.WriteString(d.Text)
			n++
		}
	}
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

func expected(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(i) + " ")
	}
	return b.String()
}

// BenchmarkThroughput: 8 agents × 8 clients, 2,000 increments each, as fast as the agents can send.
// Every answer is compared with what was sent.
func BenchmarkThroughput(b *testing.B) {
	for name, start := range map[string]func(*testing.B) *process{"gateway": startGateway, "relay": startRelay} {
		b.Run(name, func(b *testing.B) { throughput(b, start(b), nil) })
	}
	b.Run("gateway, half the clients slow", func(b *testing.B) {
		throughput(b, startGateway(b), func(client int) func(sse.Event) {
			if client%2 == 0 {
				return nil
			}
			return func(sse.Event) { time.Sleep(2 * time.Millisecond) } // a slow client
		})
	})
}

func throughput(b *testing.B, p *process, each func(client int) func(sse.Event)) {
	const agents, clients, increments = 8, 8, 2000
	want := expected(increments)
	for i := range agents {
		connect(b, p, fmt.Sprintf("agent-%d", i), numbers)
	}
	cpu, _ := p.stat()
	start := time.Now()
	events := 0
	var mu sync.Mutex
	var fast time.Duration
	for b.Loop() {
		var wg sync.WaitGroup
		for i := range agents * clients {
			wg.Go(func() {
				var f func(sse.Event)
				if each != nil {
					f = each(i)
				}
				text, n := ask(b, p, fmt.Sprintf("agent-%d", i%agents), strconv.Itoa(increments), f)
				if text != want {
					b.Errorf("received %d bytes, sent %d", len(text), len(want))
				}
				mu.Lock()
				defer mu.Unlock()
				events += n
				if f == nil {
					fast = max(fast, time.Since(start))
				}
			})
		}
		wg.Wait()
	}
	n := float64(b.N * agents * clients * increments)
	after, _ := p.stat()
	b.ReportMetric(n/time.Since(start).Seconds(), "increments/s")
	b.ReportMetric(float64((after-cpu).Microseconds())/n, "gateway-cpu-µs/increment")
	b.ReportMetric(float64(events)/n, "events/increment")
	b.ReportMetric(float64(p.peak())/1e6, "peak-MB")
	if each != nil {
		b.ReportMetric(fast.Seconds()/float64(b.N), "s-until-fast-clients-done")
	}
}

// BenchmarkBurst: one answer of 20,000 increments at once.
func BenchmarkBurst(b *testing.B) {
	p := startGateway(b)
	connect(b, p, "a", numbers)
	want := expected(20_000)
	start := time.Now()
	for b.Loop() {
		if text, _ := ask(b, p, "a", "20000", nil); text != want {
			b.Errorf("received %d bytes, sent %d", len(text), len(want))
		}
	}
	b.ReportMetric(20_000*float64(b.N)/time.Since(start).Seconds(), "increments/s")
}

// BenchmarkLatency: 20 agents send 50 increments a second; how long each takes from the agent's
// send to the client's receive. The relay shows what of it is transport.
func BenchmarkLatency(b *testing.B) {
	for name, start := range map[string]func(*testing.B) *process{
		"gateway": startGateway, "relay": startRelay, "locked": startLocked, "flooded": startFlooded,
	} {
		b.Run(name, func(b *testing.B) {
			p := start(b)
			const agents, increments = 20, 150
			for i := range agents {
				connect(b, p, fmt.Sprintf("agent-%d", i), func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					for range increments {
						<-tick.C
						if err := w.Text(strconv.FormatInt(time.Now().UnixNano(), 10) + " "); err != nil {
							return err
						}
					}
					return nil
				})
			}
			var mu sync.Mutex
			var took []time.Duration
			for b.Loop() {
				var wg sync.WaitGroup
				for i := range agents {
					wg.Go(func() {
						ask(b, p, fmt.Sprintf("agent-%d", i), "go", func(e sse.Event) {
							now := time.Now()
							var d struct{ Text string }
							if e.Name != "text" || json.Unmarshal(e.Data, &d) != nil {
								return
							}
							mu.Lock()
							defer mu.Unlock()
							for s := range strings.FieldsSeq(d.Text) {
								ns, _ := strconv.ParseInt(s, 10, 64)
								took = append(took, now.Sub(time.Unix(0, ns)))
							}
						})
					})
				}
				wg.Wait()
			}
			report(b, took, "")
		})
	}
}

func report(b *testing.B, took []time.Duration, what string) {
	slices.Sort(took)
	if len(took) == 0 {
		b.Fatal("nothing was measured")
	}
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), what+"p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), what+"p99-µs")
}

// BenchmarkIdleAgents: 5,000 agents are connected and say nothing; what each costs, and how long
// the first event of an active one takes.
func BenchmarkIdleAgents(b *testing.B) {
	for name, start := range map[string]func(*testing.B) *process{"open": startGateway, "locked": startLocked} {
		b.Run(name, func(b *testing.B) { idleAgents(b, start) })
	}
}

func idleAgents(b *testing.B, start func(*testing.B) *process) {
	const idle = 5000
	for b.Loop() {
		p := start(b)
		connect(b, p, "active", numbers)
		_, before := p.stat()
		ctx, cancel := context.WithCancel(context.Background())
		if p.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token)
		}
		var conns []*grpc.ClientConn
		var wg sync.WaitGroup
		slots := make(chan struct{}, 64)
		var mu sync.Mutex
		for i := range idle {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(0))
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
				stream, err := pb.NewCovenControlClient(conn).AgentStream(ctx)
				if err != nil {
					b.Error(err)
					return
				}
				err = stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
					AgentId: fmt.Sprintf("idle-%d", i), Name: "idle", Capabilities: []string{"base", "chat"},
				}}})
				if err != nil {
					b.Error(err)
				}
				if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
					b.Errorf("welcome: %v", err)
				}
			})
		}
		wg.Wait()
		time.Sleep(3 * time.Second) // let the garbage of 5,000 handshakes go
		_, after := p.stat()
		var first []time.Duration
		for range 200 {
			start := time.Now()
			ask(b, p, "active", "1", func(e sse.Event) {
				if e.Name == "text" {
					first = append(first, time.Since(start))
				}
			})
		}
		b.ReportMetric(float64(after-before)/idle/1024, "KiB/agent")
		report(b, first, "first-event-")
		cancel()
		for _, c := range conns {
			_ = c.Close()
		}
		p.kill() // the next round must not share the machine with this one
	}
}

// BenchmarkStart: from the start of the process to the first answer of /health.
func BenchmarkStart(b *testing.B) {
	for _, existing := range []bool{false, true} {
		b.Run(map[bool]string{false: "new database", true: "existing database"}[existing], func(b *testing.B) {
			p := startGateway(b)
			var took []time.Duration
			for b.Loop() {
				p.kill()
				if !existing {
					p.dir = b.TempDir()
				}
				took = append(took, p.start())
			}
			report(b, took, "")
		})
	}
}

// BenchmarkCatchUp: a reader is 10,000 events behind.
func BenchmarkCatchUp(b *testing.B) {
	p := startGateway(b)
	connect(b, p, "a", func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		for i := range 3333 { // text, tool call, result: nothing that merges
			if err := w.Text("word "); err != nil {
				return err
			}
			if err := w.ToolUse(strconv.Itoa(i), "tool", i); err != nil {
				return err
			}
			if err := w.ToolResult(strconv.Itoa(i), "result", false); err != nil {
				return err
			}
		}
		return nil
	})
	ask(b, p, "a", "go", nil)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		req, _ := http.NewRequest(http.MethodGet, "http://"+p.http+"/api/conversations/a/events?after=0", nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		for r := sse.NewReader(resp.Body); ; {
			e, err := r.Next()
			if err != nil {
				b.Fatal(err)
			}
			if e.Name == "done" {
				break
			}
		}
		resp.Body.Close()
		took = append(took, time.Since(start))
	}
	report(b, took, "")
}

// BenchmarkFanOut: 1,000 readers follow one conversation, half over SSE and half over gRPC, while
// one agent sends as fast as it can, or 200 increments a second. A delivery is one increment that
// has come to one reader, merged with others or not; every reader's text is compared.
func BenchmarkFanOut(b *testing.B) {
	for name, c := range map[string]struct {
		increments int
		every      time.Duration
	}{"flood": {20_000, 0}, "paced": {1000, 5 * time.Millisecond}} {
		b.Run(name, func(b *testing.B) { fanOut(b, c.increments, c.every) })
	}
}

func fanOut(b *testing.B, increments int, every time.Duration) {
	const readers = 1000
	p := startGateway(b)
	connect(b, p, "a", func(_ context.Context, _ *agent.Message, w *agent.Writer) error {
		tick := time.NewTicker(max(every, time.Nanosecond))
		defer tick.Stop()
		for range increments {
			if every > 0 {
				<-tick.C
			}
			if err := w.Text(strconv.FormatInt(time.Now().UnixNano(), 10) + " "); err != nil {
				return err
			}
		}
		return nil
	})
	ask(b, p, "a", "so that there is a conversation", nil)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() { stop(); wg.Wait() }()
	all := make([]*fanReader, readers)
	var opened sync.WaitGroup
	for i := range all {
		f := &fanReader{turns: make(chan fanTurn, 1)}
		all[i] = f
		opened.Add(1)
		run := f.sse
		if i%2 == 1 {
			run = f.grpc
		}
		wg.Go(func() {
			if err := run(ctx, p, opened.Done); err != nil && ctx.Err() == nil {
				b.Error(err)
				close(f.turns)
			}
		})
	}
	opened.Wait()
	want := increments * len(strconv.FormatInt(time.Now().UnixNano(), 10)+" ")
	var took []time.Duration
	messages := 0
	cpu, _ := p.stat()
	start := time.Now()
	for b.Loop() {
		wg.Go(func() { ask(b, p, "a", "go", nil) })
		for i, f := range all {
			x := <-f.turns
			if x.bytes != want {
				b.Fatalf("reader %d got %d bytes, the agent sent %d", i, x.bytes, want)
			}
			messages += x.messages
			took = append(took, x.lag)
		}
	}
	n := float64(b.N * readers * increments)
	after, _ := p.stat()
	b.ReportMetric(n/time.Since(start).Seconds(), "deliveries/s")
	b.ReportMetric(float64(messages)/time.Since(start).Seconds(), "messages/s")
	b.ReportMetric(float64(messages)/n, "messages/delivery")
	b.ReportMetric(float64((after-cpu).Nanoseconds())/n, "gateway-cpu-ns/delivery")
	b.ReportMetric(float64(p.peak())/1e6, "peak-MB")
	report(b, took, "worst-lag-of-a-reader-")
}

// A fanReader follows a conversation.
type fanReader struct {
	turns chan fanTurn
	now   fanTurn
}

// A fanTurn is what it got of one turn.
type fanTurn struct {
	bytes, messages int
	lag             time.Duration // the longest that an increment took; of those that are merged, the first one
}

func (f *fanReader) text(s string) {
	f.now.bytes += len(s)
	f.now.messages++
	if first, _, ok := strings.Cut(s, " "); ok {
		if ns, err := strconv.ParseInt(first, 10, 64); err == nil {
			f.now.lag = max(f.now.lag, time.Since(time.Unix(0, ns)))
		}
	}
}

func (f *fanReader) end() {
	f.turns <- f.now
	f.now = fanTurn{}
}

func (f *fanReader) sse(ctx context.Context, p *process, opened func()) error {
	var page struct{ Head int64 }
	resp, err := http.Get("http://" + p.http + "/api/conversations/a/events?limit=1")
	if err != nil {
		return err
	}
	err = json.NewDecoder(resp.Body).Decode(&page)
	resp.Body.Close()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/api/conversations/a/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", strconv.FormatInt(page.Head, 10))
	if resp, err = http.DefaultClient.Do(req); err != nil {
		return err
	}
	defer resp.Body.Close()
	opened()
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			return err
		}
		switch e.Name {
		case "text":
			var d struct{ Text string }
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return err
			}
			f.text(d.Text)
		case "done":
			f.end()
		}
	}
}

func (f *fanReader) grpc(ctx context.Context, p *process, opened func()) error {
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := pb.NewClientServiceClient(conn).StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a"})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		return err
	}
	opened()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if x := m.GetText(); x != nil {
			f.text(x.GetContent())
		}
		if m.GetDone() != nil {
			f.end()
		}
	}
}
