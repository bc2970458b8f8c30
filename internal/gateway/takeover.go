package gateway

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"coven-gateway/internal/config"
	"coven-gateway/internal/store"
)

// TakeOver takes over the database of the public gateway into one that is empty; see
// [store.DB.TakeOver]. The gateway must not run.
func TakeOver(ctx context.Context, cfg config.Config, logger *slog.Logger, old string, dryRun bool) (*store.TakeoverReport, error) {
	was, err := os.Stat(old)
	if err != nil {
		return nil, err
	}
	if is, err := os.Stat(cfg.Database.Path); err == nil && os.SameFile(was, is) {
		return nil, errors.New(old + " is where this gateway keeps its own database: move the old one away first, or name another place with database.path or --data-dir")
	}
	identity, db, done, err := offline(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	report, err := db.TakeOver(ctx, store.Takeover{Old: old, DryRun: dryRun, Seal: identity.Seal, Audit: identity.Audit})
	return report, errors.Join(err, done())
}
