package store

import (
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

func (r identityReader) OAuthClient(id string) (auth.OAuthClient, error) {
	var c auth.OAuthClient
	var redirects string
	var created int64
	err := r.q.QueryRowContext(r.ctx, `SELECT client_id, name, redirects, address, created_at FROM oauth_clients WHERE client_id = $1`, id).
		Scan(&c.ID, &c.Name, &redirects, &c.Address, &created)
	c.Redirects, c.CreatedAt = strings.Fields(redirects), fromMicros(created)
	return found(c, err, "client", id)
}

const selectOAuthGrant = `
	SELECT g.grant_id, p.principal_id, c.client_id, c.name, g.redirect, g.scopes, g.resource, g.created_at, g.last_used, g.expires_at, g.revoked_at
	FROM oauth_grants g JOIN principals p ON p.id = g.principal_id JOIN oauth_clients c ON c.id = g.client_id`

func scanOAuthGrant(row scanner) (auth.OAuthGrant, error) {
	var g auth.OAuthGrant
	var scopes string
	var created, used, expires, revoked int64
	err := row.Scan(&g.ID, &g.PrincipalID, &g.ClientID, &g.ClientName, &g.Redirect, &scopes, &g.Resource, &created, &used, &expires, &revoked)
	for word := range strings.FieldsSeq(scopes) {
		g.Scopes = append(g.Scopes, auth.Scope(word))
	}
	g.CreatedAt, g.LastUsed, g.ExpiresAt, g.RevokedAt = fromMicros(created), fromMicros(used), fromMicros(expires), fromMicros(revoked)
	return g, err
}

func (r identityReader) OAuthGrant(id string) (auth.OAuthGrant, error) {
	g, err := scanOAuthGrant(r.q.QueryRowContext(r.ctx, selectOAuthGrant+" WHERE g.grant_id = $1", id))
	return found(g, err, "grant", id)
}

func (r identityReader) OAuthGrants(principalID string, at time.Time, limit int) ([]auth.OAuthGrant, error) {
	return query(r.ctx, r.q, scanOAuthGrant, selectOAuthGrant+`
		WHERE ($1 = '' OR p.principal_id = $1) AND g.revoked_at = 0 AND g.expires_at > $2
		ORDER BY g.id DESC LIMIT $3`, principalID, micros(at), limit)
}

func (r identityReader) OAuthToken(hash []byte) (auth.OAuthToken, error) {
	var t auth.OAuthToken
	var expires, spent int64
	err := r.q.QueryRowContext(r.ctx, `
		SELECT t.hash, g.grant_id, t.kind, t.challenge, t.expires_at, t.spent_at
		FROM oauth_tokens t JOIN oauth_grants g ON g.id = t.grant_id WHERE t.hash = $1`, hash).
		Scan(&t.Hash, &t.GrantID, &t.Kind, &t.Challenge, &expires, &spent)
	t.ExpiresAt, t.SpentAt = fromMicros(expires), fromMicros(spent)
	return found(t, err, "token", "with this hash")
}

func (tx identityTx) AddOAuthClient(c auth.OAuthClient) error {
	_, err := tx.exec(`INSERT INTO oauth_clients (client_id, name, redirects, address, created_at) VALUES ($1, $2, $3, $4, $5)`,
		c.ID, c.Name, strings.Join(c.Redirects, " "), c.Address, micros(c.CreatedAt))
	return err
}

func (tx identityTx) CountOAuthClients() (int, error) {
	return tx.count(`SELECT COUNT(*) FROM oauth_clients`)
}

func (tx identityTx) AddOAuthGrant(g auth.OAuthGrant) error {
	words := make([]string, len(g.Scopes))
	for i, s := range g.Scopes {
		words[i] = string(s)
	}
	return tx.one("client", g.ClientID, `
		INSERT INTO oauth_grants (grant_id, principal_id, client_id, redirect, scopes, resource, created_at, last_used, expires_at, revoked_at)
		SELECT $1, p.id, c.id, $2, $3, $4, $5, 0, $6, 0 FROM principals p, oauth_clients c WHERE p.principal_id = $7 AND c.client_id = $8`,
		g.ID, g.Redirect, strings.Join(words, " "), g.Resource, micros(g.CreatedAt), micros(g.ExpiresAt), g.PrincipalID, g.ClientID)
}

func (tx identityTx) UseOAuthGrant(id string, at, expires time.Time) error {
	return tx.one("grant", id, `UPDATE oauth_grants SET last_used = $1, expires_at = $2 WHERE grant_id = $3`, micros(at), micros(expires), id)
}

func (tx identityTx) EndOAuthGrant(id string, at time.Time) error {
	return tx.one("grant", id, `UPDATE oauth_grants SET revoked_at = $1 WHERE grant_id = $2`, micros(at), id)
}

func (tx identityTx) AddOAuthToken(t auth.OAuthToken) error {
	return tx.one("grant", t.GrantID, `
		INSERT INTO oauth_tokens (hash, grant_id, kind, challenge, expires_at, spent_at)
		SELECT $1, id, $2, $3, $4, 0 FROM oauth_grants WHERE grant_id = $5`,
		t.Hash, string(t.Kind), t.Challenge, micros(t.ExpiresAt), t.GrantID)
}

func (tx identityTx) SpendOAuthToken(hash []byte, at time.Time) error {
	res, err := tx.exec(`UPDATE oauth_tokens SET spent_at = $1 WHERE hash = $2 AND spent_at = 0`, micros(at), hash)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fault.Wrap(err, fault.Conflict, "the token was used")
	}
	return nil
}

// TrimOAuthTokens forgets the access tokens of a grant, and what was spent but for the newest keep.
func (tx identityTx) TrimOAuthTokens(grantID string, keep int) error {
	const ofGrant = `grant_id = (SELECT id FROM oauth_grants WHERE grant_id = $1)`
	if _, err := tx.exec(`DELETE FROM oauth_tokens WHERE kind = 'access' AND `+ofGrant, grantID); err != nil {
		return err
	}
	_, err := tx.exec(`
		DELETE FROM oauth_tokens WHERE spent_at > 0 AND `+ofGrant+` AND id NOT IN (
			SELECT id FROM oauth_tokens WHERE spent_at > 0 AND `+ofGrant+` ORDER BY id DESC LIMIT $2)`, grantID, keep)
	return err
}

// DropOAuth forgets grants that expired or were revoked before a time, and clients of that age to
// which nothing is granted.
func (tx identityTx) DropOAuth(grants, clients time.Time) error {
	if _, err := tx.exec(`DELETE FROM oauth_grants WHERE expires_at < $1 OR revoked_at > 0 AND revoked_at < $1`, micros(grants)); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM oauth_clients WHERE created_at < $1 AND NOT EXISTS (SELECT 1 FROM oauth_grants g WHERE g.client_id = oauth_clients.id)`, micros(clients))
	return err
}
