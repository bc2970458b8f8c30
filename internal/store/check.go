package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// Check finds out whether Open would succeed on a database that may be in use, and changes nothing: the
// schema is one that this program knows, and where it has to be changed, that is tried on a copy, which
// is beside the database until then. What is not there yet is created by Open.
func Check(ctx context.Context, o Options) error {
	if o.Path == Memory {
		return nil
	}
	if _, err := os.Stat(o.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pending, err := pending(ctx, o.Path)
	if err == nil && pending {
		err = rehearse(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("check database %s: %w", o.Path, err)
	}
	return nil
}

// pending reports whether there are migrations to be run, and refuses a schema that is not ours.
func pending(ctx context.Context, file string) (_ bool, err error) {
	db, err := openReadOnly(file)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := refusePublic(ctx, db); err != nil {
		return false, err
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return false, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return false, err
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	var current int64
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM migration_checksums`).Scan(&current); err != nil {
		return false, err
	}
	if current > known {
		return false, newerSchema(current, known)
	}
	for _, s := range sources {
		text, err := fs.ReadFile(dir, path.Base(s.Path))
		if err != nil {
			return false, err
		}
		var ran string
		err = db.QueryRowContext(ctx, `SELECT sha256 FROM migration_checksums WHERE version = $1`, s.Version).Scan(&ran)
		if sum := sha256.Sum256(text); err == nil && ran != hex.EncodeToString(sum[:]) {
			err = fmt.Errorf("migration %d was changed after this database had run it", s.Version)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
	}
	return current < known, nil
}

// rehearse opens a copy of the database.
func rehearse(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(o.Path), ".check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	copied := filepath.Join(dir, databaseName)
	if err := copyDatabase(ctx, o.Path, copied); err != nil {
		return err
	}
	o.Path, o.Registerer, o.Logger = copied, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	db, err := Open(ctx, o)
	if err != nil {
		return fmt.Errorf("the schema cannot be changed: %w", err)
	}
	return db.Close()
}
