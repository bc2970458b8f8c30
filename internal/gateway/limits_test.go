package gateway

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// heldBuffers counts the buffers that are taken and not given back.
type heldBuffers struct{ n atomic.Int64 }

func (h *heldBuffers) Get(n int) *[]byte {
	h.n.Add(1)
	b := make([]byte, n)
	return &b
}

func (h *heldBuffers) Put(*[]byte) { h.n.Add(-1) }

// TestIdleConnection: a connection on which nothing comes holds no buffer, and its end gives all back.
func TestIdleConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := newDoorman(l, 1, 0, nil, nil, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refusals"}, []string{"limit"}))
	defer door.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := door.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var pool heldBuffers
	read := func() (string, error) {
		buf, n, err := conn.(*guest).ReadOnReady(8, &pool)
		if buf == nil {
			return "", err
		}
		defer pool.Put(buf)
		return string((*buf)[:n]), err
	}

	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil || pool.n.Load() != 0 {
		t.Fatalf("waiting ended with %v and holds %d buffers", err, pool.n.Load())
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		got string
		err error
	}
	answers := make(chan answer)
	go func() {
		got, err := read()
		answers <- answer{got, err}
	}()
	if _, err := io.WriteString(client, "ten bytes!"); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.got != "ten byte" || a.err != nil {
		t.Errorf("read %q, %v", a.got, a.err)
	}
	if got, err := read(); got != "s!" || err != nil { // what was there already
		t.Errorf("read %q, %v", got, err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	if n := pool.n.Load(); n != 0 {
		t.Errorf("%d buffers are held", n)
	}
}
