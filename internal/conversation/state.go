package conversation

import (
	"cmp"
	"slices"
	"time"
)

// MaxListed is how many turns, conversations and inboxes a [State] lists; their numbers count all.
const MaxListed = 1000

// A State is what a Service is doing now, for those who look for what is wrong with it. It does not tell what
// anybody has said. Its parts are from moments close to each other.
type State struct {
	Closing      bool         `json:"closing"`       // no new messages are taken
	Sending      int          `json:"sending"`       // messages on their way into the log
	CommitQueue  int          `json:"commit_queue"`  // turns and messages that wait for the committer
	CommitError  string       `json:"commit_error"`  // why the last commit has failed; "" if it has not
	TurnsOpen    int          `json:"turns_open"`    // those that wait for their agent included
	TurnsWaiting int          `json:"turns_waiting"` // messages that wait for their agent
	Turns        []OpenTurn   `json:"turns"`         // the oldest first
	FeedsOpen    int          `json:"feeds_open"`
	Feeds        []FeedState  `json:"feeds"` // by agent
	InboxesOpen  int          `json:"inboxes_open"`
	Inboxes      []InboxState `json:"inboxes"` // by agent
}

// An OpenTurn is a turn that has not ended.
type OpenTurn struct {
	ID           string    `json:"turn_id"`
	AgentID      string    `json:"agent_id"`
	ThreadID     string    `json:"thread_id"`
	Principal    string    `json:"principal"`
	StartedAt    time.Time `json:"started_at"`
	HeardAt      time.Time `json:"heard_at"`      // the agent's last sign of life
	Waiting      bool      `json:"waiting"`       // for its agent
	Ending       bool      `json:"ending"`        // its end is not committed yet
	PendingBytes int       `json:"pending_bytes"` // that the log has not taken
	Asked        int       `json:"asked"`         // questions and approvals that nobody has answered
}

// A FeedState is a conversation that is in use.
type FeedState struct {
	AgentID    string `json:"agent_id"`
	Users      int    `json:"users"` // open turns, messages on their way, and readers
	Readers    int    `json:"readers"`
	Head       int64  `json:"head"` // the number of its last event
	TailEvents int    `json:"tail_events"`
	TailBytes  int    `json:"tail_bytes"` // in memory
}

// An InboxState is the messages that wait for one agent.
type InboxState struct {
	AgentID  string `json:"agent_id"`
	Messages int    `json:"messages"`
	Running  bool   `json:"running"` // they are being handed over
}

// State returns what the service is doing.
func (s *Service) State() State {
	var st State
	if err := s.Healthy(); err != nil {
		st.CommitError = err.Error()
	}
	st.CommitQueue = s.committer.waiting()

	s.mu.Lock()
	st.Closing, st.Sending, st.TurnsOpen, st.TurnsWaiting, st.InboxesOpen = s.closing, s.sending, len(s.open), s.waiting, len(s.inboxes)
	turns := make([]*liveTurn, 0, len(s.open))
	waiting := make(map[*liveTurn]bool, s.waiting)
	for _, t := range s.open {
		turns = append(turns, t)
		waiting[t] = t.waiting
	}
	for id, in := range s.inboxes {
		st.Inboxes = append(st.Inboxes, InboxState{id, len(in.turns), in.running})
	}
	s.mu.Unlock()
	slices.SortFunc(turns, func(a, b *liveTurn) int { return cmp.Or(a.started.Compare(b.started), cmp.Compare(a.id, b.id)) })
	for _, t := range turns[:min(len(turns), MaxListed)] {
		st.Turns = append(st.Turns, t.state(waiting[t]))
	}
	slices.SortFunc(st.Inboxes, func(a, b InboxState) int { return cmp.Compare(a.AgentID, b.AgentID) })
	st.Inboxes = st.Inboxes[:min(len(st.Inboxes), MaxListed)]

	s.feedsMu.Lock()
	users := make(map[*feed]int, len(s.feeds))
	for _, f := range s.feeds {
		users[f] = f.users
	}
	s.feedsMu.Unlock()
	st.FeedsOpen = len(users)
	for f, n := range users {
		st.Feeds = append(st.Feeds, f.state(n))
	}
	slices.SortFunc(st.Feeds, func(a, b FeedState) int { return cmp.Compare(a.AgentID, b.AgentID) })
	st.Feeds = st.Feeds[:min(len(st.Feeds), MaxListed)]
	return st
}

func (t *liveTurn) state(waiting bool) OpenTurn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return OpenTurn{
		ID: t.id, AgentID: t.feed.agentID, ThreadID: t.thread, Principal: t.principal, StartedAt: t.started.UTC(), HeardAt: t.heard.UTC(),
		Waiting: waiting, Ending: t.ending, PendingBytes: t.size, Asked: len(t.asked) + len(t.questions),
	}
}

func (f *feed) state(users int) FeedState {
	select {
	case <-f.loaded:
	default: // whoever loads it does so without the mutex
		return FeedState{AgentID: f.agentID, Users: users}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return FeedState{f.agentID, users, len(f.readers), f.conv.Head, len(f.tail), f.tailSize}
}

func (c *committer) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}
