package gatewaytest_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
)

// TestMainPath: a message in, a streamed answer out.
func TestMainPath(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	go func() {
		m := a.Message()
		a.Text(m.RequestId, "Hello", " world")
		a.Done(m.RequestId, "Hello world")
	}()
	resp, err := gw.Client.Post(gw.URL+"/api/send", "application/json", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, b)
	}
	var got []string
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Name+" "+string(e.Data))
	}
	if n := len(got); n < 3 || !strings.HasPrefix(got[0], "started ") || got[n-1] != `done {"full_response":"Hello world"}` {
		t.Errorf("the stream is\n%s", strings.Join(got, "\n"))
	}
}
