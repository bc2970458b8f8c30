package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"coven-gateway/internal/auth"
)

func auditCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "audit", short: "Show and check the log of all changes of rights", example: "coven-admin audit\ncoven-admin audit list --action create_token --limit 10"},
		listing{
			path: "/api/admin/audit", limit: 100, page: 500, next: "before", from: "seq",
			filters: []filter{
				{"action", "action", "only records of the `action`, for example create_token"},
				{"actor", "actor", "only what the principal with this `id` did"},
				{"target", "target", "only what was done to the object with this `id`"},
			},
			view: view{key: "records", none: "no records", columns: []column{
				{"SEQ", "seq", nil},
				{"AT", "at", nil},
				{"ACTOR", "actor", nil},
				{"ACTION", "action", nil},
				{"TYPE", "target_type", nil},
				{"TARGET", "target", nil},
				{"DETAIL", "detail", nil},
			}},
		},
		verifyCommand(a), exportCommand(a),
	)
}

func verifyCommand(a *app) *cobra.Command {
	return help{
		use: "verify [FILE]", short: "Check every hash and signature of the audit log, or of an export",
		long: `Check every hash and signature of the audit log, or of an export. The gateway checks its log; an
export is checked here, without it, and is as good as the public key in it: compare that with the one
that the gateway names.

The exit code is 1 when a record was altered, removed or moved.`,
		example: "coven-admin audit verify\ncoven-admin audit verify audit.jsonl",
	}.command(func(cmd *cobra.Command, args []string) error {
		var v auth.Verification
		if len(args) == 0 {
			answer, err := a.read(cmd.Context(), http.MethodGet, "/api/admin/audit/verify", nil)
			if err == nil {
				err = json.Unmarshal(answer, &v)
			}
			if err != nil {
				return err
			}
		} else {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if v, err = auth.CheckExport(f); err != nil {
				return err
			}
		}
		return a.verified(cmd, v)
	})
}

// verified shows what a check found; it is an error when something is wrong.
func (a *app) verified(cmd *cobra.Command, v auth.Verification) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := a.show(cmd, append(b, '\n'), view{block: true, columns: []column{
		{"log", "ok", func(yes string) string {
			if yes == "yes" {
				return "ok"
			}
			return "broken"
		}},
		{"records", "records", nil},
		{"signed", "signed", nil},
		{"head", "head", nil},
		{"key", "key", nil},
		{"bad", "bad", nil},
	}}); err != nil {
		return err
	}
	if !v.OK {
		return fmt.Errorf("the audit log is broken at record %d: %s", v.Bad, v.Fault)
	}
	return nil
}

func exportCommand(a *app) *cobra.Command {
	return help{
		use: "export [FILE]", short: "Write the whole audit log, with its signatures, to a file or to stdout",
		long: `Write the whole audit log, with its signatures, as JSON lines to a file or to stdout. What goes to a
file is checked, and the file appears when it is complete.`,
		example: "coven-admin audit export audit.jsonl",
	}.command(func(cmd *cobra.Command, args []string) error {
		resp, err := a.do(cmd.Context(), http.MethodGet, "/api/admin/audit/export", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if len(args) == 0 {
			_, err := io.Copy(cmd.OutOrStdout(), resp.Body)
			return err
		}
		v, err := save(args[0], resp.Body)
		if err != nil {
			return err
		}
		return a.verified(cmd, v)
	})
}

// save writes an export to a file and checks it on the way.
func save(path string, export io.Reader) (v auth.Verification, err error) {
	if i, err := os.Stat(path); err == nil && !i.Mode().IsRegular() {
		return v, fmt.Errorf("%s is no file that could be replaced; without FILE the export goes to stdout", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".audit-*")
	if err != nil {
		return v, err
	}
	defer os.Remove(f.Name()) // is gone where all went well
	v, err = auth.CheckExport(io.TeeReader(export, f))
	if err := cmp.Or(err, f.Sync()); err != nil {
		return v, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return v, err
	}
	return v, os.Rename(f.Name(), path)
}
