package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/store"
)

// place are the flags that say which gateway's data is meant.
type place struct{ config, dataDir string }

func (p *place) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.config, "config", "", "read the gateway's configuration from `file`")
	cmd.Flags().StringVar(&p.dataDir, "data-dir", "", "the `folder` in which the gateway keeps everything")
}

// resolve returns where serve keeps its data when it is given the same flags.
func (p *place) resolve() (store.Place, error) {
	cfg, _, err := load(p.config)
	if err != nil {
		return store.Place{}, err
	}
	applyDataDir(&cfg, p.dataDir)
	return store.Place{DataDir: cfg.DataDir, Database: cfg.Database.Path}, nil
}

func backupCommand() *cobra.Command {
	var from place
	cmd := &cobra.Command{
		Use:   "backup TARGET",
		Short: "Copy everything the gateway keeps into a folder, also while it runs",
		Long: `Copy everything the gateway keeps into a folder, also while it runs.

TARGET must not exist or be empty. It appears when the copy is complete and has
been verified; until then there is TARGET.partial. It has the secret of the
gateway in it: keep it as private as the data directory.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := from.resolve()
			if err != nil {
				return err
			}
			start := time.Now()
			m, err := store.Backup(cmd.Context(), p, args[0], cli.Version())
			if err != nil {
				return interrupted(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Copied %s and %s to %s in %v.\n", p.Database, p.DataDir, args[0], since(start))
			describe(cmd.OutOrStdout(), m)
			fmt.Fprintln(cmd.OutOrStdout(), "The copy has been verified.")
			return nil
		},
	}
	from.register(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "verify FOLDER",
		Short: "Check that a backup is complete and undamaged",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := time.Now()
			m, err := store.VerifyBackup(cmd.Context(), args[0])
			if err != nil {
				return interrupted(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is complete and undamaged (checked in %v).\n", args[0], since(start))
			describe(cmd.OutOrStdout(), m)
			return nil
		},
	})
	return cmd
}

// describe tells what is in a backup.
func describe(w io.Writer, m store.Manifest) {
	fmt.Fprintf(w, "It has %d files with %s, made on %s by gateway %s (schema %d):\n", len(m.Files), size(m.Size()),
		m.CreatedAt.Format("2 January 2006 15:04:05 MST"), m.Gateway, m.Schema)
	fmt.Fprintf(w, "%d conversations, %d threads, %d turns, %d events, %d attachments and files of agents.\n",
		m.Counts.Conversations, m.Counts.Threads, m.Counts.Turns, m.Counts.Events, m.Counts.Files)
}

// interrupted keeps a command that a signal has ended from being taken for one that has succeeded.
func interrupted(cmd *cobra.Command, err error) error {
	if cmd.Context().Err() != nil {
		return errors.New("interrupted: " + err.Error()) // no context.Canceled in its chain
	}
	return err
}

func since(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n)/1000, "kB"
	for _, u := range []string{"MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, u
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
