package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/packs"
	"coven-gateway/internal/packs/packgrpc"
	pb "coven-gateway/proto/coven"
)

// definition is a tool as existing packs declare it.
func definition(name string, timeout int32, needs ...string) *pb.ToolDefinition {
	return &pb.ToolDefinition{Name: name, Description: name, InputSchemaJson: `{"type":"object"}`, RequiredCapabilities: needs, TimeoutSeconds: timeout}
}

// The manifests of the existing packs (grpc.md 9.4, 9.5).
func productivityPack() *pb.PackManifest {
	m := &pb.PackManifest{PackId: "productivity-pack", Version: "0.1.0"}
	for _, name := range []string{"todo_add", "todo_list", "todo_complete", "note_create", "note_search", "note_read"} {
		m.Tools = append(m.Tools, definition(name, 30))
	}
	return m
}

func testPack() *pb.PackManifest {
	return &pb.PackManifest{PackId: "test-pack", Version: "0.1.0", Tools: []*pb.ToolDefinition{definition("echo", 30), definition("admin_echo", 30, "admin")}}
}

func bridgePack(id string, tools ...string) *pb.PackManifest {
	m := &pb.PackManifest{PackId: id, Version: "0.1.0"}
	for _, name := range tools {
		m.Tools = append(m.Tools, definition(name, 60))
	}
	m.Tools = append(m.Tools, definition("mcp_list_resources", 30), definition("mcp_read_resource", 60), definition("mcp_list_prompts", 30), definition("mcp_get_prompt", 60))
	return m
}

// packKey is the key of a principal that is a pack.
func (g *Gateway) packKey(name string) Key {
	g.t.Helper()
	k := NewKey(g.t)
	if _, err := g.Identity().CreatePrincipal(Ctx(), auth.NewPrincipal{Kind: auth.Pack, Name: name, PublicKey: k.Line()}); err != nil {
		g.t.Fatal(err)
	}
	return k
}

// callTool calls a tool as somebody who may do everything.
func (g *Gateway) callTool(ctx context.Context, name, input string) (string, error) {
	return g.Tools().Call(ctx, packs.Caller{Principal: auth.Anonymous}, name, json.RawMessage(input))
}

// Existing packs register with one signature, serve all of their calls with it, and see names that
// are taken refused one by one.
func TestExistingPacks(t *testing.T) {
	g := New(t, Locked)
	productivity := g.Pack(g.packKey("productivity").Sign(), productivityPack())
	test := g.Pack(g.packKey("test").Sign(), testPack())
	bridge := g.Pack(g.packKey("bridge").Sign(), bridgePack("mcp-bridge", "read_file"))
	second := g.Pack(g.packKey("second bridge").Sign(), bridgePack("mcp-bridge-2", "search"))
	for _, x := range []struct {
		pack *Pack
		want string
	}{
		{productivity, "todo_add,todo_list"}, {test, ""}, {bridge, ""}, {second, "mcp_list_resources,mcp_read_resource,mcp_list_prompts,mcp_get_prompt"},
	} {
		if got := strings.Join(x.pack.Header.Get(packgrpc.RejectedHeader), ";"); got != x.want {
			t.Errorf("rejected are %q, want %q", got, x.want)
		}
		go func() {
			_ = x.pack.Serve(func(r *pb.ExecuteToolRequest) string {
				return fmt.Sprintf(`{"tool":%q,"input":%s}`, r.GetToolName(), r.GetInputJson())
			})
		}()
	}
	for _, name := range []string{"todo_complete", "note_read", "echo", "admin_echo", "read_file", "search", "mcp_get_prompt"} {
		for i := range 3 {
			input := fmt.Sprintf(`{"n":%d}`, i)
			got, err := g.callTool(t.Context(), name, input)
			if want := fmt.Sprintf(`{"tool":%q,"input":%s}`, name, input); err != nil || got != want {
				t.Errorf("%s returned %s, %v; want %s", name, got, err, want)
			}
		}
	}
	_, err := g.TryPack(g.packKey("third bridge").Sign(), bridgePack("mcp-bridge-3"))
	refused(t, err, codes.AlreadyExists, "tool collision: tool name collision: tool 'mcp_list_resources' already registered by pack 'mcp-bridge'")
	_, err = g.TryPack(g.packKey("another").Sign(), testPack())
	refused(t, err, codes.AlreadyExists, "pack test-pack already registered")
	_, err = g.TryPack(g.packKey("nameless").Sign(), &pb.PackManifest{})
	refused(t, err, codes.InvalidArgument, "pack_id is required")

	// When the gateway stops, existing packs see the end of their stream and exit with 0.
	idle := g.Pack(g.packKey("idle").Sign(), &pb.PackManifest{PackId: "idle", Tools: []*pb.ToolDefinition{definition("idle", 0)}})
	g.Stop()
	if err := idle.End(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	g.Start()
}

// Results come from the principal of the pack that was called and from nobody else, and every
// result is taken without an error.
func TestForeignResults(t *testing.T) {
	g := New(t, Locked)
	key := g.packKey("test")
	test := g.Pack(key.Sign(), testPack())
	other := g.Pack(g.packKey("other").Sign(), bridgePack("other"))
	_, token := g.Principal("agent")
	agent := pb.NewPackServiceClient(g.Dial())

	result := make(chan string, 1)
	go func() {
		out, err := g.callTool(t.Context(), "echo", "{}")
		result <- fmt.Sprint(out, err)
	}()
	call := test.Next()
	forged := &pb.ExecuteToolResponse{RequestId: call.GetRequestId(), Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: `"forged"`}}
	if err := other.Answer(forged); err != nil {
		t.Error(err)
	}
	if _, err := agent.ToolResult(Bearer(token), forged); err != nil {
		t.Error(err)
	}
	if err := test.Return(call.GetRequestId(), `"right"`); err != nil {
		t.Error(err)
	}
	for range 2 { // late
		if err := test.Return(call.GetRequestId(), `"late"`); err != nil {
			t.Error(err)
		}
	}
	if err := test.Return("nothing", `"unknown"`); err != nil {
		t.Error(err)
	}
	if got := <-result; got != `"right"<nil>` {
		t.Errorf("the call returned %s", got)
	}

	for _, x := range []struct {
		answer *pb.ExecuteToolResponse
		want   string
	}{
		{&pb.ExecuteToolResponse{Result: &pb.ExecuteToolResponse_Error{Error: "execution failed: no"}}, " execution failed: no"},
		{&pb.ExecuteToolResponse{Result: &pb.ExecuteToolResponse_Error{}}, " <nil>"}, // as it always was
		{&pb.ExecuteToolResponse{}, " <nil>"},
	} {
		go func() {
			out, err := g.callTool(t.Context(), "echo", "{}")
			result <- fmt.Sprint(out, " ", err)
		}()
		x.answer.RequestId = test.Next().GetRequestId()
		if err := test.Answer(x.answer); err != nil {
			t.Error(err)
		}
		if got := <-result; got != x.want {
			t.Errorf("%v became %q, want %q", x.answer, got, x.want)
		}
	}
}

// A pack that dies with calls open fails them at once, and once.
func TestPackDies(t *testing.T) {
	g := New(t)
	p := g.Pack(context.Background(), testPack())
	const n = 100
	var wg sync.WaitGroup
	died := make(chan struct{})
	for range n {
		wg.Go(func() {
			_, err := g.callTool(t.Context(), "echo", "{}")
			if fault.CodeOf(err) != fault.Unavailable || fault.Message(err) != "pack disconnected" {
				t.Errorf("a call of a dead pack returned %v", err)
			}
			select {
			case <-died:
			default:
				t.Error("a call ended before the pack died")
			}
		})
	}
	for range n {
		p.Next()
	}
	close(died)
	start := time.Now()
	p.Die()
	wg.Wait()
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("the calls ended after %s", d)
	}
	if _, err := g.callTool(t.Context(), "echo", "{}"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a tool of a dead pack: %v", err)
	}
}

// What nobody waits for any more is not sent to the pack; nor is more than its share of calls kept.
func TestStaleCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		p := g.Pack(context.Background(), testPack())
		// The pack reads nothing, so that calls wait in the gateway once the windows are full.
		large := `{"x":"` + strings.Repeat("x", 1<<20) + `"}`
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _, _ = g.callTool(ctx, "echo", large) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		live := make(chan error, 1)
		go func() {
			_, err := g.callTool(t.Context(), "echo", `{"live":true}`)
			live <- err
		}()
		stale := 0
		for r := p.Next(); r.GetInputJson() != `{"live":true}`; r = p.Next() {
			stale++
		}
		cancel()
		if stale > 3 { // that were on their way
			t.Errorf("%d calls were sent that nobody waited for", stale)
		}
		p.Die()
		if err := <-live; fault.Message(err) != "pack disconnected" {
			t.Error(err)
		}

		p = g.Pack(context.Background(), testPack())
		ctx, cancel = context.WithCancel(t.Context())
		errs := make(chan error, 300)
		for range 300 {
			go func() {
				_, err := g.callTool(ctx, "echo", "{}")
				errs <- err
			}()
		}
		for range 300 - 256 {
			if err := <-errs; fault.CodeOf(err) != fault.Limited {
				t.Errorf("a call too many: %v", err)
			}
		}
		cancel()
		for range 256 {
			if err := <-errs; fault.CodeOf(err) != fault.Gone {
				t.Errorf("a call that was cancelled: %v", err)
			}
		}
		p.Die()
	})
}

// A pack takes its id over from a stream of its own that may be dead, not from one that answers, and
// never from somebody else's.
func TestTakeOverPack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		key := g.packKey("test")
		old := g.Pack(key.Sign(), testPack())
		result := make(chan error, 1)
		call := func() {
			_, err := g.callTool(t.Context(), "echo", "{}")
			result <- err
		}

		_, err := g.TryPack(g.packKey("other").Sign(), testPack())
		refused(t, err, codes.AlreadyExists, "pack test-pack already registered")

		// It answers, so it is alive.
		go call()
		open := old.Next()
		time.AfterFunc(time.Second, func() { _ = old.Return(open.GetRequestId(), "{}") })
		_, err = g.TryPack(key.Sign(), testPack())
		refused(t, err, codes.AlreadyExists, "pack test-pack already registered")
		if err := <-result; err != nil {
			t.Error(err)
		}

		// It is silent.
		go call()
		old.Next()
		start := time.Now()
		renewed := g.Pack(key.Sign(), testPack())
		if got := time.Since(start); got != g.cfg.Agents.ReconnectGracePeriod {
			t.Errorf("the id was taken over after %s", got)
		}
		if err := <-result; fault.Message(err) != "pack disconnected" {
			t.Errorf("the call of the silent stream: %v", err)
		}
		refused(t, old.End(), codes.FailedPrecondition, "taken the pack id over")
		go call()
		if err := renewed.Return(renewed.Next().GetRequestId(), "{}"); err != nil {
			t.Error(err)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}

		// It ends while the new one waits.
		time.AfterFunc(time.Second, renewed.Die)
		start = time.Now()
		third := g.Pack(key.Sign(), testPack())
		if got := time.Since(start); got != time.Second {
			t.Errorf("the id was free after %s", got)
		}
		third.Die()
	})
}

// Who loses its rights is a pack no longer.
func TestRevokedPack(t *testing.T) {
	g := New(t, Locked)
	key := g.packKey("test")
	p := g.Pack(key.Sign(), testPack())
	all, err := g.Identity().Principals(Ctx(), auth.PrincipalFilter{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p auth.Principal) bool { return p.Name == "test" })
	if err := g.Identity().Revoke(Ctx(), all[i].ID); err != nil {
		t.Fatal(err)
	}
	refused(t, p.End(), codes.PermissionDenied, "principal has been revoked")
	refused(t, p.Return("r", "{}"), codes.PermissionDenied, "principal has been revoked")
}
