package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// startTimeout bounds how long a gateway may take to answer /health, or to exit after SIGTERM.
	startTimeout = 60 * time.Second
	// maxOutput bounds what is kept of a process's output, in bytes; the end of it counts.
	maxOutput = 2 << 10
)

// A Target is where a gateway is reached, and with what.
type Target struct {
	GRPC  string // host:port
	HTTP  string // URL without a path
	Token string // "" where none is asked for
}

// A Process is a gateway, or something else that serves as one, in a process of its own. Its methods may be
// used by one goroutine at a time.
type Process struct {
	Target

	Bin  string   // the program
	Dir  string   // the data directory
	Args []string // instead of those of `serve`; nil for a gateway
	Env  []string // besides the environment

	cmd  *exec.Cmd
	exit chan error // what Wait returned; one value
	out  tail
}

// NewProcess describes a gateway whose data is in dir, on free loopback ports. config is the text of its
// configuration file; "" for the defaults.
func NewProcess(bin, dir, config string) (*Process, error) {
	p := &Process{Bin: bin, Dir: dir}
	if err := p.addresses(); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "coven", "gateway.yaml")
	// A configuration of whoever runs this must not matter.
	p.Env = []string{"XDG_CONFIG_HOME=" + dir, "COVEN_CONFIG=" + file, "COVEN_DB_PATH=", "COVEN_TOKEN="}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	return p, os.WriteFile(file, []byte("data_dir: "+strconv.Quote(dir)+"\n"+config), 0o600)
}

// addresses chooses free ports.
func (p *Process) addresses() error {
	var addrs [2]string
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close() // only now, else both may be the same
		addrs[i] = l.Addr().String()
	}
	p.GRPC, p.HTTP = addrs[0], "http://"+addrs[1]
	return nil
}

// Bootstrap makes the owner of a gateway that asks for credentials and keeps its token.
func (p *Process) Bootstrap(ctx context.Context) error {
	if out, err := p.Run(ctx, "bootstrap", "--name", "harness"); err != nil {
		return fmt.Errorf("bootstrap: %w: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(p.Dir, "coven", "token"))
	p.Token = strings.TrimSpace(string(b))
	return err
}

// Run runs another command of the program with the same configuration, and returns what it prints.
func (p *Process) Run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.Bin, args...)
	cmd.Env = append(os.Environ(), p.Env...)
	return cmd.CombinedOutput()
}

// Start starts the process and returns how long it took until it answered /health.
func (p *Process) Start(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	addr := strings.TrimPrefix(p.HTTP, "http://")
	args := p.Args
	if args == nil {
		args = []string{"serve", "--grpc-addr", p.GRPC, "--http-addr", addr, "--data-dir", p.Dir}
	}
	p.cmd = exec.Command(p.Bin, args...)
	p.cmd.Env = append(os.Environ(), p.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	separate(p.cmd) // ^C is for us; the gateway is stopped when all is checked
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return 0, err
	}
	p.exit = make(chan error, 1)
	go func(cmd *exec.Cmd, exit chan<- error) { exit <- cmd.Wait() }(p.cmd, p.exit)
	client := http.Client{Timeout: time.Second}
	for poll := time.NewTicker(time.Millisecond); ; {
		resp, err := client.Get(p.HTTP + "/health")
		if err == nil {
			poll.Stop()
			return time.Since(begin), resp.Body.Close()
		}
		select {
		case err := <-p.exit:
			p.cmd = nil
			return 0, errors.Join(errors.New("the gateway exits at its start"), err, errors.New(p.out.String()))
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), p.Kill())
		case <-poll.C:
		}
		if time.Since(begin) > startTimeout {
			return 0, errors.Join(fmt.Errorf("the gateway does not answer within %v\n%s", startTimeout, p.out.String()), p.Kill())
		}
	}
}

// Kill ends the process as a power cut would. It is no error if it does not run.
func (p *Process) Kill() error {
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.exit // killed, which is no success, and was meant
	p.cmd = nil
	return err
}

// Stop asks the process to end and waits until it has; an exit code other than 0 is an error.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(terminate); err != nil {
		return err
	}
	late := time.NewTimer(startTimeout)
	defer late.Stop()
	select {
	case err := <-p.exit:
		p.cmd = nil
		if err != nil {
			return fmt.Errorf("the gateway stops with: %w\n%s", err, p.out.String())
		}
		return nil
	case <-late.C:
		return errors.Join(fmt.Errorf("the gateway does not stop within %v", startTimeout), p.Kill())
	}
}

// Pause stops the process from running until Continue.
func (p *Process) Pause() error { return pause(p.cmd.Process) }

// Continue lets a paused process run.
func (p *Process) Continue() error { return unpause(p.cmd.Process) }

// LimitFiles sets how large files may become that the process writes, in bytes: with 1 every write of the
// database fails in the kernel. [Unlimited] takes the limit away.
func (p *Process) LimitFiles(size uint64) error { return limitFiles(p.cmd.Process.Pid, size) }

// Output returns the end of what the process has printed.
func (p *Process) Output() string { return p.out.String() }

// PID is the id of the running process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Usage is what a process has used so far. It is zero where there is no /proc.
type Usage struct {
	CPU      time.Duration
	Resident int64 // bytes
	Peak     int64 // the most it was, in bytes
}

// Usage reads what the process has used.
func (p *Process) Usage() Usage { return usage(p.PID()) }

func usage(pid int) (u Usage) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return u
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all platforms of Linux that Go knows
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	u.CPU, u.Resident = time.Duration(user+system)*tick, pages*int64(os.Getpagesize())
	b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // without it there is no peak
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			u.Peak = kb << 10
		}
	}
	return u
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // at most 2*maxOutput
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-maxOutput):]...)
	if len(t.buf) > 2*maxOutput {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-maxOutput:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-maxOutput):])
}
