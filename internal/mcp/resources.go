package mcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// Where resources are. The rest of a URI is the id of the thread, or the key of the note, escaped as a
// segment of a path.
const (
	threadURI = "coven://threads/"
	noteURI   = "coven://notes/"
	jsonType  = "application/json"
)

// Limits of resources.
const (
	resourcePage   = 100     // of a list
	threadEntries  = 200     // of a thread that are read: the last ones
	maxThreadBytes = 1 << 20 // of their texts
)

// listResources returns a page of the threads that the caller may read, the most recently active first,
// and behind them the notes of the agent that calls. The cursor says where the next page begins.
func (s *Server) listResources(ctx context.Context, c *caller, p *mcp.ListResourcesParams) (mcp.Result, error) {
	cursor := "t0"
	if p != nil && p.Cursor != "" {
		b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
		if err != nil || len(b) == 0 || b[0] != 't' && b[0] != 'n' {
			return nil, errCursor
		}
		cursor = string(b)
	}
	res := &mcp.ListResourcesResult{Resources: []*mcp.Resource{}, Cacheable: mcp.Cacheable{CacheScope: "private"}}
	if after, ok := strings.CutPrefix(cursor, "t"); ok {
		before, err := strconv.ParseInt(after, 10, 64)
		if err != nil || before < 0 {
			return nil, errCursor
		}
		next, err := s.listThreads(ctx, c, before, res)
		if err != nil {
			return nil, s.unread(c, "threads", err)
		}
		if next != 0 {
			res.NextCursor = base64.RawURLEncoding.EncodeToString([]byte("t" + strconv.FormatInt(next, 10)))
			return res, nil
		}
		cursor = "n"
		if len(res.Resources) > 0 && c.tools().AgentID != "" { // a page has one kind
			res.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(cursor))
			return res, nil
		}
	}
	if err := s.listNotes(ctx, c, cursor[1:], res); err != nil {
		return nil, s.unread(c, "notes", err)
	}
	return res, nil
}

var errCursor = refusal(jsonrpc.CodeInvalidParams, "cursor must be the nextCursor of the page before")

// unread returns the error of a list.
func (s *Server) unread(c *caller, what string, err error) error {
	if fault.CodeOf(err) == fault.Internal {
		s.opts.Logger.Error("the "+what+" of an MCP client could not be read", "principal", c.principal.ID, "error", err)
	}
	return refusal(jsonrpc.CodeInternalError, fault.Message(err))
}

// mayRead reports whether the credential of a caller is one to read with. What it may see of it is
// decided by the conversations.
func mayRead(ctx context.Context, c *caller) (context.Context, bool) {
	p := c.tools().Principal
	may := c.grant != nil || p.Credential.Scopes == nil || slices.Contains(p.Credential.Scopes, auth.ScopeRead)
	if p.Credential.Kind == auth.OAuth {
		may = p.Credential.Need(auth.ScopeResources) == nil
	}
	return auth.With(ctx, p), may
}

// listThreads adds a page of threads; next is where the following one begins, 0 at the end.
func (s *Server) listThreads(ctx context.Context, c *caller, before int64, res *mcp.ListResourcesResult) (next int64, err error) {
	ctx, may := mayRead(ctx, c)
	if !may {
		return 0, nil
	}
	threads, err := s.opts.Conversations().Threads(ctx, conversation.ThreadQuery{Before: before, Limit: resourcePage + 1})
	if err != nil {
		return 0, err
	}
	for _, t := range threads[:min(len(threads), resourcePage)] {
		title := t.Title
		if title == "" {
			title = t.ExternalID
		}
		res.Resources = append(res.Resources, &mcp.Resource{
			URI: threadURI + url.PathEscape(t.ID), Name: "thread " + t.ID, Title: title, MIMEType: jsonType,
			Description: "A thread with the agent " + t.AgentID, Annotations: &mcp.Annotations{LastModified: t.UpdatedAt.UTC().Format(time.RFC3339)},
		})
	}
	if len(threads) > resourcePage {
		next = threads[resourcePage-1].Activity
	}
	return next, nil
}

// listNotes adds a page of the notes of the agent that calls. It may see them where it may use note_list.
func (s *Server) listNotes(ctx context.Context, c *caller, after string, res *mcp.ListResourcesResult) error {
	who := c.tools()
	if who.AgentID == "" {
		return nil
	}
	in, err := json.Marshal(map[string]any{"limit": resourcePage, "cursor": after})
	if err != nil {
		return err
	}
	out, err := s.opts.Tools.Call(ctx, who, "note_list", in)
	if fault.CodeOf(err) == fault.Forbidden {
		return nil
	}
	if err != nil {
		return err
	}
	var page struct {
		Keys []string `json:"keys"`
		Next string   `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(out), &page); err != nil {
		return err
	}
	for _, key := range page.Keys {
		res.Resources = append(res.Resources, &mcp.Resource{URI: noteURI + url.PathEscape(key), Name: key, MIMEType: "text/plain", Description: "A note"})
	}
	if page.Next != "" {
		res.NextCursor = base64.RawURLEncoding.EncodeToString([]byte("n" + page.Next))
	}
	return nil
}

// templates say how URIs are made.
func (s *Server) templates() mcp.Result {
	return &mcp.ListResourceTemplatesResult{Cacheable: mcp.Cacheable{CacheScope: "private"}, ResourceTemplates: []*mcp.ResourceTemplate{
		{Name: "note", URITemplate: noteURI + "{key}", MIMEType: "text/plain", Description: "A note of the agent that reads it"},
		{Name: "thread", URITemplate: threadURI + "{id}", MIMEType: jsonType, Description: "What was said in a thread, the last " + strconv.Itoa(threadEntries) + " entries"},
	}}
}

// readResource returns a thread or a note. What the caller may not see is not found.
func (s *Server) readResource(ctx context.Context, c *caller, p *mcp.ReadResourceParams) (*mcp.ReadResourceResult, error) {
	if p.URI == "" {
		return nil, refusal(jsonrpc.CodeInvalidParams, "uri is required")
	}
	text, media, err := "", "", error(fault.New(fault.NotFound, "resource not found"))
	if id, ok := within(p.URI, threadURI); ok {
		media = jsonType
		text, err = s.readThread(ctx, c, id)
	} else if key, ok := within(p.URI, noteURI); ok {
		media = "text/plain"
		text, err = s.readNote(ctx, c, key)
	}
	switch code := fault.CodeOf(err); {
	case err == nil:
	case code == fault.NotFound || code == fault.Forbidden || code == fault.Invalid:
		if c.modern {
			data, err := json.Marshal(map[string]string{"uri": p.URI})
			if err != nil {
				return nil, err
			}
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: "Resource not found", Data: data}
		}
		return nil, mcp.ResourceNotFoundError(p.URI)
	default:
		return nil, s.unread(c, "resource", err)
	}
	return &mcp.ReadResourceResult{
		Cacheable: mcp.Cacheable{CacheScope: "private"}, Contents: []*mcp.ResourceContents{{URI: p.URI, MIMEType: media, Text: text}},
	}, nil
}

// within returns what a URI names below a place.
func within(uri, place string) (string, bool) {
	rest, ok := strings.CutPrefix(uri, place)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", false
	}
	name, err := url.PathUnescape(rest)
	return name, err == nil
}

// readThread returns the end of a thread as JSON.
func (s *Server) readThread(ctx context.Context, c *caller, id string) (string, error) {
	ctx, may := mayRead(ctx, c)
	if !may {
		return "", fault.New(fault.Forbidden, "this token lacks the scope %q", auth.ScopeRead)
	}
	t, err := s.opts.Conversations().Thread(ctx, id)
	if err != nil {
		return "", err
	}
	page, err := s.opts.Conversations().History(ctx, conversation.HistoryQuery{AgentID: t.AgentID, ThreadID: id, Newest: true, Limit: threadEntries})
	if err != nil {
		return "", err
	}
	type entry struct {
		Seq    int64     `json:"seq"`
		At     time.Time `json:"at"`
		Author string    `json:"author"`
		Type   string    `json:"type"`
		Text   string    `json:"text"`
		TurnID string    `json:"turn_id"`
	}
	entries, bytes := []entry{}, 0
	for _, e := range slices.Backward(page.Entries) {
		if bytes += len(e.Text); bytes > maxThreadBytes {
			break
		}
		entries = append(entries, entry{e.Seq, e.At, e.Author, string(e.Type), e.Text, e.TurnID})
	}
	slices.Reverse(entries)
	out, err := json.Marshal(map[string]any{"thread_id": t.ID, "agent_id": t.AgentID, "title": t.Title, "entries": entries})
	return string(out), err
}

// readNote returns the value of a note. An agent may read it where it may use note_get.
func (s *Server) readNote(ctx context.Context, c *caller, key string) (string, error) {
	in, err := json.Marshal(map[string]string{"key": key})
	if err != nil {
		return "", err
	}
	out, err := s.opts.Tools.Call(ctx, c.tools(), "note_get", in)
	if err != nil {
		return "", err
	}
	var note struct {
		Value string `json:"value"`
	}
	err = json.Unmarshal([]byte(out), &note)
	return note.Value, err
}
