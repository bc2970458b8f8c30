package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
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

// BenchmarkPrune removes rows of answers, 32 in one commit: as much as messages wait for at most while
// something is removed.
func BenchmarkPrune(b *testing.B) {
	const step, turnRows = 32, 256
	log := open(b, filepath.Join(b.TempDir(), "gateway.db")).Log(nil)
	words := strings.Repeat("some words of an answer that people may look for ", 12)
	n, seq := 0, int64(0)
	add := func() string {
		n++
		id := fmt.Sprint("turn-", n)
		err := log.Commit(ctx, func(tx conversation.Tx) error {
			c, err := tx.Conversation("a")
			if err != nil {
				return err
			}
			at := time.Now()
			_, ref, _, err := tx.Begin(conversation.NewTurn{
				Turn: conversation.Turn{ID: id, AgentID: "a", ThreadID: id, StartedAt: at, First: seq + 1}, Conversation: c.ID, ExternalID: id, Digest: []byte{},
			})
			for i := range turnRows {
				if err != nil {
					return err
				}
				seq++
				err = tx.Append(ref, conversation.Record{Ref: ref, Seq: seq, Last: seq, At: at, Kind: conversation.KindText, Text: fmt.Sprint(words, i)})
			}
			if err != nil {
				return err
			}
			return tx.End(ref, conversation.EndedTurn{State: conversation.Done, Last: seq, At: at})
		})
		if err != nil {
			b.Fatal(err)
		}
		return id
	}
	var turns []string
	for range max(2, b.N*step/turnRows+1) {
		turns = append(turns, add())
	}
	b.ResetTimer()
	for range b.N {
		err := log.Commit(ctx, func(tx conversation.Tx) error {
			r, err := tx.Prune(turns[0], step)
			if r.Gone {
				turns = turns[1:]
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
