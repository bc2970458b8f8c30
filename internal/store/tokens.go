package store

import (
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

const selectToken = `
	SELECT t.token_id, p.principal_id, t.kind, t.parent, t.name, t.scopes, t.hash, t.created_at, t.created_by, t.expires_at, t.last_used, t.revoked_at, t.device, t.address, t.proved_at
	FROM tokens t JOIN principals p ON p.id = t.principal_id`

func scanToken(row scanner) (auth.Token, error) {
	var t auth.Token
	var created, expires, used, revoked, proved int64
	var scopes string
	err := row.Scan(&t.ID, &t.PrincipalID, &t.Kind, &t.Parent, &t.Name, &scopes, &t.Hash, &created, &t.CreatedBy, &expires, &used, &revoked, &t.Device, &t.Address, &proved)
	for word := range strings.FieldsSeq(scopes) {
		t.Scopes = append(t.Scopes, auth.Scope(word))
	}
	t.CreatedAt, t.ExpiresAt, t.LastUsed, t.RevokedAt, t.ProvedAt = fromMicros(created), fromMicros(expires), fromMicros(used), fromMicros(revoked), fromMicros(proved)
	return t, err
}

func (r identityReader) Token(id string) (auth.Token, error) {
	t, err := scanToken(r.q.QueryRowContext(r.ctx, selectToken+" WHERE t.token_id = $1", id))
	return found(t, err, "token", id)
}

func (r identityReader) TokenByHash(hash []byte) (auth.Token, error) {
	t, err := scanToken(r.q.QueryRowContext(r.ctx, selectToken+" WHERE t.hash = $1", hash))
	return found(t, err, "token", "with this hash")
}

func (r identityReader) Tokens(principalID string, limit int) ([]auth.Token, error) {
	return query(r.ctx, r.q, scanToken, selectToken+`
		WHERE $1 = '' OR p.principal_id = $1
		ORDER BY t.id DESC LIMIT $2`, principalID, limit)
}

func (tx identityTx) AddToken(t auth.Token) error {
	words := make([]string, len(t.Scopes))
	for i, s := range t.Scopes {
		words[i] = string(s)
	}
	var hash any
	if t.Hash != nil {
		hash = t.Hash
	}
	res, err := tx.exec(`
		INSERT INTO tokens (token_id, principal_id, kind, parent, name, scopes, hash, created_at, created_by, expires_at, last_used, revoked_at, device, address, proved_at)
		SELECT $1, id, $2, $10, $3, $4, $5, $6, $7, $8, 0, 0, $11, $12, $13 FROM principals WHERE principal_id = $9
		ON CONFLICT (token_id) DO NOTHING`,
		t.ID, string(t.Kind), t.Name, strings.Join(words, " "), hash, micros(t.CreatedAt), t.CreatedBy, micros(t.ExpiresAt), t.PrincipalID, t.Parent, t.Device, t.Address, micros(t.ProvedAt))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fault.Wrap(err, fault.Exists, "there is a token %q", t.ID)
	}
	return nil
}

func (tx identityTx) RevokeToken(id string, at time.Time) ([]string, error) {
	if err := tx.one("token", id, `UPDATE tokens SET revoked_at = $1 WHERE token_id = $2`, micros(at), id); err != nil {
		return nil, err
	}
	return query(tx.ctx, tx.q, func(row scanner) (session string, err error) {
		err = row.Scan(&session)
		return session, err
	}, `UPDATE tokens SET revoked_at = $1 WHERE parent = $2 AND revoked_at = 0 RETURNING token_id`, micros(at), id)
}

func (tx identityTx) DropSessions(before time.Time) error {
	_, err := tx.exec(`DELETE FROM tokens WHERE kind = 'session' AND expires_at < $1`, micros(before))
	return err
}
