package auth_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// TestSealed: values are not in the database, and open only where they belong.
func TestSealed(t *testing.T) {
	r := rigged(t)
	const value = "a value that is easy to find"
	x, err := r.SetSecret(system, "a", "API_KEY", value)
	must(t, err)
	if !r.stored("API_KEY") {
		t.Error("the name is not in the database: the search finds nothing")
	}
	if r.stored(value) || r.stored(value[:16]) {
		t.Error("the value is in the database")
	}
	if strings.Contains(string(x.Sealed), value[:8]) {
		t.Error("not sealed")
	}
	again, err := r.SetSecret(system, "b", "API_KEY", value)
	must(t, err)
	if string(x.Sealed) == string(again.Sealed) {
		t.Error("the same value is sealed in the same way twice")
	}
	got, err := r.ReadSecret(r.as(r.principal("reader", auth.Admin).ID), x.ID)
	if err != nil || got != value {
		t.Errorf("%q %v", got, err)
	}
	rec, detail := r.newest()
	if rec.Action != "read_secret" || rec.Target != x.ID || detail["name"] != "API_KEY" || detail["agent_id"] != "a" || strings.Contains(rec.Detail, value) {
		t.Errorf("%+v", rec)
	}

	// Moved to another agent or name, or altered, it does not open.
	for _, statement := range []string{
		`UPDATE secrets SET agent_id = 'c' WHERE agent_id = 'a'`,
		`UPDATE secrets SET agent_id = 'a', name = 'OTHER' WHERE agent_id = 'c'`,
		`UPDATE secrets SET name = 'API_KEY', agent_id = ''  WHERE agent_id = 'a'`,
		`UPDATE secrets SET agent_id = 'a', sealed = substr(sealed, 1, length(sealed) - 1) WHERE agent_id = ''`,
		`UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE agent_id = 'b') WHERE agent_id = 'a'`,
		`UPDATE secrets SET sealed = x'00' WHERE agent_id = 'a'`,
		`UPDATE secrets SET sealed = zeroblob(100) WHERE agent_id = 'a'`,
	} {
		r.tamper(statement)
		before := len(r.records())
		if v, err := r.ReadSecret(system, x.ID); err == nil {
			t.Errorf("%s: it opens as %q", statement, v)
		}
		if len(r.records()) != before {
			t.Errorf("%s: reading was recorded", statement)
		}
		if err := r.CheckSecrets(system); err == nil {
			t.Errorf("%s: no fault was found", statement)
		}
	}
	if v, err := r.ReadSecret(system, again.ID); err != nil || v != value {
		t.Error(v, err)
	}
}

func TestSecretKeys(t *testing.T) {
	r := rigged(t)
	x, err := r.SetSecret(system, "", "TOKEN", "value")
	must(t, err)
	good := r.options.SecretsKeys
	wrong, err := auth.OpenKeyring(filepath.Join(t.TempDir(), "k"))
	must(t, err)
	r.restart(func(o *auth.Options) { o.SecretsKeys = wrong })
	if _, err := r.ReadSecret(system, x.ID); err == nil || !strings.Contains(err.Error(), "the key that sealed a stored secret is not here") {
		t.Error(err)
	}
	if err := r.CheckSecrets(system); err == nil || !strings.Contains(err.Error(), `secret TOKEN of agent ""`) {
		t.Error(err)
	}
	if _, _, err := r.Admit(system, "a", nil); fault.CodeOf(err) != fault.Internal {
		t.Error(err)
	}
	if _, err := r.RotateSecrets(system); err == nil {
		t.Error("rotated what cannot be opened")
	}
	r.restart(func(o *auth.Options) { o.SecretsKeys = good })
	if v, err := r.ReadSecret(system, x.ID); err != nil || v != "value" {
		t.Error(v, err)
	}
	must(t, r.CheckSecrets(system))
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.key")
	private := func() {
		t.Helper()
		fi, err := os.Stat(path)
		must(t, err)
		if fi.Mode() != 0o600 {
			t.Errorf("mode %v", fi.Mode())
		}
		if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
			t.Errorf("files %v %v", all, err)
		}
	}
	lines := func() []string {
		b, err := os.ReadFile(path)
		must(t, err)
		return strings.Fields(string(b))
	}
	keys, err := auth.OpenKeyring(path)
	must(t, err)
	private()
	r := rigged(t, func(o *auth.Options) { o.SecretsKeys = keys })
	var ids []string
	for i := range 5 {
		x, err := r.SetSecret(system, fmt.Sprint("agent-", i), "TOKEN", fmt.Sprint("value-", i))
		must(t, err)
		ids = append(ids, x.ID)
	}
	old := lines()
	n, err := r.RotateSecrets(system)
	if err != nil || n != 5 {
		t.Error(n, err)
	}
	private()
	if now := lines(); len(now) != 1 || now[0] == old[0] {
		t.Error("the old key is still there, or no new one")
	}
	if rec, detail := r.newest(); rec.Action != "rotate_secrets" || detail["count"] != 5.0 {
		t.Errorf("%+v", rec)
	}
	reopened, err := auth.OpenKeyring(path)
	must(t, err)
	r.restart(func(o *auth.Options) { o.SecretsKeys = reopened })
	must(t, r.CheckSecrets(system))
	for i, id := range ids {
		if v, err := r.ReadSecret(system, id); err != nil || v != fmt.Sprint("value-", i) {
			t.Error(v, err)
		}
	}

	// A key from outside: the file's keys open what they have sealed.
	fixed, err := auth.FixedKeyring([auth.KeySize]byte{1}, path)
	must(t, err)
	r.restart(func(o *auth.Options) { o.SecretsKeys = fixed })
	must(t, r.CheckSecrets(system))
	x, err := r.SetSecret(system, "", "NEW", "value")
	must(t, err)
	only, err := auth.FixedKeyring([auth.KeySize]byte{1}, filepath.Join(t.TempDir(), "none"))
	must(t, err)
	r.restart(func(o *auth.Options) { o.SecretsKeys = only })
	if v, err := r.ReadSecret(system, x.ID); err != nil || v != "value" {
		t.Error("the key from outside has not sealed:", err)
	}
	if err := r.CheckSecrets(system); err == nil {
		t.Error("the key from outside opens everything")
	}

	for _, text := range []string{"", "\n", "xyz", old[0] + "00", old[0][2:], old[0] + "\nzz", strings.Repeat("g", 64)} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := auth.OpenKeyring(path); err == nil {
			t.Errorf("%q is a key file", text)
		}
		if _, err := auth.FixedKeyring([auth.KeySize]byte{1}, path); err == nil {
			t.Errorf("%q is a key file", text)
		}
	}
}

// TestRotateTogether: rotations at the same time, with changes between, lose nothing.
func TestRotateTogether(t *testing.T) {
	r := rigged(t)
	for i := range 10 {
		_, err := r.SetSecret(system, fmt.Sprint(i), "TOKEN", "value")
		must(t, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := r.RotateSecrets(system); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 40 {
			if _, err := r.SetSecret(system, fmt.Sprint(i%10), "TOKEN", "value"); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	must(t, r.CheckSecrets(system))
}

func TestCheckSecret(t *testing.T) {
	long := strings.Repeat("A", auth.MaxSecretName)
	for _, name := range []string{"A", "_", "a1", "API_KEY", "PATHS", "MY_LD_X", long} {
		if err := auth.CheckSecret(name, "v"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const form = "Key must be a valid environment variable name (letters, digits and _, not beginning with a digit, at most 256)"
	for _, name := range []string{"1A", "A-B", "A B", "A=B", "Ä", "A\n", "A\x00", long + "A"} {
		refused(t, auth.CheckSecret(name, "v"), fault.Invalid, form)
	}
	for _, name := range []string{
		"PATH", "path", "Path", "LD_PRELOAD", "ld_library_path", "DYLD_INSERT_LIBRARIES", "GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "BASH_FUNC_x", "COVEN_TOKEN",
		"MALLOC_CONF", "GLIBC_TUNABLES", "XDG_CONFIG_HOME", "HOME", "SHELL", "NODE_OPTIONS", "PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "BASH_ENV",
		"ENV", "IFS", "PS4", "PROMPT_COMMAND", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "EDITOR", "VISUAL", "PAGER", "BROWSER",
		"LESSOPEN", "LESSCLOSE", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER", "GOFLAGS", "GOROOT", "MAKEFLAGS", "USER", "LOGNAME", "PWD", "CDPATH", "TMPDIR",
		"NODE_PATH", "PYTHONHOME", "PERL5LIB", "RUBYLIB", "GCONV_PATH", "LOCPATH", "HOSTALIASES", "RESOLV_HOST_CONF",
	} {
		refused(t, auth.CheckSecret(name, "v"), fault.Invalid, name+" must not be a secret: it changes which programs an agent's machine runs")
	}
	refused(t, auth.CheckSecret("", "v"), fault.Invalid, "Key and value are required")
	refused(t, auth.CheckSecret("A", ""), fault.Invalid, "Key and value are required")
	refused(t, auth.CheckSecret("A", "a\x00b"), fault.Invalid, "the value must not contain a NUL byte")
	refused(t, auth.CheckSecret("A", strings.Repeat("v", auth.MaxSecretValue+1)), fault.Invalid, "Value exceeds maximum length (64KB)")
	if err := auth.CheckSecret("A", strings.Repeat("v", auth.MaxSecretValue)); err != nil {
		t.Error(err)
	}
}

// TestDelivery: an agent gets its own secrets and everybody's, once it owns its id.
func TestDelivery(t *testing.T) {
	r := rigged(t, func(o *auth.Options) { o.DefaultCapabilities = []string{"base"} })
	p, q := r.principal("p"), r.principal("q")
	for _, x := range []auth.Secret{{AgentID: "", Name: "ALL"}, {AgentID: "", Name: "BOTH"}, {AgentID: "a", Name: "BOTH"}, {AgentID: "a", Name: "OWN"}, {AgentID: "b", Name: "OTHER"}} {
		_, err := r.SetSecret(system, x.AgentID, x.Name, x.AgentID+"/"+x.Name)
		must(t, err)
	}
	must(t, r.SetCapability(system, p.ID, "mail", true))
	must(t, r.TransferAgent(system, "a", p.ID)) // who only claims it does not get what was there before
	caps, got, err := r.Admit(r.as(p.ID), "a", []string{"mail", "admin", "base", "mail"})
	must(t, err)
	if want := map[string]string{"ALL": "/ALL", "BOTH": "a/BOTH", "OWN": "a/OWN"}; !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if !slices.Equal(caps, []string{"mail", "base"}) {
		t.Errorf("capabilities %v", caps)
	}
	if got := r.actions("a"); got != "transfer_agent deliver_secrets" {
		t.Error(got)
	}
	rec, detail := r.newest()
	if rec.Actor != p.ID || rec.TargetType != "agent" || fmt.Sprint(detail["names"]) != "[ALL BOTH OWN]" || strings.Contains(rec.Detail, "/OWN") {
		t.Errorf("%+v", rec)
	}
	before := len(r.records())
	for _, id := range []string{q.ID, r.principal("admin", auth.Owner).ID} {
		_, got, err = r.Admit(r.as(id), "a", nil)
		refused(t, err, fault.Exists, "agent a already registered")
		if got != nil {
			t.Errorf("%v", got)
		}
		before = len(r.records())
	}
	if len(r.records()) != before {
		t.Error("a refusal was recorded as a delivery")
	}
	if _, got, err = r.Admit(r.as(q.ID), "a2", nil); err != nil || !maps.Equal(got, map[string]string{"ALL": "/ALL", "BOTH": "/BOTH"}) {
		t.Errorf("%v %v", got, err)
	}
	if _, _, err = r.Admit(r.as(p.ID), "a", nil); err != nil || r.actions("a") != "transfer_agent deliver_secrets deliver_secrets" {
		t.Error(r.actions("a"), err)
	}

	// The id outlives its owner.
	must(t, r.Delete(system, p.ID))
	_, _, err = r.Admit(r.as(q.ID), "a", nil)
	refused(t, err, fault.Exists, "agent a already registered")
	must(t, r.TransferAgent(system, "a", q.ID))
	if _, got, err = r.Admit(r.as(q.ID), "a", nil); err != nil || got["OWN"] != "a/OWN" {
		t.Errorf("%v %v", got, err)
	}
	if !slices.Equal(r.disowned, []string{"a"}) {
		t.Error("disowned", r.disowned)
	}
	must(t, r.TransferAgent(system, "a", q.ID))
	if len(r.disowned) != 1 {
		t.Error("given to its owner, and ended", r.disowned)
	}
	must(t, r.ReleaseAgent(system, "a"))
	refused(t, r.ReleaseAgent(system, "a"), fault.NotFound, `no owner of agent "a"`)
	if !slices.Equal(r.disowned, []string{"a", "a"}) {
		t.Error("disowned", r.disowned)
	}
	ids, err := r.AgentIDs(system, q.ID, "", 10)
	if err != nil || len(ids) != 1 || ids[0].ID != "a2" {
		t.Error(ids, err)
	}
	refused(t, r.TransferAgent(system, "", q.ID), fault.Invalid, "agent_id must have 1 to 200 bytes")
	refused(t, r.TransferAgent(system, strings.Repeat("a", 201), q.ID), fault.Invalid, "agent_id must have 1 to 200 bytes")
	refused(t, r.TransferAgent(system, "a", "nobody"), fault.NotFound, "")

	// Names that were stored before they were denied are not delivered.
	r.tamper(`UPDATE secrets SET name = 'LD_PRELOAD' WHERE name = 'ALL'`)
	if _, got, err = r.Admit(r.as(q.ID), "a2", nil); err != nil || !maps.Equal(got, map[string]string{"BOTH": "/BOTH"}) {
		t.Errorf("%v %v", got, err)
	}
}

// TestClaimTogether: of many that use an id for the first time one owns it.
func TestClaimTogether(t *testing.T) {
	r := rigged(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []string
	for range 10 {
		ctx := r.as(r.principal("p").ID)
		wg.Go(func() {
			_, _, err := r.Admit(ctx, "a", nil)
			switch p, _ := auth.From(ctx); {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				won = append(won, p.ID)
			case fault.CodeOf(err) != fault.Exists || fault.Message(err) != "agent a already registered":
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids, err := r.AgentIDs(system, "", "", 10)
	if err != nil || len(ids) != 1 || len(won) != 1 || ids[0].PrincipalID != won[0] || r.actions("a") != "claim_agent" {
		t.Errorf("owners %v, won %v, audit log %s (%v)", ids, won, r.actions("a"), err)
	}
}

func TestSecretChanges(t *testing.T) {
	t.Parallel()
	r := rigged(t)
	x, err := r.SetSecret(system, "a", "TOKEN", "1")
	must(t, err)
	y, err := r.SetSecret(system, "a", "TOKEN", "2")
	if err != nil || y.ID != x.ID {
		t.Error(y, err)
	}
	if v, err := r.ReadSecret(system, x.ID); err != nil || v != "2" {
		t.Error(v, err)
	}
	must(t, r.DeleteSecret(system, x.ID))
	refused(t, r.DeleteSecret(system, x.ID), fault.NotFound, "")
	_, err = r.ReadSecret(system, x.ID)
	refused(t, err, fault.NotFound, "")
	if got := r.actions(x.ID); got != "create_secret update_secret read_secret delete_secret" {
		t.Error(got)
	}
	_, err = r.SetSecret(system, strings.Repeat("a", 201), "TOKEN", "1")
	refused(t, err, fault.Invalid, "agent_id must not be longer than 200 bytes")
	_, err = r.SetSecret(system, "a", "PATH", "1")
	refused(t, err, fault.Invalid, "")

	big := strings.Repeat("v", auth.MaxSecretValue)
	for i := range auth.MaxDelivered / auth.MaxSecretValue {
		_, err := r.SetSecret(system, "big", fmt.Sprint("S", i), big)
		must(t, err)
	}
	owner := r.principal("owner of big")
	must(t, r.TransferAgent(system, "big", owner.ID))
	_, _, err = r.Admit(r.as(owner.ID), "big", nil)
	refused(t, err, fault.TooLarge, `the secrets of agent "big" have more than 2097152 bytes`)
	all, err := r.Secrets(context.Background())
	must(t, err)
	r.tamper(fmt.Sprintf(`WITH RECURSIVE n(i) AS (VALUES (%d) UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO secrets (secret_id, name, agent_id, sealed, created_at, created_by, updated_at, updated_by)
		SELECT 'many-' || i, 'S' || i, 'many', x'00', 0, '', 0, '' FROM n`, len(all)+2, auth.MaxSecrets))
	_, err = r.SetSecret(system, "many", "THE_LAST", "v")
	must(t, err)
	_, err = r.SetSecret(system, "many", "ONE_MORE", "v")
	refused(t, err, fault.Conflict, "there must not be more than 1000 secrets")
	_, err = r.SetSecret(system, "big", "S0", "v")
	must(t, err)
}
