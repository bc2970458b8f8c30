package upstream

import (
	"bufio"
	"io"
	"strings"
	"sync"
	"time"
)

// A Line is something that a server has written, or that the gateway notes about it.
type Line struct {
	At   time.Time
	Text string
}

// A ring keeps the latest lines.
type ring struct {
	mu   sync.Mutex
	kept []Line
	next int // the place of the next line once all are taken
}

func (r *ring) add(text string) {
	line := Line{time.Now(), clip(strings.TrimRight(text, "\r\n"))}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < MaxLogLines {
		r.kept = append(r.kept, line)
		return
	}
	r.kept[r.next] = line
	r.next = (r.next + 1) % MaxLogLines
}

func (r *ring) lines() []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append([]Line{}, r.kept[r.next:]...), r.kept[:r.next]...)
}

// read keeps the lines that come from a reader until it ends. What is longer than a line may be is
// cut into several.
func (r *ring) read(from io.Reader) {
	b := bufio.NewReaderSize(from, MaxLogLine)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			r.add(string(line))
		}
		if err != nil && err != bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it as it is
			return
		}
	}
}
