package store_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"coven-gateway/internal/conversation"
)

// BenchmarkCommit is one increment in one durable transaction: what each costs under light load.
func BenchmarkCommit(b *testing.B) {
	log := open(b, filepath.Join(b.TempDir(), "gateway.db")).Log(nil)
	var seq int64
	for b.Loop() {
		seq++
		err := log.Commit(context.Background(), func(tx conversation.Tx) error {
			_, err := tx.Increment(conversation.Ref{Turn: 1}, conversation.Piece{Seq: seq, Kind: conversation.KindText, Text: "word ", At: time.Now()})
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
