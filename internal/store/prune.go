package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// Audit implements conversation.Tx.
func (tx logTx) Audit(r auth.AuditRecord) error {
	return tx.audit(identityTx{identityReader{context.Background(), tx.w.conn}, tx.Tx}, r)
}

// Doom implements conversation.Tx.
func (tx logTx) Doom(d conversation.Deletion) error {
	var id int64
	var open, shared bool
	err := tx.queryRow(`
		SELECT th.id,
			EXISTS (SELECT 1 FROM turns t WHERE t.thread_id = th.id AND t.state = 'open'),
			$1 <> '' AND EXISTS (SELECT 1 FROM turns t WHERE t.thread_id = th.id AND t.principal_id <> $1)
		FROM threads th WHERE th.thread_id = $2 AND th.deleted_at = 0`, []any{d.OnlyOf, d.Thread}, &id, &open, &shared)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fault.New(fault.NotFound, "thread not found")
	case err != nil:
		return err
	case shared:
		return fault.New(fault.Forbidden, "others have taken part in this thread; only an administrator may delete it")
	case open:
		return fault.New(fault.Conflict, "a turn of the thread is open; stop it first")
	}
	if _, err := tx.exec(`UPDATE threads SET deleted_at = $1 WHERE id = $2`, micros(time.Now()), id); err != nil {
		return err
	}
	return tx.Audit(d.Record)
}

// Prune implements conversation.Tx.
func (tx logTx) Prune(turnID string, most int) (conversation.Removal, error) {
	var turn, conv, thread int64
	r := conversation.Removal{TurnID: turnID}
	var state conversation.TurnState
	err := tx.queryRow(`
		SELECT t.id, t.conversation_id, t.thread_id, th.thread_id, t.principal_id, t.state, t.last_seq
		FROM turns t JOIN threads th ON th.id = t.thread_id WHERE t.request_id = $1`,
		[]any{turnID}, &turn, &conv, &thread, &r.ThreadID, &r.PrincipalID, &state, &r.Last)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, fault.New(fault.NotFound, "no turn %q", turnID)
	case err != nil:
		return r, err
	case state == conversation.Open:
		return r, fault.New(fault.Conflict, "turn %q is open", turnID)
	}
	ranges, through, err := tx.oldest(turn, most, &r)
	if err != nil {
		return r, err
	}
	r.Ranges = ranges
	for _, n := range ranges {
		if err := tx.addPruned(conv, n); err != nil {
			return r, err
		}
	}
	for _, text := range []string{
		`INSERT INTO pruned_usage (conversation_id, thread_id, principal_id, at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens)
			SELECT u.conversation_id, u.thread_id, t.principal_id, u.at, u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.thinking_tokens
			FROM usage u JOIN turns t ON t.id = u.turn_id WHERE u.turn_id = $1 AND u.seq <= $2 ORDER BY u.id`,
		`DELETE FROM usage WHERE turn_id = $1 AND seq <= $2`,
		`INSERT INTO orphans (sha256) SELECT DISTINCT sha256 FROM files WHERE turn_id = $1 AND seq <= $2 AND expired_at = 0`,
		`DELETE FROM files WHERE turn_id = $1 AND seq <= $2`,
		`DELETE FROM events WHERE turn_id = $1 AND seq <= $2`,
	} {
		if _, err := tx.exec(text, turn, through); err != nil {
			return r, err
		}
	}
	// Of blocks that were closed. Besides, ids are given again: they must not become another turn's.
	if len(ranges) > 0 {
		if _, err := tx.exec(`DELETE FROM increments WHERE turn_id = $1 AND seq <= $2`, turn, ranges[len(ranges)-1].Last); err != nil {
			return r, err
		}
	}
	if r.Gone {
		err = tx.dropTurn(turn, thread, &r)
	} else {
		_, err = tx.exec(`UPDATE turns SET pruned = 1 WHERE id = $1`, turn)
	}
	if err == nil && !r.ThreadGone && len(ranges) > 0 {
		_, err = tx.exec(`UPDATE threads SET pruned_seq = MAX(pruned_seq, $1) WHERE id = $2`, ranges[len(ranges)-1].Last, thread)
	}
	return r, err
}

// oldest counts the oldest rows of a turn until they cost most, and returns their numbers and the number
// of the last row. It sets Gone when there are no others.
func (tx logTx) oldest(turn int64, most int, r *conversation.Removal) (ranges []conversation.Range, through int64, err error) {
	stmt, err := tx.stmt(`
		SELECT seq, last_seq, cuts, octet_length(text), octet_length(detail) FROM events WHERE turn_id = $1 ORDER BY seq LIMIT $2`)
	if err != nil {
		return nil, 0, err
	}
	rows, err := stmt.QueryContext(context.Background(), turn, most+1)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		if r.Cost >= most {
			return ranges, through, nil
		}
		var rec conversation.Record
		var size, detail int
		if err := rows.Scan(&rec.Seq, &rec.Last, &rec.Cuts, &size, &detail); err != nil {
			return nil, 0, err
		}
		seqs, err := rec.Numbers(size)
		if err != nil {
			return nil, 0, fault.Wrap(err, fault.Internal, "turn %q is damaged", r.TurnID)
		}
		before := max(len(ranges), 1)
		for _, n := range seqs {
			if k := len(ranges) - 1; k >= 0 && ranges[k].Last == n-1 {
				ranges[k].Last = n
				continue
			}
			ranges = append(ranges, conversation.Range{First: n, Last: n})
		}
		r.Rows++
		r.Events += int64(len(seqs))
		// The numbers of a block that other turns have written into are as many ranges.
		r.Cost += 1 + (size+detail)/conversation.PruneUnit + len(ranges) - before
		r.Bytes += int64(size + detail)
		through = rec.Seq
	}
	r.Gone = true
	return ranges, through, rows.Err()
}

// addPruned notes that numbers stand for nothing any more. Ranges that touch become one.
func (tx logTx) addPruned(conv int64, n conversation.Range) error {
	var before, behind conversation.Range
	err := tx.queryRow(`SELECT first, last FROM pruned WHERE conversation_id = $1 AND last = $2`, []any{conv, n.First - 1}, &before.First, &before.Last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	err = tx.queryRow(`SELECT first, last FROM pruned WHERE conversation_id = $1 AND last > $2 ORDER BY last LIMIT 1`, []any{conv, n.Last}, &behind.First, &behind.Last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if before.First > 0 {
		n.First = before.First
		if _, err := tx.exec(`DELETE FROM pruned WHERE conversation_id = $1 AND last = $2`, conv, before.Last); err != nil {
			return err
		}
	}
	if behind.First == n.Last+1 {
		_, err = tx.exec(`UPDATE pruned SET first = $1 WHERE conversation_id = $2 AND last = $3`, n.First, conv, behind.Last)
		return err
	}
	_, err = tx.exec(`INSERT INTO pruned (conversation_id, first, last) VALUES ($1, $2, $3)`, conv, n.First, n.Last)
	return err
}

// dropTurn removes a turn without events, and its thread when that was its last turn.
func (tx logTx) dropTurn(turn, thread int64, r *conversation.Removal) error {
	if _, err := tx.exec(`DELETE FROM turns WHERE id = $1`, turn); err != nil {
		return err
	}
	var newest sql.NullInt64
	if err := tx.queryRow(`SELECT MAX(id) FROM turns WHERE thread_id = $1`, []any{thread}, &newest); err != nil {
		return err
	}
	if newest.Valid {
		_, err := tx.exec(`UPDATE threads SET activity = $1 WHERE id = $2`, newest.Int64, thread)
		return err
	}
	r.ThreadGone = true
	_, err := tx.exec(`DELETE FROM threads WHERE id = $1`, thread)
	return err
}

// TurnsOf implements conversation.Log.
func (l Log) TurnsOf(ctx context.Context, threadID string, limit int) ([]string, error) {
	return query(ctx, l.db.read, scanString, `
		SELECT request_id FROM turns WHERE thread_id = (SELECT id FROM threads WHERE thread_id = $1) ORDER BY id LIMIT $2`, threadID, limit)
}

// Doomed implements conversation.Log.
func (l Log) Doomed(ctx context.Context) ([]conversation.Thread, error) {
	return query(ctx, l.db.read, scanThread, selectThread+" WHERE th.deleted_at <> 0")
}

// Pruned implements conversation.Log.
func (l Log) Pruned(ctx context.Context, conv, seq int64) (pruned bool, err error) {
	err = l.db.read.QueryRowContext(ctx, `
		SELECT EXISTS (SELECT 1 FROM pruned WHERE conversation_id = $1 AND last >= $2 AND first <= $2)`, conv, seq).Scan(&pruned)
	return pruned, err
}

// told returns the ranges after q.After and up to q.Until that a reader is told of.
func (l Log) told(ctx context.Context, tx querier, q conversation.Query) ([]conversation.Range, error) {
	until := q.Until
	if q.Thread != "" {
		var newest int64
		err := tx.QueryRowContext(ctx, `SELECT pruned_seq FROM threads WHERE thread_id = $1 AND deleted_at = 0`, q.Thread).Scan(&newest)
		if err == nil {
			until = min(until, newest)
		} else if !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
	}
	return query(ctx, tx, scanRange, `
		SELECT MAX(first, $2 + 1), MIN(last, $3) FROM pruned
		WHERE conversation_id = $1 AND last > $2 AND first <= $3 AND $2 < $3 ORDER BY last LIMIT $4`,
		q.Conversation, q.After, until, q.Limit+1)
}

func scanRange(row scanner) (conversation.Range, error) {
	var r conversation.Range
	err := row.Scan(&r.First, &r.Last)
	return r, err
}

// Outdated implements conversation.Log.
func (l Log) Outdated(ctx context.Context, before time.Time, keep int64, limit int) ([]conversation.OutdatedTurn, error) {
	const ended = ` FROM turns t WHERE t.state <> 'open'`
	var excess int64
	if keep > 0 {
		var total int64
		if err := l.db.read.QueryRowContext(ctx, `SELECT COALESCE(SUM(t.size), 0)`+ended).Scan(&total); err != nil {
			return nil, err
		}
		excess = total - keep
	}
	rows, err := l.db.read.QueryContext(ctx, `
		SELECT t.request_id, (SELECT agent_id FROM conversations c WHERE c.id = t.conversation_id), t.ended_at, t.size`+ended+`
		ORDER BY t.ended_at LIMIT $1`, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var turns []conversation.OutdatedTurn
	for rows.Next() {
		var t conversation.OutdatedTurn
		var at, size int64
		if err := rows.Scan(&t.ID, &t.AgentID, &at, &size); err != nil {
			return nil, err
		}
		if at >= micros(before) && excess <= 0 {
			break
		}
		excess -= size
		turns = append(turns, t)
	}
	return turns, rows.Err()
}

// HasRun implements conversation.Log.
func (l Log) HasRun(ctx context.Context) (some bool, err error) {
	err = l.db.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM retention_run)`).Scan(&some)
	return some, err
}

// AddRun implements conversation.Tx.
func (tx logTx) AddRun(r conversation.Run) error {
	_, err := tx.exec(`
		INSERT INTO retention_run (id, began_at, turns, events, bytes, threads, files) VALUES (1, $1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO UPDATE SET turns = turns + excluded.turns, events = events + excluded.events,
			bytes = bytes + excluded.bytes, threads = threads + excluded.threads, files = files + excluded.files`,
		micros(r.BeganAt), r.Turns, r.Events, r.Bytes, r.Threads, r.Files)
	return err
}

// TakeRun implements conversation.Tx.
func (tx logTx) TakeRun() (conversation.Run, error) {
	var r conversation.Run
	var at int64
	err := tx.queryRow(`DELETE FROM retention_run RETURNING began_at, turns, events, bytes, threads, files`, nil,
		&at, &r.Turns, &r.Events, &r.Bytes, &r.Threads, &r.Files)
	if errors.Is(err, sql.ErrNoRows) {
		return r, nil
	}
	r.BeganAt = fromMicros(at)
	return r, err
}
