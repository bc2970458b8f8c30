package conversation

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"coven-gateway/internal/fault"
)

// Limits of a search.
const (
	MaxSearch      = 500 // characters
	maxSearchWords = 20
)

// A SearchQuery asks for text that was said: by people, by agents, or by tools.
type SearchQuery struct {
	Words    []string // all of them; the last one may be the beginning of a word
	AgentID  string   // only in its conversation; "" for all
	ThreadID string   // only in this thread; "" for all
	Before   int64    // only hits with smaller keys; 0 for the newest
	Limit    int
	// Principal is who must have begun the turn; Service.Search decides it. "" for anybody.
	Principal string
}

// A Hit is an event in which the words are.
type Hit struct {
	Key      int64 // grows with time
	AgentID  string
	ThreadID string
	Title    string // of the thread
	TurnID   string
	Seq      int64
	At       time.Time
	Kind     Kind
	Sender   string    // of the turn's message
	Excerpt  []Excerpt // around the words
}

// An Excerpt is a piece of text; Match says that it is one of the words.
type Excerpt struct {
	Text  string `json:"text"`
	Match bool   `json:"match"`
}

// Search looks for what was said and the caller may see, the newest first.
func (s *Service) Search(ctx context.Context, text string, q SearchQuery) (hits []Hit, more bool, err error) {
	if utf8.RuneCountInString(text) > MaxSearch || !utf8.ValidString(text) {
		return nil, false, fault.New(fault.Invalid, "q must be UTF-8 of at most %d characters", MaxSearch)
	}
	q.Words = strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) })
	switch n := len(q.Words); {
	case n == 0:
		return nil, false, fault.New(fault.Invalid, "q must have a word to look for")
	case n > maxSearchWords:
		return nil, false, fault.New(fault.Invalid, "q must not have more than %d words; it has %d", maxSearchWords, n)
	}
	if q.ThreadID != "" {
		_, q.Principal, err = s.readThread(ctx, q.ThreadID)
	} else {
		q.Principal, err = s.scope(ctx, q.AgentID)
	}
	if err != nil {
		return nil, false, err
	}
	limit := q.Limit
	q.Limit++
	hits, err = s.log.Search(ctx, q)
	if len(hits) > limit {
		hits, more = hits[:limit], true
	}
	return hits, more, err
}
