// Coven-gateway is the control plane for AI agents: agents connect over gRPC, people and programs
// talk to them over HTTP, and everything said is kept.
package main

import (
	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
)

func main() { cli.Main(root()) }

func root() *cobra.Command {
	cmd := &cobra.Command{Use: "coven-gateway", Short: "The control plane for AI agents"}
	cmd.AddCommand(serveCommand(), demoCommand(), initCommand(), bootstrapCommand(), configCommand(), healthCommand(), agentsCommand(), statusCommand(), upgradeCommand(), backupCommand(), restoreCommand(), doctorCommand(), importCommand(), benchCommand(), chaosCommand(), relayCommand())
	return cmd
}
