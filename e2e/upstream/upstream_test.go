// Package upstream tests the gateway with MCP servers that others have written.
package upstream

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"coven-gateway/internal/config"
	"coven-gateway/internal/gatewaytest"
	pb "coven-gateway/proto/coven"
)

// server returns the main file of an installed server.
func server(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("node_modules", "@modelcontextprotocol", name, "dist", "index.js"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("the servers are not installed: run npm ci in e2e/upstream")
	}
	return path
}

func ask(t *testing.T, g *gatewaytest.Gateway, method, path string, body any) string {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, g.URL+path, strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
	}
	return string(text)
}

// call has an agent call a tool.
func call(t *testing.T, a *gatewaytest.Agent, tool string, input any) (output, words string) {
	t.Helper()
	b, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	a.Send(&pb.AgentMessage{Payload: &pb.AgentMessage_ExecutePackTool{ExecutePackTool: &pb.ExecutePackTool{RequestId: tool, ToolName: tool, InputJson: string(b)}}})
	for m := a.Next(); m != nil; m = a.Next() {
		if r := m.GetPackToolResult(); r.GetRequestId() == tool {
			return r.GetOutputJson(), r.GetError()
		}
	}
	t.Fatal(a.Err())
	return "", ""
}

type object = map[string]any

// TestEverything: the server that has everything, over stdio and over HTTP.
func TestEverything(t *testing.T) {
	main := server(t, "server-everything")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	web := exec.Command("node", main, "streamableHttp")
	web.Env = append(os.Environ(), "PORT="+port)
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Process.Kill(); _ = web.Wait() })
	for end := time.Now().Add(gatewaytest.Patience); ; <-time.After(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the server does not listen")
		}
	}
	g := gatewaytest.New(t, func(c *config.Config) { c.MCP.AllowCommands = true })
	for name, how := range map[string]object{
		"stdio": {"command": []string{"node", main, "stdio"}},
		"http":  {"url": "http://127.0.0.1:" + port + "/mcp", "allow_private": true},
	} {
		how["name"], how["accept"] = name, true
		if s := ask(t, g, http.MethodPost, "/api/admin/mcp/servers", how); !strings.Contains(s, `"state":"running"`) {
			t.Fatal(s)
		}
		a := g.Agent("agent-" + name)
		if out, words := call(t, a, name+"_echo", object{"message": "hello"}); !strings.Contains(out, "hello") {
			t.Error(name, out, words)
		}
		if out, words := call(t, a, name+"_get-sum", object{"a": 2, "b": 3}); !strings.Contains(out, "5") {
			t.Error(name, out, words)
		}
		if out, words := call(t, a, name+"_get-structured-content", object{"location": "Chicago"}); !json.Valid([]byte(out)) || !strings.Contains(out, `"temperature"`) {
			t.Error(name, out, words)
		}
		if out, words := call(t, a, name+"_get-tiny-image", object{}); !strings.Contains(out, `"image/png"`) {
			t.Error(name, out, words)
		}
	}
}

// TestFilesystem: an agent reads a file; the server is killed and comes back; it is as it was
// accepted, and does not leave its folder.
func TestFilesystem(t *testing.T) {
	main := server(t, "server-filesystem")
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "note.txt")
	if err := os.WriteFile(file, []byte("remember the milk"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gatewaytest.New(t, func(c *config.Config) { c.MCP.AllowCommands = true })
	ask(t, g, http.MethodPost, "/api/admin/mcp/servers", object{"name": "fs", "command": []string{"node", main, folder}, "accept": true, "allowed": []string{"read_text_file", "list_directory"}})
	a := g.Agent("a")
	read := func() (string, string) { return call(t, a, "fs_read_text_file", object{"path": file}) }
	if out, words := read(); !strings.Contains(out, "remember the milk") {
		t.Error(out, words)
	}
	if out, words := call(t, a, "fs_read_text_file", object{"path": "/etc/passwd"}); out != "" || !strings.Contains(words, "Access denied") {
		t.Error(out, words)
	}
	if _, words := call(t, a, "fs_write_file", object{"path": file, "content": "x"}); words != "tool not found" {
		t.Error(words)
	}
	kill(t, main, folder)
	for end := time.Now().Add(gatewaytest.Patience); ; <-time.After(50 * time.Millisecond) {
		if s := ask(t, g, http.MethodGet, "/api/admin/mcp/servers/fs", nil); strings.Contains(s, `"restarts":1`) && strings.Contains(s, `"state":"running"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not come back: ", ask(t, g, http.MethodGet, "/api/admin/mcp/servers/fs/logs", nil))
		}
	}
	if out, words := read(); !strings.Contains(out, "remember the milk") {
		t.Error(out, words)
	}
}

// kill kills the process whose command line has all the words.
func kill(t *testing.T, words ...string) {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(entries) == 0 {
		t.Skip("there is no /proc")
	}
	for _, e := range entries {
		b, err := os.ReadFile(e)
		all := err == nil
		for _, w := range words {
			all = all && strings.Contains(string(b), w)
		}
		if all {
			pid, _ := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(e))
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal(fmt.Sprintf("no process %q", words))
}
