package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
)

// VerifyBackup reads a whole backup: its files are what the manifest says, its database passes
// Verify, and everything that the database refers to is there. The error names all that is wrong.
func VerifyBackup(ctx context.Context, folder string) (Manifest, error) {
	m, err := readManifest(folder)
	if err != nil {
		return m, err
	}
	var errs []error
	has := map[string]bool{}
	for _, f := range m.Files {
		if err := context.Cause(ctx); err != nil {
			return m, err
		}
		has[f.Path] = true
		path := filepath.Join(folder, filepath.FromSlash(f.Path))
		size, sum, err := sumFile(path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case size != f.Size:
			errs = append(errs, fmt.Errorf("%s is damaged: it has %d bytes instead of %d", path, size, f.Size))
		case sum != f.SHA256:
			errs = append(errs, fmt.Errorf("%s is damaged: its SHA-256 is %s instead of %s", path, sum, f.SHA256))
		}
	}
	if !has[databaseName] {
		errs = append(errs, fmt.Errorf("%s has no %s", folder, databaseName))
	}
	if len(errs) > 0 {
		return m, errors.Join(errs...)
	}
	path := filepath.Join(folder, databaseName)
	if err := Verify(ctx, path); err != nil {
		return m, err
	}
	db, err := inspect(ctx, path)
	if err != nil {
		return m, err
	}
	if db.schema != m.Schema || db.counts != m.Counts {
		errs = append(errs, fmt.Errorf("%s has schema %d and %+v, the manifest says %d and %+v", path, db.schema, db.counts, m.Schema, m.Counts))
	}
	for _, name := range db.blobs {
		if blob := filesName + "/" + name[:2] + "/" + name; !has[blob] {
			errs = append(errs, fmt.Errorf("%s is missing", filepath.Join(folder, filepath.FromSlash(blob))))
		}
	}
	return m, errors.Join(errs...)
}

// inspection is what a backup has to know of its database.
type inspection struct {
	schema int64
	counts Counts
	blobs  []string // names of the contents it refers to
}

// inspect looks into a database that this gateway can read.
func inspect(ctx context.Context, path string) (inspection, error) {
	var in inspection
	err := read(ctx, path, func(tx *sql.Tx) error {
		var err error
		if in.schema, err = schemaOf(ctx, tx); err != nil {
			return err
		}
		c := &in.counts
		err = tx.QueryRowContext(ctx, `
			SELECT (SELECT COUNT(*) FROM conversations), (SELECT COUNT(*) FROM threads), (SELECT COUNT(*) FROM turns),
				(SELECT COUNT(*) FROM events), (SELECT COUNT(*) FROM files)`).
			Scan(&c.Conversations, &c.Threads, &c.Turns, &c.Events, &c.Files)
		if err != nil {
			return err
		}
		having := ""
		if in.schema >= retentionSchema {
			having = "WHERE expired_at = 0"
		}
		in.blobs, err = query(ctx, tx, scanString, `SELECT DISTINCT sha256 FROM files `+having+` ORDER BY sha256`)
		return err
	})
	for _, name := range in.blobs {
		if !isSum(name) {
			return in, fmt.Errorf("database %s: a file has %q instead of a SHA-256", path, name)
		}
	}
	return in, err
}

func scanString(row scanner) (string, error) {
	var s string
	err := row.Scan(&s)
	return s, err
}

// read runs fn in a transaction that only reads.
func read(ctx context.Context, path string, fn func(*sql.Tx) error) error {
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	return nil
}

// schemaOf returns the version of the schema, and an error when this gateway does not know it.
func schemaOf(ctx context.Context, tx *sql.Tx) (int64, error) {
	var current int64
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&current); err != nil {
		return 0, err
	}
	entries, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return 0, err
	}
	known := int64(0)
	for _, e := range entries {
		v, err := goose.NumericComponent(e.Name())
		if err != nil {
			return 0, err
		}
		known = max(known, v)
	}
	if current > known {
		return 0, newerSchema(current, known)
	}
	return current, nil
}

// most bounds how much of one kind is reported.
const most = 10

// Verify checks a database that may be in use: SQLite's own consistency, foreign keys, and what
// always holds of the log between two commits. The error names what is wrong.
func Verify(ctx context.Context, path string) error {
	return read(ctx, path, func(tx *sql.Tx) error {
		// Nothing else can be trusted when pages are damaged, nor asked of another schema.
		if bad, err := integrity(ctx, tx); err != nil || len(bad) > 0 {
			return errors.Join(append(toErrors(bad), err)...)
		}
		found, err := flaws(ctx, tx)
		errs := make([]error, len(found))
		for i, f := range found {
			errs[i] = errors.New(f.text)
		}
		return errors.Join(append(errs, err)...)
	})
}

// integrity returns what SQLite itself finds wrong.
func integrity(ctx context.Context, tx querier) ([]string, error) {
	return query(ctx, tx, scanString, `SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok' LIMIT 10`)
}

// A flaw is something that does not hold of the log. Its rule is the statement that found it; it has
// none when something else did.
type flaw struct{ text, rule string }

// flaws returns what does not hold of the log in a sound database.
func flaws(ctx context.Context, tx *sql.Tx) (found []flaw, err error) {
	schema, err := schemaOf(ctx, tx)
	if err != nil {
		return nil, err
	}
	rules := invariants
	whole := "TRUE" // whether a turn t has all of its events
	if schema >= retentionSchema {
		rules, whole = slices.Concat(rules, retentionInvariants), "t.pruned = 0"
	}
	for _, rule := range rules {
		bad, err := query(ctx, tx, scanString, fmt.Sprintf("%s LIMIT %d", strings.ReplaceAll(rule, "{whole}", whole), most))
		if err != nil {
			return found, err
		}
		for _, text := range bad {
			found = append(found, flaw{text, rule})
		}
	}
	if schema >= auditSchema {
		if err := unchained(ctx, tx); err != nil {
			found = append(found, flaw{text: err.Error()})
		}
	}
	bad, err := misnumbered(ctx, tx, schema >= retentionSchema)
	for _, e := range bad {
		found = append(found, flaw{text: e.Error()})
	}
	return found, err
}

func toErrors(texts []string) []error {
	errs := make([]error, len(texts))
	for i, t := range texts {
		errs[i] = errors.New(t)
	}
	return errs
}

// Rules for which coven-gateway doctor has a cure.
var (
	foreignKeys = `SELECT printf('row %d of %s refers to a row of %s that does not exist', rowid, "table", parent) FROM pragma_foreign_key_check`

	turnEnds = fmt.Sprintf(`
	WITH ends AS (SELECT turn_id, COUNT(*) AS n FROM events WHERE kind = %d GROUP BY turn_id)
	SELECT printf('turn %%s is %%s and has %%d ends', t.request_id, t.state, COALESCE(e.n, 0))
	FROM turns t LEFT JOIN ends e ON e.turn_id = t.id
	WHERE COALESCE(e.n, 0) <> (t.state <> '%s')`, conversation.KindEnded, conversation.Open)

	turnRecords = fmt.Sprintf(`
	SELECT printf('turn %%s ended as %%s at %%d, its record says %%s at %%d', t.request_id, json_extract(e.detail, '$.state'), e.seq, t.state, t.last_seq)
	FROM events e JOIN turns t ON t.id = e.turn_id
	WHERE e.kind = %d AND (e.seq <> t.last_seq OR e.at <> t.ended_at OR json_extract(e.detail, '$.state') IS NOT t.state)`, conversation.KindEnded)

	newestTurns = `SELECT printf('the newest turn of thread %s is %d, its record says %d', th.thread_id, COALESCE(MAX(t.id), 0), th.activity)
	FROM threads th LEFT JOIN turns t ON t.thread_id = th.id
	GROUP BY th.id HAVING th.activity IS NOT MAX(t.id)`
)

// invariants are statements that find what is wrong, one sentence per row. They hold between any
// two commits, with turns open or not.
var invariants = []string{
	foreignKeys,

	// A turn begins with the one message it has. One that was taken over from the public gateway,
	// which has no digest of a request, may have none (see takeover_plan.go); it begins with its first
	// event.
	fmt.Sprintf(`
	WITH begins AS (SELECT turn_id, COUNT(*) FILTER (WHERE kind = %d) AS n, MIN(seq) FILTER (WHERE kind = %d) AS seq, MIN(seq) AS first FROM events GROUP BY turn_id)
	SELECT printf('turn %%s has %%d messages, its first event is %%d instead of %%d', t.request_id, COALESCE(b.n, 0), COALESCE(b.seq, 0), t.first_seq)
	FROM turns t LEFT JOIN begins b ON b.turn_id = t.id
	WHERE {whole} AND (b.n IS NOT 1 OR b.seq IS NOT t.first_seq)
	  AND NOT (length(t.digest) = 0 AND b.n IS 0 AND b.first IS t.first_seq)`, conversation.KindMessage, conversation.KindMessage),

	// A turn that is open has no end, any other exactly one.
	turnEnds,

	// The end in the log and the record of the turn say the same.
	turnRecords,

	// Events lie in the conversation and the thread of their turn, and none outside of the turn.
	fmt.Sprintf(`
	SELECT printf('event %%d of conversation %%d is not a part of its turn %%s', e.seq, e.conversation_id, t.request_id)
	FROM events e JOIN turns t ON t.id = e.turn_id
	WHERE e.conversation_id <> t.conversation_id OR e.thread_id <> t.thread_id
	   OR e.seq < t.first_seq OR t.state <> '%s' AND e.last_seq > t.last_seq`, conversation.Open),

	// Only text and thinking come in increments.
	fmt.Sprintf(`
	SELECT printf('event %%d of conversation %%d is of kind %%d and reaches to %%d', seq, conversation_id, kind, last_seq)
	FROM events WHERE kind NOT IN (%d, %d) AND last_seq <> seq`, conversation.KindText, conversation.KindThinking),

	// Increments that no block covers are those of open turns: an end closes the block before it.
	`SELECT printf('increment %d of turn %s is in no block, though the turn has ended', i.seq, t.request_id)` + fromUncovered +
		fmt.Sprintf(` AND t.state <> '%s'`, conversation.Open),

	// A thread is one agent's, and knows its newest turn.
	`SELECT printf('turn %s of agent %s is in thread %s of agent %s', t.request_id, c.agent_id, th.thread_id, th.agent_id)
	FROM turns t JOIN conversations c ON c.id = t.conversation_id JOIN threads th ON th.id = t.thread_id
	WHERE c.agent_id <> th.agent_id`,
	newestTurns,

	// Usage reports and files have an event, and such events have them.
	fmt.Sprintf(`
	SELECT printf('usage report %%d belongs to no usage event of its turn', u.id)
	FROM usage u LEFT JOIN events e ON e.conversation_id = u.conversation_id AND e.seq = u.seq
	WHERE e.turn_id IS NOT u.turn_id OR e.kind <> %d`, conversation.KindUsage),
	fmt.Sprintf(`
	SELECT printf('there are %%d usage events and %%d usage reports', events, reports)
	FROM (SELECT (SELECT COUNT(*) FROM events WHERE kind = %d) AS events, (SELECT COUNT(*) FROM usage) AS reports)
	WHERE events <> reports`, conversation.KindUsage),
	fmt.Sprintf(`
	SELECT printf('file %%s belongs to no event with files of its turn', f.file_id)
	FROM files f LEFT JOIN events e ON e.conversation_id = f.conversation_id AND e.seq = f.seq
	WHERE e.turn_id IS NOT f.turn_id OR e.kind NOT IN (%d, %d)`, conversation.KindMessage, conversation.KindFile),
	fmt.Sprintf(`
	SELECT printf('events name %%d files, there are %%d', named, stored)
	FROM (SELECT
		(SELECT COUNT(*) FROM events WHERE kind = %d) +
		(SELECT COALESCE(SUM(json_array_length(detail, '$.files')), 0) FROM events WHERE kind = %d) AS named,
		(SELECT COUNT(*) FROM files) AS stored)
	WHERE named <> stored`, conversation.KindFile, conversation.KindMessage),
}

// retentionInvariants are those of what was removed.
var retentionInvariants = []string{
	`SELECT printf('the removed events %d to %d of conversation %d go on at %d, in another row', p.first, p.last, p.conversation_id, n.first)
	FROM pruned p JOIN pruned n ON n.conversation_id = p.conversation_id AND n.first = p.last + 1`,

	// Only turns that have ended are removed, from their beginning.
	`SELECT printf('turn %s is being removed and is %s', t.request_id, t.state) FROM turns t WHERE t.pruned <> 0 AND t.state = 'open'`,
	`SELECT printf('turn %s is being removed, and event %d, its first one, is not', t.request_id, t.first_seq)
	FROM turns t WHERE t.pruned <> 0
	  AND NOT EXISTS (SELECT 1 FROM pruned p WHERE p.conversation_id = t.conversation_id AND p.last >= t.first_seq AND p.first <= t.first_seq)`,
	`SELECT printf('thread %s is being deleted and has an open turn', th.thread_id)
	FROM threads th WHERE th.deleted_at <> 0 AND EXISTS (SELECT 1 FROM turns t WHERE t.thread_id = th.id AND t.state = 'open')`,

	// A thread knows what was removed from it.
	`SELECT printf('thread %s says that event %d was removed, which is not so', th.thread_id, th.pruned_seq)
	FROM threads th WHERE th.pruned_seq <> 0
	  AND NOT EXISTS (
		SELECT 1 FROM pruned p JOIN conversations c ON c.id = p.conversation_id
		WHERE c.agent_id = th.agent_id AND p.last >= th.pruned_seq AND p.first <= th.pruned_seq)`,
}

// auditSchema is the first schema with an audit log, retentionSchema the first one in which something
// can have been removed.
const (
	auditSchema     = 2
	retentionSchema = 7
)

// unchained returns the first record of the audit log that does not follow the one before it. The
// signatures are for the gateway to check, which has the key.
func unchained(ctx context.Context, tx *sql.Tx) error {
	var last auth.AuditRecord
	var bad error
	_, err := query(ctx, tx, func(row scanner) (struct{}, error) {
		r, err := scanAudit(row)
		if next := r.Follow(last); err == nil && bad == nil && (next.Seq != r.Seq || !bytes.Equal(next.Hash, r.Hash)) {
			bad = fmt.Errorf("record %d of the audit log is not as it was written", last.Seq+1)
		}
		last = r
		return struct{}{}, err
	}, selectAudit+" ORDER BY seq")
	return errors.Join(bad, err)
}

// misnumbered finds conversations whose events are not numbered 1, 2, 3 … A number is that of an
// event, of an increment in a closed block, of an increment that no block covers yet, or of something
// that was removed. The text of a block is as long as its increments together.
func misnumbered(ctx context.Context, tx *sql.Tx, removals bool) (bad []error, err error) {
	loose := map[int64][]int64{} // numbers of increments in no block, by conversation
	_, err = query(ctx, tx, func(row scanner) (struct{}, error) {
		var id, seq int64
		err := row.Scan(&id, &seq)
		loose[id] = append(loose[id], seq)
		return struct{}{}, err
	}, "SELECT t.conversation_id, i.seq"+fromUncovered)
	if err != nil {
		return nil, err
	}
	text := `SELECT conversation_id, seq, last_seq, cuts, octet_length(text), FALSE FROM events`
	if removals {
		text += ` UNION ALL SELECT conversation_id, first, last, NULL, 0, TRUE FROM pruned`
	}
	rows, err := tx.QueryContext(ctx, text+` ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	n := &numbering{}
	for rows.Next() && len(bad) < most {
		var id int64
		var r conversation.Record
		var size int
		var removed bool
		if err := rows.Scan(&id, &r.Seq, &r.Last, &r.Cuts, &size, &removed); err != nil {
			return bad, err
		}
		if id != n.conversation {
			bad = append(bad, n.end()...)
			n = &numbering{conversation: id, next: 1, ahead: map[int64]bool{}}
			n.take(loose[id]...)
		}
		if r.Seq > n.next && n.err == nil {
			n.err = fmt.Errorf("%d is missing", n.next) // what is ahead of the next row begins behind it
		}
		if removed {
			n.skip(r.Seq, r.Last)
			continue
		}
		seqs, err := r.Numbers(size)
		if err != nil && n.err == nil {
			n.err = err
		}
		n.take(seqs...)
	}
	return append(bad, n.end()...), rows.Err()
}

// numbering counts the numbers of one conversation.
type numbering struct {
	conversation int64
	next         int64          // all numbers below are taken
	ahead        map[int64]bool // numbers beyond next that are taken
	err          error          // the first thing that is wrong
}

func (n *numbering) take(seqs ...int64) {
	if n.err != nil {
		return
	}
	for _, s := range seqs {
		if s < n.next || n.ahead[s] {
			n.err = fmt.Errorf("%d is there twice", s)
			return
		}
		n.ahead[s] = true
	}
	for n.ahead[n.next] {
		delete(n.ahead, n.next)
		n.next++
	}
}

// skip takes a run of numbers that were removed.
func (n *numbering) skip(first, last int64) {
	if n.err != nil {
		return
	}
	twice := n.next
	for s := range n.ahead {
		if s >= first && s <= last {
			twice = max(twice, s+1)
		}
	}
	if first < twice {
		n.err = fmt.Errorf("%d was removed and is there", twice-1)
		return
	}
	n.next = last + 1
	n.take()
}

// end returns what is wrong with the conversation.
func (n *numbering) end() []error {
	if n.err == nil && len(n.ahead) > 0 {
		n.err = fmt.Errorf("%d is missing", n.next)
	}
	if n.err == nil {
		return nil
	}
	return []error{fmt.Errorf("the events of conversation %d are not numbered without gaps: %w", n.conversation, n.err)}
}
