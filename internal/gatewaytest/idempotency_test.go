package gatewaytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

// TestIdempotency: 50 clients send the same messages with the same keys at the same time, over HTTP
// and gRPC, and again and again while the gateway is killed. Each key is one turn, everybody is told
// the same, and the agent gets each message at most once.
func TestIdempotency(t *testing.T) {
	const clients, messages, kills = 50, 12, 5
	if testing.Short() {
		t.Skip("kills processes")
	}
	p := newProcess(t)
	p.start()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r := &repetition{told: map[string]map[string]int{}, handled: map[string]int{}, fresh: map[string]int{}}
	r.changed.L = &r.mu
	var running sync.WaitGroup
	running.Go(func() {
		err := agent.Run(ctx, agent.Options{
			Server: p.grpc, ID: "a", Logger: slog.New(slog.DiscardHandler), Handler: agent.HandlerFunc(r.handle), Concurrency: 100,
			BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		})
		if err != nil {
			t.Error(err)
		}
	})

	// All clients are at the same message at the same time. In some rounds the gateway is killed
	// while they are.
	deadline, cancel := context.WithTimeout(ctx, 3*gatewaytest.Patience)
	defer cancel()
	conns := make([]*grpc.ClientConn, clients)
	for i := range conns {
		var err error
		if conns[i], err = grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for n := range messages {
		var round sync.WaitGroup
		for i := range clients {
			round.Go(func() {
				var err error
				if key := fmt.Sprintf("http-%d", n); i%2 == 0 {
					err = r.untilTold(deadline, key, func() (string, error) { return r.post(deadline, p, key) })
				} else {
					key := fmt.Sprintf("grpc-%d", n)
					err = r.untilTold(deadline, key, func() (string, error) { return r.call(deadline, conns[i], key) })
				}
				if err != nil {
					t.Errorf("client %d, message %d: %v", i, n, err)
				}
			})
		}
		if n < kills {
			time.Sleep(rand.N(40 * time.Millisecond)) // how long it lives, not a wait
			p.kill()
			p.start()
		}
		round.Wait()
	}

	r.await(deadline, func() bool {
		for n := kills; n < messages; n++ {
			if r.handled[fmt.Sprintf("http-%d", n)] == 0 || r.handled[fmt.Sprintf("grpc-%d", n)] == 0 {
				return false
			}
		}
		return true
	})

	// And after everything, when nothing is in memory any more.
	p.kill()
	p.start()
	for n := range messages {
		for key, say := range map[string]func(key string) (string, error){
			fmt.Sprintf("http-%d", n): func(key string) (string, error) { return r.post(deadline, p, key) },
			fmt.Sprintf("grpc-%d", n): func(key string) (string, error) { return r.call(deadline, conns[n], key) },
		} {
			if err := r.untilTold(deadline, key, func() (string, error) { return say(key) }); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	stop()
	running.Wait()

	stored := map[string]int{}
	for after := int64(0); ; {
		var page struct {
			Events []struct{ Type, Content string }
			Next   int64
			More   bool `json:"has_more"`
		}
		get(t, p, fmt.Sprintf("/api/conversations/a/events?limit=1000&after=%d", after), &page)
		for _, e := range page.Events {
			if e.Type == "message" {
				stored[e.Content]++
			}
		}
		if after = page.Next; !page.More {
			break
		}
	}
	lost := 0
	for n := range messages {
		for _, key := range []string{fmt.Sprintf("http-%d", n), fmt.Sprintf("grpc-%d", n)} {
			if len(r.told[key]) != 1 || stored[key] != 1 || r.handled[key] > 1 {
				t.Errorf("%s: answers %v, %d messages, run %d times", key, r.told[key], stored[key], r.handled[key])
			}
			if r.fresh[key] > 1 {
				t.Errorf("%s was accepted %d times", key, r.fresh[key])
			}
			if r.handled[key] == 0 {
				lost++
			}
			if n >= kills && r.handled[key] != 1 {
				t.Errorf("%s did not reach the agent, though nothing was killed", key)
			}
		}
	}
	t.Logf("%d keys, %d of them never reached the agent; %d attempts failed", 2*messages, lost, r.failures)
}

// repetition is what clients were told and what the agent was given.
type repetition struct {
	mu       sync.Mutex
	changed  sync.Cond                 // handled has
	told     map[string]map[string]int // by key and answer: how often
	fresh    map[string]int            // by key: how often it was no duplicate
	handled  map[string]int            // by content
	failures int
}

func (r *repetition) handle(_ context.Context, m *agent.Message, w *agent.Writer) error {
	r.mu.Lock()
	r.handled[m.Content]++
	r.changed.Broadcast()
	r.mu.Unlock()
	return w.Text("yes")
}

// await waits until the agent was given something, or ctx ends.
func (r *repetition) await(ctx context.Context, given func() bool) {
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !given() && ctx.Err() == nil {
		r.changed.Wait()
	}
}

// untilTold tries until there is an answer, as a client does.
func (r *repetition) untilTold(ctx context.Context, key string, try func() (string, error)) error {
	for {
		answer, err := try()
		r.mu.Lock()
		if err == nil {
			if r.told[key] == nil {
				r.told[key] = map[string]int{}
			}
			r.told[key][answer]++
		} else {
			r.failures++
		}
		r.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond): // the gateway or the agent is not there
		case <-ctx.Done():
			return err
		}
	}
}

// post sends over HTTP and returns the number of the message and its turn.
func (r *repetition) post(ctx context.Context, p *process, key string) (string, error) {
	body := fmt.Sprintf(`{"agent_id":"a","sender":"me","content":%q}`, key)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.http+"/api/send", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	e, err := sse.NewReader(resp.Body).Next()
	if err != nil {
		return "", err
	}
	var d struct {
		Turn string `json:"request_id"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil || e.Name != "started" {
		return "", fmt.Errorf("the first event is %s %s", e.Name, e.Data)
	}
	return e.ID + " " + d.Turn, nil
}

// call sends over gRPC and returns the id of the message.
func (r *repetition) call(ctx context.Context, conn *grpc.ClientConn, key string) (string, error) {
	m, err := pb.NewClientServiceClient(conn).SendMessage(ctx, &pb.ClientSendMessageRequest{ConversationKey: "a", Content: key, IdempotencyKey: key}, grpc.WaitForReady(true))
	if err != nil {
		return "", err
	}
	if m.GetStatus() == "accepted" {
		r.mu.Lock()
		r.fresh[key]++
		r.mu.Unlock()
	}
	return m.GetMessageId(), nil
}
