package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/upstream"
)

// Upstream keeps MCP servers and what was accepted of them. It implements upstream.Store.
type Upstream struct {
	db    *DB
	audit func(auth.Tx, auth.AuditRecord) error
}

var _ upstream.Store = Upstream{}

// Upstream returns the MCP servers in the database; audit appends to the audit log.
func (db *DB) Upstream(audit func(auth.Tx, auth.AuditRecord) error) Upstream {
	return Upstream{db, audit}
}

// Servers implements upstream.Store.
func (s Upstream) Servers(ctx context.Context) ([]upstream.Server, error) {
	return query(ctx, s.db.read, func(sc scanner) (upstream.Server, error) {
		var x upstream.Server
		var name, by, settings string
		var enabled bool
		var created int64
		if err := sc.Scan(&name, &settings, &enabled, &created, &by); err != nil {
			return x, err
		}
		if err := json.Unmarshal([]byte(settings), &x); err != nil {
			return x, fmt.Errorf("settings of the MCP server %q: %w", name, err)
		}
		x.Name, x.Enabled, x.CreatedAt, x.CreatedBy = name, enabled, fromMicros(created), by
		return x, nil
	}, `SELECT name, settings, enabled, created_at, created_by FROM mcp_servers ORDER BY name`)
}

// change runs op in one transaction with an audit record.
func (s Upstream) change(ctx context.Context, r auth.AuditRecord, op func(*Tx) error) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		if err := op(tx); err != nil {
			return err
		}
		return s.audit(identityTx{identityReader{context.Background(), tx.w.conn}, tx}, r)
	})
}

// one runs a statement that has to change one row; none is the fault when it changes nothing.
func one(tx *Tx, none error, text string, args ...any) error {
	res, err := tx.exec(text, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, none)
	}
	return nil
}

// AddServer implements upstream.Store.
func (s Upstream) AddServer(ctx context.Context, x upstream.Server, r auth.AuditRecord) error {
	settings, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return s.change(ctx, r, func(tx *Tx) error {
		return one(tx, fault.New(fault.Exists, "there is an MCP server %q already", x.Name), `
			INSERT INTO mcp_servers (name, settings, enabled, created_at, created_by) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (name) DO NOTHING`, x.Name, string(settings), x.Enabled, micros(x.CreatedAt), x.CreatedBy)
	})
}

// EnableServer implements upstream.Store.
func (s Upstream) EnableServer(ctx context.Context, name string, enabled bool, r auth.AuditRecord) error {
	return s.change(ctx, r, func(tx *Tx) error {
		return one(tx, fault.New(fault.NotFound, "no MCP server %q", name), `UPDATE mcp_servers SET enabled = $1 WHERE name = $2`, enabled, name)
	})
}

// RemoveServer implements upstream.Store.
func (s Upstream) RemoveServer(ctx context.Context, name string, r auth.AuditRecord) error {
	return s.change(ctx, r, func(tx *Tx) error {
		if _, err := tx.exec(`DELETE FROM mcp_tools WHERE server = $1`, name); err != nil {
			return err
		}
		return one(tx, fault.New(fault.NotFound, "no MCP server %q", name), `DELETE FROM mcp_servers WHERE name = $1`, name)
	})
}

// Accepted implements upstream.Store.
func (s Upstream) Accepted(ctx context.Context, server string) ([]upstream.Definition, error) {
	return query(ctx, s.db.read, func(sc scanner) (upstream.Definition, error) {
		var d upstream.Definition
		var text string
		if err := sc.Scan(&text); err != nil {
			return d, err
		}
		return d, json.Unmarshal([]byte(text), &d)
	}, `SELECT definition FROM mcp_tools WHERE server = $1 ORDER BY name`, server)
}

// Accept implements upstream.Store.
func (s Upstream) Accept(ctx context.Context, server string, tools []upstream.Definition, by string, r auth.AuditRecord) error {
	now := time.Now()
	return s.change(ctx, r, func(tx *Tx) error {
		for _, d := range tools {
			text, err := json.Marshal(d)
			if err != nil {
				return err
			}
			if _, err := tx.exec(`
				INSERT INTO mcp_tools (server, name, definition, accepted_at, accepted_by) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (server, name) DO UPDATE
				SET definition = excluded.definition, accepted_at = excluded.accepted_at, accepted_by = excluded.accepted_by`,
				server, d.Name, string(text), micros(now), by); err != nil {
				return err
			}
		}
		return nil
	})
}

// Note implements upstream.Store.
func (s Upstream) Note(ctx context.Context, r auth.AuditRecord) error {
	return s.change(ctx, r, func(*Tx) error { return nil })
}
