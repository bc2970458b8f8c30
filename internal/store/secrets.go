package store

import "coven-gateway/internal/auth"

const selectSecret = `SELECT secret_id, name, agent_id, sealed, created_at, created_by, updated_at, updated_by FROM secrets`

func scanSecret(row scanner) (auth.Secret, error) {
	var s auth.Secret
	var created, updated int64
	err := row.Scan(&s.ID, &s.Name, &s.AgentID, &s.Sealed, &created, &s.CreatedBy, &updated, &s.UpdatedBy)
	s.CreatedAt, s.UpdatedAt = fromMicros(created), fromMicros(updated)
	return s, err
}

func (r identityReader) Secret(id string) (auth.Secret, error) {
	s, err := scanSecret(r.q.QueryRowContext(r.ctx, selectSecret+" WHERE secret_id = $1", id))
	return found(s, err, "secret", id)
}

func (r identityReader) Secrets() ([]auth.Secret, error) {
	return query(r.ctx, r.q, scanSecret, selectSecret+" ORDER BY name, agent_id")
}

func (tx identityTx) PutSecret(s auth.Secret) error {
	_, err := tx.exec(`
		INSERT INTO secrets (secret_id, name, agent_id, sealed, created_at, created_by, updated_at, updated_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (name, agent_id) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at, updated_by = excluded.updated_by`,
		s.ID, s.Name, s.AgentID, s.Sealed, micros(s.CreatedAt), s.CreatedBy, micros(s.UpdatedAt), s.UpdatedBy)
	return err
}

func (tx identityTx) DeleteSecret(id string) error {
	return tx.one("secret", id, `DELETE FROM secrets WHERE secret_id = $1`, id)
}
