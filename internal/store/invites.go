package store

import (
	"time"

	"coven-gateway/internal/auth"
)

const selectInvite = `SELECT invite_id, hash, role, note, created_at, created_by, expires_at, used_at, used_by, revoked_at FROM invites`

func scanInvite(row scanner) (auth.Invite, error) {
	var i auth.Invite
	var created, expires, used, revoked int64
	err := row.Scan(&i.ID, &i.Hash, &i.Role, &i.Note, &created, &i.CreatedBy, &expires, &used, &i.UsedBy, &revoked)
	i.CreatedAt, i.ExpiresAt, i.UsedAt, i.RevokedAt = fromMicros(created), fromMicros(expires), fromMicros(used), fromMicros(revoked)
	return i, err
}

func (r identityReader) Invite(id string) (auth.Invite, error) {
	i, err := scanInvite(r.q.QueryRowContext(r.ctx, selectInvite+" WHERE invite_id = $1", id))
	return found(i, err, "invite", id)
}

func (r identityReader) InviteByHash(hash []byte) (auth.Invite, error) {
	i, err := scanInvite(r.q.QueryRowContext(r.ctx, selectInvite+" WHERE hash = $1", hash))
	return found(i, err, "invite", "")
}

func (r identityReader) Invites(limit int) ([]auth.Invite, error) {
	return query(r.ctx, r.q, scanInvite, selectInvite+" ORDER BY id DESC LIMIT $1", limit)
}

func (tx identityTx) AddInvite(i auth.Invite) error {
	_, err := tx.exec(`
		INSERT INTO invites (invite_id, hash, role, note, created_at, created_by, expires_at, used_at, used_by, revoked_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '', 0)`,
		i.ID, i.Hash, string(i.Role), i.Note, micros(i.CreatedAt), i.CreatedBy, micros(i.ExpiresAt))
	return err
}

func (tx identityTx) UpdateInvite(i auth.Invite) error {
	return tx.one("invite", i.ID, `UPDATE invites SET used_at = $1, used_by = $2, revoked_at = $3 WHERE invite_id = $4`,
		micros(i.UsedAt), i.UsedBy, micros(i.RevokedAt), i.ID)
}

func (tx identityTx) OpenInvites(at time.Time) (int, error) {
	return tx.count(`SELECT COUNT(*) FROM invites WHERE used_at = 0 AND revoked_at = 0 AND expires_at > $1`, micros(at))
}

func (tx identityTx) DropInvites(before time.Time) error {
	_, err := tx.exec(`DELETE FROM invites WHERE expires_at < $1`, micros(before))
	return err
}
