package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

func TestOptions(t *testing.T) {
	call := func(context.Context, json.RawMessage) (json.RawMessage, error) { return nil, nil }
	for want, edit := range map[string]func(*agent.Options){
		"Server, ID and Handler are required":     func(o *agent.Options) { o.Handler = nil },
		"does not speak TLS":                      func(o *agent.Options) { o.Server = "https://gateway" },
		"feature resume: it is there":             func(o *agent.Options) { o.Features = []string{"resume"} },
		"must not be negative":                    func(o *agent.Options) { o.Concurrency = -1 },
		"a tool needs a Name and a Call":          func(o *agent.Options) { o.Tools = []agent.Tool{{Name: "t"}} },
		"tool t: it is there twice":               func(o *agent.Options) { o.Tools = []agent.Tool{{Name: "t", Call: call}, {Name: "t", Call: call}} },
		"tool t: the InputSchema is not JSON":     func(o *agent.Options) { o.Tools = []agent.Tool{{Name: "t", Call: call, InputSchema: []byte("{")}} },
		"tool t: the Timeout must not be negativ": func(o *agent.Options) { o.Tools = []agent.Tool{{Name: "t", Call: call, Timeout: -1}} },
	} {
		o := agent.Options{Server: "http://gateway:50051/", ID: "a", Handler: agent.HandlerFunc(echo)}
		if _, err := agent.New(o); err != nil {
			t.Fatal(err)
		}
		edit(&o)
		if _, err := agent.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestRegistration: what the agent says of itself, and what it is told.
func TestRegistration(t *testing.T) {
	var welcome agent.Welcome
	attempts := 0
	o := agent.Options{
		Name: "Anna", Backend: "test", WorkingDir: "/w", Workspaces: []string{"w"}, Features: []string{"pack_tools"},
		OnWelcome: func(w agent.Welcome) { welcome = w },
		Tools: []agent.Tool{{
			Name: "t", Description: "d", RequiredCapabilities: []string{"mail"}, Timeout: 1500 * time.Millisecond,
			Call: func(context.Context, json.RawMessage) (json.RawMessage, error) { return nil, nil },
		}},
		Credentials: func(context.Context) (metadata.MD, error) {
			if attempts++; attempts == 1 {
				return nil, status.Error(codes.PermissionDenied, "the key is locked")
			}
			return metadata.Pairs("authorization", "Bearer x"), nil
		},
	}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		md, _ := metadata.FromIncomingContext(s.Context())
		if got := md.Get("authorization"); !reflect.DeepEqual(got, []string{"Bearer x"}) || attempts != 2 {
			t.Errorf("authorization is %q after %d attempts", got, attempts)
		}
		synctest.Wait() // the welcome has arrived
		r := <-g.registered
		m := r.GetMetadata()
		got := []any{r.GetAgentId(), r.GetName(), r.GetCapabilities(), r.GetProtocolFeatures(), m.GetBackend(), m.GetWorkingDirectory(), m.GetWorkspaces()}
		want := []any{"a", "Anna", []string{"base", "chat"}, []string{"cancellation", "token_usage", "tool_states", "tool_updates", "pack_tools", "resume"}, "test", "/w", []string{"w"}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		d := r.GetTools()[0]
		got = []any{d.GetName(), d.GetDescription(), d.GetInputSchemaJson(), d.GetRequiredCapabilities(), d.GetTimeoutSeconds()}
		if want := []any{"t", "d", `{"type":"object"}`, []string{"mail"}, int32(2)}; !reflect.DeepEqual(got, want) {
			t.Errorf("got the tool %v, want %v", got, want)
		}
		if welcome.AgentID != "a" || len(welcome.Tools) != 1 || welcome.Tools[0].Name != "todo_list" || welcome.Tools[0].Timeout != 5*time.Second {
			t.Errorf("welcome is %+v", welcome)
		}
	})
}

// TestRefused: Run gives up where trying again would not help, and says why.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		code  codes.Code
		retry int
		is    error
		tries int
	}{
		{codes.AlreadyExists, 0, agent.ErrTaken, 4},
		{codes.AlreadyExists, -1, agent.ErrTaken, 1},
		{codes.InvalidArgument, 0, agent.ErrRefused, 1},
		{codes.Unauthenticated, 0, agent.ErrRefused, 1},
		{codes.PermissionDenied, 0, agent.ErrRefused, 1},
	} {
		tries := 0
		g := func() *gateway {
			g := newGateway()
			g.refuse = func() error { tries++; return status.Error(tt.code, "no, thanks") }
			return g
		}
		playAgent(t, g, agent.Options{RetryTaken: tt.retry}, func(t *testing.T, _ *gateway, _ *agent.Agent, _ context.CancelFunc, run <-chan error) {
			err := <-run
			refused, ok := errors.AsType[*agent.RefusedError](err)
			if !ok || !errors.Is(err, tt.is) || refused.Code != tt.code || refused.Reason != "no, thanks" || tries != tt.tries {
				t.Errorf("%v: got %v after %d tries", tt.code, err, tries)
			}
		})
	}
}

func TestRegistrationError(t *testing.T) {
	g := func() *gateway {
		g := newGateway()
		g.answer = &pb.ServerMessage{Payload: &pb.ServerMessage_RegistrationError{RegistrationError: &pb.RegistrationError{Reason: "taken", SuggestedId: "a-2"}}}
		return g
	}
	playAgent(t, g, agent.Options{RetryTaken: -1}, func(t *testing.T, _ *gateway, _ *agent.Agent, _ context.CancelFunc, run <-chan error) {
		err := <-run
		if refused, ok := errors.AsType[*agent.RefusedError](err); !ok || !errors.Is(err, agent.ErrTaken) || refused.SuggestedID != "a-2" {
			t.Errorf("got %v", err)
		}
	})
}

// TestBackoff: the pauses between attempts grow to their limit, and are short again after a
// connection that lasted.
func TestBackoff(t *testing.T) {
	down := true
	g := func() *gateway {
		g := newGateway()
		g.down = func() bool { return down && len(g.dials) <= 10 }
		return g
	}
	playAgent(t, g, agent.Options{}, func(t *testing.T, g *gateway, _ *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		<-g.streams
		for i, most := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000} {
			most *= time.Millisecond
			if pause := g.dials[i+1].Sub(g.dials[i]); pause < most/2 || pause > most {
				t.Errorf("pause %d is %v, want at most %v and half of it at least", i, pause, most)
			}
		}
		down = false
		time.Sleep(time.Minute)
		lost := time.Now()
		g.end <- struct{}{}
		<-g.streams
		if pause := time.Since(lost); pause > 200*time.Millisecond {
			t.Errorf("the agent came back after %v", pause)
		}
	})
}

// TestNoWelcome: a gateway that takes the registration and says nothing is left alone after a while.
func TestNoWelcome(t *testing.T) {
	var wait chan struct{}
	g := func() *gateway {
		g := newGateway()
		wait = make(chan struct{})
		g.refuse = func() error { <-wait; return nil }
		return g
	}
	playAgent(t, g, agent.Options{}, func(t *testing.T, g *gateway, _ *agent.Agent, _ context.CancelFunc, _ <-chan error) {
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if len(g.dials) < 2 {
			t.Errorf("%d attempts", len(g.dials))
		}
		close(wait)
		<-g.streams
	})
}

// TestLostStream: handlers hear of it, and the next stream serves new messages.
func TestLostStream(t *testing.T) {
	cause := make(chan error, 1)
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		if m.Content == "wait" {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return w.Text("too late")
		}
		return w.Text(m.Content)
	})}
	play(t, o, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", "wait"))
		synctest.Wait()
		g.end <- struct{}{}
		if err := <-cause; !errors.Is(err, agent.ErrDisconnected) {
			t.Errorf("the cause is %v", err)
		}
		s = <-g.streams
		send(t, s, message("2", "x", "hi"))
		expect(t, s, "2", "text hi", "done hi")
	})
}

// TestShutdown: what is short is finished, the rest is left to the gateway, and the agent leaves.
func TestShutdown(t *testing.T) {
	cause := make(chan error, 1)
	handler := agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
		if err := w.Text(m.Content); err != nil {
			return err
		}
		if m.Content == "short" {
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return errors.New("cut short")
	})
	play(t, agent.Options{Handler: handler}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		send(t, s, shutdown) // nothing to do
		leaves(t, s)
		g.end <- struct{}{}

		s = <-g.streams
		send(t, s, message("1", "x", "short"))
		expect(t, s, "1", "text short")
		send(t, s, shutdown)
		expect(t, s, "1", "done short")
		leaves(t, s)
		g.end <- struct{}{}

		s = <-g.streams
		send(t, s, message("2", "x", "long"))
		send(t, s, message("3", "x", "waits behind it"))
		expect(t, s, "2", "text long")
		send(t, s, shutdown)
		leaves(t, s)
		if err := <-cause; !errors.Is(err, agent.ErrDisconnected) {
			t.Errorf("the cause is %v", err)
		}
		time.Sleep(time.Hour) // and if the gateway does not end the stream
		<-g.streams
	})
	play(t, agent.Options{ExitOnShutdown: true}, func(t *testing.T, g *gateway, run <-chan error) {
		s := <-g.streams
		send(t, s, shutdown)
		leaves(t, s)
		if err := <-run; err != nil {
			t.Error(err)
		}
	})
}

// TestStop: Run returns when its context ends, after the handlers and with what they said last.
func TestStop(t *testing.T) {
	cause := make(chan error, 1)
	o := agent.Options{Handler: agent.HandlerFunc(func(ctx context.Context, _ *agent.Message, w *agent.Writer) error {
		if err := w.Text("half"); err != nil {
			return err
		}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		if err := w.Text("more"); !errors.Is(err, agent.ErrStopped) {
			return fmt.Errorf("it can be written: %w", err)
		}
		return nil
	})}
	playAgent(t, newGateway, o, func(t *testing.T, g *gateway, a *agent.Agent, stop context.CancelFunc, run <-chan error) {
		s := <-g.streams
		send(t, s, message("1", "x", ""))
		expect(t, s, "1", "text half")
		if err := a.Run(context.Background()); err == nil {
			t.Error("it runs twice")
		}
		stop()
		expect(t, s, "1", "done half")
		leaves(t, s)
		if err := <-cause; !errors.Is(err, agent.ErrStopped) {
			t.Errorf("the cause is %v", err)
		}
		if err := <-run; err != nil {
			t.Error(err)
		}
		if _, err := a.CallTool(context.Background(), "t", nil); !errors.Is(err, agent.ErrDisconnected) {
			t.Errorf("a tool call without a connection: %v", err)
		}
	})
	down := func() *gateway {
		g := newGateway()
		g.down = func() bool { return true }
		return g
	}
	playAgent(t, down, agent.Options{}, func(t *testing.T, _ *gateway, _ *agent.Agent, stop context.CancelFunc, run <-chan error) {
		time.Sleep(time.Minute)
		stop()
		if err := <-run; err != nil {
			t.Error(err)
		}
	})
}

// TestGatewayDoesNotRead: the receive loop does not wait for it, and does not pile up answers.
func TestGatewayDoesNotRead(t *testing.T) {
	play(t, agent.Options{}, func(t *testing.T, g *gateway, _ <-chan error) {
		s := <-g.streams
		name := strings.Repeat("x", 10_000)
		for range 1000 {
			if err := s.Send(toolCall("c", name, "")); err != nil {
				break
			}
		}
		<-g.streams // it has begun anew
	})
}
