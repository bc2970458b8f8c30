package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/gateway"
	"coven-gateway/internal/store"
)

func importCommand() *cobra.Command {
	var to place
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "import OLD.db",
		Short: "Take over the database of the public gateway",
		Long: `Take over the database of the public gateway into a new, empty one.

Stop the public gateway first. OLD.db is only read. Principals keep their ids,
keys and roles: with the same auth.jwt_secret their tokens stay good. All of it
is taken over in one transaction, or nothing. What is not taken over is reported,
with the reason.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := load(to.config)
			if err != nil {
				return err
			}
			applyDataDir(&cfg, to.dataDir)
			if err := cfg.Validate(); err != nil {
				return err
			}
			start := time.Now()
			r, err := gateway.TakeOver(cmd.Context(), cfg, slog.New(slog.DiscardHandler), args[0], dryRun)
			if err != nil {
				return interrupted(cmd, err)
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(r)
			}
			return showTakeover(cmd.OutOrStdout(), r, args[0], cfg.Database.Path, since(start))
		},
	}
	to.register(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "do everything, show the report and undo it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func showTakeover(out io.Writer, r *store.TakeoverReport, from, to string, took time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tFOUND\tTAKEN\tNOT TAKEN")
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s\t%d\t%d\t", t.Table, t.Found, t.Taken)
		for i, l := range t.Left {
			if i > 0 {
				fmt.Fprint(w, "\n\t\t\t")
			}
			fmt.Fprintf(w, "%d: %s", l.Rows, l.Reason)
			if len(l.Examples) > 0 {
				fmt.Fprintf(w, " (%s", strings.Join(l.Examples, ", "))
				if l.Rows > len(l.Examples) {
					fmt.Fprint(w, ", …")
				}
				fmt.Fprint(w, ")")
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, n := range r.Notes {
		fmt.Fprintf(out, "* %s.\n", n)
	}
	if r.DryRun {
		fmt.Fprintf(out, "\nNothing was changed. %s would become", from)
	} else {
		fmt.Fprintf(out, "\nTook over %s into %s:", from, to)
	}
	_, err := fmt.Fprintf(out, " %d conversations, %d threads, %d turns, %d events (in %v).\n", r.Conversations, r.Threads, r.Turns, r.Events, took)
	return err
}
