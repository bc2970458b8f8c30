package gatewaytest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

// TestOpenCalls: a pack, and an agent that hosts tools, have so many calls to answer and no more.
func TestOpenCalls(t *testing.T) {
	g := New(t)
	pack := g.Pack(Ctx(), &pb.PackManifest{PackId: "p", Tools: []*pb.ToolDefinition{definition("remote", 0)}})
	host := g.Agent("host", func(r *pb.RegisterAgent) { r.Tools = []*pb.ToolDefinition{definition("hosted", 0)} })
	for _, c := range []struct {
		tool, words string
		next        func() *pb.ExecuteToolRequest
		answer      func(id string)
	}{
		{"remote", "pack p is busy: 256 of its calls are open", pack.Next, func(id string) {
			if err := pack.Return(id, "{}"); err != nil {
				t.Error(err)
			}
		}},
		{"hosted", "agent host is busy: 256 calls of its tools are open", func() *pb.ExecuteToolRequest { return host.next().GetExecutePackTool() }, func(id string) {
			host.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: &pb.ExecuteToolResponse{RequestId: id, Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: "{}"}}}})
		}},
	} {
		const most = 256
		results := make(chan error, most)
		call := func() {
			_, err := g.callTool(Ctx(), c.tool, "")
			results <- err
		}
		var open []string
		for range most {
			go call()
			open = append(open, c.next().GetRequestId())
		}
		var refusal struct{ Error string }
		if status := g.ask("", http.MethodPost, "/api/tools/"+c.tool+"/call", "{}", &refusal); status != http.StatusTooManyRequests || refusal.Error != c.words {
			t.Fatalf("%s: %d %s", c.tool, status, refusal.Error)
		}
		c.answer(open[0])
		if err := <-results; err != nil {
			t.Error(err)
		}
		go call() // there is room again
		open = append(open[1:], c.next().GetRequestId())
		for _, id := range open {
			c.answer(id)
		}
		for range open {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	}
}

// TestUnreadInputs: what a pack does not read is bounded.
func TestUnreadInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		pack := g.Pack(Ctx(), &pb.PackManifest{PackId: "p", Tools: []*pb.ToolDefinition{definition("t", 0)}})
		const size, calls = 2 << 20, 25
		input := `{"x":"` + xs(size-8) + `"}`
		results := make(chan error, calls)
		for range calls {
			go func() {
				_, err := g.callTool(Ctx(), "t", input)
				results <- err
			}()
		}
		synctest.Wait()
		refused := len(results)
		if kept := calls - refused; kept < 32<<20/size || kept > 32<<20/size+3 { // a few are on their way
			t.Errorf("%d inputs of %d bytes wait", kept, size)
		}
		pack.Die()
		words := map[string]int{}
		for range calls {
			words[fault.Message(<-results)]++
		}
		if words["pack disconnected"] != calls-refused {
			t.Error(words)
		}
	})
}

// TestWordsOfFailure: of what a tool says when it fails, callers get the beginning.
func TestWordsOfFailure(t *testing.T) {
	g := New(t)
	pack := g.Pack(Ctx(), &pb.PackManifest{PackId: "p", Tools: []*pb.ToolDefinition{definition("t", 0)}})
	for _, said := range []string{xs(64 << 10), xs(64<<10 + 1)} {
		failed := make(chan error, 1)
		go func() { failed <- pack.Fail(pack.Next().GetRequestId(), said) }()
		want := said
		if len(said) > 64<<10 {
			want = said[:64<<10] + "…"
		}
		var refusal struct{ Error string }
		if status := g.ask("", http.MethodPost, "/api/tools/t/call", "{}", &refusal); status != http.StatusUnprocessableEntity || refusal.Error != want {
			t.Errorf("%d bytes: %d with %d bytes", len(said), status, len(refusal.Error))
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

// TestLongToolList: an agent is told of as many tools as it can decode, and can call the others.
func TestLongToolList(t *testing.T) {
	g := New(t)
	m := &pb.PackManifest{PackId: "p"}
	for i := range 250 {
		x := definition(fmt.Sprintf("x%03d", i), 0)
		x.Description = xs(16 << 10)
		m.Tools = append(m.Tools, x)
	}
	pack := g.Pack(Ctx(), m)
	a := g.Agent("a")
	told := a.Welcome.GetAvailableTools()
	if size := proto.Size(&pb.Welcome{AvailableTools: told}); size > 3<<20 || size < 3<<20-17<<10 || told[0].GetName() > told[len(told)-1].GetName() {
		t.Errorf("the agent is told of %d tools in %d bytes", len(told), size)
	}
	if slices.ContainsFunc(told, func(x *pb.ToolDefinition) bool { return x.GetName() == "x249" }) {
		t.Fatal("it is told of all")
	}
	a.Ask("1", "x249", "{}")
	if err := pack.Return(pack.Next().GetRequestId(), "{}"); err != nil {
		t.Error(err)
	}
	if out, words := a.Result("1"); out != "{}" {
		t.Error(out, words)
	}
}

// TestManyQuestions: an agent asks so many questions at once and no more.
func TestManyQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.asking(Ctx(), auth.Anonymous)
		const most = 20
		for i := range most {
			a.Ask(fmt.Sprint(i), "ask_user", askShip)
		}
		synctest.Wait()
		a.Ask("last", "ask_user", askShip)
		if r := a.Next().GetPackToolResult(); r.GetRequestId() != "last" || r.GetError() != "20 questions of this turn wait for an answer" {
			t.Error(r)
		}
		a.Done(a.request, "")
		for range most {
			if got := a.result(); !strings.Contains(got, "no_response") {
				t.Error(got)
			}
		}
	})
}
