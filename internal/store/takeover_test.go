package store_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"coven-gateway/internal/auth"
	"coven-gateway/internal/config"
	"coven-gateway/internal/conversation"
	"coven-gateway/internal/gateway"
	"coven-gateway/internal/gatewaytest"
	"coven-gateway/internal/store"
)

// oldDatabase makes a database of the public gateway and runs statements in it.
func oldDatabase(t testing.TB, statements ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "old.db")
	schema, err := os.ReadFile("testdata/old.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := openOld(t, path)
	for _, text := range append([]string{string(schema)}, statements...) {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func openOld(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// realistic is a database with everything that occurs.
func realistic(t testing.TB) (path string) {
	t.Helper()
	rows, err := os.ReadFile("testdata/old_rows.sql")
	if err != nil {
		t.Fatal(err)
	}
	return oldDatabase(t, string(rows))
}

func configAt(p store.Place) config.Config {
	cfg := config.Default()
	in(p)(&cfg)
	return cfg
}

func takeOver(t testing.TB, old string, p store.Place) *store.TakeoverReport {
	t.Helper()
	r, err := gateway.TakeOver(ctx, configAt(p), slog.New(slog.DiscardHandler), old, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Verify(ctx, p.Database); err != nil {
		t.Error(err)
	}
	return r
}

// line writes the line of a table as "found taken reason:rows…".
func line(t *store.TakenTable) string {
	s := fmt.Sprint(t.Found, " ", t.Taken)
	for _, l := range t.Left {
		s += fmt.Sprintf("; %d %s %v", l.Rows, l.Reason, l.Examples)
	}
	return s
}

func TestTakeoverReport(t *testing.T) {
	r := takeOver(t, realistic(t), placeAt(t.TempDir()))
	want := map[string]string{
		"principals":           "5 5",
		"roles":                "5 3; 1 its principal does not exist [nobody]; 1 a role of a member: there are only principals here [client-lq1-0001]",
		"bindings":             "3 2; 1 its agent is neither a principal nor an agent that is known [b3]",
		"threads":              "5 3; 2 nobody has said anything in it [notes t-empty]",
		"ledger_events":        "33 31; 1 its conversation is that of a thread that does not exist, so that nobody knows the agent [e4]; 1 its time cannot be read [e5]",
		"message_usage":        "4 3; 1 nothing was stored of its thread [u4]",
		"secrets":              "4 2; 1 LD_PRELOAD must not be a secret: it changes which programs an agent's machine runs [s4]; 1 there is a secret with the same name and agent [s3]",
		"admin_users":          "2 2",
		"log_entries":          "3 3",
		"todos":                "1 1",
		"bbs_posts":            "3 2; 1 the post that it answers does not exist [p3]",
		"agent_mail":           "2 2",
		"agent_notes":          "1 1",
		"messages":             "2 0; 2 no longer written by the public gateway, which copies them to ledger_events []",
		"agent_state":          "0 0",
		"channel_bindings":     "0 0",
		"audit_log":            "1 0; 1 the audit log here is chained and signed from its beginning; the old one stays in the old database []",
		"admin_sessions":       "1 0; 1 people log in again []",
		"admin_invites":        "0 0",
		"link_codes":           "1 0; 1 they are valid for ten minutes, and hold tokens in clear []",
		"webauthn_credentials": "1 0; 1 passkeys are bound to the old pages: people register new ones []",
		"mine":                 "1 0; 1 not a table of the public gateway []",
	}
	got := map[string]string{}
	for _, table := range r.Tables {
		got[table.Table] = line(table)
		if got[table.Table] != want[table.Table] {
			t.Errorf("%s: got  %s\nwant %s", table.Table, got[table.Table], want[table.Table])
		}
	}
	if len(got) != len(want) {
		t.Errorf("the report has the tables %v", slices.Sorted(maps.Keys(got)))
	}
	notes := strings.Join(r.Notes, "\n")
	for _, text := range []string{
		"pack-lq1-0005 (tools) was taken without its key \"not a fingerprint\"",
		"agent-lq1-0002 (laptop) was taken without its key AAAA",
		"it stays with agent-lq1-0003",
		"1 principals had metadata",
		"1 threads had no row in threads",
		"1 threads were used by an agent that they did not belong to",
		"1 turns begin without a message",
		"1 turns have no answer",
		"3 tool calls and results were not in a form that is known",
		"of 10 turns nobody knows which principal began them",
		"1 web users have no password",
		"1 rows of messages are not in ledger_events",
		"agent ids have no owner yet",
	} {
		if !strings.Contains(notes, text) {
			t.Errorf("no note says %q:\n%s", text, notes)
		}
	}
	if r.Conversations != 3 || r.Threads != 5 || r.Turns != 11 || r.Events != 45 {
		t.Errorf("got %d conversations, %d threads, %d turns, %d events", r.Conversations, r.Threads, r.Turns, r.Events)
	}
}

// said writes the log of an agent, one event per line.
func said(t testing.TB, s *conversation.Service, agent string) []string {
	t.Helper()
	p, err := s.Events(gatewaytest.Ctx(), agent, conversation.Filter{}, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range p.Events {
		var text string
		switch b := e.Body.(type) {
		case conversation.Message:
			text = fmt.Sprintf("%s asks %s", b.Sender, b.Text)
		case conversation.Text:
			text = fmt.Sprintf("text %.20s", b.Text)
		case conversation.Thinking:
			text = "thinking " + b.Text
		case conversation.ToolCall:
			text = fmt.Sprintf("call %s %s %s", b.ID, b.Name, b.Input)
		case conversation.ToolResult:
			text = fmt.Sprintf("result %s %q %v", b.ID, b.Output, b.IsError)
		case conversation.Trouble:
			text = "trouble " + b.Text
		case conversation.Usage:
			text = fmt.Sprint("usage ", b)
		case conversation.Ended:
			text = fmt.Sprintf("%s %s %.20s", b.State, b.Cause, b.Response)
		default:
			t.Fatalf("an event of type %T", b)
		}
		lines = append(lines, fmt.Sprintf("%d %s %s %s %s", e.Seq, e.ThreadID, e.TurnID, e.At.Format("02T15:04:05"), strings.TrimSpace(text)))
	}
	return lines
}

func TestTakeoverConversations(t *testing.T) {
	p := placeAt(t.TempDir())
	takeOver(t, realistic(t), p)
	g := gatewaytest.New(t, in(p)) // checks the log when the test ends
	s := g.Conversations()
	for agent, want := range map[string][]string{
		"notes": {
			"1 t-matrix a5 06T09:10:01 @ada:example.org asks How many files are there?\nAnd which?",
			`2 t-matrix a5 06T09:10:01 call t1 list {"path": "/w"}`,
			`3 t-matrix a5 06T09:10:01 result t1 "a.txt\nb.txt\x01" false`,
			"4 t-matrix a5 06T09:10:01 call t2 read",
			`5 t-matrix a5 06T09:10:01 result t2 "no such \"file\"" true`,
			"6 t-matrix a5 06T09:10:01 usage {100 20 5 6 7}",
			"7 t-matrix a5 06T09:10:01 text There are three file",
			"8 t-matrix a5 06T09:10:01 done  There are three file",
			"9 t-matrix a7 06T09:40:00 @ada:example.org asks One?",
			"10 t-matrix a7 06T09:40:00 text Uno.",
			"11 t-matrix a7 06T09:40:00 done  Uno.",
			"12 t-matrix a9 06T09:40:00 @ada:example.org asks Two?",
			"13 t-matrix a9 06T09:40:00 text Due.",
			"14 t-matrix a9 06T09:40:00 done  Due.",
			"15 t-direct b1 06T09:40:00 me asks Write a lot.",
			"16 t-direct b1 06T09:40:00 call   something {else",
			`17 t-direct b1 06T09:40:01 result  "{\"id\":\"t1\",\"output\":\"cut" false`,
			"18 t-direct b1 06T09:40:02 thinking compacting",
			"19 t-direct b1 06T09:40:03 text xxxxxxxxxxxxxxxxxxxx",
			"20 t-direct b1 06T09:40:03 done  xxxxxxxxxxxxxxxxxxxx",
			"21 t-matrix ab 06T09:41:00 @ada:example.org asks Nobody answers this.",
			"22 t-matrix ab 06T09:41:05 usage {1 2 0 0 0}",
			"23 t-matrix ab 06T09:41:05 interrupted imported: no answer was recorded",
			"24 t-direct b6 06T09:50:00 text This answers somethi",
			"25 t-direct b6 06T09:50:00 done  This answers somethi",
		},
		"helper": {
			"1 t-direct~helper c1 06T11:00:00 me asks And you?",
			"2 t-direct~helper c1 06T11:00:02 usage {10 20 0 0 0}",
			"3 t-direct~helper c1 06T11:00:05 text Me too.",
			"4 t-direct~helper c1 06T11:00:05 done  Me too.",
			"5 helper d1 08T07:00:00 client asks What time is it?",
			`6 helper d1 08T07:00:01 call  clock {"tz":"Europe/Berlin"}`,
			`7 helper d1 08T07:00:01 result  "{\"id\":\"x\",\"output\":\"08:00\",\"is_error\":false}" false`,
			"8 helper d1 08T07:00:02 text Eight.",
			"9 helper d1 08T07:00:02 done  Eight.",
			"10 helper d5 08T07:30:00 client asks Are you there?",
			"11 helper d5 08T07:30:00 trouble agent not found",
			"12 helper d5 08T07:30:00 failed agent not found",
			"13 helper d7 08T07:31:00 client asks",
			"14 helper d7 08T07:31:01 trouble rate limited, going on",
			"15 helper d7 08T07:31:02 text Now I am.",
			"16 helper d7 08T07:31:02 done  Now I am.",
		},
		"elder": {
			"1 t-legacy e1 01T10:00:00 U1 asks Old question",
			`2 t-legacy e1 01T10:00:09 call   {"path":"/etc"}`,
			"3 t-legacy e1 01T10:00:10 text Old answer",
			"4 t-legacy e1 01T10:00:10 done  Old answer",
		},
	} {
		got := said(t, s, agent)
		for i := range max(len(got), len(want)) {
			var g, w string
			if i < len(got) {
				g = got[i]
			}
			if i < len(want) {
				w = strings.Join(strings.Fields(want[i]), " ")
			}
			if strings.Join(strings.Fields(g), " ") != w {
				t.Errorf("%s: got  %q\n%swant %q", agent, g, strings.Repeat(" ", len(agent)+2), w)
			}
		}
	}
	threads, err := s.Threads(gatewaytest.Ctx(), conversation.ThreadQuery{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, th := range threads {
		list = append(list, fmt.Sprintf("%s|%s|%s|%s|%s|%d|%s|%s", th.ID, th.AgentID, th.Frontend, th.ExternalID, th.Title, th.Turns,
			th.CreatedAt.Format(time.RFC3339), th.UpdatedAt.Format(time.RFC3339)))
	}
	want := []string{
		"helper|helper|direct|helper|What time is it?|3|2026-01-08T07:00:00Z|2026-01-08T07:31:02Z",
		"t-direct~helper|helper|direct|t-direct~helper|And you?|1|2026-01-06T11:00:00Z|2026-01-06T11:00:05Z",
		"t-direct|notes|direct|t-direct|Write a lot.|2|2026-01-06T10:00:00Z|2026-01-06T09:50:00Z",
		"t-matrix|notes|matrix|!room:example.org|How many files are there?|4|2026-01-06T09:10:00Z|2026-01-06T09:41:05Z",
		"t-legacy|elder|slack|C9|Old question|1|2025-06-01T10:00:00Z|2025-06-01T10:00:10Z",
	}
	if !slices.Equal(list, want) {
		t.Errorf("the threads are\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(want, "\n"))
	}
	for id, want := range map[string]string{
		"a5": "done @ada:example.org  1 8 09:10:01 09:10:01 09:10:01 1",
		"a7": "done @ada:example.org client-lq1-0001 9 11 09:40:00 09:40:00 09:40:00 0",
		"ab": "interrupted @ada:example.org  21 23 09:41:00 00:00:00 09:41:05 1",
		"b6": "done   24 25 09:50:00 09:50:00 09:50:00 0",
		"d5": "failed client  10 12 07:30:00 00:00:00 07:30:00 0",
	} {
		turn, err := s.Turn(gatewaytest.Ctx(), id)
		if err != nil {
			t.Fatal(err)
		}
		const clock = "15:04:05"
		got := fmt.Sprintf("%s %s %s %d %d %s %s %s %d", turn.State, turn.Sender, turn.PrincipalID, turn.First, turn.Last,
			turn.StartedAt.Format(clock), turn.FirstEventAt.Format(clock), turn.EndedAt.Format(clock), turn.UsageReports)
		if got != want {
			t.Errorf("turn %s: got %s, want %s", id, got, want)
		}
	}
	if total, err := s.UsageTotal(gatewaytest.Ctx(), conversation.UsageFilter{}); err != nil || total.Reports != 3 || total.Input != 111 || total.Thinking != 7 {
		t.Errorf("usage is %+v: %v", total, err)
	}

	// The log goes on.
	a := g.Agent("notes")
	turn, err := s.Send(gatewaytest.Ctx(), conversation.SendRequest{AgentID: "notes", ThreadID: "t-matrix", Frontend: "matrix", Sender: "me", Text: "Three?"})
	if err != nil || turn.First != 26 {
		t.Fatalf("the next turn is %+v: %v", turn, err)
	}
	a.Done(a.Message().GetRequestId(), "Tre.")
	r, err := s.Reader(gatewaytest.Ctx(), "notes", conversation.Filter{}, 25)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wait, cancel := context.WithTimeout(gatewaytest.Ctx(), gatewaytest.Patience)
	defer cancel()
	for r.Position() < 27 { // the message and the end
		if _, err := r.Next(wait); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakeoverOverHTTP: existing clients find what they knew, with the tokens that they have.
func TestTakeoverOverHTTP(t *testing.T) {
	p := placeAt(t.TempDir())
	takeOver(t, realistic(t), p)
	g := gatewaytest.New(t, in(p), gatewaytest.Locked)
	old := func(subject, secret string) string { // what the public gateway puts into a token
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": subject, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	get := func(path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := g.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, c := range []struct {
		subject, secret string
		want            int
	}{
		{"client-lq1-0001", gatewaytest.JWTSecret, http.StatusOK},
		{"agent-lq1-0002", gatewaytest.JWTSecret, http.StatusOK},
		{"client-lq1-0001", strings.Repeat("x", 32), http.StatusUnauthorized},
		{"agent-lq1-0004", gatewaytest.JWTSecret, http.StatusForbidden}, // pending
		{"pack-lq1-0005", gatewaytest.JWTSecret, http.StatusForbidden},  // revoked
		{"nobody", gatewaytest.JWTSecret, http.StatusUnauthorized},
	} {
		if code, body := get("/api/threads", old(c.subject, c.secret)); code != c.want {
			t.Errorf("%s: got %d %s, want %d", c.subject, code, body, c.want)
		}
	}
	owner := old("client-lq1-0001", gatewaytest.JWTSecret)
	var history struct {
		Events []struct{ Text, Type, Direction string }
	}
	code, body := get("/api/agents/notes/history?limit=100", owner)
	if err := json.Unmarshal([]byte(body), &history); err != nil || code != http.StatusOK || len(history.Events) != 17 {
		t.Errorf("the history has %d events: %d %s (%v)", len(history.Events), code, body, err)
	}
	if code, body := get("/api/threads/t-matrix/messages", owner); code != http.StatusOK || !strings.Contains(body, "größer als gestern") {
		t.Errorf("the messages of a thread: %d %s", code, body)
	}
	if code, body := get("/api/threads", owner); code != http.StatusOK || strings.Count(body, `"agent_id"`) != 5 {
		t.Errorf("the threads: %d %s", code, body)
	}
	if code, body := get("/api/threads/t-matrix/messages", old("agent-lq1-0002", gatewaytest.JWTSecret)); code != http.StatusNotFound {
		t.Errorf("a stranger reads: %d %s", code, body)
	}
}

func TestTakeoverIdentity(t *testing.T) {
	p := placeAt(t.TempDir())
	takeOver(t, realistic(t), p)
	g := gatewaytest.New(t, in(p))
	s := g.Identity()
	principals, err := s.Principals(gatewaytest.Ctx(), auth.PrincipalFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, x := range slices.Backward(principals) {
		keys, err := s.Keys(gatewaytest.Ctx(), x.ID)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %s %s %s %v %s", x.ID, x.Kind, x.Name, x.Status, x.Roles, x.CreatedAt.Format("15:04"))
		for _, k := range keys {
			line += " " + k.Fingerprint
		}
		list = append(list, line)
	}
	want := []string{
		"client-lq1-0001 client Ada approved [owner] 09:00",
		"agent-lq1-0002 agent laptop approved [member] 09:01",
		"agent-lq1-0003 agent laptop again approved [leader] 09:02 " + strings.Repeat("a", 64),
		"agent-lq1-0004 agent phone pending [] 09:03 " + strings.Repeat("b", 64),
		"pack-lq1-0005 pack tools revoked [] 09:04",
	}
	slices.Sort(list)
	slices.Sort(want)
	if !slices.Equal(list, want) {
		t.Errorf("the principals are\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(want, "\n"))
	}
	if x, err := s.Principal(gatewaytest.Ctx(), "client-lq1-0001"); err != nil || !x.LastSeen.Equal(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("the owner was last seen %v: %v", x.LastSeen, err)
	}
	for id, want := range map[string]string{"s1": "for all ✓", "s2": "of notes"} {
		if got, err := s.ReadSecret(gatewaytest.Ctx(), id); err != nil || got != want {
			t.Errorf("secret %s is %q (%v), want %q", id, got, err, want)
		}
	}
	bindings, err := g.Conversations().Bindings(gatewaytest.Ctx(), "", "")
	if err != nil || len(bindings) != 2 {
		t.Fatalf("%d bindings: %v", len(bindings), err)
	}
	if b := bindings[1]; b.ID != "b1" || b.Frontend != "matrix" || b.ChannelID != "!room:example.org" || b.AgentID != "agent-lq1-0003" || b.WorkingDir != "/home/ada/w" || b.CreatedBy != "client-lq1-0001" {
		t.Errorf("the binding is %+v", b)
	}
	if ids, err := s.AgentIDs(gatewaytest.Ctx(), "", "", 10); err != nil || len(ids) != 0 {
		t.Errorf("agent ids have owners: %v %v", ids, err)
	}
	records, err := s.AuditRecords(gatewaytest.Ctx(), auth.AuditFilter{Limit: 10})
	if err != nil || records[0].Action != "import" || records[0].Target != "old.db" || !strings.Contains(records[0].Detail, `"table_ledger_events":31`) {
		t.Errorf("the audit log begins with %+v: %v", records, err)
	}
	if v, err := s.VerifyAudit(ctx); err != nil || !v.OK {
		t.Errorf("the audit log: %+v %v", v, err)
	}
}

// rows returns what a statement finds in a database, as text.
func rows(t testing.TB, path, query string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var all []string
	for found.Next() {
		var s string
		if err := found.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTakeoverTools(t *testing.T) {
	p := placeAt(t.TempDir())
	takeOver(t, realistic(t), p)
	at := func(clock string) int64 {
		at, err := time.Parse(time.RFC3339, clock)
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixMicro()
	}
	for query, want := range map[string][]string{
		`SELECT concat_ws('|', user_id, username, display_name, password_hash, created_at) FROM users ORDER BY id`: {
			fmt.Sprint("u-ada|ada|Ada L.|$2a$10$abc|", at("2026-01-05T09:00:00Z")), fmt.Sprint("u-bob|bob|Bob||", at("2026-01-05T09:00:01Z")),
		},
		`SELECT concat_ws('|', entry_id, agent_id, message, tags, created_at) FROM tool_log ORDER BY id`: {
			fmt.Sprint(`g1|notes|did it|["a","ü"]|`, at("2026-01-06T09:10:01Z")), fmt.Sprint("g2|notes|again|[]|", at("2026-01-06T09:10:02Z")),
			fmt.Sprint("g3|notes|and again|[]|", at("2026-01-06T09:10:03Z")),
		},
		`SELECT concat_ws('|', todo_id, agent_id, description, status, priority, notes, due_at, created_at, updated_at) FROM tool_todos`: {
			fmt.Sprintf("o1|notes|buy milk|in_progress|high||%d|%d|%d", at("2026-02-01T00:00:00Z"), at("2026-01-06T09:10:01Z"), at("2026-01-06T09:10:02Z")),
		},
		`SELECT concat_ws('|', p.post_id, COALESCE(q.post_id, '-'), p.agent_id, p.subject, p.content) FROM tool_posts p LEFT JOIN tool_posts q ON q.id = p.parent_id ORDER BY p.id`: {
			"p1|-|notes|Hi|anybody?", "p2|p1|helper||hello",
		},
		`SELECT concat_ws('|', mail_id, from_agent_id, to_agent_id, subject, content, read_at) FROM tool_mail ORDER BY id`: {
			fmt.Sprint("n1|notes|helper|Hi|text|", at("2026-01-06T09:12:00Z")), "n2|helper|nobody|Hi|text|0",
		},
		`SELECT concat_ws('|', agent_id, key, value, updated_at) FROM tool_notes`: {fmt.Sprint("notes|k|v|", at("2026-01-06T09:10:02Z"))},
	} {
		if got := rows(t, p.Database, query); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

// TestTakeoverInventsNothing: every text of the new log is in the old one.
func TestTakeoverInventsNothing(t *testing.T) {
	old, p := realistic(t), placeAt(t.TempDir())
	takeOver(t, old, p)
	texts := strings.Join(append(rows(t, old, `SELECT COALESCE(text, '') FROM ledger_events`), "a.txt\nb.txt\x01", `no such "file"`), "\x00")
	authors := append(rows(t, old, `SELECT author FROM ledger_events`), "")
	seen := 0
	for _, text := range rows(t, p.Database, `SELECT text FROM events UNION ALL SELECT title FROM threads`) {
		if !strings.Contains(texts, text) {
			t.Errorf("nobody has said %q", text)
		}
		seen++
	}
	for _, sender := range rows(t, p.Database, `SELECT sender FROM turns`) {
		if !slices.Contains(authors, sender) {
			t.Errorf("there was no %q", sender)
		}
	}
	for _, cause := range rows(t, p.Database, `SELECT cause FROM turns WHERE state <> 'interrupted'`) {
		if !strings.Contains(texts, cause) {
			t.Errorf("nobody has said %q", cause)
		}
	}
	if seen < 45 {
		t.Errorf("saw %d texts", seen)
	}
	// And nothing is lost: the texts of messages and errors are there as they were.
	all := rows(t, p.Database, `SELECT text FROM events`)
	for _, text := range rows(t, old, `SELECT text FROM ledger_events WHERE type IN ('message', 'error', 'system') AND event_id NOT IN ('e4', 'e5')`) {
		if !slices.Contains(all, text) {
			t.Errorf("%.40q is lost", text)
		}
	}
}

// bytesIn returns the bytes of all files in a folder.
func bytesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range filesBelow(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

// TestTakeoverOnlyReads: the old database stays as it is, byte for byte, with a write-ahead log or
// without; what is in the log is taken over.
func TestTakeoverOnlyReads(t *testing.T) {
	old := realistic(t)
	before := bytesIn(t, filepath.Dir(old))
	takeOver(t, old, placeAt(t.TempDir()))
	if after := bytesIn(t, filepath.Dir(old)); !maps.Equal(before, after) {
		t.Errorf("there were %v, there are %v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}

	live := openOld(t, old)
	defer live.Close()
	if _, err := live.Exec(`INSERT INTO agent_notes VALUES ('k2', 'notes', 'late', 'v', '2026-01-06T03:10:01Z', '2026-01-06T03:10:02Z')`); err != nil {
		t.Fatal(err)
	}
	crashed := filepath.Join(t.TempDir(), "old.db")
	for name, data := range bytesIn(t, filepath.Dir(old)) {
		if strings.HasSuffix(name, "-shm") {
			continue
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(crashed), name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before = bytesIn(t, filepath.Dir(crashed))
	p := placeAt(t.TempDir())
	takeOver(t, crashed, p)
	after := bytesIn(t, filepath.Dir(crashed))
	if len(before["old.db-wal"]) == 0 || after["old.db"] != before["old.db"] || after["old.db-wal"] != before["old.db-wal"] {
		t.Errorf("the old database or its log was changed")
	}
	if got := rows(t, p.Database, `SELECT key FROM tool_notes ORDER BY key`); !slices.Equal(got, []string{"k", "late"}) {
		t.Errorf("the notes are %v", got)
	}
}

// counted returns how many rows the new database has in tables that a takeover fills.
func counted(t testing.TB, path string) int {
	t.Helper()
	n := 0
	for _, table := range []string{
		"principals", "principal_keys", "principal_roles", "bindings", "secrets", "conversations", "threads", "turns", "events", "usage",
		"users", "tool_log", "tool_todos", "tool_posts", "tool_mail", "tool_notes", "audit_log",
	} {
		n += len(rows(t, path, "SELECT rowid FROM "+table))
	}
	return n
}

// TestTakeoverIsAllOrNothing: a dry run reports the same and leaves nothing, and so does a failure at
// the very end.
func TestTakeoverIsAllOrNothing(t *testing.T) {
	old, p := realistic(t), placeAt(t.TempDir())
	dry, err := gateway.TakeOver(ctx, configAt(p), slog.New(slog.DiscardHandler), old, true)
	if err != nil || !dry.DryRun {
		t.Fatal(dry, err)
	}
	if n := counted(t, p.Database); n != 0 {
		t.Errorf("a dry run leaves %d rows", n)
	}
	db, err := tryOpen(p.Database)
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("no")
	canceled, cancel := context.WithCancel(ctx)
	seal := func(x auth.Secret, value string) auth.Secret { x.Sealed = []byte(value); return x }
	_, err = db.TakeOver(ctx, store.Takeover{Old: old, Seal: seal, Audit: func(auth.Tx, auth.AuditRecord) error { return failure }})
	if !errors.Is(err, failure) {
		t.Errorf("a failure is reported as %v", err)
	}
	_, err = db.TakeOver(canceled, store.Takeover{Old: old, Seal: seal, Audit: func(auth.Tx, auth.AuditRecord) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an interruption is reported as %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := counted(t, p.Database); n != 0 {
		t.Errorf("failures leave %d rows", n)
	}
	r := takeOver(t, old, p)
	r.DryRun = true
	a, _ := json.Marshal(r)
	b, _ := json.Marshal(dry)
	if !bytes.Equal(a, b) {
		t.Errorf("the dry run said\n%s\nthe real one\n%s", b, a)
	}
	if counted(t, p.Database) == 0 {
		t.Error("nothing was taken over")
	}
}

func TestTakeoverRefuses(t *testing.T) {
	old := realistic(t)
	used := placeAt(t.TempDir())
	takeOver(t, old, used)
	before := counted(t, used.Database)
	other := filepath.Join(t.TempDir(), "other.db")
	if err := os.WriteFile(other, []byte("this is no database, but it is long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old  string
		to   store.Place
		want string
	}{
		"in use":          {old, used, "is in use: it has 5 principals, 3 conversations, 5 threads, 2 bindings, 2 secrets, 2 users, 3 log entries"},
		"no file":         {old + "x", placeAt(t.TempDir()), "no such file"},
		"a folder":        {t.TempDir(), placeAt(t.TempDir()), "it is no file"},
		"no database":     {other, placeAt(t.TempDir()), "file is not a database"},
		"ours":            {used.Database, placeAt(t.TempDir()), "it is not a database of the public gateway: it has no "},
		"the same":        {old, store.Place{DataDir: t.TempDir(), Database: old}, "move the old one away first"},
		"another one":     {old, store.Place{DataDir: t.TempDir(), Database: realistic(t)}, "this is a database of the public gateway"},
		"only principals": {old, withPrincipal(t), "it has 1 principals"},
	} {
		_, err := gateway.TakeOver(ctx, configAt(c.to), slog.New(slog.DiscardHandler), c.old, false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if n := counted(t, used.Database); n != before {
		t.Errorf("the database in use had %d rows and has %d", before, n)
	}
	if _, err := tryOpen(old); err == nil || !strings.Contains(err.Error(), "coven-gateway import") {
		t.Errorf("a gateway on the old database: %v", err)
	}
	if got := rows(t, old, `SELECT name FROM sqlite_schema WHERE name LIKE 'goose%' OR name LIKE 'migration%'`); len(got) != 0 {
		t.Errorf("the old database has %v now", got)
	}
}

func withPrincipal(t *testing.T) store.Place {
	t.Helper()
	p := placeAt(t.TempDir())
	g := gatewaytest.New(t, in(p))
	g.Principal("somebody")
	g.Stop()
	return p
}

// TestTakeoverOfOlderSchema: a public gateway that was not started for long has fewer columns.
func TestTakeoverOfOlderSchema(t *testing.T) {
	old := oldDatabase(t,
		`DROP INDEX idx_ledger_thread`, `ALTER TABLE ledger_events DROP COLUMN thread_id`, `ALTER TABLE bindings DROP COLUMN working_dir`,
		`DROP TABLE messages`, `DROP TABLE message_usage`, `DROP TABLE agent_notes`,
		`INSERT INTO ledger_events (event_id, conversation_key, direction, author, timestamp, type, text) VALUES
			('1', 'a', 'outbound_from_agent', 'agent', '2026-01-06T09:00:00Z', 'message', 'early'),
			('2', 'a', 'inbound_to_agent', 'client', '2026-01-06T09:00:01Z', 'message', 'q'),
			('3', 'a', 'outbound_from_agent', 'agent', '2026-01-06T09:00:01.5Z', 'message', 'r')`,
		`INSERT INTO principals VALUES ('p', 'client', '', 'P', 'approved', '2026-01-05T09:00:00Z', NULL, NULL)`,
		`INSERT INTO bindings VALUES ('b', 'f', 'c', 'p', '2026-01-05 09:00:00', NULL)`)
	p := placeAt(t.TempDir())
	r := takeOver(t, old, p)
	if r.Events != 5 || r.Turns != 2 || r.Threads != 1 || !strings.Contains(strings.Join(r.Notes, "\n"), "no approved principal has the role owner") {
		t.Errorf("got %+v", r)
	}
	if got := rows(t, p.Database, `SELECT thread_id || ' ' || external_id || ' ' || title FROM threads`); !slices.Equal(got, []string{"a a q"}) {
		t.Errorf("the threads are %v", got)
	}
}

// TestTakeoverOrder: rows as they were inserted, each a second, a kind (Question, Answer, Call,
// Result, Error) and for tools an id; and the turns that they are.
func TestTakeoverOrder(t *testing.T) {
	for _, c := range []struct{ rows, want string }{
		{"1Q 1Cx 1Rx 1A", "1Q 1Cx 1Rx 1A|"},
		{"1A 1Rx 1Cx 1Q", "1Q 1Cx 1Rx 1A|"},
		{"1A 1E 1Q", "1Q 1E 1A|"},
		// Two turns in a second, and an answer in the second of the next question.
		{"1Q 1Cx 1Rx 1A 1Q 1Cx 1Rx 1A", "1Q 1Cx 1Rx 1A|1Q 1Cx 1Rx 1A|"},
		{"1Q 1Cx 2Rx 2A 2Q 2Cx 2Rx 2A", "1Q 1Cx 2Rx 2A|2Q 2Cx 2Rx 2A|"},
		{"1Q 2A 2Q 3A", "1Q 2A|2Q 3A|"},
		// Nobody has answered the first question. Rows that were not inserted in order prove nothing.
		{"1Q 2A 2Q", "1Q 2A|2Q|"},
		{"2A 2Q 1Q", "1Q|2Q 2A|"},
		// Ids are used again; a call of another turn does not explain a result.
		{"1Q 1Cx 2Q 2Rx 2Cx 2A", "1Q 1Cx|2Q 2Cx 2Rx 2A|"},
		{"1Q 1Cx 2Rx 2Cx 3Rx 3A", "1Q 1Cx 2Rx 2Cx 3Rx 3A|"},
		{"1Q 1Cx 2A 2Cx 2Rx 2Rx", "1Q 1Cx 2Cx 2Rx 2Rx 2A|"},
		{"1Q 1Ry 1Rx 1Cx 1Cy 1A", "1Q 1Cx 1Rx 1Cy 1Ry 1A|"},
		// One answer for each turn; what is left over has no question.
		{"1Q 2Q 3A 4A", "1Q|2Q 3A|4A|"},
		{"1A 2Cx 2Rx 3Q 4A", "1A|2Cx 2Rx|3Q 4A|"},
		{"1Q 2E 3A 4E", "1Q 2E 3A|4E|"},
	} {
		var ledger []aRow
		for i, word := range strings.Fields(c.rows) {
			id := word[2:]
			r := aRow{
				id: fmt.Sprint(i), key: "a", thread: "t1", direction: "outbound_from_agent", author: "agent:a", text: word, kind: "message",
				at: time.Date(2026, 1, 6, 9, 0, int(word[0]-'0'), 0, time.UTC),
			}
			switch word[1] {
			case 'Q':
				r.direction = "inbound_to_agent"
			case 'C':
				r.kind, r.text = "tool_call", fmt.Sprintf(`{"name":"n","id":%q,"input":%s}`, id, word)
			case 'R':
				r.kind, r.text = "tool_result", fmt.Sprintf(`{"id":%q,"output":%q,"is_error":false}`, id, word)
			case 'E':
				r.kind = "error"
			}
			ledger = append(ledger, r)
		}
		var got strings.Builder
		for _, e := range imported(t, ledgerOf(t, ledger, func() *time.Location { return time.UTC })) {
			text := e.Text + " "
			if e.Kind == conversation.KindEnded {
				text = "|"
			}
			got.WriteString(text)
		}
		if got := strings.ReplaceAll(got.String(), " |", "|"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.rows, got, c.want)
		}
	}
}

// TestTakeoverToolTexts: the three forms, and what only looks like one.
func TestTakeoverToolTexts(t *testing.T) {
	for _, c := range []struct{ author, kind, text, want string }{
		{"agent:a", "tool_call", `{"name":"n","id":"i","input":{"a": 1}}`, `i n|{"a": 1}`},
		{"agent:a", "tool_call", `{"id":"i", "name":"n", "input":null}`, `i n|null`},
		{"agent:a", "tool_call", `{"name":"n","id":"i","input":}`, `i n|`},
		{"agent:a", "tool_call", `{"name":"n","id":"i","input":not json}`, `i n|not json`},
		{"agent:a", "tool_call", `{"name":"n\x01\"","id":"i","input":{}}`, "i n\x01\"|{}"},
		{"agent:a", "tool_call", `{"name":"n","id":"i","input":{},"more":1}`, `i n|{},"more":1`},
		{"agent:a", "tool_call", `{"name":"n","id":"i"}`, ` |{"name":"n","id":"i"}`},
		{"agent:a", "tool_call", `tool:n input:{}`, ` |tool:n input:{}`},
		{"agent:a", "tool_call", "", " |"},
		{"agent", "tool_call", `tool:n input:{"a":" input:"}`, ` n|{"a":" input:"}`},
		{"agent", "tool_call", `tool:n`, ` |tool:n`},
		{"agent:a", "tool_result", `{"id":"i","output":"o\n\u00fc","is_error":true}`, "i |o\nü error"},
		{"agent:a", "tool_result", `{"id":"i","output":"\x01\a\"","is_error":false}`, "i |\x01\a\""},
		{"agent:a", "tool_result", "{\"id\":\"i\",\"output\":\"\\xff\",\"is_error\":false}", "i |\xff"},
		{"agent:a", "tool_result", `{"id":"i","output":"o","is_error":false,"more":1}`, ` |{"id":"i","output":"o","is_error":false,"more":1}`},
		{"agent:a", "tool_result", `{"id":"i","output":"o","is_error":maybe}`, ` |{"id":"i","output":"o","is_error":maybe}`},
		{"agent:a", "tool_result", `{"id":"i","output":"o","is_error":false} `, `i |o`},
		{"agent:a", "tool_result", `{"id":"i","output":"o"} {}`, ` |{"id":"i","output":"o"} {}`},
		{"agent:a", "tool_result", `plain`, ` |plain`},
		{"agent", "tool_result", `{"id":"i","output":"o","is_error":false}`, ` |{"id":"i","output":"o","is_error":false}`},
	} {
		id, name, text, isError := store.ParseTool(c.kind, c.text, c.author)
		got := id + " " + name + "|" + text
		if isError {
			got += " error"
		}
		if got != c.want {
			t.Errorf("%s %s of %s: got %q, want %q", c.kind, c.text, c.author, got, c.want)
		}
	}
}

// TestTakeoverUsage: the answer that a report names decides, then the agent, then the time.
func TestTakeoverUsage(t *testing.T) {
	var ledger []aRow
	for _, agent := range []string{"a", "b"} { // t1 is a's
		for i := range 3 {
			for j, direction := range []string{"inbound_to_agent", "outbound_from_agent"} {
				ledger = append(ledger, aRow{
					id: fmt.Sprintf("%s%d%d", agent, i, j), key: agent, thread: "t1", direction: direction, kind: "message", author: "x", text: "x",
					at: time.Date(2026, 1, 6, 9, i, 10*j, 0, time.UTC),
				})
			}
		}
	}
	old := ledgerOf(t, ledger, func() *time.Location { return time.UTC })
	db := openOld(t, old)
	_, err := db.Exec(`INSERT INTO message_usage (id, thread_id, message_id, request_id, agent_id, input_tokens, created_at) VALUES
		('1', 't1', 'a01', '', 'a', 1, '2026-01-06T09:02:05Z'),
		('2', 't1', 'unknown', '', 'a', 2, '2026-01-06T09:01:05Z'),
		('3', 't1', NULL, '', 'b', 3, '2026-01-06T09:00:12Z'),
		('4', 't1', NULL, '', 'a', 4, '2026-01-06T08:00:00Z'),
		('5', 't1', NULL, '', 'a', 5, '2026-01-06T09:00:50Z'),
		('6', 't1', NULL, '', 'somebody', 6, '2026-01-06T19:00:00Z')`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	p := placeAt(t.TempDir())
	takeOver(t, old, p)
	got := rows(t, p.Database, `SELECT u.input_tokens || ' ' || t.request_id FROM usage u JOIN turns t ON t.id = u.turn_id ORDER BY u.input_tokens`)
	if want := []string{"1 a00", "2 a10", "3 b00", "4 a00", "5 a10", "6 a20"}; !slices.Equal(got, want) {
		t.Errorf("the turns of the reports are %v, want %v", got, want)
	}
}

// An aRow is a row of a random ledger.
type aRow struct {
	id, key, thread, direction, kind, author, text string
	at                                             time.Time
}

func (r aRow) insert(tx *sql.Tx, zone *time.Location) error {
	var thread any
	if r.thread != "" {
		thread = r.thread
	}
	_, err := tx.Exec(`INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		r.id, r.key, thread, r.direction, r.author, r.at.In(zone).Format(time.RFC3339), r.kind, r.text)
	return err
}

var zones = []*time.Location{time.UTC, time.FixedZone("", -6*3600), time.FixedZone("", 5*3600+1800)}

// ledgerOf makes an old database with rows in the order in which they are given.
func ledgerOf(t testing.TB, rows []aRow, zone func() *time.Location) string {
	path := filepath.Join(t.TempDir(), "old.db")
	copyTo(t, path, oldTemplate(t))
	db := openOld(t, path)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := r.insert(tx, zone()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tx.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// Making a schema takes longer than everything else: these are made once and copied.
var (
	templates   = map[string][]byte{}
	oldTemplate = template("old", func(t testing.TB) string {
		return oldDatabase(t, `INSERT INTO threads VALUES
			('t1', 'f', 'c1', 'a', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z'),
			('t2', 'f', 'c2', 'b', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z')`)
	})
	newTemplate = template("new", func(t testing.TB) string {
		path := filepath.Join(t.TempDir(), "gateway.db")
		db, err := tryOpen(path)
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	})
)

func template(name string, mk func(testing.TB) string) func(testing.TB) []byte {
	return func(t testing.TB) []byte {
		if templates[name] == nil {
			b, err := os.ReadFile(mk(t))
			if err != nil {
				t.Fatal(err)
			}
			templates[name] = b
		}
		return templates[name]
	}
}

func copyTo(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// imported takes over a ledger and returns the events of the new one, in order.
func imported(t testing.TB, old string) []event {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.db")
	copyTo(t, path, newTemplate(t))
	db, err := tryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.TakeOver(ctx, store.Takeover{Old: old, Audit: func(auth.Tx, auth.AuditRecord) error { return nil }})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := store.Verify(ctx, path); err != nil {
		t.Fatal(err)
	}
	var events []event
	for _, line := range rows(t, path, `
		SELECT json_object('agent', c.agent_id, 'thread', th.thread_id, 'turn', t.request_id, 'state', t.state, 'seq', e.seq, 'at', e.at, 'kind', e.kind,
			'text', e.text)
		FROM events e JOIN turns t ON t.id = e.turn_id JOIN conversations c ON c.id = e.conversation_id JOIN threads th ON th.id = e.thread_id
		ORDER BY c.agent_id, e.seq`) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

type event struct {
	Agent, Thread, Turn, State, Text string
	Seq, At                          int64
	Kind                             conversation.Kind
}

// TestTakeoverOfAnything: whatever a ledger looks like, every row becomes one event, threads are in
// the order of time, and nothing that is always true of a log is broken.
func TestTakeoverOfAnything(t *testing.T) {
	begin := time.Date(2026, 1, 6, 9, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		var ledger []aRow
		counts := map[conversation.Kind][]string{}
		for i := range rapid.IntRange(1, 60).Draw(rt, "rows") {
			r := aRow{
				id:        fmt.Sprintf("%03d-%d", rapid.IntRange(0, 999).Draw(rt, "id"), i),
				key:       rapid.SampledFrom([]string{"a", "b", "thread:t1", "thread:t2"}).Draw(rt, "key"),
				thread:    rapid.SampledFrom([]string{"", "t1", "t2", "a", "none"}).Draw(rt, "thread"),
				direction: "outbound_from_agent",
				kind:      rapid.SampledFrom([]string{"message", "message", "tool_call", "tool_result", "error", "system"}).Draw(rt, "type"),
				author:    rapid.SampledFrom([]string{"agent", "agent:a", "system"}).Draw(rt, "author"),
				text:      fmt.Sprintf("text %d ü", i),
				at:        begin.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "at")) * time.Second),
			}
			if r.kind == "message" && rapid.Bool().Draw(rt, "asks") {
				r.direction, r.author = "inbound_to_agent", "me"
			}
			kind := map[string]conversation.Kind{
				"message": conversation.KindText, "tool_call": conversation.KindToolCall, "tool_result": conversation.KindToolResult,
				"error": conversation.KindTrouble, "system": conversation.KindThinking,
			}[r.kind]
			if r.direction == "inbound_to_agent" {
				kind = conversation.KindMessage
			}
			counts[kind] = append(counts[kind], r.text)
			ledger = append(ledger, r)
		}
		old := ledgerOf(t, ledger, func() *time.Location { return rapid.SampledFrom(zones).Draw(rt, "zone") })
		at := map[string]int64{} // by thread
		answered := map[string]bool{}
		begun := map[string]bool{}
		got := map[conversation.Kind][]string{}
		for _, e := range imported(t, old) {
			first := !begun[e.Turn]
			begun[e.Turn] = true
			if e.Kind == conversation.KindEnded {
				if want := answered[e.Turn]; (e.State == string(conversation.Done)) != want {
					rt.Errorf("turn %s is %s, has an answer: %v", e.Turn, e.State, want)
				}
				continue
			}
			got[e.Kind] = append(got[e.Kind], e.Text)
			if e.At < at[e.Thread] {
				rt.Errorf("event %d of %s is out of order", e.Seq, e.Agent)
			}
			at[e.Thread] = e.At
			if answered[e.Turn] {
				rt.Errorf("event %d of %s comes behind the answer of its turn", e.Seq, e.Agent)
			}
			if e.Kind == conversation.KindMessage && !first {
				rt.Errorf("event %d of %s asks in the middle of a turn", e.Seq, e.Agent)
			}
			if e.Kind == conversation.KindText {
				answered[e.Turn] = true
			}
		}
		for _, kind := range []conversation.Kind{
			conversation.KindMessage, conversation.KindText, conversation.KindToolCall, conversation.KindToolResult, conversation.KindTrouble, conversation.KindThinking,
		} {
			slices.Sort(counts[kind])
			slices.Sort(got[kind])
			if !slices.Equal(counts[kind], got[kind]) {
				rt.Errorf("kind %d: got %q, want %q", kind, got[kind], counts[kind])
			}
		}
	})
}

// TestTakeoverFindsTheTurns: the turns that have really happened come out again, whether the rows are
// in the order in which they were written, shuffled inside each second, or shuffled altogether.
func TestTakeoverFindsTheTurns(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const inserted, seconds, altogether = 0, 1, 2
		shuffle := int(seed % 3)
		var ledger []aRow
		want := map[string]string{} // the turn of each event, by id
		for _, thread := range []string{"t1", "a", "other"} {
			at := time.Date(2026, 1, 6, 9, 0, 0, 0, time.UTC)
			for turn := range 1 + rnd.IntN(5) {
				id := fmt.Sprintf("%s-%d", thread, turn)
				n := 0
				put := func(kind, direction, text string) {
					r := aRow{
						id: fmt.Sprintf("%s-%d", id, n), key: "a", thread: thread, direction: direction, kind: kind, author: "agent:a", text: text, at: at.Truncate(time.Second),
					}
					ledger = append(ledger, r)
					want[text] = id + "-0"
					n++
					at = at.Add(time.Duration(rnd.IntN(700)) * time.Millisecond)
				}
				put("message", "inbound_to_agent", "ask "+id)
				for tool := range rnd.IntN(4) {
					put("tool_call", "outbound_from_agent", fmt.Sprintf(`{"name":"n","id":"i%d","input":"call %s %d"}`, tool, id, tool))
					put("tool_result", "outbound_from_agent", fmt.Sprintf(`{"id":"i%d","output":"result %s %d","is_error":false}`, tool, id, tool))
				}
				// Where rows were shuffled, nobody could tell a late answer to an earlier message from this one.
				if shuffle != inserted || rnd.IntN(4) > 0 {
					put("message", "outbound_from_agent", "answer "+id)
				}
				if shuffle != inserted { // turns do not share a second
					at = at.Truncate(time.Second).Add(time.Second)
				}
			}
		}
		switch shuffle {
		case inserted, seconds:
			rnd.Shuffle(len(ledger), func(i, j int) {
				if shuffle == seconds {
					ledger[i], ledger[j] = ledger[j], ledger[i]
				}
			})
			slices.SortStableFunc(ledger, func(a, b aRow) int { return a.at.Compare(b.at) })
		case altogether:
			rnd.Shuffle(len(ledger), func(i, j int) { ledger[i], ledger[j] = ledger[j], ledger[i] })
		}
		old := ledgerOf(t, ledger, func() *time.Location { return zones[rnd.IntN(len(zones))] })
		place := map[string]int{}
		turns := map[string][]event{}
		for i, e := range imported(t, old) {
			if e.Kind != conversation.KindEnded {
				place[e.Text] = i
				turns[e.Turn] = append(turns[e.Turn], e)
			}
		}
		for _, r := range ledger {
			text := r.text
			switch r.kind {
			case "tool_call":
				text = text[strings.Index(text, `"call`) : len(text)-1]
			case "tool_result":
				text = strings.Split(text, `"`)[7]
			}
			i, ok := place[text]
			if !ok {
				t.Fatalf("seed %d: %s is lost", seed, text)
			}
			turn := want[r.text]
			if !slices.ContainsFunc(turns[turn], func(e event) bool { return e.Text == text }) {
				t.Errorf("seed %d: %s is not in turn %s", seed, text, turn)
			}
			if call := strings.Replace(text, "result", "call", 1); r.kind == "tool_result" && place[`"`+call+`"`] > i {
				t.Errorf("seed %d: %s comes before its call", seed, text)
			}
		}
		for id, es := range turns {
			if es[0].Kind != conversation.KindMessage {
				t.Errorf("seed %d: turn %s begins with %s", seed, id, es[0].Text)
			}
			if last := es[len(es)-1]; shuffle != inserted && last.Kind != conversation.KindText {
				t.Errorf("seed %d: turn %s ends with %s", seed, id, last.Text)
			}
			if shuffle == inserted && !slices.IsSortedFunc(es, func(a, b event) int { return cmp.Compare(a.Seq, b.Seq) }) {
				t.Errorf("seed %d: turn %s is out of order", seed, id)
			}
		}
		if shuffle == inserted { // inside a thread it is exactly as it was
			for _, thread := range []string{"t1", "a", "other"} {
				last := -1
				for _, r := range ledger {
					if r.thread != thread || r.kind == "tool_call" || r.kind == "tool_result" {
						continue
					}
					if place[r.text] < last {
						t.Errorf("seed %d: %s is out of order", seed, r.text)
					}
					last = place[r.text]
				}
			}
		}
	}
}
