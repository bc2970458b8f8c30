package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"coven-gateway/internal/cli"
)

var secretColumns = []column{
	{"ID", "id", nil}, {"NAME", "name", nil}, {"AGENT", "agent_id", nil}, {"UPDATED", "updated_at", nil}, {"UPDATED BY", "updated_by", nil},
}

func secretsCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "secrets", short: "Administer what agents get as environment variables", example: "coven-admin secrets"},
		listing{path: "/api/admin/secrets", view: view{key: "secrets", none: "no secrets", columns: secretColumns}},
		setSecret(a),
		getSecret(a),
		a.request(request{
			help:   help{use: "delete ID", short: "Remove a secret", example: "coven-admin secrets delete $SECRET", aliases: []string{"rm", "remove"}},
			method: http.MethodDelete, path: "/api/admin/secrets/{0}", said: "deleted",
		}),
		a.request(request{
			help:   help{use: "rotate", short: "Seal all secrets with a new key", example: "coven-admin secrets rotate"},
			method: http.MethodPost, path: "/api/admin/secrets/rotate", view: view{block: true, columns: []column{{"sealed again", "sealed_again", nil}}},
		}),
	)
}

func setSecret(a *app) *cobra.Command {
	var agent, file, value string
	cmd := help{
		use: "set NAME", short: "Store a secret, for all agents or for one",
		long: `Store a secret, for all agents or for one. Agents get it when they next connect.

The value comes from stdin or from a file; one line end behind it is dropped. At a terminal you are
asked for it, and nobody sees what you type.`,
		example: "printf %s \"$KEY\" | coven-admin secrets set API_KEY --agent echo\ncoven-admin secrets set API_KEY --value-file key.txt",
	}.command(func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("value") {
			return cli.Usage(errors.New("--value would leave the secret in the history of your shell and in the list of processes (this one may be there now); use stdin or --value-file"))
		}
		value, err := secretValue(cmd, file, args[0])
		if err != nil {
			return err
		}
		answer, err := a.ask(cmd.Context(), http.MethodPut, "/api/admin/secrets", object{"name": args[0], "agent_id": agent, "value": value})
		if err != nil {
			return err
		}
		return a.show(cmd, answer, view{columns: secretColumns})
	})
	f := cmd.Flags()
	f.StringVarP(&agent, "agent", "a", "", "only for the agent with this `id`")
	f.StringVar(&file, "value-file", "", "read the value from `file`")
	f.StringVar(&value, "value", "", "")
	_ = f.MarkHidden("value") // there is such a flag
	return cmd
}

// secretValue reads a value from a file, from whoever sits at the terminal, or from stdin.
func secretValue(cmd *cobra.Command, file, name string) (string, error) {
	in := cmd.InOrStdin()
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	case isTerminal(in):
		return unseen(cmd, "Value of "+name+": ")
	}
	b, err := io.ReadAll(io.LimitReader(in, 1<<20)) // the gateway takes less
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), err
}

// unseen reads a line from the terminal that is stdin, without showing it.
func unseen(cmd *cobra.Command, prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(cmd.ErrOrStderr())
	read := make(chan line, 1)
	go func() { // ends with the program at the latest
		b, err := term.ReadPassword(fd)
		read <- line{string(b), err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-cmd.Context().Done():
		return "", errors.Join(term.Restore(fd, before), context.Cause(cmd.Context()))
	}
}

func getSecret(a *app) *cobra.Command {
	return help{
		use: "get ID", short: "Print the value of a secret; the audit log records it", example: "coven-admin secrets get $SECRET",
	}.command(func(cmd *cobra.Command, args []string) error {
		answer, err := a.ask(cmd.Context(), http.MethodGet, fill("/api/admin/secrets/{0}/value", args), nil)
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var x struct{ Value string }
		if err := json.Unmarshal(answer, &x); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), x.Value)
		return nil
	})
}
