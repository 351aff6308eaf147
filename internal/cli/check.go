package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mmapio/mmapio/internal/pinner"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check PATH...",
		Short: "Tell whether files could be locked in RAM, and if not why",
		Long: `check compares what locking the files would need with what there is: the limit
RLIMIT_MEMLOCK, the capability CAP_IPC_LOCK, free memory, every memory cgroup that
this process is in, and vm.max_map_count. It tells which of them refuses and how
to raise it, and locks nothing.

Exit status 1 means that a lock would fail. "doubtful" means that only trying
tells, and is no failure.`,
		Example: `  mmapio check /srv/index && echo it fits`,
		Args:    needPaths,
		RunE: func(cmd *cobra.Command, paths []string) error {
			files, missing := pinner.Walk(cmd.Context(), paths)
			report, failed := pinner.Check(cmd.Context(), files)
			failed = errors.Join(missing, failed)
			if report != nil && report.Files == 0 && failed == nil {
				failed = noFiles(paths)
			}
			if report == nil || report.Files == 0 {
				return failed
			}
			return errors.Join(printReport(cmd.OutOrStdout(), report), failed, refused(report))
		},
	}
}

func printReport(w io.Writer, r *pinner.Report) error {
	var t table
	t.row("REQUIREMENT", "NEED", "HAVE", "VERDICT")
	for _, q := range r.Requirements {
		verdict := q.Verdict.String()
		if q.Verdict == pinner.Fits && q.Need == pinner.Unknown {
			verdict = "-" // told for information
		}
		t.row(fileName(q.Name), amount(q.Need, q.Unit), amount(q.Have, q.Unit), verdict, printable(q.Fact))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s: %s, %s not in RAM yet\n", count(int64(r.Files), "file"), sizes(r.Bytes),
		count(r.Pages, "page"), number(r.Missing))
	if err := t.write(&out); err != nil {
		return err
	}
	for _, q := range r.Requirements {
		if q.Verdict != pinner.Fits {
			fmt.Fprintf(&out, "%v: %s\n", q.Verdict, printable(q.Refusal()))
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func amount(n int64, unit pinner.Unit) string {
	switch {
	case n == pinner.Unknown:
		return "-"
	case n == pinner.NoLimit:
		return "no limit"
	case unit == pinner.Mappings:
		return count(n, "mapping")
	}
	return size(n)
}

// refused is why the exit status is 1.
func refused(r *pinner.Report) error {
	var names []string
	for _, q := range r.Refused() {
		names = append(names, q.Name)
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("a lock would fail: refused by %s", strings.Join(names, ", "))
}
