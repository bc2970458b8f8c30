package api

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"coven-gateway/internal/conversation"
)

// form is how an event is shown: on the stream of a send, whose payloads existing clients know
// (http.md 2.1), or as an object that says which turn and thread it belongs to.
type form int

const (
	sendForm   form = iota // payload only; the message is "started"
	objectForm             // seq, type, request_id, thread_id, time and the payload
)

// encoder turns events into their wire form. It belongs to one goroutine.
type encoder struct {
	form    form
	agentID string
	buf     []byte
}

// maxKept is the largest buffer that an encoder keeps between events, in bytes.
const maxKept = 64 << 10

// encode returns the name and data of an event. The data is valid until the next call.
func (e *encoder) encode(ev conversation.Event) (name string, data []byte, err error) {
	switch b := ev.Body.(type) {
	case conversation.Text:
		return "text", e.increment(ev, "text", b.Text), nil
	case conversation.Thinking:
		return "thinking", e.increment(ev, "thinking", b.Text), nil
	}
	name, payload := e.payload(ev)
	switch {
	case e.form != objectForm:
	case ev.TurnID == "": // something that was removed: it belongs to no turn, and to no time
		payload["type"] = name
	default:
		payload["seq"] = ev.Seq
		payload["type"] = name
		payload["request_id"] = ev.TurnID
		payload["thread_id"] = ev.ThreadID
		payload["time"] = stamp(ev.At)
	}
	data, err = marshal(payload)
	return name, data, err
}

// increment is what nearly all events are, and therefore written without reflection, with its keys
// in the order in which the others have theirs.
func (e *encoder) increment(ev conversation.Event, name, text string) []byte {
	b := e.buf[:0]
	if e.form == sendForm {
		b = append(b, `{"text":`...)
		b = appendString(b, text)
	} else {
		b = append(b, '{')
		if ev.First != ev.Seq {
			b = append(b, `"first_seq":`...)
			b = strconv.AppendInt(b, ev.First, 10)
			b = append(b, ',')
		}
		b = append(b, `"request_id":`...)
		b = appendString(b, ev.TurnID)
		b = append(b, `,"seq":`...)
		b = strconv.AppendInt(b, ev.Seq, 10)
		b = append(b, `,"text":`...)
		b = appendString(b, text)
		b = append(b, `,"thread_id":`...)
		b = appendString(b, ev.ThreadID)
		b = append(b, `,"time":"`...)
		b = ev.At.UTC().AppendFormat(b, stampLayout)
		b = append(b, `","type":"`...)
		b = append(b, name...)
		b = append(b, '"')
	}
	b = append(b, '}')
	if e.buf = b; cap(b) > maxKept {
		e.buf = nil
	}
	return b
}

// object returns an event as it is listed in JSON.
func (e *encoder) object(ev conversation.Event) (json.RawMessage, error) {
	_, data, err := e.encode(ev)
	return bytes.Clone(data), err
}

type fields map[string]any

// payload returns the name of an event that is no increment, and what it says.
func (e *encoder) payload(ev conversation.Event) (string, fields) {
	switch b := ev.Body.(type) {
	case conversation.Message:
		if e.form == sendForm {
			return "started", startedFields(e.agentID, ev.ThreadID, ev.TurnID)
		}
		return "message", fields{"sender": b.Sender, "content": b.Text, "attachments": files(b.Files)}
	case conversation.ToolCall:
		return "tool_use", fields{"id": b.ID, "name": b.Name, "input_json": b.Input}
	case conversation.ToolState:
		return "tool_state", fields{"id": b.ID, "state": b.State, "detail": b.Detail}
	case conversation.ToolResult:
		return "tool_result", fields{"id": b.ID, "output": b.Output, "is_error": b.IsError}
	case conversation.ToolRun:
		return "tool_run", fields{"id": b.ID, "name": b.Name, "pack": b.Pack, "result": b.Result, "duration_us": b.Duration.Microseconds()}
	case conversation.Approval:
		f := fields{"id": b.ID, "name": b.Name, "input_json": b.Input, "request_id": ev.TurnID}
		if !b.ExpiresAt.IsZero() {
			f["expires_at"] = stamp(b.ExpiresAt)
		}
		return "tool_approval", f
	case conversation.Decision:
		f := fields{"id": b.ID, "approved": b.Approved, "approve_all": b.All, "by": b.By, "request_id": ev.TurnID}
		if b.Name != "" || b.Input != "" { // nobody was asked, so this says what for
			f["name"], f["input_json"] = b.Name, b.Input
		}
		return "tool_decision", f
	case conversation.Usage:
		return "usage", usageFields(b)
	case conversation.FileSent:
		return "file", fileFields(b.File)
	case conversation.Session:
		return "session_init", fields{"session_id": b.ID}
	case conversation.SessionOrphaned:
		return "session_orphaned", fields{"reason": b.Reason}
	case conversation.Trouble:
		return "warning", fields{"error": b.Text}
	case conversation.Asked:
		return "user_question", fields{
			"question_id": b.ID, "question": b.Question, "header": b.Header, "options": optionFields(b.Options), "multi_select": b.Multi,
			"timeout_seconds": b.Seconds, "request_id": ev.TurnID,
		}
	case conversation.Answered:
		return "question_answered", fields{
			"question_id": b.ID, "selected": notNil(b.Selected), "custom_text": b.Text, "by": b.By, "reason": b.Reason, "request_id": ev.TurnID,
		}
	case conversation.Enqueued:
		return "queued", fields{"until": stamp(b.Until)}
	case conversation.Delivered:
		return "delivered", fields{}
	case conversation.Ended:
		switch b.State {
		case conversation.Done:
			return "done", fields{"full_response": b.Response}
		case conversation.Cancelled:
			return "canceled", fields{"reason": b.Cause}
		default:
			return "error", fields{"error": b.Cause, "recoverable": b.State == conversation.Interrupted || b.State == conversation.Expired}
		}
	case conversation.Removed:
		return "removed", fields{"first_seq": ev.First, "seq": ev.Seq}
	case conversation.ThreadDeleted:
		return "thread_deleted", fields{"thread_id": b.ThreadID}
	}
	return "unknown", fields{}
}

// startedFields is the payload of the first event of a send.
func startedFields(agentID, threadID, turnID string) fields {
	return fields{"agent_id": agentID, "thread_id": threadID, "request_id": turnID}
}

func fileFields(f conversation.File) fields {
	return fields{"file_id": f.ID, "filename": f.Name, "mime_type": f.Type, "size": f.Size, "sha256": f.SHA256, "url": "/api/files/" + f.ID}
}

func files(fs []conversation.File) []fields {
	out := make([]fields, len(fs))
	for i, f := range fs {
		out[i] = fileFields(f)
	}
	return out
}

func usageFields(u conversation.Usage) fields {
	return fields{
		"input_tokens": u.Input, "output_tokens": u.Output, "cache_read_tokens": u.CacheRead,
		"cache_write_tokens": u.CacheWrite, "thinking_tokens": u.Thinking,
	}
}

func totalFields(t conversation.UsageTotal) fields {
	return fields{
		"total_input": t.Input, "total_output": t.Output, "total_cache_read": t.CacheRead, "total_cache_write": t.CacheWrite,
		"total_thinking": t.Thinking, "total_tokens": t.Input + t.Output + t.Thinking, "request_count": t.Reports,
	}
}

// turnFields is a turn as an object.
func turnFields(t conversation.Turn) fields {
	f := fields{
		"request_id": t.ID, "agent_id": t.AgentID, "thread_id": t.ThreadID, "sender": t.Sender, "principal_id": t.PrincipalID,
		"state": t.State, "first_seq": t.First, "started_at": stamp(t.StartedAt), "usage": usageFields(t.Usage),
	}
	if t.Cause != "" {
		f["cause"] = t.Cause
	}
	if !t.WaitingUntil.IsZero() {
		f["waiting_until"] = stamp(t.WaitingUntil)
	}
	if !t.FirstEventAt.IsZero() {
		f["first_event_at"] = stamp(t.FirstEventAt)
	}
	if !t.EndedAt.IsZero() {
		f["last_seq"] = t.Last
		f["ended_at"] = stamp(t.EndedAt)
		f["duration_ms"] = t.EndedAt.Sub(t.StartedAt).Milliseconds()
	}
	return f
}

// stampLayout is RFC 3339 to the microsecond.
const stampLayout = "2006-01-02T15:04:05.000000Z07:00"

// stamp is a time as it is shown, in UTC.
func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// marshal is json.Marshal without the escapes that only HTML needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// appendString appends s as a JSON string, byte for byte as marshal writes it: invalid UTF-8
// becomes U+FFFD, and what breaks a line in JavaScript is escaped.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0 // of what is not copied yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + n
			case r == '\u2028' || r == '\u2029':
				b = append(append(b, s[start:i]...), `\u202`...)
				b = append(b, hex[r&15])
				start = i + n
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
