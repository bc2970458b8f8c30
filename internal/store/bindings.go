package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// Bindings keeps bindings. It implements conversation.Bindings.
type Bindings struct {
	db    *DB
	audit func(auth.Tx, auth.AuditRecord) error
}

var _ conversation.Bindings = Bindings{}

// Bindings returns the bindings in the database; audit appends to the audit log.
func (db *DB) Bindings(audit func(auth.Tx, auth.AuditRecord) error) Bindings {
	return Bindings{db, audit}
}

const selectBinding = `SELECT binding_id, frontend, channel_id, agent_id, working_dir, delivery, created_at, created_by FROM bindings`

func scanBinding(row scanner) (conversation.Binding, error) {
	var b conversation.Binding
	var at int64
	err := row.Scan(&b.ID, &b.Frontend, &b.ChannelID, &b.AgentID, &b.WorkingDir, &b.Delivery, &at, &b.CreatedBy)
	b.CreatedAt = fromMicros(at)
	if errors.Is(err, sql.ErrNoRows) {
		return b, fault.New(fault.NotFound, "binding not found")
	}
	return b, err
}

// Binding implements conversation.Bindings.
func (s Bindings) Binding(ctx context.Context, id string) (conversation.Binding, error) {
	return scanBinding(s.db.read.QueryRowContext(ctx, selectBinding+" WHERE binding_id = $1", id))
}

// BindingOf implements conversation.Bindings.
func (s Bindings) BindingOf(ctx context.Context, frontend, channelID string) (conversation.Binding, error) {
	return scanBinding(s.db.read.QueryRowContext(ctx, selectBinding+" WHERE frontend = $1 AND channel_id = $2", frontend, channelID))
}

// Bindings implements conversation.Bindings.
func (s Bindings) Bindings(ctx context.Context, frontend, agentID string) ([]conversation.Binding, error) {
	return query(ctx, s.db.read, scanBinding, selectBinding+`
		WHERE ($1 = '' OR frontend = $1) AND ($2 = '' OR agent_id = $2) ORDER BY id DESC`, frontend, agentID)
}

// change runs a statement that has to change one row, with its audit record. none is the fault when
// it changes nothing.
func (s Bindings) change(ctx context.Context, r auth.AuditRecord, none error, text string, args ...any) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		res, err := tx.exec(text, args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, none)
		}
		return s.audit(identityTx{identityReader{context.Background(), tx.w.conn}, tx}, r)
	})
}

// AddBinding implements conversation.Bindings.
func (s Bindings) AddBinding(ctx context.Context, b conversation.Binding, r auth.AuditRecord) error {
	return s.change(ctx, r, fault.New(fault.Exists, "channel already bound"), `
		INSERT INTO bindings (binding_id, frontend, channel_id, agent_id, working_dir, delivery, created_at, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (frontend, channel_id) DO NOTHING`,
		b.ID, b.Frontend, b.ChannelID, b.AgentID, b.WorkingDir, string(b.Delivery), micros(b.CreatedAt), b.CreatedBy)
}

// ReplaceBinding implements conversation.Bindings.
func (s Bindings) ReplaceBinding(ctx context.Context, was, b conversation.Binding, r auth.AuditRecord) error {
	return s.change(ctx, r, fault.New(fault.Conflict, "the channel was bound anew meanwhile"), `
		UPDATE bindings SET binding_id = $1, agent_id = $2, working_dir = $3, delivery = $4, created_at = $5, created_by = $6
		WHERE binding_id = $7`, b.ID, b.AgentID, b.WorkingDir, string(b.Delivery), micros(b.CreatedAt), b.CreatedBy, was.ID)
}

// SetBinding implements conversation.Bindings.
func (s Bindings) SetBinding(ctx context.Context, b conversation.Binding, r auth.AuditRecord) error {
	return s.change(ctx, r, fault.New(fault.NotFound, "binding not found"),
		`UPDATE bindings SET agent_id = $1, working_dir = $2, delivery = $3 WHERE binding_id = $4`, b.AgentID, b.WorkingDir, string(b.Delivery), b.ID)
}

// DeleteBinding implements conversation.Bindings.
func (s Bindings) DeleteBinding(ctx context.Context, id string, r auth.AuditRecord) error {
	return s.change(ctx, r, fault.New(fault.NotFound, "binding not found"), `DELETE FROM bindings WHERE binding_id = $1`, id)
}
