package store

import (
	"context"
	"database/sql"
	"errors"

	"coven-gateway/internal/builtins"
	"coven-gateway/internal/fault"
)

const selectTodo = `SELECT id, todo_id, agent_id, description, status, priority, notes, due_at, created_at, updated_at FROM tool_todos`

// todoColumns are where the columns of selectTodo go, the times aside.
func todoColumns(t *builtins.Todo, times *[3]int64) []any {
	return []any{&t.Seq, &t.ID, &t.AgentID, &t.Description, &t.Status, &t.Priority, &t.Notes, &times[0], &times[1], &times[2]}
}

func todoTimes(t *builtins.Todo, times [3]int64) {
	t.DueDate, t.CreatedAt, t.UpdatedAt = stamp(times[0]), stamp(times[1]), stamp(times[2])
}

// AddTodo implements builtins.TodoStore.
func (s Tools) AddTodo(ctx context.Context, t builtins.Todo, most int) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		var n int
		if err := tx.queryRow(`SELECT COUNT(*) FROM tool_todos WHERE agent_id = $1`, []any{t.AgentID}, &n); err != nil {
			return err
		}
		if n >= most {
			return fault.New(fault.Limited, "an agent can have %d todos; delete some", most)
		}
		_, err := tx.exec(`
			INSERT INTO tool_todos (todo_id, agent_id, description, status, priority, notes, due_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			t.ID, t.AgentID, t.Description, t.Status, t.Priority, t.Notes, micros(t.DueDate.Time), micros(t.CreatedAt.Time), micros(t.UpdatedAt.Time))
		return err
	})
}

// Todos implements builtins.TodoStore.
func (s Tools) Todos(ctx context.Context, q builtins.TodoQuery) ([]builtins.Todo, error) {
	var w where
	w.and("agent_id = $", q.AgentID)
	if q.Status != "" {
		w.and("status = $", q.Status)
	}
	if q.Priority != "" {
		w.and("priority = $", q.Priority)
	}
	return query(ctx, s.db.read, func(row scanner) (builtins.Todo, error) {
		var t builtins.Todo
		var times [3]int64
		err := row.Scan(todoColumns(&t, &times)...)
		todoTimes(&t, times)
		return t, err
	}, selectTodo+w.page(q.Page), w.args...)
}

// todo returns a todo inside a transaction.
func (tx *Tx) todo(id string) (t builtins.Todo, err error) {
	var times [3]int64
	err = tx.queryRow(selectTodo+" WHERE todo_id = $1", []any{id}, todoColumns(&t, &times)...)
	todoTimes(&t, times)
	if errors.Is(err, sql.ErrNoRows) {
		err = builtins.ErrNotFound
	}
	return t, err
}

// EditTodo implements builtins.TodoStore.
func (s Tools) EditTodo(ctx context.Context, id string, edit func(*builtins.Todo) error) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		t, err := tx.todo(id)
		if err != nil {
			return err
		}
		if err := edit(&t); err != nil {
			return err
		}
		_, err = tx.exec(`UPDATE tool_todos SET description = $1, status = $2, priority = $3, notes = $4, due_at = $5, updated_at = $6 WHERE id = $7`,
			t.Description, t.Status, t.Priority, t.Notes, micros(t.DueDate.Time), micros(t.UpdatedAt.Time), t.Seq)
		return err
	})
}

// DeleteTodo implements builtins.TodoStore.
func (s Tools) DeleteTodo(ctx context.Context, id string, allow func(builtins.Todo) error) error {
	return s.db.Do(ctx, func(tx *Tx) error {
		t, err := tx.todo(id)
		if err != nil {
			return err
		}
		if err := allow(t); err != nil {
			return err
		}
		_, err = tx.exec(`DELETE FROM tool_todos WHERE id = $1`, t.Seq)
		return err
	})
}
