package gatewaytest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/prototext"

	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/sse"
	pb "coven-gateway/proto/coven"
)

var update = flag.Bool("update", false, "rewrite the expectations of testdata/wire")

// TestWire plays the conversations in testdata/wire: what agents and clients send, and what each of
// them, and the log, has to show. testdata/wire/README says how to read them.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t, gw: gatewaytest.New(t), agents: map[string]*gatewaytest.Agent{}, requests: map[string]string{}, clients: map[string]*client{}}
			var got []txtar.File
			for _, f := range ar.Files {
				data := f.Data
				if f.Name == "script" {
					p.play(string(f.Data))
				} else {
					data = []byte(p.show(f.Name))
				}
				got = append(got, txtar.File{Name: f.Name, Data: data})
			}
			shown := txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: got})
			if *update {
				if err := os.WriteFile(file, shown, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(txtar.Format(ar)), string(shown)); d != "" {
				t.Errorf("%s (-want +got, -update accepts):\n%s", file, d)
			}
		})
	}
}

// player runs one script.
type player struct {
	t        *testing.T
	gw       *gatewaytest.Gateway
	agents   map[string]*gatewaytest.Agent
	requests map[string]string // the last request of each agent
	clients  map[string]*client
	http     strings.Builder
	names    []string // ids in the order in which they were shown
}

// A client reads the stream of a message it has sent.
type client struct {
	cancel context.CancelFunc
	body   io.Closer
	stream *sse.Reader
	log    strings.Builder
}

func (p *player) play(script string) {
	n := 0
	for line := range strings.Lines(script) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p.t.Logf("%d: %s", n, line)
		word, rest, _ := strings.Cut(line, " ")
		name, rest, _ := strings.Cut(rest, " ")
		verb, args, _ := strings.Cut(rest, " ")
		switch word {
		case "agent":
			p.agent(name, verb, args)
		case "client":
			p.client(name, verb, args)
		case "http":
			p.request(name, verb, args)
		case "restart":
			p.gw.Restart()
		default:
			p.t.Fatalf("line %d: unknown word %q", n, word)
		}
	}
}

func (p *player) agent(name, verb, args string) {
	p.t.Helper()
	if verb == "connect" {
		p.agents[name] = p.gw.Agent(name, func(r *pb.RegisterAgent) {
			if args != "" {
				r.ProtocolFeatures = strings.Split(args, ",")
			}
		})
		return
	}
	a := p.agents[name]
	switch verb {
	case "gets": // a user's message
		m := a.Message()
		p.requests[name] = m.RequestId
		if m.Content != args {
			p.t.Fatalf("agent %s got %q, want %q", name, m.Content, args)
		}
	case "is-asked-to-stop":
		if m := a.Next(); m.GetCancelRequest().GetReason() != args {
			p.t.Fatalf("agent %s got %v, want a cancellation because of %q", name, m, args)
		}
	case "sends": // a MessageResponse in protobuf's text form
		r := &pb.MessageResponse{}
		if err := prototext.Unmarshal([]byte(args), r); err != nil {
			p.t.Fatal(err)
		}
		r.RequestId = p.requests[name]
		a.Reply(r)
	case "dies":
		a.Die()
	case "leaves":
		a.Leave()
		_ = a.Err()
	default:
		p.t.Fatalf("agents cannot %q", verb)
	}
}

func (p *player) client(name, verb, args string) {
	p.t.Helper()
	switch verb {
	case "sends":
		p.open(name, http.MethodPost, "/api/send", args, "")
	case "follows": // PATH [LAST-EVENT-ID]
		path, last, _ := strings.Cut(args, " ")
		p.open(name, http.MethodGet, p.expand(path), "", last)
	case "sees": // reads up to an event of that name
		c := p.clients[name]
		for {
			e, err := c.stream.Next()
			if err != nil {
				p.t.Fatalf("client %s waits for %s: %v", name, args, err)
			}
			fmt.Fprintf(&c.log, "%s %s %s\n", e.ID, e.Name, p.plain(e.Data))
			if e.Name == args {
				return
			}
		}
	case "ends": // reads to the end of the stream
		c := p.clients[name]
		for {
			e, err := c.stream.Next()
			if errors.Is(err, io.EOF) {
				c.log.WriteString("(end)\n")
				return
			}
			if err != nil {
				p.t.Fatalf("client %s: %v", name, err)
			}
			fmt.Fprintf(&c.log, "%s %s %s\n", e.ID, e.Name, p.plain(e.Data))
		}
	case "hangs-up":
		c := p.clients[name]
		c.cancel()
		_ = c.body.Close()
		c.log.WriteString("(hung up)\n")
	default:
		p.t.Fatalf("clients cannot %q", verb)
	}
}

func (p *player) open(name, method, path, body, last string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), gatewaytest.Patience)
	p.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, p.gw.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := p.gw.Client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = resp.Body.Close() })
	c := p.clients[name]
	if c == nil {
		c = &client{}
		p.clients[name] = c
	}
	c.cancel, c.body, c.stream = cancel, resp.Body, sse.NewReader(resp.Body)
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		fmt.Fprintf(&c.log, "%d %s\n", resp.StatusCode, p.plain(b))
	}
}

// request sends a request and notes the answer.
func (p *player) request(method, path, body string) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.gw.URL+p.expand(path), strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == http.MethodPost && strings.HasPrefix(path, "/api/send") {
		req.Header.Set("Accept", "application/json")
	}
	resp, err := p.gw.Client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	fmt.Fprintf(&p.http, "%s %s -> %d\n", method, path, resp.StatusCode)
	for line := range strings.Lines(p.plain(b)) {
		p.http.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
}

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	events = regexp.MustCompile(`"id":"[0-9a-f]{12}-`)
	times  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z`)
	ints   = regexp.MustCompile(`"duration_ms":\d+`)
)

// plain makes what differs from run to run the same: ids are numbered in the order in which they
// were first seen.
func (p *player) plain(b []byte) string {
	s := uuids.ReplaceAllStringFunc(string(bytes.TrimSpace(b)), func(id string) string {
		for i, known := range p.names {
			if known == id {
				return fmt.Sprintf("#%d", i+1)
			}
		}
		p.names = append(p.names, id)
		return fmt.Sprintf("#%d", len(p.names))
	})
	s = events.ReplaceAllString(s, `"id":"`)
	s = ints.ReplaceAllString(s, `"duration_ms":N`)
	return times.ReplaceAllString(s, "TIME")
}

// expand puts real ids for #1, #2 … into a path.
func (p *player) expand(s string) string {
	for i := len(p.names); i > 0; i-- {
		s = strings.ReplaceAll(s, fmt.Sprintf("#%d", i), p.names[i-1])
	}
	return s
}

// show is what a section of the archive has to say.
func (p *player) show(section string) string {
	kind, name, _ := strings.Cut(section, " ")
	switch kind {
	case "client":
		return p.clients[name].log.String()
	case "http":
		return p.http.String()
	case "log": // of an agent's conversation
		p.http.Reset()
		resp, err := p.gw.Client.Get(p.gw.URL + "/api/conversations/" + name + "/events?limit=1000")
		if err != nil {
			p.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		var out strings.Builder
		s := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(p.plain(b), `},{"`, "}\n{\"")))
		for s.Scan() {
			out.WriteString(s.Text() + "\n")
		}
		return out.String()
	}
	p.t.Fatalf("unknown section %q", section)
	return ""
}
