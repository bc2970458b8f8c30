package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
	pb "coven-gateway/proto/coven"
)

func TestMessageAndAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		sink := &recorder{t: t}
		if _, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{
			TurnID: "turn", ThreadID: "thread", Sender: "ada", Text: "hi", Files: []conversation.FileData{{Name: "f", Type: "text/plain", Data: []byte("x")}},
		}, sink); err != nil {
			t.Fatal(err)
		}
		m := a.message()
		got := fmt.Sprint(m.GetRequestId(), m.GetThreadId(), m.GetSender(), m.GetContent(), m.GetAttachments())
		equal(t, "message", got, fmt.Sprint("turn", "thread", "ada", "hi", []*pb.FileAttachment{{Filename: "f", MimeType: "text/plain", Data: []byte("x")}}))

		var want []conversation.Body
		say := func(m *pb.MessageResponse, b conversation.Body) {
			m.RequestId = "turn"
			a.reply(m)
			want = append(want, b)
		}
		say(&pb.MessageResponse{Event: &pb.MessageResponse_Thinking{Thinking: "hm"}}, conversation.Thinking{Text: "hm"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_Text{Text: "hel"}}, conversation.Text{Text: "hel"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: "1", Name: "sh", InputJson: "{}"}}}, conversation.ToolCall{ID: "1", Name: "sh", Input: "{}"})
		for state, word := range []string{"unknown", "pending", "awaiting_approval", "running", "completed", "failed", "denied", "timeout", "canceled", "unknown"} {
			say(&pb.MessageResponse{Event: &pb.MessageResponse_ToolState{ToolState: &pb.ToolStateUpdate{Id: "1", State: pb.ToolState(state), Detail: new("d")}}},
				conversation.ToolState{ID: "1", State: word, Detail: "d"})
		}
		say(&pb.MessageResponse{Event: &pb.MessageResponse_ToolApprovalRequest{ToolApprovalRequest: &pb.ToolApprovalRequest{Id: "1", Name: "sh", InputJson: "{}"}}},
			conversation.Approval{ID: "1", Name: "sh", Input: "{}"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_ToolResult{ToolResult: &pb.ToolResult{Id: "1", Output: "o", IsError: true}}}, conversation.ToolResult{ID: "1", Output: "o", IsError: true})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_Usage{Usage: &pb.TokenUsage{InputTokens: 1, OutputTokens: 2, CacheReadTokens: -3, CacheWriteTokens: 4, ThinkingTokens: 5}}},
			conversation.Usage{Input: 1, Output: 2, CacheWrite: 4, Thinking: 5})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_File{File: &pb.FileData{Filename: "g", MimeType: "image/png", Data: []byte("y")}}}, conversation.FileData{Name: "g", Type: "image/png", Data: []byte("y")})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_SessionInit{SessionInit: &pb.SessionInit{SessionId: "s"}}}, conversation.Session{ID: "s"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_SessionOrphaned{SessionOrphaned: &pb.SessionOrphaned{Reason: "lost"}}}, conversation.SessionOrphaned{Reason: "lost"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_Error{Error: "oops"}}, conversation.Trouble{Text: "oops"})
		a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_ToolState{ToolState: &pb.AgentToolState{RequestId: "turn", Update: &pb.ToolStateUpdate{Id: "2", State: pb.ToolState_TOOL_STATE_RUNNING}}}})
		want = append(want, conversation.ToolState{ID: "2", State: "running"})
		say(&pb.MessageResponse{Event: &pb.MessageResponse_Done{Done: &pb.Done{FullResponse: "hello"}}}, conversation.Ended{State: conversation.Done, Response: "hello"})
		synctest.Wait()
		if d := cmp.Diff(want, sink.events()); d != "" {
			t.Error(d)
		}
		info, _ := g.Agent("a")
		equal(t, "open turns", info.OpenTurns, 0)
		a.cancel()
		synctest.Wait()
		equal(t, "ends besides done", len(sink.ends()), 0)
		equal(t, "in", g.figure("coven_agent_messages_total", "in"), float64(len(want)+1))
		equal(t, "out", g.figure("coven_agent_messages_total", "out"), 2)
	})
}

func TestCancelledByTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		_, first := g.say("a", "1")
		_, second := g.say("a", "2")
		a.reply(&pb.MessageResponse{RequestId: "1", Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{Reason: "why"}}})
		a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Cancelled{Cancelled: &pb.AgentCancelled{RequestId: "2", Reason: "why"}}})
		synctest.Wait()
		for _, sink := range []*recorder{first, second} {
			if d := cmp.Diff([]conversation.Body{conversation.Ended{State: conversation.Cancelled, Cause: "why"}}, sink.events()); d != "" {
				t.Error(d)
			}
		}
		info, _ := g.Agent("a")
		equal(t, "open turns", info.OpenTurns, 0)
	})
}

// What nobody can use is logged, but a flood of it is no flood in the log.
func TestUselessMessages(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		_, sink := g.say("a", "1")
		for range 1000 {
			a.text("late", "x")
			a.reply(&pb.MessageResponse{RequestId: "1"})
		}
		for range 10 {
			a.send(&pb.AgentMessage{})
			a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_Register{Register: &pb.RegisterAgent{AgentId: "b"}}})
			a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_InjectionAck{InjectionAck: &pb.InjectionAck{}}})
			a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_PackToolResult{PackToolResult: &pb.ExecuteToolResponse{}}})
			a.send(&pb.AgentMessage{Payload: &pb.AgentMessage_ToolState{ToolState: &pb.AgentToolState{RequestId: "1"}}})
		}
		a.done("1")
		synctest.Wait()
		equal(t, "events", len(sink.events()), 1)
		equal(t, "lines about late events", g.logged.count("turn_id=late"), 1)
		equal(t, "lines about events of unknown kinds", g.logged.count("event of an unknown kind"), 1)
		equal(t, "lines about messages of unknown kinds", g.logged.count("message of an unknown kind"), 1)
		equal(t, "lines about second registrations", g.logged.count("second time"), 1)
		if _, ok := g.Resolve("b"); ok {
			t.Error("the second registration counts")
		}
		for i := range 1000 {
			a.text(fmt.Sprint("made up ", i), "x")
		}
		synctest.Wait()
		equal(t, "lines about one agent", g.logged.count("ignored"), maxNotes)
	})
}

func TestTurnThatHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		sink := &recorder{t: t, on: func(context.Context, conversation.Body) error { return conversation.ErrTurnEnded }}
		g.sayTo("a", "1", sink)
		a.text("1", "x")
		a.text("1", "y")
		a.done("1")
		synctest.Wait()
		equal(t, "events", len(sink.events()), 1)
		retired, other := g.say("a", "2")
		retired.Retire()
		a.text("2", "x")
		a.cancel()
		synctest.Wait()
		equal(t, "events", len(other.events()), 0)
		equal(t, "ends", len(sink.ends())+len(other.ends()), 0)
	})
}

func TestAnswerThatCannotBeTaken(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		sink := &recorder{t: t, on: func(context.Context, conversation.Body) error { return errors.New("the disk is full") }}
		g.sayTo("a", "1", sink)
		_, other := g.say("a", "2")
		a.message()
		a.message()
		a.text("1", "x")
		a.ends(codes.Internal, "internal server error")
		for _, s := range []*recorder{sink, other} {
			equal(t, "ends", strings.Join(s.ends(), ","), "the gateway could not take the agent's answer")
		}
		equal(t, "lines", g.logged.count("the disk is full"), 1)
	})
}

func TestPanicIsOneAgentsProblem(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a, b := g.agent("a"), g.agent("b")
		sink := &recorder{t: t, on: func(context.Context, conversation.Body) error { panic("oh no") }}
		g.sayTo("a", "1", sink)
		a.message()
		a.text("1", "x")
		a.ends(codes.Internal, "internal server error")
		equal(t, "ends", strings.Join(sink.ends(), ","), "the gateway failed")
		g.say("b", "2")
		b.message()
	})
}

func TestAgentIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		if _, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{TurnID: "1"}, nil); !errors.Is(err, conversation.ErrAgentGone) {
			t.Errorf("got %v", err)
		}
		if err := g.Approve("a", "1", true, false); !errors.Is(err, conversation.ErrAgentGone) {
			t.Errorf("got %v", err)
		}
		if _, ok := g.Agent("a"); ok {
			t.Error("an agent that never came is known")
		}
		for _, leave := range []func(*remote){
			func(a *remote) { a.cancel() },
			func(a *remote) { _ = a.CloseSend() },
		} {
			a := g.agent("a")
			_, first := g.say("a", "1")
			_, second := g.say("a", "2")
			leave(a)
			synctest.Wait()
			equal(t, "ends", strings.Join(append(first.ends(), second.ends()...), ","), "the agent disconnected,the agent disconnected")
			if _, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{TurnID: "3"}, nil); !errors.Is(err, conversation.ErrAgentGone) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// Whoever half-closes has said everything, and still hears what was said to it.
func TestHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.register("a", "p")
		if err := a.CloseSend(); err != nil {
			t.Fatal(err)
		}
		a.welcome()
		a.ends(codes.OK, "")

		b := g.agent("b")
		for g.fill("b", 1<<20) == nil { // until nothing goes any more
		}
		begun := time.Now()
		if err := b.CloseSend(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		equal(t, "agents", g.Len(), 0) // the id is free at once
		for {
			if _, err := b.Recv(); err != nil {
				equal(t, "end", err, io.EOF)
				break
			}
		}
		if d := time.Since(begun); d > flushTimeout {
			t.Errorf("it took %s", d)
		}
	})
}

// fill dispatches a large message and gives up after a while.
func (g *gateway) fill(agentID string, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := g.Dispatch(ctx, agentID, conversation.Dispatch{TurnID: fmt.Sprint(time.Now().UnixNano(), "/", filled.Add(1)), Text: strings.Repeat("x", size)}, &recorder{t: g.t})
	return err
}

var filled atomic.Int64

func TestAgentThatDoesNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a", featureCancellation)
		call, sink := g.say("a", "1")
		sent := 1
		var err error
		for err == nil {
			if err = g.fill("a", 64<<10); err == nil {
				sent++
			}
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if sent < maxWaiting || sent > maxWaiting+20 {
			t.Errorf("%d messages went to an agent that does not read", sent)
		}
		equal(t, "queue", g.figure("coven_agent_out_queue"), maxWaiting-1) // one is with the writer

		// What does not wait for room still goes, within bounds, and in order.
		if !call.Cancel("enough") || !call.Cancel("again") {
			t.Error("cannot cancel")
		}
		approvals := 0
		for g.Approve("a", "tool", true, false) == nil {
			approvals++
		}
		equal(t, "queue", g.figure("coven_agent_out_queue"), maxUnread)
		if err := g.Approve("a", "tool", true, false); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("got %v", err)
		}

		waiting := make(chan error)
		go func() {
			_, err := g.Dispatch(context.Background(), "a", conversation.Dispatch{TurnID: "last"}, &recorder{t: t})
			waiting <- err
		}()
		synctest.Wait()
		for range sent {
			a.message()
		}
		if c := a.next().GetCancelRequest(); c.GetRequestId() != "1" || c.GetReason() != "enough" {
			t.Errorf("got %v instead of the cancellation", c)
		}
		for range approvals {
			if m := a.next().GetToolApproval(); m.GetId() != "tool" || !m.GetApproved() || m.GetApproveAll() {
				t.Fatalf("got %v instead of an approval", m)
			}
		}
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		equal(t, "last message", a.message().GetRequestId(), "last")

		for g.fill("a", 64<<10) == nil {
		}
		go func() {
			_, err := g.Dispatch(context.Background(), "a", conversation.Dispatch{TurnID: "too late"}, &recorder{t: t})
			waiting <- err
		}()
		synctest.Wait()
		a.cancel()
		if err := <-waiting; !errors.Is(err, conversation.ErrAgentGone) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		equal(t, "ends", len(sink.ends()), 1)
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.agent("old")
		call, _ := g.say("old", "1")
		if call.Cancel("stop") {
			t.Error("an agent understands what it does not know")
		}
		a := g.agent("new", featureCancellation)
		call, _ = g.say("new", "2")
		if !call.Cancel("not \xff UTF-8") {
			t.Error("an agent does not understand what it knows")
		}
		equal(t, "message", a.message().GetRequestId(), "2")
		c := a.next().GetCancelRequest()
		equal(t, "request", c.GetRequestId(), "2")
		equal(t, "reason", c.GetReason(), "not \uFFFD UTF-8")
		a.done("2")
		synctest.Wait()
		if call.Cancel("stop") {
			t.Error("what has ended can be cancelled")
		}
	})
}

func TestApprove(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		if err := g.Approve("a", "tool", false, true); err != nil {
			t.Fatal(err)
		}
		if m := a.next().GetToolApproval(); m.GetId() != "tool" || m.GetApproved() || !m.GetApproveAll() {
			t.Errorf("got %v", m)
		}
	})
}

func TestMessageSizes(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		_, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{TurnID: "1", Files: []conversation.FileData{{Data: make([]byte, MaxDispatch)}}}, nil)
		if fault.CodeOf(err) != fault.TooLarge || !strings.Contains(fault.Message(err), fmt.Sprint(MaxDispatch)) {
			t.Errorf("got %v", err)
		}
		sink := &recorder{t: t}
		if _, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{TurnID: "2", Files: []conversation.FileData{{Data: make([]byte, MaxDispatch-20)}}}, sink); err != nil {
			t.Fatal(err)
		}
		a.message() // decoded with the usual limit of 4 MiB
		a.reply(&pb.MessageResponse{RequestId: "2", Event: &pb.MessageResponse_File{File: &pb.FileData{Data: make([]byte, 10<<20)}}})
		synctest.Wait()
		equal(t, "events", len(sink.events()), 1)
		a.reply(&pb.MessageResponse{RequestId: "2", Event: &pb.MessageResponse_File{File: &pb.FileData{Data: make([]byte, MaxReceive)}}})
		a.ends(codes.ResourceExhausted, "")
		synctest.Wait()
		if ends := sink.ends(); len(ends) != 1 || !strings.Contains(ends[0], "larger than max") {
			t.Errorf("ends: %q", ends)
		}
	})
}

func TestSameRequestTwice(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.agent("a")
		_, first := g.say("a", "1")
		for range 2 * maxWaiting {
			if _, err := g.Dispatch(t.Context(), "a", conversation.Dispatch{TurnID: "1"}, nil); fault.CodeOf(err) != fault.Conflict {
				t.Fatalf("got %v", err)
			}
		}
		equal(t, "ends", len(first.ends()), 0)
	})
}

// A sink that takes nothing stops its own agent, and nobody else.
func TestSlowSink(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a, b := g.agent("a"), g.agent("b")
		slow := &recorder{t: t, on: func(ctx context.Context, _ conversation.Body) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}}
		g.sayTo("a", "1", slow)
		_, quick := g.say("b", "2")
		a.text("1", "x")
		a.text("1", "y")
		b.text("2", "x")
		b.done("2")
		synctest.Wait()
		equal(t, "events of the quick one", len(quick.events()), 2)
		equal(t, "events of the slow one", len(slow.events()), 1)
		g.say("a", "3")
		a.message()
		equal(t, "message", a.message().GetRequestId(), "3")
		a.cancel()
		synctest.Wait()
		equal(t, "events of the slow one", len(slow.events()), 1)
		equal(t, "ends of the slow one", strings.Join(slow.ends(), ","), "the agent disconnected")
	})
}

func TestHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.agent("never sent one")
		a := g.agent("a")
		_, sink := g.say("a", "1")
		a.message()
		a.heartbeat()
		for range 10 {
			time.Sleep(silence - time.Second)
			a.text("1", "x") // any sign of life will do
		}
		synctest.Wait()
		begun := time.Now()
		a.ends(codes.Unavailable, "no heartbeat for 1m30s")
		equal(t, "patience", time.Since(begun), silence)
		synctest.Wait()
		equal(t, "ends", strings.Join(sink.ends(), ","), "the agent sent no heartbeat for 1m30s")
		time.Sleep(time.Hour)
		equal(t, "agents", g.Len(), 1)
	})
}

// An agent is not silent while the gateway does not listen.
func TestHeartbeatsWhileBusy(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		slow := &recorder{t: t, on: func(context.Context, conversation.Body) error {
			time.Sleep(10 * silence)
			return nil
		}}
		g.sayTo("a", "1", slow)
		a.heartbeat()
		a.text("1", "x")
		time.Sleep(10*silence + time.Second)
		equal(t, "agents", g.Len(), 1)
		time.Sleep(2 * silence)
		equal(t, "agents", g.Len(), 0)
	})
}

// An agent that calls tools and does not read the results has to go.
func TestAgentThatDoesNotReadResults(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		_, sink := g.say("a", "1")
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			call := &pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{RequestId: strings.Repeat("r", 1000)}}}
			for a.Send(call) == nil {
			}
		}()
		time.Sleep(unreadTimeout + time.Second)
		equal(t, "agents", g.Len(), 0)
		equal(t, "ends", strings.Join(sink.ends(), ","), "the agent does not read its stream")
		a.cancel()
		<-gone
	})
}

// Calls by one caller arrive in their order, and several turns are open at once.
func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		const n = 200
		go func() {
			for i := range n {
				g.say("a", fmt.Sprint(i))
			}
		}()
		for i := range n {
			equal(t, "message", a.message().GetRequestId(), fmt.Sprint(i))
		}
		synctest.Wait()
		info, _ := g.Agent("a")
		equal(t, "open turns", info.OpenTurns, n)
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		polite, stubborn, deaf, stuck := g.agent("polite"), g.agent("stubborn"), g.agent("deaf"), g.agent("stuck")
		waiting, unregistered := g.register("stubborn", "p"), g.stream("p")
		_, sink := g.say("polite", "1")
		polite.message()
		slow := &recorder{t: t, on: func(ctx context.Context, _ conversation.Body) error { <-ctx.Done(); return context.Cause(ctx) }}
		g.sayTo("stuck", "2", slow)
		stuck.message()
		stuck.text("2", "x")
		for g.fill("deaf", 64<<10) == nil {
		}
		synctest.Wait()
		begun := time.Now()
		down := make(chan error)
		go func() { down <- g.Shutdown(t.Context(), "bye") }()
		for _, a := range []*remote{polite, stubborn, stuck} {
			equal(t, "reason", a.next().GetShutdown().GetReason(), "bye")
		}
		if err := polite.CloseSend(); err != nil {
			t.Fatal(err)
		}
		polite.ends(codes.OK, "")
		equal(t, "the polite agent", time.Since(begun), 0)
		unregistered.ends(codes.Unavailable, "the gateway is shutting down")
		waiting.ends(codes.Unavailable, "the gateway is shutting down")
		g.register("new", "p").ends(codes.Unavailable, "the gateway is shutting down")
		stubborn.ends(codes.OK, "")
		equal(t, "the stubborn agent", time.Since(begun), leaveGrace)
		stuck.ends(codes.OK, "")
		if err := <-down; err != nil {
			t.Error(err)
		}
		equal(t, "agents", g.Len(), 0)
		equal(t, "everything", time.Since(begun), leaveGrace)
		for _, s := range []*recorder{sink, slow} {
			equal(t, "ends", strings.Join(s.ends(), ","), "the gateway was shut down")
		}
		if err := g.Shutdown(t.Context(), "bye"); err != nil {
			t.Error(err)
		}
		for {
			if _, err := deaf.Recv(); err != nil {
				equal(t, "the deaf agent", status.Code(err), codes.Unknown) // io.EOF: OK
				equal(t, "the deaf agent", err, io.EOF)
				break
			}
		}
	})
}

func TestShutdownWithoutTime(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		if err := g.Shutdown(ctx, "bye"); err != nil {
			t.Error(err)
		}
		equal(t, "time", time.Since(begun), 0)
		for {
			m, err := a.Recv()
			if err != nil {
				equal(t, "end", err, io.EOF)
				break
			}
			if m.GetShutdown() == nil {
				t.Errorf("got %v", m)
			}
		}
	})
}

func TestShutdownWithASinkThatDoesNotObey(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		a := g.agent("a")
		release := make(chan struct{})
		g.sayTo("a", "1", &recorder{t: t, on: func(context.Context, conversation.Body) error { <-release; return nil }})
		a.text("1", "x")
		synctest.Wait()
		if err := g.Shutdown(t.Context(), "bye"); err == nil || !slices.Contains([]string{"1 agent streams did not end"}, err.Error()) {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}
