package agent

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

func TestHeadersComeBeforeAnything(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.stream("p")
		if _, err := a.Header(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusedRegistration(t *testing.T) {
	long := strings.Repeat("x", 5000)
	many := slices.Repeat([]string{"w"}, maxWords+1)
	edit := func(f func(*pb.RegisterAgent)) *pb.AgentMessage {
		r := &pb.RegisterAgent{AgentId: "a", Metadata: &pb.AgentMetadata{Git: &pb.GitInfo{}}}
		f(r)
		return &pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: r}}
	}
	tool := func(d *pb.ToolDefinition) *pb.AgentMessage {
		return edit(func(r *pb.RegisterAgent) { r.Tools = []*pb.ToolDefinition{d} })
	}
	for _, tt := range []struct {
		first *pb.AgentMessage
		want  string
	}{
		{&pb.AgentMessage{}, "first message must be RegisterAgent"},
		{&pb.AgentMessage{Payload: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{}}}, "first message must be RegisterAgent"},
		{edit(func(r *pb.RegisterAgent) { r.AgentId = "" }), "agent_id is required"},
		{edit(func(r *pb.RegisterAgent) { r.AgentId = "a\nb" }), "agent_id must not contain control characters"},
		{edit(func(r *pb.RegisterAgent) { r.AgentId = "a\u0085" }), "agent_id must not contain control characters"},
		{edit(func(r *pb.RegisterAgent) { r.AgentId = long }), "agent_id must not be longer than 200 bytes; this one has 5000"},
		{edit(func(r *pb.RegisterAgent) { r.Name = long }), "name must not be longer than 200 bytes; this one has 5000"},
		{edit(func(r *pb.RegisterAgent) { r.Capabilities = many }), "capabilities must not have more than 64 entries; this one has 65"},
		{edit(func(r *pb.RegisterAgent) { r.Capabilities = []string{long} }), "capabilities: an entry must not be longer than 200 bytes; this one has 5000"},
		{edit(func(r *pb.RegisterAgent) { r.ProtocolFeatures = many }), "protocol_features must not have more than 64 entries; this one has 65"},
		{edit(func(r *pb.RegisterAgent) { r.Metadata.Workspaces = many }), "metadata.workspaces must not have more than 64 entries; this one has 65"},
		{edit(func(r *pb.RegisterAgent) { r.Metadata.WorkingDirectory = long }), "metadata.working_directory must not be longer than 4096 bytes; this one has 5000"},
		{edit(func(r *pb.RegisterAgent) { r.Metadata.Git.Remote = long }), "metadata.git.remote must not be longer than 4096 bytes; this one has 5000"},
		{edit(func(r *pb.RegisterAgent) { r.Name = strings.Repeat("x", 1<<20) }), "RegisterAgent must not be larger than 1048576 bytes; this one has 1048587"},
		{edit(func(r *pb.RegisterAgent) { r.Tools = slices.Repeat([]*pb.ToolDefinition{{Name: "t"}}, maxTools+1) }), "tools must not have more than 128 entries; this one has 129"},
		{tool(&pb.ToolDefinition{}), "tools: name is required"},
		{tool(&pb.ToolDefinition{Name: long}), "tools: name must not be longer than 128 bytes; this one has 5000"},
		{tool(&pb.ToolDefinition{Name: "t", TimeoutSeconds: -1}), "tools: timeout_seconds must not be negative"},
		{tool(&pb.ToolDefinition{Name: "t", RequiredCapabilities: many}), "tools: required_capabilities must not have more than 64 entries; this one has 65"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				a := g.stream("p")
				a.send(tt.first)
				a.ends(codes.InvalidArgument, tt.want)
				equal(t, "refused", g.figure("coven_agent_registrations_total", "invalid_argument"), 1)
				equal(t, "connected", g.figure("coven_agents_connected"), 0)
			})
		})
	}
}

func TestStreamThatDoesNotRegister(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		silent, leaving, cut := g.stream("p"), g.stream("p"), g.stream("p")
		if err := leaving.CloseSend(); err != nil {
			t.Fatal(err)
		}
		leaving.ends(codes.OK, "")
		if _, err := cut.Header(); err != nil { // else it may never have reached the gateway
			t.Fatal(err)
		}
		cut.cancel()
		begun := time.Now()
		silent.ends(codes.InvalidArgument, "first message must be RegisterAgent; none came within 30s")
		equal(t, "patience", time.Since(begun), registerTimeout)
		synctest.Wait()
		equal(t, "left before", g.figure("coven_agent_registrations_total", "client_gone"), 2)
	})
}

func TestWelcome(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		time.Sleep(time.Hour)
		g.agent("zoe")
		a := g.stream("owner")
		a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{
			AgentId: "an id", Name: "Ann", Capabilities: []string{"base", "chat"}, ProtocolFeatures: []string{"token_usage"},
			Metadata: &pb.AgentMetadata{
				WorkingDirectory: "/src", Hostname: "host", Os: "linux", Backend: "mux", Workspaces: []string{"w"},
				Git: &pb.GitInfo{Branch: "main", Commit: "c0ffee", Dirty: true, Remote: "origin", Ahead: 1, Behind: 2},
			},
			Tools: []*pb.ToolDefinition{
				{Name: "t", Description: "d", InputSchemaJson: "{}", RequiredCapabilities: []string{"ui"}, TimeoutSeconds: 5}, {Name: "u"},
			},
		}}})
		w := a.welcome()
		equal(t, "server", w.GetServerId(), "server-1")
		equal(t, "agent", w.GetAgentId(), "an id")
		equal(t, "principal", w.GetPrincipalId(), "owner")
		equal(t, "features", strings.Join(w.GetProtocolFeatures(), " "), "token_usage tool_states cancellation tool_updates injection resume")
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{3}$`).MatchString(w.GetInstanceId()) {
			t.Errorf("instance id %q", w.GetInstanceId())
		}
		if len(w.GetAvailableTools()) > 0 || w.GetMcpToken() != "" || w.GetMcpEndpoint() != "" || len(w.GetSecrets()) > 0 {
			t.Errorf("the Welcome promises too much: %v", w)
		}

		now := time.Now().UTC()
		want := Info{
			ID: "an id", InstanceID: w.GetInstanceId(), Name: "Ann", Capabilities: []string{"base", "chat"}, Workspaces: []string{"w"},
			WorkingDir: "/src", Backend: "mux", Hostname: "host", OS: "linux", Features: []string{"token_usage"},
			Git:         &Git{Branch: "main", Commit: "c0ffee", Remote: "origin", Dirty: true, Ahead: 1, Behind: 2},
			Tools:       []Tool{{"t", "d", "{}", []string{"ui"}, 5 * time.Second}, {Name: "u", Timeout: 30 * time.Second}},
			PrincipalID: "owner", ConnectedAt: now, LastSeen: now.Add(time.Minute), OpenTurns: 1,
		}
		time.Sleep(time.Minute)
		g.say("an id", "turn")
		a.text("turn", "hi")
		synctest.Wait()
		for _, id := range []string{"an id", w.GetInstanceId()} {
			if got, ok := g.Agent(id); !ok || !reflect.DeepEqual(strip(got), strip(want)) || !got.LastSeen.Equal(want.LastSeen) || !got.ConnectedAt.Equal(want.ConnectedAt) {
				t.Errorf("Agent(%q):\n got %+v\nwant %+v", id, got, want)
			}
			if got, ok := g.Resolve(id); !ok || got != "an id" {
				t.Errorf("%q resolves to %q", id, got)
			}
		}
		var ids []string
		for _, i := range g.List() {
			ids = append(ids, i.ID)
		}
		equal(t, "list", strings.Join(ids, ","), "an id,zoe")
		equal(t, "connected", g.figure("coven_agents_connected"), 2)

		a.cancel()
		synctest.Wait()
		if _, ok := g.Resolve(w.GetInstanceId()); ok || g.Len() != 1 {
			t.Error("an agent that left is still here")
		}
		if _, ok := g.Agent("an id"); ok {
			t.Error("an agent that left is still known")
		}
	})
}

func strip(i Info) Info {
	i.ConnectedAt, i.LastSeen = time.Time{}, time.Time{}
	return i
}

const taken = "agent a already registered"

func TestTakenByAnotherPrincipal(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		old := g.agent("a")
		begun := time.Now()
		g.register("a", "somebody else").ends(codes.AlreadyExists, taken)
		equal(t, "waited", time.Since(begun), 0)
		info, _ := g.Agent("a")
		g.register(info.InstanceID, "p").ends(codes.AlreadyExists, "agent "+info.InstanceID+" already registered")
		g.say("a", "1")
		old.message()
		equal(t, "refused", g.figure("coven_agent_registrations_total", "already_exists"), 2)
	})
}

func TestTakenBySilentPredecessor(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.agent("a")
		begun := time.Now()
		g.register("a", "p").ends(codes.AlreadyExists, taken)
		equal(t, "waited", time.Since(begun), grace)
	})
}

func TestTakenByLivePredecessor(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		old := g.agent("a")
		begun := time.Now()
		second := g.register("a", "p")
		synctest.Wait()
		g.register("a", "p").ends(codes.AlreadyExists, taken) // only one may wait
		equal(t, "the third waited", time.Since(begun), 0)
		time.Sleep(time.Second)
		old.heartbeat()
		second.ends(codes.AlreadyExists, taken)
		equal(t, "the second waited", time.Since(begun), time.Second)
	})
}

func TestRestartedAgentKeepsItsID(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		old := g.agent("a")
		_, sink := g.say("a", "1")
		second := g.register("a", "p")
		time.Sleep(time.Second)
		before, _ := g.Agent("a")
		old.cancel()
		w := second.welcome()
		equal(t, "ends", strings.Join(sink.ends(), ","), "the agent disconnected")
		if w.GetInstanceId() == before.InstanceID {
			t.Error("two connections have one instance id")
		}
		if _, ok := g.Resolve(before.InstanceID); ok {
			t.Error("the old instance id resolves")
		}
		g.say("a", "2")
		equal(t, "message", second.message().GetRequestId(), "2")
		g.register("a", "p").ends(codes.AlreadyExists, taken) // the new one can be contested as well
	})
}

// A predecessor whose machine has vanished is found out by HTTP/2 keep-alive.
func TestDeadPredecessor(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.opts.ReconnectGrace = time.Minute
		var dead atomic.Bool
		old := g.stream("p", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := g.l.DialContext(ctx)
			return deadable{c, &dead}, err
		}))
		old.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "a"}}})
		old.welcome()
		_, sink := g.say("a", "1")
		old.message()
		dead.Store(true)
		begun := time.Now()
		g.register("a", "p").welcome()
		if d := time.Since(begun); d < registerTimeout || d > keepAlive+pingTimeout {
			t.Errorf("it took %s", d)
		}
		equal(t, "ends", strings.Join(sink.ends(), ","), "the agent disconnected")
	})
}

// deadable is a connection that says nothing any more once it is dead.
type deadable struct {
	net.Conn
	dead *atomic.Bool
}

func (c deadable) Write(b []byte) (int, error) {
	if c.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func TestNewcomerThatGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		old := g.agent("a")
		second := g.register("a", "p")
		synctest.Wait()
		second.cancel()
		synctest.Wait()
		third := g.register("a", "p")
		synctest.Wait()
		old.cancel()
		third.welcome()
		equal(t, "left before", g.figure("coven_agent_registrations_total", "client_gone"), 1)
	})
}

// When a contested id becomes free, it goes to the one who waits, whoever else asks meanwhile.
func TestNobodySlipsIn(t *testing.T) {
	for range 20 {
		g := start(t)
		old := g.agent("a")
		second := g.register("a", "p")
		for contested := false; !contested; {
			g.mu.Lock()
			contested = g.agents["a"].next != nil
			g.mu.Unlock()
		}
		ctx, stop := context.WithCancel(t.Context())
		var others sync.WaitGroup
		for range 2 {
			others.Go(func() {
				for ctx.Err() == nil {
					c := &Conn{info: Info{ID: "a", PrincipalID: "somebody else"}}
					if g.enter(ctx, c) == nil {
						t.Error("somebody slipped in")
						g.leave(c)
						return
					}
				}
			})
		}
		old.cancel()
		second.welcome()
		stop()
		others.Wait()
	}
}

// An agent gets Welcome before anything else, and can be reached when it has it (G73).
func TestWelcomeIsFirst(t *testing.T) {
	g := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var senders sync.WaitGroup
	defer senders.Wait()
	const agents = 100
	for n := range 4 {
		senders.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint("agent ", i%agents)
				if agentID, ok := g.Resolve(id); ok {
					_, _ = g.Dispatch(ctx, agentID, conversation.Dispatch{TurnID: fmt.Sprint(n, "/", i)}, &recorder{t: t})
				}
			}
		})
	}
	for i := range agents {
		id := fmt.Sprint("agent ", i)
		a := g.register(id, "p")
		a.welcome()
		if _, ok := g.Resolve(id); !ok {
			t.Errorf("%s is welcome and cannot be reached", id)
		}
		a.message()
		a.cancel()
	}
	stop()
}

// Existing agents ping every ten seconds, with and without a stream.
func TestPingsAreWelcome(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.stream("p", grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}))
		a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "a"}}})
		a.welcome()
		time.Sleep(time.Hour)
		g.say("a", "1")
		a.message()
	})
}
