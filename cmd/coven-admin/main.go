// Coven-admin shows and changes a running gateway from the command line. It speaks HTTP and never
// opens the database.
package main

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
)

func main() { cli.Main(root()) }

func root() *cobra.Command {
	c := &client{}
	cmd := &cobra.Command{Use: "coven-admin", Short: "Show and change a running coven gateway"}
	f := cmd.PersistentFlags()
	f.StringVar(&c.base, "http", cmp.Or(os.Getenv("COVEN_GATEWAY_HTTP"), "http://127.0.0.1:8080"), "`URL` of the gateway; COVEN_GATEWAY_HTTP changes the default")
	f.BoolVar(&c.json, "json", false, "print JSON as the gateway sends it")
	cmd.AddCommand(statusCommand(c), agentsCommand(c), threadsCommand(c), messagesCommand(c), tailCommand(c), chatCommand(c), cancelCommand(c))
	return cmd
}
