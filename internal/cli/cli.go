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

// An ExitCoder is an error that names the exit code.
type ExitCoder interface {
	error
	ExitCode() int
}

// Usage returns err as one that is in the command line: exit code 2.
func Usage(err error) error { return usageError{err} }

type usageError struct{ error }

func (usageError) ExitCode() int { return 2 }

// Unwrap returns what is wrong with the command line.
func (e usageError) Unwrap() error { return e.error }

// Run executes a command line and returns the exit code: 0, 1 for a failure, 2 for a usage error,
// or what an [ExitCoder] says.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.Version = Version()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	begun := false
	prepare(root, &begun)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	if !begun {
		err = Usage(err)
	}
	if !errors.Is(err, ErrReported) {
		fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	}
	code := 1
	if e, ok := errors.AsType[ExitCoder](err); ok {
		code = e.ExitCode()
	}
	if code == 2 {
		fmt.Fprintf(stderr, "Try: %s --help\n", cmd.CommandPath())
	}
	return code
}

// prepare has every command below cmd set begun when it begins: an error before that is in the
// command line. A command that only has others below it says so when it is given a word that is
// none of them; cobra would print its help as if nothing were wrong.
func prepare(cmd *cobra.Command, begun *bool) {
	for _, c := range cmd.Commands() {
		prepare(c, begun)
	}
	if cmd.HasParent() && cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.DisableFlagsInUseLine = true
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*begun = true
			return run(cmd, args)
		}
	}
}

// Version is what the build says of itself.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
