package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

const selectThread = `
	SELECT th.thread_id, th.agent_id, th.frontend, th.external_id, th.title, th.created_at, th.updated_at, th.activity,
		(SELECT COUNT(*) FROM turns t WHERE t.thread_id = th.id)
	FROM threads th`

func scanThread(row scanner) (conversation.Thread, error) {
	var t conversation.Thread
	var created, updated int64
	err := row.Scan(&t.ID, &t.AgentID, &t.Frontend, &t.ExternalID, &t.Title, &created, &updated, &t.Activity, &t.Turns)
	t.CreatedAt, t.UpdatedAt = fromMicros(created), fromMicros(updated)
	return t, err
}

// Thread implements conversation.Log.
func (l Log) Thread(ctx context.Context, id string) (conversation.Thread, error) {
	t, err := scanThread(l.db.read.QueryRowContext(ctx, selectThread+" WHERE th.thread_id = $1", id))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fault.New(fault.NotFound, "thread not found")
	}
	return t, err
}

// Threads implements conversation.Log.
func (l Log) Threads(ctx context.Context, agentID string, before int64, limit int) ([]conversation.Thread, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	text, args := selectThread+" WHERE th.activity < $1 ORDER BY th.activity DESC LIMIT $2", []any{before, limit}
	if agentID != "" {
		text, args = selectThread+" WHERE th.agent_id = $1 AND th.activity < $2 ORDER BY th.activity DESC LIMIT $3", []any{agentID, before, limit}
	}
	return query(ctx, l.db.read, scanThread, text, args...)
}
