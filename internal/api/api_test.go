package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// do sends a request and returns the answer; a body makes it a POST.
func do(t *testing.T, gw *gatewaytest.Gateway, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, gw.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
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
	return resp, string(b)
}

// get reads a JSON document.
func get(t *testing.T, gw *gatewaytest.Gateway, path string, v any) {
	t.Helper()
	resp, body := do(t, gw, "GET", path, "")
	if err := json.Unmarshal([]byte(body), v); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s (%v)", path, resp.Status, body, err)
	}
}

// serve answers the messages of an agent until its stream ends.
func serve(a *gatewaytest.Agent, answer func(m *pb.SendMessage)) {
	go func() {
		for m := a.Next(); m != nil; m = a.Next() {
			if s := m.GetSendMessage(); s != nil {
				answer(s)
			}
		}
	}()
}

// echo answers every message with its text.
func echo(a *gatewaytest.Agent) {
	serve(a, func(m *pb.SendMessage) {
		a.Text(m.RequestId, m.Content)
		a.Done(m.RequestId, m.Content)
	})
}

// read returns all events of a stream as "id name data" lines.
func read(t *testing.T, stream string) []string {
	t.Helper()
	var lines []string
	for r, seen := sse.NewReader(strings.NewReader(stream)), ""; ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		id := e.ID
		if id == seen { // the reader repeats it for events without one
			id = ""
		}
		seen = e.ID
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", id, e.Name, e.Data)))
	}
}

// TestResend: a repeated message attaches to its turn, from the beginning or where the client was.
func TestResend(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	const body = `{"agent_id":"a","sender":"me","content":"hi","thread_id":"th","idempotency_key":"k"}`
	first := make(chan string, 1)
	go func() {
		_, stream := do(t, gw, "POST", "/api/send", body)
		first <- stream
	}()
	m := a.Message()
	a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_SessionInit{SessionInit: &pb.SessionInit{SessionId: "s"}}})
	a.Done(m.RequestId, "all")
	var turn struct {
		RequestID string `json:"request_id"`
	}
	lines := read(t, <-first)
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[0], "1 started ")), &turn); err != nil {
		t.Fatalf("%s: %v", lines[0], err)
	}
	started := `started {"agent_id":"a","request_id":"` + turn.RequestID + `","thread_id":"th"}`
	all := []string{"1 " + started, `2 session_init {"session_id":"s"}`, `3 done {"full_response":"all"}`}
	for _, c := range []struct {
		header []string
		status int
		want   []string
	}{
		{nil, 200, all},
		{[]string{"Last-Event-ID", "0"}, 200, all},
		{[]string{"Last-Event-ID", "1"}, 200, append([]string{started}, all[1:]...)},
		{[]string{"Last-Event-ID", "2"}, 200, append([]string{started}, all[2:]...)},
		{[]string{"Last-Event-ID", "3"}, 204, nil},
		{[]string{"Accept", "application/json, text/event-stream"}, 200, all},
		{[]string{"Idempotency-Key", "k"}, 200, all},
	} {
		resp, stream := do(t, gw, "POST", "/api/send", body, c.header...)
		if got := read(t, stream); resp.StatusCode != c.status || strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%v: %d\n%s\nwant %d\n%s", c.header, resp.StatusCode, strings.Join(got, "\n"), c.status, strings.Join(c.want, "\n"))
		}
	}
	for header, want := range map[string]int{"4": http.StatusGone, "x": http.StatusBadRequest, "-1": http.StatusBadRequest} {
		if resp, body := do(t, gw, "POST", "/api/send", body, "Last-Event-ID", header); resp.StatusCode != want {
			t.Errorf("Last-Event-ID %s: %d %s", header, resp.StatusCode, body)
		}
	}
	var page struct{ Head int }
	if get(t, gw, "/api/conversations/a/events", &page); page.Head != 3 {
		t.Errorf("the message was sent again: there are %d events", page.Head)
	}
}

// TestWhole: a client that wants JSON gets the turn in one piece, however it ended.
func TestWhole(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	serve(a, func(m *pb.SendMessage) {
		reply := func(r *pb.MessageResponse) { r.RequestId = m.RequestId; a.Reply(r) }
		switch m.Content {
		case "tools":
			a.Text(m.RequestId, "one ", "two")
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_ToolState{ToolState: &pb.ToolStateUpdate{Id: "1", State: pb.ToolState_TOOL_STATE_PENDING}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "1", Name: "ls", InputJson: `{"p":"/"}`}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "2", Name: "cat", InputJson: "no JSON"}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "2", Output: "no", IsError: true}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "1", Output: "bin"}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: "f", MimeType: "text/plain", Data: []byte("x")}}})
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 3}}})
			a.Done(m.RequestId, "three")
		case "cancel":
			reply(&pb.MessageResponse{Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: "no"}}})
		case "huge":
			for range 17 {
				a.Text(m.RequestId, strings.Repeat("x", 1<<20))
			}
			a.Done(m.RequestId, "")
		}
	})
	type answer struct {
		State, Cause, Text, Response string
		ThreadID                     string `json:"thread_id"`
		Calls                        []struct {
			ID, Name, State, Output string
			Input                   string `json:"input_json"`
			IsError                 bool   `json:"is_error"`
		} `json:"tool_calls"`
		Files  []struct{ Filename, URL string }
		Usage  map[string]int
		Events []struct{ Type string }
		Ended  time.Time `json:"ended_at"`
	}
	send := func(content string) (answer, string, int) {
		resp, body := do(t, gw, "POST", "/api/send", `{"agent_id":"a","sender":"me","content":"`+content+`"}`, "Accept", "application/json")
		var got answer
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return got, body, resp.StatusCode
	}
	got, body, _ := send("tools")
	if got.State != "done" || got.Text != "one two" || got.Response != "three" || got.Usage["input_tokens"] != 3 || time.Since(got.Ended) > time.Minute {
		t.Errorf("got %s", body)
	}
	if len(got.Calls) != 2 || got.Calls[0].Name != "ls" || got.Calls[0].Input != `{"p":"/"}` || got.Calls[0].Output != "bin" || got.Calls[0].State != "pending" ||
		got.Calls[1].Name != "cat" || got.Calls[1].Output != "no" || !got.Calls[1].IsError {
		t.Errorf("the calls are %+v", got.Calls)
	}
	if len(got.Files) != 1 || got.Files[0].Filename != "f" || len(got.Events) != 7 {
		t.Errorf("files %v, events %v", got.Files, got.Events)
	}
	var list struct {
		Messages []struct {
			Content  string
			ToolName string `json:"tool_name"`
		}
	}
	get(t, gw, "/api/threads/"+got.ThreadID+"/messages", &list)
	if m := list.Messages; len(m) != 7 || m[1].Content != `{"p":"/"}` || m[1].ToolName != "ls" || m[2].Content != "no JSON" || m[3].Content != "no" {
		t.Errorf("the thread has %+v", m)
	}
	if got, body, status := send("cancel"); status != 200 || got.State != "cancelled" || got.Cause != "no" || !strings.Contains(body, `"tool_calls":[]`) || !strings.Contains(body, `"files":[]`) {
		t.Errorf("%d %s", status, body)
	}
	if _, body, status := send("huge"); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, "/events") {
		t.Errorf("an answer that is too large: %d %.200s", status, body)
	}
}

// TestDownload: a file can be had whole, in parts, and not again; it is never shown in place.
func TestDownload(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	serve(a, func(m *pb.SendMessage) {
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: "../päge.html", MimeType: m.Content, Data: []byte("<script>0123456789")}}})
		a.Done(m.RequestId, "")
	})
	for mediaType, want := range map[string]string{"text/html": "text/html", "text/plain; charset=utf-8": "text/plain; charset=utf-8", "nonsense/": "application/octet-stream"} {
		_, body := do(t, gw, "POST", "/api/send", `{"agent_id":"a","sender":"me","content":"`+mediaType+`"}`, "Accept", "application/json")
		var turn struct {
			Files []struct{ URL, SHA256 string }
		}
		if err := json.Unmarshal([]byte(body), &turn); err != nil || len(turn.Files) != 1 {
			t.Fatalf("%s: %v", body, err)
		}
		path, tag := turn.Files[0].URL, `"`+turn.Files[0].SHA256+`"`
		for _, c := range []struct {
			method string
			header []string
			status int
			body   string
		}{
			{"GET", nil, 200, "<script>0123456789"},
			{"HEAD", nil, 200, ""},
			{"GET", []string{"Range", "bytes=8-11"}, 206, "0123"},
			{"GET", []string{"Range", "bytes=8-11", "If-Range", tag}, 206, "0123"},
			{"GET", []string{"Range", "bytes=8-11", "If-Range", `"other"`}, 200, "<script>0123456789"},
			{"GET", []string{"If-None-Match", tag}, 304, ""},
		} {
			resp, body := do(t, gw, c.method, path, "", c.header...)
			if resp.StatusCode != c.status || body != c.body {
				t.Errorf("%s %v: %d %q, want %d %q", c.method, c.header, resp.StatusCode, body, c.status, c.body)
			}
			if h := resp.Header; h.Get("ETag") != tag || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") ||
				h.Get("Content-Disposition") != `attachment; filename=".._p_ge.html"; filename*=UTF-8''.._p%C3%A4ge.html` || (c.status != 304 && h.Get("Content-Type") != want) {
				t.Errorf("%s %v: the headers are %v", c.method, c.header, h)
			}
		}
		if resp, body := do(t, gw, "GET", path, "", "Range", "bytes=99-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("a range behind the end: %d %s", resp.StatusCode, body)
		}
	}
}

// TestAgentList: connected agents, sorted, whatever their ids are.
func TestAgentList(t *testing.T) {
	gw := gatewaytest.New(t)
	if _, body := do(t, gw, "GET", "/api/agents", ""); body != "[]\n" {
		t.Errorf("nobody is listed as %s", body)
	}
	if _, body := do(t, gw, "GET", "/health/ready", ""); body != "ready (0 agents)" {
		t.Errorf("a gateway without agents is %s", body)
	}
	const odd = "ä/b ?#%&.."
	echo(gw.Agent(odd))
	gw.Agent("z")
	gw.Agent("m", func(r *pb.RegisterAgent) {
		r.Metadata = &pb.AgentMetadata{Workspaces: []string{"w"}, WorkingDirectory: "/d", Backend: "b"}
	})
	var list []struct {
		ID, Name, Backend, WorkingDir string
		Connected                     bool
		Capabilities, Workspaces      []string
		ConnectedAt                   string `json:"connected_at"`
	}
	get(t, gw, "/api/agents", &list)
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID)
		if !a.Connected || a.Capabilities == nil || a.Workspaces == nil || !strings.HasSuffix(a.ConnectedAt, "Z") {
			t.Errorf("%+v", a)
		}
	}
	if got := strings.Join(ids, " | "); got != "m | z | "+odd {
		t.Errorf("the agents are %s", got)
	}
	if get(t, gw, "/api/agents?workspace=w", &list); len(list) != 1 || list[0].ID != "m" || list[0].Backend != "b" {
		t.Errorf("in the workspace are %+v", list)
	}
	if _, body := do(t, gw, "GET", "/api/agents?workspace=none", ""); body != "[]\n" {
		t.Errorf("in no workspace is %s", body)
	}
	path := "/api/agents/" + url.PathEscape(odd)
	if _, stream := do(t, gw, "POST", path+"/send", `{"message":"hi"}`); !strings.Contains(stream, `{"full_response":"hi"}`) {
		t.Errorf("%s answers %s", odd, stream)
	}
	for path, want := range map[string]int{"/api/agents/nobody/send": http.StatusNotFound, "/api/send": http.StatusServiceUnavailable} {
		if resp, body := do(t, gw, "POST", path, `{"message":"hi","agent_id":"nobody","sender":"me","content":"hi"}`); resp.StatusCode != want {
			t.Errorf("%s to an agent that is not there: %d %s", path, resp.StatusCode, body)
		}
	}
	var h struct {
		AgentID string `json:"agent_id"`
		Count   int
	}
	if get(t, gw, path+"/history", &h); h.AgentID != odd || h.Count != 2 {
		t.Errorf("the history is %+v", h)
	}
	var page struct{ Head int }
	if get(t, gw, "/api/conversations/"+url.PathEscape(odd)+"/events", &page); page.Head == 0 {
		t.Error("the conversation is empty")
	}
}

// TestPages: lists are followed page by page without a gap or a double.
func TestPages(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	serve(a, func(m *pb.SendMessage) {
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 1}}})
		a.Text(m.RequestId, "re: "+m.Content)
		a.Done(m.RequestId, "")
	})
	for i := range 7 {
		if resp, body := do(t, gw, "POST", "/api/send", fmt.Sprintf(`{"agent_id":"a","sender":"me","content":"m%d","thread_id":"thread %d"}`, i, i%5)); resp.StatusCode != 200 {
			t.Fatal(body)
		}
	}
	type entry struct{ ID, Text, Content, Title string }
	type list struct {
		Events, Threads, Messages []entry
		Usage                     json.RawMessage
		More                      bool   `json:"has_more"`
		Cursor                    string `json:"next_cursor"`
		Next                      int64
	}
	var texts, threads []string
	for path, cursor := "/api/agents/a/history?limit=3", ""; ; {
		var l list
		get(t, gw, path+"&cursor="+cursor, &l)
		for _, e := range l.Events {
			texts = append(texts, e.Text)
		}
		if cursor = l.Cursor; l.More != (cursor != "") {
			t.Fatalf("has_more is %v, next_cursor %q", l.More, cursor)
		}
		if !l.More {
			break
		}
	}
	if got, want := strings.Join(texts, " "), "m0 re: m0 m1 re: m1 m2 re: m2 m3 re: m3 m4 re: m4 m5 re: m5 m6 re: m6"; got != want {
		t.Errorf("the history is %s", got)
	}
	for cursor := ""; ; {
		var l list
		get(t, gw, "/api/threads?agent_id=a&limit=2&cursor="+cursor, &l)
		for _, e := range l.Threads {
			threads = append(threads, e.ID)
		}
		if cursor = l.Cursor; !l.More {
			break
		}
	}
	if got, want := strings.Join(threads, ", "), "thread 1, thread 0, thread 4, thread 3, thread 2"; got != want {
		t.Errorf("the threads are %s", got)
	}
	var l list
	if get(t, gw, "/api/agents/a/history?newest=true&limit=2", &l); len(l.Events) != 2 || l.Events[0].Text != "m6" || !l.More || l.Cursor != "" {
		t.Errorf("the newest entries are %+v", l)
	}
	l = list{}
	if get(t, gw, "/api/threads/thread%201/messages?limit=2", &l); len(l.Messages) != 2 || l.Messages[0].Content != "m6" || l.Messages[1].Content != "re: m6" || !l.More {
		t.Errorf("the newest messages are %+v", l)
	}
	l = list{}
	if get(t, gw, "/api/threads/thread%201/usage?limit=1", &l); !l.More || l.Next == 0 {
		t.Errorf("a list that goes on says %+v", l)
	}
	next := l.Next
	l = list{}
	var reports []entry
	get(t, gw, fmt.Sprintf("/api/threads/thread%%201/usage?limit=1&after=%d", next), &l)
	if err := json.Unmarshal(l.Usage, &reports); err != nil || len(reports) != 1 || l.More {
		t.Errorf("the rest is %+v: %v", l, err)
	}
	var total struct {
		Input int `json:"total_input"`
	}
	for query, want := range map[string]int{"": 7, "?agent_id=a": 7, "?agent_id=b": 0, "?thread_id=thread+1": 2, "?since=2999-01-01T00:00:00Z": 0, "?until=2999-01-01T00:00:00.5%2B02:00": 7} {
		if get(t, gw, "/api/stats/usage"+query, &total); total.Input != want {
			t.Errorf("%s: %d tokens, want %d", query, total.Input, want)
		}
	}
	for by, want := range map[string]string{"agent": "a", "principal": auth.Anonymous.ID, "day": time.Now().UTC().Format(time.DateOnly)} {
		var sums struct {
			Groups []struct {
				Key   string
				Input int `json:"total_input"`
			}
		}
		if get(t, gw, "/api/stats/usage?group_by="+by, &sums); len(sums.Groups) != 1 || sums.Groups[0].Key != want || sums.Groups[0].Input != 7 {
			t.Errorf("by %s: %+v, want 7 of %q", by, sums, want)
		}
	}
	for path, want := range map[string]string{
		"/api/stats/usage?group_by=x":                "group_by must be agent, principal or day",
		"/api/agents/a/history?newest=maybe":         "newest must be true or false",
		"/api/agents/a/history?newest=true&cursor=x": "newest=true gives the last entries only",
		"/api/agents/a/history?limit=-1":             "limit must be a positive integer",
		"/api/threads?cursor=x":                      "cursor must be",
		"/api/threads?limit=x":                       "limit must be a positive integer",
		"/api/threads/thread%201/messages?limit=0":   "limit must be a positive integer",
		"/api/threads/thread%201/usage?after=x":      "after must be",
		"/api/conversations/a/events?limit=x":        "limit must be a positive integer",
		"/api/conversations/a/events?after=-1":       "after must be",
		"/api/stats/usage?until=x":                   "invalid 'until' format (use RFC3339)",
		"/api/stats/usage?since=x&until=x":           "invalid 'since' format (use RFC3339)",
	} {
		if resp, body := do(t, gw, "GET", path, ""); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestHead: HEAD of a stream is answered and over; the connection serves the next request.
func TestHead(t *testing.T) {
	gw := gatewaytest.New(t)
	gw.Client.Timeout = gatewaytest.Patience
	for _, path := range []string{"/api/conversations/a/events", "/api/health/stream"} {
		for range 3 {
			resp, _ := do(t, gw, "HEAD", path, "", "Accept", "text/event-stream")
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
			}
		}
	}
}

// TestHealthStream: a browser sees at once that the gateway is there.
func TestHealthStream(t *testing.T) {
	gw := gatewaytest.New(t)
	resp, err := gw.Client.Get(gw.URL + "/api/health/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	const want = "data: ok\n\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
		t.Errorf("it begins with %q: %v", got, err)
	}
}

// TestSeam: a reader that comes in the middle sees what was and what comes, each number once.
func TestSeam(t *testing.T) {
	gw := gatewaytest.New(t)
	a := gw.Agent("a")
	const words = 400
	half := make(chan struct{})
	serve(a, func(m *pb.SendMessage) {
		for i := range words {
			if i == words/2 {
				close(half)
			}
			a.Text(m.RequestId, fmt.Sprintf("%d ", i))
		}
		a.Done(m.RequestId, "")
	})
	sent := make(chan string, 1)
	go func() {
		_, stream := do(t, gw, "POST", "/api/send", `{"agent_id":"a","sender":"me","content":"count"}`)
		sent <- stream
	}()
	<-half
	req, err := http.NewRequest("GET", gw.URL+"/api/conversations/a/events?after=99999", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", "0") // wins over after
	resp, err := gw.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text strings.Builder
	var pos int64
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Seq   int64
			First int64 `json:"first_seq"`
			Text  string
			Type  string
		}
		if err := json.Unmarshal(e.Data, &got); err != nil || got.Type != e.Name || fmt.Sprint(got.Seq) != e.ID {
			t.Fatalf("%s %s %s: %v", e.ID, e.Name, e.Data, err)
		}
		if got.First == 0 {
			got.First = got.Seq
		}
		if got.First != pos+1 {
			t.Fatalf("after %d comes %s", pos, e.Data)
		}
		pos = got.Seq
		text.WriteString(got.Text)
		if e.Name == "done" {
			break
		}
	}
	if n := len(strings.Fields(text.String())); n != words {
		t.Errorf("the reader saw %d of %d words", n, words)
	}
	if stream := <-sent; strings.Count(stream, "event: done\n") != 1 {
		t.Errorf("the sender saw %s", stream)
	}
}
