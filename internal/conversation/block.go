package conversation

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of a block. A block that reaches one is closed and the next one begins; readers cannot
// tell, they merge neighbouring increments anyway.
const (
	// MaxBlockBytes bounds the text of a block, and with it the memory of an open turn.
	MaxBlockBytes = 64 << 10
	// MaxBlockSpan bounds Last-Seq of a block. A read that starts inside a block finds it by
	// looking that far back.
	MaxBlockSpan = 1024
)

// A block is a run of text or thinking increments of one turn that is still open. It only grows:
// a committed part may be read while more is appended behind it.
type block struct {
	kind  Kind
	first int64
	at    time.Time // of its first increment
	text  []byte
	cuts  []cut
	key   int64 // of its first stored increment; 0 while it has none
}

// A cut says that the increment seq ends at the offset end of the block's text.
type cut struct {
	seq int64
	end int
}

func (b *block) last() int64 { return b.cuts[len(b.cuts)-1].seq }

// fits reports whether an increment of n bytes numbered seq may join the block.
func (b *block) fits(kind Kind, n int, seq int64) bool {
	return b.kind == kind && len(b.text)+n <= MaxBlockBytes && seq-b.first < MaxBlockSpan
}

func (b *block) add(seq int64, text []byte) {
	b.text = append(b.text, text...)
	b.cuts = append(b.cuts, cut{seq, len(b.text)})
}

// record returns the block as it is stored when it is closed.
func (b *block) record(ref Ref) Record {
	r := Record{Ref: ref, Seq: b.first, Last: b.last(), At: b.at, Kind: b.kind, Text: string(b.text)}
	if len(b.cuts) > 1 {
		r.Cuts = encodeCuts(b.cuts)
	}
	return r
}

// encodeCuts packs cuts as pairs of differences, two bytes for a usual increment.
func encodeCuts(cuts []cut) []byte {
	buf := make([]byte, 0, 2*len(cuts)+4)
	var prev cut
	for i, c := range cuts {
		if i == 0 {
			prev.seq = c.seq // the record has it
		}
		buf = binary.AppendUvarint(buf, uint64(c.seq-prev.seq))
		buf = binary.AppendUvarint(buf, uint64(c.end-prev.end))
		prev = c
	}
	return buf
}

// decodeCuts is the inverse; it refuses cuts that do not fit a block from first to last with n
// bytes of text.
func decodeCuts(buf []byte, first, last int64, n int) ([]cut, error) {
	if len(buf) == 0 && first == last {
		return []cut{{first, n}}, nil
	}
	cuts := make([]cut, 0, len(buf)/2)
	prev := cut{first, 0}
	for len(buf) > 0 {
		seq, k := binary.Uvarint(buf)
		if k <= 0 {
			return nil, fmt.Errorf("block %d: damaged cuts", first)
		}
		end, l := binary.Uvarint(buf[k:])
		if l <= 0 || seq > MaxBlockSpan || end > uint64(n-prev.end) || (seq == 0) != (len(cuts) == 0) {
			return nil, fmt.Errorf("block %d: damaged cuts", first)
		}
		buf = buf[k+l:]
		prev = cut{prev.seq + int64(seq), prev.end + int(end)}
		cuts = append(cuts, prev)
	}
	if prev.seq != last || prev.end != n {
		return nil, fmt.Errorf("block %d: its cuts end at %d, %d bytes instead of %d, %d bytes", first, prev.seq, prev.end, last, n)
	}
	return cuts, nil
}

// Numbers returns the numbers of the events that a record with size bytes of text stands for: Seq
// alone, or one for each increment of a block. It fails where the record is damaged.
func (r Record) Numbers(size int) ([]int64, error) {
	if r.Last-r.Seq >= MaxBlockSpan {
		return nil, fmt.Errorf("block %d reaches to %d, further than readers look", r.Seq, r.Last)
	}
	cuts, err := decodeCuts(r.Cuts, r.Seq, r.Last, size)
	if err != nil {
		return nil, err
	}
	seqs := make([]int64, len(cuts))
	for i, c := range cuts {
		seqs[i] = c.seq
	}
	return seqs, nil
}

// A run is a block, or the committed part of an open one, on its way to a reader.
type run struct {
	turnID, threadID, principalID string
	kind                          Kind
	at                            time.Time
	text                          []byte // never changed, though more may be appended behind it
	cuts                          []cut
}

// pieces appends the increments of the run with after < seq ≤ until.
func (r run) pieces(evs []Event, after, until int64) []Event {
	i, _ := slices.BinarySearchFunc(r.cuts, after+1, func(c cut, seq int64) int { return int(c.seq - seq) })
	start := 0
	if i > 0 {
		start = r.cuts[i-1].end
	}
	for _, c := range r.cuts[i:] {
		if c.seq > until {
			break
		}
		evs = append(evs, Event{Seq: c.seq, First: c.seq, At: r.at, TurnID: r.turnID, ThreadID: r.threadID, PrincipalID: r.principalID, Body: increment(r.kind, string(r.text[start:c.end]))})
		start = c.end
	}
	return evs
}

func increment(kind Kind, text string) Body {
	if kind == KindThinking {
		return Thinking{text}
	}
	return Text{text}
}

// incrementText returns the kind and text of an increment; ok is false for other bodies.
func incrementText(b Body) (kind Kind, text string, ok bool) {
	switch b := b.(type) {
	case Text:
		return KindText, b.Text, true
	case Thinking:
		return KindThinking, b.Text, true
	}
	return 0, "", false
}

// inOrder sorts events by number and drops doubles: a block that was closed between two looks is
// found twice.
func inOrder(evs []Event) []Event {
	slices.SortStableFunc(evs, func(a, b Event) int { return int(a.Seq - b.Seq) })
	return slices.CompactFunc(evs, func(a, b Event) bool { return a.Seq == b.Seq })
}

// merge joins neighbouring increments of one block. It works in place.
func merge(evs []Event) []Event {
	out := evs[:0]
	for i := 0; i < len(evs); {
		e := evs[i]
		kind, text, ok := incrementText(e.Body)
		j := i + 1
		if ok {
			n := len(text)
			for ; j < len(evs) && evs[j].TurnID == e.TurnID; j++ {
				k, t, ok := incrementText(evs[j].Body)
				if !ok || k != kind {
					break
				}
				n += len(t)
			}
			if j > i+1 {
				var b strings.Builder
				b.Grow(n)
				for _, p := range evs[i:j] {
					_, t, _ := incrementText(p.Body)
					b.WriteString(t)
				}
				e.Seq = evs[j-1].Seq
				e.Body = increment(kind, b.String())
			}
		}
		out = append(out, e)
		i = j
	}
	return out
}
