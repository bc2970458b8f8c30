package mcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// prefix is what existing agents put before the names of tools (grpc.md 9.15).
const prefix = "pack_"

// receive answers the methods that are about tools, and notes new sessions.
func (s *Server) receive(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		if _, ok := methods[method]; !ok && !strings.HasPrefix(method, "notifications/") {
			return nil, refusal(jsonrpc.CodeMethodNotFound, "method not found") // the SDK would answer it
		}
		extra := req.GetExtra()
		if extra == nil || extra.TokenInfo == nil {
			return nil, refusal(jsonrpc.CodeInternalError, "not authenticated")
		}
		c, ok := extra.TokenInfo.Extra["caller"].(*caller)
		if !ok {
			return nil, refusal(jsonrpc.CodeInternalError, "not authenticated")
		}
		session, _ := req.GetSession().(*mcp.ServerSession)
		switch p := req.GetParams().(type) {
		case *mcp.InitializeParams:
			res, err := next(ctx, method, req)
			if err == nil && session.ID() != "" {
				err = s.keep(c, session)
			}
			return res, said(err)
		case *mcp.ListToolsParams:
			return s.list(ctx, c, p)
		case *mcp.CallToolParamsRaw:
			run, err := s.call(c, req.(*mcp.CallToolRequest))
			if err != nil {
				return nil, err
			}
			through := *p
			through.Name, through.Arguments = door, nil
			return next(context.WithValue(ctx, throughKey{}, run), method, &mcp.CallToolRequest{Session: session, Params: &through, Extra: extra})
		case *mcp.ListResourcesParams:
			return s.listResources(ctx, c, p)
		case *mcp.ListResourceTemplatesParams:
			return s.templates(), nil
		case *mcp.ReadResourceParams: // never nil: the SDK refuses a request without
			through := *p
			through.URI = doorURI
			read := func(ctx context.Context) (*mcp.ReadResourceResult, error) { return s.readResource(ctx, c, p) }
			return next(context.WithValue(ctx, throughKey{}, read), method, &mcp.ReadResourceRequest{Session: session, Params: &through, Extra: extra})
		}
		return next(ctx, method, req)
	}
}

// said gives an error its words for the client.
func said(err error) error {
	if err == nil || fault.CodeOf(err) == fault.Internal {
		return err // the SDK's own
	}
	return refusal(jsonrpc.CodeInvalidRequest, fault.Message(err))
}

func refusal(code int64, words string) error { return &jsonrpc.Error{Code: code, Message: words} }

// list returns a page of the tools that a caller may use now, by name. The cursor is the last name
// of the page before, so that tools which come and go do not move the others.
func (s *Server) list(ctx context.Context, c *caller, p *mcp.ListToolsParams) (mcp.Result, error) {
	after := ""
	if p != nil && p.Cursor != "" {
		b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
		if err != nil {
			return nil, refusal(jsonrpc.CodeInvalidParams, "cursor must be the nextCursor of the page before")
		}
		after = string(b)
	}
	entries, err := s.opts.Tools.Available(ctx, c.tools())
	if err != nil {
		s.opts.Logger.Error("the tools of an MCP client could not be listed", "principal", c.principal.ID, "error", err)
		return nil, refusal(jsonrpc.CodeInternalError, fault.Message(err))
	}
	entries = slices.DeleteFunc(entries, func(e packs.Entry) bool {
		need := auth.ScopeTools
		if asksAgent(e) {
			need = auth.ScopeAgents
		}
		return c.principal.Credential.Need(need) != nil
	})
	from, found := slices.BinarySearchFunc(entries, after, func(e packs.Entry, name string) int { return strings.Compare(e.Name, name) })
	if found {
		from++
	}
	res := &mcp.ListToolsResult{Tools: []*mcp.Tool{}, Cacheable: mcp.Cacheable{CacheScope: "private"}}
	size := 0
	for _, e := range entries[from:] {
		size += len(e.Name) + len(e.Description) + len(e.Schema)
		if n := len(res.Tools); n > 0 && (n == maxPage || size > maxPageBytes) {
			res.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(res.Tools[n-1].Name))
			break
		}
		t := &mcp.Tool{Name: e.Name, Description: e.Description, InputSchema: json.RawMessage(e.Schema)}
		if t.Description == "" {
			t.Description = e.Name // existing agents cannot do without
		}
		res.Tools = append(res.Tools, t)
	}
	return res, nil
}

// asksAgent reports whether a tool sends messages to an agent.
func asksAgent(e packs.Entry) bool { return slices.Contains(e.Needs, NeedAgents) }

// asks reports whether the tool of a name does.
func (s *Server) asks(name string) bool {
	return slices.ContainsFunc(s.opts.Tools.Tools(), func(e packs.Entry) bool { return e.Name == name && asksAgent(e) })
}

// named returns the name of the tool that a client means.
func (s *Server) named(name string) string {
	if plain, ok := strings.CutPrefix(name, prefix); ok && !s.opts.Tools.Has(name) {
		return plain
	}
	return name
}

// call returns what runs a tool. What goes wrong with one that exists is told the model, as a result.
func (s *Server) call(c *caller, req *mcp.CallToolRequest) (func(context.Context) (*mcp.CallToolResult, error), error) {
	p := req.Params
	if p == nil || p.Name == "" {
		return nil, refusal(jsonrpc.CodeInvalidParams, "tool name is required")
	}
	name := s.named(p.Name)
	if !s.opts.Tools.Has(name) {
		return nil, refusal(jsonrpc.CodeInvalidParams, "tool not found")
	}
	d, err := newDialog(req, c)
	if err != nil {
		return nil, refusal(jsonrpc.CodeInvalidParams, fault.Message(err))
	}
	return func(ctx context.Context) (*mcp.CallToolResult, error) {
		ctx, end := context.WithCancelCause(context.WithValue(ctx, dialogKey{}, d))
		defer end(nil)
		for _, other := range []context.Context{c.request, s.of(req.Session.ID()), s.ctx} {
			if other != nil {
				defer context.AfterFunc(other, func() { end(context.Cause(other)) })()
			}
		}
		output, err := s.opts.Tools.Call(ctx, c.tools(), name, p.Arguments)
		switch {
		case err != nil:
			return &mcp.CallToolResult{IsError: true, Content: []mcp.Content{&mcp.TextContent{Text: fault.Message(err)}}}, nil
		case d.pause != nil:
			return d.pause, nil
		}
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: output}}}, nil
	}, nil
}
