package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
)

// maxMessage bounds a message of a server, in bytes: a result, and what is around it.
const maxMessage = 2*packs.MaxOutput + 64<<10

// A session is a connection to a server.
type session struct {
	client *mcp.ClientSession
	end    func()        // ends what is behind it, and waits for that
	gone   chan struct{} // closed when the connection has ended
	err    error         // why; set before gone is closed
	once   sync.Once

	// Guarded by server.mu; of sessions of agents.
	open int
	used time.Time
}

func (s *session) why() error {
	if s.err == nil {
		return io.EOF
	}
	return s.err
}

// close ends the session and waits until nothing of it is left.
func (s *session) close() {
	s.once.Do(func() {
		_ = s.client.Close() // the server may be gone
		s.end()
	})
	<-s.gone
}

func (s *session) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// connect opens a session with the server.
func (x *server) connect(ctx context.Context) (*session, error) {
	var transport mcp.Transport
	var end func()
	if len(x.config.Command) > 0 {
		p, err := x.start(ctx)
		if err != nil {
			return nil, err
		}
		end = p.stop
		transport = &mcp.IOTransport{Reader: p.out, Writer: writer{p.in}, MaxLineLength: maxMessage}
	} else {
		c, err := x.dialer(ctx)
		if err != nil {
			return nil, err
		}
		end = c.CloseIdleConnections
		transport = &mcp.StreamableClientTransport{Endpoint: x.config.URL, HTTPClient: c, MaxEventSize: maxMessage}
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "coven-gateway", Version: x.service.opts.Version}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{}, // nothing is offered to a server
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) {
			select {
			case x.refresh <- struct{}{}:
			default: // somebody will look anyway
			}
		},
		// The SDK would send a call again with answers to what the server asks.
		MultiRoundTrip: &mcp.MultiRoundTripOptions{Disabled: true},
	})
	client.AddReceivingMiddleware(x.receive)
	cs, err := client.Connect(ctx, transport, nil)
	if err != nil {
		end()
		return nil, err
	}
	s := &session{client: cs, end: end, gone: make(chan struct{}), used: time.Now()}
	go func() { // ends with the connection, which close ends and waits for
		s.err = cs.Wait()
		close(s.gone)
	}()
	return s, nil
}

// receive declines what a server asks of us, and keeps what it logs.
func (x *server) receive(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		switch method {
		case "sampling/createMessage", "roots/list", "elicitation/create":
			x.log.add("gateway: declined " + method)
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: "this gateway does not offer " + method}
		case "notifications/message":
			if b, err := json.Marshal(req.GetParams()); err == nil {
				x.log.add("log: " + string(b))
			}
		}
		return next(ctx, method, req)
	}
}

// list returns the tools of the server, by name. What nobody could accept is left out, and said in
// the log.
func (s *session) list(ctx context.Context) (map[string]Definition, error) {
	tools := make(map[string]Definition)
	for t, err := range s.client.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		if len(tools) >= packs.MaxTools {
			return nil, fmt.Errorf("it offers more than %d tools", packs.MaxTools)
		}
		d, err := define(t)
		if err != nil {
			return nil, err
		}
		if _, has := tools[d.Name]; has {
			return nil, fmt.Errorf("it offers two tools %q", clip(d.Name))
		}
		tools[d.Name] = d
	}
	return tools, nil
}

// local are the codes of errors that are the SDK's own, of a connection that has failed or is closing, and
// not the server's.
var local = map[int64]bool{codeServerClosing: true, codeClientClosing: true, codeRejected: true}

// The SDK's own codes, which it does not export.
const (
	codeClientClosing = -32003
	codeServerClosing = -32004
	codeRejected      = -32005
)

// call runs a tool. It is sent once.
func (x *server) call(ctx context.Context, c *packs.Call, tool string) (string, error) {
	release, err := x.enter()
	if err != nil {
		return "", err
	}
	defer release()
	select {
	case x.calls <- struct{}{}:
		defer func() { <-x.calls }()
	default:
		return "", fault.New(fault.Limited, "the MCP server %s is busy: %d of its calls are open", x.config.Name, MaxCalls)
	}
	s, done, err := x.session(ctx, c)
	if err != nil {
		return "", err
	}
	defer done()
	res, err := s.client.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: c.Input})
	if answered, ok := errors.AsType[*jsonrpc.Error](err); ok && !local[answered.Code] && ctx.Err() == nil {
		return "", packs.Failed("the MCP server " + x.config.Name + " refused the call: " + answered.Message)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return "", context.Cause(ctx) // the server is told that nobody waits
	case err != nil:
		select {
		case x.refresh <- struct{}{}: // see whether it lives
		default:
		}
		return "", fault.Wrap(err, fault.Unavailable, "the connection to the MCP server %s failed during the call: whether it was carried out is not known", x.config.Name)
	case res.NeedsInput():
		return "", packs.Failed("the tool asks for more input while it runs, which this gateway does not offer")
	}
	return output(res)
}

// session returns the session for a call; done must be called when it is over.
func (x *server) session(ctx context.Context, c *packs.Call) (s *session, done func(), err error) {
	down := fault.New(fault.Unavailable, "the MCP server %s is not running; nothing was sent", x.config.Name)
	if x.config.Sessions == Shared {
		x.mu.Lock()
		s := x.main
		x.mu.Unlock()
		if s == nil || s.ended() {
			return nil, nil, down
		}
		return s, func() {}, nil
	}
	key := "agent " + c.AgentID
	if c.AgentID == "" {
		key = "principal " + c.Principal.ID
	}
	for {
		x.mu.Lock()
		s, opening := x.agents[key], x.opening[key]
		switch {
		case x.main == nil || x.main.ended():
			x.mu.Unlock()
			return nil, nil, down
		case s != nil && !s.ended():
			s.open++
			x.mu.Unlock()
			return s, func() {
				x.mu.Lock()
				defer x.mu.Unlock()
				s.open--
				s.used = time.Now()
			}, nil
		case opening == nil:
			opening = make(chan struct{})
			x.opening[key] = opening
			x.mu.Unlock()
			err := x.open(ctx, key)
			x.mu.Lock()
			delete(x.opening, key)
			x.mu.Unlock()
			close(opening)
			if err != nil {
				return nil, nil, err
			}
		default:
			x.mu.Unlock()
			select {
			case <-opening:
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			}
		}
	}
}

// open opens a session of an agent. Where there are too many, the one that has been idle for longest
// ends.
func (x *server) open(ctx context.Context, key string) error {
	x.closeAgents(func(s *session) bool { return s.ended() && s.open == 0 })
	x.mu.Lock()
	var idle *session
	full := len(x.agents)+len(x.opening) > MaxAgentSessions
	for _, s := range x.agents {
		if s.open == 0 && (idle == nil || s.used.Before(idle.used)) {
			idle = s
		}
	}
	x.mu.Unlock()
	if full && idle == nil {
		return fault.New(fault.Limited, "the MCP server %s has %d sessions, and all are in use", x.config.Name, MaxAgentSessions)
	}
	if full {
		x.closeAgents(func(s *session) bool { return s == idle && s.open == 0 })
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s, err := x.connect(ctx)
	if err != nil {
		return unavailable(err, x.config.Name)
	}
	x.mu.Lock()
	old := x.agents[key]
	x.agents[key] = s
	x.mu.Unlock()
	if old != nil {
		old.close()
	}
	return nil
}

// closeAgents closes the sessions of agents that which is true for; it is called with x.mu held.
func (x *server) closeAgents(which func(*session) bool) {
	x.mu.Lock()
	var over []*session
	for key, s := range x.agents {
		if which(s) {
			over = append(over, s)
			delete(x.agents, key)
		}
	}
	x.mu.Unlock()
	var closing sync.WaitGroup
	for _, s := range over {
		closing.Go(s.close)
	}
	closing.Wait()
}
