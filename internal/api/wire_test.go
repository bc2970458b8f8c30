package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// FuzzAppendString: what the quick encoder writes is what encoding/json reads.
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
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
			t.Errorf("%q became %q", s, got)
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
		conversation.Message{}, conversation.Text{}, conversation.Thinking{}, conversation.ToolCall{}, conversation.ToolState{},
		conversation.ToolResult{}, conversation.Approval{}, conversation.Usage{}, conversation.FileSent{}, conversation.Session{},
		conversation.SessionOrphaned{}, conversation.Trouble{}, conversation.Ended{State: conversation.Done},
		conversation.Ended{State: conversation.Failed}, conversation.Ended{State: conversation.Cancelled},
	} {
		for _, form := range []form{sendForm, objectForm} {
			name, data, err := (&encoder{form: form}).encode(conversation.Event{Seq: 1, First: 1, Body: b})
			if err != nil || name == "unknown" || !json.Valid(data) {
				t.Errorf("%T is %s %s: %v", b, name, data, err)
			}
		}
	}
}

func BenchmarkEncodeText(b *testing.B) {
	enc := &encoder{form: sendForm}
	e := conversation.Event{Seq: 1, First: 1, Body: conversation.Text{Text: "a few words of an answer "}}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := enc.encode(e); err != nil {
			b.Fatal(err)
		}
	}
}
