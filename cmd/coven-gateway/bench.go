package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"coven-gateway/internal/cli"
	"coven-gateway/internal/harness"
)

func benchCommand() *cobra.Command {
	o := harness.DefaultBench()
	var running harness.Target
	var file string
	var quiet bool
	var names []string
	list := &strings.Builder{}
	for _, c := range harness.Cases() {
		names = append(names, c.Name)
		fmt.Fprintf(list, "\n  %-13s %s", c.Name, c.About)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a gateway on this machine",
		Long: `Measure a gateway on this machine, from outside: a process of its own for each case, with
data in a temporary folder, or one that runs already. Agents and clients share its
processors. All that agents send is compared with what clients receive; the exit code is 1
when it differs.

The bare relay is the least that can stand between an agent and a client: it stores
nothing, and forwards each increment by itself. It shows what of a figure is transport.

Cases, all of them without --cases:
` + list.String(),
		Example: "coven-gateway bench\ncoven-gateway bench --cases throughput,latency --json bench.json\n" +
			"coven-gateway bench --cases turns --turns 1000000\ncoven-gateway bench --gateway 127.0.0.1:50051 --http http://127.0.0.1:8080 --cases latency",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			for _, name := range o.Cases {
				if !slices.Contains(names, name) {
					return cli.Usage(fmt.Errorf("there is no case %q; see --help", name))
				}
			}
			for _, n := range []int{o.Agents, o.Clients, o.Increments, o.Burst, o.Streams, o.Rate, o.Idle, o.Readers, o.Turns} {
				if n < 1 {
					return cli.Usage(errors.New("sizes must be positive"))
				}
			}
			if (running.GRPC == "") != (running.HTTP == "") {
				return cli.Usage(errors.New("--gateway and --http belong together"))
			}
			if running.GRPC != "" {
				if running.Token == "" {
					running.Token = os.Getenv("COVEN_TOKEN")
				}
				running.HTTP = strings.TrimSuffix(running.HTTP, "/")
				o.Running = &running
			}
			if o.Bin, err = os.Executable(); err != nil {
				return err
			}
			if !quiet {
				o.Progress = cmd.ErrOrStderr()
			}
			r, err := harness.Bench(cmd.Context(), o)
			if err != nil {
				return err
			}
			return errors.Join(r.Write(cmd.OutOrStdout()), writeJSON(file, r))
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Cases, "cases", names, "only these `names`, separated by commas")
	f.Lookup("cases").DefValue = ""
	f.StringVar(&running.GRPC, "gateway", "", "measure the gateway whose gRPC is at `host:port`; it gets conversations of agents bench-*")
	f.StringVar(&running.HTTP, "http", "", "where the same gateway serves HTTP, as a `URL`")
	f.StringVar(&running.Token, "token", "", "show it this `token`; COVEN_TOKEN if it is not given")
	f.IntVar(&o.Agents, "agents", o.Agents, "throughput, turns: agents")
	f.IntVar(&o.Clients, "clients", o.Clients, "throughput: clients of each agent")
	f.IntVar(&o.Increments, "increments", o.Increments, "throughput: increments of an answer")
	f.IntVar(&o.Burst, "burst", o.Burst, "burst, fan-out: increments of the answer")
	f.IntVar(&o.Streams, "streams", o.Streams, "latency, locked: agents that send at once")
	f.IntVar(&o.Rate, "rate", o.Rate, "latency, locked: increments a second of each")
	f.IntVar(&o.Idle, "idle", o.Idle, "idle-agents, idle-readers: how many")
	f.IntVar(&o.Readers, "readers", o.Readers, "fan-out: how many")
	f.IntVar(&o.Turns, "turns", o.Turns, "turns: how many")
	f.StringVar(&file, "json", "", "write the results to `file`, too")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not say what is being measured")
	return cmd
}

// relayCommand is what bench compares with; it is of no other use.
func relayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "relay GRPC-ADDRESS HTTP-ADDRESS", Short: "Forward answers without keeping them", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return harness.Relay(args[0], args[1]) },
	}
}
