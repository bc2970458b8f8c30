package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// File implements conversation.Log.
func (l Log) File(ctx context.Context, id string) (conversation.File, error) {
	f := conversation.File{ID: id}
	err := l.db.read.QueryRowContext(ctx, `SELECT name, type, size, sha256 FROM files WHERE file_id = $1`, id).
		Scan(&f.Name, &f.Type, &f.Size, &f.SHA256)
	if errors.Is(err, sql.ErrNoRows) {
		return f, fault.New(fault.NotFound, "no file %q", id)
	}
	return f, err
}

// Files implements conversation.Log.
func (l Log) Files(ctx context.Context, threadID string, limit int) ([]conversation.ThreadFile, error) {
	return query(ctx, l.db.read, func(row scanner) (conversation.ThreadFile, error) {
		var f conversation.ThreadFile
		var at int64
		err := row.Scan(&f.ID, &f.Name, &f.Type, &f.Size, &f.SHA256, &f.TurnID, &f.Seq, &at)
		f.At = fromMicros(at)
		return f, err
	}, `
		SELECT f.file_id, f.name, f.type, f.size, f.sha256, t.request_id, f.seq, f.at
		FROM files f JOIN turns t ON t.id = f.turn_id
		WHERE f.thread_id = (SELECT id FROM threads WHERE thread_id = $1)
		ORDER BY f.id LIMIT $2`, threadID, limit)
}
