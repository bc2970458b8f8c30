package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"
)

// app is what all commands share: where the gateway is, who asks, and how answers are shown.
type app struct {
	http, grpc string
	token      string // of the flag, see credential
	json       bool   // print what the gateway sends
	noColor    bool
}

func defaultHTTP() string {
	return cmp.Or(os.Getenv("COVEN_GATEWAY_HTTP"), "http://"+hostPort("127.0.0.1", "8080"))
}

func defaultGRPC() string {
	return cmp.Or(os.Getenv("COVEN_GATEWAY_GRPC"), hostPort("localhost", "50051"))
}

func hostPort(standard, port string) string {
	return net.JoinHostPort(strings.Trim(cmp.Or(os.Getenv("COVEN_GATEWAY_HOST"), standard), "[]"), port)
}

// credential is the token to show; "" for none.
func (a *app) credential() (string, error) {
	if t := strings.TrimSpace(cmp.Or(a.token, os.Getenv("COVEN_TOKEN"))); t != "" {
		return t, nil
	}
	b, err := os.ReadFile(tokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

func tokenFile() string {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, _ := os.UserHomeDir() // without one there is no file
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "coven", "token")
}

// failure is an answer that says no.
type failure struct {
	status int // of HTTP; 200 where a turn failed
	text   string
}

func (f *failure) Error() string { return f.text }

// ExitCode implements [cli.ExitCoder].
func (f *failure) ExitCode() int {
	if f.refused() {
		return 3
	}
	return 1
}

// refused reports whether credentials or rights are missing.
func (f *failure) refused() bool {
	return f.status == http.StatusUnauthorized || f.status == http.StatusForbidden
}

// refusal is a failure; where the gateway wants credentials and there are none, it says where they
// come from.
func refusal(status int, text, token string) error {
	if status == http.StatusUnauthorized && token == "" {
		text = fmt.Sprintf("%s (there is no token: set COVEN_TOKEN, or write one to %s)", text, tokenFile())
	}
	return &failure{status, text}
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
