package store

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"

	"coven-gateway/internal/builtins"
)

// Tools keeps what the built-in tools work on. It implements the stores of builtins.
type Tools struct{ db *DB }

var (
	_ builtins.BaseStore = Tools{}
	_ builtins.MailStore = Tools{}
	_ builtins.NoteStore = Tools{}
)

// Tools returns what the built-in tools work on.
func (db *DB) Tools() Tools { return Tools{db} }

func stamp(us int64) builtins.Time { return builtins.Time{Time: fromMicros(us)} }

// A where gathers the conditions of a statement and their arguments.
type where struct {
	text string
	args []any
}

// and adds a condition in which $ stands for the argument.
func (w *where) and(condition string, arg any) {
	w.args = append(w.args, arg)
	n := "$" + strconv.Itoa(len(w.args))
	if w.text == "" {
		w.text = " WHERE "
	} else {
		w.text += " AND "
	}
	for _, c := range condition {
		if c == '$' {
			w.text += n
		} else {
			w.text += string(c)
		}
	}
}

// page selects what is before a row, the newest first.
func (w *where) page(p builtins.Page) string {
	if p.Before == 0 {
		p.Before = math.MaxInt64
	}
	w.and("id < $", p.Before)
	w.args = append(w.args, p.Limit)
	return w.text + " ORDER BY id DESC LIMIT $" + strconv.Itoa(len(w.args))
}

// AddLogEntry implements builtins.LogStore.
func (s Tools) AddLogEntry(ctx context.Context, e builtins.LogEntry) error {
	if e.Tags == nil {
		e.Tags = []string{}
	}
	tags, err := json.Marshal(e.Tags)
	if err != nil {
		return err
	}
	return s.db.Do(ctx, func(tx *Tx) error {
		_, err := tx.exec(`INSERT INTO tool_log (entry_id, agent_id, message, tags, created_at) VALUES ($1, $2, $3, $4, $5)`,
			e.ID, e.AgentID, e.Message, string(tags), micros(e.CreatedAt.Time))
		return err
	})
}

// LogEntries implements builtins.LogStore.
func (s Tools) LogEntries(ctx context.Context, q builtins.LogQuery) ([]builtins.LogEntry, error) {
	var w where
	if q.AgentID != "" {
		w.and("agent_id = $", q.AgentID)
	}
	if q.Text != "" {
		w.and("instr(lower(message), lower($)) > 0", q.Text)
	}
	if !q.Since.IsZero() {
		w.and("created_at >= $", micros(q.Since.Time))
	}
	return query(ctx, s.db.read, func(row scanner) (builtins.LogEntry, error) {
		var e builtins.LogEntry
		var tags string
		var created int64
		err := row.Scan(&e.Seq, &e.ID, &e.AgentID, &e.Message, &tags, &created)
		e.CreatedAt = stamp(created)
		return e, errors.Join(err, json.Unmarshal([]byte(tags), &e.Tags))
	}, `SELECT id, entry_id, agent_id, message, tags, created_at FROM tool_log`+w.page(q.Page), w.args...)
}
