package harness

import (
	"context"
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestChecker: the checker finds what was dropped, doubled or put into another order, in what a client saw,
// in what a reader saw and in the log, and nothing where all is well.
func TestChecker(t *testing.T) {
	content := "hello"
	var log []event
	seq := int64(0)
	add := func(e event) {
		seq++
		e.Seq = seq
		log = append(log, e)
	}
	for _, id := range []string{"t1", "t2"} {
		add(event{Type: "message", Turn: id, Content: content + id})
		for _, s := range script(content + id) {
			if s.text == "" {
				add(event{Type: "tool_use", Turn: id})
			} else {
				add(event{Type: "text", Turn: id, Text: s.text})
			}
		}
		add(event{Type: "done", Turn: id})
	}
	drop := func(i int) func([]event) []event {
		return func(e []event) []event { return slices.Delete(slices.Clone(e), i, i+1) }
	}
	double := func(i int) func([]event) []event {
		return func(e []event) []event { return slices.Insert(slices.Clone(e), i, e[i]) }
	}
	swap := func(i int) func([]event) []event {
		return func(e []event) []event { e = slices.Clone(e); e[i], e[i+1] = e[i+1], e[i]; return e }
	}
	same := func(e []event) []event { return e }
	check := func(t *testing.T, resume bool, stored, read, seen func([]event) []event) []string {
		l := newLedger(resume)
		l.handled[content+"t1"], l.handled[content+"t2"] = 1, 1
		r := &record{agent: "a", honest: true, tale: newTale("a"), turns: map[string]*turn{}}
		for _, e := range stored(log) {
			r.read(l, e, encoded(t, e))
		}
		tale := newTale("a")
		for _, e := range read(log) {
			if e.Seq != tale.last+1 { // as follow does
				l.fault("a reader: after %d came %d", tale.last, e.Seq)
			}
			tale.tell(e, encoded(t, e))
		}
		l.tales = append(l.tales, tale)
		s := &sight{agent: "a", content: content + "t1", turn: "t1"}
		for _, e := range seen(log) {
			if e.Turn != "t1" || e.Type == "message" {
				continue
			}
			s.text += e.Text
			if s.last = e.Seq; e.ends() {
				s.ends = append(s.ends, e.Type)
			}
		}
		l.saw(s)
		l.check([]*record{r})
		return l.wrong
	}
	if wrong := check(t, true, same, same, same); len(wrong) > 0 {
		t.Fatalf("nothing is wrong, but: %q", wrong)
	}
	end := slices.IndexFunc(log, event.ends)
	for at, i := range map[string]int{"text": 3, "message": 0, "end": end} {
		for what, mutate := range map[string]func([]event) []event{"drop": drop(i), "double": double(i), "reorder": swap(i)} {
			t.Run(what+" "+at, func(t *testing.T) {
				if wrong := check(t, false, mutate, same, same); len(wrong) == 0 {
					t.Error("in the log: not found")
				}
				if wrong := check(t, false, same, mutate, same); len(wrong) == 0 {
					t.Error("of a reader: not found")
				}
				if at == "text" {
					if wrong := check(t, false, same, same, mutate); len(wrong) == 0 {
						t.Error("of a client: not found")
					}
				}
			})
		}
	}
	cut := func(e []event) []event { // as if the agent had been interrupted in the middle
		e = slices.Clone(e[:3])
		return append(e, event{Seq: 4, Type: "error", Turn: "t1"})
	}
	if wrong := check(t, false, cut, cut, cut); len(wrong) != 1 || !strings.Contains(wrong[0], "not in the log") { // t2
		t.Errorf("an interrupted turn of a plain agent: %q", wrong)
	}
	if wrong := check(t, true, cut, cut, cut); len(wrong) < 2 {
		t.Errorf("an interrupted turn of an agent that resumes: %q", wrong)
	}
	l := newLedger(false)
	l.handled["x"] = 2
	if l.check(nil); len(l.wrong) == 0 {
		t.Error("a message that reached its agent twice is not found")
	}
}

func encoded(t *testing.T, e event) []byte {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTampered: of a real run, one thing that a client, a reader or an agent saw is changed: it is found.
func TestTampered(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a process")
	}
	bin := filepath.Join(t.TempDir(), "coven-gateway")
	if out, err := exec.Command("go", "build", "-o", bin, "coven-gateway/cmd/coven-gateway").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var l *ledger
	var records []*record
	r, err := Chaos(t.Context(), ChaosOptions{
		Bin: bin, Dir: t.TempDir(), Duration: 2 * time.Second, Seed: 1, Agents: 1, Clients: 2,
		tamper: func(seen *ledger, log []*record) { l, records = seen, log },
	})
	if err != nil || len(r.Wrong) > 0 {
		t.Fatal(r, err)
	}
	for what, tamper := range map[string]func(*ledger, []*record){
		"an item of a reader is dropped": func(l *ledger, _ []*record) { l.tales[0].items = slices.Delete(l.tales[0].items, 2, 3) },
		"an item of a reader is doubled": func(l *ledger, _ []*record) {
			l.tales[0].items = slices.Insert(l.tales[0].items, 2, l.tales[0].items[2])
		},
		"items of a reader are reordered": func(l *ledger, _ []*record) { x := l.tales[0].items; x[1], x[2] = x[2], x[1] },
		"text of a client is lost":        func(l *ledger, _ []*record) { s := seen(l); s.text = s.text[1:] },
		"a client saw another end":        func(l *ledger, _ []*record) { seen(l).ends[0] = "error" },
		"an agent got a message twice":    func(l *ledger, _ []*record) { l.handled[seen(l).content]++ },
		"a turn has lost its beginning": func(l *ledger, r []*record) {
			x := r[0].turns[seen(l).turn]
			x.text = x.text[2:]
		},
		"a turn is not there": func(l *ledger, r []*record) { r[0].order = r[0].order[1:] },
	} {
		t.Run(what, func(t *testing.T) {
			l, records := duplicate(l, records)
			tamper(l, records)
			if l.check(records); len(l.wrong) == 0 {
				t.Error("it is not found")
			}
		})
	}
}

// duplicate copies what a test is going to change.
func duplicate(l *ledger, records []*record) (*ledger, []*record) {
	d := newLedger(l.resume)
	d.handled = maps.Clone(l.handled)
	for _, s := range l.sights {
		c := *s
		c.ends = slices.Clone(s.ends)
		d.sights = append(d.sights, &c)
	}
	for _, t := range l.tales {
		d.tales = append(d.tales, &tale{agent: t.agent, items: slices.Clone(t.items), last: t.last, strands: t.strands})
	}
	var copies []*record
	for _, r := range records {
		c := &record{agent: r.agent, honest: r.honest, tale: r.tale, turns: make(map[string]*turn), order: slices.Clone(r.order)}
		for id, t := range r.turns {
			x := *t
			c.turns[id] = &x
		}
		copies = append(copies, c)
	}
	return d, copies
}

// seen returns an answer that was read to its end.
func seen(l *ledger) *sight {
	return l.sights[slices.IndexFunc(l.sights, func(s *sight) bool { return len(s.ends) > 0 && s.ends[0] == "done" })]
}

// TestUnknownFault: a name that is none is an error.
func TestUnknownFault(t *testing.T) {
	if _, err := Chaos(context.Background(), ChaosOptions{Faults: []string{"fire"}}); err == nil {
		t.Error("no error")
	}
}
