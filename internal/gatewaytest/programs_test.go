package gatewaytest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	pb "coven-gateway/proto/coven"
)

// Existing programs, call by call as grpc.md 9.6 to 9.14 and 10 describe them, in the situations in
// which they depend on the gateway.

// A stage is a gateway with an agent, a program, and somebody who looks on.
type stage struct {
	*testing.T
	g       *Gateway
	program program
	desk    *desk
	talker  talker
	id      int // of the last agent
	agentID string
	agent   *Agent
	agentAs func() context.Context
	witness func() context.Context
}

// A program is how somebody talks to agents.
type program struct {
	name        string
	credentials string // "none", "ssh" or "jwt"
	asks        bool   // its user is asked for approvals; else it refuses them
	byInstance  bool   // it is told the instance id of the agent
	shows       func(error string) string
	open        func(*desk) talker
}

func openLibrary(d *desk) talker { return &library{desk: d} }

var programs = []program{
	{"coven-client on an open gateway", "none", true, false, asIs, openLibrary},
	{"coven-client with an SSH key", "ssh", true, false, asIs, openLibrary},
	{"coven-tui", "ssh", true, false, asIs, openLibrary},
	{"coven send", "ssh", true, false, asIs, openLibrary},
	{"Swift and Kotlin", "ssh", true, false, asIs, openLibrary},
	{"coven-matrix", "jwt", false, false, posted, func(d *desk) talker { return newBridge(d, true) }},
	{"coven-matrix on an open gateway", "none", false, false, posted, func(d *desk) talker { return newBridge(d, true) }},
	{"coven-slack", "jwt", false, true, posted, func(d *desk) talker { return newBridge(d, false) }},
	{"coven-telegram", "jwt", false, false, posted, func(d *desk) talker { return newBridge(d, false) }},
}

func asIs(s string) string   { return s }
func posted(s string) string { return "Error: " + s }

// TestPrograms: each program in each situation, with an agent of its own in each.
func TestPrograms(t *testing.T) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, p)
			for _, c := range []struct {
				name string
				play func(*stage)
			}{
				{"a conversation", conversationOf},
				{"the answer is complete before it is followed", answeredAtOnce},
				{"an approval", approvalOf},
				{"an error of the agent", agentError},
				{"an error in mid-answer", troubleInAnswer},
				{"the agent is offline", offline},
				{"the agent dies in mid-answer", death},
				{"the gateway restarts between turns", restartBetween},
				{"the gateway restarts in mid-answer", restartWithin},
			} {
				t.Run(c.name, func(t *testing.T) { c.play(s.with(t)) })
			}
		})
	}
}

func newStage(t *testing.T, p program) *stage {
	s := &stage{T: t, program: p, desk: &desk{text: make(chan string, 64)}}
	brief := func(c *config.Config) { c.Server.ShutdownGrace = 50 * time.Millisecond }
	if p.credentials == "none" {
		s.g = New(t, brief)
		s.desk.context, s.agentAs, s.witness = context.Background, context.Background, context.Background
	} else {
		s.g = New(t, brief, Locked)
		agentKey, key := NewKey(t), NewKey(t)
		s.register(auth.Agent, "worker", agentKey)
		s.agentAs = agentKey.Sign
		_, owner := s.g.Principal("owner", auth.Owner)
		s.witness = func() context.Context { return Bearer(owner) }
		if p.credentials == "ssh" {
			s.register(auth.Agent, "device", key, auth.Member) // what a linked device is
			s.desk.context = key.Sign
		} else {
			_, token := s.g.Principal("bridge", auth.Member)
			s.desk.context = func() context.Context { return Bearer(token) }
		}
	}
	s.desk.g = s.g
	s.talker = p.open(s.desk)
	return s
}

// with returns the stage of one situation, with an agent that is new.
func (s *stage) with(t *testing.T) *stage {
	t.Helper()
	x := *s
	x.T = t
	s.id++
	x.agentID = fmt.Sprintf("agent-%d", s.id)
	x.connect()
	x.Cleanup(func() { x.agent.Die() })
	return &x
}

func (s *stage) register(kind auth.Kind, name string, k Key, roles ...auth.Role) {
	s.Helper()
	if _, err := s.g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: kind, Name: name, PublicKey: k.Line(), Roles: roles}); err != nil {
		s.Fatal(err)
	}
}

// connect starts the agent, as its supervisor does.
func (s *stage) connect() {
	s.Helper()
	s.agent = s.g.ConnectAs(s.agentAs(), s.agentID, func(r *pb.RegisterAgent) {
		r.Metadata = &pb.AgentMetadata{WorkingDirectory: "/work", Backend: "mux"}
		r.ProtocolFeatures = []string{"token_usage", "tool_states"}
	})
	s.agent.t = s.T
	if s.agent.Welcome = s.agent.next().GetWelcome(); s.agent.Welcome == nil {
		s.Fatal(s.agent.err)
	}
	if b, ok := s.talker.(*bridge); ok {
		if err := b.bind(s.agentID); err != nil {
			s.Error(err)
		}
	}
}

// key is what the program was told to talk to.
func (s *stage) key() string {
	if s.program.byInstance {
		return s.agent.Welcome.GetInstanceId()
	}
	return s.agentID
}

// A saying is a turn of a program that is under way.
type saying struct {
	s    *stage
	done chan struct{}
	h    heard
	err  error
}

func (s *stage) says(text string) *saying { return s.saysTo(s.key(), text) }

func (s *stage) saysTo(key, text string) *saying {
	x := &saying{s: s, done: make(chan struct{})}
	go func() {
		defer close(x.done)
		x.h, x.err = s.talker.say(key, text)
	}()
	return x
}

// hears waits for the end and compares.
func (x *saying) hears(want heard) {
	x.s.Helper()
	<-x.done
	if got, want := fmt.Sprintf("%+v", x.h), fmt.Sprintf("%+v", want); x.err != nil || got != want {
		x.s.Errorf("heard %s (%v)\nwant  %s", got, x.err, want)
	}
}

// shown waits until the program shows a text.
func (s *stage) shown(text string) {
	s.Helper()
	late := time.After(Patience)
	for {
		select {
		case got := <-s.desk.text:
			if got == text {
				return
			}
		case <-late:
			s.Fatalf("the program does not show %q", text)
		}
	}
}

// looking opens a stream of somebody who oversees the conversation, and returns what waits for the
// ends of n turns and checks that each is said once, and before the answer's record.
func (s *stage) looking() (ends func(want ...string)) {
	s.Helper()
	v := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID)
	return func(want ...string) {
		s.Helper()
		for _, end := range want {
			v.until("done")
			if got := v.seen[len(v.seen)-1]; got != end {
				s.Errorf("the turn ended as %q, want %q", got, end)
			}
			v.until("event message out")
		}
	}
}

func conversationOf(s *stage) {
	ends := s.looking()
	for i, text := range []string{"one", "two", "three"} {
		x := s.says(text)
		m := s.agent.Message()
		if m.GetContent() != text {
			s.Errorf("the agent got %q", m.GetContent())
		}
		s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Thinking{Thinking: "thinking..."}})
		s.agent.Text(m.RequestId, "Hello ", "again ", fmt.Sprint(i))
		s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "1", Name: "look", InputJson: "{}"}}})
		s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "1", Output: "seen"}}})
		for range 2 { // once for each call of a model: increments
			s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 5}}})
		}
		full := fmt.Sprint("Hello again ", i)
		s.agent.Done(m.RequestId, full)
		want := heard{text: full, end: "done"}
		if s.program.asks {
			want.tools, want.usage = []string{"look", "seen"}, 10
		}
		x.hears(want)
		ends("done " + full)
	}
	s.history("> one", "< Hello again 0", "> two", "< Hello again 1", "> three", "< Hello again 2")
}

// history checks what the client library shows of a conversation when it is opened: one page of 500,
// without a cursor (grpc.md 9.6).
func (s *stage) history(want ...string) {
	s.Helper()
	r, err := pb.NewClientServiceClient(s.g.Dial()).GetEvents(s.desk.context(), &pb.GetEventsRequest{ConversationKey: s.agentID, Limit: new(int32(500))})
	if err != nil {
		s.Fatal(err)
	}
	var got []string
	ids := map[string]bool{}
	for _, e := range r.GetEvents() {
		if ids[e.GetId()] {
			s.Errorf("two events are %s", e.GetId()) // the identity in lists
		}
		ids[e.GetId()] = true
		if e.GetType() != "message" || e.GetText() == "" {
			continue
		}
		who := "< "
		if e.GetDirection() == "inbound_to_agent" {
			who = "> "
		}
		got = append(got, who+e.GetText())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("history %q, want %q", got, want)
	}
}

// answeredAtOnce: the whole turn happens between the program's two calls, where it sends first.
func answeredAtOnce(s *stage) {
	if s.program.asks {
		s.Skip("it subscribes first")
	}
	defer func() { s.desk.beforeFollowing = nil }()
	ends := s.looking()
	for _, text := range []string{"one", "two"} {
		s.desk.beforeFollowing = func() {
			m := s.agent.Message()
			s.agent.Text(m.RequestId, "Re: ", text)
			s.agent.Done(m.RequestId, "")
			ends("done Re: " + text)
		}
		s.says(text).hears(heard{text: "Re: " + text, end: "done"})
	}
}

func approvalOf(s *stage) {
	ask := func(m *pb.SendMessage, id string) {
		s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolApprovalRequest{
			ToolApprovalRequest: &pb.ToolApprovalRequest{Id: id, Name: "bash", InputJson: `{"command":"ls"}`},
		}})
	}
	told := func(id string, approved bool) {
		s.Helper()
		if a := s.agent.next().GetToolApproval(); a.GetId() != id || a.GetApproved() != approved {
			s.Errorf("the agent was told %v, want %v for %s", a, approved, id)
		}
	}
	looking := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID)
	if !s.program.asks { // it refuses at once what it sees
		x := s.says("work")
		m := s.agent.Message()
		ask(m, "1")
		told("1", false)
		s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolResult{
			ToolResult: &pb.ToolResult{Id: "1", Output: "Tool execution denied by user", IsError: true},
		}})
		s.agent.Done(m.RequestId, "I may not")
		x.hears(heard{text: "I may not", end: "done", asked: []string{"bash"}})
		return
	}
	for _, c := range []struct {
		approve, all bool
		asks         int
	}{{true, false, 2}, {false, false, 2}, {true, true, 1}} {
		s.talker.answer(c.approve, c.all)
		x := s.says("work")
		m := s.agent.Message()
		ask(m, "1")
		told("1", c.approve)
		ask(m, "2") // answered by the gateway after "all": no agent knows of that
		told("2", c.approve)
		s.agent.Text(m.RequestId, "well")
		s.agent.Done(m.RequestId, "well")
		x.hears(heard{text: "well", end: "done", asked: []string{"bash", "bash"}[:c.asks]})
		looking.until("event message out")
		for _, said := range looking.seen {
			if strings.HasPrefix(said, "approval") {
				s.Error("somebody else was asked as well")
			}
		}
	}
}

// agentError: the agent fails as existing agents do, with an error and then done.
func agentError(s *stage) {
	looking := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID)
	x := s.says("work")
	m := s.agent.Message()
	s.agent.Fail(m.RequestId, "the model is overloaded")
	want := heard{error: s.program.shows("the model is overloaded"), end: "error"}
	if s.program.asks {
		want.tools = []string{"error"} // and stays open for the end
	}
	x.hears(want)
	looking.until("error")
	if got := looking.seen[len(looking.seen)-1]; got != "error the model is overloaded false" {
		s.Error(got)
	}
	s.again()
}

// troubleInAnswer: an error is not the end of a turn whose answer goes on.
func troubleInAnswer(s *stage) {
	x := s.says("work")
	m := s.agent.Message()
	s.agent.Text(m.RequestId, "part ")
	s.agent.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_Error{Error: "a file could not be read"}})
	s.agent.Text(m.RequestId, "and rest")
	s.agent.Done(m.RequestId, "part and rest")
	want := heard{text: "part and rest", end: "done"}
	if s.program.asks {
		want.tools = []string{"error"}
	}
	x.hears(want)
}

// again: the next turn is complete, and none of it is of another.
func (s *stage) again() {
	s.Helper()
	x := s.says("again")
	m := s.agent.Message()
	if m.GetContent() != "again" {
		s.Errorf("the agent got %q", m.GetContent())
	}
	s.agent.Text(m.RequestId, "as ", "usual")
	s.agent.Done(m.RequestId, "as usual")
	x.hears(heard{text: "as usual", end: "done"})
}

func offline(s *stage) {
	key := s.key()
	s.agent.Die()
	s.gone()
	const notFound = `status: NotFound, message: "agent not found", details: [], metadata: MetadataMap { headers: {} }`
	for _, agent := range []string{key, "nobody"} {
		switch p := s.talker.(type) {
		case *library:
			s.saysTo(agent, "hello").hears(heard{error: "AgentNotFound", end: "refused"})
			p.stale = true
			s.saysTo(agent, "hello").hears(heard{error: notFound, end: "refused"})
			p.stale = false
		case *bridge:
			want := "Error: " + notFound
			if p.listed {
				want = "agent offline"
			}
			s.saysTo(agent, "hello").hears(heard{error: want, end: "refused"})
		}
	}
	s.history() // nothing is there of what nobody got
	s.connect()
	s.again()
}

// gone waits until the gateway has noticed that the agent has left.
func (s *stage) gone() {
	s.Helper()
	c := pb.NewClientServiceClient(s.g.Dial())
	for start := time.Now(); time.Since(start) < Patience; {
		list, err := c.ListAgents(s.witness(), &pb.ListAgentsRequest{})
		if err != nil {
			s.Fatal(err)
		}
		if !slices.ContainsFunc(list.GetAgents(), func(a *pb.AgentInfo) bool { return a.GetId() == s.agentID }) {
			return
		}
	}
	s.Fatalf("agent %s is still in the list", s.agentID)
}

func death(s *stage) {
	looking := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID)
	x := s.says("work")
	m := s.agent.Message()
	s.agent.Text(m.RequestId, "half an ")
	s.shown("half an ")
	s.agent.Die()
	x.hears(heard{text: "half an ", error: s.program.shows("the agent disconnected"), end: "error"})
	looking.until("event error")
	looking.want("event message inb work", "text half an ", "error the agent disconnected true",
		"event message out half an ", "event error out the agent disconnected")
	s.gone()
	s.connect()
	s.again()
}

func restartBetween(s *stage) {
	x := s.says("work")
	m := s.agent.Message()
	s.agent.Done(m.RequestId, "done before")
	want := heard{text: "done before", end: "done"}
	if s.program.asks {
		want.text = "" // it shows increments only, and there are none
	}
	x.hears(want)
	key := s.key()
	s.g.Restart()
	s.connect()
	if s.program.byInstance { // the old one names nobody any more; people bind again
		s.saysTo(key, "again").hears(heard{error: "Error: " + tonic(status.Error(codes.NotFound, "agent not found")), end: "refused"})
	}
	s.again()
	s.history("> work", "< done before", "> again", "< as usual")
}

func restartWithin(s *stage) {
	looking := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID)
	x := s.says("work")
	m := s.agent.Message()
	looking.until("event message inb")
	s.agent.Text(m.RequestId, "half an ")
	s.shown("half an ")
	s.g.Restart()
	x.hears(heard{text: "half an ", error: s.program.shows("the gateway was shut down"), end: "error"})
	for m := s.agent.next(); ; m = s.agent.next() { // it is told, and leaves
		if m == nil {
			s.Errorf("the agent was not told: %v", s.agent.err)
		}
		if m.GetShutdown() != nil {
			break
		}
	}
	s.connect()
	s.again()
	// Whoever resumes behind an event gets all that has come since, once.
	resumed := view(s.T, pb.NewClientServiceClient(s.g.Dial()), s.witness(), s.agentID, looking.ids[0])
	resumed.until("event message out as usual")
	resumed.want("event message out half an ", "event error out the gateway was shut down", "event message inb again", "event message out as usual")
	s.history("> work", "< half an ", "> again", "< as usual")
}

// TestSendAndRestart: a bridge whose message was taken just before the gateway went down comes back
// too late for the end of its turn. Its stream ends by itself, which it takes for the end.
func TestSendAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		d := &desk{g: g, context: context.Background, text: make(chan string, 64)}
		b := newBridge(d, false)
		a := g.Agent("a")
		d.beforeFollowing = func() {
			d.patience = time.Hour // of the bubble
			a.Message()
			g.Restart()
		}
		start := time.Now()
		if h, err := b.say("a", "hello"); err != nil || h.end != "stream end" || h.text != "" {
			t.Errorf("heard %+v (%v)", h, err)
		}
		if took := time.Since(start); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("the stream ended after %v", took)
		}

		// Not while an agent works, however long it says nothing.
		a = g.Agent("a")
		d.beforeFollowing = func() {}
		x := make(chan heard, 1)
		go func() {
			h, err := b.say("a", "again")
			if err != nil {
				t.Error(err)
			}
			x <- h
		}()
		m := a.Message()
		time.Sleep(20 * time.Minute)
		a.Done(m.RequestId, "at last")
		if h := <-x; h.text != "at last" || h.end != "done" {
			t.Errorf("heard %+v", h)
		}
	})
}
