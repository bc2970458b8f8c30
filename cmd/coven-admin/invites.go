package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
)

const (
	inviteHours     = 24
	mostInviteHours = 30 * 24
)

func invitesCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "invites", short: "Invite people", example: "coven-admin invites", aliases: []string{"invite"}},
		listing{path: "/api/admin/invites", view: view{key: "invites", none: "no invites", columns: []column{
			{"ID", "id", nil},
			{"STATUS", "status", nil},
			{"ROLE", "role", nil},
			{"EXPIRES", "expires_at", nil},
			{"USED BY", "used_by", nil},
			{"NOTE", "note", nil},
		}}},
		createInvite(a),
		a.request(request{
			help:   help{use: "revoke ID", short: "Make an invite worthless", example: "coven-admin invites revoke $INVITE"},
			method: http.MethodDelete, path: "/api/admin/invites/{0}", said: "revoked",
		}),
	)
}

func createInvite(a *app) *cobra.Command {
	var role, note string
	var hours int64
	cmd := help{
		use: "create", short: "Make an invite and print its link",
		long: `Make an invite and print its link, the only thing on stdout. Whoever opens the link first becomes a
principal with the role. The gateway keeps no copy of the link, so it cannot be shown again.`,
		example: "coven-admin invites create --note \"for Bea\"\ncoven-admin invites create --role admin --ttl 2",
	}.command(func(cmd *cobra.Command, _ []string) error {
		if hours < 1 || hours > mostInviteHours {
			return cli.Usage(fmt.Errorf("--ttl is a number of hours from 1 to %d; got %d", mostInviteHours, hours))
		}
		answer, err := a.ask(cmd.Context(), http.MethodPost, "/api/admin/invites", object{"role": role, "note": note, "ttl_seconds": hours * 60 * 60})
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var i struct {
			ID, URL   string
			Role      string
			ExpiresAt string `json:"expires_at"`
		}
		if err := json.Unmarshal(answer, &i); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), i.URL)
		fmt.Fprintf(cmd.ErrOrStderr(), "invite %s for one %s expires at %s; its link cannot be shown again\n", i.ID, i.Role, i.ExpiresAt)
		return nil
	})
	f := cmd.Flags()
	f.StringVar(&role, "role", "member", "what it makes of whoever opens it: member, leader, admin or owner")
	f.StringVar(&note, "note", "", "whom it is for, for your own list")
	f.Int64VarP(&hours, "ttl", "t", inviteHours, "let it expire after so many `hours`")
	return cmd
}
