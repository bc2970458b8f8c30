//go:build unix

// Package handover lets a new process take the listening sockets of a running one, so that a gateway
// is replaced without refusing a connection, and speaks with systemd.
package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// The names of sockets, also in LISTEN_FDNAMES.
const (
	GRPC  = "grpc"
	HTTP  = "http"
	Admin = "admin"
)

// A Socket is a listening TCP socket that lives as long as somebody holds a descriptor of it: while
// nobody accepts, connections wait in its backlog.
type Socket struct {
	Name string // GRPC, HTTP or Admin
	Addr string // what was configured; "" for one that systemd has opened, whatever is configured

	fd int
}

// Listen opens a socket.
func Listen(name, addr string) (Socket, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return Socket{}, err
	}
	defer l.Close() // the descriptor here is another one
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return Socket{}, err
	}
	s := Socket{Name: name, Addr: addr}
	var failed error
	err = raw.Control(func(fd uintptr) { s.fd, failed = dup(int(fd)) })
	return s, errors.Join(err, failed)
}

// Listener returns a listener of the socket; closing it leaves the socket open. It is to be called
// only while nobody accepts, in this process or another one: for a moment the socket, which all share,
// is a blocking one.
func (s Socket) Listener() (net.Listener, error) {
	fd, err := dup(s.fd)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), s.Name)
	l, err := net.FileListener(f)
	return l, errors.Join(err, f.Close())
}

// LocalAddr is where the socket listens.
func (s Socket) LocalAddr() string {
	sa, err := syscall.Getsockname(s.fd)
	if err != nil {
		return ""
	}
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
	case *syscall.SockaddrInet6:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
	}
	return ""
}

// Close gives up this process's hold of the socket.
func (s Socket) Close() error { return syscall.Close(s.fd) }

// dup copies a descriptor; programs that are started do not inherit it.
func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, err := syscall.Dup(fd)
	if err != nil {
		return 0, fmt.Errorf("copy a descriptor: %w", err)
	}
	syscall.CloseOnExec(n)
	return n, nil
}

// firstActivated is the number of the first descriptor that systemd passes.
const firstActivated = 3

// Activated returns the sockets that systemd has opened: LISTEN_FDS and LISTEN_FDNAMES, if LISTEN_PID
// is this process. The variables are taken away, so that nobody takes the sockets twice.
func Activated() ([]Socket, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	list := strings.Split(names, ":")
	if err != nil || n != len(list) {
		return nil, fmt.Errorf("LISTEN_FDS is %q and LISTEN_FDNAMES %q: each socket needs a FileDescriptorName=, grpc, http or admin", count, names)
	}
	var sockets []Socket
	for i, name := range list {
		s := Socket{Name: name, fd: firstActivated + i}
		syscall.CloseOnExec(s.fd)
		if name != GRPC && name != HTTP && name != Admin {
			return nil, fmt.Errorf("LISTEN_FDNAMES: a socket is named %q; the names are grpc, http and admin", name)
		}
		for _, other := range sockets {
			if other.Name == name {
				return nil, fmt.Errorf("LISTEN_FDNAMES: two sockets are named %q", name)
			}
		}
		if v, err := syscall.GetsockoptInt(s.fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || v == 0 {
			return nil, fmt.Errorf("LISTEN_FDS: the socket %q does not listen", name)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}
