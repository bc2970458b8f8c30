package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/sse"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coven-gateway": main})
}

// TestScripts runs the command as a user does; see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("XDG_DATA_HOME", e.WorkDir+"/share")
			for _, name := range []string{"HTTP", "GRPC"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(name, l.Addr().String())
				if err := l.Close(); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "fetch": fetch, "say": say, "sql": sqlCommand, "scribble": scribble},
	})
}

// sqlCommand runs statements on a database that no gateway has open, without foreign keys.
func sqlCommand(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, text := range args[1:] {
		_, err := db.Exec(text)
		ts.Check(err)
	}
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	ts.Check(err)
}

// scribble writes over a page of a database file: of the table or index with a name, or the first one.
func scribble(ts *testscript.TestScript, _ bool, args []string) {
	path, page := ts.MkAbs(args[0]), int64(1)
	if len(args) > 1 {
		db, err := sql.Open("sqlite", path)
		ts.Check(err)
		ts.Check(errors.Join(db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = $1", args[1]).Scan(&page), db.Close()))
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), (page-1)*4096)
	ts.Check(errors.Join(err, f.Close()))
}

// fetch prints what a URL answers.
func fetch(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// say sends a message to the demo agent of the gateway at a URL and waits for the end of its
// answer. The agent may be about to connect.
func say(ts *testscript.TestScript, _ bool, args []string) {
	body, err := json.Marshal(map[string]string{"agent_id": "demo", "sender": "me", "content": args[1]})
	ts.Check(err)
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(5 * time.Millisecond) { // another process
		resp, err := http.Post(args[0]+"/api/send", "application/json", bytes.NewReader(body))
		ts.Check(err)
		_, err = io.Copy(io.Discard, resp.Body)
		ts.Check(errors.Join(err, resp.Body.Close()))
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("the demo agent does not connect")
}

// await waits until a URL answers.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(5 * time.Millisecond) { // another process
		if resp, err := http.Get(args[0]); err == nil {
			_ = resp.Body.Close()
			return
		}
	}
	ts.Fatalf("%s does not answer", args[0])
}

// output is what a command prints, line by line while it runs.
type output struct {
	lines chan string
	w     *io.PipeWriter
}

func newOutput() *output {
	r, w := io.Pipe()
	o := &output{make(chan string, 1000), w}
	go func() {
		defer close(o.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			o.lines <- s.Text()
		}
	}()
	return o
}

// find waits for a line that matches and returns the first group.
func (o *output) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-o.lines:
			if !ok {
				t.Fatalf("the output ended without %q", pattern)
			}
			if m := re.FindStringSubmatch(line); m != nil {
				return m[1]
			}
		case <-timeout:
			t.Fatalf("no output like %q", pattern)
		}
	}
}

// demoRun is a running demo.
type demoRun struct {
	url    string
	out    *output
	cancel context.CancelFunc
	code   chan int
}

func startDemo(t *testing.T, dir string) *demoRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &demoRun{out: newOutput(), cancel: cancel, code: make(chan int, 1)}
	go func() {
		d.code <- cli.Run(ctx, root(), []string{"demo", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--data-dir", dir}, d.out.w, os.Stderr)
		_ = d.out.w.Close()
	}()
	d.url = d.out.find(t, `HTTP +(http://\S+)`)
	return d
}

func (d *demoRun) stop(t *testing.T) {
	t.Helper()
	start := time.Now()
	d.cancel()
	if code := <-d.code; code != 0 {
		t.Errorf("the demo exits with %d", code)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the demo took %v to stop", took)
	}
}

// say sends a message and returns the names of the events and the text of the answer.
func (d *demoRun) say(t *testing.T, content string, on func(name string, data map[string]any)) (names []string, text string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"agent_id": "demo", "sender": "me", "content": content})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(d.url+"/api/send", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for r := sse.NewReader(resp.Body); ; {
		e, err := r.Next()
		if err != nil {
			return names, text
		}
		var data map[string]any
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		if e.Name == "text" {
			text += data["text"].(string)
		}
		if len(names) == 0 || names[len(names)-1] != e.Name {
			names = append(names, e.Name)
		}
		if on != nil {
			on(e.Name, data)
		}
	}
}

// TestDemo: everything that /help lists shows what it says, and the second start remembers.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	d := startDemo(t, dir)
	_, help := d.say(t, "/help", nil)
	shown := map[string]bool{}
	for _, c := range []struct{ say, events, text string }{
		{"hello", "started text usage done", "Hello, me!"},
		{"one two", "started text usage done", "**2 words**"},
		{"/help", "started text done", "/echo TEXT"},
		{"/echo as you like", "started text done", "as you like"},
		{"/count 3", "started text done", "1\n2\n3\n"},
		{"/long 20", "started text done", "A long answer"},
		{"/burst 500", "started text done", "498 499 "},
		{"/think", "started thinking text done", "yes"},
		{"/tool", "started tool_state tool_use tool_state tool_result tool_state text done", "three files"},
		{"/file", "started file text done", "picture"},
		{"/attachments", "started text done", "No file"},
		{"/note", "started tool_run text done", "There is no note"},
		{"/note buy milk", "started tool_run text done", "written it down"},
		{"/note", "started tool_run text done", "You told me: buy milk"},
		{"/usage", "started usage text done", "two model calls"},
		{"/session", "started session_init text session_orphaned text done", "lost again"},
		{"/trouble", "started text warning text done", "the other half"},
		{"/error", "started warning error", ""},
		{"/nonsense", "started text done", "/help"},
		{"/count many", "started warning error", ""},
	} {
		names, text := d.say(t, c.say, nil)
		if got := strings.Join(names, " "); got != c.events || !strings.Contains(text, c.text) {
			t.Errorf("%s: got %s (%q), want %s (%q)", c.say, got, text, c.events, c.text)
		}
		shown[strings.Fields(c.say)[0]] = true
	}
	names, text := d.say(t, "/cancel", func(name string, data map[string]any) {
		if name == "started" {
			resp, err := http.Post(fmt.Sprintf("%s/api/turns/%s/cancel", d.url, data["request_id"]), "", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}
	})
	if !slices.Contains(names, "canceled") || strings.Contains(text, "Nobody") {
		t.Errorf("/cancel: got %v", names)
	}
	for _, approved := range []bool{true, false} {
		_, text := d.say(t, "/approve", func(name string, data map[string]any) {
			if name != "tool_approval" {
				return
			}
			body := fmt.Sprintf(`{"agent_id":"demo","tool_id":%q,"approved":%v}`, data["id"], approved)
			resp, err := http.Post(d.url+"/api/tools/approve", "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(b), `"success":true`) {
				t.Errorf("approve: %s %s (%v)", resp.Status, b, err)
			}
		})
		if want := map[bool]string{true: "You said yes", false: "You said no"}[approved]; !strings.Contains(text, want) {
			t.Errorf("/approve answered with %v: %q", approved, text)
		}
	}
	_, text = d.say(t, "/ask", func(name string, data map[string]any) {
		if name != "user_question" {
			return
		}
		body := fmt.Sprintf(`{"agent_id":"demo","question_id":%q,"selected":["Tea"]}`, data["question_id"])
		resp, err := http.Post(d.url+"/api/questions/answer", "application/json", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	})
	if !strings.Contains(text, "Tea it is.") {
		t.Errorf("/ask: %q", text)
	}
	shown["/cancel"], shown["/silent"], shown["/approve"], shown["/ask"] = true, true, true, true
	for _, command := range regexp.MustCompile("`(/[a-z]+)").FindAllStringSubmatch(help, -1) {
		if !shown[command[1]] {
			t.Errorf("/help lists %s, which nobody tried", command[1])
		}
	}
	page, err := http.Get(d.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	html, err := io.ReadAll(page.Body)
	page.Body.Close()
	if err != nil || !strings.Contains(string(html), "<title>coven</title>") {
		t.Errorf("the page is %q: %v", html, err)
	}
	d.stop(t)

	d = startDemo(t, dir)
	if n := d.out.find(t, `Nothing is forgotten: (\d+) earlier conversations`); n == "0" {
		t.Error("everything is forgotten")
	}
	d.stop(t)
}

// TestInterruptedBackup: a backup that a signal ends has not succeeded and leaves nothing.
func TestInterruptedBackup(t *testing.T) {
	dir := t.TempDir()
	startDemo(t, dir).stop(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stderr bytes.Buffer
	target := filepath.Join(t.TempDir(), "b")
	if code := cli.Run(ctx, root(), []string{"backup", "--data-dir", dir, target}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "interrupted: ") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	for _, path := range []string{target, target + ".partial"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is there", path)
		}
	}
}
