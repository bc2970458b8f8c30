package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coven-gateway/internal/cli"
)

const policyPath = "/api/admin/agents/{0}/approval-policy"

var policyView = view{key: "rules", none: "no rules: people are asked", columns: []column{{"TOOL", "tool", nil}, {"ACTION", "action", nil}}}

func policyCommand(a *app) *cobra.Command {
	return without("policy", "Show and change what becomes of agents' wishes to run tools",
		a.list(listing{
			help: help{
				use: "show AGENT", short: "List the rules of an agent, in order; * is for all agents",
				long:    "List the rules of an agent, in order. The first one that matches counts, those of the agent before those of '*', all agents. Without one, people are asked.",
				example: "coven-admin agents policy show echo\ncoven-admin agents policy show '*'",
			},
			path: policyPath, view: policyView,
		}),
		a.request(request{
			help: help{
				use: "set AGENT", short: "Replace the rules of an agent, or with * of all agents",
				long: "Replace the rules of an agent, or with '*' of all agents. A rule is an action, a colon and a pattern: ask, allow or deny, and the name of a tool, " +
					"in which * stands for any characters, ? for one and [a-z] for one of these. What agents have asked before is left as it is.",
				example: "coven-admin agents policy set echo --rule deny:bash --rule 'allow:read_*'",
			},
			method: http.MethodPut, path: policyPath, view: policyView,
			flags: func(f *pflag.FlagSet) func([]string) (any, error) {
				given := f.StringArray("rule", nil, "`action:pattern`, in order")
				return func([]string) (any, error) {
					if len(*given) == 0 {
						return nil, cli.Usage(fmt.Errorf("want --rule; to remove all rules use clear"))
					}
					rules := make([]object, len(*given))
					for i, s := range *given {
						action, tool, ok := strings.Cut(s, ":")
						if !ok {
							return nil, cli.Usage(fmt.Errorf("--rule: want an action and a pattern like allow:read_*; got %q", s))
						}
						rules[i] = object{"tool": tool, "action": action}
					}
					return object{"rules": rules}, nil
				}
			},
		}),
		a.request(request{
			help:   help{use: "clear AGENT", short: "Remove all rules of an agent, or with * those for all agents", example: "coven-admin agents policy clear echo"},
			method: http.MethodPut, path: policyPath, view: policyView,
			flags: func(*pflag.FlagSet) func([]string) (any, error) {
				return func([]string) (any, error) { return object{"rules": []object{}}, nil }
			},
		}),
	)
}
