package gatewaytest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// TestConnections: one connection more than there may be is told so and closed; one that closes makes
// room.
func TestConnections(t *testing.T) {
	for key, edit := range map[string]func(*config.Limits){
		"limits.connections":         func(l *config.Limits) { l.Connections = 2 },
		"limits.address_connections": func(l *config.Limits) { l.AddressConnections = 2 },
	} {
		g := New(t, func(c *config.Config) { edit(&c.Limits) })
		for _, addr := range []string{g.cfg.Server.HTTPAddr, g.GRPCAddr()} {
			dial := func() net.Conn {
				c, err := net.Dial("tcp", addr)
				must(t, err)
				must(t, c.SetDeadline(time.Now().Add(Patience)))
				return c
			}
			first, second, third := dial(), dial(), dial()
			refused, err := io.ReadAll(third)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Error(err)
			}
			if addr == g.cfg.Server.HTTPAddr && (!strings.HasPrefix(string(refused), "HTTP/1.1 503 ") || !strings.Contains(string(refused), "\r\nRetry-After: 1\r\n") || !strings.Contains(string(refused), "("+key+")")) {
				t.Errorf("%s: the third connection was told %q", key, refused)
			}
			must(t, errors.Join(first.Close(), second.Close(), third.Close()))
			if addr == g.cfg.Server.HTTPAddr {
				until := time.Now().Add(Patience)
				for g.metric(t, `coven_limit_refusals_total{limit="`+key+`"}`) == "" { // which itself needs room
					if time.Now().After(until) {
						t.Fatalf("%s: the refusal was not counted, or there is no room", key)
					}
				}
				g.Client.CloseIdleConnections()
			}
		}
	}
}

// metric is a figure of the gateway other than 0, or "".
func (g *Gateway) metric(t *testing.T, name string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // whose answers are not compared with the documentation
	if g.bubble {
		c = g.Client
	}
	resp, err := c.Get(g.URL + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok && v != "0\n" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestStreamsOfPrincipal: agents and readers over both transports are counted together, and another
// principal is not hindered.
func TestStreamsOfPrincipal(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Limits.Streams = 2 })
	_, token := g.Principal("one", auth.Owner)
	_, other := g.Principal("other", auth.Owner)
	a := g.ConnectAs(Bearer(token), "a")
	if a.next().GetWelcome() == nil {
		t.Fatal(a.Err())
	}
	c := pb.NewClientServiceClient(g.Dial())
	follow := func(token string) (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(Bearer(token))
		s, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a"})
		must(t, err)
		if md, err := s.Header(); err == nil && md != nil {
			return cancel, nil
		}
		_, err = s.Recv()
		return cancel, err
	}
	cancel, err := follow(token)
	if err != nil {
		t.Fatal(err)
	}
	const words = "a principal may have 2 streams open (limits.streams); close one of them"
	if _, err := follow(token); status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != words {
		t.Errorf("one more over gRPC: %v", err)
	}
	for _, path := range []string{"GET /api/conversations/a/events", "GET /api/health/stream", "POST /api/send"} {
		method, path, _ := strings.Cut(path, " ")
		body := ""
		if method == "POST" {
			body = `{"agent_id":"a","sender":"me","content":"hi"}`
		}
		if path == "/api/health/stream" {
			continue // anybody may
		}
		resp, said := g.request(method, path, token, body, "Accept", "text/event-stream")
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" || !strings.Contains(said, words) {
			t.Errorf("one more of %s: %s %s", path, resp.Status, said)
		}
	}
	if turns, _, err := g.Conversations().Live(Ctx(), "a", "", 10); err != nil || len(turns) != 0 {
		t.Errorf("a refused send has begun %d turns (%v)", len(turns), err)
	}
	if done, err := follow(other); err != nil {
		t.Errorf("another principal: %v", err)
	} else {
		done()
	}
	cancel()
	for until := time.Now().Add(Patience); ; { // the server hears of it in a moment
		done, err := follow(token)
		if done(); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("after one has ended: %v", err)
		}
	}
}

// TestCallsOfConnection: a connection that opens more streams than it may has to wait.
func TestCallsOfConnection(t *testing.T) {
	g := New(t)
	g.Agent("a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := pb.NewClientServiceClient(g.Dial())
	for i := range 1000 {
		s, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a"})
		must(t, err)
		if _, err := s.Header(); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	short, end := context.WithTimeout(ctx, 100*time.Millisecond)
	defer end()
	if _, err := c.ListAgents(short, &pb.ListAgentsRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("one more: %v", err)
	}
	if _, err := pb.NewClientServiceClient(g.Dial()).ListAgents(ctx, &pb.ListAgentsRequest{}); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

// TestAgentTurns: an agent that works on as many turns as it may gets no more, and then those that wait.
func TestAgentTurns(t *testing.T) {
	g := New(t, func(c *config.Config) { c.Limits.AgentTurns = 2 })
	a := g.Agent("a")
	send := func(d conversation.Delivery) error {
		_, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi", Delivery: d})
		return err
	}
	must(t, errors.Join(send(""), send("")))
	one, two := a.Message(), a.Message()
	if err := send(""); fault.CodeOf(err) != fault.Limited || !strings.Contains(err.Error(), "the agent works on 2 turns, as many as it may (limits.agent_turns)") {
		t.Errorf("a third one: %v", err)
	}
	must(t, send(conversation.Queue))
	if turns, _, err := g.Conversations().Live(Ctx(), "a", conversation.Queued, 10); err != nil || len(turns) != 1 {
		t.Errorf("%d turns wait (%v)", len(turns), err)
	}
	a.Done(one.RequestId, "")
	queued := a.Message()
	if err := send(""); fault.CodeOf(err) != fault.Limited {
		t.Errorf("the queued one does not count: %v", err)
	}
	a.Done(two.RequestId, "")
	a.Done(queued.RequestId, "")
	g.ended(t, two.RequestId)
	g.ended(t, queued.RequestId)
	for until := time.Now().Add(Patience); ; { // the end is durable a moment before there is room
		err := send("")
		if err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
	a.Done(a.Message().RequestId, "")
}

// TestTurnRate: a principal may begin so many turns; repetitions of one are none.
func TestTurnRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked, func(c *config.Config) { c.Limits.TurnsPerMinute = 2 })
		_, token := g.Principal("one", auth.Owner)
		_, other := g.Principal("other", auth.Owner)
		a := g.ConnectAs(Bearer(token), "a")
		if a.next().GetWelcome() == nil {
			t.Fatal(a.Err())
		}
		go func() {
			for m := a.Next(); m != nil; m = a.Next() {
				if s := m.GetSendMessage(); s != nil {
					a.Done(s.RequestId, "")
				}
			}
		}()
		send := func(token, key string, want int, words string) {
			t.Helper()
			resp, body := g.request("POST", "/api/send", token, `{"agent_id":"a","sender":"me","content":"hi"}`, "Accept", "application/json", "Idempotency-Key", key)
			if resp.StatusCode != want || !strings.Contains(body, words) || want == 429 && resp.Header.Get("Retry-After") != "30" {
				t.Errorf("%s %q: %s", resp.Status, resp.Header.Get("Retry-After"), body)
			}
		}
		send(token, "1", 200, "")
		send(token, "2", 200, "")
		send(token, "3", 429, "a principal may begin 2 turns in a minute (limits.turns_per_minute); come back in 30s")
		send(token, "2", 200, "")
		send(other, "1", 200, "")
		time.Sleep(30 * time.Second)
		send(token, "3", 200, "")
	})
}

// TestLargeTurn: an agent that answers more than it may has its turn failed, and its other turns go on.
func TestLargeTurn(t *testing.T) {
	g := New(t, func(c *config.Config) { c.Limits.Turn = 64 << 10 })
	a := g.Agent("a")
	send := func() string {
		_, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"})
		must(t, err)
		return a.Message().RequestId
	}
	large, files, empty, fine := send(), send(), send(), send()
	for range 8 {
		a.Text(large, xs(10<<10))
	}
	a.Reply(&pb.MessageResponse{RequestId: files, Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: "f", MimeType: "t", Data: []byte(xs(65 << 10))}}})
	for range 2000 {
		a.Text(empty, "")
	}
	a.Text(fine, xs(10<<10))
	a.Done(fine, "")
	for id, state := range map[string]conversation.TurnState{large: conversation.Failed, files: conversation.Failed, empty: conversation.Failed, fine: conversation.Done} {
		turn := g.ended(t, id)
		if turn.State != state || state == conversation.Failed && turn.Cause != "the answer of the agent has more than 65536 bytes (limits.turn)" {
			t.Errorf("it is %s: %s", turn.State, turn.Cause)
		}
	}
}

// TestSilence: readers of a turn are warned before its agent has been silent for too long; an event
// begins the time anew, and it stands still while people are asked.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, func(c *config.Config) { c.Agents.TurnSilenceTimeout = time.Minute })
		a := g.Agent("a")
		s, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"})
		must(t, err)
		id := a.Message().RequestId
		warnings := func() (n int) {
			synctest.Wait()
			page, err := g.Conversations().Events(Ctx(), "a", conversation.Filter{TurnID: s.ID}, 0, 100)
			must(t, err)
			for _, e := range page.Events {
				if w, ok := e.Body.(conversation.Trouble); ok {
					n++
					if w.Text != "the agent has been silent for 45s; after 1m0s its turn fails (agents.turn_silence_timeout)" {
						t.Errorf("warned with %q", w.Text)
					}
				}
			}
			return n
		}
		expect := func(after time.Duration, n int, over bool) {
			t.Helper()
			time.Sleep(after)
			if got := warnings(); got != n {
				t.Errorf("%d warnings, want %d", got, n)
			}
			turn, err := g.Conversations().Turn(Ctx(), id)
			must(t, err)
			if turn.State.Over() != over {
				t.Errorf("the turn is %s", turn.State)
			}
		}
		expect(44*time.Second, 0, false)
		expect(2*time.Second, 1, false)
		a.Text(id, "still here")
		expect(44*time.Second, 1, false)
		expect(2*time.Second, 2, false)
		a.Reply(&pb.MessageResponse{RequestId: id, Event: &pb.MessageResponse_ToolApprovalRequest{ToolApprovalRequest: &pb.ToolApprovalRequest{Id: "x", Name: "rm"}}})
		expect(5*time.Minute, 2, false)
		must(t, g.Conversations().Approve(Ctx(), conversation.Verdict{AgentID: "a", ToolID: "x", Approved: true}))
		expect(44*time.Second, 2, false)
		expect(2*time.Second, 3, false)
		expect(15*time.Second, 3, true)
	})
}

// TestSlowPeers: who connects and does not go on to say something is cut off.
func TestSlowPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		for what, c := range map[string]struct {
			dial func() (net.Conn, error)
			says string
			most time.Duration
		}{
			"HTTP, nothing":                  {g.http.Dial, "", 11 * time.Second},
			"HTTP, half a line":              {g.http.Dial, "GET /hea", 11 * time.Second},
			"HTTP, half a body":              {g.http.Dial, "POST /api/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", 61 * time.Second},
			"HTTP, a body that nobody wants": {g.http.Dial, "POST /api/unknown HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", 61 * time.Second},
			"gRPC, nothing":                  {g.grpc.Load().Dial, "", 11 * time.Second},
			"gRPC, half of it":               {g.grpc.Load().Dial, "PRI * HT", 11 * time.Second},
		} {
			conn, err := c.dial()
			must(t, err)
			_, err = io.WriteString(conn, c.says)
			must(t, err)
			begun := time.Now()
			must(t, conn.SetReadDeadline(begun.Add(3*time.Minute)))
			_, _ = io.Copy(io.Discard, conn) // to its end, however it ends
			if took := time.Since(begun); took > c.most {
				t.Errorf("%s: it took %s", what, took)
			}
			must(t, conn.Close())
		}
	})
}

// TestUnread: an agent and a client that answer pings and read nothing are cut off, and what they have
// not read is not kept.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.Agent("a")
		// gRPC's client reads a window of 64 KiB ahead, and no further.
		s, err := pb.NewClientServiceClient(g.Dial(grpc.WithInitialWindowSize(64<<10))).StreamEvents(context.Background(), &pb.StreamEventsRequest{ConversationKey: "a"})
		must(t, err)
		_, err = s.Header()
		must(t, err)
		resp, err := g.Client.Get(g.URL + "/api/health")
		must(t, err)
		must(t, resp.Body.Close())
		_, err = g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Sender: "me", Text: "hi"})
		must(t, err)
		id := a.Message().RequestId
		for range 40 {
			a.Text(id, xs(32<<10))
		}
		synctest.Wait()
		if n := g.metric(t, "coven_streams"); n != "2" {
			t.Errorf("%s streams", n)
		}
		time.Sleep(31 * time.Second)
		if n := g.metric(t, `coven_limit_refusals_total{limit="unread"}`); n != "1" {
			t.Errorf("%s are counted", n)
		}
		if n := g.metric(t, "coven_streams"); n != "1" { // the agent's
			t.Errorf("%s streams", n)
		}
		for err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "the stream was not read for 30s" {
			t.Errorf("it ended with %v", err)
		}
		a.Done(id, "")
		g.ended(t, id)

		// An agent that reads nothing: its stream ends, and with it the turn.
		deaf, err := pb.NewCovenControlClient(g.Dial(grpc.WithInitialWindowSize(64 << 10))).AgentStream(context.Background())
		must(t, err)
		must(t, deaf.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "deaf", Name: "deaf"}}}))
		synctest.Wait()
		var turn conversation.Turn
		for range 3 { // gRPC takes the first one whole
			turn, err = g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "deaf", Sender: "me", Text: xs(1 << 20)})
			must(t, err)
		}
		time.Sleep(31 * time.Second)
		if turn := g.ended(t, turn.ID); turn.State != conversation.Interrupted || turn.Cause != "the agent does not read its stream" {
			t.Errorf("its turn is %s: %s", turn.State, turn.Cause)
		}
		for err == nil {
			_, err = deaf.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("it ended with %v", err)
		}
	})
}

// TestHalfOpen: a peer whose packets do not arrive any more is found out by pings.
func TestHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		near, far := net.Pipe() // a proxy that stops forwarding
		behind, err := g.grpc.Load().Dial()
		must(t, err)
		forward := make(chan struct{})
		pump := func(to, from net.Conn) {
			buf := make([]byte, 32<<10)
			for {
				n, err := from.Read(buf)
				if err != nil {
					return
				}
				select {
				case <-forward: // swallows it
				default:
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}
		}
		go pump(behind, far)
		go pump(far, behind)
		defer func() { must(t, errors.Join(near.Close(), far.Close(), behind.Close())) }()
		conn, err := grpc.NewClient("passthrough:///proxy", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return near, nil }))
		must(t, err)
		stream, err := pb.NewCovenControlClient(conn).AgentStream(context.Background())
		must(t, err)
		must(t, stream.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "a", Name: "a"}}}))
		if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
			t.Fatal(m, err)
		}
		close(forward)
		time.Sleep(20 * time.Second)
		if _, ok := g.gw.Agents().Agent("a"); !ok {
			t.Error("it is gone before it was asked")
		}
		time.Sleep(30 * time.Second)
		if _, ok := g.gw.Agents().Agent("a"); ok {
			t.Error("it is still there")
		}
		must(t, conn.Close())
	})
}
