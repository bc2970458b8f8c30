package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/harness"
)

func chaosCommand() *cobra.Command {
	var o harness.ChaosOptions
	var agents, file string
	var quiet bool
	var names []string
	list := &strings.Builder{}
	for _, f := range harness.Faults() {
		names = append(names, f.Name)
		fmt.Fprintf(list, "\n  %-13s %s", f.Name, f.About)
	}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Break a gateway in many ways and check that nothing is lost",
		Long: `Run a gateway of its own in a temporary folder, with agents and clients, break things
for a while, and then compare what everybody saw with what is in the log.

Every event that a client saw must be there, in the same order, once and without a gap;
every turn has ended once; no message reached its agent twice; what agents said is in the
log as they said it, and all of it where the turn is done, or where the agent can resume;
coven-gateway doctor finds nothing. The exit code is 1 when something is wrong, and the
seed and the first difference are shown. A seed fixes what happens and what is said, not
how the system schedules the processes.

Faults, all of them without --faults:
` + list.String(),
		Example: "coven-gateway chaos\ncoven-gateway chaos --duration 30s --faults kill,cut,disk --seed 7 --json chaos.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			switch {
			case agents != "plain" && agents != "resume":
				return cli.Usage(fmt.Errorf("--agents is plain or resume, not %q", agents))
			case o.Duration <= 0 || o.Agents < 1 || o.Clients < 1:
				return cli.Usage(errors.New("--duration, --agent-count and --clients must be positive"))
			}
			for _, name := range o.Faults {
				if !slices.Contains(names, name) {
					return cli.Usage(fmt.Errorf("there is no fault %q; see --help", name))
				}
			}
			if !cmd.Flags().Changed("seed") {
				o.Seed = uint64(rand.Uint32())
			}
			if o.Bin, err = os.Executable(); err != nil {
				return err
			}
			if o.Resume = agents == "resume"; !quiet {
				o.Progress = cmd.ErrOrStderr()
			}
			r, err := harness.Chaos(cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("seed %d: %w", o.Seed, err)
			}
			if err := errors.Join(r.Write(cmd.OutOrStdout()), writeJSON(file, r)); err != nil {
				return err
			}
			if len(r.Wrong) > 0 {
				return cli.ErrReported
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", 3*time.Minute, "break things for so long")
	f.Uint64Var(&o.Seed, "seed", 0, "which things, in which order; random if it is not given")
	f.StringSliceVar(&o.Faults, "faults", names, "only these `names`, separated by commas")
	f.Lookup("faults").DefValue = ""
	f.StringVar(&agents, "agents", "plain", "agents that lose a turn with their connection (`plain`), or go on with it (resume)")
	f.IntVar(&o.Agents, "agent-count", 4, "so many agents, besides those that misbehave")
	f.IntVar(&o.Clients, "clients", 4, "so many clients talk to each of them")
	f.StringVar(&o.Dir, "data-dir", "", "keep the data in `folder`, which must be new or empty")
	f.StringVar(&file, "json", "", "write the results to `file`, too")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not tell of each fault")
	return cmd
}

// writeJSON writes results to a file, unless its name is "".
func writeJSON(file string, v any) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}
