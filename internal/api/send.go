package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// sendBody is the body of POST /api/send. The service knows the limits of most fields.
type sendBody struct {
	AgentID        string `json:"agent_id"`
	Frontend       string `json:"frontend" max:"-"`
	ChannelID      string `json:"channel_id" max:"-"`
	ThreadID       string `json:"thread_id" max:"-"`
	Sender         string `json:"sender" max:"-"`
	Content        string `json:"content" max:"-"`
	IdempotencyKey string `json:"idempotency_key" max:"-"`
	Delivery       string `json:"delivery"`
	Wait           int64  `json:"wait_seconds"`
	Attachments    []struct {
		Filename string `json:"filename"`
		MimeType string `json:"mime_type"`
		Data     []byte `json:"data"` // base64
	} `json:"attachments" max:"-"`
}

// send takes a message for an agent and answers with its turn: as a stream while it comes, or, for
// Accept: application/json, in one piece when it has ended.
func (a *API) send(w http.ResponseWriter, r *http.Request) error {
	in, err := decodeSend(r)
	if err != nil {
		return err
	}
	return a.deliver(w, r, in)
}

// sendToAgent takes a message in a thread of its own.
func (a *API) sendToAgent(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Message        string `json:"message" max:"-"`
		IdempotencyKey string `json:"idempotency_key" max:"-"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Message == "" {
		return fault.New(fault.Invalid, "message is required")
	}
	key, err := idempotencyKey(r, in.IdempotencyKey)
	if err != nil {
		return err
	}
	err = a.deliver(w, r, conversation.SendRequest{
		AgentID: r.PathValue("id"), Frontend: "leader", ExternalID: "leader:" + uuid.NewString(), Sender: "coven-leader", Text: in.Message,
		Key: key,
	})
	if errors.Is(err, conversation.ErrAgentGone) { // on this route it is not "unavailable"
		return fault.Wrap(err, fault.NotFound, "agent not found")
	}
	return err
}

// deliver sends a message and shows its turn.
func (a *API) deliver(w http.ResponseWriter, r *http.Request, in conversation.SendRequest) error {
	resume, err := resumeAfter(r)
	if err != nil {
		return err
	}
	if in.Key == "" {
		resume = 0 // a message that is new has nothing to resume
	}
	whole := wants(r, "application/json") && !wants(r, "text/event-stream")
	if !whole { // before there is a turn, because who is refused tries again
		leave, err := a.EnterStream(r.Context())
		if err != nil {
			return err
		}
		defer leave()
	}
	t, err := a.Conversations.Send(r.Context(), in)
	if err != nil {
		return orGone(r.Context(), err)
	}
	if whole && t.State == conversation.Queued { // it may take days
		return writeJSON(w, http.StatusAccepted, turnFields(t))
	}
	reader, err := a.Conversations.Reader(r.Context(), t.AgentID, conversation.Filter{TurnID: t.ID}, resume)
	if err != nil {
		return err
	}
	defer reader.Close()
	if whole {
		return a.whole(w, r, t, reader)
	}
	var started fields
	if resume >= t.First {
		started = startedFields(t.AgentID, t.ThreadID, t.ID)
	}
	return a.stream(w, r, reader, &encoder{form: sendForm, agentID: t.AgentID}, true, started)
}

// maxWhole bounds an answer that is kept in memory until it is complete, in bytes.
const maxWhole = 16 << 20

// toolCall is all that happened to one call of a tool.
type toolCall struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Input   string `json:"input_json"`
	State   string `json:"state,omitempty"`
	Output  string `json:"output"`
	IsError bool   `json:"is_error"`
}

// toolCalls gathers the calls of a turn in the order in which they appear.
type toolCalls struct {
	list []*toolCall
	byID map[string]*toolCall
}

// of returns the call with an id. Agents speak of a call's state before they name it.
func (c *toolCalls) of(id string) *toolCall {
	x := c.byID[id]
	if x == nil {
		x = &toolCall{ID: id}
		c.list = append(c.list, x)
		c.byID[id] = x
	}
	return x
}

// whole waits for the end of a turn and answers with all of it.
func (a *API) whole(w http.ResponseWriter, r *http.Request, t conversation.Turn, reader *conversation.Reader) error {
	enc := &encoder{form: objectForm, agentID: t.AgentID}
	events := []json.RawMessage{} // everything but the message, the text and the end
	calls, sent := toolCalls{byID: map[string]*toolCall{}}, []fields{}
	var answer strings.Builder
	size := 0
	for {
		evs, err := reader.Poll(r.Context())
		if err != nil {
			return orGone(r.Context(), err)
		}
		for _, e := range evs {
			switch b := e.Body.(type) {
			case conversation.Message:
			case conversation.Removed:
				return fault.New(fault.Removed, "the turn %s was removed", t.ID)
			case conversation.Text:
				answer.WriteString(b.Text)
				size += len(b.Text)
			case conversation.Ended:
				t, err := a.Conversations.Turn(r.Context(), t.ID)
				if err != nil {
					return err
				}
				f := turnFields(t)
				f["text"], f["response"], f["events"] = answer.String(), b.Response, events
				f["tool_calls"], f["files"] = notNil(calls.list), sent
				return writeJSON(w, http.StatusOK, f)
			default:
				obj, err := enc.object(e)
				if err != nil {
					return err
				}
				events = append(events, obj)
				size += len(obj)
				switch b := b.(type) {
				case conversation.ToolCall:
					c := calls.of(b.ID)
					c.Name, c.Input = b.Name, b.Input
				case conversation.ToolState:
					calls.of(b.ID).State = b.State
				case conversation.ToolResult:
					c := calls.of(b.ID)
					c.Output, c.IsError = b.Output, b.IsError
				case conversation.FileSent:
					sent = append(sent, fileFields(b.File))
				}
			}
			if size > maxWhole {
				return fault.New(fault.TooLarge, "the answer has more than %d bytes; it goes on, and is at /api/turns/%s/events", maxWhole, t.ID)
			}
		}
		if len(evs) > 0 {
			continue
		}
		select {
		case <-reader.Ready():
		case <-a.Stopping:
			return fault.New(fault.Unavailable, "the gateway is shutting down; the turn is %s", t.ID)
		case <-r.Context().Done():
			return orGone(r.Context(), r.Context().Err())
		}
	}
}

// decodeSend reads a message from JSON or from a form with files. Everything that is not a form is
// taken as JSON: existing clients name any content type.
func decodeSend(r *http.Request) (conversation.SendRequest, error) {
	var in sendBody
	var attached []conversation.FileData
	mediaType, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType == "multipart/form-data" {
		var err error
		if attached, err = decodeForm(multipart.NewReader(r.Body, params["boundary"]), &in); err != nil {
			return conversation.SendRequest{}, err
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil { // what follows the form
			return conversation.SendRequest{}, badForm(err)
		}
		if err := checkLengths(&in); err != nil {
			return conversation.SendRequest{}, err
		}
	} else {
		if err := decode(r, &in); err != nil {
			return conversation.SendRequest{}, err
		}
		for _, f := range in.Attachments {
			attached = append(attached, conversation.FileData{Name: f.Filename, Type: f.MimeType, Data: f.Data})
		}
	}
	var err error
	if in.IdempotencyKey, err = idempotencyKey(r, in.IdempotencyKey); err != nil {
		return conversation.SendRequest{}, err
	}
	switch {
	case in.Content == "" && len(attached) == 0:
		return conversation.SendRequest{}, fault.New(fault.Invalid, "content is required")
	case in.Sender == "":
		return conversation.SendRequest{}, fault.New(fault.Invalid, "sender is required")
	case in.AgentID == "" && (in.Frontend == "" || in.ChannelID == ""):
		return conversation.SendRequest{}, fault.New(fault.Invalid, "must specify agent_id or frontend+channel_id")
	}
	req := conversation.SendRequest{
		AgentID: in.AgentID, ThreadID: in.ThreadID, Frontend: "direct", Sender: in.Sender, Text: in.Content,
		Files: attached, Key: in.IdempotencyKey, Delivery: conversation.Delivery(in.Delivery),
	}
	if req.Wait, err = wait(in.Wait); err != nil {
		return conversation.SendRequest{}, err
	}
	if in.AgentID == "" {
		req.Frontend, req.ChannelID = in.Frontend, in.ChannelID
	}
	return req, nil
}

// wait is how long a message may wait for its agent.
func wait(seconds int64) (time.Duration, error) {
	if most := int64(conversation.MaxWait / time.Second); seconds < 0 || seconds > most {
		return 0, fault.New(fault.Invalid, "wait_seconds must be from 1 to %d; got %d", most, seconds)
	}
	return time.Duration(seconds) * time.Second, nil
}

// idempotencyKey is the key of a request, from its header or its body.
func idempotencyKey(r *http.Request, body string) (string, error) {
	header := r.Header.Get("Idempotency-Key")
	if header != "" && body != "" && header != body {
		return "", fault.New(fault.Invalid, "the Idempotency-Key header and idempotency_key differ")
	}
	return cmp.Or(header, body), nil
}

// decodeForm reads a multipart form: the fields of a JSON body, and files as parts named
// attachments.
func decodeForm(form *multipart.Reader, in *sendBody) ([]conversation.FileData, error) {
	var attached []conversation.FileData
	values := map[string]*string{
		"agent_id": &in.AgentID, "frontend": &in.Frontend, "channel_id": &in.ChannelID, "thread_id": &in.ThreadID,
		"sender": &in.Sender, "content": &in.Content, "idempotency_key": &in.IdempotencyKey, "delivery": &in.Delivery,
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return attached, nil
		}
		if err != nil {
			return nil, badForm(err)
		}
		data, err := io.ReadAll(part) // the whole body is bounded
		if err != nil {
			return nil, badForm(err)
		}
		if part.FormName() == "attachments" {
			name := part.FileName()
			if name == "" {
				return nil, fault.New(fault.Invalid, "attachments[%d]: filename is required", len(attached))
			}
			mediaType := part.Header.Get("Content-Type")
			if mediaType == "" {
				mediaType = "application/octet-stream"
			}
			attached = append(attached, conversation.FileData{Name: name, Type: mediaType, Data: data})
			continue
		}
		if part.FormName() == "wait_seconds" {
			if in.Wait, err = strconv.ParseInt(string(data), 10, 64); err != nil {
				return nil, fault.Wrap(err, fault.Invalid, "wait_seconds must be a number")
			}
			continue
		}
		v := values[part.FormName()]
		if v == nil {
			return nil, fault.New(fault.Invalid, "unknown form field %q", part.FormName())
		}
		*v = string(data)
	}
}

func badForm(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return fault.Wrap(err, fault.Invalid, "invalid form body")
}
