package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"

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
func (l Log) Threads(ctx context.Context, agentID, principalID string, before int64, limit int) ([]conversation.Thread, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	text, args := selectThread+" WHERE th.activity < $1", []any{before, limit}
	if agentID != "" {
		args = append(args, agentID)
		text += " AND th.agent_id = $" + strconv.Itoa(len(args))
	}
	if principalID != "" {
		args = append(args, principalID)
		text += " AND EXISTS (" + tookPart + " AND t.principal_id = $" + strconv.Itoa(len(args)) + ")"
	}
	return query(ctx, l.db.read, scanThread, text+" ORDER BY th.activity DESC LIMIT $2", args...)
}

// tookPart selects the turns of thread th.
const tookPart = "SELECT 1 FROM turns t WHERE t.thread_id = th.id"

// TookPart implements conversation.Log.
func (l Log) TookPart(ctx context.Context, threadID, principalID string) (took bool, err error) {
	err = l.db.read.QueryRowContext(ctx, `
		SELECT EXISTS (SELECT 1 FROM threads th WHERE th.thread_id = $1 AND EXISTS (`+tookPart+` AND t.principal_id = $2))`,
		threadID, principalID).Scan(&took)
	return took, err
}
