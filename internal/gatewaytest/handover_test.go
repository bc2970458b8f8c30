package gatewaytest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// upgrade has the gateway replaced and returns the new process and what the command said.
func (p *process) upgrade(more ...string) (pid int, words string, err error) {
	out, err := exec.Command(p.bin, append([]string{"upgrade", "--data-dir", p.dir}, more...)...).CombinedOutput()
	_, _ = fmt.Sscanf(string(out), "Process %d serves now", &pid) // 0 after a failure
	return pid, string(out), err
}

// serving is the process that has the database open.
func (p *process) serving() int {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "gateway.db.lock"))
	if err != nil {
		p.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		p.t.Fatal(err)
	}
	return pid
}

// handovers starts a process whose heirs are killed when the test ends.
func handovers(t *testing.T, before ...func(*process)) *process {
	p := newProcess(t)
	for _, f := range before {
		f(p)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p.log = log
	p.start()
	t.Cleanup(func() {
		pid := p.serving()
		if pid != p.cmd.Process.Pid {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone
			_ = p.cmd.Wait()                       // it was replaced
			p.cmd = nil
		}
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s", b[max(0, len(b)-20000):])
		}
		log.Close()
	})
	return p
}

// TestHandOver: processes replace each other under load. Nothing that anybody saw is lost or comes twice,
// no connection is refused, no message is refused, and each key makes one turn. Turns of agents that can
// resume do not fail. COVEN_HANDOVER_TIME is how long it goes on, COVEN_HANDOVER_EVERY how often.
func TestHandOver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	total, every := duration(t, "COVEN_HANDOVER_TIME", 6*time.Second), duration(t, "COVEN_HANDOVER_EVERY", 2*time.Second)
	p := handovers(t)
	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	w := &witness{handled: map[string]int{}}
	f := &fleet{}
	for i := range 5 {
		id := fmt.Sprintf("agent-%d", i)
		welcome := make(chan struct{}, 1)
		load.Go(func() {
			err := agent.Run(ctx, agent.Options{
				Server: p.grpc, ID: id, Handler: agent.HandlerFunc(w.handle), Logger: slog.New(slog.DiscardHandler),
				BackoffMin: 20 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
				OnWelcome: func(agent.Welcome) {
					select {
					case welcome <- struct{}{}:
					default: // a reconnect
					}
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-welcome
		load.Go(func() { w.follow(ctx, p, id) })
		load.Go(func() { f.chatHTTP(ctx, p, w, id) })
		load.Go(func() { f.chatGRPC(ctx, t, p, id) })
	}
	n := 0
	for begin := time.Now(); time.Since(begin) < total; {
		time.Sleep(every) // how long a process lives, not a wait
		before := p.serving()
		pid, words, err := p.upgrade()
		if err != nil || pid == before || pid != p.serving() {
			t.Errorf("upgrade from process %d to %d: %v: %s", before, pid, err, words)
		}
		n++
	}
	time.Sleep(every / 2) // of ordinary work
	stop()
	load.Wait()
	f.check(t, n)
	w.check(t, p)
}

func duration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fleet are clients that want answers, and what became of that.
type fleet struct {
	mu      sync.Mutex
	turns   int
	failed  map[string]int  // turns by their end
	refused []string        // requests that got no turn
	again   int             // requests whose connection broke before there was an answer
	took    []time.Duration // from a message to the beginning of its answer
}

func (f *fleet) ended(end string, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = map[string]int{}
	}
	if f.turns++; end != "done" {
		f.failed[end]++
	}
	f.took = append(f.took, took)
}

func (f *fleet) problem(retried bool, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if retried {
		f.again++
		return
	}
	f.refused = append(f.refused, fmt.Sprintf(format, args...))
}

// check tells the figures. A connection that was being closed while a request was on its way is the one
// thing that a client may notice, and it repeats the request with its key.
func (f *fleet) check(t *testing.T, handovers int) {
	slices.Sort(f.took)
	at := func(q float64) time.Duration { return f.took[int(q*float64(len(f.took)-1))] }
	t.Logf("%d hand-overs, %d turns, not done: %v, %d requests repeated, refused %d; an answer begins after %v (p50), %v (p99), %v (max)",
		handovers, f.turns, f.failed, f.again, len(f.refused), at(.5), at(.99), at(1))
	for _, r := range f.refused[:min(len(f.refused), 10)] {
		t.Error(r)
	}
	for end, n := range f.failed {
		if end != "interrupted" { // only agents that cannot resume have these
			t.Errorf("%d turns ended as %q", n, end)
		}
	}
}

// chatHTTP sends messages and follows the answers to their ends, over as many connections as it takes.
func (f *fleet) chatHTTP(ctx context.Context, p *process, w *witness, agentID string) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		body := fmt.Sprintf(`{"agent_id":%q,"sender":"me","content":"go","idempotency_key":%q}`, agentID, uuid.NewString())
		s, begin, began := &sight{}, time.Now(), time.Duration(0)
		method, path := http.MethodPost, "/api/send"
		for s.end == "" && ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, method, "http://"+p.http+path, strings.NewReader(body))
			if err != nil {
				panic(err)
			}
			if method == http.MethodGet {
				req.Header.Set("Accept", "text/event-stream")
				req.Header.Set("Last-Event-ID", strconv.FormatInt(s.last, 10))
			}
			resp, err := client.Do(req)
			if err != nil {
				if ctx.Err() == nil {
					f.problem(!strings.Contains(err.Error(), "refused"), "%s %s: %v", method, path, err)
				}
				continue
			}
			if resp.StatusCode != http.StatusOK {
				b, _ := io.ReadAll(resp.Body)
				f.problem(false, "%s %s: %s: %s", method, path, resp.Status, b)
				resp.Body.Close()
				break
			}
			for r := sse.NewReader(resp.Body); ; {
				e, err := r.Next()
				if err != nil {
					break
				}
				if s.add(e); began == 0 && e.Name != "started" {
					began = time.Since(begin)
				}
			}
			resp.Body.Close()
			if s.request != "" {
				method, path, body = http.MethodGet, "/api/turns/"+s.request+"/events", ""
			}
		}
		w.mu.Lock()
		w.seen = append(w.seen, s)
		w.mu.Unlock()
		if s.end != "" {
			var turn struct{ State string }
			if s.end == "done" {
				turn.State = "done"
			} else if err := fetchJSON(client, "http://"+p.http+"/api/turns/"+s.request, &turn); err != nil {
				turn.State = err.Error()
			}
			f.ended(turn.State, began)
		}
	}
}

func fetchJSON(c *http.Client, url string, v any) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v)
}

// chatGRPC sends messages on one channel, as bridges do: it repeats nothing.
func (f *fleet) chatGRPC(ctx context.Context, t *testing.T, p *process, agentID string) {
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	c := pb.NewClientServiceClient(conn)
	for ctx.Err() == nil {
		begin := time.Now()
		list, err := c.ListAgents(ctx, &pb.ListAgentsRequest{})
		if err == nil && !slices.ContainsFunc(list.GetAgents(), func(a *pb.AgentInfo) bool { return a.GetId() == agentID && a.GetConnected() }) {
			err = fmt.Errorf("agent %s is not in the list", agentID)
		}
		if err == nil {
			_, err = c.SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: agentID, Content: "hi", IdempotencyKey: uuid.NewString()})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.problem(false, "gRPC: %v", err)
			continue
		}
		f.mu.Lock()
		f.took = append(f.took, time.Since(begin))
		f.mu.Unlock()
		select {
		case <-time.After(rand.N(100 * time.Millisecond)): // somebody types
		case <-ctx.Done():
		}
	}
}

// TestHandOverTLS: a gateway that speaks TLS is replaced, and the next process shows the certificate that is
// there then; who comes meanwhile waits.
func TestHandOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	certs := t.TempDir()
	gatewaytest.Certificate(t, certs, "first")
	p := handovers(t, func(p *process) {
		dir := filepath.Join(p.dir, "coven")
		text := fmt.Sprintf("server: {tls: {cert_file: %[1]s/cert.pem, key_file: %[1]s/key.pem}}\n", certs)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "gateway.yaml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	encrypted := &tls.Config{InsecureSkipVerify: true}
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(credentials.NewTLS(encrypted)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	look := func() string {
		t.Helper()
		client := http.Client{Transport: &http.Transport{TLSClientConfig: encrypted, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + p.http + "/health/ready")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	if got := look(); got != "first" {
		t.Errorf("%q is shown", got)
	}
	gatewaytest.Certificate(t, certs, "second")
	if _, words, err := p.upgrade(); err != nil {
		t.Fatal(words, err)
	}
	if got := look(); got != "second" {
		t.Errorf("after the hand-over %q is shown", got)
	}
	health := exec.Command(p.bin, "health", "--http-addr", p.http)
	health.Env = p.cmd.Env
	if out, err := health.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestHandOverFails: whatever is wrong with the new program, and if it shows only when it has the data
// in its hands, the old one goes on, and says why.
func TestHandOverFails(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	p := handovers(t)
	script := func(text string) string {
		name := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+strings.ReplaceAll(text, "GATEWAY", p.bin)), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	// check is what follows for --check to succeed.
	const check = "case \"$*\" in *--check) exit 0;; esac\n"
	for _, c := range []struct{ name, binary, words string }{
		{"no program", filepath.Join(t.TempDir(), "nothing"), "no such file"},
		{"an older one", script("echo 'unknown flag: --check' >&2; exit 2\n"), "exit status 2: unknown flag: --check"},
		{"ends", script(check + "exit 7\n"), "ended before it was standing by: exit status 7"},
		{"cannot listen", script("exec GATEWAY \"$@\" --http-addr 203.0.113.1:1\n"), "cannot listen for HTTP on 203.0.113.1:1"},
		{"bad configuration", script("exec GATEWAY \"$@\" --config /nonexistent.yaml\n"), "nonexistent.yaml"},
		{"cannot open the data", script(check + "exec GATEWAY \"$@\" --data-dir /proc/nothing\n"), "the new process says: data directory: mkdir /proc/nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, words, err := p.upgrade("--binary", c.binary)
			if err == nil || !strings.Contains(words, c.words) {
				t.Errorf("upgrade says %v %s, want %q", err, words, c.words)
			}
			if pid := p.serving(); pid != p.cmd.Process.Pid {
				t.Errorf("process %d serves", pid)
			}
			if resp, err := http.Get("http://" + p.http + "/health/ready"); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("afterwards: %v %v", resp, err)
			} else {
				resp.Body.Close()
			}
		})
	}
}

// TestHandOverKilled: when the old process is killed while it stops, the new one serves.
func TestHandOverKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	p := handovers(t)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	welcome, working := make(chan struct{}, 16), make(chan struct{})
	running.Go(func() {
		err := agent.Run(ctx, agent.Options{
			Server: p.grpc, ID: "a", Logger: slog.New(slog.DiscardHandler), BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
			OnWelcome: func(agent.Welcome) { welcome <- struct{}{} },
			Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, _ *agent.Writer) error {
				close(working)
				<-ctx.Done() // the old gateway waits for it
				return nil
			}),
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-welcome
	running.Go(func() {
		resp, err := http.Post("http://"+p.http+"/api/send", "application/json", strings.NewReader(`{"agent_id":"a","sender":"me","content":"work"}`))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // until the gateway dies
			resp.Body.Close()
		}
	})
	<-working
	running.Go(func() { _, _, _ = p.upgrade() }) // whom it asks dies
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if b, _ := os.ReadFile(p.log.Name()); bytes.Contains(b, []byte("the gateway is being replaced")) {
			break
		}
		if time.Since(start) > gatewaytest.Patience {
			t.Fatal("the upgrade does not begin")
		}
	}
	old := p.cmd.Process.Pid
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Nobody is refused: it waits for the new process.
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	calling, cancel := context.WithTimeout(ctx, gatewaytest.Patience)
	defer cancel()
	r, err := healthpb.NewHealthClient(conn).Check(calling, &healthpb.HealthCheckRequest{})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the new process says %v, %v", r, err)
	}
	if pid := p.serving(); pid == old {
		t.Errorf("process %d serves", pid)
	}
	<-welcome
}

// TestSystemd: sockets of systemd are taken, whoever connects before the start waits, and systemd hears
// what it has to, over a hand-over as well.
func TestSystemd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	p := newProcess(t)
	var files []*os.File
	for _, addr := range []string{p.grpc, p.http} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	name := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	heard := make(chan string, 1000) // more than are sent
	go func() {
		defer close(heard)
		for buf := make([]byte, 4096); ; {
			n, err := notify.Read(buf)
			if err != nil {
				return // closed
			}
			heard <- string(buf[:n])
		}
	}()
	hears := func(want string) {
		t.Helper()
		for timeout := time.After(gatewaytest.Patience); ; {
			select {
			case got := <-heard:
				if got == want {
					return
				}
				if got != "WATCHDOG=1" {
					t.Fatalf("systemd hears %q, not %q", got, want)
				}
			case <-timeout:
				t.Fatalf("systemd does not hear %q", want)
			}
		}
	}
	early := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + p.http + "/health")
		if err == nil {
			resp.Body.Close()
		}
		early <- err
	}()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// The configured addresses are not used.
	p.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, p.bin, "serve", "--grpc-addr", "203.0.113.1:1", "--http-addr", "203.0.113.1:2", "--data-dir", p.dir)
	p.cmd.ExtraFiles = files
	p.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+p.dir, "COVEN_CONFIG=", "COVEN_DB_PATH=", "LISTEN_FDS=2", "LISTEN_FDNAMES=grpc:http", "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=100000")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s", b)
		}
	}()
	hears("READY=1")
	if err := <-early; err != nil {
		t.Errorf("who connected before the start: %v", err)
	}
	for _, f := range files { // the gateway has its own
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	pid, words, err := p.upgrade()
	if err != nil {
		t.Fatal(words)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it may have gone
	hears("RELOADING=1")
	hears(fmt.Sprintf("MAINPID=%d\nREADY=1", pid))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the old process ends with %v", err)
	}
	p.cmd = nil
	hears("WATCHDOG=1")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
}
