// Coven-admin shows and changes a running gateway from the command line. It speaks HTTP and never
// opens the database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes a command line and returns the exit code: 0, 1 for a failure, 2 for a usage error.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &client{}
	root := &cobra.Command{
		Use:           "coven-admin",
		Short:         "Show and change a running coven gateway",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	usage := false
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { usage = true; return err })
	root.PersistentFlags().StringVar(&c.base, "http", defaultGateway(), "`URL` of the gateway; COVEN_GATEWAY_HTTP changes the default")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON as the gateway sends it")
	root.AddCommand(statusCommand(c), agentsCommand(c), threadsCommand(c), messagesCommand(c), tailCommand(c), chatCommand(c), cancelCommand(c))
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintf(stderr, "coven-admin: %v\n", err)
	if usage {
		fmt.Fprintln(stderr, "Try: coven-admin --help")
		return 2
	}
	return 1
}

func defaultGateway() string {
	if url := os.Getenv("COVEN_GATEWAY_HTTP"); url != "" {
		return url
	}
	return "http://127.0.0.1:8080"
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
