package store

import (
	"context"

	"coven-gateway/internal/conversation"
)

// File implements conversation.Log.
func (l Log) File(ctx context.Context, id string) (conversation.ThreadFile, error) {
	f, err := scanFile(l.db.read.QueryRowContext(ctx, selectFile+" WHERE f.file_id = $1", id))
	return found(f, err, "file", id)
}

const selectFile = `
	SELECT f.file_id, f.name, f.type, f.size, f.sha256, t.request_id, f.seq, f.at
	FROM files f JOIN turns t ON t.id = f.turn_id`

func scanFile(row scanner) (conversation.ThreadFile, error) {
	var f conversation.ThreadFile
	var at int64
	err := row.Scan(&f.ID, &f.Name, &f.Type, &f.Size, &f.SHA256, &f.TurnID, &f.Seq, &at)
	f.At = fromMicros(at)
	return f, err
}

// Files implements conversation.Log.
func (l Log) Files(ctx context.Context, threadID, principalID string, limit int) ([]conversation.ThreadFile, error) {
	return query(ctx, l.db.read, scanFile, selectFile+`
		WHERE f.thread_id = (SELECT id FROM threads WHERE thread_id = $1) AND ($2 = '' OR t.principal_id = $2)
		ORDER BY f.id LIMIT $3`, threadID, principalID, limit)
}
