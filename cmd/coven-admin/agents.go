package main

import (
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func agentsCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "agents", short: "List the connected agents, and administer agents", example: "coven-admin agents\ncoven-admin agents list --workspace backend"},
		listing{path: "/api/agents", filters: []filter{{"workspace", "workspace", "only agents of the workspace `name`"}}, view: view{none: "no agents are connected", columns: []column{
			{"ID", "id", nil}, {"INSTANCE", "instance_id", nil}, {"NAME", "name", nil}, {"BACKEND", "backend", nil}, {"OPEN TURNS", "open_turns", nil},
		}}},
		a.list(listing{
			help: help{use: "owners", short: "List whose every agent id is, connected or not", example: "coven-admin agents owners --principal $ALICE"},
			path: "/api/admin/agents", page: 500, filters: []filter{{"principal", "principal_id", "only those of the principal with this `id`"}},
			view: view{key: "agents", none: "no agent ids are owned", columns: []column{
				{"ID", "id", nil}, {"PRINCIPAL", "principal_id", nil}, {"CONNECTED", "connected", nil}, {"CONFIRMED", "confirmed", nil}, {"CLAIMED", "claimed_at", nil},
			}},
		}),
		a.request(request{
			help:   help{use: "transfer AGENT PRINCIPAL", short: "Give an agent id to another principal", example: "coven-admin agents transfer echo $ALICE"},
			method: http.MethodPost, path: "/api/admin/agents/{0}/transfer", said: "transferred",
			flags: func(*pflag.FlagSet) func([]string) (any, error) {
				return func(args []string) (any, error) { return object{"principal_id": args[1]}, nil }
			},
		}),
		a.request(request{
			help: help{
				use: "release AGENT", short: "Make an agent id free", example: "coven-admin agents release echo",
				long: "Make an agent id free: the next principal that connects with it owns it, though it inherits neither secrets nor what was said.",
			},
			method: http.MethodDelete, path: "/api/admin/agents/{0}/ownership", said: "released",
		}),
		injectCommand(a),
		policyCommand(a),
		createPrincipal(a, help{
			use: "create", short: "Create the principal of an agent", example: "coven-admin agents create --name builder --pubkey \"$(cat id_ed25519.pub)\"",
		}, "agent"),
		deletePrincipal(a, "principal of an agent", "coven-admin agents delete $BUILDER"),
	)
}
