package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/store"
)

func restoreCommand() *cobra.Command {
	var to place
	var force bool
	cmd := &cobra.Command{
		Use:   "restore SOURCE",
		Short: "Put a backup in the place of what the gateway keeps",
		Long: `Put a backup in the place of what the gateway keeps. The gateway must be stopped.

SOURCE is verified first. What is replaced is moved into a folder
before-restore-TIME of the data directory and never deleted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := to.resolve()
			if err != nil {
				return err
			}
			start := time.Now()
			r, err := store.Restore(cmd.Context(), args[0], p, force)
			if err != nil {
				return interrupted(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Restored %s to %s and %s in %v.\n", args[0], p.Database, p.DataDir, since(start))
			describe(cmd.OutOrStdout(), r.Manifest)
			for _, dir := range r.Aside {
				fmt.Fprintf(cmd.OutOrStdout(), "What was there before is in %s\n", dir)
			}
			return nil
		},
	}
	to.register(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also when there is a database, which is moved aside")
	return cmd
}
