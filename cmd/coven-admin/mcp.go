package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coven-gateway/internal/cli"
)

const serversPath = "/api/admin/mcp/servers"

var (
	serverView = view{block: true, columns: []column{
		{"name", "name", nil},
		{"state", "state", nil},
		{"error", "error", nil},
		{"since", "since", nil},
		{"restarts", "restarts", nil},
		{"sessions", "sessions", nil},
		{"command", "command", nil},
		{"cwd", "cwd", nil},
		{"env", "env", nil},
		{"url", "url", nil},
		{"headers", "headers", nil},
		{"prefix", "prefix", nil},
		{"allowed", "allowed", nil},
		{"session", "session", nil},
		{"accepts new tools", "auto_accept", nil},
		{"private address", "allow_private", nil},
		{"added", "created_at", nil},
		{"added by", "created_by", nil},
	}}
	serverToolView = view{key: "tools", none: "no tools", columns: []column{
		{"TOOL", "name", nil},
		{"CALLED", "callable", nil},
		{"STATE", "state", nil},
		{"REASON", "reason", nil},
		{"DESCRIPTION", "offered.description", nil},
		{"ACCEPTED AS", "accepted.description", nil},
	}}
)

func mcpCommand(a *app) *cobra.Command {
	one := func(use, short, example, method, path, said string, v view) *cobra.Command {
		return a.request(request{help: help{use: use, short: short, example: example}, method: method, path: serversPath + path, said: said, view: v})
	}
	able := func(word string, enabled bool) *cobra.Command {
		return a.request(request{
			help:   help{use: word + " NAME", short: strings.ToUpper(word[:1]) + word[1:] + " a server; its tools come and go with it", example: "coven-admin mcp " + word + " notes"},
			method: http.MethodPatch, path: serversPath + "/{0}", view: serverView,
			flags: func(*pflag.FlagSet) func([]string) (any, error) {
				return func([]string) (any, error) { return object{"enabled": enabled}, nil }
			},
		})
	}
	remove := one("remove NAME", "Stop a server and forget it", "coven-admin mcp remove notes", http.MethodDelete, "/{0}", "removed", view{})
	remove.Aliases = []string{"rm", "delete"}
	return a.group(
		help{use: "mcp", short: "Administer the MCP servers whose tools the gateway offers", example: "coven-admin mcp"},
		listing{path: serversPath, view: view{key: "servers", none: "no MCP servers", columns: []column{
			{"NAME", "name", nil}, {"STATE", "state", nil}, {"SINCE", "since", nil}, {"RESTARTS", "restarts", nil}, {"COMMAND OR URL", "command|url", nil}, {"ERROR", "error", nil},
		}}},
		addServer(a), showServer(a), acceptTools(a),
		one("test NAME", "Open a session with a server, list its tools, and close it", "coven-admin mcp test notes", http.MethodPost, "/{0}/test", "", view{block: true, columns: []column{
			{"server", "server", nil}, {"version", "version", nil}, {"protocol", "protocol", nil}, {"tools", "tools", nil}, {"ms", "duration_ms", nil},
		}}),
		one("logs NAME", "Show the latest lines of a server", "coven-admin mcp logs notes", http.MethodGet, "/{0}/logs", "", view{key: "lines", none: "no lines", columns: []column{{"AT", "at", nil}, {"LINE", "text", nil}}}),
		able("enable", true), able("disable", false), remove,
	)
}

// pairs reads NAME=VALUE.
func pairs(flag string, given []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range given {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, cli.Usage(fmt.Errorf("--%s: want NAME=VALUE; got %q", flag, s))
		}
		m[name] = value
	}
	return m, nil
}

func addServer(a *app) *cobra.Command {
	var url, cwd, prefix, session string
	var env, headers, tools []string
	var accept, auto, private bool
	var seconds int
	cmd := help{
		use: "add NAME", short: "Offer the tools of an MCP server",
		long: `Offer the tools of an MCP server: one behind a URL, or a program that the gateway runs, whose
command line stands behind --. No shell reads it. Programs need mcp.allow_commands and an owner.

What the server says of its tools is shown, and nobody can call one before it is accepted: look, and
then use accept; or accept them here as they come, with --accept. In the values of --env and --header
${secret:NAME} stands for a stored secret.`,
		example: "coven-admin mcp add notes --url https://notes.example/mcp --header 'Authorization=Bearer ${secret:NOTES}'\n" +
			"coven-admin mcp add files --accept -- npx -y @modelcontextprotocol/server-filesystem /srv/files",
	}.command(nil)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 || args[0] == "" {
			return fmt.Errorf("want NAME, and --url or a command behind --")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		vars, err := pairs("env", env)
		if err != nil {
			return err
		}
		heads, err := pairs("header", headers)
		if err != nil {
			return err
		}
		in := object{
			"name": args[0], "command": args[1:], "url": url, "cwd": cwd, "env": vars, "headers": heads, "allowed": tools, "session": session,
			"auto_accept": auto, "allow_private": private, "timeout_seconds": seconds, "accept": accept,
		}
		if cmd.Flags().Changed("prefix") {
			in["prefix"] = prefix
		}
		answer, err := a.read(cmd.Context(), http.MethodPost, serversPath, in)
		if err != nil {
			return err
		}
		return a.showTools(cmd, answer)
	}
	f := cmd.Flags()
	f.StringVar(&url, "url", "", "`URL` of Streamable HTTP")
	f.StringVar(&cwd, "cwd", "", "run the program in this `folder`")
	f.StringVar(&prefix, "prefix", "", "put this `word` before the names of the tools, instead of NAME_")
	f.StringVar(&session, "session", "", "`shared`, or agent: each agent has a session of its own")
	f.StringArrayVar(&env, "env", nil, "an environment variable, `NAME=VALUE`")
	f.StringArrayVar(&headers, "header", nil, "a header, `NAME=VALUE`")
	f.StringSliceVar(&tools, "tool", nil, "only this `tool` may be used; may be given more often")
	f.BoolVar(&accept, "accept", false, "accept its tools as they come")
	f.BoolVar(&auto, "auto-accept", false, "accept new tools also later; changed ones are held back")
	f.BoolVar(&private, "allow-private", false, "its address may be on this machine or in a private network")
	f.IntVar(&seconds, "timeout", 0, "how many `seconds` a call may take")
	return cmd
}

// showTools shows a server and its tools.
func (a *app) showTools(cmd *cobra.Command, answer []byte) error {
	if err := a.show(cmd, answer, serverView); err != nil || a.json {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	if err := a.show(cmd, answer, serverToolView); err != nil {
		return err
	}
	var s struct{ Name, Digest string }
	if err := json.Unmarshal(answer, &s); err == nil && s.Digest != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "tools wait: coven-admin mcp accept %s --digest %s\n", s.Name, s.Digest)
	}
	return nil
}

func showServer(a *app) *cobra.Command {
	return help{use: "show NAME", short: "Show a server and its tools, those that have changed as they were and are", example: "coven-admin mcp show notes"}.command(func(cmd *cobra.Command, args []string) error {
		answer, err := a.ask(cmd.Context(), http.MethodGet, fill(serversPath+"/{0}", args), nil)
		if err != nil {
			return err
		}
		return a.showTools(cmd, answer)
	})
}

func acceptTools(a *app) *cobra.Command {
	return a.request(request{
		help: help{
			use: "accept NAME", short: "Accept tools of a server as they are now: new ones, and those that have changed",
			long:    "Accept tools of a server as they are now: all that wait, or those of --tool. With --digest, which show tells, nothing is accepted if they have changed since you looked.",
			example: "coven-admin mcp accept notes --tool search",
		},
		method: http.MethodPost, path: serversPath + "/{0}/accept", view: serverToolView,
		flags: func(f *pflag.FlagSet) func([]string) (any, error) {
			tools := f.StringSlice("tool", nil, "only this `tool`, by the server's own name; may be given more often")
			digest := f.String("digest", "", "only what was shown with this `digest`")
			return func([]string) (any, error) { return object{"tools": *tools, "digest": *digest}, nil }
		},
	})
}
