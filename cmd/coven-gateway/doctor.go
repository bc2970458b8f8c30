package main

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/store"
)

func doctorCommand() *cobra.Command {
	var at place
	var repair bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for damage in what the gateway keeps, and repair what can be repaired",
		Long: `Look for damage in what the gateway keeps: the database, the record of what was
said, the indexes and the contents of files. The exit code is 1 when there is any.

Nothing is changed without --repair, and with it the gateway must be stopped. The
database is copied first, into a folder before-repair-TIME of the data directory;
files that are not needed are moved there, too. Where nothing can be repaired it
says what people can do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := at.resolve()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if !repair {
				found, err := store.Examine(cmd.Context(), p)
				if err != nil {
					return interrupted(cmd, err)
				}
				for _, f := range found {
					fmt.Fprintf(out, "* %s\n", f.What)
					if f.Cure != "" {
						fmt.Fprintf(out, "  With --repair %s.\n", f.Cure)
					} else {
						fmt.Fprintf(out, "  This cannot be repaired: %s.\n", f.Else)
					}
				}
				return verdict(out, p, found)
			}
			r, err := store.Repair(cmd.Context(), p)
			if r.Aside != "" {
				fmt.Fprintf(out, "What was there before is in %s\n", r.Aside)
			}
			for _, f := range r.Done {
				fmt.Fprintf(out, "* %s\n  Repaired: %s.\n", f.What, f.Cure)
			}
			if err != nil {
				return interrupted(cmd, err)
			}
			for _, f := range r.Left {
				fmt.Fprintf(out, "* %s\n  This could not be repaired: %s.\n", f.What, cmp.Or(f.Else, "restore a backup (coven-gateway restore)"))
			}
			return verdict(out, p, r.Left)
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&repair, "repair", false, "repair what can be repaired, after a copy of the database was made")
	return cmd
}

// verdict ends the report.
func verdict(out io.Writer, p store.Place, found []store.Finding) error {
	if len(found) > 0 {
		return cli.ErrReported
	}
	fmt.Fprintf(out, "%s and %s are as they should be.\n", p.Database, p.DataDir)
	return nil
}
