package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// audited returns a rig whose audit log has n records.
func audited(t *testing.T, n int) *rig {
	r := rigged(t)
	p := r.principal("p")
	for i := 1; i < n; i++ {
		must(t, r.SetCapability(system, p.ID, "mail", i%2 == 1))
	}
	return r
}

// export returns an export and what a check of it finds.
func (r *rig) export() (string, auth.Verification) {
	r.t.Helper()
	var b bytes.Buffer
	must(r.t, r.ExportAudit(context.Background(), func(line []byte) error { b.Write(append(line, '\n')); return nil }))
	v, err := auth.CheckExport(bytes.NewReader(b.Bytes()))
	must(r.t, err)
	return b.String(), v
}

// forge puts records into the log as somebody would who can write to the database, but has not the
// server's key.
func forge(from int, change func(*auth.AuditRecord)) func(*rig) []string {
	return func(r *rig) (statements []string) {
		var last auth.AuditRecord
		for _, x := range r.records() {
			if x.Seq == int64(from) {
				change(&x)
			}
			if x.Seq >= int64(from) {
				x = x.Follow(last)
				statements = append(statements, fmt.Sprintf(`UPDATE audit_log SET action = '%s', prev = x'%x', hash = x'%x' WHERE seq = %d`, x.Action, x.Prev, x.Hash, x.Seq))
			}
			last = x
		}
		return statements
	}
}

func run(statements ...string) func(*rig) []string {
	return func(*rig) []string { return statements }
}

// TestTampering: a check finds the first record that is not as it was written, also in an export,
// and also when more is written afterwards.
func TestTampering(t *testing.T) {
	t.Parallel()
	const n = 70 // with signatures of 64 and 70
	r := audited(t, n)
	if v := r.verified(); !v.OK || v.Records != n || v.Signed != n || v.Bad != 0 || v.Fault != "" {
		t.Fatalf("%+v", v)
	}
	p := r.records()[0].Target
	r.tamper(`CREATE TABLE kept_log AS SELECT * FROM audit_log`, `CREATE TABLE kept_checkpoints AS SELECT * FROM audit_checkpoints`)
	restore := []string{`DELETE FROM audit_log`, `DELETE FROM audit_checkpoints`, `INSERT INTO audit_log SELECT * FROM kept_log`, `INSERT INTO audit_checkpoints SELECT * FROM kept_checkpoints`}
	const copyRow = `INSERT INTO audit_log SELECT %s FROM audit_log WHERE seq = 70`
	rename := func(x *auth.AuditRecord) { x.Action = "nothing" }
	append71 := func(r *rig) []string {
		all := r.records()
		x := auth.AuditRecord{At: all[n-1].At, Action: "forged", Detail: "{}"}.Follow(all[n-1])
		return []string{fmt.Sprintf(`INSERT INTO audit_log VALUES (71, %d, '', 'forged', '', '', '{}', x'%x', x'%x')`, x.At.UnixMicro(), x.Prev, x.Hash)}
	}
	for _, tt := range []struct {
		what   string
		tamper func(*rig) []string
		bad    int64
		fault  string
	}{
		{"time", run(`UPDATE audit_log SET at = at + 1 WHERE seq = 30`), 30, "record 30 was altered"},
		{"actor", run(`UPDATE audit_log SET actor = 'x' WHERE seq = 30`), 30, "record 30 was altered"},
		{"action", run(`UPDATE audit_log SET action = 'x' WHERE seq = 30`), 30, "record 30 was altered"},
		{"target type", run(`UPDATE audit_log SET target_type = 'x' WHERE seq = 30`), 30, "record 30 was altered"},
		{"target", run(`UPDATE audit_log SET target = 'x' WHERE seq = 30`), 30, "record 30 was altered"},
		{"detail", run(`UPDATE audit_log SET detail = '{}' WHERE seq = 30`), 30, "record 30 was altered"},
		{"where fields end", run(`UPDATE audit_log SET action = action || target_type, target_type = '' WHERE seq = 30`), 30, "record 30 was altered"},
		{"prev", run(`UPDATE audit_log SET prev = zeroblob(32) WHERE seq = 30`), 30, "record 30 does not follow record 29"},
		{"hash", run(`UPDATE audit_log SET hash = zeroblob(32) WHERE seq = 30`), 30, "record 30 was altered"},
		{"number", run(`UPDATE audit_log SET seq = 1000 WHERE seq = 30`), 30, "record 30 is missing"},
		{"first", run(`DELETE FROM audit_log WHERE seq = 1`), 1, "record 1 is missing"},
		{"middle", run(`DELETE FROM audit_log WHERE seq = 30`), 30, "record 30 is missing"},
		{"middle, closed up", run(`DELETE FROM audit_log WHERE seq = 30`, `UPDATE audit_log SET seq = -seq WHERE seq > 30`, `UPDATE audit_log SET seq = -seq - 1 WHERE seq < 0`), 30, "record 30 does not follow record 29"},
		{"last", run(`DELETE FROM audit_log WHERE seq = 70`), 70, "record 70 is missing"},
		{"tail", run(`DELETE FROM audit_log WHERE seq >= 60`), 60, "record 60 is missing"},
		{"tail and signature", run(`DELETE FROM audit_log WHERE seq >= 60`, `DELETE FROM audit_checkpoints WHERE seq = 70`), 60, "record 60 is missing"},
		{"tail without signature", run(`DELETE FROM audit_log WHERE seq >= 67`, `DELETE FROM audit_checkpoints WHERE seq = 70`), 65, "the signature of the newest record, 66, is missing"},
		{"all", run(`DELETE FROM audit_log`), 1, "record 1 is missing"},
		{"swap", run(`UPDATE audit_log SET seq = -30 WHERE seq = 30`, `UPDATE audit_log SET seq = 30 WHERE seq = 31`, `UPDATE audit_log SET seq = 31 WHERE seq = -30`), 30, "record 30 does not follow record 29"},
		{"copy at the end", run(fmt.Sprintf(copyRow, "71, at, actor, action, target_type, target, detail, prev, hash")), 71, "record 71 does not follow record 70"},
		{"forged at the end", append71, 71, "the signature of the newest record, 71, is missing"},
		{"before the first", run(fmt.Sprintf(copyRow, "0, at, actor, action, target_type, target, detail, prev, hash")), 0, ""}, // is never read
		{"rewritten from 30", forge(30, rename), 1, "a record from 1 to 64 was altered and those behind it rewritten: it is not what was signed"},
		{"rewritten from 66", forge(66, rename), 65, "a record from 65 to 70 was altered and those behind it rewritten: it is not what was signed"},
		{"rewritten the last", forge(70, rename), 65, "a record from 65 to 70 was altered and those behind it rewritten: it is not what was signed"},
		{"no signature of 64", run(`DELETE FROM audit_checkpoints WHERE seq = 64`), 64, "the signature of record 64 is missing"},
		{"no newest signature", run(`DELETE FROM audit_checkpoints WHERE seq = 70`), 65, "the signature of the newest record, 70, is missing"},
		{"no signatures", run(`DELETE FROM audit_checkpoints`), 64, "the signature of record 64 is missing"},
		{"signature", run(`UPDATE audit_checkpoints SET signature = zeroblob(64) WHERE seq = 64`), 64, "the signature of record 64 was altered"},
		{"time of a signature", run(`UPDATE audit_checkpoints SET at = at + 1 WHERE seq = 70`), 70, "the signature of record 70 was altered"},
		{"hash of a signature", run(`UPDATE audit_checkpoints SET hash = zeroblob(32) WHERE seq = 70`), 70, "the signature of record 70 was altered"},
		{"place of a signature", run(`UPDATE audit_checkpoints SET seq = 69 WHERE seq = 70`), 69, "the signature of record 69 was altered"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r.tamper(restore...)
			r.tamper(tt.tamper(r)...)
			v := r.verified()
			if v.OK != (tt.bad == 0) || v.Bad != tt.bad || v.Fault != tt.fault {
				t.Errorf("got %t %d %q, want %d %q", v.OK, v.Bad, v.Fault, tt.bad, tt.fault)
			}
			if text, e := r.export(); e != v {
				t.Errorf("export: %+v, want %+v\n%s", e, v, text)
			}
			if tt.what == "number" || tt.what == "before the first" { // 1000 is not followed by 71
				return
			}
			for range 70 { // beyond the next signature that is kept
				must(t, r.SetCapability(system, p, "more", true))
				must(t, r.SetCapability(system, p, "more", false))
				if v := r.verified(); v.OK {
					t.Fatalf("%d records later: %+v", len(r.records())-n, v)
				}
			}
		})
	}
}

func TestAnotherServersKey(t *testing.T) {
	r := audited(t, 3)
	key := r.verified().Key
	r.restart(func(o *auth.Options) { o.ServerSecret = []byte("another one") })
	if v := r.verified(); v.OK || v.Bad != 3 || v.Key == key {
		t.Errorf("%+v", v)
	}
	r.restart(func(o *auth.Options) { o.ServerSecret = []byte("the gateway's own") })
	if v := r.verified(); !v.OK || v.Key != key {
		t.Errorf("%+v", v)
	}
}

// TestSignaturesKept: of the first record, of every 64th, and of the newest.
func TestSignaturesKept(t *testing.T) {
	t.Parallel()
	r := rigged(t)
	if v := r.verified(); !v.OK || v.Records != 0 {
		t.Errorf("empty: %+v", v)
	}
	p := r.principal("p")
	for i := 1; i <= 2*auth.CheckpointEvery+2; i++ {
		cs, err := r.db.Identity().Read(context.Background()).Checkpoints()
		must(t, err)
		var got []int
		for _, c := range cs {
			got = append(got, int(c.Seq))
		}
		var want []int
		for k := auth.CheckpointEvery; k < i; k += auth.CheckpointEvery {
			want = append(want, k)
		}
		if want = append(want, i); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("signatures of %v, want %v", got, want)
		}
		if v := r.verified(); !v.OK || v.Records != int64(i) {
			t.Fatalf("%+v", v)
		}
		must(t, r.SetCapability(system, p.ID, "mail", i%2 == 1))
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	r := audited(t, 600) // more than one page
	text, v := r.export()
	if want := r.verified(); v != want || !v.OK || v.Records != 600 {
		t.Errorf("got %+v, want %+v", v, want)
	}
	lines := strings.SplitAfter(strings.TrimSpace(text), "\n")
	var first struct{ Key []byte }
	must(t, json.Unmarshal([]byte(lines[0]), &first))
	if hex.EncodeToString(first.Key) != v.Key {
		t.Errorf("key %x, want %s", first.Key, v.Key)
	}
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	other, err := json.Marshal(map[string]any{"key": []byte(private.Public().(ed25519.PublicKey))})
	must(t, err)
	join := func(l ...string) string { return strings.Join(l, "\n") }
	for what, in := range map[string]string{
		"nothing": "", "no key": join(lines[1:]...), "words": "hello", "half a line": text[:len(text)-20],
		"two keys": join(append([]string{lines[0]}, lines...)...), "late signature": join(append(lines, lines[1])...),
		"empty object": join(lines[0], "{}"), "only a record": lines[len(lines)-1],
	} {
		v, err := auth.CheckExport(strings.NewReader(in))
		if wrong := unlike(err, fault.Invalid, ""); wrong != "" {
			t.Errorf("%s: %s %+v", what, wrong, v)
		}
	}
	for what, tt := range map[string]struct {
		in  string
		bad int64
	}{
		"tail missing":   {join(lines[:len(lines)-1]...), 600},
		"record missing": {join(append(append([]string{}, lines[:len(lines)-5]...), lines[len(lines)-4:]...)...), 596},
		"swapped":        {join(append(append([]string{}, lines[:len(lines)-2]...), lines[len(lines)-1], lines[len(lines)-2])...), 599},
		"altered":        {strings.Replace(text, `"seq":300,`, `"seq":300,"actor":"x",`, 1), 0},
		"another key":    {join(append([]string{string(other)}, lines[1:]...)...), 64},
	} {
		v, err := auth.CheckExport(strings.NewReader(tt.in))
		if err != nil || v.OK == (tt.bad != 0) || v.Bad != tt.bad {
			t.Errorf("%s: %+v %v", what, v, err)
		}
	}
	stop := fault.New(fault.Gone, "stop")
	if err := r.ExportAudit(context.Background(), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestConcurrentChanges: the log stays in order, and a check meanwhile finds nothing wrong.
func TestConcurrentChanges(t *testing.T) {
	r := rigged(t)
	var wg sync.WaitGroup
	const each = 40
	for i := range 6 {
		p := r.principal(fmt.Sprint(i))
		wg.Go(func() {
			for k := range each {
				if err := r.SetCapability(system, p.ID, "mail", k%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if v := r.verified(); !v.OK {
			t.Errorf("%+v", v)
		}
		if _, v := r.export(); !v.OK {
			t.Errorf("%+v", v)
		}
	}
	if v := r.verified(); v.Records != 6*(each+1) {
		t.Errorf("%+v", v)
	}
}

func TestAuditFilter(t *testing.T) {
	r := rigged(t)
	p := r.principal("p")
	must(t, r.SetCapability(r.as(r.principal("a", auth.Admin).ID), p.ID, "mail", true))
	must(t, r.Revoke(system, p.ID))
	for _, tt := range []struct {
		filter auth.AuditFilter
		want   string
	}{
		{auth.AuditFilter{Limit: 9}, "[1 2 3 4]"},
		{auth.AuditFilter{Limit: 2}, "[1 2]"},
		{auth.AuditFilter{Limit: 9, After: 2}, "[3 4]"},
		{auth.AuditFilter{Limit: 9, Before: 3}, "[2 1]"},
		{auth.AuditFilter{Limit: 9, Action: "create_principal"}, "[1 2]"},
		{auth.AuditFilter{Limit: 9, Target: p.ID}, "[1 3 4]"},
		{auth.AuditFilter{Limit: 9, Actor: "system", Target: p.ID, Before: 99}, "[4 1]"},
	} {
		all, err := r.AuditRecords(system, tt.filter)
		must(t, err)
		var got []int64
		for _, x := range all {
			got = append(got, x.Seq)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%+v: %v, want %s", tt.filter, got, tt.want)
		}
	}
}
