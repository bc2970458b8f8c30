// Package cli is what the commands have in common: signals, exit codes and how errors are shown.
package cli

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

// ErrReported is returned by a command that has said what is wrong itself.
var ErrReported = errors.New("reported")

// Main runs a command line until it ends, or until a signal ends it, and exits. The first signal
// ends the command's context, a second one the process.
func Main(root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := Run(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run executes a command line and returns the exit code: 0, 1 for a failure, 2 for a usage error.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.Version = Version()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	usage := false
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { usage = true; return err })
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	case !errors.Is(err, ErrReported):
		fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	}
	if usage {
		fmt.Fprintf(stderr, "Try: %s --help\n", root.Name())
		return 2
	}
	return 1
}

// Version is what the build says of itself.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
