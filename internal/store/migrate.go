package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date. Each migration runs in a transaction of its own and leaves
// its checksum: one that was edited after it had run is refused, and so is a database that a newer
// gateway has migrated.
func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := refusePublic(ctx, db); err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migration_checksums (version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL)`); err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return newerSchema(current, target)
	}
	if current < target {
		if _, err := p.Up(ctx); err != nil {
			return err
		}
	}
	for _, s := range p.ListSources() {
		text, err := fs.ReadFile(dir, path.Base(s.Path))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		got := hex.EncodeToString(sum[:])
		var want string
		err = db.QueryRowContext(ctx, `
			INSERT INTO migration_checksums (version, sha256) VALUES ($1, $2)
			ON CONFLICT (version) DO UPDATE SET version = version
			RETURNING sha256`, s.Version, got).Scan(&want)
		if err != nil {
			return err
		}
		if want != got {
			return fmt.Errorf("migration %d was changed after this database had run it", s.Version)
		}
	}
	return nil
}

// refusePublic keeps the database of the public gateway as it is: a configuration that was taken from
// there names it.
func refusePublic(ctx context.Context, db *sql.DB) error {
	var public bool
	err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'ledger_events')`).Scan(&public)
	if err == nil && public {
		err = errors.New("this is a database of the public gateway: move it away and take it over with `coven-gateway import`")
	}
	return err
}

func newerSchema(current, known int64) error {
	return fmt.Errorf("the schema has version %d, this gateway knows only %d: it was migrated by a newer gateway", current, known)
}
