package conversation

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"coven-gateway/internal/fault"
)

const (
	// maxBatch bounds the turns and messages of one commit.
	maxBatch = 256
	// trimEvery is after how many stored increments those that closed blocks cover are forgotten.
	trimEvery = 512
	// maxIncrements is how old, in increments of all turns, the first increment of an open block
	// may get. The block is closed then, so that one slow turn does not keep everything.
	maxIncrements = 16 << 10
	// retryFirst and retryMost bound the wait after a commit that failed.
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

// A committer is the only writer of the log. Turns and messages wait in its queue; it takes all of
// them, commits once, and only then makes the result visible. While one commit is under way the
// next batch gathers, so that load makes batches larger instead of queues longer.
//
// Its goroutine owns the blocks of all turns and decides all numbers.
type committer struct {
	log     Log
	logger  *slog.Logger
	metrics *Metrics

	mu     sync.Mutex
	queue  []work // a turn is in it at most once
	closed bool
	wake   chan struct{} // capacity 1

	failure atomic.Pointer[error] // of the last commit; nil when it succeeded

	// Owned by run.
	open       map[*liveTurn]struct{} // turns with an open block
	increments int                    // stored since the last trim
	newest     int64                  // key of the newest increment
	stopped    chan struct{}          // closed when run returns
}

// work is something to commit: what a turn has gathered, the beginning of one, or a removal.
type work struct {
	turn  *liveTurn
	begin *beginning
	prune *pruning
}

func (w work) what() string {
	if w.prune != nil {
		return "removal"
	}
	return "message"
}

// finish says to whoever waits for something that it has failed, unless err is nil, or is committed.
func (w work) finish(err error) {
	switch {
	case w.begin != nil:
		if err != nil {
			w.begin.err = err
		}
		close(w.begin.ready)
	case w.prune != nil:
		if err != nil {
			w.prune.removals, w.prune.err = nil, err
		}
		close(w.prune.ready)
	}
}

// A beginning is a message on its way into the log. Its sender waits for ready.
type beginning struct {
	feed  *feed
	new   NewTurn
	body  Message
	ready chan struct{}

	// Set before ready is closed.
	turn  Turn
	ref   Ref
	fresh bool
	err   error
}

func newCommitter(log Log, logger *slog.Logger, m *Metrics) *committer {
	c := &committer{
		log: log, logger: logger, metrics: m,
		wake:    make(chan struct{}, 1),
		open:    make(map[*liveTurn]struct{}),
		stopped: make(chan struct{}),
	}
	go c.run()
	return c
}

// post queues a turn that has something to store. It never blocks: a turn waits in the queue once.
func (c *committer) post(t *liveTurn) {
	c.mu.Lock()
	c.queue = append(c.queue, work{turn: t})
	c.mu.Unlock()
	c.poke()
}

// begin commits a message and returns when it is durable. The caller bounds how many wait.
func (c *committer) begin(b *beginning) error {
	b.ready = make(chan struct{})
	if !c.enqueue(work{begin: b}) {
		return errShuttingDown
	}
	<-b.ready // a commit is under way or next: this is not abandoned half-way
	return b.err
}

// enqueue queues something that somebody waits for, unless the committer is closed.
func (c *committer) enqueue(w work) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, w)
	c.mu.Unlock()
	c.poke()
	return true
}

func (c *committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close stops the committer after what is queued has been tried once more, and waits for it.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
	<-c.stopped
}

// healthy returns why the last commit failed, or nil.
func (c *committer) healthy() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *committer) run() {
	defer close(c.stopped)
	defer c.abandon()
	wait := retryFirst
	for range c.wake {
		for {
			batch, closed := c.next()
			if len(batch) == 0 {
				if closed {
					return
				}
				if c.healthy() == nil {
					break
				}
				// Nothing waits, and nobody may send anything while the log is said to be broken: it
				// is tried with nothing.
			}
			err := c.commit(batch)
			if err == nil {
				wait = retryFirst
				continue
			}
			if closed {
				return
			}
			time.Sleep(wait) // nothing of a turn is lost: it is back in the queue
			wait = min(2*wait, retryMost)
		}
	}
}

func (c *committer) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// abandon fails the messages that a closing committer could not store.
func (c *committer) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.queue {
		w.finish(errShuttingDown)
	}
	c.queue = nil
}

func (c *committer) next() (batch []work, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxBatch)
	batch = append(batch, c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	c.metrics.CommitQueue.Set(float64(rest))
	return batch, c.closed
}

// A taken is what one turn puts into a commit, and how to undo it.
type taken struct {
	turn  *liveTurn
	items []item
	size  int

	block      *block    // before
	text, cuts int       // its lengths before
	ended      TurnState // "" while it is open
}

// A commit is a batch on its way into the log.
type commit struct {
	c       *committer
	tx      Tx
	changes map[*feed]*change
	takens  []taken
	bytes   int
	events  int
}

// commit stores a batch and publishes it. On an error nothing has happened: messages fail, what
// turns have gathered goes back to them.
func (c *committer) commit(batch []work) error {
	start := time.Now()
	cm := &commit{c: c, changes: make(map[*feed]*change)}
	err := c.log.Commit(context.Background(), func(tx Tx) error {
		cm.tx = tx
		for _, w := range batch {
			var err error
			switch {
			case w.begin != nil:
				err = cm.begin(w.begin)
			case w.prune != nil:
				err = cm.prune(w.prune)
			default:
				err = cm.drain(w.turn)
			}
			if err != nil {
				return err
			}
		}
		if len(batch) == 0 {
			return tx.Probe()
		}
		return cm.trim()
	})
	if err != nil {
		c.failure.Store(&err)
		c.metrics.CommitFailures.Inc()
		if len(batch) > 0 {
			c.logger.Error("commit failed", "error", err, "operations", len(batch))
		}
		if cm.persisted() {
			err = nil
		}
	}
	if err != nil {
		cm.undo(batch)
	} else {
		c.failure.Store(nil)
		cm.publish()
		c.metrics.CommitSeconds.Observe(time.Since(start).Seconds())
		c.metrics.CommitEvents.Observe(float64(cm.events))
		c.metrics.Events.Add(float64(cm.events))
		c.metrics.Bytes.Add(float64(cm.bytes))
	}
	for _, w := range batch {
		if err == nil {
			w.finish(nil)
		} else {
			w.finish(unstored(err, w.what()))
		}
	}
	return err
}

// unstored says what could not be stored, and why where the log has words for it.
func unstored(err error, what string) error {
	if fault.CodeOf(err) == fault.Unavailable {
		return fault.Wrap(err, fault.Unavailable, "the %s could not be stored: %s", what, fault.Message(err))
	}
	return fault.Wrap(err, fault.Unavailable, "the %s could not be stored", what)
}

// change returns what this commit does to a conversation, with its tentative state.
func (cm *commit) change(f *feed) *change {
	ch := cm.changes[f]
	if ch == nil {
		conv, _ := f.snapshot()
		ch = &change{conv: conv, open: make(map[string]run)}
		cm.changes[f] = ch
	}
	return ch
}

// begin stores a message. A fault concerns this message alone, anything else the whole commit.
func (cm *commit) begin(b *beginning) error {
	ch := cm.change(b.feed)
	if ch.conv.ID == 0 {
		conv, err := cm.tx.Conversation(b.feed.agentID)
		if err != nil {
			return err
		}
		ch.conv = conv
	}
	b.new.Conversation = ch.conv.ID
	b.new.First = ch.conv.Head + 1
	var err error
	b.turn, b.ref, b.fresh, err = cm.tx.Begin(b.new)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		b.err = f
		return nil
	}
	if err != nil || !b.fresh {
		return err
	}
	for _, f := range b.body.Files {
		if err := cm.tx.AddFile(b.ref, b.new.First, b.new.StartedAt, f); err != nil {
			return err
		}
	}
	err = cm.append(ch, b.ref, b.turn.ID, b.turn.ThreadID, b.turn.PrincipalID, b.new.StartedAt, b.body)
	if err == nil && b.new.State == Queued {
		err = cm.append(ch, b.ref, b.turn.ID, b.turn.ThreadID, b.turn.PrincipalID, b.new.StartedAt, Enqueued{Until: b.new.WaitingUntil})
	}
	return err
}

// append stores an event that stands for itself.
func (cm *commit) append(ch *change, ref Ref, turnID, threadID, principalID string, at time.Time, body Body) error {
	seq := ch.conv.Head + 1
	rec, err := NewRecord(ref, seq, at, body)
	if err != nil {
		return err
	}
	if err := cm.tx.Append(ref, rec); err != nil {
		return err
	}
	ch.conv.Head = seq
	cm.bytes += len(rec.Text) + len(rec.Detail)
	cm.note(ch, Event{Seq: seq, First: seq, At: at, TurnID: turnID, ThreadID: threadID, PrincipalID: principalID, Body: body})
	return nil
}

func (cm *commit) note(ch *change, e Event) {
	ch.events = append(ch.events, e)
	cm.events++
}

// drain stores what a turn has gathered.
func (cm *commit) drain(t *liveTurn) error {
	ch := cm.change(t.feed)
	tk := taken{turn: t, items: t.take(), block: t.block}
	if t.block != nil {
		tk.text, tk.cuts = len(t.block.text), len(t.block.cuts)
	}
	cm.takens = append(cm.takens, tk)
	k := len(cm.takens) - 1

	stored := tk.cuts // increments of the open block that are stored on their own
	for _, it := range tk.items {
		if it.body == nil {
			if t.block != nil && !t.block.fits(it.kind, len(it.text), ch.conv.Head+1) {
				if err := cm.closeBlock(ch, t); err != nil {
					return err
				}
				stored = 0
			}
			ch.conv.Head++
			if t.block == nil {
				t.block = &block{kind: it.kind, first: ch.conv.Head, at: it.at}
			}
			t.block.add(ch.conv.Head, it.text)
			cm.takens[k].size += len(it.text)
			cm.bytes += len(it.text)
			cm.note(ch, Event{Seq: ch.conv.Head, First: ch.conv.Head, At: it.at, TurnID: t.id, ThreadID: t.thread, PrincipalID: t.principal, Body: increment(it.kind, string(it.text))})
			continue
		}
		cm.takens[k].size += sizeOf(Event{Body: it.body})
		if err := cm.closeBlock(ch, t); err != nil {
			return err
		}
		stored = 0
		if err := cm.appendItem(ch, t, it); err != nil {
			return err
		}
		if e, ok := it.body.(Ended); ok {
			cm.takens[k].ended = e.State
		}
	}
	if newest := newestOf(tk.items); newest > 0 { // in the commit that has what it counts
		if err := cm.tx.Received(t.ref, newest); err != nil {
			return err
		}
	}
	return cm.increments(ch, t, stored)
}

// newestOf returns the highest number that an agent has given to any of the items; 0 where it numbers none.
func newestOf(items []item) (newest uint64) {
	for _, it := range items {
		newest = max(newest, it.seq)
	}
	return newest
}

// appendItem stores an event of a turn and what belongs to it in other tables.
func (cm *commit) appendItem(ch *change, t *liveTurn, it item) error {
	if err := cm.append(ch, t.ref, t.id, t.thread, t.principal, it.at, it.body); err != nil {
		return err
	}
	seq := ch.conv.Head
	switch b := it.body.(type) {
	case Usage:
		return cm.tx.AddUsage(t.ref, seq, it.at, b)
	case FileSent:
		return cm.tx.AddFile(t.ref, seq, it.at, b.File)
	case Enqueued:
		return cm.tx.Wait(t.ref, b.Until)
	case Delivered:
		if t.resumes.Load() {
			if err := cm.tx.Received(t.ref, 0); err != nil {
				return err
			}
		}
		return cm.tx.Wait(t.ref, time.Time{})
	case Ended:
		return cm.tx.End(t.ref, EndedTurn{State: b.State, Cause: b.Cause, Last: seq, FirstEventAt: t.firstSign(), At: it.at})
	}
	return nil
}

// increments stores the part of the open block that no earlier commit has.
func (cm *commit) increments(ch *change, t *liveTurn, stored int) error {
	b := t.block
	if b == nil {
		return nil
	}
	start := 0
	if stored > 0 {
		start = b.cuts[stored-1].end
	}
	for _, c := range b.cuts[stored:] {
		key, err := cm.tx.Increment(t.ref, Piece{Seq: c.seq, Kind: b.kind, Text: string(b.text[start:c.end]), At: b.at})
		if err != nil {
			return err
		}
		start = c.end
		if b.key == 0 {
			b.key = key
		}
		cm.c.newest = key
		cm.c.increments++
	}
	cm.c.open[t] = struct{}{}
	ch.open[t.id] = run{t.id, t.thread, t.principal, b.kind, b.at, b.text, b.cuts}
	return nil
}

// closeBlock stores the open block of a turn, if there is one, as one record.
func (cm *commit) closeBlock(ch *change, t *liveTurn) error {
	if t.block == nil {
		return nil
	}
	if err := cm.tx.Append(t.ref, t.block.record(t.ref)); err != nil {
		return err
	}
	t.block = nil
	delete(ch.open, t.id)
	ch.closed = append(ch.closed, t.id)
	return nil
}

// trim forgets increments that closed blocks cover, now and then.
func (cm *commit) trim() error {
	c := cm.c
	if c.increments < trimEvery {
		return nil
	}
	oldest := c.newest + 1
	for t := range c.open {
		if t.block == nil {
			delete(c.open, t)
			continue
		}
		if c.newest-t.block.key > maxIncrements {
			cm.save(t)
			if err := cm.closeBlock(cm.change(t.feed), t); err != nil {
				return err
			}
			continue
		}
		oldest = min(oldest, t.block.key)
	}
	c.increments = 0
	return cm.tx.Trim(oldest)
}

// save remembers the block of a turn that this commit has not drained.
func (cm *commit) save(t *liveTurn) {
	for _, tk := range cm.takens {
		if tk.turn == t {
			return
		}
	}
	cm.takens = append(cm.takens, taken{turn: t, block: t.block, text: len(t.block.text), cuts: len(t.block.cuts)})
}

// persisted reports whether a commit took effect although it was reported to have failed, as may
// happen when the disk fails at the worst moment. It has no other writer to fear: if any event of
// the commit is there, or one that it removed is not, all of it happened.
func (cm *commit) persisted() bool {
	for f, ch := range cm.changes {
		before, _ := f.snapshot()
		removed := ch.removed()
		if len(ch.events) == 0 && removed == 0 || ch.conv.ID == 0 {
			continue
		}
		for wait := retryFirst; ; wait = min(2*wait, retryMost) {
			var done bool
			var err error
			if removed > 0 {
				done, err = cm.c.log.Pruned(context.Background(), ch.conv.ID, removed)
			} else {
				var newest int64
				newest, err = cm.c.log.Newest(context.Background(), ch.conv.ID)
				done = newest > before.Head
			}
			if err == nil {
				return done
			}
			cm.c.failure.Store(&err)
			if cm.c.isClosed() {
				return false
			}
			time.Sleep(wait) // a log that cannot be read cannot be written either
		}
	}
	return false
}

// undo gives everything back after a commit that failed.
func (cm *commit) undo(batch []work) {
	reached := make(map[*liveTurn]bool)
	for _, tk := range cm.takens {
		reached[tk.turn] = true
		tk.turn.block = tk.block
		if tk.block != nil {
			tk.block.text = tk.block.text[:tk.text]
			tk.block.cuts = tk.block.cuts[:tk.cuts]
			cm.c.open[tk.turn] = struct{}{}
		}
		if len(tk.items) > 0 {
			tk.turn.putBack(tk.items)
		}
	}
	for _, w := range batch {
		if w.turn != nil && !reached[w.turn] {
			cm.c.post(w.turn) // the commit failed before its turn came
		}
	}
}

// publish makes the commit visible: first the events, then the room in the turns, then their ends.
func (cm *commit) publish() {
	for f, ch := range cm.changes {
		f.publish(ch)
		cm.c.metrics.removed(ch.removals)
	}
	for _, tk := range cm.takens {
		tk.turn.committed(tk.size)
		if newest := newestOf(tk.items); newest > 0 {
			tk.turn.durable(newest, tk.size, tk.ended != "" || slices.ContainsFunc(tk.items, func(it item) bool { _, file := it.body.(FileSent); return file }))
		}
		for _, it := range tk.items {
			switch b := it.body.(type) {
			case FileSent:
				tk.turn.service.releaseFiles(b.File)
			case Delivered:
				tk.turn.onHanded()
			case Decision:
				tk.turn.onDecided(b)
			}
		}
		if tk.ended != "" {
			tk.turn.service.retire(tk.turn, tk.ended)
		}
	}
}
