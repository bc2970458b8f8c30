//go:build unix

package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Who owns what while one process takes over from another, and what happens when one dies. Both hold
// the sockets from the start of the heir on, so connections are never refused while one of them lives.
//
//	step         accepts   has the store   the old one dies          the new one dies
//	checking     old       old             nothing was given         goes on serving
//	standing by  old       old             the new one exits, too    goes on serving
//	begin        nobody    old             the new one opens it      stops, then opens it again
//	take         nobody    new             the new one serves        opens it again and serves
//	serving      new       new             the new one serves        whoever supervises it starts one
//
// The kernel decides who has the store: it is locked, and the lock goes when its process dies.
const (
	stepStandingBy = "standing by" // from the heir: everything that can be checked is checked
	stepBegin      = "begin"       // to the heir: the old one stops; whatever happens, serve
	stepTake       = "take"        // to the heir: the store is yours
	stepServing    = "serving"     // from the heir
	stepFailed     = "failed"      // from the heir, with the reason
)

// Limits of what the two processes tell each other.
const (
	maxMessage = 1 << 20 // bytes of a line
	checkTime  = 2 * time.Minute
	// takeTime is how long an heir may take to open the store and serve; then it is killed.
	takeTime = time.Minute
	killTime = 5 * time.Second
)

// inheritance is the environment variable with what is inherited, as JSON; descriptors follow standard error.
const inheritance = "COVEN_HANDOVER"

const channelFD = 3 // of the heir, where it speaks with the old process; its sockets follow

// An inherited socket is one of the list in inheritance, in the order of the descriptors.
type inherited struct{ Name, Addr string }

// A message is what the two processes say to each other, one JSON object per line.
type message struct {
	Step   string   `json:"step"`
	Error  string   `json:"error,omitempty"`
	Agents []string `json:"agents,omitempty"` // that were connected
}

func say(w io.Writer, m message) error { return json.NewEncoder(w).Encode(m) }

func hear(r *bufio.Reader) (message, error) {
	var m message
	line, err := r.ReadSlice('\n')
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(line, &m)
}

// An Heir is a process that was started to take over.
type Heir struct {
	PID int

	conn   net.Conn
	r      *bufio.Reader
	exited chan struct{} // closed when the process has ended
	state  *os.ProcessState
}

// Start starts binary with arguments and the sockets, and waits until it stands by: it has read its
// configuration, opened what was not inherited and looked at the store. The caller ends it with Leave or Kill.
func Start(ctx context.Context, binary string, args []string, sockets []Socket) (*Heir, error) {
	pair, err := socketPair()
	if err != nil {
		return nil, err
	}
	ours := os.NewFile(uintptr(pair[0]), "heir")
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, errors.Join(err, syscall.Close(pair[1]))
	}
	fds := []uintptr{0, 1, 2, uintptr(pair[1])}
	var list []inherited
	for _, s := range sockets {
		fds = append(fds, uintptr(s.fd))
		list = append(list, inherited{s.Name, s.Addr})
	}
	note, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, inheritance+"=") || strings.HasPrefix(v, "WATCHDOG_PID=")
	})
	// Not os/exec: it would make the sockets blocking ones, under the hands of who accepts.
	pid, _, err := syscall.StartProcess(binary, append([]string{binary}, args...), &syscall.ProcAttr{Env: append(env, inheritance+"="+string(note)), Files: fds})
	if err = errors.Join(err, syscall.Close(pair[1])); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", binary, err), conn.Close())
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	h := &Heir{PID: pid, conn: conn, r: bufio.NewReaderSize(conn, maxMessage), exited: make(chan struct{})}
	go func() { // ends with the process, which Kill waits for; after Leave this process ends itself
		defer close(h.exited)
		h.state, _ = process.Wait() // nil when it cannot be said
	}()
	if err := h.await(ctx, stepStandingBy, checkTime); err != nil {
		h.Kill()
		return nil, err
	}
	return h, nil
}

func socketPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return pair, fmt.Errorf("socketpair: %w", err)
	}
	syscall.CloseOnExec(pair[0])
	syscall.CloseOnExec(pair[1])
	return pair, nil
}

// Begin tells the heir that this process stops now: if it dies, the heir is to serve.
func (h *Heir) Begin(agents []string) error {
	return say(h.conn, message{Step: stepBegin, Agents: agents})
}

// Take gives the store to the heir and waits until it serves. After an error the heir is dead, and
// the store is free. When ctx ends the heir is asked to end as well.
func (h *Heir) Take(ctx context.Context) error {
	err := say(h.conn, message{Step: stepTake})
	if err == nil {
		err = h.await(ctx, stepServing, takeTime)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		_ = syscall.Kill(h.PID, syscall.SIGTERM) // it may have gone
		select {
		case <-h.exited:
		case <-time.After(takeTime):
		}
	}
	h.Kill()
	return err
}

// Kill ends the heir and waits for its end.
func (h *Heir) Kill() {
	select {
	case <-h.exited:
	default:
		_ = syscall.Kill(h.PID, syscall.SIGKILL) // nobody else waits for it, so the number is still its own
		<-h.exited
	}
	_ = h.conn.Close() // nobody is at its other end
}

func (h *Heir) await(ctx context.Context, step string, limit time.Duration) error {
	if err := h.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = h.conn.SetReadDeadline(time.Unix(1, 0)) })()
	m, err := hear(h.r)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process is not %s after %v", step, limit)
	case err != nil:
		select {
		case <-h.exited:
			return fmt.Errorf("the new process ended before it was %s: %v", step, h.state)
		case <-time.After(killTime):
			return fmt.Errorf("the new process closed its channel before it was %s: %w", step, err)
		}
	case m.Step == stepFailed:
		return fmt.Errorf("the new process says: %s", m.Error)
	case m.Step != step:
		return fmt.Errorf("the new process says %q instead of %q", m.Step, step)
	}
	return nil
}

// A Predecessor is the process that this one takes over from.
type Predecessor struct {
	Sockets []Socket

	conn net.Conn
	r    *bufio.Reader
}

// Inherit returns the process that has started this one to take over; nil if nobody has.
func Inherit() (*Predecessor, error) {
	note := os.Getenv(inheritance)
	if note == "" {
		return nil, nil
	}
	if err := os.Unsetenv(inheritance); err != nil {
		return nil, err
	}
	var list []inherited
	if err := json.Unmarshal([]byte(note), &list); err != nil {
		return nil, fmt.Errorf("%s: %w", inheritance, err)
	}
	f := os.NewFile(channelFD, "predecessor")
	conn, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: descriptor %s: %w", inheritance, strconv.Itoa(channelFD), err)
	}
	p := &Predecessor{conn: conn, r: bufio.NewReaderSize(conn, maxMessage)}
	for i, s := range list {
		fd := channelFD + 1 + i
		syscall.CloseOnExec(fd)
		p.Sockets = append(p.Sockets, Socket{Name: s.Name, Addr: s.Addr, fd: fd})
	}
	return p, nil
}

// StandBy says that everything is checked, and waits until the store is to be opened. It returns the
// agents that were connected, and whether the old process has died: then its lock goes any moment. An
// error means that nobody is to take over.
func (p *Predecessor) StandBy(ctx context.Context) (agents []string, died bool, err error) {
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := say(p.conn, message{Step: stepStandingBy}); err != nil {
		return nil, false, err
	}
	m, err := hear(p.r)
	if err == nil && m.Step != stepBegin {
		err = fmt.Errorf("it says %q", m.Step)
	}
	if err != nil {
		return nil, false, fmt.Errorf("the old process has changed its mind: %w", err)
	}
	agents = m.Agents
	m, err = hear(p.r)
	switch {
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case err != nil:
		return agents, true, nil
	case m.Step != stepTake:
		return nil, false, fmt.Errorf("the old process says %q", m.Step)
	}
	return agents, false, nil
}

// Serving tells the old process that it can end.
func (p *Predecessor) Serving() error {
	return errors.Join(say(p.conn, message{Step: stepServing}), p.conn.Close())
}

// Failed tells the old process why this one cannot serve, and ends the connection.
func (p *Predecessor) Failed(why error) error {
	text := why.Error()
	return errors.Join(say(p.conn, message{Step: stepFailed, Error: text[:min(len(text), maxMessage/8)]}), p.conn.Close())
}
