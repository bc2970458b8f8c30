package gatewaytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// everything is what an agent asks for that wants every built-in tool.
func everything(r *pb.RegisterAgent) {
	r.Capabilities = []string{"base", "chat", "notes", "mail", "ui", "admin", "log:all"}
}

// Call calls a tool and waits for its result; what comes meanwhile is lost.
func (a *Agent) Call(name, input string) (output, words string) {
	a.t.Helper()
	a.Ask("call", name, input)
	return a.Result("call")
}

// Ask calls a tool.
func (a *Agent) Ask(id, name, input string) {
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{RequestId: id, ToolName: name, InputJson: input}}})
}

// Result waits for the result of a call.
func (a *Agent) Result(id string) (output, words string) {
	a.t.Helper()
	for {
		m := a.next()
		if m == nil {
			a.t.Fatalf("agent %s: the stream has ended: %v", a.ID, a.err)
		}
		if r := m.GetPackToolResult(); r.GetRequestId() == id {
			return r.GetOutputJson(), r.GetError()
		}
	}
}

// A toolPath is a way to call a tool as an agent.
type toolPath struct {
	name string
	call func(agent, tool, input string) (output, words string)
}

// toolPaths are all ways to call a tool, for the agents a and b.
func toolPaths(g *Gateway) []toolPath {
	agents := map[string]*Agent{"a": g.Agent("a", everything), "b": g.Agent("b", everything)}
	return []toolPath{
		{"gRPC", func(agent, tool, input string) (string, string) { return agents[agent].Call(tool, input) }},
		{"HTTP", func(agent, tool, input string) (string, string) { return g.callOverHTTP("", agent, tool, input) }},
	}
}

// callOverHTTP calls a tool over HTTP, with a token unless it is "".
func (g *Gateway) callOverHTTP(token, agent, tool, input string) (output, words string) {
	g.t.Helper()
	if input == "" {
		input = "null"
	}
	var out struct {
		Output json.RawMessage
		Error  string
	}
	g.ask(token, http.MethodPost, "/api/tools/"+tool+"/call", fmt.Sprintf(`{"agent_id":%q,"input":%s}`, agent, input), &out)
	return string(out.Output), out.Error
}

// ask makes a request over HTTP and decodes the answer. It returns the status.
func (g *Gateway) ask(token, method, path, body string, out any) int {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := g.Client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode
}

// tools calls tools along one path.
type tools struct {
	t    *testing.T
	path toolPath
}

// get calls a tool that succeeds and returns its output. Its keys must be those named, sorted; a
// key with "?" need not be there.
func (x tools) get(agent, tool, input, keys string) map[string]any {
	x.t.Helper()
	output, words := x.path.call(agent, tool, input)
	if words != "" {
		x.t.Fatalf("%s: %s %s: %s", x.path.name, tool, input, words)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(output), &out); err != nil {
		x.t.Fatalf("%s: %s %s: %s: %v", x.path.name, tool, input, output, err)
	}
	x.keys(tool, out, keys)
	return out
}

func (x tools) keys(what string, v any, want string) {
	x.t.Helper()
	got := strings.Join(slices.Sorted(maps.Keys(v.(map[string]any))), " ")
	if got != want {
		x.t.Errorf("%s: %s has the keys %s, want %s", x.path.name, what, got, want)
	}
}

// fails calls a tool that fails.
func (x tools) fails(agent, tool, input, want string) {
	x.t.Helper()
	if output, words := x.path.call(agent, tool, input); !strings.HasPrefix(words, want) || words == "" {
		x.t.Errorf("%s: %s %s: got %q and the output %s, want %q", x.path.name, tool, input, words, output, want)
	}
}

// items are the objects of a list in an output.
func listed(out map[string]any, key string) []map[string]any {
	list := []map[string]any{}
	for _, v := range out[key].([]any) { // null would panic
		list = append(list, v.(map[string]any))
	}
	return list
}

// values are those of a key in a list of objects.
func values(list []map[string]any, key string) string {
	var all []string
	for _, v := range list {
		all = append(all, fmt.Sprint(v[key]))
	}
	return strings.Join(all, " ")
}

// Every built-in tool does what agents know it to do, with the keys that they know, on every path.
func TestBuiltins(t *testing.T) {
	g := New(t)
	for _, path := range toolPaths(g) {
		x := tools{t, path}
		x.log()
		x.todos()
		x.board()
		x.notes()
		x.mail()
	}
}

func (x tools) equal(what, got, want string) {
	x.t.Helper()
	if got != want {
		x.t.Errorf("%s: %s: got %s, want %s", x.path.name, what, got, want)
	}
}

func (x tools) recent(what string, v any) {
	x.t.Helper()
	at, err := time.Parse(time.RFC3339, v.(string))
	if err != nil || !strings.HasSuffix(v.(string), "Z") || time.Since(at) > time.Minute || time.Until(at) > time.Second {
		x.t.Errorf("%s: %s is %v", x.path.name, what, v)
	}
}

func (x tools) log() {
	for _, m := range []string{"first 100%", "second", "FIRST again"} {
		out := x.get("a", "log_entry", fmt.Sprintf(`{"message":%q,"tags":["t"],"unknown":1}`, x.path.name+" "+m), "id status")
		x.equal("status", out["status"].(string), "logged")
	}
	x.get("b", "log_entry", `{"message":"of b"}`, "id status")
	out := x.get("a", "log_search", `{"query":"`+x.path.name+` first"}`, "count entries")
	entries := listed(out, "entries")
	x.equal("found", values(entries, "Message"), x.path.name+" FIRST again "+x.path.name+" first 100%")
	x.keys("an entry", entries[0], "AgentID CreatedAt ID Message Tags")
	x.equal("tags", fmt.Sprint(entries[0]["Tags"], out["count"]), "[t] 2")
	x.recent("CreatedAt", entries[0]["CreatedAt"])
	x.equal("an underscore is no wildcard", values(listed(x.get("a", "log_search", `{"query":"fir_t"}`, "count entries"), "entries"), "Message"), "")
	x.equal("a percent sign is itself", fmt.Sprint(len(listed(x.get("a", "log_search", `{"query":"`+x.path.name+` first 100%"}`, "count entries"), "entries"))), "1")
	x.equal("later", fmt.Sprint(x.get("a", "log_search", `{"since":"2999-01-01T00:00:00Z"}`, "count entries")["count"]), "0")
	x.equal("tags of b", fmt.Sprint(listed(x.get("b", "log_search", `{"limit":-1}`, "count entries"), "entries")[0]["Tags"]), "[]")
	page := x.get("a", "log_search", `{"query":"`+x.path.name+`","limit":2}`, "count entries has_more next_cursor")
	rest := x.get("a", "log_search", fmt.Sprintf(`{"query":%q,"cursor":%q}`, x.path.name, page["next_cursor"]), "count entries")
	x.equal("the next page", values(listed(rest, "entries"), "Message"), x.path.name+" first 100%")
	x.equal("the log of b", values(listed(x.get("a", "log_search", `{"agent_id":"b","limit":1}`, x.more("count", "entries")), "entries")[:1], "Message"), "of b")
	x.equal("the log of all", values(listed(x.get("a", "log_search", `{"agent_id":"*","limit":1}`, "count entries has_more next_cursor"), "entries"), "AgentID"), "b")
	x.fails("a", "log_entry", `{}`, "message is required")
	x.fails("a", "log_entry", `{"message":""}`, "message is required")
	x.fails("a", "log_entry", `{"message":3}`, "invalid input: at /message: got number, want string")
	x.fails("a", "log_entry", `{"message":"m","tags":"t"}`, "invalid input: at /tags: got string, want array")
	x.fails("a", "log_entry", `{"message":"m","tags":[`+strings.Repeat(`"t",`, 32)+`"t"]}`, "tags must not have more than 32 entries; this one has 33")
	x.fails("a", "log_entry", `{"message":"`+strings.Repeat("x", 256<<10+1)+`"}`, "message must not be longer than 262144 bytes; this one has 262145")
	x.fails("a", "log_search", `{"since":"yesterday"}`, "invalid since date: ")
	x.fails("a", "log_search", `{"limit":"5"}`, "invalid input: at /limit: got string, want integer")
	x.fails("a", "log_search", `{"cursor":"x"}`, "cursor must be the next_cursor of an earlier answer")
}

func (x tools) todos() {
	id := x.get("a", "todo_add", `{"description":"one","due_date":"2030-01-02T03:04:05+02:00","notes":"n"}`, "id status")["id"].(string)
	x.get("a", "todo_add", `{"description":"","priority":"high"}`, "id status")
	other := x.get("b", "todo_add", `{"description":"of b"}`, "id status")["id"].(string)
	out := x.get("a", "todo_list", `{}`, "count todos")
	todos := listed(out, "todos")
	x.equal("todos", values(todos, "Description")+"/"+values(todos, "Priority"), " one/high medium")
	x.keys("a todo", todos[0], "AgentID CreatedAt Description DueDate ID Notes Priority Status UpdatedAt")
	x.equal("the todo", fmt.Sprint(todos[1]["DueDate"], todos[1]["Status"], todos[1]["Notes"], todos[0]["DueDate"]), "2030-01-02T01:04:05Zpendingn<nil>")
	x.equal("updated", x.get("a", "todo_update", `{"id":"`+id+`","status":"in_progress","notes":"","description":"uno"}`, "status")["status"].(string), "updated")
	got := listed(x.get("a", "todo_list", `{"status":"in_progress","priority":"medium"}`, "count todos"), "todos")[0]
	x.equal("after an update", fmt.Sprint(got["Description"], got["Notes"], got["DueDate"]), "unon2030-01-02T01:04:05Z")
	x.get("a", "todo_update", `{"id":"`+id+`","notes":null,"due_date":null}`, "status")
	got = listed(x.get("a", "todo_list", `{"status":"in_progress"}`, "count todos"), "todos")[0]
	x.equal("cleared", fmt.Sprint(got["Description"], got["Notes"], got["DueDate"], got["Status"]), "uno<nil>in_progress")
	page := x.get("a", "todo_list", `{"limit":1}`, "count has_more next_cursor todos")
	x.equal("the next page", values(listed(x.get("a", "todo_list", fmt.Sprintf(`{"cursor":%q}`, page["next_cursor"]), "count todos"), "todos"), "Description"), "uno")
	x.fails("a", "todo_add", `{"description":"x","priority":"urgent"}`, `invalid priority "urgent": must be low, medium, or high`)
	x.fails("a", "todo_add", `{"description":"x","due_date":"soon"}`, "invalid due_date: ")
	x.fails("a", "todo_list", `{"status":"done"}`, `invalid status "done": must be pending, in_progress, or completed`)
	x.fails("a", "todo_list", `{"priority":"x"}`, `invalid priority "x": must be low, medium, or high`)
	x.fails("a", "todo_update", `{"id":"nothing"}`, "not found")
	x.fails("a", "todo_update", `{}`, "not found")
	x.fails("a", "todo_update", `{"id":"`+other+`"}`, "todo not found")
	x.fails("a", "todo_update", `{"id":"`+id+`","status":"done"}`, `apply todo updates: invalid status "done": must be pending, in_progress, or completed`)
	x.fails("a", "todo_update", `{"id":"`+id+`","due_date":"soon"}`, "invalid due_date: ")
	x.fails("a", "todo_delete", `{"id":"nothing"}`, "not found")
	x.fails("a", "todo_delete", `{"id":"`+other+`"}`, "todo not found")
	for _, t := range todos {
		x.equal("deleted", x.get("a", "todo_delete", fmt.Sprintf(`{"id":%q}`, t["ID"]), "status")["status"].(string), "deleted")
	}
	x.equal("none", fmt.Sprint(x.get("a", "todo_list", `{}`, "count todos")), "map[count:0 todos:[]]")
	x.get("b", "todo_delete", `{"id":"`+other+`"}`, "status")
}

func (x tools) board() {
	id := x.get("a", "bbs_create_thread", `{"subject":"s1","content":"c1"}`, "status thread_id")["thread_id"].(string)
	empty := x.get("b", "bbs_create_thread", `{"subject":"s2","content":"c2"}`, "status thread_id")["thread_id"].(string)
	reply := x.get("b", "bbs_reply", `{"thread_id":"`+id+`","content":"r1"}`, "post_id status")
	x.equal("status", reply["status"].(string), "posted")
	x.get("a", "bbs_reply", `{"thread_id":"`+id+`","content":"r2"}`, "post_id status")
	threads := listed(x.get("b", "bbs_list_threads", `{"limit":2}`, x.more("count", "threads")), "threads")
	x.equal("threads", values(threads, "Subject")+values(threads, "AgentID"), "s2 s1b a")
	x.keys("a thread", threads[0], "AgentID Content CreatedAt ID Subject ThreadID")
	x.equal("its thread", threads[0]["ThreadID"].(string), "")
	out := x.get("b", "bbs_read_thread", `{"thread_id":"`+id+`"}`, "Post Replies")
	x.keys("a post", out["Post"], "AgentID Content CreatedAt ID Subject ThreadID")
	x.equal("replies", values(listed(out, "Replies"), "Content")+listed(out, "Replies")[0]["ThreadID"].(string), "r1 r2"+id)
	x.equal("no replies", fmt.Sprint(x.get("a", "bbs_read_thread", `{"thread_id":"`+empty+`"}`, "Post Replies")["Replies"]), "[]")
	page := x.get("a", "bbs_read_thread", `{"thread_id":"`+id+`","limit":1}`, "Post Replies has_more next_cursor")
	x.equal("the next page", values(listed(x.get("a", "bbs_read_thread", fmt.Sprintf(`{"thread_id":%q,"cursor":%q}`, id, page["next_cursor"]), "Post Replies"), "Replies"), "Content"), "r2")
	x.fails("a", "bbs_create_thread", `{"content":"c"}`, "subject is required")
	x.fails("a", "bbs_create_thread", `{"subject":"s"}`, "content is required")
	x.fails("a", "bbs_create_thread", `{"subject":"`+strings.Repeat("x", 1001)+`","content":"c"}`, "subject must not be longer than 1000 bytes; this one has 1001")
	x.fails("a", "bbs_reply", `{"content":"c"}`, "thread_id is required")
	x.fails("a", "bbs_reply", `{"thread_id":"`+id+`"}`, "content is required")
	x.fails("a", "bbs_reply", `{"thread_id":"nothing","content":"c"}`, "thread not found")
	x.fails("a", "bbs_reply", fmt.Sprintf(`{"thread_id":%q,"content":"c"}`, reply["post_id"]), "cannot reply to a reply, use original thread_id")
	x.fails("a", "bbs_read_thread", `{"thread_id":"nothing"}`, "not found")
}

// more are the keys of the first page of a list that another path has filled already.
func (x tools) more(keys ...string) string {
	if x.path.name != "gRPC" {
		keys = append(keys, "has_more", "next_cursor")
		slices.Sort(keys)
	}
	return strings.Join(keys, " ")
}

func (x tools) notes() {
	x.equal("none", fmt.Sprint(x.get("a", "note_list", `{}`, "count keys")), "map[count:0 keys:[]]")
	x.equal("saved", fmt.Sprint(x.get("a", "note_set", `{"key":"k2","value":"v"}`, "key status")), "map[key:k2 status:saved]")
	x.get("a", "note_set", `{"key":"k2","value":"v2 <&>"}`, "key status")
	x.get("a", "note_set", `{"key":"k1","value":""}`, "key status")
	x.equal("a note", fmt.Sprint(x.get("a", "note_get", `{"key":"k2"}`, "key value")), "map[key:k2 value:v2 <&>]")
	x.equal("keys", fmt.Sprint(x.get("a", "note_list", ``, "count keys")), "map[count:2 keys:[k1 k2]]")
	x.equal("a page", fmt.Sprint(x.get("a", "note_list", `{"limit":1}`, "count has_more keys next_cursor")["next_cursor"]), "k1")
	x.equal("the next page", fmt.Sprint(x.get("a", "note_list", `{"cursor":"k1"}`, "count keys")["keys"]), "[k2]")
	x.fails("b", "note_get", `{"key":"k2"}`, "not found")
	x.fails("b", "note_delete", `{"key":"k2"}`, "not found")
	x.fails("a", "note_set", `{"value":"v"}`, "key is required")
	x.fails("a", "note_set", `{"key":"k","value":"`+strings.Repeat("x", 256<<10+1)+`"}`, "value must not be longer than 262144 bytes")
	for _, k := range []string{"k1", "k2"} {
		x.equal("deleted", fmt.Sprint(x.get("a", "note_delete", `{"key":"`+k+`"}`, "key status")), "map[key:"+k+" status:deleted]")
	}
}

func (x tools) mail() {
	id := x.get("a", "mail_send", `{"to_agent_id":"b","subject":"s","content":"c"}`, "id status")["id"].(string)
	second := x.get("a", "mail_send", `{"to_agent_id":"b","subject":"s2","content":"c2"}`, "id status")["id"].(string)
	unread := listed(x.get("b", "mail_inbox", `{"unread_only":true}`, "count messages"), "messages")
	x.equal("unread", values(unread, "Subject")+values(unread, "ReadAt"), "s2 s<nil> <nil>")
	x.keys("a mail", unread[0], "Content CreatedAt FromAgentID ID ReadAt Subject ToAgentID")
	read := x.get("b", "mail_read", `{"message_id":"`+id+`"}`, "Content CreatedAt FromAgentID ID ReadAt Subject ToAgentID")
	x.recent("ReadAt", read["ReadAt"]) // as it is after reading
	x.equal("read again", fmt.Sprint(x.get("b", "mail_read", `{"message_id":"`+id+`"}`, "Content CreatedAt FromAgentID ID ReadAt Subject ToAgentID")["ReadAt"]), read["ReadAt"].(string))
	x.equal("still unread", values(listed(x.get("b", "mail_inbox", `{"unread_only":true}`, "count messages"), "messages"), "ID"), second)
	page := x.get("b", "mail_inbox", `{"limit":1}`, "count has_more messages next_cursor")
	x.equal("the first page", values(listed(page, "messages"), "ID"), second)
	x.equal("the next page", listed(x.get("b", "mail_inbox", fmt.Sprintf(`{"cursor":%q}`, page["next_cursor"]), "count messages"), "messages")[0]["ID"].(string), id)
	x.equal("none", fmt.Sprint(x.get("a", "mail_inbox", `{}`, "count messages")), "map[count:0 messages:[]]")
	x.fails("a", "mail_send", `{"subject":"s","content":"c"}`, "to_agent_id is required")
	x.fails("a", "mail_send", `{"to_agent_id":"b","content":"c"}`, "subject is required")
	x.fails("a", "mail_send", `{"to_agent_id":"b","subject":"s"}`, "content is required")
	x.fails("a", "mail_send", `{"to_agent_id":"nobody","subject":"s","content":"c"}`, `there is no agent "nobody"`)
	x.fails("a", "mail_read", `{"message_id":"`+id+`"}`, "message not found")
	x.fails("a", "mail_read", `{"message_id":"nothing"}`, "not found")
	x.get("b", "mail_read", `{"message_id":"`+second+`"}`, "Content CreatedAt FromAgentID ID ReadAt Subject ToAgentID")
}

// answering has an agent answer every message, until its stream ends.
func answering(a *Agent, answer func(*pb.SendMessage)) {
	go func() {
		for m := a.Next(); m != nil; m = a.Next() {
			if s := m.GetSendMessage(); s != nil {
				answer(s)
			}
		}
	}()
}

func TestAdminTools(t *testing.T) {
	g := New(t, Locked)
	boss, token := g.Principal("boss")
	_, other := g.Principal("other")
	if err := g.Identity().SetCapability(Ctx(), boss.ID, "admin", true); err != nil {
		t.Fatal(err)
	}
	a := g.ConnectAs(Bearer(token), "boss", everything)
	a.next()
	b := g.ConnectAs(Bearer(other), "worker", func(r *pb.RegisterAgent) {
		r.Metadata = &pb.AgentMetadata{WorkingDirectory: "/w", Backend: "mux", Workspaces: []string{"ws"}}
	})
	b.next()
	senders := make(chan string, 8)
	answering(b, func(s *pb.SendMessage) {
		switch s.GetContent() {
		case "fail":
			b.Fail(s.GetRequestId(), "no luck")
		case "wait":
		default:
			senders <- s.GetSender() + " " + s.GetThreadId()
			b.Text(s.GetRequestId(), "you said ", s.GetContent())
			b.Done(s.GetRequestId(), "")
		}
	})
	x := tools{t, toolPath{"gRPC", func(_, tool, input string) (string, string) { return a.Call(tool, input) }}}

	out := x.get("", "admin_list_agents", ``, "agents count")
	agents := listed(out, "agents")
	x.equal("agents", values(agents, "id")+fmt.Sprint(out["count"]), "boss worker2")
	x.keys("an agent", agents[1], "backend capabilities id instance_id name working_dir workspaces")
	x.equal("the agent", fmt.Sprint(agents[1]["backend"], agents[1]["capabilities"], agents[1]["workspaces"], agents[0]["workspaces"]), "mux[base chat] [ws] []")

	sent := x.get("", "admin_send_message", `{"agent_id":"worker","content":"hello"}`, "agent_id done request_id response status")
	x.equal("the answer", fmt.Sprint(sent["status"], sent["response"], sent["done"]), "sentyou said hellotrue")
	x.equal("by instance id", fmt.Sprint(x.get("", "admin_send_message", fmt.Sprintf(`{"agent_id":%q,"content":"again"}`, agents[1]["instance_id"]), "agent_id done request_id response status")["response"]), "you said again")
	first, second := <-senders, <-senders
	if !strings.HasPrefix(first, "admin:boss ") || first != second {
		t.Errorf("the messages came from %q and %q", first, second)
	}
	// It is recorded like any other.
	turn, err := g.Conversations().Turn(Ctx(), sent["request_id"].(string))
	if err != nil || turn.PrincipalID != boss.ID || turn.Sender != "admin:boss" || turn.State != conversation.Done {
		t.Errorf("the turn is %+v, %v", turn, err)
	}
	x.fails("", "admin_send_message", `{"content":"c"}`, "agent_id is required")
	x.fails("", "admin_send_message", `{"agent_id":"worker"}`, "content is required")
	x.fails("", "admin_send_message", `{"agent_id":"nobody","content":"c"}`, "sending message: agent not found")
	x.fails("", "admin_send_message", `{"agent_id":"worker","content":"fail"}`, "agent error: no luck")
	x.fails("", "admin_send_message", `{"agent_id":"boss","content":"to myself"}`, `agent "boss" would wait for itself`)
	late := x.get("", "admin_send_message", `{"agent_id":"worker","content":"wait","timeout_seconds":1}`, "agent_id done request_id response status")
	x.equal("late", fmt.Sprint(late["done"], late["response"]), "false")

	// Others have talked to it, too; who has the capability sees that.
	if _, err := g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "worker", Sender: "me", Text: "of somebody else"}); err != nil {
		t.Fatal(err)
	}
	h := x.get("", "admin_agent_messages", `{"agent_id":"worker"}`, "agent_id count events has_more usage")
	texts := values(listed(h, "events"), "text")
	if !strings.HasPrefix(texts, "hello you said hello again you said again fail no luck") || !strings.Contains(texts, "of somebody else") {
		t.Errorf("the history is %s", texts)
	}
	x.keys("usage", h["usage"], "request_count total_cache_read total_cache_write total_input total_output total_thinking total_tokens")
	page := x.get("", "admin_agent_messages", `{"agent_id":"worker","limit":2}`, "agent_id count events has_more next_cursor usage")
	x.equal("the next page", fmt.Sprint(listed(x.get("", "admin_agent_messages", fmt.Sprintf(`{"agent_id":"worker","limit":1,"cursor":%q}`, page["next_cursor"]), "agent_id count events has_more next_cursor usage"), "events")[0]["text"]), "again")
	x.equal("nobody's", fmt.Sprint(x.get("", "admin_agent_messages", `{"agent_id":"nobody"}`, "agent_id count events has_more usage")["events"]), "[]")
	x.fails("", "admin_agent_messages", `{}`, "agent_id is required")
	x.fails("", "admin_agent_messages", `{"agent_id":"worker","cursor":"?"}`, "cursor must be")
	if got, err := g.Conversations().History(with(boss), conversation.HistoryQuery{AgentID: "worker", Limit: 500}); err != nil || slices.ContainsFunc(got.Entries, func(e conversation.Entry) bool { return e.Text == "of somebody else" }) {
		t.Errorf("the capability of a tool has opened the history itself: %v", err)
	}
}

// An agent without a capability cannot call what needs it: not when it never had it, not when it
// asks for it, not when it has lost it.
func TestToolCapabilities(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) { c.Auth.DefaultCapabilities = []string{"chat", "notes"} })
	p, token := g.Principal("p")
	a := g.ConnectAs(Bearer(token), "a", everything)
	welcome := a.next().GetWelcome()
	var offered []string
	for _, tool := range welcome.GetAvailableTools() {
		offered = append(offered, tool.GetName())
	}
	if want := []string{"note_delete", "note_get", "note_list", "note_set"}; !cmp.Equal(offered, want) {
		t.Errorf("offered are %v, want %v", offered, want)
	}
	pack := g.Pack(g.packKey("test").Sign(), testPack())
	for _, e := range g.Tools().Tools() {
		if slices.Contains(offered, e.Name) || e.Name == "echo" {
			continue
		}
		if _, words := a.Call(e.Name, "{}"); words != "missing capability: "+e.Needs[0] {
			t.Errorf("%s: %s", e.Name, words)
		}
	}
	a.Ask("1", "echo", "{}") // needs nothing
	if err := pack.Return(pack.Next().GetRequestId(), "{}"); err != nil {
		t.Error(err)
	}
	if _, words := a.Result("1"); words != "" {
		t.Error(words)
	}

	if err := g.Identity().SetCapability(Ctx(), p.ID, "admin", true); err != nil {
		t.Fatal(err)
	}
	if _, words := a.Call("admin_list_agents", ""); words != "missing capability: admin" {
		t.Errorf("a capability that this connection does not have: %s", words)
	}
	b := g.ConnectAs(Bearer(token), "b", everything)
	b.next()
	if _, words := b.Call("admin_list_agents", ""); words != "" {
		t.Error(words)
	}
	if _, words := b.Call("log_search", `{"agent_id":"*"}`); words != "missing capability: base" {
		t.Error(words)
	}
	if err := g.Identity().SetCapability(Ctx(), p.ID, "admin", false); err != nil {
		t.Fatal(err)
	}
	if _, words := b.Call("admin_list_agents", ""); words != "missing capability: admin" {
		t.Errorf("a capability that it has lost: %s", words)
	}
	if err := g.Identity().SetCapability(Ctx(), p.ID, "base", true); err != nil {
		t.Fatal(err)
	}
	c := g.ConnectAs(Bearer(token), "c", everything)
	c.next()
	if _, words := c.Call("log_search", `{"agent_id":"*"}`); words != "missing capability: log:all" {
		t.Errorf("the log of everybody: %s", words)
	}
	if _, words := c.Call("log_search", `{"agent_id":"c"}`); words != "" {
		t.Errorf("its own log: %s", words)
	}
}

// Agents that ask each other in a circle are told so, and none of them hangs.
func TestAgentsInACircle(t *testing.T) {
	g := New(t)
	a, b := g.Agent("a", everything), g.Agent("b", everything)
	a.Ask("1", "admin_send_message", `{"agent_id":"b","content":"ask a"}`)
	m := b.Message()
	if _, words := b.Call("admin_send_message", `{"agent_id":"a","content":"what now?"}`); !strings.Contains(words, `agent "a" is waiting for agent "b"`) {
		t.Errorf("a circle: %s", words)
	}
	b.Done(m.GetRequestId(), "I could not")
	if out, words := a.Result("1"); words != "" || !strings.Contains(out, "I could not") {
		t.Errorf("%s %s", out, words)
	}
	// It has been no circle since.
	b.Ask("2", "admin_send_message", `{"agent_id":"a","content":"and now?"}`)
	a.Done(a.Message().GetRequestId(), "yes")
	if out, words := b.Result("2"); words != "" || !strings.Contains(out, "yes") {
		t.Errorf("%s %s", out, words)
	}
}

// Over HTTP, people see tools and packs, call tools on behalf of their agents, and read what these
// have stored.
func TestToolsOverHTTP(t *testing.T) {
	g := New(t, Locked)
	_, token := g.Principal("p")
	_, stranger := g.Principal("stranger")
	admin, adminToken := g.Principal("admin", auth.Admin)
	a := g.ConnectAs(Bearer(token), "a", everything, func(r *pb.RegisterAgent) { r.Tools = []*pb.ToolDefinition{definition("hosted", 0, "chat")} })
	a.next()
	g.Pack(g.packKey("test").Sign(), testPack())
	for _, x := range [][2]string{
		{"log_entry", `{"message":"m"}`},
		{"log_entry", `{"message":"m2"}`},
		{"todo_add", `{"description":"d"}`},
		{"note_set", `{"key":"k/ä","value":"v"}`},
		{"note_set", `{"key":"l","value":"v"}`},
		{"mail_send", `{"to_agent_id":"a","subject":"s","content":"c"}`},
		{"bbs_create_thread", `{"subject":"s","content":"c"}`},
	} {
		if _, words := a.Call(x[0], x[1]); words != "" {
			t.Fatal(x, words)
		}
	}
	get := func(path, key string) ([]map[string]any, string) {
		t.Helper()
		var out map[string]any
		if status := g.ask(token, http.MethodGet, path, "", &out); status != http.StatusOK {
			t.Fatalf("%s: %d %v", path, status, out)
		}
		next, _ := out["next_cursor"].(string)
		if more, ok := out["has_more"].(bool); ok && more != (next != "") {
			t.Errorf("%s: %v", path, out)
		}
		return listed(out, key), next
	}
	x := tools{t, toolPath{name: "HTTP"}}
	for _, l := range []struct{ path, key, keys string }{
		{"/api/agents/a/log", "log", "agent_id created_at id message tags"},
		{"/api/agents/a/todos", "todos", "agent_id created_at description due_date id notes priority status updated_at"},
		{"/api/agents/a/mail", "mail", "content created_at from_agent_id id read_at subject to_agent_id"},
		{"/api/agents/a/notes", "notes", "agent_id created_at key updated_at value"},
		{"/api/board", "threads", "agent_id content created_at id subject thread_id"},
	} {
		list, _ := get(l.path, l.key)
		if len(list) == 0 {
			t.Fatalf("%s is empty", l.path)
		}
		x.keys(l.path, list[0], l.keys)
		x.recent(l.path, list[0]["created_at"])
	}
	page, next := get("/api/agents/a/log?limit=1", "log")
	rest, last := get("/api/agents/a/log?cursor="+next, "log")
	x.equal("log", values(page, "message")+values(rest, "message")+last, "m2m")
	page, next = get("/api/agents/a/notes?limit=1", "notes")
	rest, last = get("/api/agents/a/notes?cursor="+next, "notes")
	x.equal("notes", values(page, "key")+values(rest, "key")+last, "k/äl")
	thread, _ := get("/api/board", "threads")
	id := thread[0]["id"].(string)
	for _, r := range []string{"r1", "r2", "r3"} {
		if _, words := a.Call("bbs_reply", `{"thread_id":"`+id+`","content":"`+r+`"}`); words != "" {
			t.Fatal(words)
		}
	}
	var posts []string
	for path := "/api/board/" + id + "?limit=2"; path != ""; {
		page, next := get(path, "posts")
		posts = append(posts, values(page, "content"))
		if path = ""; next != "" {
			path = "/api/board/" + id + "?limit=2&cursor=" + next
		}
	}
	x.equal("posts", strings.Join(posts, ","), "c r1,r2 r3")
	if none, next := get("/api/agents/a/log?cursor=1", "log"); len(none) > 0 || next != "" {
		t.Error(none, next)
	}

	all, _ := get("/api/tools", "tools")
	x.keys("a tool", all[0], "agent_id available calls_per_minute description enabled input_schema kind name needs_approval pack_id required_capabilities required_roles timeout_seconds")
	by := map[string]map[string]any{}
	for _, tool := range all {
		by[tool["name"].(string)] = tool
	}
	x.equal("tools", fmt.Sprint(len(all), by["hosted"]["kind"], by["hosted"]["agent_id"], by["echo"]["kind"], by["note_set"]["kind"]), "25agentaremotebuiltin")
	x.equal("available", fmt.Sprint(by["hosted"]["available"], by["admin_echo"]["available"], by["echo"]["available"], by["echo"]["timeout_seconds"]), "true false true 30")
	list, _ := get("/api/packs", "packs")
	x.equal("packs", values(list, "id"), "agent:a builtin:admin builtin:ask:a builtin:base builtin:mail builtin:notes builtin:ui test-pack")
	x.keys("a pack", list[0], "agent_id connected_at id kind principal_id rejected tools version")

	for _, c := range []struct {
		token, tool, body, words string
		status                   int
	}{
		{token, "note_get", `{"agent_id":"a","input":{"key":"k"}}`, "not found", 404},
		{token, "nothing", `{}`, "tool not found", 404},
		{token, "note_list", `{}`, "this tool works on what belongs to an agent", 400},
		{token, "note_set", `{"agent_id":"a"}`, "key is required", 400},
		{token, "note_set", `{"agent_id":"b"}`, `agent "b" is not yours`, 403},
		{stranger, "note_set", `{"agent_id":"a"}`, `agent "a" is not yours`, 403},
		{token, "admin_list_agents", `{}`, "missing capability: admin", 403},
		{adminToken, "admin_list_agents", `{}`, "missing capability: admin", 403}, // it is granted by name, even to admins
		{token, "hosted", `{"agent_id":"a"}`, `agent "a" would wait for itself`, 409},
		{token, "echo", `{"input":[]}`, "invalid input: at /: got array, want object", 400},
		{token, "echo", `{`, "invalid JSON body", 400},
	} {
		var out struct{ Error string }
		if status := g.ask(c.token, http.MethodPost, "/api/tools/"+c.tool+"/call", c.body, &out); status != c.status || !strings.HasPrefix(out.Error, c.words) {
			t.Errorf("%s %s: %d %s, want %d %s", c.tool, c.body, status, out.Error, c.status, c.words)
		}
	}
	if err := g.Identity().SetCapability(Ctx(), admin.ID, "admin", true); err != nil {
		t.Fatal(err)
	}
	if out, words := g.callOverHTTP(adminToken, "", "admin_list_agents", ""); words != "" || !strings.Contains(out, `"id":"a"`) {
		t.Error(out, words)
	}
	// An answer that is no JSON is handed on as a string, a failure as one.
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			out, words := g.callOverHTTP(token, "", "hosted", "")
			answers <- out + words
		}()
		call := a.next().GetExecutePackTool()
		r := &pb.ExecuteToolResponse{RequestId: call.GetRequestId(), Result: &pb.ExecuteToolResponse_OutputJson{OutputJson: "no JSON"}}
		if posts == nil {
			r.Result = &pb.ExecuteToolResponse_Error{Error: "no luck"}
		}
		a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: r}})
		x.equal("the answer", <-answers, map[bool]string{true: "no luck", false: `"no JSON"`}[posts == nil])
		posts = nil
	}
}

// What the operator decides about a tool holds on every path.
func TestToolPolicies(t *testing.T) {
	g := New(t, Locked, func(c *config.Config) {
		c.Tools = config.Tools{
			Disabled: []string{"todo_add"}, Roles: []string{"note_set=leader", "note_set=admin"}, Capabilities: []string{"note_get=special"},
			Timeouts: []string{"echo=1s"}, Rates: []string{"note_list=2"},
		}
	})
	p, token := g.Principal("p")
	a := g.ConnectAs(Bearer(token), "a", everything)
	var offered []string
	for _, tool := range a.next().GetWelcome().GetAvailableTools() {
		offered = append(offered, tool.GetName())
	}
	g.Pack(g.packKey("test").Sign(), testPack())
	calls := map[string]func(tool string) string{
		"gRPC": func(tool string) string {
			_, words := a.Call(tool, "")
			return words
		},
		"HTTP": func(tool string) string {
			_, words := g.callOverHTTP(token, "a", tool, "")
			return words
		},
	}
	for path, call := range calls {
		for tool, want := range map[string]string{
			"todo_add": "the tool todo_add is disabled", "note_set": "the tool note_set is for principals with the role leader or admin", "note_get": "missing capability: special",
			"echo": "context deadline exceeded: the tool echo has not answered within 1s",
		} {
			if slices.Contains(offered, tool) {
				t.Errorf("%s is offered", tool)
			}
			if got := call(tool); got != want {
				t.Errorf("%s over %s: %q, want %q", tool, path, got, want)
			}
		}
		if got := call("note_list"); got != "" {
			t.Errorf("a call of two: %s", got)
		}
	}
	for path, call := range calls {
		if got := call("note_list"); !strings.HasPrefix(got, "too many requests") {
			t.Errorf("a call too many over %s: %q", path, got)
		}
	}
	if err := g.Identity().SetRole(Ctx(), p.ID, auth.Leader, true); err != nil {
		t.Fatal(err)
	}
	if got := calls["gRPC"]("note_set"); got != "key is required" {
		t.Errorf("with the role: %q", got)
	}
}
