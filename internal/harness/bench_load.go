package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

// A fanReader follows a conversation.
type fanReader struct {
	turns chan fanTurn
	now   fanTurn
}

// A fanTurn is what it got of one turn.
type fanTurn struct {
	bytes, messages int
	lag             time.Duration // the longest that an increment took; of those that are merged, the first one
}

func (f *fanReader) text(s string) {
	f.now.bytes += len(s)
	f.now.messages++
	if first, _, ok := strings.Cut(s, " "); ok {
		if ns, err := strconv.ParseInt(first, 10, 64); err == nil {
			f.now.lag = max(f.now.lag, time.Since(time.Unix(0, ns)))
		}
	}
}

func (f *fanReader) end() {
	f.turns <- f.now
	f.now = fanTurn{}
}

func (b *bench) fanOut() error {
	for _, c := range []struct {
		name       string
		increments int
		every      time.Duration
	}{{"as fast as possible, ", b.Burst, 0}, {"paced, ", 400, 5 * time.Millisecond}} {
		if err := b.fan(c.name, b.id(c.increments), c.increments, c.every); err != nil {
			return err
		}
	}
	return nil
}

// fan has readers follow one conversation and compares how much text each got. A delivery is one increment
// that has come to one reader, merged with others or not.
func (b *bench) fan(name, id string, increments int, every time.Duration) error {
	if err := b.connect(id, stamps(increments, every)); err != nil {
		return err
	}
	if _, _, err := b.target.ask(b.ctx, id, "so that there is a conversation", nil); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(b.ctx)
	var following sync.WaitGroup
	defer func() { stop(); following.Wait() }()
	all := make([]*fanReader, b.Readers)
	opened, failed := make(chan struct{}, b.Readers), make(chan error, b.Readers)
	for i := range all {
		f := &fanReader{turns: make(chan fanTurn, 1)}
		all[i] = f
		run := f.sse
		if i%2 == 1 {
			run = f.grpc
		}
		following.Go(func() { failed <- run(ctx, b, id, func() { opened <- struct{}{} }) })
	}
	for range all {
		select {
		case <-opened:
		case err := <-failed:
			return err
		}
	}
	want := increments * len(strconv.FormatInt(time.Now().UnixNano(), 10)+" ")
	before, start := b.usage(), time.Now()
	asked := make(chan error, 1)
	following.Go(func() {
		_, _, err := b.target.ask(ctx, id, "go", nil)
		asked <- err
	})
	var took []time.Duration
	messages := 0
	for i, f := range all {
		select {
		case x := <-f.turns:
			if x.bytes != want {
				return fmt.Errorf("reader %d got %d bytes, the agent sent %d", i, x.bytes, want)
			}
			messages += x.messages
			took = append(took, x.lag)
		case err := <-failed:
			return err
		}
	}
	n, after := float64(b.Readers*increments), b.usage()
	b.note(name+"deliveries", n/time.Since(start).Seconds(), "1/s")
	b.note(name+"messages per delivery", float64(messages)/n, "")
	if b.p != nil {
		b.note(name+"processor time of the gateway per delivery", float64((after.CPU-before.CPU).Nanoseconds())/n/1000, "µs")
	}
	return errors.Join(<-asked, b.noteTimes(name+"worst lag of a reader, ", took))
}

func (f *fanReader) sse(ctx context.Context, b *bench, id string, opened func()) error {
	head, err := b.target.head(ctx, id)
	if err != nil {
		return err
	}
	return b.target.follow(ctx, "/api/conversations/"+id+"/events", head, opened, func(e sse.Event) error {
		switch e.Name {
		case "text":
			s, err := eventText(e)
			f.text(s)
			return err
		case "done":
			f.end()
		}
		return nil
	})
}

func (f *fanReader) grpc(ctx context.Context, b *bench, id string, opened func()) error {
	conn, err := dial(b.target)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := pb.NewClientServiceClient(conn).StreamEvents(b.authorized(ctx), &pb.StreamEventsRequest{ConversationKey: id})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		return err
	}
	opened()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if x := m.GetText(); x != nil {
			f.text(x.GetContent())
		}
		if m.GetDone() != nil {
			f.end()
		}
	}
}

// turnSamples is how often the case turns looks at the gateway.
const turnSamples = 20

// turns has many turns happen, of a few increments each, and looks at the gateway meanwhile. Its memory
// and goroutines are to be flat after the first tenth, apart from SQLite's caches, which grow with the
// database up to their bound.
func (b *bench) turns() error {
	const increments, threads = 5, 16
	want := expected(increments)
	for i := range b.Agents {
		if err := b.connect(b.id(i), numbers); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // ours, of the cases before
	start := time.Now()
	if err := b.sample(0, start); err != nil {
		return err
	}
	var next atomic.Int64
	step := max(1, b.Turns/turnSamples)
	err := parallel(b.Agents*2, func(int) error {
		for {
			n := int(next.Add(1))
			if n > b.Turns {
				return nil
			}
			text := ""
			m := map[string]string{"agent_id": b.id(n % b.Agents), "sender": "bench", "content": strconv.Itoa(increments), "thread_id": fmt.Sprint(b.prefix, n%(threads*b.Agents))}
			err := b.target.send(b.ctx, m, func(e sse.Event) error {
				if e.Name != "text" {
					return nil
				}
				s, err := eventText(e)
				text += s
				return err
			})
			if !errors.Is(err, io.EOF) || text != want {
				return fmt.Errorf("turn %d: the agent sent %q, the client received %q: %w", n, want, text, err)
			}
			if n%step == 0 {
				if err := b.sample(n, start); err != nil {
					return err
				}
			}
		}
	})
	if err != nil {
		return err
	}
	b.note("turns", float64(b.Turns)/time.Since(start).Seconds(), "1/s")
	// What 10 % of the turns have needed is compared with the most since.
	var early, late Sample
	for _, s := range b.report.Samples {
		if s.Turns <= b.Turns/10 {
			early = Sample{Resident: max(early.Resident, s.Resident), Heap: max(early.Heap, s.Heap), Goroutines: max(early.Goroutines, s.Goroutines)}
		} else {
			late = Sample{Resident: max(late.Resident, s.Resident), Heap: max(late.Heap, s.Heap), Goroutines: max(late.Goroutines, s.Goroutines)}
		}
	}
	b.note("most memory in the first tenth", float64(early.Resident)/1e6, "MB")
	b.note("most memory afterwards", float64(late.Resident)/1e6, "MB")
	b.note("most of Go's heap in the first tenth", float64(early.Heap)/1e6, "MB")
	b.note("most of Go's heap afterwards", float64(late.Heap)/1e6, "MB")
	b.note("most goroutines in the first tenth", float64(early.Goroutines), "")
	b.note("most goroutines afterwards", float64(late.Goroutines), "")
	return nil
}

func (b *bench) sample(turns int, start time.Time) error {
	resp, err := b.target.request(b.ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s := Sample{Turns: turns, Seconds: time.Since(start).Seconds()}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, maxAnswer))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		f, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "go_goroutines":
			s.Goroutines = int(f)
		case name == "go_memstats_heap_inuse_bytes":
			s.Heap = int64(f)
		case name == "process_resident_memory_bytes":
			s.Resident = int64(f)
		}
	}
	b.samples.Lock()
	defer b.samples.Unlock()
	b.report.Samples = append(b.report.Samples, s)
	return lines.Err()
}
