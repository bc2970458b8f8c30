package conversation

import (
	"context"
	"time"

	"coven-gateway/internal/auth"
)

// A Log keeps conversations until somebody removes something of them.
type Log interface {
	// Commit runs write inside one transaction. When it returns nil, all that write did is
	// durable; on an error nothing of it happened. write may be run after other callers'
	// operations in the same transaction, never concurrently with them.
	Commit(ctx context.Context, write func(Tx) error) error

	// Conversation returns the log of an agent as it is on disk; the zero value where there is
	// none yet.
	Conversation(ctx context.Context, agentID string) (Conversation, error)
	// Newest returns the number of the newest event of a conversation on disk, increments of open
	// blocks included.
	Newest(ctx context.Context, conversation int64) (int64, error)
	// Records returns what q asks for, in order.
	Records(ctx context.Context, q Query) (Page, error)
	// Answer returns the concatenated text events of a turn, or a NotFound fault.
	Answer(ctx context.Context, turnID string) (string, error)
	// Unfinished returns what a gateway that died has left open. It is called before anything is
	// committed.
	Unfinished(ctx context.Context) (Unfinished, error)

	// Turn returns a turn, or a NotFound fault.
	Turn(ctx context.Context, id string) (Turn, error)
	// TurnByKey returns the turn that a principal began with an idempotency key and the digest of
	// its request, or a NotFound fault.
	TurnByKey(ctx context.Context, principalID, key string) (Turn, []byte, error)
	// ThreadTurns returns turns of a thread that began before an event, the newest first; 0 is behind
	// all. Of one principal's turns unless it is "".
	ThreadTurns(ctx context.Context, threadID, principalID string, before int64, limit int) ([]Turn, error)
	// Thread returns a thread, or a NotFound fault.
	Thread(ctx context.Context, id string) (Thread, error)
	// Search returns events in which words are, the newest first.
	Search(ctx context.Context, q SearchQuery) ([]Hit, error)
	// TookPart reports whether a principal has begun a turn in a thread.
	TookPart(ctx context.Context, threadID, principalID string) (bool, error)
	// Threads returns threads, the most recently active first.
	Threads(ctx context.Context, q ThreadQuery) ([]Thread, error)
	// EditThread changes a thread that is there.
	EditThread(ctx context.Context, id string, e ThreadEdit) error
	// UsageReports returns the usage reports of a thread in order; of one principal's turns unless
	// it is "".
	UsageReports(ctx context.Context, threadID, principalID string, after int64, limit int) ([]UsageReport, error)
	// Activity counts what has happened in n spans of time, the first of which begins at since.
	Activity(ctx context.Context, since time.Time, span time.Duration, n int) ([]Activity, error)
	// UsageTotal sums usage reports.
	UsageTotal(ctx context.Context, f UsageFilter) (UsageTotal, error)
	// UsageGroups sums usage reports by what they have in common, in the order of the keys.
	UsageGroups(ctx context.Context, f UsageFilter, by UsageKey, limit int) ([]UsageGroup, error)
	// File returns what is known of a stored file, or a NotFound fault.
	File(ctx context.Context, id string) (ThreadFile, error)
	// Files returns the files of a thread in order; of one principal's turns unless it is "".
	Files(ctx context.Context, threadID, principalID string, limit int) ([]ThreadFile, error)

	// TurnsOf returns the ids of turns of a thread, the oldest first.
	TurnsOf(ctx context.Context, threadID string, limit int) ([]string, error)
	// Doomed returns the threads whose deletion has begun.
	Doomed(ctx context.Context) ([]Thread, error)
	// Pruned reports whether the event with a number was removed.
	Pruned(ctx context.Context, conversation, seq int64) (bool, error)
	// Outdated returns ended turns that are to be removed, the first ones to have ended first: those
	// that ended before a time and, unless keep is 0, as many more as it takes until the rest has no
	// more than keep bytes.
	Outdated(ctx context.Context, before time.Time, keep int64, limit int) ([]OutdatedTurn, error)
	// HasRun reports whether there is something for Tx.TakeRun.
	HasRun(ctx context.Context) (bool, error)
	// FileBytes is how much the contents have that files refer to, each counted once.
	FileBytes(ctx context.Context) (int64, error)
	// OldFiles returns files that have their content, the oldest first.
	OldFiles(ctx context.Context, limit int) ([]OldFile, error)
	// ContentUsed reports whether a file refers to a content.
	ContentUsed(ctx context.Context, sha256 string) (bool, error)
	// Orphans returns contents to which, perhaps, no file refers any more.
	Orphans(ctx context.Context, after int64, limit int) ([]Orphan, error)
}

// A Tx is an open transaction of the log. Only the committer holds one.
type Tx interface {
	// Conversation returns the log of an agent and creates it where there is none.
	Conversation(agentID string) (Conversation, error)
	// Begin stores a turn and, where it does not exist, its thread. A turn that exists with the
	// same principal and idempotency key is returned instead, with fresh false. Faults (Conflict,
	// Forbidden) are about this turn alone and leave the transaction as it was.
	Begin(t NewTurn) (turn Turn, ref Ref, fresh bool, err error)
	// Increment stores a piece of an open block and returns its key; keys grow.
	Increment(ref Ref, p Piece) (int64, error)
	// Trim forgets the increments with keys below.
	Trim(below int64) error
	// Append stores a finished event or a closed block.
	Append(ref Ref, r Record) error
	// End stores the end of a turn.
	End(ref Ref, e EndedTurn) error
	// Wait says until when the message of an open turn waits for its agent; zero when it does not.
	Wait(ref Ref, until time.Time) error
	// Received says that the agent of an open turn can go on with it on another stream, and how much of what
	// it has numbered is recorded. It never gets less.
	Received(ref Ref, number uint64) error
	// Found counts a start that finds a turn open, until something is Received.
	Found(ref Ref) error
	// Calm forgets what Found has counted, of all turns.
	Calm() error
	// AddUsage stores a usage report that is event seq of its turn.
	AddUsage(ref Ref, seq int64, at time.Time, u Usage) error
	// AddFile stores a file that belongs to event seq of its turn.
	AddFile(ref Ref, seq int64, at time.Time, f File) error

	// Doom begins the deletion of a thread: from now on nobody sees it and no turn begins in it. Its
	// turns are left to Prune. Faults (NotFound, Forbidden, Conflict) leave the transaction as it was.
	Doom(d Deletion) error
	// Prune removes rows of an ended turn from its beginning, one at least and no more once they cost
	// most, what belongs to them, the turn with the last of them, and the thread with the last of its
	// turns. Faults (NotFound,
	// Conflict when the turn is open, Internal when it is damaged) leave the transaction as it was.
	Prune(turnID string, most int) (Removal, error)
	// Expire notes that the content of a file is gone, and returns how many bytes are not needed any
	// more because of that.
	Expire(fileID string, at time.Time) (freed int64, err error)
	// DropOrphans forgets orphans by their keys.
	DropOrphans(keys []int64) error
	// AddRun adds to what the run of retention has removed.
	AddRun(r Run) error
	// TakeRun returns what the run has removed and forgets it; the zero value if there is nothing.
	TakeRun() (Run, error)
	// Probe writes something of the usual size and removes it again.
	Probe() error
	// Audit writes a record into the audit log.
	Audit(r auth.AuditRecord) error
}

// A Ref is what the store calls a turn, its thread and its conversation.
type Ref struct{ Conversation, Thread, Turn int64 }

// A NewTurn is a turn about to begin.
type NewTurn struct {
	Turn
	Conversation int64
	Frontend     string
	ExternalID   string
	Title        string // used when the thread is new
	Key          string // idempotency key; may be empty
	Digest       []byte // of the request; the same key with another digest is a Conflict
	Oversees     bool   // may join a thread in which its principal has begun no turn
	Resumable    bool   // its agent can go on with it on another stream
}

// An EndedTurn is how a turn ended.
type EndedTurn struct {
	State TurnState
	Cause string
	Last  int64
	// FirstEventAt is when the agent gave its first sign; zero if it never did.
	FirstEventAt time.Time
	At           time.Time
}

// A Piece is a part of an open block.
type Piece struct {
	Seq  int64
	Kind Kind
	Text string
	At   time.Time
}

// A Record is an event as it is stored: one that stands for itself, or a closed block of
// increments numbered from Seq to Last, with gaps where other turns wrote in between.
type Record struct {
	Ref         Ref
	TurnID      string // set when read
	ThreadID    string // set when read
	PrincipalID string // set when read: who began the turn
	Seq         int64
	Last        int64
	At          time.Time
	Kind        Kind
	Text        string
	Detail      string
	Cuts        []byte // of a block: where each increment ended; see block.go
}

// A Query names a part of a conversation.
type Query struct {
	Conversation     int64
	Thread           string    // only this thread; "" for all
	Turn             string    // only this turn; "" for all
	Principal        string    // only turns that it began; "" for all
	After, Until     int64     // After < Seq ≤ Until, judged by the increments of a block
	Limit            int       // of records, at least 1
	Backward         bool      // the newest first
	Only             []Kind    // only these kinds; nil for all
	Since, UntilTime time.Time // unless zero: only records taken in at these times or between them
	Removed          bool      // tell what was removed, too; not with Backward
}

// A Page is a part of the answer to a Query. It may end early: it holds everything that was asked
// for up to Complete (with Backward: down to Complete).
type Page struct {
	Records  []Record
	Removed  []Range // of the numbers behind After and up to Complete, those that were removed; of a thread, those that may have been its own
	Complete int64
	More     bool
}

// A ThreadQuery selects threads.
type ThreadQuery struct {
	AgentID     string // "" for all agents
	PrincipalID string // unless "": only threads in which it has begun a turn; Service.Threads decides it
	Archived    bool   // those that are archived, instead of those that are not
	Before      int64  // the Activity of the last one of the previous page, 0 for the first page
	Limit       int
}

// A UsageReport is one usage event of a turn.
type UsageReport struct {
	ID      int64
	TurnID  string
	AgentID string
	Seq     int64
	At      time.Time
	Usage
}

// A UsageFilter selects usage reports; zero values select everything.
type UsageFilter struct {
	AgentID, ThreadID string
	Since, Until      time.Time // Since ≤ time < Until
	PrincipalID       string    // who began the turns; Service.UsageTotal decides it
}

// An Activity is what has happened at all agents in a span of time. Turns that were removed are not in it,
// what they have used is.
type Activity struct {
	At              time.Time     // its beginning
	Turns           int64         // that began
	Failed          int64         // of these, those that did not end as they should
	Cancelled       int64         // of these, those that somebody stopped
	FirstEventMean  time.Duration // from the beginning of a turn to the agent's first event; 0 where no agent has answered
	FirstEventWorst time.Duration
	Usage
}

// A UsageTotal is a sum of usage reports.
type UsageTotal struct {
	Usage
	Reports int64
}

// A UsageKey is what usage reports are put together by.
type UsageKey string

// The keys.
const (
	ByAgent     UsageKey = "agent"     // an agent id
	ByPrincipal UsageKey = "principal" // who began the turns
	ByDay       UsageKey = "day"       // a day in UTC, as 2006-01-02
)

// MaxUsageGroups is how many groups a sum has at most.
const MaxUsageGroups = 1000

// A UsageGroup is the sum of the usage reports that share a key.
type UsageGroup struct {
	Key string
	UsageTotal
}

// A ThreadFile is a stored file and where it came from.
type ThreadFile struct {
	File
	TurnID    string
	Seq       int64
	At        time.Time
	ExpiredAt time.Time // when its content was removed; zero while it is there
}

// Unfinished is what a gateway that died left behind.
type Unfinished struct {
	Turns []UnfinishedTurn
	// Pieces of blocks that no closed block covers, in the order of their numbers within a turn.
	Pieces map[int64][]Piece // by Ref.Turn
}

// An UnfinishedTurn is a turn without an Ended event.
type UnfinishedTurn struct {
	Turn
	Ref       Ref
	Resumable bool   // see Tx.Received
	Received  uint64 // likewise
	Found     int    // see Tx.Found
}
