package gatewaytest

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "coven-gateway/proto/coven"
)

// TestBindings: a channel is bound over HTTP and gRPC, by every name that an agent has; binding it
// again is idempotent, and what is written in it reaches the agent, in one thread.
func TestBindings(t *testing.T) {
	g := New(t)
	one := g.Agent("one", func(r *pb.RegisterAgent) { r.Metadata = &pb.AgentMetadata{WorkingDirectory: "/w/one"} })
	g.Agent("two")
	bind := func(body string) (int, map[string]any) {
		t.Helper()
		resp, text := g.request("POST", "/api/bindings", "", body)
		var out map[string]any
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatal(err, text)
		}
		return resp.StatusCode, out
	}
	for _, c := range []struct{ body, want string }{
		{`{`, "invalid JSON body"},
		{`{"frontend":"slack","channel_id":"c"}`, "frontend, channel_id, and instance_id are required"},
		{`{"frontend":"slack","channel_id":"c","instance_id":"zz"}`, "no agent online with instance_id 'zz'"},
		{`{"frontend":"Slack!","channel_id":"c","agent_id":"one"}`, "frontend must be lowercase alphanumeric"},
		{`{"frontend":"slack","channel_id":"c","agent_id":"nobody"}`, "agent not found"},
		{`{"frontend":"slack","channel_id":"c","agent_id":"one","instance_id":"x"}`, "not both"},
	} {
		if _, out := bind(c.body); !strings.Contains(out["error"].(string), c.want) {
			t.Errorf("%s: %v, want %s", c.body, out, c.want)
		}
	}
	code, first := bind(`{"frontend":"slack","channel_id":"c","instance_id":"` + one.Welcome.GetInstanceId() + `"}`)
	if code != 201 || first["agent_name"] != "one" || first["working_dir"] != "/w/one" || first["rebound_from"] != nil {
		t.Errorf("%d %v", code, first)
	}
	if code, again := bind(`{"frontend":"slack","channel_id":"c","agent_id":"one"}`); code != 200 || again["binding_id"] != first["binding_id"] {
		t.Errorf("%d %v", code, again)
	}
	send := func() (int, string) {
		resp, text := g.request("POST", "/api/send", "", `{"frontend":"slack","channel_id":"c","sender":"me","content":"hi"}`, "Accept", "application/json")
		return resp.StatusCode, text
	}
	var threads []string
	go func() {
		for m := one.Next(); m != nil; m = one.Next() {
			s := m.GetSendMessage()
			threads = append(threads, s.GetThreadId())
			one.Done(s.GetRequestId(), "hello")
		}
	}()
	for range 2 {
		if code, text := send(); code != 200 || !strings.Contains(text, `"response":"hello"`) {
			t.Errorf("%d %s", code, text)
		}
	}
	if len(threads) != 2 || threads[0] != threads[1] {
		t.Errorf("the channel has the threads %v", threads)
	}

	admin := pb.NewAdminServiceClient(g.Dial())
	ctx := context.Background()
	_, err := admin.CreateBinding(ctx, &pb.CreateBindingRequest{Frontend: "slack", ChannelId: "c", AgentId: "two"})
	refused(t, err, codes.AlreadyExists, "channel already bound")
	_, err = admin.CreateBinding(ctx, &pb.CreateBindingRequest{Frontend: "matrix", ChannelId: "r", AgentId: "nobody"})
	refused(t, err, codes.NotFound, "agent not found")
	if code, re := bind(`{"frontend":"slack","channel_id":"c","agent_id":"two"}`); code != 201 || re["rebound_from"] != "one" || re["binding_id"] == first["binding_id"] {
		t.Errorf("%d %v", code, re)
	}
	list, err := admin.ListBindings(ctx, &pb.ListBindingsRequest{Frontend: new("slack")})
	if err != nil || len(list.GetBindings()) != 1 || list.GetBindings()[0].GetAgentId() != "two" {
		t.Fatalf("%v %v", list, err)
	}
	id := list.GetBindings()[0].GetId()
	if b, err := admin.UpdateBinding(ctx, &pb.UpdateBindingRequest{Id: id, AgentId: "one"}); err != nil || b.GetId() != id || b.GetAgentId() != "one" {
		t.Errorf("%v %v", b, err)
	}
	if resp, text := g.request("GET", "/api/bindings?frontend=slack&channel_id=c", "", ""); resp.StatusCode != 200 || !strings.Contains(text, `"online":true`) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	for _, want := range []int{http.StatusNoContent, http.StatusNotFound} {
		if resp, text := g.request("DELETE", "/api/bindings?frontend=slack&channel_id=c", "", ""); resp.StatusCode != want {
			t.Errorf("%d %s, want %d", resp.StatusCode, text, want)
		}
	}
	_, err = admin.DeleteBinding(ctx, &pb.DeleteBindingRequest{Id: id})
	refused(t, err, codes.NotFound, "binding not found")
	if code, text := send(); code != 400 || !strings.Contains(text, "channel not bound to agent") {
		t.Errorf("%d %s", code, text)
	}
	if v, err := g.Identity().VerifyAudit(ctx); err != nil || !v.OK || v.Records != 4 { // create, rebind, update, delete
		t.Errorf("%+v %v", v, err)
	}
}
