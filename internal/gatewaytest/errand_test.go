package gatewaytest

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"coven-gateway/internal/conversation"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// TestQuestionSurvives: a question of an agent that resumes is asked once, can be answered while the agent is
// away, and its answer reaches the call that asked on the next stream.
func TestQuestionSurvives(t *testing.T) {
	for name, away := range map[string]bool{"answered while the agent is away": true, "answered when it is back": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewInBubble(t)
				var line atomic.Pointer[net.Conn]
				dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
					c, err := g.grpc.Load().DialContext(ctx)
					line.Store(&c)
					return c, err
				})
				welcomes := make(chan struct{}, 10)
				ctx, stop := context.WithCancel(t.Context())
				var answer json.RawMessage
				ended, turn := make(chan error, 1), make(chan string, 1)
				var a *agent.Agent
				a, err := agent.New(agent.Options{
					Server: g.GRPCAddr(), ID: "a", Capabilities: []string{"ui"}, Logger: slog.New(slog.DiscardHandler), BackoffMin: time.Second, BackoffMax: time.Second,
					DialOptions: []grpc.DialOption{dial}, OnWelcome: func(agent.Welcome) { welcomes <- struct{}{} },
					Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
						turn <- m.RequestID
						var err error
						answer, err = a.CallTool(ctx, "ask_user", json.RawMessage(askShip))
						return err
					}),
				})
				if err != nil {
					t.Fatal(err)
				}
				go func() { ended <- a.Run(ctx) }()
				<-welcomes
				resp, err := pb.NewClientServiceClient(g.Dial()).SendMessage(Ctx(), &pb.ClientSendMessageRequest{ConversationKey: "a", Content: "hi", IdempotencyKey: "k"})
				if err != nil {
					t.Fatal(resp, err)
				}
				id := g.pending("")
				_ = (*line.Load()).Close()
				if away {
					synctest.Wait()
				} else {
					<-welcomes
					if again := g.pending(""); again != id {
						t.Error("asked again")
					}
				}
				if resp, text := g.request("POST", "/api/questions/answer", "", `{"agent_id":"a","question_id":"`+id+`","selected":["Yes"]}`); resp.StatusCode != 200 {
					t.Fatal(resp.Status, text)
				}
				request := <-turn
				for {
					turn, err := g.Conversations().Turn(Ctx(), request)
					if err != nil {
						t.Fatal(err)
					}
					if turn.State == conversation.Done {
						break
					}
					time.Sleep(100 * time.Millisecond) // in a bubble
				}
				if !strings.Contains(string(answer), `"selected":["Yes"]`) {
					t.Errorf("the agent got %s", answer)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestErrands: the results of tool calls reach an agent that resumes on whichever stream it has; each call is
// made once, and of one that nobody knows the agent hears that.
func TestErrands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		resumes := func(open ...string) func(*pb.RegisterAgent) {
			return func(r *pb.RegisterAgent) {
				r.Capabilities, r.ProtocolFeatures, r.OpenToolCalls = []string{"base", "notes"}, []string{"resume"}, open
			}
		}
		a := g.Agent("a", resumes())
		a.Ask("1", "todo_add", `{"description":"once"}`)
		if _, words := a.Result("1"); words != "" {
			t.Fatal(words)
		}
		a.Die()
		synctest.Wait()

		a = g.Agent("a", resumes("1", "lost")) // it has not read the result
		if out, words := a.Result("1"); words != "" || !strings.Contains(out, `"id"`) {
			t.Error(out, words)
		}
		if _, words := a.Result("lost"); !strings.HasPrefix(words, "the outcome of this call is not known") {
			t.Error(words)
		}
		if out, _ := a.Call("todo_list", "{}"); strings.Count(out, "once") != 1 {
			t.Error(out)
		}
		a.Die()
		synctest.Wait()

		time.Sleep(10 * time.Second) // more than the grace
		a = g.Agent("a", resumes("1"))
		if _, words := a.Result("1"); !strings.HasPrefix(words, "the outcome of this call is not known") {
			t.Error(words)
		}
	})
}

// TestQuarantine: a turn that several starts in a row find open, with nothing new in it, is not resumed again.
func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewInBubble(t)
		a := g.resuming("a")
		turn := g.begin("a")
		a.Message()
		a.number(turn.ID, 1, "half")
		synctest.Wait()
		for crashes, want := range []string{"open", "open", "open", "interrupted the gateway was restarted 4 times while nothing came of the turn"} {
			g.Stop() // forgets what is counted
			g.count(turn.ID, crashes)
			g.Start()
			if got := g.turnState(turn.ID); got != want {
				t.Errorf("after %d starts: %s, want %s", crashes, got, want)
			}
		}
	})
}

// count writes how many starts have found a turn open. The gateway is stopped.
func (g *Gateway) count(turn string, starts int) {
	g.t.Helper()
	db, err := sql.Open("sqlite", g.cfg.Database.Path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE turns SET crashes = $1 WHERE request_id = $2", starts, turn); err != nil {
		g.t.Fatal(err)
	}
}
