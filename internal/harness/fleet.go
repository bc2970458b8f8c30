package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
	"coven-gateway/sdk/agent"
)

const (
	// silence is how long clients wait for a sign of life before they come again.
	silence = 3 * time.Second
	// retry is how long they wait when the gateway is away.
	retry = 5 * time.Millisecond
	// settleTimeout bounds how long turns and readers may take to come to their end when the load is over.
	settleTimeout = 60 * time.Second
)

// A fleet is the agents and clients of a gateway. What they see goes to its ledger.
type fleet struct {
	ledger  *ledger
	agents  Target // where agents reach it, through a proxy
	clients Target // where clients do
	resume  bool   // agents go on with their turns on another stream

	stopping context.Context // ends when nobody is to begin anything
	mischief context.Context // ends when those who misbehave are to go
	settled  context.Context // ends when readers may stop, once they have read all
	over     context.Context // ends when everybody is to go
}

// serve is an agent that answers by the script. It calls connected each time that it is welcome.
func (f *fleet) serve(id string, connected func()) {
	err := agent.Run(f.over, agent.Options{
		Server: f.agents.GRPC, ID: id, Logger: slog.New(slog.DiscardHandler), Concurrency: 64, NoResume: !f.resume,
		BackoffMin: 5 * time.Millisecond, BackoffMax: 100 * time.Millisecond, RetryTaken: 1 << 20,
		OnWelcome: func(agent.Welcome) { connected() },
		Handler: agent.HandlerFunc(func(ctx context.Context, m *agent.Message, w *agent.Writer) error {
			f.ledger.give(m.Content, m.RequestID)
			return perform(ctx, m.Content, w)
		}),
	})
	if err != nil {
		f.ledger.fault("agent %s gives up: %v", id, err)
	}
}

// chat sends messages and reads their answers to the end, over and over, whatever breaks.
func (f *fleet) chat(agentID, name string, rnd *rand.Rand) {
	for n := 0; f.stopping.Err() == nil; n++ {
		s := &sight{agent: agentID, content: fmt.Sprintf("%s says %d to %s", name, n, agentID), began: time.Now()}
		delivery := [...]string{"fail", "queue"}[rnd.IntN(2)]
		stopAt := int64(-1)
		if rnd.IntN(20) == 0 {
			stopAt = rnd.Int64N(30)
		}
		f.converse(s, delivery, stopAt)
		s.ended = time.Now()
		f.ledger.saw(s)
		sleep(f.stopping, time.Duration(rnd.IntN(30))*time.Millisecond)
	}
}

// converse sends one message until it is taken and reads the answer to its end. It stops the turn after
// that many events, unless that is negative.
func (f *fleet) converse(s *sight, delivery string, stopAt int64) {
	heard := time.Now()
	count := int64(0)
	for f.over.Err() == nil && len(s.ends) == 0 {
		if s.turn == "" && f.stopping.Err() != nil && s.last == 0 {
			return // it was perhaps never taken
		}
		ctx, touch, stop := within(f.over, silence)
		each := func(e sse.Event) error {
			touch()
			s.stall = max(s.stall, time.Since(heard))
			heard = time.Now()
			if err := s.add(e); err != nil {
				f.ledger.fault("turn %s of %s: %v", s.turn, s.agent, err)
			}
			if count++; count == stopAt {
				s.cancelled = true
				resp, err := f.clients.request(ctx, http.MethodPost, "/api/turns/"+s.turn+"/cancel", map[string]string{"reason": "enough"})
				if err == nil {
					_ = resp.Body.Close() // whether it has worked is in the log
				}
			}
			return nil
		}
		var err error
		if s.turn == "" {
			err = f.clients.send(ctx, map[string]string{
				"agent_id": s.agent, "sender": "chaos", "content": s.content, "delivery": delivery, "idempotency_key": s.content,
			}, each)
		} else {
			err = f.clients.follow(ctx, "/api/turns/"+s.turn+"/events", s.last, nil, each)
		}
		stop()
		f.ledger.stream()
		// Not found: the agent has left when it was to be given the message. The key leads to its turn.
		if st, ok := errors.AsType[*statusError](err); ok && !st.passes() && (st.status != http.StatusNotFound || s.turn != "") {
			f.ledger.fault("the message %q (turn %q): %v", s.content, s.turn, err)
			return
		}
		if len(s.ends) == 0 {
			sleep(f.over, retry)
		}
	}
	if len(s.ends) == 0 {
		f.ledger.fault("a client does not hear the end of turn %q of %s behind %d", s.turn, s.agent, s.last)
	}
}

// add notes an event of the answer; an error says what is wrong with it.
func (s *sight) add(e sse.Event) error {
	var d struct {
		Turn string `json:"request_id"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return err
	}
	if e.Name == "started" {
		if s.turn != "" && s.turn != d.Turn {
			return fmt.Errorf("the same message began turn %s", d.Turn)
		}
		s.turn = d.Turn
	}
	if e.ID != "" {
		id, err := strconv.ParseInt(e.ID, 10, 64)
		if err != nil || id <= s.last {
			return fmt.Errorf("event %q (%s) comes after %d", e.ID, e.Name, s.last)
		}
		s.last = id
	}
	if len(s.ends) > 0 {
		return fmt.Errorf("%q comes after the end %q", e.Name, s.ends[0])
	}
	switch {
	case e.Name == "text":
		s.text += d.Text
	case event{Type: e.Name}.ends():
		s.ends = append(s.ends, e.Name)
	}
	return nil
}

// follow reads a conversation from its beginning, resuming where it was, until everything has settled and
// it has all.
func (f *fleet) follow(agentID string) {
	t := newTale(agentID)
	path := "/api/conversations/" + agentID + "/events"
	for f.settled.Err() == nil || !f.atHead(agentID, t.last) {
		ctx, touch, stop := within(f.over, silence)
		err := f.clients.follow(ctx, path, t.last, nil, func(e sse.Event) error {
			touch()
			var x event
			if err := json.Unmarshal(e.Data, &x); err != nil {
				return err
			}
			if x.first() != t.last+1 || x.Seq < x.first() || e.ID != strconv.FormatInt(x.Seq, 10) || e.Name != x.Type {
				f.ledger.fault("a reader of %s: after %d came %d to %d, id %s, named %s", agentID, t.last, x.first(), x.Seq, e.ID, e.Name)
			}
			t.tell(x, e.Data)
			return nil
		})
		stop()
		f.ledger.stream()
		// A conversation that nobody has spoken in is not found.
		if s, ok := errors.AsType[*statusError](err); ok && !s.passes() && (s.status != http.StatusNotFound || t.last > 0) {
			f.ledger.fault("a reader of %s at %d: %v", agentID, t.last, err)
			return
		}
		if f.over.Err() != nil {
			f.ledger.fault("a reader of %s does not come behind %d", agentID, t.last)
			return
		}
		sleep(f.over, retry)
	}
	f.ledger.mu.Lock()
	defer f.ledger.mu.Unlock()
	f.ledger.tales = append(f.ledger.tales, t)
}

// atHead reports whether a reader has all of a conversation.
func (f *fleet) atHead(agentID string, last int64) bool {
	head, err := f.clients.head(f.over, agentID)
	return err == nil && last >= head
}

// followGRPC is follow as existing programs do it: over StreamEvents, which resumes behind an event that
// is stored as a whole, and repeats increments since. In the end it has what GetEvents says.
func (f *fleet) followGRPC(agentID string) {
	conn, err := grpc.NewClient("passthrough:///"+f.clients.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), fastRetry)
	if err != nil {
		f.ledger.fault("%v", err)
		return
	}
	defer conn.Close()
	c := pb.NewClientServiceClient(conn)
	since, begin := "", ""
	for begin == "" { // it resumes behind an event, so there has to be one
		r, err := c.GetEvents(f.over, &pb.GetEventsRequest{ConversationKey: agentID, Limit: new(int32(1))})
		if err == nil && len(r.GetEvents()) > 0 {
			begin = r.GetEvents()[0].GetId()
		} else if !sleep(f.stopping, retry) {
			return // nothing was ever said
		}
	}
	since = begin
	var seen []string
	for {
		done := f.settled.Err() != nil // what is read after this is all
		ctx, touch, stop := within(f.over, silence)
		stream, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: agentID, SinceEventId: &since})
		for err == nil {
			var m *pb.ClientStreamEvent
			if m, err = stream.Recv(); err != nil {
				break
			}
			touch()
			if e := m.GetEvent(); e != nil {
				if since = e.GetId(); !strings.HasPrefix(e.GetType(), "tool_") { // live tools have another form
					seen = append(seen, short(e.GetId()+" "+e.GetType()+" "+e.GetText()))
				}
			}
		}
		stop()
		f.ledger.stream()
		if f.over.Err() != nil {
			f.ledger.fault("a gRPC reader of %s does not come behind %s", agentID, since)
			return
		}
		if done {
			want, err := f.entries(c, agentID, begin)
			switch {
			case err == nil && len(seen) >= len(want):
				if d := difference(seen, want); d != "" {
					f.ledger.fault("a gRPC reader of %s differs from GetEvents: %s", agentID, d)
				}
				return
			case err != nil && errors.Is(err, context.Canceled):
				return
			}
		}
		sleep(f.over, retry)
	}
}

// entries is the history behind an event as GetEvents says, without tools.
func (f *fleet) entries(c pb.ClientServiceClient, agentID, since string) (list []string, err error) {
	for cursor := since; ; {
		r, err := c.GetEvents(f.over, &pb.GetEventsRequest{ConversationKey: agentID, Cursor: &cursor, Limit: new(int32(500))})
		if err != nil {
			return nil, err
		}
		for _, e := range r.GetEvents() {
			if !strings.HasPrefix(e.GetType(), "tool_") {
				list = append(list, short(e.GetId()+" "+e.GetType()+" "+e.GetText()))
			}
		}
		if cursor = r.GetNextCursor(); !r.GetHasMore() {
			return list, nil
		}
	}
}

// settle waits until no turn is open any more.
func (f *fleet) settle(ctx context.Context) error {
	var left struct {
		Turns []struct {
			ID      string `json:"request_id"`
			AgentID string `json:"agent_id"`
			State   string `json:"state"`
		} `json:"turns"`
	}
	for begin := time.Now(); time.Since(begin) < settleTimeout; {
		left.Turns = nil
		if err := f.clients.get(ctx, "/api/turns?limit=10", &left); err == nil && len(left.Turns) == 0 {
			return nil
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%v after the end of the load there are turns that have not ended: %v", settleTimeout, left.Turns)
}

// read returns the log of a conversation.
func (f *fleet) read(ctx context.Context, t Target, agentID string, honest bool) (*record, error) {
	r := &record{agent: agentID, honest: honest, tale: newTale(agentID), turns: make(map[string]*turn)}
	return r, t.pages(ctx, agentID, func(e event, data []byte) { r.read(f.ledger, e, data) })
}
