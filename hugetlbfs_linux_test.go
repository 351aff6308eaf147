package mmapio_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// hugetlbFile makes a file of some pages of hugetlbfs, and returns the size of
// such a page.
func hugetlbFile(t *testing.T, pages string) (path string, huge int64) {
	t.Helper()
	prove.NeedE2E(t, prove.Root, prove.SysctlRW)
	prove.Sysctl(t, "vm.nr_hugepages", pages)
	if got, err := os.ReadFile("/proc/sys/vm/nr_hugepages"); err != nil || strings.TrimSpace(string(got)) != pages {
		prove.Unable(t, "of %s huge pages there are %s (%v)", pages, got, err)
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "hugetlbfs", 0, ""); err != nil {
		prove.Unable(t, "no hugetlbfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	var st syscall.Statfs_t
	check(t, syscall.Statfs(dir, &st))
	path, huge = filepath.Join(dir, "file"), int64(st.Bsize) //nolint:unconvert // narrower elsewhere
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	check(t, errors.Join(file.Truncate(2*huge), file.Close()))
	return path, huge
}

// Of a file on hugetlbfs the kernel maps whole huge pages, whatever length it is
// asked for. Nothing of them is left after Close, nor do they lie on what is next.
func TestHugetlbfsUnmapped(t *testing.T) {
	path, huge := hugetlbFile(t, "4")
	prove.Need(t, prove.Pagemap)
	for _, mode := range allModes {
		for _, o := range []mmapio.Options{
			{}, {Length: pageSize}, {Length: huge}, {Length: huge + pageSize}, {Offset: huge, Length: 1},
			{Length: huge + pageSize, HugePages: true}, {NoDump: true, Length: pageSize},
			{Reserve: 3 * huge}, {Offset: pageSize}, {Offset: huge - 1, NoDump: true, NoFork: true},
			{Offset: huge + pageSize + 5, Reserve: 2 * huge}, {Offset: 2 * pageSize, Length: pageSize, HugePages: true},
		} {
			o.Mode = mode
			f := mustOpen(t, path, &o)
			if mode != mmapio.ReadOnly {
				store(t, f, f.Size()-1, "x")
			}
			check(t, f.View(0, f.Size(), touchSlice))
			all := prove.MappingsOf(t, 0, path)
			if len(all) != 1 {
				t.Fatalf("%+v: %d mappings", o, len(all))
			}
			// What is mapped is what was reserved for it, and no more.
			lo, hi := mmapio.SpaceOf(f)
			if all[0].Start < uint64(lo) || uint64(hi) < all[0].End {
				t.Errorf("%+v: mapped is %v, of %#x-%#x", o, all[0], lo, hi)
			}
			mustClose(t, f)
			if left := prove.MappingsOf(t, 0, path); len(left) > 0 {
				t.Errorf("%+v: after Close is mapped %v", o, left)
			}
		}
	}
}

// Any offset will do on hugetlbfs, too, though the kernel maps from huge pages on.
func TestHugetlbfsOffset(t *testing.T) {
	path, huge := hugetlbFile(t, "8")
	prove.Need(t, prove.Pagemap, prove.Verify)
	prove.LeakCheck(t)
	content := pattern(2*huge, 1)
	whole := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	_, err := whole.WriteAt(content, 0)
	check(t, err)
	mustClose(t, whole)
	for _, mode := range allModes {
		for _, off := range []int64{1, pageSize, huge - 1, huge + pageSize + 5} {
			for _, reserve := range []int64{0, 4 * huge} {
				f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: off, Reserve: reserve})
				if !bytes.Equal(contentOf(t, f), content[off:]) {
					t.Errorf("%v at %d: other bytes", mode, off)
				}
				check(t, f.LockAll())
				check(t, f.VerifyLocked(0, f.Size()))
				if mode == mmapio.ReadWrite {
					check(t, f.Resize(f.Size()+huge))
					store(t, f, f.Size()-1, "x")
					check(t, f.VerifyLocked(0, 2*huge-off))
					check(t, f.Resize(f.Size()-huge))
					if !bytes.Equal(contentOf(t, f), content[off:]) {
						t.Errorf("at %d: other bytes after Resize", off)
					}
				}
				mustClose(t, f)
				if left := prove.MappingsOf(t, 0, path); len(left) > 0 {
					t.Errorf("%v at %d: after Close is mapped %v", mode, off, left)
				}
			}
		}
	}
}

// hugetlbLocks locks a file on hugetlbfs whose pages have so many bytes.
var hugetlbLocks = prove.Register("hugetlb locks", func(args []string) int {
	t := prove.T()
	huge, err := strconv.ParseInt(args[1], 10, 64)
	check(t, err)
	for _, mode := range allModes {
		for _, length := range []int64{0, huge + pageSize} {
			f := mustOpen(t, args[0], &mmapio.Options{Mode: mode, Length: length})
			check(t, f.LockAll())
			for range 2 { // the first might have changed the books
				check(t, f.VerifyLocked(0, f.Size()))
				if n := f.LockedBytes(); n != f.Size() {
					t.Errorf("%v: %d bytes are locked", mode, n)
				}
			}
			prove.AssertHeld(t, memoryOf(t, f))
			// That it is not in RAM is still found.
			page := memoryOf(t, f)[:huge]
			check(t, unix.Madvise(page, unix.MADV_DONTNEED))
			wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 0)
			check(t, f.LockAll())
			check(t, f.VerifyLocked(0, f.Size()))
			// Nor does the kernel keep it for who has not asked.
			check(t, f.Unlock(0, pageSize))
			wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 0)
			mustClose(t, f)
		}
	}
	return 0
})

// VerifyLocked believes a lock on hugetlbfs, where the kernel has no mark for it,
// but not where the page is not there.
func TestHugetlbfsVerifyLocked(t *testing.T) {
	path, huge := hugetlbFile(t, "4")
	prove.Need(t, prove.Pagemap, prove.Verify)
	for _, how := range []prove.Option{prove.Env(), prove.Refuse(unix.SYS_IOCTL, int(unix.ENOTTY))} {
		if res := hugetlbLocks.Run(t, prove.Args(path, strconv.FormatInt(huge, 10)), how); res.Code != 0 {
			t.Error(res)
		}
	}
}

// Huge pages are set aside beforehand: they take no room in memory and in cgroups, and
// where there are too few of them nothing is killed.
func TestHugetlbfsCgroup(t *testing.T) {
	path, huge := hugetlbFile(t, "12")
	prove.Need(t, prove.Pagemap, prove.MemCgroup)
	check(t, os.Truncate(path, 12*huge))
	group := prove.MemoryCgroup(t, 9*huge)
	for _, way := range []string{"plain", "drop", "writable"} {
		if res := lockTwice.Run(t, prove.In(group), prove.Args(path, way)); res.Code != 0 {
			t.Errorf("%s: %v", way, res)
		}
	}
}

// Errors for want of huge pages say so.
func TestHugetlbfsTooFew(t *testing.T) {
	path, _ := hugetlbFile(t, "1")
	_, err := mmapio.Open(path)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	for what, err := range map[string]error{"Open": err, "LockAll": f.LockAll()} {
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "vm.nr_hugepages") {
			t.Errorf("%s: %v", what, err)
		}
	}
	mustClose(t, f)
}

// Whether an empty file can be mapped is tried, and of that nothing is left either.
func TestHugetlbfsEmpty(t *testing.T) {
	path, _ := hugetlbFile(t, "4")
	prove.Need(t, prove.Pagemap)
	check(t, os.Truncate(path, 0))
	for _, mode := range allModes {
		f := mustOpen(t, path, &mmapio.Options{Mode: mode})
		mustClose(t, f)
		if left := prove.MappingsOf(t, 0, path); len(left) > 0 {
			t.Errorf("%v: after Close is mapped %v", mode, left)
		}
	}
}
