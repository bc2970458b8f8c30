package gatewaytest

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestStopDespiteDeafClient: a client that reads nothing of the stream that it has opened does not make
// the gateway fail when it stops.
func TestStopDespiteDeafClient(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	turn := g.begin("a")
	a.Message()
	line := strings.Repeat("x", 64<<10)
	for range 128 { // more than the buffers of both sockets take
		a.Text(turn.ID, line)
	}
	a.Done(turn.ID, "")
	c, err := net.Dial("tcp", g.cfg.Server.HTTPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /api/conversations/a/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	if _, err := c.Read(make([]byte, 16)); err != nil { // it is being served
		t.Fatal(err)
	}
	g.Check()
	g.Stop()
}
