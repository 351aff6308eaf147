// Package cli is the mmapio command: it reads the command line, has package
// pinner do the work, and prints. Whatever could be of use without a command
// line belongs there.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/mmapio/mmapio/internal/pinner"
)

// Exit statuses. The status of a command that lock runs is passed on.
const (
	exitDone          = 0
	exitFailed        = 1
	exitUsage         = 2
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

// Main runs the command with the arguments that follow its name and returns
// the exit status. The end of the context means what SIGTERM does.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	out := &output{to: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	addCompletion(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.err
	}
	return report(cmd, stderr, err)
}

// An output remembers that something could not be written: who prints the help
// does not say so.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// report prints what went wrong, each thing once and on a line of its own.
func report(cmd *cobra.Command, stderr io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	code := exitFailed
	for _, e := range pinner.Split(err) {
		var status statusError
		if errors.As(e, &status) {
			code, e = status.code, status.err
		}
		if e != nil {
			fmt.Fprintf(stderr, "mmapio: %s\n", printable(e.Error()))
		}
		if code == exitUsage && e != nil {
			fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		}
	}
	return code
}

// A statusError ends the program with a status other than 1. Without an error
// inside there is nothing left to say.
type statusError struct {
	code int
	err  error
}

func (e statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func usageError(format string, args ...any) error {
	return statusError{exitUsage, fmt.Errorf(format, args...)}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "mmapio",
		Short: "Lock files in RAM, and see what of files is there",
		Long: `mmapio locks the pages of files in RAM, asks the kernel whether it holds them,
and tells what of files is in RAM and whether more of them would fit.

Exit status: 0 done, 1 failed, 2 wrong usage.`,
		Version: version(),
		// Errors are printed by report alone.
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			if err := cmd.Help(); err != nil {
				return err
			}
			return statusError{code: exitUsage}
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return statusError{exitUsage, err}
	})
	root.AddCommand(newLock(), newStatus(), newCheck())
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error {
			if about, _, err := root.Find(args); err != nil || len(args) > 0 && about == root {
				return usageError("unknown command %q", args[0])
			}
			return nil
		}
	}
	return root
}

// addCompletion adds the verb that cobra has for it, which writes to where root
// does by now.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = noArgs
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, shell := range completion.Commands() {
			shell.Args = noArgs
		}
	}
}

// noArgs is for what cobra would pass over, or take for no wrong usage.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("unknown argument %q", args[0])
	}
	return nil
}

// version is what the go command wrote into the program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// needPaths is the rule for the arguments of every verb.
func needPaths(_ *cobra.Command, args []string) error {
	return checkPaths(args)
}

func checkPaths(paths []string) error {
	if len(paths) == 0 {
		return usageError("no PATH given")
	}
	for _, path := range paths {
		if path == "" {
			return usageError("a PATH is empty")
		}
	}
	return nil
}
