package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strconv"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

const selectThread = `
	SELECT th.thread_id, th.agent_id, th.frontend, th.external_id, th.title, th.created_at, th.updated_at, th.activity, th.archived_at,
		(SELECT COUNT(*) FROM turns t WHERE t.thread_id = th.id)
	FROM threads th`

func scanThread(row scanner) (conversation.Thread, error) {
	var t conversation.Thread
	var created, updated, archived int64
	err := row.Scan(&t.ID, &t.AgentID, &t.Frontend, &t.ExternalID, &t.Title, &created, &updated, &t.Activity, &archived, &t.Turns)
	t.CreatedAt, t.UpdatedAt, t.ArchivedAt = fromMicros(created), fromMicros(updated), fromMicros(archived)
	return t, err
}

// Thread implements conversation.Log.
func (l Log) Thread(ctx context.Context, id string) (conversation.Thread, error) {
	t, err := scanThread(l.db.read.QueryRowContext(ctx, selectThread+" WHERE th.thread_id = $1 AND th.deleted_at = 0", id))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fault.New(fault.NotFound, "thread not found")
	}
	return t, err
}

// Threads implements conversation.Log.
func (l Log) Threads(ctx context.Context, q conversation.ThreadQuery) ([]conversation.Thread, error) {
	if q.Before == 0 {
		q.Before = math.MaxInt64
	}
	text, args := selectThread+" WHERE th.activity < $1 AND (th.archived_at != 0) = $2 AND th.deleted_at = 0", []any{q.Before, q.Archived, q.Limit}
	if q.AgentID != "" {
		args = append(args, q.AgentID)
		text += " AND th.agent_id = $" + strconv.Itoa(len(args))
	}
	if q.PrincipalID != "" {
		args = append(args, q.PrincipalID)
		text += " AND EXISTS (" + tookPart + " AND t.principal_id = $" + strconv.Itoa(len(args)) + ")"
	}
	return query(ctx, l.db.read, scanThread, text+" ORDER BY th.activity DESC LIMIT $3", args...)
}

// EditThread implements conversation.Log.
func (l Log) EditThread(ctx context.Context, id string, e conversation.ThreadEdit) error {
	return l.db.Do(ctx, func(tx *Tx) error {
		if e.Title != nil {
			if _, err := tx.exec(`UPDATE threads SET title = $1 WHERE thread_id = $2`, *e.Title, id); err != nil {
				return err
			}
		}
		if e.Archived == nil {
			return nil
		}
		at := int64(0)
		if *e.Archived {
			at = micros(time.Now())
		}
		_, err := tx.exec(`UPDATE threads SET archived_at = $1 WHERE thread_id = $2`, at, id)
		return err
	})
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
