package gatewaytest

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
)

// debug asks the admin listener.
func (g *Gateway) debug(path string, edit ...func(*http.Request)) (int, string) {
	g.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+g.gw.AdminAddr().String()+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func withAdmin(c *config.Config) { c.Admin.Listen = "127.0.0.1:0" }

// TestDebugState: the inner state shows what is under way and who waits for what, and nothing that was said.
func TestDebugState(t *testing.T) {
	g := New(t, withAdmin)
	a := g.Agent("a", everything)
	g.Pack(t.Context(), testPack())
	open, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: "thread", Text: "the secret question"})
	if err != nil {
		t.Fatal(err)
	}
	a.Message()
	waiting, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: "thread", Text: "another one", Delivery: conversation.Queue})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := g.Conversations().Reader(Ctx(), "a", conversation.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	status, body := g.debug("/debug/state")
	var got struct {
		Version       string
		Goroutines    int
		Figures       map[string]float64
		Conversations conversation.State
		AgentsOnline  int `json:"agents_online"`
		Agents        []struct {
			ID        string `json:"agent_id"`
			OpenTurns int    `json:"open_turns"`
		}
		Packs []struct {
			ID string `json:"pack_id"`
		}
	}
	if err := json.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	c := got.Conversations
	if got.Version != "v0.0.0-test" || got.Goroutines < 5 || got.AgentsOnline != 1 || got.Agents[0].ID != "a" || got.Agents[0].OpenTurns != 1 {
		t.Errorf("got %s", body)
	}
	if c.TurnsOpen != 2 || c.TurnsWaiting != 1 || len(c.Turns) != 2 || c.Turns[0].ID != open.ID || c.Turns[0].Waiting || c.Turns[1].ID != waiting.ID || !c.Turns[1].Waiting {
		t.Errorf("the turns are %+v", c)
	}
	if len(c.Inboxes) != 1 || c.Inboxes[0] != (conversation.InboxState{AgentID: "a", Messages: 1}) && !c.Inboxes[0].Running {
		t.Errorf("the inboxes are %+v", c.Inboxes)
	}
	if len(c.Feeds) != 1 || c.Feeds[0].AgentID != "a" || c.Feeds[0].Readers != 1 || c.Feeds[0].Users != 3 || c.Feeds[0].Head < 2 {
		t.Errorf("the feeds are %+v", c.Feeds)
	}
	if !slices.ContainsFunc(got.Packs, func(p struct {
		ID string `json:"pack_id"`
	},
	) bool {
		return p.ID == "test-pack"
	}) {
		t.Errorf("the packs are %+v", got.Packs)
	}
	for _, name := range []string{"coven_readers", "coven_turns_open", "coven_store_wal_bytes", "coven_store_bytes", "coven_commit_queue"} {
		if _, ok := got.Figures[name]; !ok {
			t.Errorf("there is no figure %s", name)
		}
	}
	if strings.Contains(body, "secret question") {
		t.Error("the state tells what was said")
	}
	a.Done(open.ID, "")
	a.Done(a.Message().GetRequestId(), "")
	if status, body := g.debug("/debug/pprof/goroutine?debug=1"); status != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("the profile: %d %.200s", status, body)
	}
}

// TestDebugRefuses: pages of other sites, under whatever name, see nothing; where nobody has asked for the
// listener there is none, and it is nowhere else.
func TestDebugRefuses(t *testing.T) {
	g := New(t, withAdmin)
	for name, edit := range map[string]func(*http.Request){
		"another name":     func(r *http.Request) { r.Host = "attacker.example" },
		"another site":     func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"no loopback name": func(r *http.Request) { r.Host = "10.0.0.1:6060" },
	} {
		if status, body := g.debug("/debug/state", edit); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	resp, err := g.Client.Get(g.URL + "/debug/state")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || strings.Contains(string(b), "goroutines") {
		t.Errorf("the front door shows the state: %s (%v)", b, err)
	}
	g.Reconfigure(func(c *config.Config) { c.Admin.Listen = "" })
	if addr := g.gw.AdminAddr(); addr != nil {
		t.Errorf("it listens at %s", addr)
	}
}
