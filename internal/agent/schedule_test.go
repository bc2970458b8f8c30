package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
)

// A life is one connection of an agent in a schedule.
type life struct {
	Answers []answer // to the messages, in order; then it leaves
	Leave   int      // how
}

// An answer is what the agent sends for one message.
type answer struct {
	Texts int
	End   int
}

// A sender is somebody who talks to the agent in a schedule.
type sender struct {
	Messages []message
}

type message struct {
	Retire, Cancel, Impatient, Poison bool
}

// Every message that an agent's connection took gets exactly one end, whatever happens when: an
// Ended event, or Gone. One that was not taken gets nothing.
func TestSchedules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lives := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) life {
			return life{
				Answers: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) answer {
					return answer{rapid.IntRange(0, 3).Draw(rt, "texts"), rapid.IntRange(0, 3).Draw(rt, "end")}
				}), 0, 8).Draw(rt, "answers"),
				Leave: rapid.IntRange(0, 3).Draw(rt, "leave"),
			}
		}), 1, 4).Draw(rt, "lives")
		senders := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) sender {
			return sender{rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) message {
				return message{
					rapid.IntRange(0, 5).Draw(rt, "retire") == 5, rapid.IntRange(0, 3).Draw(rt, "cancel") == 3,
					rapid.IntRange(0, 5).Draw(rt, "impatient") == 5, rapid.IntRange(0, 20).Draw(rt, "poison") == 20,
				}
			}), 1, 20).Draw(rt, "messages")}
		}), 1, 4).Draw(rt, "senders")
		runSchedule(t, lives, senders)
	})
}

// An attempt is what became of one message.
type attempt struct {
	*recorder
	err     error
	retired bool
}

func runSchedule(t *testing.T, lives []life, senders []sender) {
	g := start(t)
	var agents, callers sync.WaitGroup
	agents.Go(func() {
		for _, l := range lives {
			g.live(l)
		}
	})
	var over atomic.Bool
	attempts := make([][]*attempt, len(senders))
	for n, s := range senders {
		callers.Go(func() {
			for i, m := range s.Messages {
				for g.Len() == 0 && !over.Load() {
					time.Sleep(10 * time.Microsecond)
				}
				attempts[n] = append(attempts[n], g.attempt(fmt.Sprint(n, "/", i), m))
			}
		})
	}
	agents.Wait()
	over.Store(true)
	callers.Wait()
	if err := g.Shutdown(context.Background(), "the end"); err != nil {
		t.Fatal(err)
	}
	for n := range attempts {
		for i, a := range attempts[n] {
			ended := 0
			for _, b := range a.events() {
				if _, ok := b.(conversation.Ended); ok && a.on == nil { // else it was not taken
					ended++
				}
			}
			ends := ended + len(a.ends())
			switch {
			case a.err != nil && len(a.events())+ends > 0:
				t.Errorf("message %d/%d failed with %v, and then came %v %v", n, i, a.err, a.events(), a.ends())
			case a.err == nil && (ends > 1 || ends == 0 && !a.retired):
				t.Errorf("message %d/%d (retired: %t) has %d ends: %v %v", n, i, a.retired, ends, a.events(), a.ends())
			}
		}
	}
	if t.Failed() {
		t.Fatalf("lives %+v, senders %+v", lives, senders)
	}
}

// live connects the agent, plays its part and leaves.
func (g *gateway) live(l life) {
	a := g.register("a", "p", featureCancellation)
	for {
		if _, err := a.Recv(); err == nil {
			break
		}
		// What the last life said when it ended came after this one.
		a = g.register("a", "p", featureCancellation)
	}
	defer a.cancel()
	for _, answer := range l.Answers {
		ctx, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
		cut := context.AfterFunc(ctx, func() {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) { // nobody speaks any more
				a.cancel()
			}
		})
		m, err := a.Recv()
		cut()
		stop()
		if err != nil {
			return
		}
		id := m.GetSendMessage().GetRequestId()
		if id == "" {
			continue // a cancellation
		}
		for range answer.Texts {
			a.text(id, "x")
		}
		switch answer.End {
		case 1:
			a.done(id)
		case 2:
			a.reply(&pb.MessageResponse{RequestId: id, Event: &pb.MessageResponse_Cancelled{Cancelled: &pb.Cancelled{}}})
		}
	}
	switch l.Leave {
	case 1:
		_ = a.CloseSend()
	case 2:
		a.text("nobody", strings.Repeat("x", MaxReceive)) // more than the gateway reads
	case 3:
		a.heartbeat()
	}
	if l.Leave > 0 && l.Leave < 3 {
		for {
			if _, err := a.Recv(); err != nil {
				return
			}
		}
	}
}

// attempt dispatches one message.
func (g *gateway) attempt(turn string, m message) *attempt {
	a := &attempt{recorder: &recorder{t: g.t}}
	if m.Poison {
		a.on = func(context.Context, conversation.Body) error { return errors.New("poison") }
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.Impatient {
		ctx, cancel = context.WithTimeout(context.Background(), 50*time.Microsecond)
		defer cancel()
	}
	call, err := g.Dispatch(ctx, "a", conversation.Dispatch{TurnID: turn, Text: "hi"}, a)
	if a.err = err; err != nil {
		return a
	}
	if m.Cancel {
		call.Cancel("enough")
	}
	if m.Retire {
		call.Retire()
		a.retired = true
	}
	return a
}
