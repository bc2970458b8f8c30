package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"coven-gateway/internal/conversation"
)

// startCheck bounds how long a start looks for damage before it goes on. The tables that are large come
// last, and coven-gateway doctor looks at everything.
const startCheck = 2 * time.Second

// maxCovered is how many increments that closed blocks cover a gateway may leave; each start forgets them.
const maxCovered = 32 << 10

// bigTables grow with what is said.
const bigTables = `'events', 'increments', 'usage', 'pruned_usage', 'files', 'turns', 'audit_log', 'events_text_data', 'events_text_idx', 'events_text_docsize'`

// sound refuses a database in which something is damaged.
func sound(ctx context.Context, db *sql.DB, logger *slog.Logger) error {
	limited, cancel := context.WithTimeout(ctx, startCheck)
	defer cancel()
	err := checkTables(limited, db)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		logger.Info("the database is large; only a part of it was checked at the start", "after", startCheck)
		return nil
	}
	return err
}

func checkTables(ctx context.Context, db querier) error {
	tables, err := query(ctx, db, scanString, `
		SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name IN (`+bigTables+`), name`)
	if err != nil {
		return err
	}
	for _, table := range tables {
		bad, err := query(ctx, db, scanString, `SELECT quick_check FROM pragma_quick_check($1) WHERE quick_check <> 'ok' LIMIT 1`, table)
		if err == nil && len(bad) > 0 {
			err = fmt.Errorf("it is damaged: %s; look at it with coven-gateway doctor", oneLine(bad[0]))
		}
		if err != nil {
			return err
		}
	}
	small, err := query(ctx, db, scanString, `
		SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT IN (`+bigTables+`) ORDER BY name`)
	if err != nil {
		return err
	}
	for _, table := range small {
		bad, err := query(ctx, db, scanString, `SELECT parent FROM pragma_foreign_key_check($1) LIMIT 1`, table)
		if err == nil && len(bad) > 0 {
			err = fmt.Errorf("it is damaged: a row of %s refers to a row of %s that does not exist; look at it with coven-gateway doctor", table, bad[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// oneLine returns what SQLite says of damage without its heading.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "*** in database main ***\n"), "\n", "; ")
}

// damaged reports whether SQLite cannot make sense of the file.
func damaged(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// A Finding is something that is not as it should be with what a gateway keeps.
type Finding struct {
	What string // a sentence for people
	Cure string // what Repair does about it; "" when it does nothing
	Else string // what people can do about it where Repair does nothing

	fix  []string // statements
	move string   // a file or folder that is moved aside
}

// What people can do where nothing can be repaired.
const (
	restoreAdvice = "restore a backup (coven-gateway restore); what the database still has can be saved with the recover command of the sqlite3 program"
	lostAdvice    = "what is lost is not elsewhere in the database; only a backup has it. The gateway runs with it"
	blobAdvice    = "put the file there from a backup"
)

// cures are what can be done about flaws, by the rule that found them.
var cures = map[string]Finding{
	foreignKeys: {
		Cure: "the row is removed: without what it refers to nothing shows it",
	},
	turnEnds: {
		Cure: "the record of the turn is made to fit its end in the log; where there is none the turn is opened, and the next start ends it as interrupted",
		fix:  []string{fitRecords, reopenTurns},
	},
	turnRecords: {
		Cure: "the record of the turn is made to fit its end in the log",
		fix:  []string{fitRecords},
	},
	newestTurns: {
		Cure: "the record of the thread is made to fit its turns",
		fix:  []string{`UPDATE threads SET activity = (SELECT MAX(t.id) FROM turns t WHERE t.thread_id = threads.id) WHERE EXISTS (SELECT 1 FROM turns t WHERE t.thread_id = threads.id)`},
	},
}

var (
	fitRecords = fmt.Sprintf(`
		UPDATE turns SET state = json_extract(e.detail, '$.state'), cause = COALESCE(json_extract(e.detail, '$.cause'), ''),
			last_seq = e.seq, ended_at = e.at, waiting_until = 0
		FROM events e
		WHERE e.turn_id = turns.id AND e.kind = %[1]d
		  AND (SELECT COUNT(*) FROM events x WHERE x.turn_id = turns.id AND x.kind = %[1]d) = 1
		  AND (turns.state IS NOT json_extract(e.detail, '$.state') OR turns.last_seq <> e.seq OR turns.ended_at <> e.at)`, conversation.KindEnded)

	reopenTurns = fmt.Sprintf(`
		UPDATE turns SET state = '%s', cause = '', last_seq = 0, ended_at = 0, size = 0, waiting_until = 0, resumable = 0
		WHERE state <> '%[1]s' AND pruned = 0 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.turn_id = turns.id AND e.kind = %d)`,
		conversation.Open, conversation.KindEnded)

	// covered are the increments that closed blocks have.
	covered = `DELETE FROM increments WHERE id NOT IN (SELECT i.id` + fromUncovered + `)`

	rebuildWords = []string{
		`INSERT INTO events_text (events_text) VALUES ('delete-all')`,
		`INSERT INTO events_text (rowid, text) SELECT id, text FROM events WHERE kind IN (1, 2, 6)`,
	}
)

// Examine looks for everything that can be wrong with what a gateway keeps, and changes nothing. The
// gateway may run; what only a stopped one can be asked is left out then.
func Examine(ctx context.Context, p Place) ([]Finding, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.Database); err != nil {
		return nil, fmt.Errorf("there is no database to examine: %w", err)
	}
	lock, err := tryLock(p.Database + ".lock")
	if err != nil {
		return nil, err
	}
	if lock == nil {
		return examine(ctx, p, true)
	}
	found, err := examine(ctx, p, false)
	return found, errors.Join(err, lock.release())
}

func examine(ctx context.Context, p Place, running bool) ([]Finding, error) {
	if err := interruptedRestore(p.Database); err != nil {
		return []Finding{{What: err.Error(), Else: "restore the backup again"}}, nil
	}
	var found []Finding
	var blobs map[string]string
	err := read(ctx, p.Database, func(tx *sql.Tx) error {
		bad, err := integrity(ctx, tx)
		if err != nil {
			return err
		}
		whole := true
		for _, text := range bad {
			f := ofIntegrity(text)
			whole = whole && f.Cure != ""
			found = append(found, f)
		}
		if !whole {
			return nil // nothing else can be trusted
		}
		more, err := ofLog(ctx, tx, running, len(bad) > 0)
		found = append(found, more...)
		if err != nil {
			return err
		}
		blobs, err = contents(ctx, tx)
		return err
	})
	if damaged(err) {
		return append(found, Finding{What: "SQLite cannot read the database: " + err.Error(), Else: restoreAdvice}), nil
	}
	if err != nil || blobs == nil {
		return found, err
	}
	more, err := ofFiles(ctx, p, blobs, running)
	return append(found, more...), err
}

// ofIntegrity explains what SQLite says of itself.
func ofIntegrity(text string) Finding {
	text = oneLine(text)
	switch {
	case strings.Contains(text, "FTS5 table"):
		return Finding{What: "the index of words, for the search, is damaged: " + text, Cure: "it is built anew from the texts", fix: rebuildWords}
	case strings.Contains(text, "index"):
		return Finding{What: "an index of the database does not fit its table: " + text, Cure: "all indexes are built anew from the tables", fix: []string{"REINDEX"}}
	}
	return Finding{What: "the file of the database is damaged: " + text, Else: restoreAdvice}
}

// ofLog examines a database whose pages are sound. What goes by an index that is damaged is left for
// when it has been built anew.
func ofLog(ctx context.Context, tx *sql.Tx, running, indexes bool) (found []Finding, err error) {
	if indexes {
		return nil, nil
	}
	schema, err := schemaOf(ctx, tx)
	if err != nil {
		return nil, err
	}
	var unreadable int64
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM events WHERE detail <> '' AND NOT json_valid(detail)`).Scan(&unreadable); err != nil {
		return nil, err
	}
	if unreadable > 0 { // the rules would stumble over them
		return []Finding{{What: fmt.Sprintf("%d events cannot be read: what they say is not in the form in which it was written", unreadable), Else: lostAdvice}}, nil
	}
	bad, err := flaws(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, b := range bad {
		f, ok := cures[b.rule]
		f.What = b.text
		if !ok || schema < retentionSchema {
			f = Finding{What: b.text, Else: lostAdvice}
		}
		if b.rule == foreignKeys {
			if f.fix, err = dangling(ctx, tx); err != nil {
				return nil, err
			}
		}
		found = append(found, f)
	}
	var missing, extra, old int64
	err = tx.QueryRowContext(ctx, `
		SELECT (SELECT COUNT(*) FROM events WHERE kind IN (1, 2, 6) AND id NOT IN (SELECT id FROM events_text_docsize)),
			(SELECT COUNT(*) FROM events_text_docsize WHERE id NOT IN (SELECT id FROM events WHERE kind IN (1, 2, 6))),
			(SELECT COUNT(*) FROM increments WHERE id NOT IN (SELECT i.id`+fromUncovered+`))`).Scan(&missing, &extra, &old)
	if err != nil {
		return nil, err
	}
	if missing+extra > 0 {
		found = append(found, Finding{
			What: fmt.Sprintf("the search misses %d texts and has %d that are gone", missing, extra), Cure: "the index of words is built anew from the texts", fix: rebuildWords,
		})
	}
	if old > maxCovered && !running {
		found = append(found, Finding{
			What: fmt.Sprintf("%d pieces of answers are kept although the whole answers are stored", old), Cure: "they are removed", fix: []string{covered},
		})
	}
	return found, nil
}

// dangling returns statements that remove the rows which refer to rows that do not exist.
func dangling(ctx context.Context, tx *sql.Tx) ([]string, error) {
	return query(ctx, tx, scanString, `
		SELECT DISTINCT printf('DELETE FROM "%w" WHERE rowid IN (SELECT rowid FROM pragma_foreign_key_check(''%q''))', "table", "table")
		FROM pragma_foreign_key_check WHERE rowid IS NOT NULL`)
}

// contents returns the contents that the database refers to, with words for where.
func contents(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	blobs := map[string]string{}
	_, err := query(ctx, tx, func(row scanner) (struct{}, error) {
		var sum, where string
		err := row.Scan(&sum, &where)
		if err == nil && !isSum(sum) {
			err = fmt.Errorf("%s has %q instead of a SHA-256", where, sum)
		}
		blobs[sum] = where
		return struct{}{}, err
	}, `SELECT f.sha256, printf('the file "%s" (%s) of turn %s', f.name, f.file_id, t.request_id) FROM files f LEFT JOIN turns t ON t.id = f.turn_id WHERE f.expired_at = 0`)
	return blobs, err
}

// ofFiles compares what the database refers to with what is there.
func ofFiles(ctx context.Context, p Place, blobs map[string]string, running bool) (found []Finding, err error) {
	dir := filepath.Join(p.DataDir, filesName)
	seen := map[string]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return errors.Join(err, context.Cause(ctx))
		}
		name := d.Name()
		where, used := blobs[name]
		switch {
		case used:
			seen[name] = true
			_, sum, err := sumFile(path)
			if err != nil {
				found = append(found, Finding{What: fmt.Sprintf("the content of %s cannot be read: %v", where, err), Else: blobAdvice})
			} else if sum != name {
				found = append(found, Finding{What: fmt.Sprintf("the content of %s is damaged: %s is not what was stored", where, path), Else: blobAdvice})
			}
		case running: // it may have come since the database was read
		case isSum(name):
			found = append(found, Finding{What: fmt.Sprintf("nothing refers to the content %s", path), Cure: "it is moved aside", move: path})
		case strings.HasPrefix(name, newPrefix):
			found = append(found, leftover(path))
		}
		return context.Cause(ctx)
	})
	if err != nil {
		return found, err
	}
	for name, where := range blobs {
		if !seen[name] {
			found = append(found, Finding{What: fmt.Sprintf("the content of %s is missing: there is no %s", where, filepath.Join(dir, name[:2], name)), Else: blobAdvice})
		}
	}
	if running {
		return found, nil
	}
	entries, err := os.ReadDir(p.DataDir)
	if err != nil {
		return found, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || e.Name() == stageName {
			found = append(found, leftover(filepath.Join(p.DataDir, e.Name())))
		}
	}
	return found, nil
}

func leftover(path string) Finding {
	return Finding{What: fmt.Sprintf("%s is left from something that was interrupted", path), Cure: "it is moved aside", move: path}
}

// A Repaired is what Repair did.
type Repaired struct {
	Aside string    // the folder with the database as it was, and with what was moved; "" when nothing was done
	Done  []Finding // what was repaired
	Left  []Finding // what is still not as it should be
}

// maxRounds bounds how often Repair looks again: what was hidden behind one finding is found after it.
const maxRounds = 5

// Repair does what it can about what Examine finds, while no gateway runs. Before it changes anything it
// copies the database into a folder of the data directory and compares the copy; files that are not needed
// are moved there, too.
func Repair(ctx context.Context, p Place) (r Repaired, err error) {
	if err := p.check(); err != nil {
		return r, err
	}
	if _, err := os.Stat(p.Database); err != nil {
		return r, fmt.Errorf("there is no database to repair: %w", err)
	}
	lock, err := acquireLock(p.Database + ".lock")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if r.Left, err = examine(ctx, p, false); err != nil {
		return r, err
	}
	for range maxRounds {
		todo := map[string]bool{}
		for _, f := range r.Left {
			if f.Cure != "" {
				todo[f.What] = true
			}
		}
		if len(todo) == 0 {
			return r, nil
		}
		if r.Aside == "" {
			if r.Aside, err = setAside(ctx, p); err != nil {
				return r, fmt.Errorf("nothing was changed: the database could not be copied: %w", err)
			}
		}
		before := r.Left
		if err := cureAll(ctx, p, r.Aside, before); err != nil {
			return r, err
		}
		if r.Left, err = examine(ctx, p, false); err != nil {
			return r, err
		}
		still := map[string]bool{}
		for _, f := range r.Left {
			still[f.What] = true
		}
		progress := false
		for _, f := range before {
			if f.Cure != "" && !still[f.What] {
				r.Done, progress = append(r.Done, f), true
			}
		}
		if !progress {
			return r, nil
		}
	}
	return r, nil
}

// setAside copies the files of the database and returns the folder.
func setAside(ctx context.Context, p Place) (string, error) {
	aside := filepath.Join(p.DataDir, "before-repair-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", err
	}
	for _, suffix := range append([]string{""}, companions[:3]...) {
		from, to := p.Database+suffix, filepath.Join(aside, databaseName+suffix)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_, want, err := copyFile(from, to)
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(aside))
		}
		if _, got, err := sumFile(to); err != nil || got != want {
			return "", errors.Join(err, fmt.Errorf("%s is not what was copied", to), os.RemoveAll(aside))
		}
		if err := context.Cause(ctx); err != nil {
			return "", errors.Join(err, os.RemoveAll(aside))
		}
	}
	return aside, errors.Join(syncFolders(aside), syncFolder(p.DataDir))
}

// cureAll applies the cures of findings, each statement once.
func cureAll(ctx context.Context, p Place, aside string, found []Finding) error {
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_txlock=immediate&_pragma=synchronous(full)&_pragma=busy_timeout(%d)", (&url.URL{Path: p.Database}).EscapedPath(), busyTimeout.Milliseconds()))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	did := map[string]bool{}
	for _, f := range found {
		if f.Cure == "" || len(f.fix) == 0 || did[strings.Join(f.fix, ";")] {
			continue
		}
		did[strings.Join(f.fix, ";")] = true
		if err := apply(ctx, db, f.fix); err != nil {
			return fmt.Errorf("%s: the repair failed and was undone: %w", f.What, err)
		}
	}
	for _, f := range found {
		if f.move == "" {
			continue
		}
		if err := (move{f.move, filepath.Join(aside, filepath.Base(f.move))}).make(); err != nil {
			return err
		}
	}
	if _, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return err
	}
	return db.Close()
}

func apply(ctx context.Context, db *sql.DB, fix []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, text := range fix {
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return tx.Commit()
}
