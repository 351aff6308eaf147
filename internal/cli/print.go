package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/mmapio/mmapio/internal/pinner"
)

// A table lines columns up: the first to the left, numbers to the right. What
// follows the columns of the first row is text of any length.
type table struct {
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the table in one piece, so that nothing of it stays behind in a
// buffer while the command waits.
func (t *table) write(w io.Writer) error {
	columns := len(t.rows[0])
	widths := make([]int, columns)
	for _, r := range t.rows {
		for i, cell := range r[:columns] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, r := range t.rows {
		fmt.Fprintf(&out, "%-*s", widths[0], r[0])
		for i, cell := range r[1:] {
			width := 0
			if i+1 < columns {
				width = widths[i+1]
			}
			fmt.Fprintf(&out, "  %*s", width, cell)
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// fileName is a name as it can stand in a table: one that would disturb the
// lines, or the terminal, is quoted.
func fileName(name string) string {
	for _, r := range name {
		if !strconv.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	if !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	return name
}

// printable is a message as it can stand on a line of its own, whatever names of
// files are in it.
func printable(message string) string {
	var out strings.Builder
	for message != "" {
		r, n := utf8.DecodeRuneInString(message)
		if one := message[:n]; strconv.IsPrint(r) && utf8.ValidString(one) {
			out.WriteString(one)
		} else {
			quoted := strconv.Quote(one)
			out.WriteString(quoted[1 : len(quoted)-1])
		}
		message = message[n:]
	}
	return out.String()
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// sizes is for where nothing may be rounded.
func sizes(bytes int64) string { return fmt.Sprintf("%s, %s", count(bytes, "byte"), size(bytes)) }

// number shows what is unknown as a question mark.
func number(n int64) string {
	if n == pinner.Unknown {
		return "?"
	}
	return strconv.FormatInt(n, 10)
}

func percent(part, whole int64) string {
	switch {
	case part == pinner.Unknown:
		return "?"
	case whole == 0:
		return "-"
	}
	// Never rounded up to 100 % nor down to 0: those two mean all and nothing.
	p := float64(part) * 100 / float64(whole)
	switch {
	case part > 0 && p < 0.1:
		return "<0.1 %"
	case part < whole && p > 99.9:
		return ">99.9 %"
	}
	return fmt.Sprintf("%.1f %%", p)
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}
