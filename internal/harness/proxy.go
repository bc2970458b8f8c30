package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// corruptEvery is about how many bytes a corrupting proxy leaves alone between two that it changes.
const corruptEvery = 2000

// A Proxy stands between a gateway and those who talk to it, and does to their TCP connections what
// networks do.
type Proxy struct {
	target  string
	l       net.Listener
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	links   map[*link]bool
	gate    chan struct{} // closed while bytes may pass
	delay   time.Duration // of every piece of bytes
	corrupt *rand.Rand    // nil unless it changes bytes
}

// A link is a connection with both its ends. Which of its directions are dead is guarded by Proxy.mu.
type link struct {
	ends [2]net.Conn
	dead [2]bool
}

// NewProxy listens on a free loopback port and passes everything on to target.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, l: l, links: make(map[*link]bool), gate: make(chan struct{})}
	close(p.gate)
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where it listens.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Close breaks all connections and waits until nothing of it runs.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.l.Close()
	p.Stall(false)
	p.Cut(nil)
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	up, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil { // the gateway is down: so are we
		reset(c)
		return
	}
	k := &link{ends: [2]net.Conn{c, up}}
	p.mu.Lock()
	if p.links[k] = true; p.closed {
		reset(c)
		reset(up)
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pass(k, 0) })
	both.Go(func() { p.pass(k, 1) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, k)
	p.mu.Unlock()
}

// pass copies from one end to the other one until either fails.
func (p *Proxy) pass(k *link, from int) {
	src, dst := k.ends[from], k.ends[1-from]
	defer src.Close()
	defer dst.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.mu.Lock()
			gate, delay, dead := p.gate, p.delay, k.dead[from]
			if p.corrupt != nil && p.corrupt.IntN(corruptEvery) < n {
				buf[p.corrupt.IntN(n)] ^= 1 << p.corrupt.IntN(8)
			}
			p.mu.Unlock()
			<-gate
			time.Sleep(delay)
			if !dead {
				if _, err := dst.Write(buf[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut breaks the connections that choose chooses, nil all of them, and returns how many.
func (p *Proxy) Cut(choose func() bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.links {
		if choose == nil || choose() {
			reset(k.ends[0])
			reset(k.ends[1])
			n++
		}
	}
	return n
}

// Stall holds back all bytes until it is called with false.
func (p *Proxy) Stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		if on {
			p.gate = make(chan struct{})
		}
	default:
		if !on {
			close(p.gate)
		}
	}
}

// Delay has every piece of bytes pass that much later.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Halve loses, without a word, what comes in one direction of the connections that choose chooses: the
// direction to the gateway with 0, from it with 1. The returned function breaks them.
func (p *Proxy) Halve(direction int, choose func() bool) (cut func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var halved []*link
	for k := range p.links {
		if choose() {
			k.dead[direction] = true
			halved = append(halved, k)
		}
	}
	return func() {
		for _, k := range halved {
			reset(k.ends[0])
			reset(k.ends[1])
		}
	}
}

// Corrupt has bytes changed here and there from now on.
func (p *Proxy) Corrupt(rnd *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.corrupt = rnd
}

// reset closes a connection so that its other side hears an error, not an end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = errors.Join(t.SetLinger(0), t.Close()) // it may be closed already
	}
}
