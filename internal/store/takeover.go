package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/fault"
)

// A Takeover takes over what the public gateway has kept (http.md 6) into an empty database.
type Takeover struct {
	Old    string // path of the public gateway's database; it is only read
	DryRun bool   // everything is done, and then undone

	// Seal puts a value into a secret, as it is stored.
	Seal func(x auth.Secret, value string) auth.Secret
	// Audit appends to the audit log.
	Audit func(auth.Tx, auth.AuditRecord) error
}

// A TakeoverReport says what became of everything in the old database.
type TakeoverReport struct {
	DryRun bool          `json:"dry_run"`
	Tables []*TakenTable `json:"tables"`
	Notes  []string      `json:"notes"` // what an operator should know

	Conversations int `json:"conversations"`
	Threads       int `json:"threads"`
	Turns         int `json:"turns"`
	Events        int `json:"events"`
}

// A TakenTable says what became of the rows of a table: Found is Taken and all that is in Left.
type TakenTable struct {
	Table string      `json:"table"`
	Found int         `json:"found"`
	Taken int         `json:"taken"`
	Left  []*LeftRows `json:"not_taken"`
}

// LeftRows are rows that were not taken over, and why.
type LeftRows struct {
	Reason   string   `json:"reason"`
	Rows     int      `json:"rows"`
	Examples []string `json:"examples,omitempty"` // ids of some of them
}

// maxExamples bounds the ids that a report names for one reason.
const maxExamples = 5

func (t *TakenTable) leave(reason, id string) {
	i := slices.IndexFunc(t.Left, func(l *LeftRows) bool { return l.Reason == reason })
	if i < 0 {
		i = len(t.Left)
		t.Left = append(t.Left, &LeftRows{Reason: reason})
	}
	t.Left[i].Rows++
	if id != "" && len(t.Left[i].Examples) < maxExamples {
		t.Left[i].Examples = append(t.Left[i].Examples, id)
	}
}

func (r *TakeoverReport) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// table returns the line of a table.
func (r *TakeoverReport) table(name string) *TakenTable {
	i := slices.IndexFunc(r.Tables, func(t *TakenTable) bool { return t.Table == name })
	if i < 0 {
		i = len(r.Tables)
		r.Tables = append(r.Tables, &TakenTable{Table: name, Left: []*LeftRows{}})
	}
	return r.Tables[i]
}

// errDryRun undoes a takeover that has succeeded.
var errDryRun = errors.New("dry run")

// TakeOver takes over the database of the public gateway, all of it in one transaction: on an error
// nothing has happened. A database that has something in it already is refused.
func (db *DB) TakeOver(ctx context.Context, o Takeover) (*TakeoverReport, error) {
	old, err := openOld(ctx, o.Old)
	if err != nil {
		return nil, fmt.Errorf("the old database %s: %w", o.Old, err)
	}
	defer old.close()
	t := &takeover{
		Takeover: o, ctx: ctx, old: old, report: &TakeoverReport{DryRun: o.DryRun, Notes: []string{}},
		principals: make(map[string]bool), agents: make(map[string]bool),
	}
	err = db.Do(ctx, func(tx *Tx) error {
		t.tx = identityTx{identityReader{context.Background(), tx.w.conn}, tx}
		if err := t.run(); err != nil {
			return err
		}
		if o.DryRun {
			return errDryRun
		}
		return context.Cause(ctx)
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return t.report, nil
}

// takeover is one under way.
type takeover struct {
	Takeover
	ctx    context.Context
	old    *oldDB
	tx     identityTx
	report *TakeoverReport

	principals map[string]bool // that were taken
	agents     map[string]bool // ids that appear in the old database
	badTimes   int             // that could not be read and are unknown now
}

func (t *takeover) run() error {
	if err := t.refuse(); err != nil {
		return err
	}
	for _, name := range t.old.tables() {
		n, err := t.old.count(name)
		if err != nil {
			return err
		}
		t.report.table(name).Found = n
	}
	for _, step := range []func() error{
		t.takePrincipals, t.takeRoles, t.takeLedger, t.takeBindings, t.takeSecrets, t.takeUsers,
		t.takeLog, t.takeTodos, t.takePosts, t.takeMail, t.takeNotes, t.leaveRest,
	} {
		if err := step(); err != nil {
			return err
		}
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
	}
	t.notes()
	detail := map[string]any{
		"conversations": t.report.Conversations, "threads": t.report.Threads, "turns": t.report.Turns, "events": t.report.Events,
	}
	for _, table := range t.report.Tables {
		left := table.Found - table.Taken
		for _, l := range table.Left {
			left -= l.Rows
		}
		if left != 0 {
			return fmt.Errorf("the counts of table %s do not add up: %d of its %d rows are unaccounted for", table.Table, left, table.Found)
		}
		if table.Taken > 0 {
			detail["table_"+table.Table] = table.Taken
		}
	}
	return t.Audit(t.tx, auth.NewRecord(auth.Principal{}, "import", "database", filepath.Base(t.Old), detail))
}

// filled are the tables that have to be empty, and what they hold.
var filled = []struct{ table, what string }{
	{"principals", "principals"},
	{"conversations", "conversations"},
	{"threads", "threads"},
	{"bindings", "bindings"},
	{"secrets", "secrets"},
	{"users", "users"},
	{"tool_log", "log entries"},
	{"tool_todos", "todos"},
	{"tool_posts", "posts"},
	{"tool_mail", "mails"},
	{"tool_notes", "notes"},
}

// refuse returns an error that names what the new database has in it already.
func (t *takeover) refuse() error {
	var has []string
	for _, f := range filled {
		n, err := t.tx.count("SELECT COUNT(*) FROM " + f.table)
		if err != nil {
			return err
		}
		if n > 0 {
			has = append(has, fmt.Sprintf("%d %s", n, f.what))
		}
	}
	if len(has) == 0 {
		return nil
	}
	return fmt.Errorf("the database of this gateway is in use: it has %s; take over into a new data directory", strings.Join(has, ", "))
}

// at reads a time; one that is missing or that nobody can read is the zero value.
func (t *takeover) at(r oldRow, column string) time.Time {
	text := r.text(column)
	if text == "" {
		return time.Time{}
	}
	at, ok := oldTime(text)
	if !ok {
		t.badTimes++
	}
	return at
}

func (t *takeover) takePrincipals() error {
	table := t.report.table("principals")
	// A login is looked up by the fingerprint in lower case. Of several principals with one key, the
	// one that can log in with it keeps it.
	holder, twice := make(map[string]string), make(map[string]int)
	for _, asIs := range []bool{true, false} {
		err := t.old.each("principals", []string{"principal_id", "pubkey_fingerprint"}, "created_at, rowid", func(r oldRow) error {
			fp := r.text("pubkey_fingerprint")
			if lower := strings.ToLower(fp); asIs == (fp == lower) {
				if twice[lower]++; holder[lower] == "" {
					holder[lower] = r.text("principal_id")
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	metadata := 0
	columns := []string{"principal_id", "type", "pubkey_fingerprint", "display_name", "status", "created_at", "last_seen", "metadata_json"}
	err := t.old.each("principals", columns, "created_at, rowid", func(r oldRow) error {
		p := auth.Principal{
			ID: r.text("principal_id"), Kind: auth.Kind(r.text("type")), Name: r.text("display_name"),
			CreatedAt: t.at(r, "created_at"), LastSeen: t.at(r, "last_seen"),
		}
		switch s := r.text("status"); s {
		case "pending", "revoked", "approved":
			p.Status = auth.Status(s)
		case "online", "offline": // they could call
			p.Status = auth.Approved
		default:
			table.leave("the status "+s+" is unknown", p.ID)
			return nil
		}
		switch p.Kind {
		case auth.Client, auth.Agent, auth.Pack:
		default:
			table.leave("the type "+string(p.Kind)+" is unknown", p.ID)
			return nil
		}
		if p.ID == "" {
			table.leave("it has no id", p.Name)
			return nil
		}
		if err := t.tx.AddPrincipal(p); err != nil {
			return err
		}
		if err := t.tx.Touch(auth.Usage{Principals: map[string]time.Time{p.ID: p.LastSeen}}); err != nil {
			return err
		}
		t.principals[p.ID] = true
		table.Taken++
		if m := r.text("metadata_json"); m != "" && m != "{}" && m != "null" {
			metadata++
		}
		return t.takeKey(p, r.text("pubkey_fingerprint"), holder, twice)
	})
	if metadata > 0 {
		t.report.note("%d principals had metadata (metadata_json), for which there is no place here", metadata)
	}
	return err
}

// takeKey gives a principal its key, unless somebody else has it.
func (t *takeover) takeKey(p auth.Principal, fingerprint string, holder map[string]string, twice map[string]int) error {
	if fingerprint == "" {
		return nil
	}
	fp, err := auth.ParseFingerprint(fingerprint)
	if err != nil {
		t.report.note("principal %s (%s) was taken without its key %q: %s", p.ID, p.Name, fingerprint, fault.Message(err))
		return nil
	}
	if holder[fp] != p.ID {
		t.report.note("principal %s (%s) was taken without its key %s: %d principals have it in different spelling, it stays with %s",
			p.ID, p.Name, fingerprint, twice[fp], holder[fp])
		return nil
	}
	return t.tx.AddKey(auth.Key{Fingerprint: fp, PrincipalID: p.ID, AddedAt: p.CreatedAt})
}

func (t *takeover) takeRoles() error {
	table := t.report.table("roles")
	return t.old.each("roles", []string{"subject_type", "subject_id", "role", "created_at"}, "created_at, rowid", func(r oldRow) error {
		id, role := r.text("subject_id"), auth.Role(r.text("role"))
		_, err := auth.ParseRole(string(role))
		switch {
		case r.text("subject_type") != "principal":
			table.leave("a role of a "+r.text("subject_type")+": there are only principals here", id)
			return nil
		case err != nil:
			table.leave("the role "+string(role)+" is unknown", id)
			return nil
		case !t.principals[id]:
			table.leave("its principal does not exist", id)
			return nil
		}
		set, err := t.tx.SetRole(id, role, true, "", t.at(r, "created_at"))
		if err == nil && !set {
			err = fmt.Errorf("principal %s has the role %s twice", id, role)
		}
		table.Taken++
		return err
	})
}

func (t *takeover) takeBindings() error {
	table := t.report.table("bindings")
	columns := []string{"binding_id", "frontend", "channel_id", "agent_id", "working_dir", "created_at", "created_by"}
	return t.old.each("bindings", columns, "created_at, rowid", func(r oldRow) error {
		// The column holds principals. Where the public gateway has destroyed a binding (http.md 3.3)
		// it holds an agent id, which is good here.
		agent := r.text("agent_id")
		if !t.principals[agent] && !t.agents[agent] {
			table.leave("its agent is neither a principal nor an agent that is known", r.text("binding_id"))
			return nil
		}
		table.Taken++
		_, err := t.tx.exec(`
			INSERT INTO bindings (binding_id, frontend, channel_id, agent_id, working_dir, created_at, created_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.text("binding_id"), r.text("frontend"), r.text("channel_id"), agent, r.text("working_dir"), micros(t.at(r, "created_at")), r.text("created_by"))
		return err
	})
}

func (t *takeover) takeSecrets() error {
	table := t.report.table("secrets")
	seen := make(map[[2]string]bool)
	columns := []string{"id", "key", "value", "agent_id", "created_at", "updated_at", "created_by"}
	return t.old.each("secrets", columns, "agent_id IS NOT NULL, rowid", func(r oldRow) error {
		x := auth.Secret{
			ID: r.text("id"), Name: r.text("key"), AgentID: r.text("agent_id"),
			CreatedAt: t.at(r, "created_at"), CreatedBy: r.text("created_by"), UpdatedAt: t.at(r, "updated_at"),
		}
		if err := auth.CheckSecret(x.Name, r.text("value")); err != nil {
			table.leave(fault.Message(err), x.ID)
			return nil
		}
		if seen[[2]string{x.Name, x.AgentID}] { // one agent_id was NULL, the other ''
			table.leave("there is a secret with the same name and agent", x.ID)
			return nil
		}
		seen[[2]string{x.Name, x.AgentID}] = true
		table.Taken++
		return t.tx.PutSecret(t.Seal(x, r.text("value")))
	})
}

func (t *takeover) takeUsers() error {
	table := t.report.table("admin_users")
	bare := 0
	columns := []string{"id", "username", "password_hash", "display_name", "created_at"}
	err := t.old.each("admin_users", columns, "created_at, rowid", func(r oldRow) error {
		if r.text("password_hash") == "" {
			bare++
		}
		table.Taken++
		_, err := t.tx.exec(`INSERT INTO users (user_id, username, display_name, password_hash, created_at) VALUES ($1, $2, $3, $4, $5)`,
			r.text("id"), r.text("username"), r.text("display_name"), r.text("password_hash"), micros(t.at(r, "created_at")))
		return err
	})
	if bare > 0 {
		t.report.note("%d web users have no password: they logged in with passkeys, which are not taken over", bare)
	}
	return err
}

func (t *takeover) takeLog() error {
	table := t.report.table("log_entries")
	return t.old.each("log_entries", []string{"id", "agent_id", "message", "tags", "created_at"}, "rowid", func(r oldRow) error {
		tags := []string{}
		if text := r.text("tags"); text != "" && json.Unmarshal([]byte(text), &tags) != nil {
			tags = []string{text} // not an array of words; it is kept as one
		}
		if tags == nil { // null
			tags = []string{}
		}
		encoded, err := json.Marshal(tags)
		if err != nil {
			return err
		}
		table.Taken++
		_, err = t.tx.exec(`INSERT INTO tool_log (entry_id, agent_id, message, tags, created_at) VALUES ($1, $2, $3, $4, $5)`,
			r.text("id"), r.text("agent_id"), r.text("message"), string(encoded), micros(t.at(r, "created_at")))
		return err
	})
}

func (t *takeover) takeTodos() error {
	table := t.report.table("todos")
	columns := []string{"id", "agent_id", "description", "status", "priority", "notes", "due_date", "created_at", "updated_at"}
	return t.old.each("todos", columns, "rowid", func(r oldRow) error {
		table.Taken++
		_, err := t.tx.exec(`
			INSERT INTO tool_todos (todo_id, agent_id, description, status, priority, notes, due_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			r.text("id"), r.text("agent_id"), r.text("description"), r.text("status"), r.text("priority"), r.text("notes"),
			micros(t.at(r, "due_date")), micros(t.at(r, "created_at")), micros(t.at(r, "updated_at")))
		return err
	})
}

func (t *takeover) takePosts() error {
	table := t.report.table("bbs_posts")
	ids := make(map[string]int64)
	// Posts first, then what refers to them.
	return t.old.each("bbs_posts", []string{"id", "agent_id", "thread_id", "subject", "content", "created_at"}, "COALESCE(thread_id, '') <> '', rowid", func(r oldRow) error {
		var parent any
		if about := r.text("thread_id"); about != "" {
			id, ok := ids[about]
			if !ok {
				table.leave("the post that it answers does not exist", r.text("id"))
				return nil
			}
			parent = id
		}
		table.Taken++
		res, err := t.tx.exec(`INSERT INTO tool_posts (post_id, parent_id, agent_id, subject, content, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			r.text("id"), parent, r.text("agent_id"), r.text("subject"), r.text("content"), micros(t.at(r, "created_at")))
		if err != nil {
			return err
		}
		if parent == nil {
			ids[r.text("id")], err = res.LastInsertId()
		}
		return err
	})
}

func (t *takeover) takeMail() error {
	table := t.report.table("agent_mail")
	columns := []string{"id", "from_agent_id", "to_agent_id", "subject", "content", "read_at", "created_at"}
	return t.old.each("agent_mail", columns, "rowid", func(r oldRow) error {
		table.Taken++
		_, err := t.tx.exec(`
			INSERT INTO tool_mail (mail_id, from_agent_id, to_agent_id, subject, content, read_at, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.text("id"), r.text("from_agent_id"), r.text("to_agent_id"), r.text("subject"), r.text("content"),
			micros(t.at(r, "read_at")), micros(t.at(r, "created_at")))
		return err
	})
}

func (t *takeover) takeNotes() error {
	table := t.report.table("agent_notes")
	return t.old.each("agent_notes", []string{"agent_id", "key", "value", "created_at", "updated_at"}, "rowid", func(r oldRow) error {
		table.Taken++
		_, err := t.tx.exec(`INSERT INTO tool_notes (agent_id, key, value, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)`,
			r.text("agent_id"), r.text("key"), r.text("value"), micros(t.at(r, "created_at")), micros(t.at(r, "updated_at")))
		return err
	})
}

// notTaken are the tables that stay behind, and why.
var notTaken = map[string]string{
	"messages":             "no longer written by the public gateway, which copies them to ledger_events",
	"agent_state":          "never used by the public gateway",
	"channel_bindings":     "never used by the public gateway",
	"audit_log":            "the audit log here is chained and signed from its beginning; the old one stays in the old database",
	"admin_sessions":       "people log in again",
	"admin_invites":        "they are valid for a short time",
	"link_codes":           "they are valid for ten minutes, and hold tokens in clear",
	"webauthn_credentials": "passkeys are bound to the old pages: people register new ones",
}

// leaveRest accounts for the tables that are not taken over.
func (t *takeover) leaveRest() error {
	for _, table := range t.report.Tables {
		reason, known := notTaken[table.Table]
		if !known && !slices.Contains(oldTables, table.Table) {
			reason = "not a table of the public gateway"
		}
		if reason != "" && table.Found > 0 {
			table.Left = append(table.Left, &LeftRows{Reason: reason, Rows: table.Found})
		}
	}
	if t.old.has("messages", "id") {
		var missing int
		err := t.old.tx.QueryRowContext(t.ctx, `SELECT COUNT(*) FROM messages WHERE id NOT IN (SELECT event_id FROM ledger_events)`).Scan(&missing)
		if err != nil {
			return err
		}
		if missing > 0 {
			t.report.note("%d rows of messages are not in ledger_events and are NOT taken over: start the public gateway once, which copies them, and import again", missing)
		}
	}
	return nil
}

// notes are what an operator has to know about any takeover.
func (t *takeover) notes() {
	if t.badTimes > 0 {
		t.report.note("%d times could not be read and are unknown now", t.badTimes)
	}
	if len(t.principals) > 0 {
		if n, err := t.tx.Owners(); err == nil && n == 0 {
			t.report.note("no approved principal has the role owner: without auth.jwt_secret everybody on the gateway's own machine is one, and can make one")
		}
	}
	if len(t.agents) > 0 {
		t.report.note("agent ids have no owner yet: each belongs to the first principal that connects with it, " +
			"which sees the conversation and gets the agent's secrets once an administrator confirms it (coven-admin agents transfer AGENT PRINCIPAL)")
	}
}

// An oldDB is the database of the public gateway, in one transaction that only reads.
type oldDB struct {
	ctx     context.Context
	db      *sql.DB
	tx      *sql.Tx
	columns map[string]map[string]bool // by table
}

// oldTables are the tables of the public gateway (http.md 6.1) in the order of a report.
var oldTables = []string{
	"principals", "roles", "bindings", "threads", "ledger_events", "message_usage", "secrets", "admin_users",
	"log_entries", "todos", "bbs_posts", "agent_mail", "agent_notes",
	"messages", "agent_state", "channel_bindings", "audit_log", "admin_sessions", "admin_invites", "link_codes", "webauthn_credentials",
}

// openOld opens a database of the public gateway. Nothing in it is changed. Without a write-ahead
// log nothing beside it is, either; with one SQLite needs its index, OLD.db-shm.
func openOld(ctx context.Context, path string) (*oldDB, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	db, err := openReadOnly(path)
	if wal, statErr := os.Stat(path + "-wal"); err == nil && (statErr != nil || wal.Size() == 0) {
		_ = db.Close() // no connection yet
		db, err = openImmutable(path)
	}
	if err != nil {
		return nil, err
	}
	old := &oldDB{ctx: ctx, db: db, columns: make(map[string]map[string]bool)}
	if err := old.begin(); err != nil {
		return nil, errors.Join(err, old.close())
	}
	return old, nil
}

func (o *oldDB) begin() (err error) {
	o.db.SetMaxOpenConns(1)
	if o.tx, err = o.db.BeginTx(o.ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return err
	}
	_, err = query(o.ctx, o.tx, func(row scanner) (struct{}, error) {
		var table, column string
		err := row.Scan(&table, &column)
		if o.columns[table] == nil {
			o.columns[table] = map[string]bool{"rowid": true}
		}
		o.columns[table][column] = true
		return struct{}{}, err
	}, `SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	if err != nil {
		return err
	}
	for table, column := range map[string]string{"principals": "pubkey_fingerprint", "threads": "external_id", "ledger_events": "conversation_key"} {
		if !o.has(table, column) {
			return fmt.Errorf("it is not a database of the public gateway: it has no %s.%s", table, column)
		}
	}
	return nil
}

func (o *oldDB) close() error {
	var err error
	if o.tx != nil {
		err = o.tx.Rollback()
	}
	return errors.Join(err, o.db.Close())
}

func (o *oldDB) has(table, column string) bool { return o.columns[table][column] }

// tables returns the tables that are there: those that are known first, in their order.
func (o *oldDB) tables() []string {
	var known, others []string
	for _, name := range oldTables {
		if o.columns[name] != nil {
			known = append(known, name)
		}
	}
	for name := range o.columns {
		if !slices.Contains(oldTables, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return append(known, others...)
}

func (o *oldDB) count(table string) (n int, err error) {
	err = o.tx.QueryRowContext(o.ctx, `SELECT COUNT(*) FROM "`+strings.ReplaceAll(table, `"`, `""`)+`"`).Scan(&n)
	return n, err
}

// each calls fn with the rows of a table. Every column is read as text; those that an older public
// gateway has not made yet are empty, and so is a table that is not there. A column may be written
// name=expression.
func (o *oldDB) each(table string, columns []string, order string, fn func(oldRow) error) error {
	if o.columns[table] == nil {
		return nil
	}
	r := oldRow{make(map[string]int, len(columns)), make([]sql.NullString, len(columns))}
	expressions, dest := make([]string, len(columns)), make([]any, len(columns))
	for i, c := range columns {
		name, expression, given := strings.Cut(c, "=")
		switch {
		case given:
			expressions[i] = expression
		case !o.has(table, name):
			expressions[i] = "NULL"
		default:
			expressions[i] = `CAST("` + name + `" AS TEXT)` // the driver would make times of some columns
		}
		r.index[name], dest[i] = i, &r.values[i]
	}
	if strings.HasPrefix(order, "created_at") && !o.has(table, "created_at") {
		order = "rowid"
	}
	rows, err := o.tx.QueryContext(o.ctx, "SELECT "+strings.Join(expressions, ", ")+" FROM "+table+" ORDER BY "+order)
	if err != nil {
		return fmt.Errorf("table %s of the old database: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("table %s of the old database: %w", table, err)
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// An oldRow is a row of the old database; it is valid until the next one is read.
type oldRow struct {
	index  map[string]int
	values []sql.NullString
}

// text returns a column, "" where it is NULL.
func (r oldRow) text(column string) string { return r.values[r.index[column]].String }

// oldTimes are the forms in which the public gateway, its driver and SQLite write times.
var oldTimes = []string{
	time.RFC3339Nano,
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04:05.999999999 -0700 MST",
	"2006-01-02 15:04:05.999999999", // UTC, like CURRENT_TIMESTAMP
	"2006-01-02",
}

// oldTime reads a time in whatever zone it was written.
func oldTime(text string) (time.Time, bool) {
	text, _, _ = strings.Cut(text, " m=") // a monotonic clock
	for _, form := range oldTimes {
		if at, err := time.Parse(form, text); err == nil {
			return at.UTC().Truncate(time.Microsecond), true
		}
	}
	return time.Time{}, false
}
