package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// TestReaders: many readers of one conversation, half over SSE and half over gRPC, lose their
// connections all the time and resume. In the end each has seen the log: every event once, in order,
// without gaps. COVEN_READERS_SEED is the schedule.
func TestReaders(t *testing.T) {
	readers, turns := 1000, 12
	if raceDetector {
		readers = 100
	}
	seed := uint64(1)
	if s := os.Getenv("COVEN_READERS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d readers, seed %d", readers, seed)
	g := New(t)
	d := &driver{t: t, g: g, a: g.Agent("a"), rnd: rand.New(rand.NewPCG(seed, 0))}
	begin := d.turn(0, nil) // gRPC streams resume behind an event, so there has to be one

	ctx, stop := context.WithTimeout(t.Context(), 5*Patience)
	defer stop()
	var conns []pb.ClientServiceClient
	for range 10 {
		conns = append(conns, pb.NewClientServiceClient(g.Dial()))
	}
	var all []*wanderer
	var wg sync.WaitGroup
	for i := range readers {
		f := &wanderer{
			last: fmt.Sprint("end ", turns), opened: make(chan struct{}), rnd: rand.New(rand.NewPCG(seed, uint64(i+1))),
			since: begin, marks: make(map[string]chan struct{}),
		}
		all = append(all, f)
		wg.Go(func() {
			if i%2 == 0 {
				f.err = f.sse(ctx, g)
			} else {
				f.err = f.grpc(ctx, conns[i%len(conns)])
			}
		})
	}
	for _, f := range all {
		select {
		case <-f.opened:
		case <-ctx.Done():
			t.Fatal("a reader does not begin")
		}
	}
	for n := range turns {
		d.turn(n+1, all)
	}
	wg.Wait()
	log, entries := d.log(), d.entries(begin)
	breaks := 0
	for i, f := range all {
		got, want := f.seen, entries
		if i%2 == 0 {
			want = log
		}
		if f.err != nil || !slices.Equal(got, want) {
			t.Errorf("reader %d (%v): %s", i, f.err, firstDifference(got, want))
		}
		breaks += f.breaks
	}
	t.Logf("%d events, %d entries, %d resumed streams", len(log), len(entries), breaks)
}

func firstDifference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		if g, w := at(got, i), at(want, i); g != w {
			return fmt.Sprintf("item %d of %d is\n %.300q, want\n %.300q of %d", i, len(got), g, w, len(want))
		}
	}
	return "no difference"
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "nothing"
}

// A driver is the agent of the conversation, and whoever talks to it.
type driver struct {
	t   *testing.T
	g   *Gateway
	a   *Agent
	rnd *rand.Rand
}

// turn plays turn n and returns the id of its last event. Here and there it waits for one of the
// readers, so that they are everywhere in the conversation.
func (d *driver) turn(n int, readers []*wanderer) string {
	d.t.Helper()
	wait := func(mark string) {
		if len(readers) == 0 {
			return
		}
		select {
		case <-readers[d.rnd.IntN(len(readers))].at(mark):
		case <-time.After(Patience):
			d.t.Fatalf("a reader does not see %q", mark)
		}
	}
	turn, err := d.g.Conversations().Send(Ctx(), conversation.SendRequest{AgentID: "a", Frontend: "direct", Sender: "me", Text: fmt.Sprint("go ", n)})
	if err != nil {
		d.t.Fatal(err)
	}
	id := d.a.Message().GetRequestId()
	for part := range 1 + d.rnd.IntN(3) {
		for i := range d.rnd.IntN(120) {
			mark := fmt.Sprintf("%d.%d.%d ", n, part, i)
			if d.a.Text(id, mark); d.rnd.IntN(6) == 0 {
				wait(mark)
			}
		}
		tool := fmt.Sprintf("tool %d.%d", n, part)
		d.a.Reply(&pb.MessageResponse{RequestId: id, Event: &pb.MessageResponse_ToolUse{ToolUse: &pb.ToolUse{Id: tool, Name: tool, InputJson: "{}"}}})
		if d.rnd.IntN(3) == 0 {
			d.a.Reply(&pb.MessageResponse{RequestId: id, Event: &pb.MessageResponse_Error{Error: "trouble"}})
		}
		wait(tool)
	}
	switch d.rnd.IntN(4) {
	case 0:
		if err := d.g.Conversations().Cancel(Ctx(), id, fmt.Sprint("end ", n)); err != nil {
			d.t.Fatal(err)
		}
	default:
		d.a.Text(id, fmt.Sprint("end ", n))
		d.a.Done(id, "")
	}
	wait(fmt.Sprint("end ", n))
	r, err := d.g.Conversations().Reader(Ctx(), "a", conversation.Filter{TurnID: id}, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	for {
		evs, err := r.Next(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		if e := evs[len(evs)-1]; turn.ID == e.TurnID {
			if _, ok := e.Body.(conversation.Ended); ok {
				last, err := d.g.Conversations().EventID(Ctx(), "a", e.Seq)
				if err != nil {
					d.t.Fatal(err)
				}
				return last
			}
		}
	}
}

// log is the whole conversation as its pages say, increments joined.
func (d *driver) log() []string {
	d.t.Helper()
	var l items
	for after := int64(0); ; {
		resp, body := d.g.web(http.MethodGet, fmt.Sprintf("/api/conversations/a/events?limit=997&after=%d", after), "")
		var page struct {
			Events []json.RawMessage
			Next   int64
			More   bool `json:"has_more"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != http.StatusOK {
			d.t.Fatal(resp.Status, err)
		}
		for _, e := range page.Events {
			var x numbered
			if err := json.Unmarshal(e, &x); err != nil {
				d.t.Fatal(err)
			}
			l.add(x, e)
		}
		if after = page.Next; !page.More {
			return l.list()
		}
	}
}

// entries is the history behind an event as GetEvents says, without tools: a stream shows those of
// live turns in another form.
func (d *driver) entries(since string) (list []string) {
	d.t.Helper()
	c := pb.NewClientServiceClient(d.g.Dial())
	for cursor := since; ; {
		r, err := c.GetEvents(context.Background(), &pb.GetEventsRequest{ConversationKey: "a", Cursor: &cursor, Limit: new(int32(7))})
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range r.GetEvents() {
			if !strings.HasPrefix(e.GetType(), "tool_") {
				list = append(list, e.GetId()+" "+e.GetType()+" "+e.GetText())
			}
		}
		if cursor = r.GetNextCursor(); !r.GetHasMore() {
			return list
		}
	}
}

// numbered is what an event of the HTTP API says of itself.
type numbered struct {
	Seq    int64
	First  int64 `json:"first_seq"`
	Type   string
	Turn   string `json:"request_id"`
	Text   string
	ID     string
	Reason string
}

// items are events, with increments joined.
type items struct {
	done []string
	turn string // of the increments that are being joined
	text strings.Builder
}

func (l *items) add(e numbered, data []byte) {
	if e.Type == "text" && (l.turn == e.Turn || l.turn == "") {
		l.turn = e.Turn
		l.text.WriteString(e.Text)
		return
	}
	l.flush()
	if e.Type == "text" {
		l.turn = e.Turn
		l.text.WriteString(e.Text)
		return
	}
	l.done = append(l.done, string(data))
}

func (l *items) flush() {
	if l.turn != "" {
		l.done = append(l.done, "text of "+l.turn+": "+l.text.String())
		l.turn = ""
		l.text.Reset()
	}
}

func (l *items) list() []string {
	l.flush()
	return l.done
}

// A wanderer is a reader that loses its connection all the time.
type wanderer struct {
	rnd    *rand.Rand
	last   string        // mark behind which it may leave
	opened chan struct{} // closed when its first connection is open
	since  string        // where it begins

	mu    sync.Mutex
	marks map[string]chan struct{} // closed when it has seen them

	seen   []string // owned by its goroutine until that has ended, as are these
	breaks int
	err    error
}

// at returns what is closed when the reader has seen a mark.
func (f *wanderer) at(mark string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.marks[mark] == nil {
		f.marks[mark] = make(chan struct{})
	}
	return f.marks[mark]
}

// mark says what the reader has seen, and whether it was the last.
func (f *wanderer) mark(m string) (last bool) {
	ch := f.at(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-ch: // not for the first time
	default:
		close(ch)
	}
	return m == f.last
}

// words marks the last word of an increment.
func (f *wanderer) words(text string) {
	f.mark(text[strings.LastIndexByte(text[:len(text)-1], ' ')+1:])
}

func (f *wanderer) open() {
	if f.breaks == 0 {
		close(f.opened)
	}
	f.breaks++
}

// lifetime is how many messages a connection lives.
func (f *wanderer) lifetime() int { return 1 + f.rnd.IntN(1+f.rnd.IntN(120)) }

func (f *wanderer) sse(ctx context.Context, g *Gateway) error {
	pos, over, end := int64(0), false, ""
	var l items
	connection := func() error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/api/conversations/a/events", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", strconv.FormatInt(pos, 10))
		resp, err := g.Client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		f.open()
		r := sse.NewReader(resp.Body)
		for n := f.lifetime(); n > 0 && !over; n-- {
			e, err := r.Next()
			if err != nil {
				return err
			}
			var x numbered
			if err := json.Unmarshal(e.Data, &x); err != nil {
				return err
			}
			if x.First == 0 {
				x.First = x.Seq
			}
			if x.First != pos+1 || x.Seq < x.First || e.ID != strconv.FormatInt(x.Seq, 10) || e.Name != x.Type {
				return fmt.Errorf("after %d came %d to %d, id %s, named %s", pos, x.First, x.Seq, e.ID, e.Name)
			}
			pos = x.Seq
			l.add(x, e.Data)
			switch x.Type {
			case "text":
				f.words(x.Text)
				if i := strings.LastIndex(x.Text, "end "); i >= 0 {
					end = x.Text[i:]
				}
			case "tool_use":
				f.mark(x.ID)
			case "done":
				over = f.mark(end)
			case "canceled":
				over = f.mark(x.Reason)
			}
		}
		return nil
	}
	for !over {
		if err := connection(); err != nil {
			return err
		}
	}
	f.seen = l.list()
	return nil
}

// grpc follows as a program that keeps events, and shows the increments of what goes on: these it
// forgets when it loses the connection, because they come again.
func (f *wanderer) grpc(ctx context.Context, c pb.ClientServiceClient) error {
	since, over := f.since, false
	text := "" // of the turn, up to the last event
	connection := func() error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		stream, err := c.StreamEvents(ctx, &pb.StreamEventsRequest{ConversationKey: "a", SinceEventId: &since}, grpc.WaitForReady(true))
		if err == nil {
			_, err = stream.Header()
		}
		if err != nil {
			return err
		}
		f.open()
		live, ends := "", 0 // since the last event
		for n := f.lifetime(); n > 0 && !over; n-- {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			switch p := m.GetPayload().(type) {
			case *pb.ClientStreamEvent_Text:
				live += p.Text.GetContent()
				f.words(live)
			case *pb.ClientStreamEvent_ToolUse:
				f.mark(p.ToolUse.GetId())
			case *pb.ClientStreamEvent_Done:
				if ends++; p.Done.GetFullResponse() != text+live {
					return fmt.Errorf("the increments of a turn are\n %q, its answer\n %q", text+live, p.Done.GetFullResponse())
				}
			case *pb.ClientStreamEvent_Error:
				ends++
			case *pb.ClientStreamEvent_Event:
				e := p.Event
				since = e.GetId()
				text, live = text+live, ""
				if strings.HasPrefix(e.GetType(), "tool_") {
					continue
				}
				f.seen = append(f.seen, e.GetId()+" "+e.GetType()+" "+e.GetText())
				switch {
				case e.GetDirection() == "inbound_to_agent":
					text = ""
				case e.GetType() == "message":
					if !strings.HasPrefix(e.GetText(), text) || ends > 1 {
						return fmt.Errorf("%d ends, the increments of a turn are\n %q, its answer\n %q", ends, text, e.GetText())
					}
					if i := strings.LastIndex(e.GetText(), "end "); i >= 0 {
						over = f.mark(e.GetText()[i:])
					}
				case e.GetType() == "error":
					over = f.mark(e.GetText())
				}
				ends = 0
			}
		}
		return nil
	}
	for !over {
		if err := connection(); err != nil {
			return err
		}
	}
	return nil
}
