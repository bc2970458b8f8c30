package store

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"coven-gateway/internal/builtins"
	"coven-gateway/internal/fault"
)

const selectPost = `
	SELECT id, post_id, COALESCE((SELECT t.post_id FROM tool_posts t WHERE t.id = p.parent_id), ''), agent_id, subject, content, created_at
	FROM tool_posts p`

func scanPost(row scanner) (builtins.Post, error) {
	var p builtins.Post
	var created int64
	err := row.Scan(&p.Seq, &p.ID, &p.ThreadID, &p.AgentID, &p.Subject, &p.Content, &created)
	p.CreatedAt = stamp(created)
	if errors.Is(err, sql.ErrNoRows) {
		err = builtins.ErrNotFound
	}
	return p, err
}

// AddPost implements builtins.BoardStore.
func (s Tools) AddPost(ctx context.Context, p builtins.Post) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		var parent any
		if p.ThreadID != "" {
			var id int64
			err := tx.queryRow(`SELECT id FROM tool_posts WHERE post_id = $1 AND parent_id IS NULL`, []any{p.ThreadID}, &id)
			if errors.Is(err, sql.ErrNoRows) {
				return fault.New(fault.NotFound, "thread not found")
			}
			if err != nil {
				return err
			}
			parent = id
		}
		_, err := tx.exec(`INSERT INTO tool_posts (post_id, parent_id, agent_id, subject, content, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			p.ID, parent, p.AgentID, p.Subject, p.Content, micros(p.CreatedAt.Time))
		return err
	})
}

// Post implements builtins.BoardStore.
func (s Tools) Post(ctx context.Context, id string) (builtins.Post, error) {
	return scanPost(s.db.read.QueryRowContext(ctx, selectPost+" WHERE post_id = $1", id))
}

// Threads implements builtins.BoardStore.
func (s Tools) Threads(ctx context.Context, p builtins.Page) ([]builtins.Post, error) {
	if p.Before == 0 {
		p.Before = math.MaxInt64
	}
	return query(ctx, s.db.read, scanPost, selectPost+" WHERE parent_id IS NULL AND id < $1 ORDER BY id DESC LIMIT $2", p.Before, p.Limit)
}

// Replies implements builtins.BoardStore.
func (s Tools) Replies(ctx context.Context, threadID string, after int64, limit int) ([]builtins.Post, error) {
	return query(ctx, s.db.read, scanPost, selectPost+`
		WHERE parent_id = (SELECT t.id FROM tool_posts t WHERE t.post_id = $1) AND id > $2 ORDER BY id LIMIT $3`, threadID, after, limit)
}
