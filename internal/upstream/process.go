package upstream

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a program has to end after its stdin was closed, and again after SIGTERM,
// before it is killed.
const stopGrace = 2 * time.Second

// writeTimeout is how long a program has to read a message.
const writeTimeout = 10 * time.Second

// inherited are the variables of the gateway's environment that programs get. The others may be
// credentials.
var inherited = []string{"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER"}

// A process is a program that runs, with its children as a process group of its own.
type process struct {
	cmd     *exec.Cmd
	in, out *os.File // its stdin and stdout
	stderr  *os.File
	exited  chan struct{} // closed when it was waited for
	reading sync.WaitGroup
}

// start runs the command of the server.
func (x *server) start(ctx context.Context) (*process, error) {
	c := x.config
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Dir = c.Dir
	ownGroup(cmd)
	cmd.Env = []string{}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	for name, v := range c.Env {
		v, err := x.service.resolve(ctx, v)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	var files []*os.File
	closeAll := func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll()
			return nil, err
		}
		files = append(files, r, w)
	}
	p := &process{cmd: cmd, in: files[1], out: files[2], stderr: files[4], exited: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
	if err := cmd.Start(); err != nil {
		closeAll()
		return nil, fmt.Errorf("it cannot be started: %w", err)
	}
	for _, f := range []*os.File{files[0], files[3], files[5]} {
		_ = f.Close() // the program has its own
	}
	p.reading.Go(func() { x.log.read(p.stderr) })
	go func() { // ends with the program, for which stop waits
		defer close(p.exited)
		err := cmd.Wait()
		p.signal(syscall.SIGKILL) // what it has left behind
		if err == nil {
			x.log.add("gateway: the program has ended")
		} else {
			x.log.add("gateway: the program has ended: " + err.Error())
		}
	}()
	return p, nil
}

// writer is the stdin of a program. One that does not read must not hold whoever writes.
type writer struct{ *os.File }

// Write implements io.Writer.
func (w writer) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.File.Write(b)
}

// stop has the program end, and waits until it has.
func (p *process) stop() {
	_ = p.in.Close() // it may be closed
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t := time.NewTimer(stopGrace)
		select {
		case <-p.exited:
		case <-t.C:
			p.signal(s)
		}
		t.Stop()
	}
	<-p.exited
	_, _ = p.out.Close(), p.stderr.Close() // a child that has left the group may still hold the other ends
	p.reading.Wait()
}
