//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"coven-gateway/internal/agent"
	"coven-gateway/internal/auth"
	"coven-gateway/internal/gateway"
	"coven-gateway/internal/handover"
)

const (
	// checkTime bounds `serve --check` before a hand-over; a change of the schema is tried on a copy.
	checkTime = 2 * time.Minute
	// lockTime is how long the lock of a process that has died may still be held.
	lockTime = 5 * time.Second
	// maxWords bounds what is repeated of the words of a check, in bytes.
	maxWords = 4 << 10
)

// A server is the process around a gateway: it has the sockets, which outlive the gateway in it, and
// hands them to the next process. One goroutine does all this.
type server struct {
	options gateway.Options
	logger  *slog.Logger
	sockets []handover.Socket
	failed  *handover.Request // asked for a hand-over that has failed too late; answered when the gateway is back
	why     error             // why it has failed
	orphan  bool              // the process before this one has died with the store locked
}

// serve runs until ctx ends, the gateway fails, or another process has taken over.
func (s *server) serve(ctx context.Context, serving func(*gateway.Gateway)) error {
	defer s.close()
	defer func() { s.answerFailed(errors.New("and the old process does not serve either")) }()
	predecessor, err := handover.Inherit()
	if err != nil {
		return err
	}
	if predecessor == nil {
		if err := s.openSockets(nil); err != nil {
			return err
		}
	} else if err := s.succeed(ctx, predecessor); err != nil {
		return errors.Join(err, predecessor.Failed(err))
	}
	watched, unwatch := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watchdog(watched) })
	defer watch.Wait()
	defer unwatch()
	for {
		gw, err := s.open(ctx)
		if err != nil {
			if predecessor != nil {
				err = errors.Join(err, predecessor.Failed(err))
			}
			return err
		}
		replaced, err := s.run(ctx, gw, predecessor, serving)
		if replaced || err != nil || ctx.Err() != nil {
			return err
		}
		predecessor = nil
	}
}

// succeed takes over from another process, up to the moment when the store is ours.
func (s *server) succeed(ctx context.Context, p *handover.Predecessor) error {
	if err := s.openSockets(p.Sockets); err != nil {
		return err
	}
	if err := checkServe(ctx, s.options.Config, s.logger); err != nil {
		return err
	}
	agents, died, err := p.StandBy(ctx)
	if err != nil {
		return err
	}
	s.options.Returning = agents
	if s.orphan = died; died {
		s.logger.Warn("the process before this one has died while it was being replaced")
	}
	return nil
}

// openSockets takes the given sockets that are still configured, and opens the others.
func (s *server) openSockets(given []handover.Socket) error {
	activated, err := handover.Activated()
	if err != nil {
		return err
	}
	given = append(given, activated...)
	cfg := s.options.Config
	for _, want := range []struct{ name, addr, what, setting string }{
		{handover.HTTP, cfg.Server.HTTPAddr, "HTTP", "--http-addr or server.http_addr"},
		{handover.GRPC, cfg.Server.GRPCAddr, "gRPC", "--grpc-addr or server.grpc_addr"},
		{handover.Admin, cfg.Admin.Listen, "admin", "admin.listen"},
	} {
		i := slices.IndexFunc(given, func(g handover.Socket) bool { return g.Name == want.name && (g.Addr == "" || g.Addr == want.addr) })
		if i >= 0 {
			s.sockets = append(s.sockets, given[i])
			given = slices.Delete(given, i, i+1)
			continue
		}
		if want.addr == "" {
			continue
		}
		opened, err := handover.Listen(want.name, want.addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("the %s address %s is taken by another program: stop that program, or choose another address with %s", want.what, want.addr, want.setting)
		}
		if err != nil {
			return fmt.Errorf("cannot listen for %s on %s (%s): %w", want.what, want.addr, want.setting, err)
		}
		s.sockets = append(s.sockets, opened)
	}
	for _, g := range given { // their addresses are not configured any more
		if err := g.Close(); err != nil {
			return err
		}
	}
	return nil
}

// answerFailed answers who has asked for a hand-over that has failed, if somebody has; more is what
// has happened since then.
func (s *server) answerFailed(more error) {
	if s.failed != nil {
		s.failed.Answer(0, errors.Join(s.why, more))
		s.failed, s.why = nil, nil
	}
}

func (s *server) close() {
	for _, socket := range s.sockets {
		_ = socket.Close() // nobody uses it any more
	}
}

// open opens the gateway. The lock of a process that has just died may be held for a moment longer.
func (s *server) open(ctx context.Context) (*gateway.Gateway, error) {
	gw, err := s.tryOpen(ctx)
	for start := time.Now(); err != nil && s.orphan && time.Since(start) < lockTime; gw, err = s.tryOpen(ctx) {
		select {
		case <-time.After(lockTime / 100):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.orphan = false
	return gw, err
}

func (s *server) tryOpen(ctx context.Context) (*gateway.Gateway, error) {
	o := s.options
	for _, socket := range s.sockets {
		l, err := socket.Listener()
		if err != nil {
			return nil, errors.Join(err, closeAll(o.GRPC, o.HTTP, o.Admin))
		}
		switch socket.Name {
		case handover.GRPC:
			o.GRPC = l
		case handover.HTTP:
			o.HTTP = l
		case handover.Admin:
			o.Admin = l
		}
	}
	return gateway.New(ctx, o)
}

func closeAll(listeners ...net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// run serves until ctx ends or the gateway fails; then it has stopped. After a hand-over it returns
// true; after one that has failed too late it returns false and no error, and the gateway is to be
// opened again.
func (s *server) run(ctx context.Context, gw *gateway.Gateway, predecessor *handover.Predecessor, serving func(*gateway.Gateway)) (replaced bool, err error) {
	gw.Start()
	control, err := handover.NewControl(filepath.Join(s.options.Config.DataDir, controlName))
	if err != nil { // such as a path that is too long for a socket
		s.logger.Warn("there is no control socket: this gateway cannot be replaced without a stop", "error", err)
		control = &handover.Control{}
	} else {
		defer control.Close()
	}
	if predecessor != nil {
		if err := predecessor.Serving(); err != nil {
			s.logger.Warn("the process before this one is not told that it can end", "error", err)
		}
	}
	if predecessor == nil { // which systemd hears it from, with the number of this process
		s.notify(handover.Ready)
	}
	serving(gw)
	s.answerFailed(nil)
	for {
		select {
		case <-ctx.Done():
			s.notify(handover.Stopping)
			return false, gw.Stop(context.WithoutCancel(ctx))
		case err := <-gw.Failed():
			s.notify(handover.Stopping)
			return false, errors.Join(err, gw.Stop(context.WithoutCancel(ctx)))
		case r := <-control.Requests:
			heir, binary, err := s.prepare(ctx, gw, r.Binary)
			if err != nil {
				s.logger.Error("the gateway is not replaced, and goes on", "binary", binary, "error", err)
				r.Answer(0, err)
				continue
			}
			if err = s.handOver(ctx, gw, heir, binary); err == nil {
				r.Answer(heir.PID, nil)
				return true, nil
			}
			s.logger.Error("the gateway is not replaced: it opens its data again", "binary", binary, "error", err)
			s.failed, s.why = r, err
			return false, nil
		}
	}
}

// prepare starts the next process and has it stand by. Nothing has changed when it fails.
func (s *server) prepare(ctx context.Context, gw *gateway.Gateway, binary string) (*handover.Heir, string, error) {
	if os.Getpid() == 1 {
		return nil, binary, errors.New("the gateway is process 1 of a container, which ends with it: replace the container instead")
	}
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return nil, "", err
		}
		binary = strings.TrimSuffix(binary, " (deleted)") // a new file has its name
	}
	checking, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	check := exec.CommandContext(checking, binary, append(slices.Clone(os.Args[1:]), "--check")...)
	var words bytes.Buffer
	check.Stdout, check.Stderr = &words, &words
	check.WaitDelay = lockTime
	if err := check.Run(); err != nil {
		text := strings.TrimSpace(words.String())
		return nil, binary, fmt.Errorf("%s serve --check: %w: %s", binary, err, text[max(0, len(text)-maxWords):])
	}
	heir, err := handover.Start(ctx, binary, os.Args[1:], s.sockets)
	if err != nil {
		return nil, binary, err
	}
	record := auth.NewRecord(auth.Principal{}, "upgrade", "gateway", binary, map[string]any{"from_version": s.options.Version, "pid": heir.PID})
	if err := gw.Identity().Note(ctx, record); err != nil {
		heir.Kill()
		return nil, binary, fmt.Errorf("the audit log cannot be written: %w", err)
	}
	return heir, binary, nil
}

// handOver stops the gateway and gives its store to the heir. After an error the store is free, and
// nobody has the sockets but this process.
func (s *server) handOver(ctx context.Context, gw *gateway.Gateway, heir *handover.Heir, binary string) error {
	s.logger.Info("the gateway is being replaced", "binary", binary, "pid", heir.PID)
	start := time.Now()
	agents := agentIDs(gw.Agents())
	s.options.Returning = agents // if it comes to that
	s.notify(handover.Reloading)
	begun := heir.Begin(agents)
	if err := gw.Release(context.WithoutCancel(ctx)); err != nil {
		s.logger.Error("not everything has stopped well", "error", err)
	}
	released := time.Since(start)
	if ctx.Err() != nil {
		heir.Kill()
		return errors.New("the gateway was told to stop")
	}
	if err := errors.Join(begun, heir.Take(ctx)); err != nil {
		heir.Kill()
		return err
	}
	s.notify(handover.MainPID(heir.PID))
	s.logger.Info("the gateway has been replaced", "binary", binary, "pid", heir.PID, "stopped_after", released, "served_after", time.Since(start))
	return nil
}

func agentIDs(r *agent.Registry) []string {
	var ids []string
	for _, a := range r.List() {
		ids = append(ids, a.ID)
	}
	return ids
}

func (s *server) notify(state string) {
	if err := handover.Notify(state); err != nil {
		s.logger.Warn("systemd is not told", "state", state, "error", err)
	}
}

// watchdog tells systemd that the process is alive, if it wants to know.
func (s *server) watchdog(ctx context.Context) {
	every := handover.WatchdogInterval()
	if every == 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.notify(handover.Watchdog)
		case <-ctx.Done():
			return
		}
	}
}
