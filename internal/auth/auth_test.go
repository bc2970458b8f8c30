package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
	"coven-gateway/internal/store"
)

// migrated is a database without content: migrating one takes longer than most tests.
var migrated []byte

func TestMain(m *testing.M) {
	if err := migrateOne(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func migrateOne() error {
	dir, err := os.MkdirTemp("", "auth-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "gateway.db")
	db, err := store.Open(context.Background(), store.Options{
		Path: path, Synchronous: "normal", Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	migrated, err = os.ReadFile(path)
	return err
}

const (
	jwtSecret = "0123456789abcdef0123456789abcdef"
	here      = "192.0.2.1"
)

// system may do everything, as what the gateway does itself.
var system = auth.With(context.Background(), auth.Principal{ID: "system", Status: auth.Approved, Roles: []auth.Role{auth.Owner}})

// A rig is a service on a real database.
type rig struct {
	*auth.Service
	t       testing.TB
	dir     string // "" for a database in memory
	db      *store.DB
	options auth.Options

	mu       sync.Mutex
	ended    []string
	disowned []string
}

// rigged opens a database in a temporary folder and a service on it.
func rigged(t testing.TB, configure ...func(*auth.Options)) *rig {
	t.Helper()
	return (&rig{t: t, dir: t.TempDir()}).rigged(configure...)
}

// riggedInMemory is rigged for long bubbles: nobody tends a database in memory twice a second.
func riggedInMemory(t testing.TB) *rig {
	t.Helper()
	return (&rig{t: t}).rigged()
}

func (r *rig) rigged(configure ...func(*auth.Options)) *rig {
	t := r.t
	t.Helper()
	r.options = rigOptions(t, r)
	for _, f := range configure {
		f(&r.options)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func rigOptions(t testing.TB, r *rig) auth.Options {
	t.Helper()
	keys, err := auth.OpenKeyring(filepath.Join(t.TempDir(), "secrets.key"))
	must(t, err)
	return auth.Options{
		Logger: slog.New(slog.DiscardHandler), Issuer: "gateway", JWTSecrets: [][]byte{[]byte(jwtSecret)}, ServerSecret: []byte("the gateway's own"),
		SecretsKeys: keys, AutoRegistration: auth.RegisterNobody, Origin: "http://localhost:8080",
		Ended:    func(id string) { r.mu.Lock(); defer r.mu.Unlock(); r.ended = append(r.ended, id) },
		Disowned: func(id string) { r.mu.Lock(); defer r.mu.Unlock(); r.disowned = append(r.disowned, id) },
	}
}

func (r *rig) start() {
	r.t.Helper()
	if _, err := os.Stat(r.path()); r.dir != "" && os.IsNotExist(err) {
		must(r.t, os.WriteFile(r.path(), migrated, 0o600))
	}
	var err error
	r.db, err = store.Open(context.Background(), store.Options{
		Path: r.path(), Synchronous: "normal", Logger: r.options.Logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.options.Store = r.db.Identity()
	r.Service = auth.New(r.options)
}

func (r *rig) stop() {
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) restart(configure ...func(*auth.Options)) {
	r.t.Helper()
	r.stop()
	for _, f := range configure {
		f(&r.options)
	}
	r.start()
}

func (r *rig) path() string {
	if r.dir == "" {
		return store.Memory
	}
	return filepath.Join(r.dir, "gateway.db")
}

// tamper runs statements on the database file, behind the store's back.
func (r *rig) tamper(statements ...string) {
	r.t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			r.t.Fatal(s, err)
		}
	}
}

// stored reports whether some bytes are in one of the database's files.
func (r *rig) stored(b string) bool {
	r.t.Helper()
	files, err := filepath.Glob(r.path() + "*")
	if err != nil || len(files) < 2 {
		r.t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if bytes.Contains(text, []byte(b)) {
			return true
		}
	}
	return false
}

// principal creates an approved principal.
func (r *rig) principal(name string, roles ...auth.Role) auth.Principal {
	r.t.Helper()
	p, err := r.CreatePrincipal(system, auth.NewPrincipal{Kind: auth.Client, Name: name, Roles: roles})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// as returns a context of a principal, as it is stored now.
func (r *rig) as(id string) context.Context {
	r.t.Helper()
	p, err := r.Principal(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return auth.With(context.Background(), p)
}

// token makes a JWT.
func (r *rig) token(id string) (string, auth.Token) {
	r.t.Helper()
	shown, t, err := r.CreateToken(system, auth.TokenRequest{PrincipalID: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return shown, t
}

// bearer logs in with a token.
func (r *rig) bearer(token string) (auth.Principal, error) {
	return r.Authenticate(context.Background(), auth.Credentials{Authorization: "Bearer " + token, Address: here})
}

// prove logs in with a key.
func (r *rig) prove(p auth.Proof, connection uint64) (auth.Principal, error) {
	return r.Authenticate(context.Background(), auth.Credentials{Proof: p, Address: here, Connection: connection})
}

// records returns the audit log.
func (r *rig) records() []auth.AuditRecord {
	r.t.Helper()
	all, err := r.AuditRecords(context.Background(), auth.AuditFilter{Limit: 1_000_000})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// actions returns what the audit log says was done to a target, "" for all.
func (r *rig) actions(target string) string {
	r.t.Helper()
	var words []string
	for _, x := range r.records() {
		if target == "" || x.Target == target {
			words = append(words, x.Action)
		}
	}
	return strings.Join(words, " ")
}

// last returns the newest audit record; its number is how many there are.
func (r *rig) last() (x auth.AuditRecord) {
	r.t.Helper()
	all, err := r.AuditRecords(context.Background(), auth.AuditFilter{Before: math.MaxInt64, Limit: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(all) > 0 {
		x = all[0]
	}
	return x
}

// count returns how many audit records there are.
func (r *rig) count() int {
	r.t.Helper()
	return int(r.last().Seq)
}

// newest returns the newest audit record and its detail.
func (r *rig) newest() (auth.AuditRecord, map[string]any) {
	r.t.Helper()
	x := r.last()
	if x.Seq == 0 {
		r.t.Fatal("the audit log is empty")
	}
	var detail map[string]any
	if err := json.Unmarshal([]byte(x.Detail), &detail); err != nil {
		r.t.Fatal(err)
	}
	return x, detail
}

func (r *rig) verified() auth.Verification {
	r.t.Helper()
	v, err := r.VerifyAudit(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// refused checks the code of a refusal and its words; "" for any words.
func refused(t testing.TB, err error, code fault.Code, text string) {
	t.Helper()
	if wrong := unlike(err, code, text); wrong != "" {
		t.Error(wrong)
	}
}

// unlike says what is wrong with a refusal, or nothing.
func unlike(err error, code fault.Code, text string) string {
	switch {
	case err == nil:
		return fmt.Sprintf("not refused, want %s %q", code, text)
	case fault.CodeOf(err) != code || text != "" && fault.Message(err) != text:
		return fmt.Sprintf("got %s %q (%v), want %s %q", fault.CodeOf(err), fault.Message(err), err, code, text)
	}
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A key signs proofs.
type key struct {
	ssh.Signer
	algorithm string // of signatures
}

func newKey(t testing.TB) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return keyOf(t, private, ssh.KeyAlgoED25519)
}

func keyOf(t testing.TB, private any, algorithm string) key {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return key{s, algorithm}
}

func (k key) line() string        { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))) }
func (k key) fingerprint() string { return auth.Fingerprint(k.PublicKey()) }

// proof signs a time and a fresh nonce.
func (k key) proof(at time.Time) auth.Proof {
	return k.sign(strconv.FormatInt(at.Unix(), 10), rand.Text())
}

func (k key) sign(stamp, nonce string) auth.Proof {
	sig, err := k.Signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte(stamp+"|"+nonce), k.algorithm)
	if err != nil {
		panic(err)
	}
	return auth.Proof{PublicKey: k.line(), Timestamp: stamp, Nonce: nonce, Signature: base64.StdEncoding.EncodeToString(ssh.Marshal(sig))}
}

// keyed creates a principal with a key.
func (r *rig) keyed(name string, roles ...auth.Role) (auth.Principal, key) {
	r.t.Helper()
	k := newKey(r.t)
	p, err := r.CreatePrincipal(system, auth.NewPrincipal{Kind: auth.Agent, Name: name, PublicKey: k.line(), Roles: roles})
	must(r.t, err)
	return p, k
}
