package gateway

import (
	"context"
	"encoding/base64"
	"strconv"

	"coven-gateway/internal/api"
	"coven-gateway/internal/builtins"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/store"
)

// records shows what the built-in tools have stored to the HTTP API.
type records struct{ store.Tools }

var _ api.Records = records{}

// Records implements api.Records.
func (s records) Records(ctx context.Context, list api.RecordList, of, cursor string, limit int) (api.RecordPage, error) {
	if list == api.NoteRecords {
		after, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil {
			return api.RecordPage{}, fault.Wrap(err, fault.Invalid, "cursor must be the next_cursor of an earlier answer")
		}
		notes, err := s.Notes(ctx, of, string(after), limit+1)
		return recordPage(notes, err, limit, noteFields, func(n builtins.Note) string { return base64.RawURLEncoding.EncodeToString([]byte(n.Key)) })
	}
	p := builtins.Page{Limit: limit + 1}
	if cursor != "" {
		n, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil || n <= 0 {
			return api.RecordPage{}, fault.Wrap(err, fault.Invalid, "cursor must be the next_cursor of an earlier answer")
		}
		p.Before = n
	}
	switch list {
	case api.LogRecords:
		all, err := s.LogEntries(ctx, builtins.LogQuery{Page: p, AgentID: of})
		return recordPage(all, err, limit, logFields, func(e builtins.LogEntry) string { return number(e.Seq) })
	case api.TodoRecords:
		all, err := s.Todos(ctx, builtins.TodoQuery{Page: p, AgentID: of})
		return recordPage(all, err, limit, todoFields, func(t builtins.Todo) string { return number(t.Seq) })
	case api.MailRecords:
		all, err := s.Letters(ctx, builtins.LetterQuery{Page: p, ToAgentID: of})
		return recordPage(all, err, limit, letterFields, func(l builtins.Letter) string { return number(l.Seq) })
	case api.ThreadRecords:
		all, err := s.Threads(ctx, p)
		return recordPage(all, err, limit, postFields, postNumber)
	}
	thread, err := s.Post(ctx, of)
	if err != nil {
		return api.RecordPage{}, fault.Wrap(err, fault.CodeOf(err), "thread not found")
	}
	all, err := s.Replies(ctx, of, p.Before, p.Limit)
	if cursor == "" {
		all = append([]builtins.Post{thread}, all...)
	}
	return recordPage(all, err, limit, postFields, postNumber)
}

// recordPage renders a page. There is a next one if there is one record too many.
func recordPage[T any](all []T, err error, limit int, fields func(T) map[string]any, cursor func(T) string) (api.RecordPage, error) {
	var p api.RecordPage
	if err != nil {
		return p, err
	}
	if len(all) > limit {
		all = all[:limit]
		p.Next = cursor(all[limit-1])
	}
	for _, x := range all {
		p.Records = append(p.Records, fields(x))
	}
	return p, nil
}

func number(seq int64) string { return strconv.FormatInt(seq, 10) }

func postNumber(p builtins.Post) string { return number(p.Seq) }

func logFields(e builtins.LogEntry) map[string]any {
	return map[string]any{"id": e.ID, "agent_id": e.AgentID, "message": e.Message, "tags": append([]string{}, e.Tags...), "created_at": e.CreatedAt}
}

func todoFields(t builtins.Todo) map[string]any {
	return map[string]any{
		"id": t.ID, "agent_id": t.AgentID, "description": t.Description, "status": t.Status, "priority": t.Priority, "notes": t.Notes,
		"due_date": t.DueDate, "created_at": t.CreatedAt, "updated_at": t.UpdatedAt,
	}
}

func letterFields(l builtins.Letter) map[string]any {
	return map[string]any{
		"id": l.ID, "from_agent_id": l.FromAgentID, "to_agent_id": l.ToAgentID, "subject": l.Subject, "content": l.Content,
		"read_at": l.ReadAt, "created_at": l.CreatedAt,
	}
}

func postFields(p builtins.Post) map[string]any {
	return map[string]any{"id": p.ID, "agent_id": p.AgentID, "thread_id": p.ThreadID, "subject": p.Subject, "content": p.Content, "created_at": p.CreatedAt}
}

func noteFields(n builtins.Note) map[string]any {
	return map[string]any{"agent_id": n.AgentID, "key": n.Key, "value": n.Value, "created_at": n.CreatedAt, "updated_at": n.UpdatedAt}
}
