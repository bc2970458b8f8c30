package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/config"
)

func configCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "config", Short: "Check or print the configuration"}
	cmd.PersistentFlags().StringVar(&path, "config", "", "read the configuration from `file`")
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Report everything that is wrong with the configuration",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, warnings, err := load(path)
				for _, w := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
				}
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					return cli.ErrReported
				}
				file := cfg.File()
				if file == "" {
					file = "no configuration file: the defaults"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
				return nil
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "Print the effective configuration and where each value comes from",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, _, err := load(path)
				if err != nil {
					return err
				}
				return config.Print(cmd.OutOrStdout(), cfg)
			},
		})
	return cmd
}
