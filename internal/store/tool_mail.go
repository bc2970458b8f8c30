package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/builtins"
)

const selectLetter = `SELECT id, mail_id, from_agent_id, to_agent_id, subject, content, read_at, created_at FROM tool_mail`

// AddLetter implements builtins.MailStore.
func (s Tools) AddLetter(ctx context.Context, l builtins.Letter) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		_, err := tx.exec(`
			INSERT INTO tool_mail (mail_id, from_agent_id, to_agent_id, subject, content, read_at, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, l.ID, l.FromAgentID, l.ToAgentID, l.Subject, l.Content, micros(l.ReadAt.Time), micros(l.CreatedAt.Time))
		return err
	})
}

// Letters implements builtins.MailStore.
func (s Tools) Letters(ctx context.Context, q builtins.LetterQuery) ([]builtins.Letter, error) {
	var w where
	w.and("to_agent_id = $", q.ToAgentID)
	if q.Unread {
		w.and("read_at = $", 0)
	}
	return query(ctx, s.db.read, func(row scanner) (builtins.Letter, error) {
		var l builtins.Letter
		var read, created int64
		err := row.Scan(&l.Seq, &l.ID, &l.FromAgentID, &l.ToAgentID, &l.Subject, &l.Content, &read, &created)
		l.ReadAt, l.CreatedAt = stamp(read), stamp(created)
		return l, err
	}, selectLetter+w.page(q.Page), w.args...)
}

// ReadLetter implements builtins.MailStore.
func (s Tools) ReadLetter(ctx context.Context, id string, at builtins.Time, allow func(builtins.Letter) error) (builtins.Letter, error) {
	var l builtins.Letter
	err := s.db.Do(ctx, func(tx *Tx) error {
		var read, created int64
		err := tx.queryRow(selectLetter+" WHERE mail_id = $1", []any{id}, &l.Seq, &l.ID, &l.FromAgentID, &l.ToAgentID, &l.Subject, &l.Content, &read, &created)
		if errors.Is(err, sql.ErrNoRows) {
			return builtins.ErrNotFound
		}
		if err != nil {
			return err
		}
		l.ReadAt, l.CreatedAt = stamp(read), stamp(created)
		if err := allow(l); err != nil {
			return err
		}
		if !l.ReadAt.IsZero() {
			return nil
		}
		l.ReadAt = at
		_, err = tx.exec(`UPDATE tool_mail SET read_at = $1 WHERE id = $2`, micros(at.Time), l.Seq)
		return err
	})
	return l, err
}
