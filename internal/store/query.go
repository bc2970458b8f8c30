package store

import (
	"context"
	"database/sql"
)

// A scanner is a row that can be read.
type scanner interface{ Scan(dest ...any) error }

// A querier reads: the pool of connections that only read, or the one that writes.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// query runs a statement and scans all of its rows.
func query[T any](ctx context.Context, db querier, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
