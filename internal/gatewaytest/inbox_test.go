package gatewaytest

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	pb "coven-gateway/proto/coven"
)

// queued is what the API says of a message that waits.
type queued struct {
	RequestID string `json:"request_id"`
	ThreadID  string `json:"thread_id"`
	State     string
	Until     time.Time `json:"waiting_until"`
}

// queue sends a message that may wait.
func (g *Gateway) queue(body string) queued {
	g.t.Helper()
	resp, text := g.request("POST", "/api/send", "", body, "Accept", "application/json")
	var q queued
	if err := json.Unmarshal([]byte(text), &q); err != nil || resp.StatusCode != http.StatusAccepted || q.State != "queued" {
		g.t.Fatalf("%s %s", resp.Status, text)
	}
	return q
}

// events returns the names of the events of a turn that has ended.
func (g *Gateway) events(id string) string {
	g.t.Helper()
	_, text := g.request("GET", "/api/turns/"+id+"/events", "", "", "Accept", "text/event-stream")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^event: (\w+)`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return strings.Join(names, " ")
}

// TestQueue: messages for an agent that is away wait, also while the gateway is restarted, and are
// delivered in their order when it comes, each one when the one before it in its thread is answered.
func TestQueue(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	if resp, text := g.request("POST", "/api/send", "", `{"agent_id":"a","sender":"me","content":"hi","delivery":"later"}`); resp.StatusCode != 400 ||
		!strings.Contains(text, `delivery must be fail, queue or interrupt; got \"later\"`) {
		t.Errorf("%s %s", resp.Status, text)
	}
	for _, wait := range []string{"-1", "2592001"} {
		if resp, text := g.request("POST", "/api/send", "", `{"agent_id":"a","sender":"me","content":"hi","delivery":"queue","wait_seconds":`+wait+`}`); resp.StatusCode != 400 {
			t.Errorf("%s %s", resp.Status, text)
		}
	}
	if resp, text := g.request("POST", "/api/send", "", `{"agent_id":"nobody","sender":"me","content":"hi","delivery":"queue"}`); resp.StatusCode != 404 {
		t.Errorf("%s %s", resp.Status, text)
	}
	// Somebody has talked to the agent, so that it is known when it is away.
	if resp, err := g.Client.Post(g.URL+"/api/send", "", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi"}`)); err != nil {
		t.Fatal(err)
	} else {
		a.Done(a.Message().RequestId, "")
		resp.Body.Close()
	}
	a.Die()
	g.away("a")
	first := g.queue(`{"agent_id":"a","thread_id":"t","sender":"me","content":"one","delivery":"queue","attachments":[{"filename":"f","data":"aGVsbG8="}]}`)
	second := g.queue(`{"agent_id":"a","thread_id":"t","sender":"me","content":"two","delivery":"queue","wait_seconds":60}`)
	third := g.queue(`{"agent_id":"a","thread_id":"t","sender":"me","content":"three","delivery":"queue"}`)
	other := g.queue(`{"agent_id":"a","thread_id":"u","sender":"me","content":"four","delivery":"queue"}`)
	if d := time.Until(first.Until); d < 23*time.Hour || d > 24*time.Hour {
		t.Errorf("it waits for %s", d)
	}
	if d := time.Until(second.Until); d < 30*time.Second || d > time.Minute {
		t.Errorf("it waits for %s", d)
	}
	again := g.queue(`{"agent_id":"a","sender":"me","content":"x","delivery":"queue","idempotency_key":"k"}`)
	if twice := g.queue(`{"agent_id":"a","sender":"me","content":"x","delivery":"queue","idempotency_key":"k"}`); twice.RequestID != again.RequestID {
		t.Error("the message was queued twice")
	}
	for _, id := range []string{second.RequestID, again.RequestID} {
		if resp, text := g.request("POST", "/api/turns/"+id+"/cancel", "", ""); resp.StatusCode != http.StatusAccepted || !strings.Contains(text, `"state":"cancelled"`) {
			t.Errorf("%s %s", resp.Status, text)
		}
	}
	g.Restart()
	if _, text := g.request("GET", "/api/turns?state=queued&agent_id=a", "", ""); strings.Count(text, `"queued"`) != 3 || strings.Count(text, "waiting_until") != 3 {
		t.Error(text)
	}
	if _, text := g.request("GET", "/api/turns?limit=2", "", ""); strings.Count(text, `"queued"`) != 2 || !strings.Contains(text, `"has_more":true`) || !strings.Contains(text, first.RequestID) {
		t.Error(text)
	}
	if resp, _ := g.request("GET", "/api/turns?state=done", "", ""); resp.StatusCode != 400 {
		t.Error(resp.Status)
	}
	a = g.Agent("a")
	m := a.Message()
	if m.RequestId != first.RequestID || m.Content != "one" || string(m.Attachments[0].Data) != "hello" || m.ThreadId != "t" {
		t.Fatalf("%v", m)
	}
	if m := a.Message(); m.RequestId != other.RequestID { // the thread of the third one is busy
		t.Fatalf("%v", m)
	}
	a.Done(first.RequestID, "")
	if m := a.Message(); m.RequestId != third.RequestID {
		t.Fatalf("%v", m)
	}
	a.Done(third.RequestID, "")
	a.Done(other.RequestID, "")
	for id, want := range map[string]string{
		first.RequestID: "message queued delivered done", second.RequestID: "message queued canceled", third.RequestID: "message queued delivered done",
	} {
		if got := g.events(id); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// away waits until an agent is not connected any more.
func (g *Gateway) away(id string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for {
		if _, text := g.request("GET", "/api/agents", "", ""); !strings.Contains(text, `"`+id+`"`) {
			return
		}
		select {
		case <-ctx.Done():
			g.t.Fatal("the agent is still there")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestQueueExpires: a message that has waited for too long ends as expired, and its sender is told.
func TestQueueExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.Agent("a")
		go func() { a.Done(a.Message().RequestId, "") }()
		g.request("POST", "/api/send", "", `{"agent_id":"a","sender":"me","content":"hi"}`)
		a.Die()
		synctest.Wait()
		resp, err := g.Client.Post(g.URL+"/api/send", "", strings.NewReader(`{"agent_id":"a","sender":"me","content":"hi","delivery":"queue","wait_seconds":20}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		last := ""
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			if strings.HasPrefix(in.Text(), "data: ") {
				last = in.Text()
			}
		}
		if d := time.Since(began); d.Round(time.Second) != 20*time.Second || !strings.Contains(last, `{"error":"the agent did not take the message in time","recoverable":true}`) {
			t.Errorf("after %s: %s", d, last)
		}
	})
}

// TestInterrupt: a message may end the turn of its thread that is under way, and no other.
func TestInterrupt(t *testing.T) {
	g := New(t, Locked)
	_, token := g.Principal("me")
	owner, ownerToken := g.Principal("owner")
	a := g.ConnectAs(Bearer(ownerToken), "a", func(r *pb.RegisterAgent) { r.ProtocolFeatures = []string{"cancellation"} })
	if a.next().GetWelcome() == nil {
		t.Fatal(a.Err())
	}
	_ = owner
	send := func(token, thread, delivery string) string {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, "POST", g.URL+"/api/send", strings.NewReader(`{"agent_id":"a","thread_id":"`+thread+`","sender":"me","content":"hi","delivery":"`+delivery+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := g.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || resp.StatusCode != 200 {
			return resp.Status
		}
		return line
	}
	send(token, "t", "")
	first := a.Message()
	send(token, "u", "interrupt")
	second := a.Message()
	done := make(chan struct{})
	go func() {
		defer close(done)
		send(token, "t", "interrupt")
	}()
	m := a.Next().GetCancelRequest()
	if m.GetRequestId() != first.RequestId {
		t.Fatalf("%v", m)
	}
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_Response{Response: &pb.MessageResponse{RequestId: first.RequestId, Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: "ok"}}}}})
	third := a.Message()
	<-done
	if third.ThreadId != "t" {
		t.Errorf("%v", third)
	}
	// What others have begun is not interrupted, and nobody may take part in their thread.
	_, stranger := g.Principal("stranger")
	if got := send(stranger, "t", "interrupt"); !strings.HasPrefix(got, "403") {
		t.Error(got)
	}
	a.Done(second.RequestId, "")
	a.Done(third.RequestId, "")
}

// TestQueueOverGRPC: a gRPC client may have its message wait, too.
func TestQueueOverGRPC(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	c := pb.NewClientServiceClient(g.Dial())
	send := func(key, delivery string) (*pb.ClientSendMessageResponse, error) {
		return c.SendMessage(Ctx(), &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hi", IdempotencyKey: key, Delivery: delivery})
	}
	if r, err := send("1", ""); err != nil || r.State != "open" || r.RequestId != a.Message().RequestId {
		t.Fatal(r, err)
	} else {
		a.Done(r.RequestId, "")
	}
	a.Die()
	g.away("a")
	_, err := send("2", "")
	refused(t, err, codes.NotFound, "agent not found")
	_, err = send("2", "soon")
	refused(t, err, codes.InvalidArgument, `delivery must be fail, queue or interrupt; got "soon"`)
	r, err := send("3", "queue")
	if err != nil || r.State != "queued" || r.Status != "accepted" {
		t.Fatal(r, err)
	}
	a = g.Agent("a")
	if m := a.Message(); m.RequestId != r.RequestId {
		t.Errorf("%v", m)
	}
	a.Done(r.RequestId, "")
	if r, err := send("3", "queue"); err != nil || r.Status != "duplicate" {
		t.Error(r, err)
	}
}

// TestQueueOfChannel: a binding says how the messages of its channel are delivered.
func TestQueueOfChannel(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	if resp, text := g.request("POST", "/api/bindings", "", `{"frontend":"slack","channel_id":"c","agent_id":"a","delivery":"later"}`); resp.StatusCode != 400 {
		t.Errorf("%s %s", resp.Status, text)
	}
	if resp, text := g.request("POST", "/api/bindings", "", `{"frontend":"slack","channel_id":"c","agent_id":"a","delivery":"queue"}`); resp.StatusCode != 201 || !strings.Contains(text, `"delivery":"queue"`) {
		t.Errorf("%s %s", resp.Status, text)
	}
	const body = `{"frontend":"slack","channel_id":"c","sender":"me","content":"hi"}`
	q := g.queue(body)
	if m := a.Message(); m.RequestId != q.RequestID {
		t.Errorf("%v", m)
	}
	a.Done(q.RequestID, "")
	a.Die()
	g.away("a")
	q = g.queue(body)
	a = g.Agent("a")
	if m := a.Message(); m.RequestId != q.RequestID {
		t.Errorf("%v", m)
	}
	a.Done(q.RequestID, "")
}
