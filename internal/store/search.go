package store

import (
	"context"
	"math"
	"strings"

	"coven-gateway/internal/conversation"
)

// Where matches begin and end in an excerpt. Nobody writes these characters.
const matchBegin, matchEnd = "\x02", "\x03"

// Search implements conversation.Log.
func (l Log) Search(ctx context.Context, q conversation.SearchQuery) ([]conversation.Hit, error) {
	words := make([]string, len(q.Words))
	for i, w := range q.Words { // letters and digits: nothing that is special inside of quotes
		words[i] = `"` + w + `"`
	}
	words[len(words)-1] += "*"
	before := q.Before
	if before == 0 {
		before = math.MaxInt64
	}
	return query(ctx, l.db.read, scanHit, `
		SELECT e.id, c.agent_id, th.thread_id, th.title, t.request_id, e.last_seq, e.at, e.kind, t.sender,
			snippet(events_text, 0, '`+matchBegin+`', '`+matchEnd+`', '…', 24)
		FROM events_text
		JOIN events e ON e.id = events_text.rowid
		JOIN turns t ON t.id = e.turn_id
		JOIN threads th ON th.id = e.thread_id
		JOIN conversations c ON c.id = e.conversation_id
		WHERE events_text MATCH $1 AND events_text.rowid < $2 AND t.pruned = 0 AND th.deleted_at = 0
		  AND ($3 = '' OR c.agent_id = $3) AND ($4 = '' OR th.thread_id = $4) AND ($5 = '' OR t.principal_id = $5)
		ORDER BY events_text.rowid DESC LIMIT $6`,
		strings.Join(words, " AND "), before, q.AgentID, q.ThreadID, q.Principal, q.Limit)
}

func scanHit(row scanner) (conversation.Hit, error) {
	var h conversation.Hit
	var at int64
	var snippet string
	err := row.Scan(&h.Key, &h.AgentID, &h.ThreadID, &h.Title, &h.TurnID, &h.Seq, &at, &h.Kind, &h.Sender, &snippet)
	h.At = fromMicros(at)
	for i, part := range strings.Split(snippet, matchBegin) {
		match, rest, ok := strings.Cut(part, matchEnd)
		if i == 0 || !ok {
			match, rest = "", part
		}
		for _, x := range []conversation.Excerpt{{Text: match, Match: true}, {Text: rest}} {
			if x.Text != "" {
				h.Excerpt = append(h.Excerpt, x)
			}
		}
	}
	return h, err
}
