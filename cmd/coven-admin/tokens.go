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
	standardDays = 30
	mostDays     = 365
	day          = 24 * 60 * 60 // seconds
)

func tokensCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "tokens", short: "Administer bearer tokens", example: "coven-admin tokens\ncoven-admin tokens list --principal $ALICE", aliases: []string{"token"}},
		listing{
			path: "/api/admin/tokens", page: 500, filters: []filter{{"principal", "principal_id", "only those of the principal with this `id`"}},
			view: view{key: "tokens", none: "no tokens", columns: []column{
				{"ID", "id", nil},
				{"PRINCIPAL", "principal_id", nil},
				{"KIND", "kind", nil},
				{"SCOPES", "scopes", nil},
				{"REVOKED", "revoked", nil},
				{"EXPIRES", "expires_at", nil},
				{"LAST USED", "last_used", nil},
				{"NAME", "name", nil},
			}},
		},
		createToken(a),
		a.request(request{
			help:   help{use: "revoke ID", short: "Make a token worthless and end the calls made with it", example: "coven-admin tokens revoke $TOKEN_ID"},
			method: http.MethodDelete, path: "/api/admin/tokens/{0}", said: "revoked",
		}),
	)
}

func createToken(a *app) *cobra.Command {
	var principal, name string
	var days int64
	var api bool
	var scopes []string
	cmd := help{
		use: "create", short: "Issue a token and print it",
		long: `Issue a token and print it: the token alone on stdout, everything else on stderr. The gateway keeps
no copy, so it cannot be shown again.`,
		example: "coven-admin tokens create --principal $ALICE --ttl 7\ncoven-admin tokens create -p $ALICE --api --name ci --scope read --scope send",
	}.command(func(cmd *cobra.Command, _ []string) error {
		switch {
		case days < 1 || days > mostDays:
			return cli.Usage(fmt.Errorf("--ttl is a number of days from 1 to %d; got %d", mostDays, days))
		case len(scopes) > 0 && !api:
			return cli.Usage(errors.New("only API tokens have scopes; add --api"))
		}
		body := object{"principal_id": principal, "ttl_seconds": days * day, "name": name}
		if api {
			body["kind"] = "api"
		}
		if len(scopes) > 0 {
			body["scopes"] = scopes
		}
		answer, err := a.ask(cmd.Context(), http.MethodPost, "/api/admin/tokens", body)
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var t struct {
			ID, Token string
			ExpiresAt string `json:"expires_at"`
		}
		if err := json.Unmarshal(answer, &t); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), t.Token)
		fmt.Fprintf(cmd.ErrOrStderr(), "token %s expires at %s; it cannot be shown again\n", t.ID, t.ExpiresAt)
		return nil
	})
	f := cmd.Flags()
	f.StringVarP(&principal, "principal", "p", "", "the `id` of whom the token speaks for")
	f.Int64VarP(&days, "ttl", "t", standardDays, "let it expire after so many `days`")
	f.BoolVar(&api, "api", false, "make an API token, which may have scopes")
	f.StringVar(&name, "name", "", "its `name`, for people")
	f.StringSliceVar(&scopes, "scope", nil, "let it do only this: `scope` is read, send, connect, devices or admin; may be repeated")
	_ = cmd.MarkFlagRequired("principal") // there is such a flag
	return cmd
}

// write prints an answer as it is.
func write(cmd *cobra.Command, answer []byte) error {
	_, err := cmd.OutOrStdout().Write(answer)
	return err
}
