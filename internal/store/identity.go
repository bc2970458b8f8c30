package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// Identity is who is who, and what was ever changed about it.
type Identity struct{ db *DB }

var _ auth.Store = Identity{}

// Identity returns the principals in the database.
func (db *DB) Identity() Identity { return Identity{db} }

// Read implements auth.Store.
func (s Identity) Read(ctx context.Context) auth.Reader { return identityReader{ctx, s.db.read} }

// Change implements auth.Store.
func (s Identity) Change(ctx context.Context, op func(auth.Tx) error) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		return op(identityTx{identityReader{context.Background(), tx.w.conn}, tx})
	})
}

// An identityReader implements auth.Reader on either connection.
type identityReader struct {
	ctx context.Context // of the caller; a reader lives as long as one call
	q   querier
}

// An identityTx implements auth.Tx.
type identityTx struct {
	identityReader
	*Tx
}

// found turns the absence of a row into a fault.
func found[T any](v T, err error, what, id string) (T, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return v, fault.New(fault.NotFound, "no %s %q", what, id)
	}
	return v, err
}

const selectPrincipal = `
	SELECT p.principal_id, p.kind, p.name, p.status, p.created_at, p.created_by, p.last_seen,
		COALESCE((SELECT GROUP_CONCAT(role) FROM principal_roles r WHERE r.principal_id = p.id), ''),
		COALESCE((SELECT GROUP_CONCAT(capability) FROM (SELECT capability FROM principal_capabilities c WHERE c.principal_id = p.id ORDER BY capability)), '')
	FROM principals p`

func scanPrincipal(row scanner) (auth.Principal, error) {
	var p auth.Principal
	var created, seen int64
	var roles, capabilities string
	err := row.Scan(&p.ID, &p.Kind, &p.Name, &p.Status, &created, &p.CreatedBy, &seen, &roles, &capabilities)
	p.CreatedAt, p.LastSeen = fromMicros(created), fromMicros(seen)
	for _, r := range []auth.Role{auth.Owner, auth.Admin, auth.Leader, auth.Member} {
		for has := range strings.SplitSeq(roles, ",") {
			if has == string(r) {
				p.Roles = append(p.Roles, r)
			}
		}
	}
	if capabilities != "" {
		p.Capabilities = strings.Split(capabilities, ",")
	}
	return p, err
}

func (r identityReader) Principal(id string) (auth.Principal, error) {
	p, err := scanPrincipal(r.q.QueryRowContext(r.ctx, selectPrincipal+" WHERE p.principal_id = $1", id))
	return found(p, err, "principal", id)
}

func (r identityReader) PrincipalByKey(fingerprint string) (auth.Principal, error) {
	p, err := scanPrincipal(r.q.QueryRowContext(r.ctx, selectPrincipal+`
		JOIN principal_keys k ON k.principal_id = p.id WHERE k.fingerprint = $1`, fingerprint))
	return found(p, err, "key", fingerprint)
}

func (r identityReader) Principals(f auth.PrincipalFilter) ([]auth.Principal, error) {
	return query(r.ctx, r.q, scanPrincipal, selectPrincipal+`
		WHERE ($1 = '' OR p.kind = $1) AND ($2 = '' OR p.status = $2)
		  AND ($3 = '' OR p.id < (SELECT id FROM principals WHERE principal_id = $3))
		ORDER BY p.id DESC LIMIT $4`, string(f.Kind), string(f.Status), f.Before, f.Limit)
}

func (r identityReader) count(text string, args ...any) (n int, err error) {
	err = r.q.QueryRowContext(r.ctx, text, args...).Scan(&n)
	return n, err
}

func (tx identityTx) Owners() (int, error) {
	return tx.count(`
		SELECT COUNT(*) FROM principals p JOIN principal_roles r ON r.principal_id = p.id
		WHERE p.status = 'approved' AND r.role = 'owner'`)
}

func (tx identityTx) PendingPrincipals() (int, error) {
	return tx.count(`SELECT COUNT(*) FROM principals WHERE status = 'pending'`)
}

func (tx identityTx) CountPrincipals() (int, error) {
	return tx.count(`SELECT COUNT(*) FROM principals`)
}

func (tx identityTx) FirstOwner() (auth.Principal, error) {
	p, err := scanPrincipal(tx.q.QueryRowContext(tx.ctx, selectPrincipal+`
		JOIN principal_roles o ON o.principal_id = p.id
		WHERE p.status = 'approved' AND o.role = 'owner' ORDER BY p.id LIMIT 1`))
	return found(p, err, "principal with the role", "owner")
}

func (tx identityTx) AddPrincipal(p auth.Principal) error {
	_, err := tx.exec(`
		INSERT INTO principals (principal_id, kind, name, status, created_at, created_by, last_seen)
		VALUES ($1, $2, $3, $4, $5, $6, 0)`, p.ID, string(p.Kind), p.Name, string(p.Status), micros(p.CreatedAt), p.CreatedBy)
	return err
}

// one runs a statement that has to change one row.
func (tx identityTx) one(what, id, text string, args ...any) error {
	res, err := tx.exec(text, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fault.New(fault.NotFound, "no %s %q", what, id))
	}
	return nil
}

func (tx identityTx) SetStatus(id string, s auth.Status) error {
	return tx.one("principal", id, `UPDATE principals SET status = $1 WHERE principal_id = $2`, string(s), id)
}

func (tx identityTx) Rename(id, name string) error {
	return tx.one("principal", id, `UPDATE principals SET name = $1 WHERE principal_id = $2`, name, id)
}

func (tx identityTx) DeletePrincipal(id string) error {
	return tx.one("principal", id, `DELETE FROM principals WHERE principal_id = $1`, id)
}

func (tx identityTx) SetRole(id string, r auth.Role, granted bool, by string, at time.Time) (bool, error) {
	return tx.set("principal_roles", "role", id, string(r), granted, by, at)
}

func (tx identityTx) SetCapability(id, capability string, granted bool, by string, at time.Time) (bool, error) {
	return tx.set("principal_capabilities", "capability", id, capability, granted, by, at)
}

// set adds a grant to a table or removes it.
func (tx identityTx) set(table, column, id, value string, granted bool, by string, at time.Time) (bool, error) {
	text := `DELETE FROM ` + table + ` WHERE principal_id = (SELECT id FROM principals WHERE principal_id = $1) AND ` + column + ` = $2`
	args := []any{id, value}
	if granted {
		text = `INSERT INTO ` + table + ` (principal_id, ` + column + `, granted_at, granted_by)
			SELECT id, $2, $3, $4 FROM principals WHERE principal_id = $1 ON CONFLICT DO NOTHING`
		args = append(args, micros(at), by)
	}
	res, err := tx.exec(text, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func scanKey(row scanner) (auth.Key, error) {
	var k auth.Key
	var added, used int64
	err := row.Scan(&k.Fingerprint, &k.PrincipalID, &k.Comment, &added, &k.AddedBy, &used)
	k.AddedAt, k.LastUsed = fromMicros(added), fromMicros(used)
	return k, err
}

func (r identityReader) Keys(principalID string) ([]auth.Key, error) {
	return query(r.ctx, r.q, scanKey, `
		SELECT k.fingerprint, p.principal_id, k.comment, k.added_at, k.added_by, k.last_used
		FROM principal_keys k JOIN principals p ON p.id = k.principal_id
		WHERE p.principal_id = $1 ORDER BY k.added_at, k.fingerprint`, principalID)
}

func (tx identityTx) AddKey(k auth.Key) error {
	res, err := tx.exec(`
		INSERT INTO principal_keys (fingerprint, principal_id, comment, added_at, added_by, last_used)
		SELECT $1, id, $2, $3, $4, 0 FROM principals WHERE principal_id = $5
		ON CONFLICT (fingerprint) DO NOTHING`, k.Fingerprint, k.Comment, micros(k.AddedAt), k.AddedBy, k.PrincipalID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fault.New(fault.Exists, "pubkey already registered to another principal"))
	}
	return nil
}

func (tx identityTx) RemoveKey(principalID, fingerprint string) error {
	return tx.one("key", fingerprint, `
		DELETE FROM principal_keys
		WHERE fingerprint = $1 AND principal_id = (SELECT id FROM principals WHERE principal_id = $2)`, fingerprint, principalID)
}

func (tx identityTx) Touch(u auth.Usage) error {
	for _, t := range []struct {
		used map[string]time.Time
		text string
	}{
		{u.Principals, `UPDATE principals SET last_seen = MAX(last_seen, $1) WHERE principal_id = $2`},
		{u.Keys, `UPDATE principal_keys SET last_used = MAX(last_used, $1) WHERE fingerprint = $2`},
		{u.Tokens, `UPDATE tokens SET last_used = MAX(last_used, $1) WHERE token_id = $2`},
	} {
		for id, at := range t.used {
			if _, err := tx.exec(t.text, micros(at), id); err != nil { // it may be gone
				return err
			}
		}
	}
	return nil
}

func scanAgentID(row scanner) (auth.AgentID, error) {
	var a auth.AgentID
	var at int64
	err := row.Scan(&a.ID, &a.PrincipalID, &at, &a.Confirmed)
	a.ClaimedAt = fromMicros(at)
	return a, err
}

func (r identityReader) AgentOwner(agentID string) (auth.AgentID, error) {
	a, err := scanAgentID(r.q.QueryRowContext(r.ctx, `SELECT agent_id, principal_id, claimed_at, confirmed FROM agent_ids WHERE agent_id = $1`, agentID))
	return found(a, err, "owner of agent", agentID)
}

func (r identityReader) AgentIDs(principalID, after string, limit int) ([]auth.AgentID, error) {
	return query(r.ctx, r.q, scanAgentID, `
		SELECT agent_id, principal_id, claimed_at, confirmed FROM agent_ids
		WHERE agent_id > $1 AND ($2 = '' OR principal_id = $2)
		ORDER BY agent_id LIMIT $3`, after, principalID, limit)
}

func (tx identityTx) Inheritance(agentID string) (bool, error) {
	n, err := tx.count(`
		SELECT EXISTS (SELECT 1 FROM conversations WHERE agent_id = $1) OR EXISTS (SELECT 1 FROM secrets WHERE agent_id = $1)`, agentID)
	return n > 0, err
}

func (tx identityTx) SetAgentOwner(a auth.AgentID) error {
	_, err := tx.exec(`
		INSERT INTO agent_ids (agent_id, principal_id, claimed_at, confirmed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (agent_id) DO UPDATE
		SET principal_id = excluded.principal_id, claimed_at = excluded.claimed_at, confirmed = excluded.confirmed`,
		a.ID, a.PrincipalID, micros(a.ClaimedAt), a.Confirmed)
	return err
}

func (tx identityTx) DropAgentOwner(agentID string) error {
	return tx.one("owner of agent", agentID, `DELETE FROM agent_ids WHERE agent_id = $1`, agentID)
}
