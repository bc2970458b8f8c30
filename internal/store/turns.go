package store

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

const selectTurn = `
	SELECT t.id, t.thread_id, t.conversation_id, t.request_id, c.agent_id, th.thread_id, t.principal_id, t.sender, t.state, t.cause,
		t.first_seq, t.last_seq, t.started_at, t.waiting_until, t.first_event_at, t.ended_at,
		(SELECT COUNT(*) FROM usage u WHERE u.turn_id = t.id),
		COALESCE((SELECT SUM(u.input_tokens) FROM usage u WHERE u.turn_id = t.id), 0),
		COALESCE((SELECT SUM(u.output_tokens) FROM usage u WHERE u.turn_id = t.id), 0),
		COALESCE((SELECT SUM(u.cache_read_tokens) FROM usage u WHERE u.turn_id = t.id), 0),
		COALESCE((SELECT SUM(u.cache_write_tokens) FROM usage u WHERE u.turn_id = t.id), 0),
		COALESCE((SELECT SUM(u.thinking_tokens) FROM usage u WHERE u.turn_id = t.id), 0)
	FROM turns t
	JOIN conversations c ON c.id = t.conversation_id
	JOIN threads th ON th.id = t.thread_id`

func scanTurn(row scanner) (conversation.Turn, conversation.Ref, error) {
	var t conversation.Turn
	var ref conversation.Ref
	var started, waiting, first, ended int64
	err := row.Scan(&ref.Turn, &ref.Thread, &ref.Conversation, &t.ID, &t.AgentID, &t.ThreadID, &t.PrincipalID, &t.Sender, &t.State, &t.Cause,
		&t.First, &t.Last, &started, &waiting, &first, &ended,
		&t.UsageReports, &t.Usage.Input, &t.Usage.Output, &t.Usage.CacheRead, &t.Usage.CacheWrite, &t.Usage.Thinking)
	t.StartedAt, t.FirstEventAt, t.EndedAt = fromMicros(started), fromMicros(first), fromMicros(ended)
	if t.State == conversation.Open && waiting != 0 {
		t.State, t.WaitingUntil = conversation.Queued, fromMicros(waiting)
	}
	return t, ref, err
}

// Turn implements conversation.Log.
func (l Log) Turn(ctx context.Context, id string) (conversation.Turn, error) {
	t, _, err := scanTurn(l.db.read.QueryRowContext(ctx, selectTurn+" WHERE t.request_id = $1 AND t.pruned = 0", id))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fault.New(fault.NotFound, "no turn %q", id)
	}
	return t, err
}

// ThreadTurns implements conversation.Log.
func (l Log) ThreadTurns(ctx context.Context, threadID, principalID string, before int64, limit int) ([]conversation.Turn, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	text, args := selectTurn+`
	WHERE t.thread_id = (SELECT id FROM threads WHERE thread_id = $1) AND t.pruned = 0 AND t.first_seq < $2`, []any{threadID, before, limit}
	if principalID != "" {
		args = append(args, principalID)
		text += " AND t.principal_id = $4"
	}
	return query(ctx, l.db.read, func(row scanner) (conversation.Turn, error) {
		t, _, err := scanTurn(row)
		return t, err
	}, text+" ORDER BY t.id DESC LIMIT $3", args...)
}

// TurnByKey implements conversation.Log.
func (l Log) TurnByKey(ctx context.Context, principalID, key string) (conversation.Turn, []byte, error) {
	return turnByKey(func(query string, args []any, dest ...any) error {
		return l.db.read.QueryRowContext(ctx, query, args...).Scan(dest...)
	}, principalID, key)
}

// turnByKey looks for a turn by its idempotency key, on either connection.
func turnByKey(queryRow func(query string, args []any, dest ...any) error, principalID, key string) (conversation.Turn, []byte, error) {
	var id string
	var digest []byte
	err := queryRow(`SELECT request_id, digest FROM turns WHERE principal_id = $1 AND idempotency_key = $2`, []any{principalID, key}, &id, &digest)
	if errors.Is(err, sql.ErrNoRows) {
		return conversation.Turn{}, nil, fault.New(fault.NotFound, "no turn with this idempotency key")
	}
	if err != nil {
		return conversation.Turn{}, nil, err
	}
	t, _, err := scanTurn(rowFunc(func(dest ...any) error {
		return queryRow(selectTurn+" WHERE t.request_id = $1", []any{id}, dest...)
	}))
	return t, digest, err
}

// A rowFunc is a row that is read by a function.
type rowFunc func(dest ...any) error

// Scan reads the row.
func (f rowFunc) Scan(dest ...any) error { return f(dest...) }
