package store

import (
	"database/sql"
	"errors"

	"coven-gateway/internal/auth"
)

const selectAudit = `SELECT seq, at, actor, action, target_type, target, detail, prev, hash FROM audit_log`

func scanAudit(row scanner) (auth.AuditRecord, error) {
	var r auth.AuditRecord
	var at int64
	err := row.Scan(&r.Seq, &at, &r.Actor, &r.Action, &r.TargetType, &r.Target, &r.Detail, &r.Prev, &r.Hash)
	r.At = fromMicros(at)
	return r, err
}

func (r identityReader) AuditRecords(f auth.AuditFilter) ([]auth.AuditRecord, error) {
	const matches = ` AND ($2 = '' OR action = $2) AND ($3 = '' OR actor = $3) AND ($4 = '' OR target = $4)`
	text, bound := selectAudit+` WHERE seq > $1`+matches+` ORDER BY seq LIMIT $5`, f.After
	if f.Before != 0 {
		text, bound = selectAudit+` WHERE seq < $1`+matches+` ORDER BY seq DESC LIMIT $5`, f.Before
	}
	return query(r.ctx, r.q, scanAudit, text, bound, f.Action, f.Actor, f.Target, f.Limit)
}

const selectCheckpoint = `SELECT seq, hash, at, signature FROM audit_checkpoints`

func scanCheckpoint(row scanner) (auth.Checkpoint, error) {
	var c auth.Checkpoint
	var at int64
	err := row.Scan(&c.Seq, &c.Hash, &at, &c.Signature)
	c.At = fromMicros(at)
	return c, err
}

func (r identityReader) Checkpoints() ([]auth.Checkpoint, error) {
	return query(r.ctx, r.q, scanCheckpoint, selectCheckpoint+" ORDER BY seq")
}

func (r identityReader) LastCheckpoint() (auth.Checkpoint, error) {
	c, err := scanCheckpoint(r.q.QueryRowContext(r.ctx, selectCheckpoint+" ORDER BY seq DESC LIMIT 1"))
	if errors.Is(err, sql.ErrNoRows) {
		return auth.Checkpoint{}, nil
	}
	return c, err
}

func (tx identityTx) AppendAudit(r auth.AuditRecord) (auth.AuditRecord, error) {
	last, err := scanAudit(tx.q.QueryRowContext(tx.ctx, selectAudit+" ORDER BY seq DESC LIMIT 1"))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return r, err
	}
	r = r.Follow(last)
	_, err = tx.exec(`
		INSERT INTO audit_log (seq, at, actor, action, target_type, target, detail, prev, hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		r.Seq, micros(r.At), r.Actor, r.Action, r.TargetType, r.Target, r.Detail, r.Prev, r.Hash)
	return r, err
}

func (tx identityTx) PutCheckpoint(c auth.Checkpoint, keepLast bool) error {
	if !keepLast {
		if _, err := tx.exec(`DELETE FROM audit_checkpoints WHERE seq = $1`, c.Seq-1); err != nil {
			return err
		}
	}
	_, err := tx.exec(`INSERT INTO audit_checkpoints (seq, hash, at, signature) VALUES ($1, $2, $3, $4)`, c.Seq, c.Hash, micros(c.At), c.Signature)
	return err
}
