//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/handover"
)

// controlName is the control socket in the data directory.
const controlName = "control.sock"

// upgradeTime bounds how long the command waits for its answer.
const upgradeTime = 10 * time.Minute

func upgradeCommand() *cobra.Command {
	var where place
	var binary string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a running gateway replaced by the program that is installed now",
		Long: `Have a running gateway replaced by the program that is installed now.

The new program is started with the arguments and the environment of the running
one, reads the configuration anew and takes over its sockets and then its data:
whoever connects meanwhile waits. If the new one cannot serve, the old one goes
on, this command says why, and its exit code is 1.

Whoever may write to control.sock in the data directory may do this: the user of
the gateway, and root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := where.resolve()
			if err != nil {
				return err
			}
			if binary != "" {
				if binary, err = filepath.Abs(binary); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), upgradeTime)
			defer cancel()
			start := time.Now()
			pid, err := handover.Ask(ctx, filepath.Join(p.DataDir, controlName), binary)
			if err != nil {
				return interrupted(cmd, errors.New("the gateway was not replaced: "+err.Error()))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Process %d serves now (after %v).\n", pid, since(start))
			return nil
		},
	}
	where.register(cmd)
	cmd.Flags().StringVar(&binary, "binary", "", "start `file` instead of the one that the running gateway was started from")
	return cmd
}
