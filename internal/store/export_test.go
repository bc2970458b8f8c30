package store

import (
	"context"
	"errors"
	"path/filepath"
)

// Queued returns how many operations wait for the writer.
func (db *DB) Queued() int { return len(db.writer.ops) }

// Exec returns an operation that runs a statement.
func Exec(query string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.exec(query)
		return err
	}
}

// Interfere has f run before each COMMIT, as if the disk did it; nil ends that.
func (db *DB) Interfere(f func() error) {
	if f == nil {
		db.writer.interfere.Store(nil)
		return
	}
	db.writer.interfere.Store(&f)
}

// Probe tries whether something can be stored.
func (db *DB) Probe() error { return db.Do(context.Background(), (*Tx).probe) }

// CreateConversation returns an operation that creates a conversation and then does more.
func CreateConversation(agentID string, more func() error) func(*Tx) error {
	return func(tx *Tx) error {
		if _, err := (logTx{Tx: tx}).Conversation(agentID); err != nil {
			return err
		}
		return more()
	}
}

// Pragmas returns settings of the writing connection and of one that reads.
func (db *DB) Pragmas(names ...string) (write, read map[string]string, err error) {
	write, read = map[string]string{}, map[string]string{}
	err = db.Do(context.Background(), func(tx *Tx) error {
		for _, name := range names {
			var v string
			if err := tx.queryRow("PRAGMA "+name, nil, &v); err != nil {
				return err
			}
			write[name] = v
		}
		return nil
	})
	for _, name := range names {
		var v string
		err = errors.Join(err, db.read.QueryRow("PRAGMA "+name).Scan(&v))
		read[name] = v
	}
	return write, read, err
}

// MoveAll makes moves, given as pairs of names.
func MoveAll(names ...string) (undone bool, err error) {
	var moves []move
	for i := 0; i < len(names); i += 2 {
		moves = append(moves, move{names[i], names[i+1]})
	}
	return moveAll(moves)
}

// CutBackAt sets the size from which the write-ahead log is cut back, until the returned function
// is called.
func CutBackAt(size int64) (restore func()) {
	old := walTruncateAt
	walTruncateAt = size
	return func() { walTruncateAt = old }
}

// ParseTool reads the text of a tool event of the public gateway.
func ParseTool(kind, text, author string) (id, name, content string, isError bool) {
	if kind == "tool_call" {
		c := parseToolCall(text, author)
		return c.ID, c.Name, c.Input, false
	}
	r := parseToolResult(text, author)
	return r.ID, "", r.Output, r.IsError
}

// HoldContents keeps contents of files in a data directory from being removed, as a backup does.
func HoldContents(dataDir string) (release func() error, err error) {
	l, err := shareLock(filepath.Join(dataDir, filesName+backupLock))
	if err != nil {
		return nil, err
	}
	return l.release, nil
}
