package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	pb "coven-gateway/proto/coven"
)

const askShip = `{"question":"Ship?","options":[{"label":"Yes","description":"do it"},{"label":"No"}],"header":"Release","timeout_seconds":10}`

// asking is an agent in the middle of a turn.
type asking struct {
	*Agent
	g       *Gateway
	request string
}

func (g *Gateway) asking(ctx context.Context, by auth.Principal) asking {
	g.t.Helper()
	a := g.ConnectAs(ctx, "a", func(r *pb.RegisterAgent) { r.Capabilities = []string{"ui"} })
	if a.Welcome = a.next().GetWelcome(); a.Welcome == nil {
		g.t.Fatal(a.Err())
	}
	go func() {
		resp, err := pb.NewClientServiceClient(g.Dial()).SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hi", IdempotencyKey: "k"})
		if err != nil {
			g.t.Error(resp, err)
		}
	}()
	return asking{a, g, a.Message().RequestId}
}

// result is what the tool has returned.
func (a asking) result() string {
	a.g.t.Helper()
	r := a.Next().GetPackToolResult()
	if r.GetError() != "" {
		return "error: " + r.GetError()
	}
	return r.GetOutputJson()
}

// pending returns the id of the only question.
func (g *Gateway) pending(token string) string {
	g.t.Helper()
	var list struct {
		Questions []struct {
			ID       string `json:"question_id"`
			Question string
			Options  []struct{ Label, Description string }
		}
	}
	for len(list.Questions) == 0 {
		_, text := g.request("GET", "/api/questions?agent_id=a", token, "")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			g.t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // in a bubble
	}
	if q := list.Questions[0]; len(list.Questions) != 1 || q.Question != "Ship?" || len(q.Options) != 2 || q.Options[0].Description != "do it" {
		g.t.Fatalf("%+v", list)
	}
	return list.Questions[0].ID
}

// TestQuestion: a question of an agent reaches all who follow, on every transport; an answer that does
// not fit, or is somebody else's, changes nothing; the first one that fits is the agent's.
func TestQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.asking(Ctx(), auth.Anonymous)
		stream, err := pb.NewClientServiceClient(g.Dial()).StreamEvents(t.Context(), &pb.StreamEventsRequest{ConversationKey: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil { // from here on it misses nothing
			t.Fatal(err)
		}
		a.Ask("1", "ask_user", askShip)
		var asked *pb.UserQuestionRequest
		for asked == nil {
			e, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			asked = e.GetUserQuestion()
		}
		id := g.pending("")
		if asked.QuestionId != id || asked.AgentId != "a" || asked.Question != "Ship?" || asked.GetHeader() != "Release" || asked.TimeoutSeconds != 10 || asked.MultiSelect ||
			len(asked.Options) != 2 || asked.Options[0].GetDescription() != "do it" || asked.Options[1].Description != nil {
			t.Errorf("%v", asked)
		}
		for body, want := range map[string]string{
			`{"question_id":"x","selected":["Yes"]}`:                                                             "400 agent_id is required",
			`{"agent_id":"a","selected":["Yes"]}`:                                                                "400 question_id is required",
			`{"agent_id":"a","question_id":"x"}`:                                                                 "400 at least one selection or custom_text is required",
			`{"agent_id":"a","question_id":"x","selected":["Yes"]}`:                                              "404 question not found or already answered",
			`{"agent_id":"b","question_id":"` + id + `","selected":["Yes"]}`:                                     "404 question not found or already answered",
			`{"agent_id":"a","question_id":"` + id + `","selected":["Maybe"]}`:                                   `400 selected[0]: "Maybe" is not an option`,
			`{"agent_id":"a","question_id":"` + id + `","selected":["Yes","No"]}`:                                "400 selected must have at most one of the options; this one has 2",
			fmt.Sprintf(`{"agent_id":"a","question_id":%q,"custom_text":%q}`, id, strings.Repeat("x", 64<<10+1)): "413 custom_text must not be longer than 65536 bytes; this one has 65537",
		} {
			resp, text := g.request("POST", "/api/questions/answer", "", body)
			var out struct{ Error string }
			if err := json.Unmarshal([]byte(text), &out); err != nil || fmt.Sprint(resp.StatusCode, " ", out.Error) != want {
				t.Errorf("%.80s: %d %s, want %s", body, resp.StatusCode, text, want)
			}
		}
		c := pb.NewClientServiceClient(g.Dial())
		for _, q := range []struct {
			r    *pb.AnswerQuestionRequest
			want string
		}{
			{&pb.AnswerQuestionRequest{AgentId: "b", QuestionId: id}, `answer agent_id "b" does not match question agent_id "a"`},
			{&pb.AnswerQuestionRequest{AgentId: "a", QuestionId: "x"}, "no pending question with ID x"},
			{&pb.AnswerQuestionRequest{AgentId: "a", QuestionId: id, Selected: []string{"Maybe"}}, `selected[0]: "Maybe" is not an option`},
		} {
			if r, err := c.AnswerQuestion(Ctx(), q.r); err != nil || r.Success || r.GetError() != q.want {
				t.Errorf("%v: %v %v, want %s", q.r, r, err, q.want)
			}
		}
		_, err = c.AnswerQuestion(Ctx(), &pb.AnswerQuestionRequest{AgentId: "a"})
		refused(t, err, codes.InvalidArgument, "question_id required")
		if r, err := c.AnswerQuestion(Ctx(), &pb.AnswerQuestionRequest{AgentId: a.Welcome.GetInstanceId(), QuestionId: id, Selected: []string{"Yes"}, CustomText: new("now")}); err != nil || !r.Success {
			t.Errorf("%v %v", r, err)
		}
		if got := a.result(); got != `{"answered":true,"custom_text":"now","selected":["Yes"]}` {
			t.Error(got)
		}
		if resp, _ := g.request("POST", "/api/questions/answer", "", `{"agent_id":"a","question_id":"`+id+`","selected":["No"]}`); resp.StatusCode != http.StatusNotFound {
			t.Error("a second answer was taken", resp.Status)
		}
		// Over HTTP, several choices.
		a.Ask("2", "ask_user", strings.Replace(askShip, `"header"`, `"multi_select":true,"header"`, 1))
		id = g.pending("")
		if resp, text := g.request("POST", "/api/questions/answer", "", `{"agent_id":"a","question_id":"`+id+`","selected":["No","Yes"]}`); resp.StatusCode != 200 || text != `{"success":true}`+"\n" && text != `{"success":true}` {
			t.Error(resp.Status, text)
		}
		if got := a.result(); got != `{"answered":true,"selected":["No","Yes"]}` {
			t.Error(got)
		}
		// A person asks on behalf of the agent.
		answer := make(chan string)
		go func() {
			output, words := g.callOverHTTP("", "a", "ask_user", askShip)
			answer <- output + words
		}()
		id = g.pending("")
		g.request("POST", "/api/questions/answer", "", `{"agent_id":"a","question_id":"`+id+`","custom_text":"why?"}`)
		if got := <-answer; got != `{"answered":true,"custom_text":"why?","selected":[]}` {
			t.Error(got)
		}
		// Nobody answers.
		began := time.Now()
		a.Ask("3", "ask_user", askShip)
		if got := a.result(); got != `{"answered":false,"reason":"timeout"}` || time.Since(began).Round(time.Second) != 10*time.Second {
			t.Error(got, time.Since(began))
		}
		a.Ask("4", "ask_user", strings.Replace(askShip, "10", "1000", 1))
		began = time.Now()
		if got := a.result(); got != `{"answered":false,"reason":"timeout"}` || time.Since(began).Round(time.Second) != 5*time.Minute {
			t.Error(got, time.Since(began))
		}
		// The turn ends.
		a.Ask("5", "ask_user", askShip)
		g.pending("")
		a.Done(a.request, "")
		if got := a.result(); got != `{"answered":false,"reason":"no_response"}` {
			t.Error(got)
		}
		a.Ask("6", "ask_user", askShip)
		if got := a.result(); got != "error: failed to send question: no connected clients for agent a" {
			t.Error(got)
		}
		for input, want := range map[string]string{
			`{"options":[{"label":"A"}]}`: "question is required", `{"question":"q"}`: "at least one option is required",
			`{"question":"q","options":[{"label":"A"},{"label":"A"}]}`: `duplicate option label: "A"`,
			`{"question":"q","options":[{}]}`:                          "options[0]: label is required",
		} {
			a.Ask("7", "ask_user", input)
			if got := a.result(); got != "error: "+want {
				t.Errorf("%s: %s", input, got)
			}
		}
		if got := strings.ReplaceAll(g.events(a.request), "tool_run ", ""); got != "message user_question question_answered user_question question_answered user_question question_answered user_question question_answered user_question question_answered user_question done" {
			t.Error(got)
		}
	})
}

// TestAdminToolsOverHTTP: a person sends a message through a tool and waits for the answer.
func TestAdminToolsOverHTTP(t *testing.T) {
	g := New(t)
	a := g.Agent("a", everything)
	go func() {
		m := a.Message()
		a.Text(m.RequestId, "hel", "lo")
		a.Done(m.RequestId, "hello")
	}()
	if output, words := g.callOverHTTP("", "boss", "admin_send_message", `{"agent_id":"a","content":"hi"}`); !strings.HasSuffix(output, `"response":"hello","status":"sent"}`) {
		t.Error(output, words)
	}
	if output, words := g.callOverHTTP("", "boss", "admin_agent_messages", `{"agent_id":"a"}`); !strings.Contains(output, "hello") || words != "" {
		t.Error(output, words)
	}
	if output, words := g.callOverHTTP("", "boss", "admin_send_message", `{"agent_id":"nobody","content":"hi"}`); words != "sending message: agent not found" {
		t.Error(output, words)
	}
}

// TestQuestionIsForTheCaller: others see and answer only what their own turns ask.
func TestQuestionIsForTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, Locked)
		me, token := g.Principal("me", auth.Member)
		a := g.asking(Bearer(token), me)
		a.Ask("1", "ask_user", askShip)
		id := g.pending(token)
		_, stranger := g.Principal("stranger", auth.Member)
		if _, text := g.request("GET", "/api/questions", stranger, ""); strings.Contains(text, "Ship") {
			t.Error(text)
		}
		body := `{"agent_id":"a","question_id":"` + id + `","selected":["Yes"]}`
		if resp, text := g.request("POST", "/api/questions/answer", stranger, body); resp.StatusCode != http.StatusNotFound {
			t.Error(resp.Status, text)
		}
		if resp, text := g.request("POST", "/api/questions/answer", token, body); resp.StatusCode != 200 {
			t.Error(resp.Status, text)
		}
		if got := a.result(); got != `{"answered":true,"selected":["Yes"]}` {
			t.Error(got)
		}
		// An agent that goes away asks nobody any more.
		a.Ask("2", "ask_user", askShip)
		g.pending(token)
		a.Die()
		synctest.Wait()
		if _, text := g.request("GET", "/api/questions", token, ""); strings.Contains(text, "Ship") {
			t.Error(text)
		}
	})
}

// TestToolNeedsApproval: of a tool that needs an approval people are asked before an agent's call of
// it, like for the agent's own tools; a person's own call needs none.
func TestToolNeedsApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t, func(c *config.Config) { c.Tools.Approval = []string{"note_set"} })
		a := g.ConnectAs(Ctx(), "a", func(r *pb.RegisterAgent) { r.Capabilities = []string{"notes"} })
		if a.next().GetWelcome() == nil {
			t.Fatal(a.Err())
		}
		x := asking{a, g, ""}
		set := func(id string) { a.Ask(id, "note_set", `{"key":"k","value":"`+id+`"}`) }
		set("0")
		if got := x.result(); got != "error: the tool note_set needs an approval, and the agent is answering nobody who could give it" {
			t.Error(got)
		}
		c := pb.NewClientServiceClient(g.Dial())
		sent, err := c.SendMessage(Ctx(), &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hi", IdempotencyKey: "k"})
		if err != nil || a.Message().RequestId != sent.RequestId {
			t.Fatal(sent, err)
		}
		decide := func(answer string) {
			t.Helper()
			var list struct {
				Approvals []struct {
					ToolID string `json:"tool_id"`
					Tool   string `json:"tool_name"`
					Input  string `json:"input_json"`
				}
			}
			synctest.Wait()
			_, text := g.request("GET", "/api/approvals?agent_id=a", "", "")
			if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Approvals) != 1 || list.Approvals[0].Tool != "note_set" || !strings.Contains(list.Approvals[0].Input, `"key":"k"`) {
				t.Fatal(text, err)
			}
			if resp, text := g.request("POST", "/api/tools/approve", "", `{"agent_id":"a","tool_id":"`+list.Approvals[0].ToolID+`",`+answer+`}`); resp.StatusCode != 200 {
				t.Error(resp.Status, text)
			}
		}
		set("1")
		decide(`"approved":false`)
		if got := x.result(); !strings.HasPrefix(got, "error: the tool note_set was denied by ") {
			t.Error(got)
		}
		set("2")
		decide(`"approved":true`)
		if got := x.result(); got != `{"key":"k","status":"saved"}` {
			t.Error(got)
		}
		began := time.Now()
		set("3")
		if got := x.result(); got != "error: nobody has approved the tool note_set within 4m30s" || time.Since(began) < 4*time.Minute {
			t.Error(got)
		}
		set("4")
		decide(`"approved":true,"approve_all":true`)
		x.result()
		set("5") // nobody is asked any more
		if got := x.result(); got != `{"key":"k","status":"saved"}` {
			t.Error(got)
		}
		if resp, text := g.request("POST", "/api/tools/note_get/call", "", `{"agent_id":"a","input":{"key":"k"}}`); resp.StatusCode != 200 || !strings.Contains(text, `"5"`) {
			t.Error(resp.Status, text)
		}
		if resp, text := g.request("POST", "/api/tools/note_set/call", "", `{"agent_id":"a","input":{"key":"k","value":"me"}}`); resp.StatusCode != 200 {
			t.Error(resp.Status, text)
		}
		a.Done(sent.RequestId, "")
		if got := strings.ReplaceAll(g.events(sent.RequestId), "tool_run ", ""); got != "message tool_approval tool_decision tool_approval tool_decision tool_approval tool_decision tool_approval tool_decision tool_approval tool_decision done" {
			t.Error(got)
		}
	})
}
