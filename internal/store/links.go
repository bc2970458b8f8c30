package store

import (
	"time"

	"coven-gateway/internal/auth"
)

const selectLinkCode = `
	SELECT code, fingerprint, device_name, proved, address, status, created_at, expires_at, decided_at, decided_by, principal_id, token_id, handed_at
	FROM link_codes`

func scanLinkCode(row scanner) (auth.LinkCode, error) {
	var l auth.LinkCode
	var created, expires, decided, handed int64
	err := row.Scan(&l.Code, &l.Fingerprint, &l.DeviceName, &l.Proved, &l.Address, &l.Status, &created, &expires, &decided, &l.DecidedBy,
		&l.PrincipalID, &l.TokenID, &handed)
	l.CreatedAt, l.ExpiresAt, l.DecidedAt, l.HandedAt = fromMicros(created), fromMicros(expires), fromMicros(decided), fromMicros(handed)
	return l, err
}

func (r identityReader) LinkCode(code string) (auth.LinkCode, error) {
	l, err := scanLinkCode(r.q.QueryRowContext(r.ctx, selectLinkCode+" WHERE code = $1", code))
	return found(l, err, "link code", code)
}

func (r identityReader) LinkCodes(after time.Time, limit int) ([]auth.LinkCode, error) {
	return query(r.ctx, r.q, scanLinkCode, selectLinkCode+" WHERE expires_at > $1 ORDER BY id DESC LIMIT $2", micros(after), limit)
}

func (tx identityTx) AddLinkCode(l auth.LinkCode) error {
	_, err := tx.exec(`
		INSERT INTO link_codes (code, fingerprint, device_name, proved, address, status, created_at, expires_at,
			decided_at, decided_by, principal_id, token_id, handed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', '', '', 0)`,
		l.Code, l.Fingerprint, l.DeviceName, l.Proved, l.Address, string(l.Status), micros(l.CreatedAt), micros(l.ExpiresAt))
	return err
}

func (tx identityTx) UpdateLinkCode(l auth.LinkCode) error {
	return tx.one("link code", l.Code, `
		UPDATE link_codes SET status = $1, decided_at = $2, decided_by = $3, principal_id = $4, token_id = $5, handed_at = $6
		WHERE code = $7`, string(l.Status), micros(l.DecidedAt), l.DecidedBy, l.PrincipalID, l.TokenID, micros(l.HandedAt), l.Code)
}

func (tx identityTx) DropLinkCodes(before time.Time) error {
	_, err := tx.exec(`DELETE FROM link_codes WHERE expires_at < $1`, micros(before))
	return err
}

func (tx identityTx) PendingLinkCodes(at time.Time) (int, error) {
	return tx.count(`SELECT COUNT(*) FROM link_codes WHERE status = 'pending' AND expires_at > $1`, micros(at))
}
