//go:build unix

package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// Limits of the control socket.
const (
	askTime = 5 * time.Second // to say what is wanted
	maxAsk  = 64 << 10        // bytes
)

// A Request is somebody who wants the gateway to be replaced. It is answered once.
type Request struct {
	Binary string // path of the program to start

	conn net.Conn
}

// A Reply is what has become of a request.
type Reply struct {
	PID   int    `json:"pid"`             // of the new process
	Error string `json:"error,omitempty"` // why the old one goes on
}

// Answer ends the request.
func (r *Request) Answer(pid int, err error) {
	reply := Reply{PID: pid}
	if err != nil {
		reply = Reply{Error: err.Error()}
	}
	_ = r.conn.SetWriteDeadline(time.Now().Add(askTime)) // whoever asked may be gone
	_ = json.NewEncoder(r.conn).Encode(reply)
	_ = r.conn.Close()
}

// A Control is the socket at which a gateway hears of requests. Whoever may write to the file may ask:
// its mode is 0600, so that is the user of the gateway, and root.
type Control struct {
	Requests chan *Request // one at a time

	l    *net.UnixListener
	stop chan struct{}
	work sync.WaitGroup
}

// NewControl listens at path. It is to be called by whoever has the store locked: what is there was
// left by somebody who had it before.
func NewControl(path string) (*Control, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)                     // the file may be the heir's already
	if err := os.Chmod(path, 0o600); err != nil { // nobody is accepted yet
		return nil, errors.Join(err, l.Close())
	}
	c := &Control{Requests: make(chan *Request), l: l, stop: make(chan struct{})}
	c.work.Go(c.accept)
	return c, nil
}

func (c *Control) accept() {
	for {
		conn, err := c.l.Accept()
		if err != nil {
			return // closed
		}
		var in struct{ Binary string }
		err = conn.SetReadDeadline(time.Now().Add(askTime))
		if err == nil {
			var line []byte
			if line, err = bufio.NewReaderSize(conn, maxAsk).ReadSlice('\n'); err == nil {
				err = json.Unmarshal(line, &in)
			}
		}
		r := &Request{Binary: in.Binary, conn: conn}
		if err != nil {
			r.Answer(0, fmt.Errorf("what is asked cannot be read: %w", err))
			continue
		}
		select {
		case c.Requests <- r:
		case <-c.stop:
			r.Answer(0, errors.New("the gateway stops"))
		}
	}
}

// Close stops listening.
func (c *Control) Close() error {
	close(c.stop)
	err := c.l.Close()
	c.work.Wait()
	return err
}

// Ask asks the gateway whose control socket is at path to be replaced by binary, and returns the
// process that serves now.
func Ask(ctx context.Context, path, binary string) (pid int, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return 0, fmt.Errorf("no gateway is asked: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := json.NewEncoder(conn).Encode(map[string]string{"binary": binary}); err != nil {
		return 0, err
	}
	var r Reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return 0, fmt.Errorf("the gateway ended without an answer; look at its log: %w", err)
	}
	if r.Error != "" {
		return 0, errors.New(r.Error)
	}
	return r.PID, nil
}
