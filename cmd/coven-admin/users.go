package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var oneUser = view{block: true, columns: []column{
	{"id", "id", nil},
	{"name", "name", nil},
	{"display name", "display_name", nil},
	{"roles", "roles", nil},
	{"disabled", "disabled", nil},
	{"online", "online", nil},
	{"password", "has_password", nil},
	{"passkeys", "passkeys", nil},
	{"created", "created_at", nil},
	{"created by", "created_by", nil},
	{"last seen", "last_seen", nil},
}}

func usersCommand(a *app) *cobra.Command {
	detailed := oneUser
	detailed.columns = append(slices.Clip(detailed.columns), column{"passkey names", "passkey_list.name", nil}, column{"sessions", "sessions.id", nil})
	// edit is a command that changes a person.
	edit := func(use, short, example string, body func(args []string) any) *cobra.Command {
		return a.request(request{
			help: help{use: use, short: short, example: example}, method: http.MethodPatch, path: "/api/admin/users/{0}", view: detailed,
			flags: func(*pflag.FlagSet) func([]string) (any, error) {
				return func(args []string) (any, error) { return body(args), nil }
			},
		})
	}
	return a.group(
		help{use: "users", short: "Administer the people who sign in with a browser", example: "coven-admin users", aliases: []string{"user"}},
		listing{path: "/api/admin/users", page: 500, view: view{key: "users", none: "no users", columns: []column{
			{"ID", "id", nil},
			{"NAME", "name", nil},
			{"ROLES", "roles", nil},
			{"DISABLED", "disabled", nil},
			{"PASSWORD", "has_password", nil},
			{"PASSKEYS", "passkeys", nil},
			{"LAST SEEN", "last_seen", nil},
			{"DISPLAY NAME", "display_name", nil},
		}}},
		a.request(request{
			help:   help{use: "show ID", short: "Show a person, its passkeys and sessions", example: "coven-admin users show $BEA"},
			method: http.MethodGet, path: "/api/admin/users/{0}", view: detailed,
		}),
		edit("role ID ROLE", "Make a person owner, admin, member or leader, and nothing else", "coven-admin users role $BEA leader", func(args []string) any { return object{"role": args[1]} }),
		edit("disable ID", "Shut a person out and end its sessions", "coven-admin users disable $BEA", func([]string) any { return object{"disabled": true} }),
		edit("enable ID", "Let a person in again", "coven-admin users enable $BEA", func([]string) any { return object{"disabled": false} }),
		resetUser(a),
		userSessions(a),
		a.request(request{
			help:   help{use: "remove ID", short: "Remove a person", example: "coven-admin users remove $BEA"},
			method: http.MethodDelete, path: "/api/admin/users/{0}", said: "removed",
		}),
	)
}

func resetUser(a *app) *cobra.Command {
	return help{
		use: "reset ID", short: "Make a link that signs a person in, once",
		long: `Make a link that signs a person in, and print it, the only thing on stdout. Whoever opens it first is
signed in, and the person's password and passkeys are gone; until then nothing changes.`,
		example: "coven-admin users reset $BEA",
	}.command(func(cmd *cobra.Command, args []string) error {
		answer, err := a.ask(cmd.Context(), http.MethodPost, fill("/api/admin/users/{0}/reset", args), nil)
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var l struct {
			URL       string
			ExpiresAt string `json:"expires_at"`
		}
		if err := json.Unmarshal(answer, &l); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), l.URL)
		fmt.Fprintf(cmd.ErrOrStderr(), "the link expires at %s and cannot be shown again\n", l.ExpiresAt)
		return nil
	})
}

func userSessions(a *app) *cobra.Command {
	cmd := a.list(listing{
		help: help{use: "sessions ID", short: "List the sessions of a person, or end them", example: "coven-admin users sessions $BEA"},
		path: "/api/admin/users/{0}", view: view{key: "sessions", none: "no sessions", columns: []column{
			{"ID", "id", nil},
			{"OPENED WITH", "opened_with", nil},
			{"ADDRESS", "address", nil},
			{"CREATED", "created_at", nil},
			{"LAST USED", "last_used", nil},
			{"DEVICE", "device", nil},
		}},
	})
	end := func(use, short, example, path string) *cobra.Command {
		return a.request(request{help: help{use: use, short: short, example: example}, method: http.MethodDelete, path: path, said: "ended"})
	}
	cmd.AddCommand(
		end("end ID SESSION", "End a session", "coven-admin users sessions end $BEA $SESSION", "/api/admin/users/{0}/sessions/{1}"),
		end("end-all ID", "End all sessions of a person", "coven-admin users sessions end-all $BEA", "/api/admin/users/{0}/sessions"),
	)
	return cmd
}
