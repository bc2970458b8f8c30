package store

import (
	"errors"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

const selectPerson = `
	SELECT p.principal_id, u.name, u.handle, u.password, u.password_at, (SELECT COUNT(*) FROM passkeys k WHERE k.principal_id = p.id)
	FROM people u JOIN principals p ON p.id = u.principal_id`

func scanPerson(row scanner) (auth.Person, error) {
	var u auth.Person
	var at int64
	err := row.Scan(&u.PrincipalID, &u.Name, &u.Handle, &u.Password, &at, &u.Passkeys)
	u.PasswordAt = fromMicros(at)
	return u, err
}

func (r identityReader) Person(principalID string) (auth.Person, error) {
	u, err := scanPerson(r.q.QueryRowContext(r.ctx, selectPerson+" WHERE p.principal_id = $1", principalID))
	return found(u, err, "user", principalID)
}

func (r identityReader) PersonByName(name string) (auth.Person, error) {
	u, err := scanPerson(r.q.QueryRowContext(r.ctx, selectPerson+" WHERE u.name = $1", name))
	return found(u, err, "user", name)
}

func (r identityReader) PersonByHandle(handle []byte) (auth.Person, error) {
	u, err := scanPerson(r.q.QueryRowContext(r.ctx, selectPerson+" WHERE u.handle = $1", handle))
	return found(u, err, "user", "with this handle")
}

func (r identityReader) HasOwner() (bool, error) {
	n, err := r.count(`
		SELECT EXISTS (SELECT 1 FROM principals p JOIN principal_roles r ON r.principal_id = p.id WHERE p.status = 'approved' AND r.role = 'owner')`)
	return n > 0, err
}

func (tx identityTx) PutPerson(u auth.Person) error {
	if other, err := tx.PersonByName(u.Name); err == nil && other.PrincipalID != u.PrincipalID {
		return fault.New(fault.Exists, "the name %q is taken", u.Name)
	} else if err != nil && fault.CodeOf(err) != fault.NotFound {
		return err
	}
	return tx.one("principal", u.PrincipalID, `
		INSERT INTO people (principal_id, name, handle, password, password_at)
		SELECT id, $1, $2, $3, $4 FROM principals WHERE principal_id = $5
		ON CONFLICT (principal_id) DO UPDATE SET name = excluded.name, password = excluded.password, password_at = excluded.password_at`,
		u.Name, u.Handle, u.Password, micros(u.PasswordAt), u.PrincipalID)
}

func scanPasskey(row scanner) (auth.Passkey, error) {
	var k auth.Passkey
	var transports string
	var created, used int64
	err := row.Scan(&k.ID, &k.PrincipalID, &k.CredentialID, &k.PublicKey, &k.Name, &k.AAGUID, &transports, &k.SignCount, &k.BackupEligible, &k.BackedUp, &created, &used)
	k.Transports, k.CreatedAt, k.LastUsed = strings.Fields(transports), fromMicros(created), fromMicros(used)
	return k, err
}

func (r identityReader) Passkeys(principalID string) ([]auth.Passkey, error) {
	return query(r.ctx, r.q, scanPasskey, `
		SELECT k.passkey_id, p.principal_id, k.credential_id, k.public_key, k.name, k.aaguid, k.transports, k.sign_count, k.backup_eligible, k.backed_up, k.created_at, k.last_used
		FROM passkeys k JOIN principals p ON p.id = k.principal_id
		WHERE p.principal_id = $1 ORDER BY k.id`, principalID)
}

func (tx identityTx) AddPasskey(k auth.Passkey) error {
	res, err := tx.exec(`
		INSERT INTO passkeys (passkey_id, principal_id, credential_id, public_key, name, aaguid, transports, sign_count, backup_eligible, backed_up, created_at, last_used)
		SELECT $1, id, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0 FROM principals WHERE principal_id = $11
		ON CONFLICT (credential_id) DO NOTHING`,
		k.ID, k.CredentialID, k.PublicKey, k.Name, k.AAGUID, strings.Join(k.Transports, " "), k.SignCount, k.BackupEligible, k.BackedUp, micros(k.CreatedAt), k.PrincipalID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fault.New(fault.Exists, "this passkey is registered already"))
	}
	return nil
}

func (tx identityTx) UsePasskey(id string, count uint32, backedUp bool, at time.Time) (bool, error) {
	res, err := tx.exec(`
		UPDATE passkeys SET sign_count = $1, backed_up = $2, last_used = $3
		WHERE passkey_id = $4 AND (sign_count < $1 OR sign_count = 0 AND $1 = 0)`, count, backedUp, micros(at), id)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

func (tx identityTx) RenamePasskey(principalID, id, name string) error {
	return tx.one("passkey", id, `
		UPDATE passkeys SET name = $1 WHERE passkey_id = $2 AND principal_id = (SELECT id FROM principals WHERE principal_id = $3)`, name, id, principalID)
}

func (tx identityTx) DeletePasskey(principalID, id string) error {
	return tx.one("passkey", id, `
		DELETE FROM passkeys WHERE passkey_id = $1 AND principal_id = (SELECT id FROM principals WHERE principal_id = $2)`, id, principalID)
}

func (r identityReader) Sessions(principalID string, at time.Time) ([]auth.Token, error) {
	return query(r.ctx, r.q, scanToken, selectToken+`
		WHERE p.principal_id = $1 AND t.kind = 'session' AND t.revoked_at = 0 AND t.expires_at > $2 ORDER BY t.id DESC`, principalID, micros(at))
}

func (tx identityTx) EndSessions(principalID, except string, at time.Time) ([]string, error) {
	return query(tx.ctx, tx.q, func(row scanner) (session string, err error) {
		err = row.Scan(&session)
		return session, err
	}, `
		UPDATE tokens SET revoked_at = $1
		WHERE kind = 'session' AND revoked_at = 0 AND token_id != $2 AND principal_id = (SELECT id FROM principals WHERE principal_id = $3)
		RETURNING token_id`, micros(at), except, principalID)
}

func (tx identityTx) ProveSession(id string, at time.Time) error {
	return tx.one("session", id, `UPDATE tokens SET proved_at = $1 WHERE token_id = $2 AND kind = 'session'`, micros(at), id)
}

func (r identityReader) SignInLink(hash []byte) (auth.SignInLink, error) {
	var l auth.SignInLink
	var created, expires int64
	err := r.q.QueryRowContext(r.ctx, `
		SELECT hash, principal_id, first, created_at, created_by, expires_at FROM sign_in_links WHERE hash = $1`, hash).
		Scan(&l.Hash, &l.PrincipalID, &l.First, &created, &l.CreatedBy, &expires)
	l.CreatedAt, l.ExpiresAt = fromMicros(created), fromMicros(expires)
	return found(l, err, "link", "")
}

// AddSignInLink replaces the links for the same principal, and forgets those that have expired.
func (tx identityTx) AddSignInLink(l auth.SignInLink) error {
	if _, err := tx.exec(`DELETE FROM sign_in_links WHERE principal_id = $1 OR expires_at < $2`, l.PrincipalID, micros(l.CreatedAt)); err != nil {
		return err
	}
	_, err := tx.exec(`
		INSERT INTO sign_in_links (hash, principal_id, first, created_at, created_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		l.Hash, l.PrincipalID, l.First, micros(l.CreatedAt), l.CreatedBy, micros(l.ExpiresAt))
	return err
}

func (tx identityTx) DropSignInLink(hash []byte) error {
	return tx.one("link", "", `DELETE FROM sign_in_links WHERE hash = $1`, hash)
}
