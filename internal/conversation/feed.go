package conversation

import (
	"maps"
	"slices"
	"sync"
)

// Bounds of what a feed keeps in memory. Older events are read from the log.
const (
	// maxTail bounds the recent events of one conversation, in bytes.
	maxTail = 256 << 10
	// eventOverhead is what an event costs in the tail besides its text, in bytes.
	eventOverhead = 160
)

// A feed is the live end of one conversation: what is committed, and who wants to know. It is
// changed by the committer alone, after each commit, and read by everybody.
type feed struct {
	agentID string
	loaded  chan struct{} // closed when conv and tailFrom are known, or err is set
	err     error

	users int // open turns, sends and readers; guarded by Service.feedsMu

	mu       sync.Mutex
	conv     Conversation // as committed
	tail     []Event      // all events with Seq > tailFrom, unmerged
	tailSize int
	tailFrom int64
	open     map[string]run // committed parts of open blocks, by turn
	readers  map[*Reader]struct{}
}

func newFeed(agentID string) *feed {
	return &feed{
		agentID: agentID,
		loaded:  make(chan struct{}),
		open:    make(map[string]run),
		readers: make(map[*Reader]struct{}),
	}
}

// A change is what a commit did to one conversation.
type change struct {
	conv   Conversation
	events []Event
	open   map[string]run // committed parts of blocks that are open now
	closed []string       // turns that closed a block

	removals []Removal
}

// removed is the number of an event that the commit removes, 0 if it removes none.
func (c *change) removed() int64 {
	for _, r := range c.removals {
		if n := r.newest(); n > 0 {
			return n
		}
	}
	return 0
}

// publish makes a commit visible and wakes the readers it concerns.
func (f *feed) publish(c *change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conv = c.conv
	for _, id := range c.closed { // first: a turn may have closed one block and opened the next
		delete(f.open, id)
	}
	maps.Copy(f.open, c.open)
	for _, e := range c.events {
		f.tail = append(f.tail, e)
		f.tailSize += sizeOf(e)
	}
	f.trim()
	if len(c.removals) > 0 {
		f.remove(c.removals)
	}
	for r := range f.readers {
		if slices.ContainsFunc(c.events, r.filter.match) {
			r.poke()
		}
	}
}

// trim drops the oldest events when the tail is too large. Half of it goes at once, so that the
// copying is paid for by as many appends.
func (f *feed) trim() {
	if f.tailSize <= maxTail {
		return
	}
	n := 0
	for n < len(f.tail) && f.tailSize > maxTail/2 {
		f.tailSize -= sizeOf(f.tail[n])
		f.tailFrom = f.tail[n].Seq
		n++
	}
	f.tail = slices.Delete(f.tail, 0, n) // clears what it frees
}

func sizeOf(e Event) int {
	switch b := e.Body.(type) {
	case Text:
		return eventOverhead + len(b.Text)
	case Thinking:
		return eventOverhead + len(b.Text)
	case Message:
		return eventOverhead + len(b.Text)
	case ToolCall:
		return eventOverhead + len(b.Input)
	case ToolResult:
		return eventOverhead + len(b.Output)
	case Approval:
		return eventOverhead + len(b.Input)
	case Decision:
		return eventOverhead + len(b.Input)
	case Trouble:
		return eventOverhead + len(b.Text)
	case Ended:
		return eventOverhead + len(b.Response)
	default:
		return eventOverhead
	}
}

// recent returns the events after pos that match, unmerged, at most limit of them, and the number
// up to which the answer is complete. ok is false when the tail does not reach back to pos.
func (f *feed) recent(pos int64, filter Filter, limit int) (evs []Event, complete int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pos < f.tailFrom {
		return nil, pos, false
	}
	i, _ := slices.BinarySearchFunc(f.tail, pos+1, func(e Event, seq int64) int { return int(e.Seq - seq) })
	size := 0
	for _, e := range f.tail[i:] {
		if !filter.match(e) {
			continue
		}
		if len(evs) == limit || size > maxReadBytes {
			return evs, evs[len(evs)-1].Seq, true
		}
		e.First = max(e.First, pos+1) // of what was removed the reader may have had a part
		evs = append(evs, e)
		size += sizeOf(e)
	}
	return evs, f.conv.Head, true
}

// snapshot returns the committed state and the open blocks. A block that is closed later is found
// in the log as well; one that was closed before is in the log already.
func (f *feed) snapshot() (Conversation, []run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	runs := make([]run, 0, len(f.open))
	for _, r := range f.open {
		runs = append(runs, r)
	}
	return f.conv, runs
}

func (f *feed) attach(r *Reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers[r] = struct{}{}
}

func (f *feed) detach(r *Reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
}
