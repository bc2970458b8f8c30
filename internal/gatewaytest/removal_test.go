package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// follow opens a stream of events and returns what reads the next one, as "id name data".
func follow(t *testing.T, g *Gateway, path, last string) (next func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := g.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		return func() string { return resp.Status }
	}
	r := sse.NewReader(resp.Body)
	return func() string {
		t.Helper()
		e, err := r.Next()
		if err != nil {
			return err.Error()
		}
		var d struct {
			First  int64  `json:"first_seq"`
			Thread string `json:"thread_id"`
		}
		if err := json.Unmarshal([]byte(e.Data), &d); err != nil {
			t.Fatal(err)
		}
		switch e.Name {
		case "removed":
			return fmt.Sprintf("%s removed from %d", e.ID, d.First)
		case "thread_deleted":
			return e.ID + "thread_deleted " + d.Thread
		}
		return e.ID + " " + e.Name
	}
}

// TestRemovalIsTold: over every transport, whoever reads past a deleted thread learns what is missing
// and gets the rest once.
func TestRemovalIsTold(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	c := pb.NewClientServiceClient(g.Dial())
	ctx := context.Background()
	send := func(thread, text string) conversation.Turn {
		t.Helper()
		s := g.Conversations()
		turn, err := s.Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: thread, Frontend: "direct", Sender: "me", Text: text})
		if err != nil {
			t.Fatal(err)
		}
		m := a.Message()
		a.Done(m.RequestId, "re: "+text)
		r, err := s.Reader(Ctx(), "a", conversation.Filter{TurnID: turn.ID}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for !ended(t, r) {
		}
		return turn
	}
	send("one", "1") // events 1, 2
	gone := send("two", "2")
	send("one", "3") // events 5, 6
	send("two", "4") // events 7, 8
	id := func(seq int64) string {
		t.Helper()
		id, err := g.Conversations().EventID(ctx, "a", seq)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	live, stream := follow(t, g, "/api/conversations/a/events?after=8", ""), view(t, c, ctx, "a")
	whole := []string{"1 message", "2 done", "4 removed from 3", "5 message", "6 done", "8 removed from 7"}
	status := func(method, path string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, g.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s: %s, want %d", method, path, resp.Status, want)
		}
	}
	status(http.MethodDelete, "/api/threads/two", http.StatusNoContent)
	status(http.MethodDelete, "/api/threads/two", http.StatusNotFound)
	for _, path := range []string{"/api/threads/two", "/api/threads/two/messages", "/api/threads/two/files", "/api/turns/" + gone.ID, "/api/turns/" + gone.ID + "/events"} {
		status(http.MethodGet, path, http.StatusNotFound)
	}
	if got := live(); got != "thread_deleted two" {
		t.Errorf("a live reader got %q", got)
	}
	stream.until("event thread_deleted")
	stream.want("event thread_deleted out two")
	for range 2 { // from memory and from disk
		for last, from := range map[string]int{"": 0, "2": 2, "3": 2, "4": 3, "6": 5, "7": 5, "8": 6} {
			next := follow(t, g, "/api/conversations/a/events", last)
			for _, want := range whole[from:] {
				if last == "3" && want == "4 removed from 3" {
					want = "4 removed from 4"
				}
				if last == "7" {
					want = "8 removed from 8"
				}
				if got := next(); got != want {
					t.Errorf("behind %q: got %q, want %q", last, got, want)
				}
			}
		}
		for since, want := range map[int64]string{
			1: "event message out re: 1 | event removed out events 3 to 4 were removed | event message inb 3 | event message out re: 3 | event removed out events 7 to 8 were removed",
			3: "event removed out event 4 was removed | event message inb 3 | event message out re: 3 | event removed out events 7 to 8 were removed",
			7: "event removed out event 8 was removed",
		} {
			v := view(t, c, ctx, "a", id(since))
			words := strings.Split(want, " | ")
			v.until(words[len(words)-1])
			v.want(words...)
			if last := v.ids[len(v.ids)-1]; last != id(8) {
				t.Errorf("the last position is %s", last)
			}
			cursor := id(since)
			page, err := c.GetEvents(ctx, &pb.GetEventsRequest{ConversationKey: "a", Cursor: &cursor})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range page.GetEvents() {
				got = append(got, describe(&pb.ClientStreamEvent{Payload: &pb.ClientStreamEvent_Event{Event: e}}))
			}
			if strings.Join(got, " | ") != want {
				t.Errorf("behind %s GetEvents has\n%s, want\n%s", cursor, strings.Join(got, " | "), want)
			}
		}
		page, err := c.GetEvents(ctx, &pb.GetEventsRequest{ConversationKey: "a"})
		if err != nil || len(page.GetEvents()) != 4 {
			t.Errorf("the newest page is %v: %v", page, err)
		}
		unknown := strings.Replace(id(9), "-", "x-", 1)
		v, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a", SinceEventId: &unknown})
		if err == nil {
			_, err = v.Recv()
		}
		refused(t, err, codes.OutOfRange, "not an event of this conversation")
		g.Restart()
		a, c = g.Agent("a"), pb.NewClientServiceClient(g.Dial())
	}
	records, err := g.Identity().AuditRecords(Ctx(), auth.AuditFilter{Action: "delete_thread", Limit: 10})
	if err != nil || len(records) != 1 || records[0].Target != "two" || records[0].Detail != `{"agent_id":"a","turns":2}` {
		t.Errorf("audited %+v: %v", records, err)
	}
	if v, err := g.Identity().VerifyAudit(Ctx()); err != nil || !v.OK {
		t.Errorf("the audit log is %+v: %v", v, err)
	}
	if send("two", "5").First != 9 {
		t.Error("a number was given again")
	}
}

// ended reads on and reports whether a turn has ended.
func ended(t *testing.T, r *conversation.Reader) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(Ctx(), Patience)
	defer cancel()
	evs, err := r.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, over := evs[len(evs)-1].Body.(conversation.Ended)
	return over
}

// TestRemovalDuringSend: messages are stored while a long thread is deleted, and wait for a step of it
// at most.
func TestRemovalDuringSend(t *testing.T) {
	g := New(t)
	a := g.Agent("a")
	s := g.Conversations()
	long, err := s.Send(Ctx(), conversation.SendRequest{AgentID: "a", ThreadID: "long", Frontend: "direct", Sender: "me", Text: "go"})
	if err != nil {
		t.Fatal(err)
	}
	m := a.Message()
	const rows = 3000
	for range rows {
		a.Reply(&pb.MessageResponse{RequestId: m.RequestId, Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "1", Name: "ls", InputJson: `{"path":"` + strings.Repeat("x", 500) + `"}`}}})
	}
	a.Done(m.RequestId, "")
	r, err := s.Reader(Ctx(), "a", conversation.Filter{TurnID: long.ID}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for !ended(t, r) {
	}
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- s.DeleteThread(Ctx(), "long") }()
	var waits []time.Duration
	for deleting := true; deleting; {
		at := time.Now()
		if _, err := s.Send(Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: "hello"}); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(at))
		a.Done(a.Message().RequestId, "")
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			deleting = false
		default:
		}
	}
	var worst, sum time.Duration
	for _, w := range waits {
		worst, sum = max(worst, w), sum+w
	}
	t.Logf("%d rows were removed in %v; %d messages meanwhile waited for %v, at most %v", rows, time.Since(start), len(waits), sum/time.Duration(len(waits)), worst)
	if len(waits) < 5 {
		t.Errorf("%d messages were stored meanwhile", len(waits))
	}
}
