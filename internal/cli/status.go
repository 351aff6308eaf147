package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/mmapio/mmapio/internal/pinner"
)

func newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status PATH...",
		Short: "Show how much of files is in RAM",
		Long: `status shows how many pages of each file, and of each file below each directory,
are in RAM, and in total.

A question mark means that the kernel does not tell: it answers only to the
owner of a file and to those who may write it, and does not know on some file
systems (hugetlbfs, DAX).`,
		Example: `  mmapio status /srv/index
  mmapio status model.gguf /usr/lib/jvm`,
		Args: needPaths,
		RunE: func(cmd *cobra.Command, paths []string) error {
			files, missing := pinner.Walk(cmd.Context(), paths)
			all, failed := pinner.Status(cmd.Context(), files)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			failed = errors.Join(missing, failed)
			if len(all) == 0 && failed != nil {
				return failed
			}
			return errors.Join(printStatus(cmd.OutOrStdout(), all), failed)
		},
	}
}

func printStatus(w io.Writer, all []pinner.Residency) error {
	var t table
	var files []pinner.File
	t.row("FILE", "SIZE", "PAGES", "RESIDENT", "PERCENT")
	for _, r := range all {
		t.row(fileName(r.Path), size(r.Size), number(r.Pages()), number(r.Resident), percent(r.Resident, r.Pages()))
		files = append(files, r.File)
	}
	if err := t.write(w); err != nil {
		return err
	}
	total, resident := pinner.Sum(files), pinner.SumResident(all)
	_, err := fmt.Fprintf(w, "%s, %s: %s of %s in RAM (%s)\n", count(int64(total.Files), "file"), sizes(total.Bytes),
		number(resident), count(total.Pages, "page"), percent(resident, total.Pages))
	return err
}
