package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
)

func toolsCommand(a *app) *cobra.Command {
	return a.list(listing{
		help: help{use: "tools", short: "List the tools that can be called", example: "coven-admin tools"},
		path: "/api/tools",
		view: view{key: "tools", none: "there are no tools", columns: []column{
			{"NAME", "name", nil},
			{"PACK", "pack_id", nil},
			{"NEEDS", "required_capabilities", nil},
			{"ROLES", "required_roles", nil},
			{"SECONDS", "timeout_seconds", nil},
			{"ENABLED", "enabled", nil},
			{"FOR YOU", "available", nil},
		}},
	})
}

func packsCommand(a *app) *cobra.Command {
	return a.list(listing{
		help: help{use: "packs", short: "List the packs that run tools, and the tools that were rejected", example: "coven-admin packs"},
		path: "/api/packs",
		view: view{key: "packs", none: "there are no packs", columns: []column{
			{"ID", "id", nil},
			{"KIND", "kind", nil},
			{"VERSION", "version", nil},
			{"PRINCIPAL", "principal_id", nil},
			{"CONNECTED", "connected_at", nil},
			{"TOOLS", "tools", nil},
			{"REJECTED", "rejected.tool", nil},
		}},
	})
}

func callCommand(a *app) *cobra.Command {
	var agent string
	cmd := help{
		use: "call TOOL [INPUT]", short: "Call a tool and print its output",
		long: "Call a tool with a JSON object as its input, and print its output. With --agent the call is on behalf of that agent, which must be " +
			"yours, or you an administrator. What you may do counts, not what the agent may.",
		example: "coven-admin call note_list --agent echo\ncoven-admin call note_set '{\"key\":\"k\",\"value\":\"v\"}' --agent echo",
	}.command(func(cmd *cobra.Command, args []string) error {
		body := object{"agent_id": agent}
		if len(args) > 1 {
			if !json.Valid([]byte(args[1])) {
				return cli.Usage(fmt.Errorf("INPUT is not JSON: %s", args[1]))
			}
			body["input"] = json.RawMessage(args[1])
		}
		answer, err := a.read(cmd.Context(), http.MethodPost, fill("/api/tools/{0}/call", args[:1]), body)
		if err != nil || a.json {
			return errors.Join(err, write(cmd, answer))
		}
		var out struct{ Output json.RawMessage }
		if err := json.Unmarshal(answer, &out); err != nil {
			return fmt.Errorf("unexpected answer: %w", err)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), shown(cmd.OutOrStdout(), string(out.Output)))
		return err
	})
	cmd.Flags().StringVar(&agent, "agent", "", "on behalf of the agent with this `id`")
	return cmd
}
