package gatewaytest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
)

func post(t testing.TB, gw *gatewaytest.Gateway, path, body string, header ...string) (int, []byte, http.Header) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, gw.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := gw.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b, resp.Header
}

// echo answers every message with its text until the stream ends.
func echo(a *gatewaytest.Agent) {
	for m := a.Next(); m != nil; m = a.Next() {
		if s := m.GetSendMessage(); s != nil {
			a.Text(s.RequestId, s.Content)
			a.Done(s.RequestId, s.Content)
		}
	}
}

// TestAllAtOnce: many first messages at the same moment, and many clients that do not stop.
func TestAllAtOnce(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	go echo(a)
	var wg sync.WaitGroup
	send := func(text string) {
		status, body, _ := post(t, gw, "/api/send", fmt.Sprintf(`{"agent_id":"a","sender":"me","content":%q}`, text), "Accept", "application/json")
		var turn struct{ State, Text, Response string }
		if err := json.Unmarshal(body, &turn); status != http.StatusOK || err != nil || turn.State != "done" || turn.Text != text || turn.Response != text {
			t.Errorf("%q: %d %s", text, status, body)
		}
	}
	for i := range 100 {
		wg.Go(func() { send(fmt.Sprintf("first %d", i)) })
	}
	wg.Wait()
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				send(fmt.Sprintf("client %d message %d", i, j))
			}
		})
	}
	wg.Wait()
	a.Leave()
}

// TestAttachments: files come with JSON or with a form, reach the agent, and can be downloaded.
func TestAttachments(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for name, value := range map[string]string{"agent_id": "a", "sender": "me", "content": "look"} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("attachments", "naïve \"name\".txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ body, contentType, name string }{
		{`{"agent_id":"a","sender":"me","content":"look","attachments":[{"filename":"n.txt","mime_type":"text/plain","data":"aGVsbG8="}]}`, "application/json", "n.txt"},
		{form.String(), w.FormDataContentType(), "naïve \"name\".txt"},
	} {
		got := make(chan string, 1)
		go func() {
			m := a.Message()
			got <- fmt.Sprintf("%s %s", m.Attachments[0].Filename, m.Attachments[0].Data)
			a.Done(m.RequestId, "seen")
		}()
		status, body, _ := post(t, gw, "/api/send", c.body, "Content-Type", c.contentType, "Accept", "application/json")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		if got, want := <-got, c.name+" hello"; got != want {
			t.Errorf("the agent got %q, want %q", got, want)
		}
		var turn struct {
			ThreadID string `json:"thread_id"`
		}
		if err := json.Unmarshal(body, &turn); err != nil {
			t.Fatal(err)
		}
		var list struct {
			Files []struct{ URL, Filename string }
		}
		getJSON(t, gw, "/api/threads/"+turn.ThreadID+"/files", &list)
		if len(list.Files) != 1 || list.Files[0].Filename != c.name {
			t.Fatalf("the thread has the files %v", list.Files)
		}
		resp, err := gw.Client.Get(gw.URL + list.Files[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(content) != "hello" {
			t.Errorf("downloaded %q: %v", content, err)
		}
		if d := resp.Header.Get("Content-Disposition"); !strings.HasPrefix(d, "attachment; filename") {
			t.Errorf("Content-Disposition is %q", d)
		}
	}
}

func getJSON(t testing.TB, gw *gatewaytest.Gateway, path string, v any) {
	t.Helper()
	resp, err := gw.Client.Get(gw.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s (%v)", path, resp.Status, b, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// TestLimits: what is too large is refused before anything is stored, with the limit.
func TestLimits(t *testing.T) {
	gw := gatewaytest.New(t, func(c *config.Config) { c.Limits.RequestBody = 2 << 20; c.Limits.Message = 1000; c.Limits.File = 1000 })
	gw.Agent("a")
	send := func(field, value string) string {
		return fmt.Sprintf(`{"agent_id":"a","sender":"me","content":"hi",%q:%s}`, field, value)
	}
	files := strings.TrimSuffix(strings.Repeat(`{"filename":"f","data":""},`, 11), ",")
	for _, c := range []struct {
		body   string
		status int
		text   string
	}{
		{send("content", `"`+strings.Repeat("x", 3<<20)+`"`), 413, "the request body must not be larger than 2097152 bytes"},
		{send("content", `"`+strings.Repeat("x", 1001)+`"`), 413, "content must not be longer than 1000 bytes; this one has 1001"},
		{send("sender", `"`+strings.Repeat("x", 201)+`"`), 400, "sender must not be longer than 200 bytes; this one has 201"},
		{send("thread_id", `"`+strings.Repeat("x", 201)+`"`), 400, "thread_id must not be longer than 200 bytes"},
		{send("idempotency_key", `"`+strings.Repeat("x", 101)+`"`), 400, "the idempotency key must not be longer than 100 bytes"},
		{send("attachments", `[`+files+`]`), 400, "a message must not have more than 10 attachments; this one has 11"},
		{send("attachments", `[{"filename":"f","data":"`+strings.Repeat("QUFB", 400)+`"}]`), 413, `attachments[0]: a file must not be larger than 1000 bytes; \"f\" has 1200`},
		{send("attachments", `[{"data":""}]`), 400, "attachments[0]: filename is required"},
		{send("content", `"a" trailing`), 400, "invalid JSON body"},
	} {
		status, body, _ := post(t, gw, "/api/send", c.body)
		if status != c.status || !strings.Contains(string(body), c.text) {
			t.Errorf("got %d %s\nwant %d %s", status, body, c.status, c.text)
		}
	}
	var list struct{ Threads []any }
	if getJSON(t, gw, "/api/threads", &list); len(list.Threads) != 0 {
		t.Errorf("refused messages left %d threads", len(list.Threads))
	}
}

// TestOtherSites: an open gateway does not let web pages from elsewhere in.
func TestOtherSites(t *testing.T) {
	gw := gatewaytest.New(t, func(c *config.Config) { c.WebAdmin.BaseURL = "https://coven.example" })
	go echo(gw.Agent("a"))
	body := `{"agent_id":"a","sender":"me","content":"hi"}`
	for _, c := range []struct {
		status int
		header []string
	}{
		{200, nil},
		{200, []string{"Host", "localhost:8080"}},
		{200, []string{"Host", "[::1]:8080"}},
		{200, []string{"Host", "coven.example"}},
		{403, []string{"Host", "evil.example"}},
		{403, []string{"Origin", "https://evil.example"}},
		{403, []string{"Sec-Fetch-Site", "cross-site"}},
		{200, []string{"Sec-Fetch-Site", "same-origin"}},
	} {
		if status, b, _ := post(t, gw, "/api/send", body, c.header...); status != c.status {
			t.Errorf("%v: %d %s, want %d", c.header, status, b, c.status)
		}
	}
}

// TestRequestID: a caller's own id is kept where it is harmless; every answer has one.
func TestRequestID(t *testing.T) {
	gw := gatewaytest.New(t)
	for given, kept := range map[string]bool{"": false, "my-id.1": true, "bad id": false, strings.Repeat("x", 65): false} {
		_, _, h := post(t, gw, "/api/nothing", "", "X-Request-Id", given)
		if got := h.Get("X-Request-Id"); got == "" || (got == given) != kept {
			t.Errorf("given %q the answer has %q", given, got)
		}
	}
}

// TestKeepAlive: an idle stream says something every 15 seconds and lives for hours.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := gatewaytest.NewInBubble(t)
		a := gw.Agent("a")
		resp, err := gw.Client.Post(gw.URL+"/api/send", "", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		m := a.Message()
		time.Sleep(50 * time.Minute)
		a.Text(m.RequestId, "late")
		time.Sleep(50 * time.Minute)
		a.Done(m.RequestId, "late")
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), ": keep-alive\n\n"); n < 390 || n > 400 {
			t.Errorf("in 100 minutes there were %d comments", n)
		}
		if !strings.Contains(string(b), "event: done\n") {
			t.Error("the answer is not complete")
		}
	})
}

// TestShutdown: with agents and readers attached and nothing to do, a stop takes no time, agents
// hear of it, readers end with a hint.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := gatewaytest.NewInBubble(t)
		a := gw.Agent("a")
		req, err := http.NewRequest(http.MethodGet, gw.URL+"/api/conversations/a/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		resp, err := gw.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		gw.Stop()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if m := a.Next(); m.GetShutdown() == nil {
			t.Errorf("the agent got %v", m)
		}
		if err := a.Err(); !errors.Is(err, io.EOF) {
			t.Errorf("the agent's stream ended with %v", err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(b), "retry: 1000\n") {
			t.Errorf("the reader got %q: %v", b, err)
		}
	})
}

// TestShutdownWithOpenTurns: turns may finish within the grace; what does not is interrupted.
func TestShutdownWithOpenTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := gatewaytest.NewInBubble(t, func(c *config.Config) { c.Server.ShutdownGrace = 10 * time.Second })
		a := gw.Agent("a")
		var streams []*http.Response
		for range 2 {
			resp, err := gw.Client.Post(gw.URL+"/api/send", "", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			streams = append(streams, resp)
		}
		finishes := a.Message()
		a.Message() // this one does not
		stopped := make(chan struct{})
		go func() { gw.Stop(); close(stopped) }()
		synctest.Wait()
		if status, b, _ := post(t, gw, "/api/send", `{"agent_id":"a","sender":"me","content":"hi"}`); status != http.StatusServiceUnavailable {
			t.Errorf("a message during the shutdown: %d %s", status, b)
		}
		time.Sleep(5 * time.Second)
		a.Done(finishes.RequestId, "just in time")
		<-stopped
		for i, want := range []string{"event: done\ndata: {\"full_response\":\"just in time\"}", "event: error\ndata: {\"error\":\"the gateway was shut down\",\"recoverable\":true}"} {
			b, err := io.ReadAll(streams[i].Body)
			if err != nil || !strings.Contains(string(b), want) {
				t.Errorf("stream %d: %q (%v), want %q", i, b, err, want)
			}
		}
	})
}

// TestRemotePeers: an open gateway serves loopback addresses only and says so.
func TestRemotePeers(t *testing.T) {
	gw := gatewaytest.New(t)
	h := gw.Handler()
	for peer, want := range map[string]int{"127.0.0.1:1": 200, "[::1]:1": 200, "192.0.2.7:1": 403, "": 403, "[::ffff:127.0.0.1]:1": 200} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/api/agents", nil)
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || (want == 403 && !strings.Contains(w.Body.String(), "loopback addresses only")) {
			t.Errorf("from %q: %d %s", peer, w.Code, w.Body)
		}
	}
}

// TestEventsPages: pages of any size, followed to the end, are the whole conversation.
func TestEventsPages(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	go func() {
		m := a.Message()
		for i := range 300 {
			a.Text(m.RequestId, fmt.Sprintf("%d ", i))
		}
		a.Done(m.RequestId, "")
	}()
	if status, b, _ := post(t, gw, "/api/send", `{"agent_id":"a","sender":"me","content":"hi"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	for _, size := range []int{1, 2, 7, 1000} {
		var text strings.Builder
		pages := 0
		for after := int64(0); ; pages++ {
			var page struct {
				Events []struct{ Text string }
				Next   int64
				More   bool `json:"has_more"`
			}
			getJSON(t, gw, fmt.Sprintf("/api/conversations/a/events?limit=%d&after=%d", size, after), &page)
			if len(page.Events) > size {
				t.Errorf("a page of %d has %d events", size, len(page.Events))
			}
			for _, e := range page.Events {
				text.WriteString(e.Text)
			}
			if after = page.Next; !page.More {
				break
			}
		}
		if got := len(strings.Fields(text.String())); got != 300 {
			t.Errorf("pages of %d have %d increments", size, got)
		}
	}
}

// TestHangUps: clients that hang up in mid-answer lose nothing of it.
func TestHangUps(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	const clients, increments = 8, 2000
	var sent strings.Builder
	for i := range increments {
		fmt.Fprintf(&sent, "%d ", i)
	}
	var wg sync.WaitGroup
	gone := make(chan struct{}, clients)
	for i := range clients {
		wg.Go(func() {
			resp, err := gw.Client.Post(gw.URL+"/api/send", "", strings.NewReader(fmt.Sprintf(`{"agent_id":"a","sender":"me","content":"hi","thread_id":"t%d"}`, i)))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			resp.Body.Close()
			gone <- struct{}{}
		})
	}
	for range clients {
		m := a.Message()
		a.Text(m.RequestId, "0 ")
		for i := range increments - 1 {
			if i == increments/2 {
				<-gone
			}
			a.Text(m.RequestId, fmt.Sprintf("%d ", i+1))
		}
		a.Done(m.RequestId, "")
	}
	wg.Wait()
	for i := range clients {
		for start := time.Now(); ; time.Sleep(time.Millisecond) { // the last increments are under way
			var thread struct{ Messages []struct{ Content string } }
			getJSON(t, gw, fmt.Sprintf("/api/threads/t%d/messages", i), &thread)
			if len(thread.Messages) == 2 {
				if thread.Messages[1].Content != sent.String() {
					t.Errorf("thread %d has %d bytes, want %d", i, len(thread.Messages[1].Content), sent.Len())
				}
				break
			}
			if time.Since(start) > gatewaytest.Patience {
				t.Fatalf("thread %d has %d messages", i, len(thread.Messages))
			}
		}
	}
}

// TestSlowBody: a body that does not come ends the request, a stream after a body does not end.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := gatewaytest.NewInBubble(t)
		r, w := io.Pipe()
		defer w.Close()
		resp, err := gw.Client.Post(gw.URL+"/api/send", "", r)
		if err != nil {
			return // the connection was closed
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a body that does not come: %s", resp.Status)
		}
	})
}

// TestInMemory: a gateway without a database file works, also when many use it.
func TestInMemory(t *testing.T) {
	gw := gatewaytest.New(t, func(c *config.Config) { c.Database.Path = ":memory:" })
	a := gw.Agent("a")
	go echo(a)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if status, b, _ := post(t, gw, "/api/send", fmt.Sprintf(`{"agent_id":"a","sender":"me","content":"%d"}`, i)); status != http.StatusOK || !strings.Contains(string(b), "event: done") {
				t.Errorf("%d %s", status, b)
			}
		})
	}
	wg.Wait()
}
