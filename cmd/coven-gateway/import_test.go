package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/store"
)

// TestImport: the command as an operator runs it, with a dry run first.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old.db")
	db, err := sql.Open("sqlite", old)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old.sql", "old_rows.sql"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "internal", "store", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(string(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(settings, []byte("auth:\n  jwt_secret: 0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	run := func(ctx context.Context, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := cli.Run(ctx, root(), append([]string{"import", "--config", settings, "--data-dir", data}, args...), &out, &errs)
		return code, out.String(), errs.String()
	}
	says := func(got string, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("no %q in\n%s", text, got)
			}
		}
	}

	code, out, errs := run(t.Context(), "--dry-run", old)
	if code != 0 {
		t.Fatalf("a dry run exits with %d: %s", code, errs)
	}
	says(out, "TABLE                 FOUND  TAKEN  NOT TAKEN\n", "ledger_events         33     31     1: its conversation is that of a thread",
		"\n                                    1: its time cannot be read (e5)\n", "* agent ids have no owner yet", "\nNothing was changed. ")

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if code, out, errs := run(canceled, old); code != 1 || !strings.Contains(errs, "interrupted") {
		t.Errorf("an interrupted import exits with %d: %s%s", code, out, errs)
	}

	code, out, errs = run(t.Context(), "--json", old)
	var r store.TakeoverReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Turns != 11 || r.DryRun || len(r.Tables) != 22 {
		t.Errorf("exit code %d, %+v: %v %s", code, r, err, errs)
	}
	if code, _, errs := run(t.Context(), old); code != 1 || !strings.Contains(errs, "is in use: it has 5 principals, 3 conversations") {
		t.Errorf("a second import exits with %d: %s", code, errs)
	}
	if code, _, _ := run(t.Context()); code == 0 {
		t.Error("an import of nothing succeeds")
	}
	if err := store.Verify(t.Context(), filepath.Join(data, "gateway.db")); err != nil {
		t.Error(err)
	}
}
