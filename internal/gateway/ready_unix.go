//go:build unix

package gateway

import (
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// A readiness reads a TCP connection with buffers that are taken when there is something to read. One
// goroutine may use it.
type readiness struct {
	conn syscall.RawConn
	try  func(fd uintptr) (done bool) // made once

	// What try takes and returns.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// newReadiness returns nil for a connection that is not TCP.
func newReadiness(c net.Conn) *readiness {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	conn, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &readiness{conn: conn}
	r.try = r.once
	return r
}

// once reads, unless that would have to wait.
func (r *readiness) once(fd uintptr) (done bool) {
	r.buf = r.pool.Get(r.size)
	for {
		if r.n, r.err = syscall.Read(int(fd), *r.buf); !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if r.err != nil {
		r.pool.Put(r.buf)
		r.buf = nil
	}
	return !errors.Is(r.err, syscall.EAGAIN)
}

// read waits for something to read, and returns it in a buffer of the pool.
func (r *readiness) read(size int, pool mem.BufferPool) (*[]byte, int, error) {
	r.size, r.pool = size, pool
	closed := r.conn.Read(r.try)
	buf, n, err := r.buf, r.n, r.err
	r.pool, r.buf, r.n, r.err = nil, nil, 0, nil
	switch {
	case closed != nil:
		err = closed
	case err == nil && n == 0:
		err = io.EOF
	case err == nil:
		return buf, n, nil
	}
	if buf != nil {
		pool.Put(buf)
	}
	return nil, 0, err
}
