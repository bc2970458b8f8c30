package store

// Queued returns how many operations wait for the writer.
func (db *DB) Queued() int { return len(db.writer.ops) }

// Exec returns an operation that runs a statement.
func Exec(query string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.exec(query)
		return err
	}
}

// CreateConversation returns an operation that creates a conversation and then does more.
func CreateConversation(agentID string, more func() error) func(*Tx) error {
	return func(tx *Tx) error {
		if _, err := (logTx{tx}).Conversation(agentID); err != nil {
			return err
		}
		return more()
	}
}
