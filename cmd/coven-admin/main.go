// Coven-admin shows and changes a running gateway from the command line. It speaks HTTP and gRPC and
// never opens the database.
package main

import (
	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
)

func main() { cli.Main(root()) }

func root() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use: "coven-admin", Short: "Show and change a running coven gateway",
		Long: `Show and change a running coven gateway.

It reaches the gateway at --http and --grpc and shows it the token of --token, of COVEN_TOKEN, or of
the file coven/token in $XDG_CONFIG_HOME or ~/.config. Errors go to stderr. The exit code is 0 when
all went well, 1 after a failure, 2 for a mistake in the command line, and 3 when the gateway refuses
for lack of credentials or rights.`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&a.http, "http", defaultHTTP(), "`URL` of the gateway; COVEN_GATEWAY_HTTP, or COVEN_GATEWAY_HOST, changes the default")
	f.StringVar(&a.grpc, "grpc", defaultGRPC(), "`host:port` of its gRPC server, or https://host:port where it speaks TLS; COVEN_GATEWAY_GRPC, or COVEN_GATEWAY_HOST, changes the default")
	f.StringVar(&a.token, "token", "", "show this `token`; others on this machine can see it, COVEN_TOKEN and the file they cannot")
	f.BoolVar(&a.json, "json", false, "print JSON as the gateway sends it")
	f.BoolVar(&a.noColor, "no-color", false, "print no colours, as for NO_COLOR or when the output is no terminal")
	cmd.AddCommand(
		meCommand(a), statusCommand(a), versionCommand(a),
		agentsCommand(a), principalsCommand(a), keysCommand(a), tokensCommand(a), invitesCommand(a), usersCommand(a), oauthCommand(a), linkCommand(a),
		secretsCommand(a), bindingsCommand(a), auditCommand(a),
		toolsCommand(a), packsCommand(a), callCommand(a), mcpCommand(a),
		usageCommand(a), threadsCommand(a), messagesCommand(a), eventsCommand(a), tailCommand(a), chatCommand(a), turnsCommand(a), cancelCommand(a),
	)
	return cmd
}
