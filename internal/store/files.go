package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"coven-gateway/internal/conversation"
)

// File implements conversation.Log.
func (l Log) File(ctx context.Context, id string) (conversation.ThreadFile, error) {
	f, err := scanFile(l.db.read.QueryRowContext(ctx, selectFile+" WHERE f.file_id = $1", id))
	return found(f, err, "file", id)
}

const selectFile = `
	SELECT f.file_id, f.name, f.type, f.size, f.sha256, t.request_id, f.seq, f.at, f.expired_at
	FROM files f JOIN turns t ON t.id = f.turn_id`

func scanFile(row scanner) (conversation.ThreadFile, error) {
	var f conversation.ThreadFile
	var at, expired int64
	err := row.Scan(&f.ID, &f.Name, &f.Type, &f.Size, &f.SHA256, &f.TurnID, &f.Seq, &at, &expired)
	f.At, f.ExpiredAt = fromMicros(at), fromMicros(expired)
	return f, err
}

// Files implements conversation.Log.
func (l Log) Files(ctx context.Context, threadID, principalID string, limit int) ([]conversation.ThreadFile, error) {
	return query(ctx, l.db.read, scanFile, selectFile+`
		WHERE f.thread_id = (SELECT id FROM threads WHERE thread_id = $1) AND ($2 = '' OR t.principal_id = $2)
		ORDER BY f.id LIMIT $3`, threadID, principalID, limit)
}

// FileBytes implements conversation.Log.
func (l Log) FileBytes(ctx context.Context) (n int64, err error) {
	err = l.db.read.QueryRowContext(ctx, `
		SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(size) AS size FROM files WHERE expired_at = 0 GROUP BY sha256)`).Scan(&n)
	return n, err
}

// OldFiles implements conversation.Log.
func (l Log) OldFiles(ctx context.Context, limit int) ([]conversation.OldFile, error) {
	return query(ctx, l.db.read, func(row scanner) (conversation.OldFile, error) {
		var f conversation.OldFile
		var at int64
		err := row.Scan(&f.ID, &at)
		f.At = fromMicros(at)
		return f, err
	}, `SELECT file_id, at FROM files WHERE expired_at = 0 ORDER BY at, id LIMIT $1`, limit)
}

// ContentUsed implements conversation.Log.
func (l Log) ContentUsed(ctx context.Context, sha256 string) (used bool, err error) {
	err = l.db.read.QueryRowContext(ctx, contentUsed, sha256).Scan(&used)
	return used, err
}

const contentUsed = `SELECT EXISTS (SELECT 1 FROM files WHERE sha256 = $1 AND expired_at = 0)`

// Orphans implements conversation.Log.
func (l Log) Orphans(ctx context.Context, after int64, limit int) ([]conversation.Orphan, error) {
	return query(ctx, l.db.read, func(row scanner) (conversation.Orphan, error) {
		var o conversation.Orphan
		err := row.Scan(&o.Key, &o.SHA256)
		return o, err
	}, `SELECT id, sha256 FROM orphans WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
}

func (tx logTx) DropOrphans(keys []int64) error {
	for _, k := range keys {
		if _, err := tx.exec(`DELETE FROM orphans WHERE id = $1`, k); err != nil {
			return err
		}
	}
	return nil
}

func (tx logTx) Expire(fileID string, at time.Time) (freed int64, err error) {
	var sha256 string
	var size int64
	err = tx.queryRow(`UPDATE files SET expired_at = $1 WHERE file_id = $2 AND expired_at = 0 RETURNING sha256, size`, []any{micros(at), fileID}, &sha256, &size)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil // it was removed since it was looked up
	}
	if err != nil {
		return 0, err
	}
	if _, err := tx.exec(`INSERT INTO orphans (sha256) VALUES ($1)`, sha256); err != nil {
		return 0, err
	}
	var used bool
	if err := tx.queryRow(contentUsed, []any{sha256}, &used); err != nil || used {
		return 0, err
	}
	return size, nil
}
