package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func injectCommand(a *app) *cobra.Command {
	var priority, source string
	cmd := help{
		use: "inject AGENT CONTENT", short: "Give an agent something to know that is no message",
		long: "Give an agent something to know that is no message, and wait up to ten seconds for what it says to it. " +
			"It fails when the agent refuses, and when nobody knows what becomes of it.",
		example: "coven-admin agents inject echo 'the build is broken' --priority immediate --source ci",
	}.command(func(cmd *cobra.Command, args []string) error {
		body := object{"content": args[1], "priority": priority, "source": source}
		answer, err := a.read(cmd.Context(), http.MethodPost, fill("/api/agents/{0}/inject", args), body) // it takes longer than others
		if err != nil {
			return err
		}
		var out struct{ Outcome, Reason string }
		if err := json.Unmarshal(answer, &out); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		if a.json {
			if err := write(cmd, answer); err != nil {
				return err
			}
		}
		switch {
		case out.Outcome != "accepted":
			text := out.Outcome
			if out.Reason != "" {
				text += ": " + out.Reason
			}
			return &failure{http.StatusOK, text}
		case !a.json:
			fmt.Fprintln(cmd.OutOrStdout(), out.Outcome)
		}
		return nil
	})
	cmd.Flags().StringVar(&priority, "priority", "normal", "`when` the agent should look at it: immediate, normal or deferred")
	cmd.Flags().StringVar(&source, "source", "", "tell the agent `where` it comes from")
	return cmd
}
