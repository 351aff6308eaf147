package mmapio_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// poisoned has a page whose memory the hardware has found to be broken, as far as
// system calls tell: all other pages are in the mapping, and no call brings it in.
var poisoned = prove.Register("poisoned page", func(args []string) int {
	t := prove.T()
	ps := pageSize
	f := opened(t)(mmapio.OpenFile(args[0], &mmapio.Options{Prefault: 8 * ps}))
	noError(t, "Populate", f.Populate(t.Context(), 0, f.Size()))
	bad := addressOf(t, f) + uintptr(5*ps)
	check(t, f.View(5*ps, ps, func(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }))
	f.Expire()
	prove.RefuseOver(t, unix.SYS_MADVISE, int(unix.EHWPOISON), bad, unix.MADV_POPULATE_READ)

	is := func(what string, err error) {
		t.Helper()
		var fe *mmapio.FaultError
		if !errors.As(err, &fe) || fe.Off != 5*ps || fe.FileOff != 5*ps || !errors.Is(err, unix.EHWPOISON) {
			t.Errorf("%s: %v, want EHWPOISON at %d", what, err, 5*ps)
		}
	}
	is("Populate", f.Populate(t.Context(), 0, f.Size()))
	is("View", f.View(4*ps, 2*ps, func([]byte) error { return nil }))
	for _, err := range f.Chunks(0, f.Size(), 8*ps) {
		is("Chunks", err)
	}
	_, err := f.Region(0, 8*ps)
	is("Region", err)

	var le *mmapio.LockError
	if err := f.Lock(3*ps, 4*ps); !errors.As(err, &le) || !errors.Is(err, unix.EHWPOISON) || !strings.Contains(err.Error(), "open the file again for other memory") {
		t.Errorf("Lock: %v", err)
	}
	holds(t, f, "........")
	noError(t, "Lock of the others", f.Lock(0, 5*ps))
	return 0
})

// TestPoisoned: the error for a page whose memory is broken says that, and where.
func TestPoisoned(t *testing.T) {
	prove.Need(t, prove.Filters, prove.Pagemap, prove.Populating)
	file := prove.NewFile(t, t.TempDir(), "f", 8*pageSize)
	if res := poisoned.Run(t, prove.Args(file)); res.Code != 0 {
		t.Error(res)
	}
}
