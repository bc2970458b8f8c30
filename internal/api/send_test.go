package api

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// TestDecodeSend: a message says the same as JSON and as a form.
func TestDecodeSend(t *testing.T) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, f := range [][2]string{{"agent_id", "a"}, {"sender", "me"}, {"content", "hi\nthere"}, {"thread_id", "any id"}, {"idempotency_key", "k"}, {"delivery", "queue"}, {"wait_seconds", "60"}} {
		if err := form.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []struct{ name, mediaType string }{{"a.txt", "text/plain"}, {"b", ""}} {
		h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="attachments"; filename="` + f.name + `"`}}
		if f.mediaType != "" {
			h.Set("Content-Type", f.mediaType)
		}
		part, err := form.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	want := conversation.SendRequest{
		AgentID: "a", ThreadID: "any id", Frontend: "direct", Sender: "me", Text: "hi\nthere", Key: "k", Delivery: conversation.Queue, Wait: time.Minute,
		Files: []conversation.FileData{{Name: "a.txt", Type: "text/plain", Data: []byte("data")}, {Name: "b", Type: "application/octet-stream", Data: []byte("data")}},
	}
	const fromJSON = `{"agent_id":"a","sender":"me","content":"hi\nthere","thread_id":"any id","idempotency_key":"k","frontend":"slack","channel_id":"c","unknown":1,"delivery":"queue","wait_seconds":60,
		"attachments":[{"filename":"a.txt","mime_type":"text/plain","data":"ZGF0YQ=="},{"filename":"b","mime_type":"application/octet-stream","data":"ZGF0YQ=="}]}`
	for contentType, body := range map[string]string{
		form.FormDataContentType(): body.String(), "application/json": fromJSON, "application/x-www-form-urlencoded": fromJSON, "": fromJSON, ";;;": fromJSON,
	} {
		r := httptest.NewRequest(http.MethodPost, "/api/send", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Idempotency-Key", "k")
		if got, err := decodeSend(r); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v (%v)\nwant %+v", contentType, got, err, want)
		}
	}
}

// TestDecodeSendRefuses: what is wrong with a message is said, first things first.
func TestDecodeSendRefuses(t *testing.T) {
	const boundary = "multipart/form-data; boundary=x"
	part := func(disposition, content string) string {
		return "--x\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + content + "\r\n"
	}
	for _, c := range []struct{ contentType, body, text string }{
		{"", ``, "invalid JSON body"},
		{"", `[]`, "invalid JSON body"},
		{"", `{"content":7}`, "invalid JSON body"},
		{"", `{"attachments":[{"data":"no base64!"}]}`, "invalid JSON body"},
		{"", `null`, "content is required"},
		{"", `{}`, "content is required"},
		{"", `{"content":"hi"}`, "sender is required"},
		{"", `{"content":"hi","agent_id":"a"}`, "sender is required"},
		{"", `{"content":"hi","sender":"me"}`, "must specify agent_id or frontend+channel_id"},
		{"", `{"content":"hi","sender":"me","frontend":"slack"}`, "must specify agent_id or frontend+channel_id"},
		{"", `{"frontend":"slack","channel_id":"c"}`, "content is required"},
		{"", `{"content":"hi","sender":"me","agent_id":"a","idempotency_key":"other"}`, "the Idempotency-Key header and idempotency_key differ"},
		{boundary, ``, "content is required"},
		{boundary, part(`name="content"`, "hi"), "invalid form body"},
		{"multipart/form-data", part(`name="content"`, "hi") + "--x--\r\n", "invalid form body"},
		{boundary, part(`name="contents"`, "hi") + "--x--\r\n", `unknown form field "contents"`},
		{boundary, part(`name="picture"; filename="p"`, "hi") + "--x--\r\n", `unknown form field "picture"`},
		{boundary, part(`name="attachments"`, "hi") + "--x--\r\n", "attachments[0]: filename is required"},
		{boundary, part(`name="wait_seconds"`, "a day") + "--x--\r\n", "wait_seconds must be a number"},
		{boundary, part(`name="sender"`, "me") + "--x--\r\n", "content is required"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/api/send", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.contentType)
		r.Header.Set("Idempotency-Key", "key")
		if _, err := decodeSend(r); fault.CodeOf(err) != fault.Invalid || fault.Message(err) != c.text {
			t.Errorf("%s %q: %v, want %s", c.contentType, c.body, err, c.text)
		}
	}
}
