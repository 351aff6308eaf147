package mmapio_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestRefusedGrowthKeepsAppends: a growth that there is no room for cuts off
// nothing that others append while it is tried, and takes no blocks.
func TestRefusedGrowthKeepsAppends(t *testing.T) {
	prove.LeakCheck(t)
	for name, mount := range map[string]func(t testing.TB) string{
		"tmpfs": func(t testing.TB) string { return prove.SmallTmpfs(t, 64<<20) },
		"ext4": func(t testing.TB) string {
			prove.NeedE2E(t, prove.LoopDevice, prove.Ext4)
			return prove.LoopFS(t, "ext4", 64<<20).Dir
		},
		"xfs": func(t testing.TB) string {
			prove.NeedE2E(t, prove.LoopDevice, prove.XFS)
			return prove.LoopFS(t, "xfs", 300<<20).Dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t)
			var fs unix.Statfs_t
			check(t, unix.Statfs(dir, &fs))
			free := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // narrower elsewhere
			// More than there is, but not so much that it is refused at a glance.
			filler := opened(t)(mmapio.Create(filepath.Join(dir, "filler"), free/2))
			defer mustClose(t, filler)
			size := free * 3 / 4
			for round := range 8 {
				for _, open := range []bool{false, true} {
					path := filepath.Join(dir, "file")
					check(t, os.WriteFile(path, pattern(pageSize, 1), 0o600))
					f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
					n := appendsDuring(t, path, func() error {
						if !open {
							return f.Resize(size)
						}
						_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size})
						return err
					})
					got := onDisk(t, path)
					if len(got) != int(pageSize)+8*n {
						t.Fatalf("round %d, open %v: %d bytes are there, not the %d that were and 8 for each of %d records",
							round, open, len(got), pageSize, n)
					}
					for i := range n {
						if r := binary.LittleEndian.Uint64(got[int(pageSize)+8*i:]); r != uint64(i)+1 {
							t.Fatalf("round %d, open %v: record %d of %d is %d", round, open, i+1, n, r)
						}
					}
					mustClose(t, f)
				}
			}
		})
	}
}

// appendsDuring appends numbers to a file while grow fails for lack of space,
// and returns how many.
func appendsDuring(t *testing.T, path string, grow func() error) (n int) {
	t.Helper()
	a, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	refused := make(chan error, 1)
	go func() { refused <- grow() }()
	for refusal := error(nil); refusal == nil; {
		if len(refused) > 0 {
			if refusal = <-refused; !errors.Is(refusal, unix.ENOSPC) {
				t.Fatalf("%v, want ENOSPC", refusal)
			}
		}
		// The disk may be full for the time.
		switch m, err := a.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)+1)); {
		case err == nil:
			n++
		case m != 0 || !errors.Is(err, unix.ENOSPC):
			t.Fatal(m, err)
		}
	}
	check(t, a.Close())
	return n
}
