package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func oauthCommand(a *app) *cobra.Command {
	return a.group(
		help{use: "oauth", short: "See and end what people let MCP clients do", example: "coven-admin oauth\ncoven-admin oauth list --principal $BEA"},
		listing{
			path: "/api/admin/oauth/grants", page: 500, filters: []filter{{"principal", "principal_id", "only those of the principal with this `id`"}},
			view: view{key: "grants", none: "no grants", columns: []column{
				{"ID", "id", nil},
				{"PRINCIPAL", "principal_id", nil},
				{"CLIENT", "client_name", nil},
				{"REDIRECT", "redirect_host", nil},
				{"SCOPES", "scopes", nil},
				{"CREATED", "created_at", nil},
				{"LAST USED", "last_used", nil},
			}},
		},
		a.request(request{
			help:   help{use: "revoke ID", short: "End a grant and the calls that are made with it", example: "coven-admin oauth revoke $GRANT"},
			method: http.MethodDelete, path: "/api/admin/oauth/grants/{0}", said: "revoked",
		}),
	)
}
