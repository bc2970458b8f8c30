package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// FuzzAppendString: the quick encoder writes what encoding/json writes, and reads.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "a\"b\\c", "\x00\x1f\x7f\n\r\t", "é\u2028\u2029😀", "\xff\xfe", "<&>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q became %s: %v", s, b, err)
		}
		if utf8.ValidString(s) && got != s {
			t.Errorf("%q became %q", s, got)
		}
		if want, err := marshal(s); err != nil || string(b) != string(want) {
			t.Errorf("%q became %s, encoding/json writes %s (%v)", s, b, want, err)
		}
		if strings.ContainsAny(string(b), "\n\r") {
			t.Errorf("%q has a line break: %s", s, b)
		}
	})
}

// FuzzSend: any body is either refused with a fault or understood; nothing panics.
func FuzzSend(f *testing.F) {
	f.Add("application/json", `{"agent_id":"a","sender":"me","content":"hi","attachments":[{"filename":"f","data":"QQ=="}]}`)
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nhi\r\n--x--\r\n")
	f.Add("multipart/form-data", "--")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest(http.MethodPost, "/api/send", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		if _, err := decodeSend(r); err != nil && fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s %q: %v", contentType, body, err)
		}
	})
}

// TestEveryBodyHasAForm: no event leaves as "unknown".
func TestEveryBodyHasAForm(t *testing.T) {
	for _, b := range []conversation.Body{
		conversation.Message{},
		conversation.Text{},
		conversation.Thinking{},
		conversation.ToolCall{},
		conversation.ToolState{},
		conversation.ToolResult{},
		conversation.Approval{},
		conversation.Usage{},
		conversation.FileSent{},
		conversation.Session{},
		conversation.SessionOrphaned{},
		conversation.Trouble{},
		conversation.Ended{State: conversation.Done},
		conversation.Ended{State: conversation.Failed},
		conversation.Ended{State: conversation.Cancelled},
	} {
		for _, form := range []form{sendForm, objectForm} {
			name, data, err := (&encoder{form: form}).encode(conversation.Event{Seq: 1, First: 1, Body: b})
			if err != nil || name == "unknown" || !json.Valid(data) {
				t.Errorf("%T is %s %s: %v", b, name, data, err)
			}
		}
	}
}

// TestForms is the form of every event, as http.md 2.1 has it where it has it.
func TestForms(t *testing.T) {
	file := conversation.File{ID: "f", Name: "n", Type: "text/plain", Size: 3, SHA256: "00"}
	const fileForm = `"file_id":"f","filename":"n","mime_type":"text/plain"`
	for _, c := range []struct {
		body         conversation.Body
		name         string
		send, object string // object without what all have
	}{
		{conversation.Message{Sender: "me", Text: "<hi>"}, "message", `{"agent_id":"a","request_id":"t","thread_id":"th"}`, `"attachments":[],"content":"<hi>","sender":"me"`},
		{conversation.Message{Sender: "me", Files: []conversation.File{file}}, "message", `{"agent_id":"a","request_id":"t","thread_id":"th"}`, `"attachments":[{` + fileForm + `,"sha256":"00","size":3,"url":"/api/files/f"}],"content":"","sender":"me"`},
		{conversation.Text{Text: "a\n<b>"}, "text", `{"text":"a\n<b>"}`, `"text":"a\n<b>"`},
		{conversation.Thinking{Text: "hm"}, "thinking", `{"text":"hm"}`, `"text":"hm"`},
		{conversation.ToolCall{ID: "1", Name: "ls", Input: `{"a":1}`}, "tool_use", `{"id":"1","input_json":"{\"a\":1}","name":"ls"}`, `"id":"1","input_json":"{\"a\":1}","name":"ls"`},
		{conversation.ToolState{ID: "1", State: "running"}, "tool_state", `{"detail":"","id":"1","state":"running"}`, `"detail":"","id":"1","state":"running"`},
		{conversation.ToolResult{ID: "1", Output: "o", IsError: true}, "tool_result", `{"id":"1","is_error":true,"output":"o"}`, `"id":"1","is_error":true,"output":"o"`},
		{conversation.Approval{ID: "1", Name: "rm", Input: "{}"}, "tool_approval", `{"id":"1","input_json":"{}","name":"rm","request_id":"t"}`, `"id":"1","input_json":"{}","name":"rm"`},
		{conversation.Usage{Input: 1, Output: 2, CacheRead: 3, CacheWrite: 4, Thinking: 5}, "usage", `{"cache_read_tokens":3,"cache_write_tokens":4,"input_tokens":1,"output_tokens":2,"thinking_tokens":5}`, `"cache_read_tokens":3,"cache_write_tokens":4,"input_tokens":1,"output_tokens":2,"thinking_tokens":5`},
		{conversation.FileSent{File: file}, "file", `{` + fileForm + `,"sha256":"00","size":3,"url":"/api/files/f"}`, fileForm + `,"sha256":"00","size":3,"url":"/api/files/f"`},
		{conversation.Session{ID: "s"}, "session_init", `{"session_id":"s"}`, `"session_id":"s"`},
		{conversation.SessionOrphaned{Reason: "r"}, "session_orphaned", `{"reason":"r"}`, `"reason":"r"`},
		{conversation.Trouble{Text: "oh"}, "warning", `{"error":"oh"}`, `"error":"oh"`},
		{conversation.Ended{State: conversation.Done, Response: "all"}, "done", `{"full_response":"all"}`, `"full_response":"all"`},
		{conversation.Ended{State: conversation.Failed, Cause: "no"}, "error", `{"error":"no","recoverable":false}`, `"error":"no","recoverable":false`},
		{conversation.Ended{State: conversation.Interrupted, Cause: "gone"}, "error", `{"error":"gone","recoverable":true}`, `"error":"gone","recoverable":true`},
		{conversation.Ended{State: conversation.Cancelled, Cause: "stop"}, "canceled", `{"reason":"stop"}`, `"reason":"stop"`},
	} {
		ev := conversation.Event{Seq: 7, First: 7, At: at, TurnID: "t", ThreadID: "th", Body: c.body}
		name, data, err := (&encoder{form: sendForm, agentID: "a"}).encode(ev)
		want := c.name
		if want == "message" {
			want = "started"
		}
		if err != nil || name != want || string(data) != c.send {
			t.Errorf("%T is %s %s (%v)\nwant %s %s", c.body, name, data, err, want, c.send)
		}
		name, data, err = (&encoder{form: objectForm, agentID: "a"}).encode(ev)
		object := canonical(t, `{`+c.object+`,"request_id":"t","seq":7,"thread_id":"th","time":"2026-05-04T01:02:03.000004Z","type":"`+c.name+`"}`)
		if err != nil || name != c.name || string(data) != object {
			t.Errorf("%T is %s %s (%v)\nwant %s %s", c.body, name, data, err, c.name, object)
		}
	}
}

var at = time.Date(2026, 5, 4, 3, 2, 3, 4000, time.FixedZone("", 2*60*60))

// canonical is a JSON object with its keys in order.
func canonical(t *testing.T, object string) string {
	t.Helper()
	var f fields
	if err := json.Unmarshal([]byte(object), &f); err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	b, err := marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzIncrement: increments, which are written by hand, look as if they were not.
func FuzzIncrement(f *testing.F) {
	f.Add("t", "th", "a \"word\"\n", int64(1), int64(3))
	f.Add("", "ü\x00", "\xff\u2028", int64(9), int64(9))
	f.Fuzz(func(t *testing.T, turn, thread, text string, first, seq int64) {
		want := fields{"request_id": turn, "thread_id": thread, "seq": seq, "text": text, "time": stamp(at), "type": "thinking"}
		if first != seq {
			want["first_seq"] = first
		}
		object, err := marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		ev := conversation.Event{Seq: seq, First: first, At: at, TurnID: turn, ThreadID: thread, Body: conversation.Thinking{Text: text}}
		if _, got, _ := (&encoder{form: objectForm}).encode(ev); string(got) != string(object) {
			t.Errorf("got  %s\nwant %s", got, object)
		}
	})
}

// TestIncrementsCostNothing: a stream of increments does not keep the collector busy, and a large
// one does not stay in memory.
func TestIncrementsCostNothing(t *testing.T) {
	for _, form := range []form{sendForm, objectForm} {
		enc := &encoder{form: form}
		ev := conversation.Event{Seq: 2, First: 1, At: at, TurnID: "t", ThreadID: "th", Body: conversation.Text{Text: "a few \"words\" "}}
		if n := testing.AllocsPerRun(100, func() { _, _, _ = enc.encode(ev) }); n > 0 {
			t.Errorf("form %d: %v allocations", form, n)
		}
		ev.Body = conversation.Text{Text: strings.Repeat("x", maxKept+1)}
		if _, data, _ := enc.encode(ev); len(data) < maxKept || cap(enc.buf) > maxKept {
			t.Errorf("form %d keeps %d bytes after an event of %d", form, cap(enc.buf), len(data))
		}
	}
}

// TestObjectsStay: what is listed is not overwritten by what follows.
func TestObjectsStay(t *testing.T) {
	enc := &encoder{form: objectForm}
	first, err := enc.object(conversation.Event{Body: conversation.Text{Text: "first"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enc.object(conversation.Event{Body: conversation.Text{Text: "other"}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(first), `"first"`) {
		t.Errorf("it became %s", first)
	}
}

func BenchmarkEncodeText(b *testing.B) {
	for name, form := range map[string]form{"send": sendForm, "object": objectForm} {
		b.Run(name, func(b *testing.B) {
			enc := &encoder{form: form}
			e := conversation.Event{Seq: 1, First: 1, At: at, TurnID: "0199", ThreadID: "0199", Body: conversation.Text{Text: "a few words of an answer "}}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := enc.encode(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, time.Millisecond: 1, time.Second: 1, time.Second + time.Nanosecond: 1, 9*time.Second + time.Second/10: 10, 30 * time.Second: 30} {
		if got := retryAfter(d); got != want {
			t.Errorf("%s is %d seconds, want %d", d, got, want)
		}
	}
}
