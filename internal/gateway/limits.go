package gateway

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/mem"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// The keys of the configuration that a refusal names.
const (
	keyConnections        = "limits.connections"
	keyAddressConnections = "limits.address_connections"
	keyStreams            = "limits.streams"
	keyUnread             = "unread" // no key: a constant
)

// refusalTimeout bounds what is written to a connection that is refused: it is new, so the kernel has room.
const refusalTimeout = 100 * time.Millisecond

// A doorman is a listener that keeps no more connections open than it may, of everybody and of one
// address. One more is closed at once.
type doorman struct {
	net.Listener
	most, mostOfAddress int                     // 0 for no limit
	trusted             proxies                 // addresses that many people share
	sorry               func(key string) string // what a refused connection is told; nil for nothing
	refusals            *prometheus.CounterVec

	mu      sync.Mutex
	open    int
	address map[string]int // open ones by remote address
}

func newDoorman(l net.Listener, most, mostOfAddress int, trusted proxies, sorry func(key string) string, refusals *prometheus.CounterVec) *doorman {
	return &doorman{Listener: l, most: most, mostOfAddress: mostOfAddress, trusted: trusted, sorry: sorry, refusals: refusals, address: make(map[string]int)}
}

// Accept returns the next connection that may be open.
func (d *doorman) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := auth.Address(c.RemoteAddr().String())
		key := d.enter(address, d.trusted.trustsPeer(c.RemoteAddr().String()))
		if key == "" {
			return &guest{Conn: c, door: d, address: address, ready: newReadiness(c)}, nil
		}
		d.refusals.WithLabelValues(key).Inc()
		if d.sorry != nil {
			_ = c.SetWriteDeadline(time.Now().Add(refusalTimeout))
			_, _ = c.Write([]byte(d.sorry(key))) // a courtesy
		}
		_ = c.Close() // nobody has used it
	}
}

// enter counts a connection, or returns the key of the limit that it would break. An address
// that is shared may have any number.
func (d *doorman) enter(address string, shared bool) (key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.most > 0 && d.open >= d.most:
		return keyConnections
	case d.mostOfAddress > 0 && !shared && d.address[address] >= d.mostOfAddress:
		return keyAddressConnections
	}
	d.open++
	d.address[address]++
	return ""
}

func (d *doorman) leave(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.address[address]--; d.address[address] == 0 {
		delete(d.address, address)
	}
}

// count is how many connections are open.
func (d *doorman) count() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return float64(d.open)
}

// A guest is a connection that is counted.
type guest struct {
	net.Conn
	door    *doorman
	address string
	ready   *readiness // nil for a connection that is not TCP
	once    sync.Once
}

// Close closes the connection.
func (g *guest) Close() error {
	g.once.Do(func() { g.door.leave(g.address) })
	return g.Conn.Close()
}

// busy is the answer over HTTP to a connection that is one too many.
func busy(key string) string {
	body := `{"error":"too many connections (` + key + `)","code":"unavailable"}` + "\n"
	return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// streams counts the open streams of each principal, on all transports.
type streams struct {
	most     int // 0 for no limit
	refusals *prometheus.CounterVec

	mu   sync.Mutex
	all  int
	open map[string]int // by principal
}

func newStreams(most int, refusals *prometheus.CounterVec) *streams {
	return &streams{most: most, refusals: refusals, open: make(map[string]int)}
}

// Enter counts a stream of the caller in ctx, or returns a Limited fault. leave is called when the stream
// has ended. In open mode there is nobody to tell apart.
func (s *streams) Enter(ctx context.Context) (leave func(), err error) {
	p, err := auth.From(ctx)
	known := err == nil && p.Credential.Kind != auth.Open // where anybody may call there is nobody either
	s.mu.Lock()
	defer s.mu.Unlock()
	if known && s.most > 0 && s.open[p.ID] >= s.most {
		s.refusals.WithLabelValues(keyStreams).Inc()
		return nil, fault.TooOften(time.Second, "a principal may have %d streams open (%s); close one of them", s.most, keyStreams)
	}
	s.all++
	if known {
		s.open[p.ID]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if !known {
			return
		}
		if s.open[p.ID]--; s.open[p.ID] == 0 {
			delete(s.open, p.ID)
		}
	}, nil
}

// count is how many streams are open.
func (s *streams) count() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.all)
}

// CloseWrite ends what is sent, for the HTTP server: a client has to get the answer to a request that it
// is still sending.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// ReadFrom sends a file, without copying it through memory where the kernel can.
func (g *guest) ReadFrom(r io.Reader) (int64, error) { return io.Copy(g.Conn, r) }

// ReadOnReady waits for something to read, and returns it in a buffer of the pool: gRPC asks a connection
// for it, so that one that is idle holds no buffer of 32 KiB.
func (g *guest) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if g.ready != nil {
		return g.ready.read(size, pool)
	}
	buf := pool.Get(size)
	n, err := g.Read(*buf)
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}
