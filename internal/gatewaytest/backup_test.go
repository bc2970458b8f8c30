package gatewaytest_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	"coven-gateway/internal/store"
	"coven-gateway/sdk/agent"
)

// TestBackupUnderLoad makes backups while eight clients write. What was acknowledged before one
// began is in it, nothing in it is torn, and a gateway serves it.
func TestBackupUnderLoad(t *testing.T) {
	var from store.Place
	gw := gatewaytest.New(t, func(c *config.Config) { from = store.Place{DataDir: c.DataDir, Database: c.Database.Path} })
	w := &writers{t: t, gw: gw, ended: make(chan *sight, 1000)}
	ctx, stop := context.WithCancel(context.Background())
	agents, leave := context.WithCancel(context.Background())
	var load, connected sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprintf("agent-%d", i)
		connected.Go(func() {
			err := agent.Run(agents, agent.Options{Server: gw.GRPCAddr(), ID: id, Handler: agent.HandlerFunc(answer), Logger: slog.New(slog.DiscardHandler), NoResume: true})
			if err != nil {
				t.Error(err)
			}
		})
		for range 2 {
			load.Go(func() { w.write(ctx, id) })
		}
	}
	// One turn is open all the time, its text is in no closed block.
	slow := gw.Agent("slow")
	turn, err := gw.Conversations().Send(gatewaytest.Ctx(), conversation.SendRequest{AgentID: "slow", Frontend: "direct", Sender: "me", Text: "take your time"})
	if err != nil {
		t.Fatal(err)
	}
	slow.Text(slow.Message().RequestId, "half an ")
	half := w.head("slow", 2)

	type copied struct {
		folder string
		before []*sight
	}
	var backups []copied
	var before []*sight
	for i := range 3 {
		for range 20 {
			before = append(before, <-w.ended)
		}
		b := copied{filepath.Join(t.TempDir(), fmt.Sprint(i)), slices.Clone(before)}
		start := time.Now()
		m, err := store.Backup(context.Background(), from, b.folder, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("copied %d turns and %d files in %v", m.Counts.Turns, m.Counts.Files, time.Since(start))
		backups = append(backups, b)
	}
	stop()
	load.Wait()
	leave()
	connected.Wait()
	slow.Text(turn.ID, "answer")
	slow.Done(turn.ID, "")
	w.head("slow", half+2)

	original := &process{http: strings.TrimPrefix(gw.URL, "http://")}
	for _, b := range backups {
		to := store.Place{DataDir: filepath.Join(t.TempDir(), "data")}
		to.Database = filepath.Join(to.DataDir, "gateway.db")
		if _, err := store.Restore(context.Background(), b.folder, to, false); err != nil {
			t.Fatal(err)
		}
		restored := gatewaytest.New(t, func(c *config.Config) { c.DataDir, c.Database.Path = to.DataDir, to.Database })
		copy := &process{http: strings.TrimPrefix(restored.URL, "http://")}
		for _, s := range b.before {
			text, ends := stored(t, copy, s.request, 0)
			if text != s.text || len(ends) != 1 || ends[0] != s.end {
				t.Errorf("turn %s: %d bytes and the ends %v, a client saw %d bytes and %s before the backup", s.request, len(text), ends, len(s.text), s.end)
			}
		}
		if text, ends := stored(t, copy, turn.ID, 0); text != "half an " || !slices.Equal(ends, []string{"error"}) {
			t.Errorf("the open turn has the text %q and the ends %v", text, ends)
		}
		w.compare(restored, copy, original)
	}
}

// answer is an answer of many parts.
func answer(_ context.Context, m *agent.Message, out *agent.Writer) error {
	for i := range 20 {
		var err error
		switch i {
		case 4:
			err = out.Thinking("hm")
		case 6:
			err = out.ToolUse(fmt.Sprint(i), "tool", i)
		case 8:
			err = out.Usage(agent.Usage{Input: 1})
		case 9:
			err = out.File("f.txt", "text/plain", []byte(m.RequestID))
		default:
			err = out.Textf("%d ", i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writers send messages and read the answers.
type writers struct {
	t     *testing.T
	gw    *gatewaytest.Gateway
	ended chan *sight // turns whose end a client has seen
}

// write sends one message after another until ctx ends, and then waits for the last answer.
func (w *writers) write(ctx context.Context, agentID string) {
	for i := 0; ctx.Err() == nil; i++ {
		file := base64.StdEncoding.EncodeToString([]byte(fmt.Sprint(agentID, i)))
		body := fmt.Sprintf(`{"agent_id":%q,"sender":"me","content":"go","attachments":[{"filename":"a","data":%q}]}`, agentID, file)
		resp, err := w.gw.Client.Post(w.gw.URL+"/api/send", "application/json", strings.NewReader(body))
		if err != nil {
			w.t.Error(err)
			return
		}
		if resp.StatusCode != http.StatusOK { // the agent is about to connect
			resp.Body.Close()
			continue
		}
		s := &sight{}
		for r := sse.NewReader(resp.Body); ; {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				w.t.Error(err)
				break
			}
			s.add(e)
		}
		resp.Body.Close()
		select {
		case w.ended <- s:
		default: // enough
		}
	}
}

// head waits until a conversation has a number and returns it.
func (w *writers) head(agentID string, seq int64) int64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(gatewaytest.Ctx(), gatewaytest.Patience)
	defer cancel()
	r, err := w.gw.Conversations().Reader(ctx, agentID, conversation.Filter{}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	for r.Position() < seq {
		if _, err := r.Next(ctx); err != nil {
			w.t.Fatal(err)
		}
	}
	return r.Position()
}

// compare looks at every turn of a restored gateway: it is a beginning of what the original has,
// all of it unless the turn was open.
func (w *writers) compare(restored *gatewaytest.Gateway, copy, original *process) {
	t := w.t
	t.Helper()
	threads, err := restored.Conversations().Threads(gatewaytest.Ctx(), conversation.ThreadQuery{Limit: 100000})
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		page, err := restored.Conversations().Events(gatewaytest.Ctx(), th.AgentID, conversation.Filter{ThreadID: th.ID}, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		id := page.Events[0].TurnID
		turn, err := restored.Conversations().Turn(gatewaytest.Ctx(), id)
		if err != nil {
			t.Fatal(err)
		}
		is, _ := stored(t, copy, id, 0)
		was, _ := stored(t, original, id, 0)
		if !strings.HasPrefix(was, is) || turn.State != conversation.Interrupted && was != is {
			t.Errorf("turn %s is %s and has %q, the original %q", id, turn.State, is, was)
		}
	}
}
