package sys

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var madvices = [...]int{
	NoDump:      unix.MADV_DONTDUMP,
	NoFork:      unix.MADV_DONTFORK,
	Normal:      unix.MADV_NORMAL,
	Random:      unix.MADV_RANDOM,
	Sequential:  unix.MADV_SEQUENTIAL,
	WillNeed:    unix.MADV_WILLNEED,
	Cold:        unix.MADV_COLD,
	PageOut:     unix.MADV_PAGEOUT,
	DontNeed:    unix.MADV_DONTNEED,
	HugePages:   unix.MADV_HUGEPAGE,
	NoHugePages: unix.MADV_NOHUGEPAGE,
	Collapse:    unix.MADV_COLLAPSE,
}

func advises(Hint) bool { return true }

func (s *Space) advise(at, n int, h Hint) error {
	err := s.madvise(at, n, madvices[h])
	if err == unix.EINVAL { //nolint:errorlint // bare errno
		return ErrUnsupported // by this kernel, or for this kind of memory
	}
	return err
}

func dropCached(f *os.File, off, n int64) error {
	return control(f, func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED) })
}

// The device of a file system has a directory below bdi, also one without a
// disk.
func readAhead(f *os.File) int {
	var st unix.Stat_t
	if f == nil || control(f, func(fd int) error { return unix.Fstat(fd, &st) }) != nil {
		return usualReadAhead
	}
	dev := uint64(st.Dev) //nolint:unconvert // narrower elsewhere
	text, err := os.ReadFile("/sys/class/bdi/" + strconv.Itoa(int(unix.Major(dev))) + ":" +
		strconv.Itoa(int(unix.Minor(dev))) + "/read_ahead_kb")
	if err != nil {
		return usualReadAhead
	}
	kb, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || kb <= 0 || kb > 1<<20 {
		return usualReadAhead
	}
	return kb << 10
}
