package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/pinner"
)

// forever is a --for that was not given.
const forever time.Duration = -1

// A lockJob is what the command line of lock says.
type lockJob struct {
	paths   []string
	hold    time.Duration
	command []string // nil: none

	stdin          io.Reader
	stdout, stderr io.Writer
	commandOut     io.Writer // what stdout writes to
}

func newLock() *cobra.Command {
	job := lockJob{hold: forever}
	cmd := &cobra.Command{
		Use:                   "lock PATH... [--for D] [-- CMD ARGS...]",
		DisableFlagsInUseLine: true,
		Short:                 "Lock files in RAM and hold them",
		Long: `lock locks every page of the files, and of all regular files below the
directories, in RAM. It asks the kernel whether they are locked, prints a table,
and holds them until SIGINT or SIGTERM comes or the time is over. A second signal
ends it at once, also while it waits for a disk. Symbolic links are followed where
they are named, and not inside of directories; no file at all is an error.

After -- comes a command to run while the files are locked: its exit status is
passed on (128 and the number of a signal that ended it; 126 or 127 if it could
not be run), and so are to it SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
SIGALRM and SIGWINCH (but not what it gets from the terminal, such as Ctrl-C). The
table goes to standard error, so that standard output is the command's alone.

It is all or nothing: if one file cannot be locked, none stays locked. The soft
limit RLIMIT_MEMLOCK is raised to the hard one. A file that grows or is replaced
meanwhile is not followed.`,
		Example: `  mmapio lock /srv/index
  mmapio lock --for 10m model.gguf
  mmapio lock /srv/index -- indexd --config /etc/indexd.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			job.stdin, job.stdout, job.stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			job.commandOut = job.stdout
			if out, ok := job.stdout.(*output); ok {
				job.commandOut = out.to
			}
			return job.run(cmd.Context())
		},
	}
	duration := cmd.Flags().Duration("for", 0, "hold for this long, such as 90s or 8h30m, and then let go")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"30s", "10m", "1h", "24h"},
		cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		job.paths, job.command = args, nil
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			job.paths, job.command = args[:dash], args[dash:]
			if len(job.command) == 0 {
				return usageError("no command after --")
			}
		}
		if cmd.Flags().Changed("for") {
			if *duration < 0 {
				return usageError("--for %v: must not be negative", *duration)
			}
			job.hold = *duration
		}
		return checkPaths(job.paths)
	}
	return cmd
}

// run has one rule above all: whatever way it ends, what is locked was
// reported before, and is let go.
func (j *lockJob) run(ctx context.Context) error {
	var child *exec.Cmd
	if j.command != nil {
		// Looked up first: a typing error need not wait for gigabytes.
		path, err := exec.LookPath(j.command[0])
		if err != nil {
			return cannotRun(err)
		}
		child = &exec.Cmd{Path: path, Args: j.command}
	}
	keepIgnored()
	stopped := untilInterrupted(ctx)
	defer stopped.end()

	held, err := lockAll(stopped, j.paths)
	if errors.Is(err, context.Canceled) {
		return errors.New("lock: interrupted before everything was locked; nothing stays locked")
	}
	if err != nil {
		return err
	}
	defer held.Release() //nolint:errcheck // on the way out with another error; a second call does nothing

	table := j.stdout
	if child != nil {
		table = j.stderr
	}
	if err := printHeld(table, held); err != nil {
		return fmt.Errorf("report what is locked: %w", err)
	}
	if child != nil {
		return j.runChild(ctx, stopped, child, held)
	}
	select {
	case <-stopped.Done():
	case <-j.after():
	}
	return held.Release()
}

func lockAll(ctx context.Context, paths []string) (*pinner.Held, error) {
	files, err := pinner.Walk(ctx, paths)
	if err != nil {
		return nil, err
	}
	// Where it cannot be raised the lock itself tells what is missing.
	_, _ = mmapio.RaiseLockLimit()
	held, err := pinner.Hold(ctx, files)
	if err == nil && len(held.Files) == 0 {
		return nil, noFiles(paths)
	}
	return held, err
}

// noFiles keeps a file system that is not mounted from being locked with success.
func noFiles(paths []string) error {
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = fileName(path)
	}
	return fmt.Errorf("no regular file below %s (symbolic links inside of directories are not followed)", strings.Join(names, ", "))
}

// after fires when the time is over, and never if there is no limit to it.
func (j *lockJob) after() <-chan time.Time {
	if j.hold == forever {
		return nil
	}
	return time.After(j.hold)
}

func printHeld(w io.Writer, held *pinner.Held) error {
	var t table
	t.row("FILE", "SIZE", "PAGES", "LOCKED")
	for _, f := range held.Files {
		locked := "?"
		if f.Locked != pinner.Unknown {
			locked = size(f.Locked)
		}
		t.row(fileName(f.Path), size(f.Size), number(f.Pages()), locked)
	}
	total, confirmed := held.Total()
	word := "confirmed by the kernel"
	all := size(confirmed)
	if confirmed == pinner.Unknown {
		word, all = "not confirmed: this system does not tell", "?"
	}
	t.row("total", size(total.Bytes), number(total.Pages), all)
	if err := t.write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "locked %s, %s (%s), %s\n", count(int64(total.Files), "file"),
		count(total.Bytes, "byte"), count(total.Pages, "page"), word)
	return err
}

// runChild runs the command to its end. The files stay locked as long, or
// until the time is over.
func (j *lockJob) runChild(ctx context.Context, stopped *interrupts, child *exec.Cmd, held *pinner.Held) error {
	// The one begins before the other ends: no signal falls in between.
	signals := make(chan os.Signal, 16)
	notify(signals, passedOn)
	defer signal.Stop(signals)
	if stopped.end() {
		return errors.New("lock: interrupted before the command was started; nothing stays locked")
	}
	// Its own: not a pipe, which would say that it is no terminal, hide that the
	// disk is full, and be waited for until what the command leaves behind ends.
	child.Stdin, child.Stdout, child.Stderr = j.stdin, j.commandOut, j.stderr
	if err := child.Start(); err != nil {
		return cannotRun(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()

	done, after := ctx.Done(), j.after()
	for {
		select {
		case sig := <-signals:
			if !fromTerminal(sig, child.Process) {
				_ = child.Process.Signal(sig) // it may have ended just now
			}
		case <-done:
			_ = terminate(child.Process)
			done = nil
		case <-after:
			if err := held.Release(); err != nil {
				fmt.Fprintf(j.stderr, "mmapio: %v\n", err)
			}
		case err := <-ended:
			return errors.Join(held.Release(), childStatus(child, err))
		}
	}
}

func childStatus(child *exec.Cmd, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return statusError{code: exitCode(child.ProcessState)}
	}
	return fmt.Errorf("%s: %w", child.Path, err)
}

// cannotRun has the statuses that shells have.
func cannotRun(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return statusError{exitNotFound, err}
	}
	return statusError{exitNotExecutable, err}
}
