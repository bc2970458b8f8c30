package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// maxPageBytes bounds the text of one page of events. A single larger event is a page of its own.
const maxPageBytes = 1 << 20

// Log is the durable record of all conversations.
type Log struct {
	db    *DB
	audit func(auth.Tx, auth.AuditRecord) error
}

var _ conversation.Log = Log{}

// Log returns the conversations in the database; audit appends to the audit log.
func (db *DB) Log(audit func(auth.Tx, auth.AuditRecord) error) Log { return Log{db, audit} }

// Commit implements conversation.Log.
func (l Log) Commit(ctx context.Context, write func(conversation.Tx) error) error {
	return l.db.Do(ctx, func(tx *Tx) error { return write(logTx{tx, l.audit}) })
}

// Conversation implements conversation.Log. Increments of open blocks do not count: while there
// are any the conversation is in memory.
func (l Log) Conversation(ctx context.Context, agentID string) (conversation.Conversation, error) {
	var c conversation.Conversation
	err := l.db.read.QueryRowContext(ctx, selectConversation, agentID).Scan(&c.ID, &c.UID, &c.Head)
	if errors.Is(err, sql.ErrNoRows) {
		return conversation.Conversation{}, nil
	}
	return c, err
}

// At rest the newest event of a conversation stands for itself, is in a block that was closed for a turn that
// goes on after a restart, or was one that is removed by now: its number is not given again. A block that
// reaches behind the newest row is not longer than blocks are.
var selectConversation = fmt.Sprintf(`
	SELECT c.id, c.uid, MAX(
		COALESCE((SELECT MAX(e.last_seq) FROM events e WHERE e.conversation_id = c.id
			AND e.seq > (SELECT MAX(n.seq) FROM events n WHERE n.conversation_id = c.id) - %d), 0),
		COALESCE((SELECT MAX(p.last) FROM pruned p WHERE p.conversation_id = c.id), 0))
	FROM conversations c WHERE c.agent_id = $1`, conversation.MaxBlockSpan)

// Newest implements conversation.Log.
func (l Log) Newest(ctx context.Context, id int64) (int64, error) {
	var n int64
	err := l.db.read.QueryRowContext(ctx, `
		SELECT MAX(
			COALESCE((SELECT MAX(last_seq) FROM events WHERE conversation_id = $1), 0),
			COALESCE((SELECT MAX(last) FROM pruned WHERE conversation_id = $1), 0),
			COALESCE((SELECT MAX(i.seq) FROM increments i JOIN turns t ON t.id = i.turn_id WHERE t.conversation_id = $1), 0))`, id).Scan(&n)
	return n, err
}

// Records implements conversation.Log.
func (l Log) Records(ctx context.Context, q conversation.Query) (conversation.Page, error) {
	if !q.Removed {
		return records(ctx, l.db.read, q)
	}
	// Both have to be as they were at one moment: what is removed meanwhile is in one of them.
	tx, err := l.db.read.BeginTx(ctx, nil)
	if err != nil {
		return conversation.Page{}, err
	}
	defer tx.Rollback()
	page, err := records(ctx, tx, q)
	if err != nil {
		return conversation.Page{}, err
	}
	q.Until = page.Complete
	if page.Removed, err = l.told(ctx, tx, q); err != nil {
		return conversation.Page{}, err
	}
	if n := len(page.Removed); n > q.Limit {
		page.Complete = page.Removed[n-1].First - 1
		page.More = true
		page.Removed = page.Removed[:n-1]
	}
	return page, nil
}

func records(ctx context.Context, db querier, q conversation.Query) (conversation.Page, error) {
	query, args := recordsQuery(q)
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return conversation.Page{}, err
	}
	defer rows.Close()
	page := conversation.Page{Complete: q.Until}
	if q.Backward {
		page.Complete = q.After
	}
	size := 0
	for rows.Next() {
		r := conversation.Record{Ref: conversation.Ref{Conversation: q.Conversation}}
		var at int64
		if err := rows.Scan(&r.Ref.Turn, &r.Ref.Thread, &r.TurnID, &r.ThreadID, &r.PrincipalID, &r.Seq, &r.Last, &at, &r.Kind, &r.Text, &r.Detail, &r.Cuts); err != nil {
			return conversation.Page{}, err
		}
		if len(page.Records) == q.Limit || size > maxPageBytes {
			page.More = true
			page.Complete = r.Seq - 1
			if q.Backward {
				page.Complete = r.Seq + 1
			}
			break
		}
		r.At = fromMicros(at)
		size += len(r.Text) + len(r.Detail)
		page.Records = append(page.Records, r)
	}
	return page, rows.Err()
}

// recordsQuery makes the statement for a query. A block that begins before the position may reach
// beyond it.
func recordsQuery(q conversation.Query) (string, []any) {
	var b strings.Builder
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	// CROSS JOIN keeps the order of the tables: the events lead.
	b.WriteString(`
		SELECT e.turn_id, e.thread_id, t.request_id, th.thread_id, t.principal_id, e.seq, e.last_seq, e.at, e.kind, e.text, e.detail, e.cuts
		FROM events e CROSS JOIN turns t CROSS JOIN threads th
		WHERE t.id = e.turn_id AND th.id = e.thread_id`)
	if q.Thread != "" {
		b.WriteString(" AND e.thread_id = (SELECT id FROM threads WHERE thread_id = " + arg(q.Thread) + ")")
		b.WriteString(" AND +e.conversation_id = " + arg(q.Conversation)) // by the thread's index, please
	} else {
		b.WriteString(" AND e.conversation_id = " + arg(q.Conversation))
	}
	b.WriteString(" AND e.seq > " + arg(q.After-conversation.MaxBlockSpan))
	b.WriteString(" AND e.seq <= " + arg(q.Until))
	b.WriteString(" AND e.last_seq > " + arg(q.After))
	if q.Turn != "" {
		b.WriteString(" AND e.turn_id = (SELECT id FROM turns WHERE request_id = " + arg(q.Turn) + ")")
	}
	if q.Principal != "" {
		b.WriteString(" AND t.principal_id = " + arg(q.Principal))
	}
	if !q.Since.IsZero() {
		b.WriteString(" AND e.at >= " + arg(micros(q.Since)))
	}
	if !q.UntilTime.IsZero() {
		b.WriteString(" AND e.at <= " + arg(micros(q.UntilTime)))
	}
	if q.Only != nil {
		kinds := make([]string, len(q.Only))
		for i, k := range q.Only {
			kinds[i] = arg(int(k))
		}
		b.WriteString(" AND e.kind IN (" + strings.Join(kinds, ", ") + ")")
	}
	b.WriteString(" ORDER BY e.seq")
	if q.Backward {
		b.WriteString(" DESC")
	}
	b.WriteString(" LIMIT " + arg(q.Limit+1))
	return b.String(), args
}

// Answer implements conversation.Log.
func (l Log) Answer(ctx context.Context, turnID string) (string, error) {
	rows, err := l.db.read.QueryContext(ctx, `
		SELECT COALESCE(e.text, '')
		FROM turns t LEFT JOIN events e ON e.turn_id = t.id AND e.kind = $2
		WHERE t.request_id = $1 AND t.pruned = 0
		ORDER BY e.seq`, turnID, int(conversation.KindText))
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b strings.Builder
	there := false
	for rows.Next() {
		there = true
		var text string
		if err := rows.Scan(&text); err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if !there {
		return "", fault.New(fault.NotFound, "no turn %q", turnID)
	}
	return b.String(), nil
}

// Unfinished implements conversation.Log.
func (l Log) Unfinished(ctx context.Context) (conversation.Unfinished, error) {
	u := conversation.Unfinished{Pieces: make(map[int64][]conversation.Piece)}
	rows, err := l.db.read.QueryContext(ctx, selectTurn+" WHERE t.state = 'open' ORDER BY t.id")
	if err != nil {
		return u, err
	}
	defer rows.Close()
	for rows.Next() {
		t, ref, err := scanTurn(rows)
		if err != nil {
			return u, err
		}
		u.Turns = append(u.Turns, conversation.UnfinishedTurn{Turn: t, Ref: ref})
	}
	if err := rows.Err(); err != nil {
		return u, err
	}
	for i := range u.Turns {
		t := &u.Turns[i]
		err := l.db.read.QueryRowContext(ctx, `SELECT resumable <> 0, received, crashes FROM turns WHERE id = $1`, t.Ref.Turn).Scan(&t.Resumable, &t.Received, &t.Found)
		if err != nil {
			return u, err
		}
	}
	pieces, err := l.db.read.QueryContext(ctx, selectUncovered)
	if err != nil {
		return u, err
	}
	defer pieces.Close()
	for pieces.Next() {
		var turn, at int64
		var p conversation.Piece
		if err := pieces.Scan(&turn, &p.Seq, &p.Kind, &p.Text, &at); err != nil {
			return u, err
		}
		p.At = fromMicros(at)
		u.Pieces[turn] = append(u.Pieces[turn], p)
	}
	return u, pieces.Err()
}

// What has another type than it should must not keep all turns from being read; whoever builds blocks of
// the increments sees that it makes no sense.
var selectUncovered = "SELECT i.turn_id, CAST(i.seq AS INTEGER), CAST(i.kind AS INTEGER), CAST(i.text AS TEXT), CAST(i.at AS INTEGER)" +
	fromUncovered + " ORDER BY i.turn_id, i.seq"

// The blocks of a turn do not overlap, so an increment is covered when a block of its turn reaches
// over it.
var fromUncovered = fmt.Sprintf(`
	FROM increments i JOIN turns t ON t.id = i.turn_id
	WHERE NOT EXISTS (
		SELECT 1 FROM events e
		WHERE e.conversation_id = t.conversation_id AND e.seq > i.seq - %d AND e.seq <= i.seq
		  AND e.last_seq >= i.seq AND e.turn_id = i.turn_id)`, conversation.MaxBlockSpan)

// logTx implements conversation.Tx.
type logTx struct {
	*Tx
	audit func(auth.Tx, auth.AuditRecord) error
}

var _ conversation.Tx = logTx{}

func (tx logTx) Conversation(agentID string) (conversation.Conversation, error) {
	_, err := tx.exec(`INSERT INTO conversations (agent_id, uid, created_at) VALUES ($1, $2, $3) ON CONFLICT (agent_id) DO NOTHING`,
		agentID, newUID(), micros(time.Now()))
	if err != nil {
		return conversation.Conversation{}, err
	}
	var c conversation.Conversation
	err = tx.queryRow(selectConversation, []any{agentID}, &c.ID, &c.UID, &c.Head)
	return c, err
}

// newUID returns twelve random hex digits.
func newUID() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[20:] }

func (tx logTx) Begin(n conversation.NewTurn) (conversation.Turn, conversation.Ref, bool, error) {
	var none conversation.Ref
	if n.Key != "" {
		t, digest, err := turnByKey(func(query string, args []any, dest ...any) error { return tx.queryRow(query, args, dest...) }, n.PrincipalID, n.Key)
		if err == nil {
			return t, none, false, conversation.SameRequest(digest, n.Digest)
		}
		if fault.CodeOf(err) != fault.NotFound {
			return conversation.Turn{}, none, false, err
		}
	}
	ref := conversation.Ref{Conversation: n.Conversation}
	var owner string
	var doomed bool
	err := tx.queryRow(`SELECT id, agent_id, deleted_at <> 0 FROM threads WHERE thread_id = $1`, []any{n.ThreadID}, &ref.Thread, &owner, &doomed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		ref.Thread, err = tx.insertThread(n)
	case err == nil && doomed:
		err = fault.New(fault.Conflict, "thread %q is being deleted", n.ThreadID)
	case err == nil && owner != n.AgentID:
		err = fault.New(fault.Conflict, "thread %q belongs to agent %q", n.ThreadID, owner)
	case err == nil && !n.Oversees:
		err = tx.mayJoin(n, ref.Thread)
	}
	if err != nil {
		return conversation.Turn{}, none, false, err
	}
	res, err := tx.exec(`
		INSERT INTO turns (request_id, conversation_id, thread_id, principal_id, sender, idempotency_key, digest,
			state, cause, first_seq, last_seq, started_at, waiting_until, first_event_at, ended_at, resumable)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', $9, 0, $10, $11, 0, 0, $12)`,
		n.ID, n.Conversation, ref.Thread, n.PrincipalID, n.Sender, sql.NullString{String: n.Key, Valid: n.Key != ""}, n.Digest,
		string(conversation.Open), n.First, micros(n.StartedAt), micros(n.WaitingUntil), n.Resumable)
	if err != nil {
		return conversation.Turn{}, none, false, err
	}
	if ref.Turn, err = res.LastInsertId(); err != nil {
		return conversation.Turn{}, none, false, err
	}
	_, err = tx.exec(`UPDATE threads SET updated_at = $1, activity = $2 WHERE id = $3`, micros(n.StartedAt), ref.Turn, ref.Thread)
	return n.Turn, ref, true, err
}

// mayJoin refuses a thread to whoever has not begun a turn in it.
func (tx logTx) mayJoin(n conversation.NewTurn, thread int64) error {
	var took bool
	err := tx.queryRow(`SELECT EXISTS (SELECT 1 FROM turns WHERE principal_id = $1 AND thread_id = $2)`, []any{n.PrincipalID, thread}, &took)
	if err == nil && !took {
		err = fault.New(fault.Forbidden, "thread %q belongs to somebody else", n.ThreadID)
	}
	return err
}

func (tx logTx) insertThread(n conversation.NewTurn) (int64, error) {
	res, err := tx.exec(`
		INSERT INTO threads (thread_id, agent_id, frontend, external_id, title, created_at, updated_at, activity)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0)
		ON CONFLICT (frontend, external_id) DO NOTHING`,
		n.ThreadID, n.AgentID, n.Frontend, n.ExternalID, n.Title, micros(n.StartedAt), micros(n.StartedAt))
	if err != nil {
		return 0, err
	}
	if rows, err := res.RowsAffected(); err != nil || rows == 0 {
		return 0, errors.Join(err, fault.New(fault.Conflict, "the channel %q of %s has another thread", n.ExternalID, n.Frontend))
	}
	return res.LastInsertId()
}

func (tx logTx) Increment(ref conversation.Ref, p conversation.Piece) (int64, error) {
	res, err := tx.exec(`INSERT INTO increments (turn_id, seq, kind, text, at) VALUES ($1, $2, $3, $4, $5)`,
		ref.Turn, p.Seq, int(p.Kind), p.Text, micros(p.At))
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func (tx logTx) Probe() error { return tx.probe() }

func (tx logTx) Trim(below int64) error {
	_, err := tx.exec(`DELETE FROM increments WHERE id < $1`, below)
	return err
}

func (tx logTx) Append(ref conversation.Ref, r conversation.Record) error {
	var cuts any
	if r.Cuts != nil {
		cuts = r.Cuts
	}
	_, err := tx.exec(`
		INSERT INTO events (conversation_id, thread_id, turn_id, seq, last_seq, at, kind, text, detail, cuts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		ref.Conversation, ref.Thread, ref.Turn, r.Seq, r.Last, micros(r.At), int(r.Kind), r.Text, r.Detail, cuts)
	return err
}

func (tx logTx) End(ref conversation.Ref, e conversation.EndedTurn) error {
	res, err := tx.exec(`
		UPDATE turns SET state = $1, cause = $2, last_seq = $3, first_event_at = $4, ended_at = $5,
			size = (SELECT COALESCE(SUM(octet_length(text) + octet_length(detail)), 0) FROM events WHERE turn_id = $6)
		WHERE id = $6 AND state = 'open'`,
		string(e.State), e.Cause, e.Last, micros(e.FirstEventAt), micros(e.At), ref.Turn)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fmt.Errorf("turn %d has ended before", ref.Turn))
	}
	_, err = tx.exec(`UPDATE threads SET updated_at = $1 WHERE id = $2`, micros(e.At), ref.Thread)
	return err
}

func (tx logTx) Wait(ref conversation.Ref, until time.Time) error {
	res, err := tx.exec(`UPDATE turns SET waiting_until = $1 WHERE id = $2 AND state = 'open'`, micros(until), ref.Turn)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, fmt.Errorf("turn %d has ended before", ref.Turn))
	}
	return nil
}

func (tx logTx) Received(ref conversation.Ref, number uint64) error {
	_, err := tx.exec(`UPDATE turns SET resumable = 1, received = MAX(received, $1), crashes = 0 WHERE id = $2`, int64(number), ref.Turn)
	return err
}

func (tx logTx) Found(ref conversation.Ref) error {
	_, err := tx.exec(`UPDATE turns SET crashes = crashes + 1 WHERE id = $1`, ref.Turn)
	return err
}

func (tx logTx) Calm() error {
	_, err := tx.exec(`UPDATE turns SET crashes = 0 WHERE state = 'open' AND crashes > 0`)
	return err
}

func (tx logTx) AddUsage(ref conversation.Ref, seq int64, at time.Time, u conversation.Usage) error {
	_, err := tx.exec(`
		INSERT INTO usage (conversation_id, thread_id, turn_id, seq, at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		ref.Conversation, ref.Thread, ref.Turn, seq, micros(at), u.Input, u.Output, u.CacheRead, u.CacheWrite, u.Thinking)
	return err
}

func (tx logTx) AddFile(ref conversation.Ref, seq int64, at time.Time, f conversation.File) error {
	_, err := tx.exec(`
		INSERT INTO files (file_id, conversation_id, thread_id, turn_id, seq, at, name, type, size, sha256)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		f.ID, ref.Conversation, ref.Thread, ref.Turn, seq, micros(at), f.Name, f.Type, f.Size, f.SHA256)
	return err
}
