package conversation

import (
	"slices"
	"testing"
)

// FuzzCuts: what is stored of a block is read back, and damaged cuts are an error, never a panic or
// a piece outside of the text.
func FuzzCuts(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 3, 4}, int64(7), int64(11), 7)
	f.Fuzz(func(t *testing.T, data []byte, first, last int64, n int) {
		if n < 0 || n > 1<<20 || first < 1 || first > 1<<40 {
			return
		}
		if cuts, err := decodeCuts(data, first, last, n); err == nil {
			r := run{kind: KindText, text: make([]byte, n), cuts: cuts}
			if evs := r.pieces(nil, 0, last); len(evs) != len(cuts) {
				t.Errorf("%d cuts make %d pieces", len(cuts), len(evs))
			}
		}
		b := block{kind: KindText, first: first}
		seq := first
		for _, d := range data {
			b.add(seq, data[:int(d)%(len(data)+1)])
			seq += int64(d%5) + 1
		}
		if len(b.cuts) == 0 {
			return
		}
		rec := b.record(Ref{})
		got, err := decodeCuts(rec.Cuts, rec.Seq, rec.Last, len(rec.Text))
		if err != nil || !slices.Equal(got, b.cuts) {
			t.Errorf("stored %v, read %v: %v", b.cuts, got, err)
		}
	})
}

func TestTitle(t *testing.T) {
	long := "A first line that is far too long to be a title and therefore has to end somewhere before its end"
	for text, want := range map[string]string{
		"hello": "hello", "": "", "\n \n  two  words\nmore": "two words", "tab\there": "tab here",
		long: "A first line that is far too long to be a title and therefore has to end…",
	} {
		if got := TitleOf(text); got != want {
			t.Errorf("%q has the title %q, want %q", text, got, want)
		}
	}
}
