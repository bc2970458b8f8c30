package gatewaytest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	"coven-gateway/sdk/agent"
)

// rounds is how often TestCrash kills the gateway; COVEN_CRASH_ROUNDS changes it.
const rounds = 8

// roundsOf is how often to do something: as an environment variable says, if it does.
func roundsOf(t *testing.T, variable string, standard int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCrash kills a real gateway process at random moments under load. Whatever any client saw is
// there afterwards, under the same number; every turn ends once; no message reaches an agent twice.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	n := roundsOf(t, "COVEN_CRASH_ROUNDS", rounds)
	p := newProcess(t)
	p.start()
	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	w := &witness{handled: map[string]int{}}
	for i := range 3 {
		id := fmt.Sprintf("agent-%d", i)
		load.Go(func() {
			err := agent.Run(ctx, agent.Options{
				Server: p.grpc, ID: id, Handler: agent.HandlerFunc(w.handle), Logger: slog.New(slog.DiscardHandler), NoResume: true,
				BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
			})
			if err != nil {
				t.Error(err)
			}
		})
		for range 3 {
			load.Go(func() { w.chat(ctx, p, id) })
		}
		load.Go(func() { w.follow(ctx, p, id) })
	}
	var slowest time.Duration
	for range n {
		time.Sleep(50*time.Millisecond + rand.N(250*time.Millisecond)) // how long it lives, not a wait
		p.kill()
		slowest = max(slowest, p.start())
	}
	stop()
	load.Wait()
	p.kill()
	p.start()
	t.Logf("%d kills, slowest restart %v; %d turns, %d streams seen", n, slowest, len(w.handled), len(w.seen))
	w.check(t, p)
}

// process is a gateway in a process of its own.
type process struct {
	t                    testing.TB
	bin, dir, grpc, http string
	token                string // of its owner, where it asks for credentials
	cmd                  *exec.Cmd
	out                  bytes.Buffer
	log                  *os.File // what it says goes there instead, if processes come after it
}

func newProcess(t testing.TB) *process {
	p := &process{t: t, bin: filepath.Join(t.TempDir(), "coven-gateway"), dir: t.TempDir(), grpc: freeAddr(t), http: freeAddr(t)}
	if out, err := exec.Command("go", "build", "-o", p.bin, "coven-gateway/cmd/coven-gateway").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("%s", p.out.String())
		}
	})
	return p
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the process and returns how long it took until it was healthy.
func (p *process) start() time.Duration {
	p.t.Helper()
	begin := time.Now()
	p.cmd = exec.Command(p.bin, "serve", "--grpc-addr", p.grpc, "--http-addr", p.http, "--data-dir", p.dir)
	p.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+p.dir, "COVEN_CONFIG=", "COVEN_DB_PATH=")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if p.log != nil {
		p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for time.Since(begin) < gatewaytest.Patience {
		resp, err := http.Get("http://" + p.http + "/health")
		if err == nil {
			resp.Body.Close()
			return time.Since(begin)
		}
		time.Sleep(time.Millisecond) // polls a process
	}
	p.t.Fatal("the gateway does not start")
	return 0
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// witness remembers what agents were given and what clients saw.
type witness struct {
	mu      sync.Mutex
	handled map[string]int // by request id
	seen    []*sight
	gaps    []string
}

// A sight is what one client saw of one turn.
type sight struct {
	request string
	last    int64 // number of the last event
	text    string
	end     string // name of the terminal event
}

// handle answers with numbers, sometimes slowly, sometimes with a tool.
func (w *witness) handle(_ context.Context, m *agent.Message, out *agent.Writer) error {
	w.mu.Lock()
	w.handled[m.RequestID]++
	w.mu.Unlock()
	for i := range 50 + rand.N(400) {
		if err := out.Textf("%d ", i); err != nil {
			return err
		}
		switch rand.N(50) {
		case 0:
			time.Sleep(rand.N(5 * time.Millisecond)) // the agent thinks
		case 1:
			if err := out.ToolUse(fmt.Sprint(i), "tool", i); err != nil {
				return err
			}
		}
	}
	return nil
}

// chat sends messages and reads their answers, over and over.
func (w *witness) chat(ctx context.Context, p *process, agentID string) {
	for ctx.Err() == nil {
		body := fmt.Sprintf(`{"agent_id":%q,"sender":"me","content":"go"}`, agentID)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.http+"/api/send", strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			if err == nil {
				resp.Body.Close()
			}
			time.Sleep(2 * time.Millisecond) // the gateway is down
			continue
		}
		s := &sight{}
		for r := sse.NewReader(resp.Body); ; {
			e, err := r.Next()
			if err != nil {
				break
			}
			s.add(e)
		}
		resp.Body.Close()
		w.mu.Lock()
		w.seen = append(w.seen, s)
		w.mu.Unlock()
	}
}

func (s *sight) add(e sse.Event) {
	var data struct {
		RequestID string `json:"request_id"`
		Text      string
	}
	_ = json.Unmarshal(e.Data, &data)
	s.last, _ = strconv.ParseInt(e.ID, 10, 64)
	switch e.Name {
	case "started":
		s.request = data.RequestID
	case "text":
		s.text += data.Text
	case "done", "error", "canceled":
		s.end += e.Name
	}
}

// follow reads a whole conversation, resuming after each crash where it was.
func (w *witness) follow(ctx context.Context, p *process, agentID string) {
	pos := int64(0)
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/api/conversations/"+agentID+"/events", nil)
		if err != nil {
			panic(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", strconv.FormatInt(pos, 10))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			time.Sleep(2 * time.Millisecond) // the gateway is down
			continue
		}
		if resp.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(resp.Body)
			w.gap("follower of %s at %d: %s: %s", agentID, pos, resp.Status, b)
		}
		for r := sse.NewReader(resp.Body); ; {
			e, err := r.Next()
			if err != nil {
				break
			}
			var data struct {
				Seq   int64
				First int64 `json:"first_seq"`
			}
			_ = json.Unmarshal(e.Data, &data)
			if data.First == 0 {
				data.First = data.Seq
			}
			if data.First != pos+1 {
				w.gap("follower of %s: after %d came %d to %d", agentID, pos, data.First, data.Seq)
			}
			pos = data.Seq
		}
		resp.Body.Close()
	}
}

func (w *witness) gap(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gaps = append(w.gaps, fmt.Sprintf(format, args...))
}

// check compares what was seen with what is stored.
func (w *witness) check(t *testing.T, p *process) {
	for _, g := range w.gaps {
		t.Error(g)
	}
	for id, n := range w.handled {
		if n > 1 {
			t.Errorf("turn %s reached the agent %d times", id, n)
		}
		var turn struct{ State string }
		if get(t, p, "/api/turns/"+id, &turn); turn.State == "" || turn.State == "open" {
			t.Errorf("turn %s is %q after everything", id, turn.State)
		}
	}
	for _, s := range w.seen {
		if s.request == "" {
			continue // the stream broke before anything came
		}
		whole, ends := stored(t, p, s.request, 0)
		rest, _ := stored(t, p, s.request, s.last)
		if s.text+rest != whole {
			t.Errorf("turn %s: a client saw %d bytes up to %d, the log has %d bytes and %d behind it", s.request, len(s.text), s.last, len(whole), len(rest))
		}
		if len(ends) != 1 || (s.end != "" && s.end != ends[0]) {
			t.Errorf("turn %s: a client saw the end %q, the log has %v", s.request, s.end, ends)
		}
	}
}

// stored returns the text of a turn after a position, and its ends.
func stored(t *testing.T, p *process, request string, after int64) (text string, ends []string) {
	for {
		var page struct {
			Events []struct{ Type, Text string }
			Next   int64
			More   bool `json:"has_more"`
		}
		get(t, p, fmt.Sprintf("/api/turns/%s/events?limit=1000&after=%d", request, after), &page)
		for _, e := range page.Events {
			switch e.Type {
			case "text":
				text += e.Text
			case "done", "error", "canceled":
				ends = append(ends, e.Type)
			}
		}
		if after = page.Next; !page.More {
			return text, ends
		}
	}
}

func get(t *testing.T, p *process, path string, v any) {
	t.Helper()
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s: %s", path, resp.Status, b)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		t.Fatal(err)
	}
}

// TestCrashWhileAsking: of a question that was open when the gateway was killed nothing is left but
// what the log says: its turn has ended.
func TestCrashWhileAsking(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	p := newProcess(t)
	p.start()
	ctx, stop := context.WithCancel(context.Background())
	welcome := make(chan struct{}, 16)
	var running sync.WaitGroup
	running.Go(func() {
		err := agent.Run(ctx, agent.Options{
			Server: p.grpc, ID: "a", Logger: slog.New(slog.DiscardHandler), NoResume: true, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
			OnWelcome: func(agent.Welcome) { welcome <- struct{}{} },
			Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
				_, err := w.ToolApproval(ctx, "t", "rm", map[string]string{"path": "/"})
				return err
			}),
		})
		if err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	<-welcome
	resp, err := http.Post("http://"+p.http+"/api/send", "application/json", strings.NewReader(`{"agent_id":"a","sender":"me","content":"work"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	turn := ""
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Name == "tool_approval" {
			var in struct {
				RequestID string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(e.Data), &in); err != nil {
				t.Fatal(err)
			}
			turn = in.RequestID
			break
		}
	}
	p.kill()
	p.start()
	<-welcome
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/api/approvals", "", `{"approvals":[]}`},
		{"POST", "/api/tools/approve", `{"agent_id":"a","tool_id":"t","approved":true}`, `"code":"not_found"`},
		{"GET", "/api/turns/" + turn, "", `"cause":"the gateway was restarted"`},
		{"GET", "/api/turns/" + turn + "/events", "", `"error":"the gateway was restarted","recoverable":true`},
	} {
		req, err := http.NewRequest(c.method, "http://"+p.http+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %s is not in %s (%v)", c.method, c.path, c.want, body, err)
		}
	}
}
