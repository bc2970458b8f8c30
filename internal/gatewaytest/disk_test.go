//go:build linux

package gatewaytest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/sdk/agent"
)

// TestDiskFails takes the disk away from a real gateway under load: no file may grow any more, so that
// every write of the database and of files fails in the kernel. Callers hear why, readiness goes and
// comes back, and what anybody saw is what the log has.
func TestDiskFails(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a process")
	}
	p := newProcess(t)
	p.start()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	w := &witness{handled: map[string]int{}}
	for i := range 2 {
		id := fmt.Sprintf("agent-%d", i)
		load.Go(func() {
			err := agent.Run(ctx, agent.Options{Server: p.grpc, ID: id, Handler: agent.HandlerFunc(w.handle), Logger: slog.New(slog.DiscardHandler), BackoffMax: 200 * time.Millisecond, NoResume: true})
			if err != nil {
				t.Error(err)
			}
		})
		for range 3 {
			load.Go(func() { w.chat(ctx, p, id) })
		}
		load.Go(func() { w.follow(ctx, p, id) })
	}
	ready := "" // what readiness says
	defer func() {
		if t.Failed() {
			t.Logf("readiness: %q", ready)
		}
	}()
	for range 3 {
		w.mu.Lock()
		before := len(w.seen)
		w.mu.Unlock()
		p.await("turns", func() bool { // else nobody would write, and nothing fail
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.seen) > before+10
		})
		p.limitFiles(1)
		p.await("not ready", func() bool {
			status, body := p.request("GET", "/health/ready", "")
			ready = body
			return status == http.StatusServiceUnavailable && strings.Contains(body, "the disk reports an error")
		})
		for what, r := range map[string]struct{ method, path, body, want string }{
			"message": {"POST", "/api/send", `{"agent_id":"agent-0","sender":"me","content":"hi"}`, "the message could not be stored: the disk reports an error; nothing was stored"},
			"file":    {"POST", "/api/send", `{"agent_id":"agent-0","sender":"me","content":"hi","attachments":[{"filename":"a.txt","mime_type":"text/plain","data":"aGk="}]}`, "could not be stored: the file would be larger than this process may write; nothing was stored"},
			"secret":  {"PUT", "/api/admin/secrets", `{"name":"A","value":"b"}`, "the disk reports an error; nothing was stored"},
		} {
			if status, body := p.request(r.method, r.path, r.body); status != http.StatusServiceUnavailable || !strings.Contains(body, r.want) {
				t.Errorf("a %s while the disk fails: %d %s", what, status, body)
			}
		}
		p.limitFiles(math.MaxUint64)
		p.await("ready again", func() bool {
			status, _ := p.request("GET", "/health/ready", "")
			return status == http.StatusOK
		})
	}
	stop()
	load.Wait()
	p.kill()
	p.start()
	t.Logf("%d turns, %d streams seen", len(w.handled), len(w.seen))
	w.check(t, p)
}

// limitFiles sets how large files may become that the gateway writes, in bytes.
func (p *process) limitFiles(size uint64) {
	p.t.Helper()
	limit := syscall.Rlimit{Cur: size, Max: math.MaxUint64}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(p.cmd.Process.Pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		p.t.Skipf("cannot limit the files of a process: %v", errno)
	}
}

// await waits until a condition of another process holds.
func (p *process) await(what string, ok func() bool) {
	p.t.Helper()
	for start := time.Now(); time.Since(start) < gatewaytest.Patience; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	p.t.Fatalf("%s: not in %v", what, gatewaytest.Patience)
}

func (p *process) request(method, path, body string) (status int, answer string) {
	p.t.Helper()
	req, err := http.NewRequest(method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
