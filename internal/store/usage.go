package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"coven-gateway/internal/conversation"
)

// UsageReports implements conversation.Log.
func (l Log) UsageReports(ctx context.Context, threadID, principalID string, after int64, limit int) ([]conversation.UsageReport, error) {
	return query(ctx, l.db.read, scanUsage, `
		SELECT u.id, t.request_id, c.agent_id, u.seq, u.at, u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.thinking_tokens
		FROM usage u
		JOIN turns t ON t.id = u.turn_id
		JOIN conversations c ON c.id = u.conversation_id
		WHERE u.thread_id = (SELECT id FROM threads WHERE thread_id = $1) AND u.id > $2
		  AND ($3 = '' OR t.principal_id = $3)
		ORDER BY u.id LIMIT $4`, threadID, after, principalID, limit)
}

func scanUsage(row scanner) (conversation.UsageReport, error) {
	var u conversation.UsageReport
	var at int64
	err := row.Scan(&u.ID, &u.TurnID, &u.AgentID, &u.Seq, &at, &u.Input, &u.Output, &u.CacheRead, &u.CacheWrite, &u.Thinking)
	u.At = fromMicros(at)
	return u, err
}

// usageRows are the usage reports that a filter selects, those of removed turns too.
const usageRows = `
	SELECT conversation_id, (SELECT principal_id FROM turns WHERE turns.id = turn_id) AS principal_id, at,
		input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens FROM usage
	WHERE at >= $1 AND at < $2
	  AND ($3 = '' OR conversation_id = (SELECT id FROM conversations WHERE agent_id = $3))
	  AND ($4 = '' OR thread_id = (SELECT id FROM threads WHERE thread_id = $4))
	  AND ($5 = '' OR turn_id IN (SELECT id FROM turns WHERE principal_id = $5))
	UNION ALL
	SELECT conversation_id, principal_id, at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens FROM pruned_usage
	WHERE at >= $1 AND at < $2
	  AND ($3 = '' OR conversation_id = (SELECT id FROM conversations WHERE agent_id = $3))
	  AND ($4 = '' OR thread_id = (SELECT id FROM threads WHERE thread_id = $4))
	  AND ($5 = '' OR principal_id = $5)`

const usageSums = `COUNT(*), COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0), COALESCE(SUM(cache_read_tokens), 0),
	COALESCE(SUM(cache_write_tokens), 0), COALESCE(SUM(thinking_tokens), 0)`

// usageFilter are the arguments of usageRows.
func usageFilter(f conversation.UsageFilter) []any {
	until := int64(math.MaxInt64)
	if !f.Until.IsZero() {
		until = micros(f.Until)
	}
	return []any{micros(f.Since), until, f.AgentID, f.ThreadID, f.PrincipalID}
}

// UsageTotal implements conversation.Log.
func (l Log) UsageTotal(ctx context.Context, f conversation.UsageFilter) (conversation.UsageTotal, error) {
	var t conversation.UsageTotal
	err := l.db.read.QueryRowContext(ctx, `SELECT `+usageSums+` FROM (`+usageRows+`)`, usageFilter(f)...).
		Scan(&t.Reports, &t.Input, &t.Output, &t.CacheRead, &t.CacheWrite, &t.Thinking)
	return t, err
}

// usageKeys are the keys of groups in SQL.
var usageKeys = map[conversation.UsageKey]string{
	conversation.ByAgent:     `(SELECT agent_id FROM conversations WHERE conversations.id = conversation_id)`,
	conversation.ByPrincipal: `principal_id`,
	conversation.ByDay:       `date(at / 1000000, 'unixepoch')`,
}

// UsageGroups implements conversation.Log.
func (l Log) UsageGroups(ctx context.Context, f conversation.UsageFilter, by conversation.UsageKey, limit int) ([]conversation.UsageGroup, error) {
	return query(ctx, l.db.read, func(row scanner) (g conversation.UsageGroup, err error) {
		err = row.Scan(&g.Key, &g.Reports, &g.Input, &g.Output, &g.CacheRead, &g.CacheWrite, &g.Thinking)
		return g, err
	}, `SELECT COALESCE(`+usageKeys[by]+`, '') AS key, `+usageSums+` FROM (`+usageRows+`) GROUP BY key ORDER BY key LIMIT $6`, append(usageFilter(f), limit)...)
}

// Activity implements conversation.Log.
func (l Log) Activity(ctx context.Context, since time.Time, span time.Duration, n int) ([]conversation.Activity, error) {
	from, step := micros(since), span.Microseconds()
	out := make([]conversation.Activity, n)
	for i := range out {
		out[i].At = since.Add(time.Duration(i) * span)
	}
	turns := func(rows *sql.Rows) error {
		var i int
		var a conversation.Activity
		var mean, worst int64
		if err := rows.Scan(&i, &a.Turns, &a.Failed, &a.Cancelled, &mean, &worst); err != nil {
			return err
		}
		b := &out[i]
		b.Turns, b.Failed, b.Cancelled = a.Turns, a.Failed, a.Cancelled
		b.FirstEventMean, b.FirstEventWorst = time.Duration(mean)*time.Microsecond, time.Duration(worst)*time.Microsecond
		return nil
	}
	err := l.each(ctx, turns, `
		SELECT (started_at - $1) / $2, COUNT(*), SUM(state IN ('failed', 'interrupted', 'expired')), SUM(state = 'cancelled'),
			CAST(COALESCE(AVG(CASE WHEN first_event_at > 0 THEN first_event_at - started_at END), 0) AS INTEGER),
			MAX(CASE WHEN first_event_at > 0 THEN first_event_at - started_at ELSE 0 END)
		FROM turns WHERE started_at >= $1 AND started_at < $1 + $2 * $3 GROUP BY 1`, from, step, n)
	if err != nil {
		return nil, err
	}
	usage := func(rows *sql.Rows) error {
		var i int
		var u conversation.Usage
		if err := rows.Scan(&i, &u.Input, &u.Output, &u.CacheRead, &u.CacheWrite, &u.Thinking); err != nil {
			return err
		}
		out[i].Usage = u
		return nil
	}
	return out, l.each(ctx, usage, `
		SELECT (at - $1) / $2, SUM(input_tokens), SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens), SUM(thinking_tokens) FROM (
			SELECT at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens FROM usage WHERE at >= $1 AND at < $1 + $2 * $3
			UNION ALL
			SELECT at, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, thinking_tokens FROM pruned_usage WHERE at >= $1 AND at < $1 + $2 * $3)
		GROUP BY 1`, from, step, n)
}

// each has f read every row of a query.
func (l Log) each(ctx context.Context, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := l.db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
