package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/builtins"
	"coven-gateway/internal/fault"
)

const selectNote = `SELECT agent_id, key, value, created_at, updated_at FROM tool_notes`

func scanNote(row scanner) (builtins.Note, error) {
	var n builtins.Note
	var created, updated int64
	err := row.Scan(&n.AgentID, &n.Key, &n.Value, &created, &updated)
	n.CreatedAt, n.UpdatedAt = stamp(created), stamp(updated)
	if errors.Is(err, sql.ErrNoRows) {
		err = builtins.ErrNotFound
	}
	return n, err
}

// SetNote implements builtins.NoteStore.
func (s Tools) SetNote(ctx context.Context, n builtins.Note, most int) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		var others int
		if err := tx.queryRow(`SELECT COUNT(*) FROM tool_notes WHERE agent_id = $1 AND key <> $2`, []any{n.AgentID, n.Key}, &others); err != nil {
			return err
		}
		if others >= most {
			return fault.New(fault.Limited, "an agent can have %d notes; delete some", most)
		}
		_, err := tx.exec(`
			INSERT INTO tool_notes (agent_id, key, value, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (agent_id, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at`,
			n.AgentID, n.Key, n.Value, micros(n.CreatedAt.Time), micros(n.UpdatedAt.Time))
		return err
	})
}

// Note implements builtins.NoteStore.
func (s Tools) Note(ctx context.Context, agentID, key string) (builtins.Note, error) {
	return scanNote(s.db.read.QueryRowContext(ctx, selectNote+" WHERE agent_id = $1 AND key = $2", agentID, key))
}

// Notes implements builtins.NoteStore.
func (s Tools) Notes(ctx context.Context, agentID, after string, limit int) ([]builtins.Note, error) {
	return query(ctx, s.db.read, scanNote, selectNote+" WHERE agent_id = $1 AND key > $2 ORDER BY key LIMIT $3", agentID, after, limit)
}

// DeleteNote implements builtins.NoteStore.
func (s Tools) DeleteNote(ctx context.Context, agentID, key string) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		res, err := tx.exec(`DELETE FROM tool_notes WHERE agent_id = $1 AND key = $2`, agentID, key)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return builtins.ErrNotFound
	})
}
