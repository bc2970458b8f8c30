//go:build !unix

package gateway

import (
	"net"

	"google.golang.org/grpc/mem"
)

// A readiness reads a connection with buffers that are taken when there is something to read, which is not
// possible here.
type readiness struct{}

func newReadiness(net.Conn) *readiness { return nil }

func (*readiness) read(int, mem.BufferPool) (*[]byte, int, error) { return nil, 0, net.ErrClosed }
