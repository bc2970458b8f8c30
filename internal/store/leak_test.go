//go:build linux

package store_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCloseLetsGoOfTheFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	db, err := tryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := createConversation(db, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Log(nil).Conversation(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(name, path) {
			t.Errorf("%s is still open", filepath.Base(name))
		}
	}
}
