package auth_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/store"
)

// ctx is whoever has all rights.
var ctx = auth.With(context.Background(), auth.Anonymous)

// A gate is a service over a real store.
type gate struct {
	*auth.Service
	t    testing.TB
	path string
	db   *store.DB
	opts auth.Options
}

// newGate opens a service that asks for credentials, in a folder of its own.
func newGate(t testing.TB, edit ...func(*auth.Options)) *gate {
	t.Helper()
	return newGateAt(t, filepath.Join(t.TempDir(), "gateway.db"), edit...)
}

func newGateAt(t testing.TB, path string, edit ...func(*auth.Options)) *gate {
	t.Helper()
	keys, err := auth.OpenKeyring(filepath.Join(t.TempDir(), "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, path: path, opts: auth.Options{
		Logger: slog.New(slog.DiscardHandler), Issuer: "test", JWTSecrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
		ServerSecret: []byte("the server's"), SecretsKeys: keys, AutoRegistration: auth.RegisterNobody,
		DefaultCapabilities: []string{"base", "chat"}, Ended: func(string) {}, Disowned: func(string) {},
	}}
	for _, f := range edit {
		f(&g.opts)
	}
	g.open()
	t.Cleanup(g.close)
	return g
}

func (g *gate) open() {
	g.t.Helper()
	var err error
	g.db, err = store.Open(context.Background(), store.Options{Path: g.path, Synchronous: "normal", Logger: g.opts.Logger, Registerer: prometheus.NewRegistry()})
	if err != nil {
		g.t.Fatal(err)
	}
	g.opts.Store = g.db.Identity()
	g.Service = auth.New(g.opts)
}

func (g *gate) close() {
	if g.db == nil {
		return
	}
	if err := g.Close(); err != nil {
		g.t.Error(err)
	}
	if err := g.db.Close(); err != nil {
		g.t.Error(err)
	}
	g.db = nil
}

// tamper changes the database behind the gateway's back.
func (g *gate) tamper(statements ...string) {
	g.t.Helper()
	db, err := sql.Open("sqlite", "file:"+g.path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			g.t.Fatal(err, s)
		}
	}
}

// fill makes n records.
func (g *gate) fill(n int) {
	g.t.Helper()
	for i := range n {
		if _, err := g.SetSecret(ctx, "", fmt.Sprintf("NAME_%d", i), "x"); err != nil {
			g.t.Fatal(err)
		}
	}
}

// TestAuditTampering: whatever is altered, removed or reordered, the first bad record is named, by
// the gateway and from an export.
func TestAuditTampering(t *testing.T) {
	whole := newGate(t)
	whole.fill(100)
	whole.close()
	db, err := os.ReadFile(whole.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		damage  []string
		bad     int64
		because string
	}{
		{"nothing", nil, 0, ""},
		{"an actor", []string{`UPDATE audit_log SET actor = 'x' WHERE seq = 5`}, 5, "altered"},
		{"a time", []string{`UPDATE audit_log SET at = at + 1 WHERE seq = 70`}, 70, "altered"},
		{"an action", []string{`UPDATE audit_log SET action = 'x' WHERE seq = 1`}, 1, "altered"},
		{"a kind of target", []string{`UPDATE audit_log SET target_type = 'x' WHERE seq = 2`}, 2, "altered"},
		{"a target", []string{`UPDATE audit_log SET target = 'x' WHERE seq = 2`}, 2, "altered"},
		{"a detail", []string{`UPDATE audit_log SET detail = '{}' WHERE seq = 99`}, 99, "altered"},
		{"text moved from one field to the next", []string{`UPDATE audit_log SET action = 'creat', target_type = 'e_secretsecret' WHERE seq = 3`}, 3, "altered"},
		{"a hash", []string{`UPDATE audit_log SET hash = x'00' WHERE seq = 7`}, 7, "altered"},
		{"the hash before", []string{`UPDATE audit_log SET prev = x'00' WHERE seq = 7`}, 7, "does not follow"},
		{"the first is gone", []string{`DELETE FROM audit_log WHERE seq = 1`}, 1, "missing"},
		{"one is gone", []string{`DELETE FROM audit_log WHERE seq = 42`}, 42, "missing"},
		{"one is gone and the rest has moved up", []string{`DELETE FROM audit_log WHERE seq = 42`, `UPDATE audit_log SET seq = -seq WHERE seq > 42`, `UPDATE audit_log SET seq = -seq - 1 WHERE seq < 0`}, 42, "does not follow"},
		{"the last ones are gone", []string{`DELETE FROM audit_log WHERE seq > 90`}, 91, "missing"},
		{"the last ones are gone, and their signature", []string{`DELETE FROM audit_log WHERE seq > 90`, `DELETE FROM audit_checkpoints WHERE seq > 90`}, 65, "the signature of the newest record, 90, is missing"},
		{"two are swapped", []string{`UPDATE audit_log SET seq = 0 WHERE seq = 10`, `UPDATE audit_log SET seq = 10 WHERE seq = 11`, `UPDATE audit_log SET seq = 11 WHERE seq = 0`}, 10, "does not follow"},
		{"one is there twice", []string{`INSERT INTO audit_log SELECT 101, at, actor, action, target_type, target, detail, prev, hash FROM audit_log WHERE seq = 100`}, 101, "does not follow"},
		{"a signature is gone", []string{`DELETE FROM audit_checkpoints WHERE seq = 64`}, 64, "the signature of record 64 is missing"},
		{"a signature was altered", []string{`UPDATE audit_checkpoints SET signature = zeroblob(64) WHERE seq = 64`}, 64, "the signature of record 64 was altered"},
		{"a signed number was altered", []string{`UPDATE audit_checkpoints SET seq = 63 WHERE seq = 64`}, 63, "the signature of record 63 was altered"},
		{"everything is gone", []string{`DELETE FROM audit_log`}, 1, "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "gateway.db")
			if err := os.WriteFile(path, db, 0o600); err != nil {
				t.Fatal(err)
			}
			g := newGateAt(t, path)
			g.tamper(c.damage...)
			check := func(how string, v auth.Verification, err error) {
				t.Helper()
				if err != nil || v.OK != (c.because == "") || v.Bad != c.bad || !strings.Contains(v.Fault, c.because) {
					t.Errorf("%s: %+v %v, want %d %s", how, v, err, c.bad, c.because)
				}
			}
			v, err := g.VerifyAudit(ctx)
			check("the gateway", v, err)
			var export bytes.Buffer
			if err := g.ExportAudit(ctx, func(line []byte) error { export.Write(append(line, '\n')); return nil }); err != nil {
				t.Fatal(err)
			}
			w, err := auth.CheckExport(&export)
			check("the export", w, err)
			if w.Key != v.Key || w.Head != v.Head {
				t.Errorf("the export says %+v, the gateway %+v", w, v)
			}
		})
	}
}

// TestAuditRewritten: somebody who alters a record and rewrites the hashes of all that follow cannot
// rewrite the signatures.
func TestAuditRewritten(t *testing.T) {
	g := newGate(t)
	g.fill(100)
	records, err := g.AuditRecords(ctx, auth.AuditFilter{Limit: 200})
	if err != nil || len(records) != 100 {
		t.Fatal(len(records), err)
	}
	last := records[66]
	for _, r := range records[67:] { // record 68 and what follows
		if r.Seq == 68 {
			r.Actor = "somebody else"
		}
		r = r.Follow(last)
		g.tamper(fmt.Sprintf(`UPDATE audit_log SET actor = '%s', prev = x'%x', hash = x'%x' WHERE seq = %d`, r.Actor, r.Prev, r.Hash, r.Seq))
		last = r
	}
	v, err := g.VerifyAudit(ctx)
	if err != nil || v.OK || v.Bad != 65 || !strings.Contains(v.Fault, "from 65 to 100 was altered and those behind it rewritten") {
		t.Errorf("%+v %v", v, err)
	}
}

// TestAuditTogether: changes that happen at the same time make one chain, and go on behind it after a
// restart.
func TestAuditTogether(t *testing.T) {
	g := newGate(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				if _, err := g.SetSecret(ctx, "", fmt.Sprintf("N_%d_%d", i, j), "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 { // meanwhile
		if v, err := g.VerifyAudit(ctx); err != nil || !v.OK && v.Records > 0 {
			t.Errorf("while it grows: %+v %v", v, err)
		}
	}
	wg.Wait()
	g.close()
	g.open()
	g.fill(1)
	if v, err := g.VerifyAudit(ctx); err != nil || !v.OK || v.Records != 201 || v.Signed != 201 {
		t.Errorf("%+v %v", v, err)
	}
}
