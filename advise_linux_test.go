package mmapio_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// flagsOf is for each page which of the flags its mapping has.
func flagsOf(t testing.TB, f *mmapio.File, flags ...string) (all []string) {
	t.Helper()
	b := memoryOf(t, f)
	start, pages := prove.PagesOf(b)
	all = make([]string, pages)
	for _, v := range prove.Mappings(t, b) {
		for i := range all {
			if a := uint64(start) + uint64(i)*uint64(pageSize); v.Start <= a && a < v.End {
				for _, flag := range flags {
					if v.Has(flag) {
						all[i] += flag
					}
				}
			}
		}
	}
	return all
}

func wantFlags(t testing.TB, f *mmapio.File, want ...string) {
	t.Helper()
	if got := flagsOf(t, f, "rr", "sr", "hg", "nh"); !slices.Equal(got, want) {
		t.Errorf("flags of the pages: %q, want %q", got, want)
	}
}

func advise(t testing.TB, f *mmapio.File, off, n int64, a mmapio.Advice) {
	t.Helper()
	if err := f.Advise(off, n, a); err != nil {
		t.Errorf("%v of [%d+%d): %v", a, off, n, err)
	}
}

// Advice about ranges is about whole pages, outwards, is replaced by later
// advice, and goes along when the File moves or grows.
func TestAdviseFlags(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	for _, reserve := range []int64{0, 64 * pageSize} {
		path, _ := patternFile(t, 6*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
		wantFlags(t, f, "", "", "", "", "", "")
		advise(t, f, pageSize+1, 1, mmapio.AdviceRandom)
		advise(t, f, 3*pageSize-1, 2, mmapio.AdviceSequential)
		wantFlags(t, f, "", "rr", "sr", "sr", "", "")
		advise(t, f, 0, 3*pageSize, mmapio.AdviceHugePage)
		advise(t, f, 2*pageSize, 1, mmapio.AdviceNoHugePage)
		wantFlags(t, f, "hg", "rrhg", "srnh", "sr", "", "")
		advise(t, f, 5*pageSize, pageSize, mmapio.AdviceRandom) // up to the end
		advise(t, f, 3*pageSize, 1, mmapio.AdviceNormal)
		wantFlags(t, f, "hg", "rrhg", "srnh", "", "", "rr")
		if err := f.Resize(8 * pageSize); err != nil {
			t.Fatal(err)
		}
		wantFlags(t, f, "hg", "rrhg", "srnh", "", "", "rr", "rr", "rr")
		if err := f.Resize(2 * pageSize); err != nil {
			t.Fatal(err)
		}
		wantFlags(t, f, "hg", "rrhg")
		if err := f.Resize(4 * pageSize); err != nil {
			t.Fatal(err)
		}
		wantFlags(t, f, "hg", "rrhg", "", "")
		advise(t, f, 0, f.Size(), mmapio.AdviceSequential)
		if err := f.Resize(0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 3*pageSize), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Refresh(); n != 3*pageSize || err != nil {
			t.Fatal(n, err)
		}
		wantFlags(t, f, "sr", "sr", "sr")
		mustClose(t, f)
	}
	// A File that moves by being copied takes it along, too.
	f := opened(t)(mmapio.Anonymous(4*pageSize, nil))
	advise(t, f, 0, pageSize, mmapio.AdviceRandom)
	if err := f.Resize(600 * pageSize); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(t, f, "rr"); got[0] != "rr" || got[1] != "" {
		t.Errorf("after a move: %q", got[:2])
	}
}

// Every edge of advice costs a mapping. They are counted together with those of
// locks, and given back at the end.
func TestAdviseMapCount(t *testing.T) {
	prove.NeedE2E(t, prove.Root, prove.SysctlRW)
	prove.Sysctl(t, "vm.max_map_count", "65530")
	if res := pieces.Run(t); res.Code != 0 {
		t.Error(res)
	}
}

var pieces = prove.Register("pieces", func([]string) int {
	t := prove.T()
	open := func() *mmapio.File {
		f, err := mmapio.Anonymous(80000*pageSize, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f, other := open(), open()
	n, err := int64(0), error(nil)
	for err == nil {
		n++
		err = f.Advise(2*n*pageSize, pageSize, mmapio.AdviceRandom)
	}
	if n < 15000 || n > 17000 || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("%d pieces, then %v", n, err)
	}
	var le *mmapio.LockError
	if err := other.Lock(pageSize, pageSize); !errors.As(err, &le) || le.Cause != mmapio.CauseMapCount {
		t.Errorf("a lock: %v", err)
	}
	if err := f.Advise(0, f.Size(), mmapio.AdviceNormal); err != nil {
		t.Error(err)
	}
	if err := other.Lock(pageSize, pageSize); err != nil {
		t.Error(err)
	}
	// What a File took is given back at its end.
	for range 3 {
		f := open()
		for i := range int64(6000) {
			if err := f.Advise(2*(i+1)*pageSize, pageSize, mmapio.AdviceRandom); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	return 0
})

// inRAM is a File over clean pages of a file on a disk, all in RAM and mapped
// in. They are written one by one: what is written at once lies in RAM in one
// piece, which the kernel does not always split.
func inRAM(t testing.TB, pages int64, o *mmapio.Options) (path string, f *mmapio.File) {
	t.Helper()
	prove.Quiet(t)
	path = filepath.Join(prove.DiskDir(t), "file")
	file, err := os.Create(path)
	for p := range pages {
		if err == nil {
			_, err = file.WriteAt(pattern(pageSize, p), p*pageSize)
		}
	}
	if err == nil {
		err = errors.Join(file.Sync(), file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	o.Prefault = -1 // to look at it must not bring it in
	f = mustOpen(t, path, o)
	touch(t, f)
	return path, f
}

func touch(t testing.TB, f *mmapio.File) {
	t.Helper()
	var sum byte
	err := f.View(0, f.Size(), func(b []byte) error {
		for i := 0; i < len(b); i += int(pageSize) {
			sum += b[i]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// presentPages lists the pages of a File that it has mapped in.
func presentPages(t testing.TB, f *mmapio.File) (list []int64) {
	t.Helper()
	for i, yes := range prove.PresentPages(t, memoryOf(t, f)) {
		if yes {
			list = append(list, int64(i))
		}
	}
	return list
}

func cachedPages(t testing.TB, f *mmapio.File) (list []int64) {
	t.Helper()
	ranges, err := f.ResidentRanges(0, f.Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		for p := r.Off / pageSize; p < (r.Off+r.Len+pageSize-1)/pageSize; p++ {
			list = append(list, p)
		}
	}
	return list
}

// Pages leave the mapping and RAM, but not those with a byte outside of the
// range. Dirty ones stay in RAM until they are written.
func TestAdviseDontNeed(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Disk)
	path, f := inRAM(t, 8, &mmapio.Options{Mode: mmapio.ReadWrite})
	all := []int64{0, 1, 2, 3, 4, 5, 6, 7}
	if got := presentPages(t, f); !slices.Equal(got, all) {
		t.Fatalf("before: pages %d are mapped in", got)
	}
	if _, err := f.WriteAt([]byte("dirty"), 3*pageSize); err != nil {
		t.Fatal(err)
	}
	advise(t, f, pageSize+1, 5*pageSize, mmapio.AdviceDontNeed)
	if got := presentPages(t, f); !slices.Equal(got, []int64{0, 1, 6, 7}) {
		t.Errorf("pages %d are mapped in, 2 to 5 should not be", got)
	}
	for _, p := range cachedPages(t, f) {
		if p == 2 || p == 4 || p == 5 {
			t.Errorf("page %d is in RAM", p)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	advise(t, f, 0, f.Size(), mmapio.AdviceDontNeed)
	if got, cached := presentPages(t, f), cachedPages(t, f); len(got)+len(cached) != 0 {
		t.Errorf("pages %d are mapped in, %d in RAM", got, cached)
	}
	if _, n := prove.Resident(t, path); n != 0 {
		t.Errorf("%d pages in RAM", n)
	}
	if got := onDisk(t, path)[3*pageSize:]; !bytes.HasPrefix(got, []byte("dirty")) {
		t.Errorf("page 3 is %q", got[:8])
	}
	// What somebody else has mapped stays in RAM.
	other := mustOpen(t, path, &mmapio.Options{Prefault: -1})
	touch(t, other)
	advise(t, f, 0, f.Size(), mmapio.AdviceDontNeed)
	if got, cached := presentPages(t, f), cachedPages(t, f); len(got) != 0 || !slices.Equal(cached, all) {
		t.Errorf("beside another: pages %d are mapped in, %d in RAM", got, cached)
	}
}

// What was moved out is not taken for being there: the next access brings it
// in by a system call, and not by a fault.
func TestAdviseForgets(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Disk)
	defer mmapio.KnownFor(time.Hour, time.Hour)() // whatever the machine's speed
	for _, a := range []mmapio.Advice{mmapio.AdviceDontNeed, mmapio.AdvicePageOut} {
		_, f := inRAM(t, 8, &mmapio.Options{Mode: mmapio.ReadWrite})
		if _, err := f.WriteAt(make([]byte, 8*pageSize), 0); err != nil {
			t.Fatal(err)
		}
		known := func() (pages []int64) {
			for p := range int64(8) {
				if load, put := f.Known(p*pageSize, int(pageSize)); load || put {
					pages = append(pages, p)
				}
			}
			return pages
		}
		if got := known(); len(got) != 8 {
			t.Fatalf("only pages %d are known after they were stored to", got)
		}
		advise(t, f, 2*pageSize, 3*pageSize, a)
		if got := known(); slices.ContainsFunc(got, func(p int64) bool { return 2 <= p && p < 5 }) {
			t.Errorf("%v of 2 to 4: pages %d are known", a, got)
		}
	}
}

// When a page far behind is locked nothing is done at all.
func TestAdviseBusyFirst(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	f := mustOpen(t, filepath.Join(t.TempDir(), "file"), &mmapio.Options{
		Mode: mmapio.ReadWrite, Create: true, MinSize: 64 << 20, Sparse: true,
	})
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(f.Size()-1, 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Advise(0, f.Size(), mmapio.AdviceDontNeed); !errors.Is(err, mmapio.ErrBusy) {
		t.Errorf("got %v", err)
	}
	if got := presentPages(t, f); len(got) == 0 || got[0] != 0 {
		t.Errorf("pages %d are mapped in, not 0", got)
	}
}

// Page-out takes dirty pages, too: they are written first.
func TestAdvisePageOut(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Disk)
	path, f := inRAM(t, 8, &mmapio.Options{Mode: mmapio.ReadWrite})
	if _, err := f.WriteAt([]byte("dirty"), 3*pageSize); err != nil {
		t.Fatal(err)
	}
	advise(t, f, pageSize, 4*pageSize+1, mmapio.AdvicePageOut)
	if got := cachedPages(t, f); !slices.Equal(got, []int64{0, 5, 6, 7}) {
		t.Errorf("pages %d are in RAM, 1 to 4 should not be", got)
	}
	if _, n := prove.Resident(t, path); n != 4 {
		t.Errorf("%d pages in RAM", n)
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 3*pageSize); err != nil || string(b) != "dirty" {
		t.Errorf("%q, %v", b, err)
	}
}

// What is in no file goes to swap, comes back, and is not in RAM meanwhile.
func TestAdvisePageOutToSwap(t *testing.T) {
	prove.NeedE2E(t, prove.Root, prove.Pagemap, prove.SwapFile, prove.Disk)
	prove.Swap(t, 64<<20)
	path, private := inRAM(t, 64, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	for name, f := range map[string]*mmapio.File{"anonymous": opened(t)(mmapio.Anonymous(64*pageSize, &mmapio.Options{Prefault: -1})), "copies": private} {
		want := pattern(64*pageSize, 5)
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if r, err := f.Residency(0, f.Size()); err != nil || r.Resident != 64 {
			t.Errorf("%s stored to: %+v, %v", name, r, err)
		}
		advise(t, f, 0, 32*pageSize, mmapio.AdvicePageOut)
		swapped := prove.Count(prove.SwappedPages(t, memoryOf(t, f)))
		for tries := 0; swapped < 32 && tries < 10; tries++ {
			// Too young: still in a queue of the processor that stored them.
			advise(t, f, 0, 32*pageSize, mmapio.AdvicePageOut)
			swapped = prove.Count(prove.SwappedPages(t, memoryOf(t, f)))
		}
		r, err := f.Residency(0, f.Size())
		if err != nil || swapped != 32 || r.Resident != 32 {
			t.Errorf("%s: %d pages in swap, %+v, %v", name, swapped, r, err)
		}
		if got := contentOf(t, f); !bytes.Equal(got, want) {
			t.Errorf("%s changed", name)
		}
	}
	if got := onDisk(t, path); !bytes.Equal(got[:pageSize], pattern(pageSize, 0)) {
		t.Error("copies reached the file")
	}
}

// Cold pages are no longer among those in use, and their neighbours are.
func TestAdviseCold(t *testing.T) {
	prove.Need(t, prove.Root, prove.Pagemap)
	path, f := inRAM(t, 8, &mmapio.Options{})
	for range 3 { // what is read more than once is in use
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for p := range int64(8) {
			if _, err := file.ReadAt(make([]byte, pageSize), p*pageSize); err != nil {
				t.Fatal(err)
			}
		}
		file.Close()
	}
	b := memoryOf(t, f)
	// Pages wait on a processor for others, and are counted when that is told
	// the next advice.
	inUse := func(want ...bool) (got []bool) {
		for range 1000 {
			advise(t, f, 0, pageSize, mmapio.AdviceCold)
			if got = prove.ActivePages(t, b); slices.Equal(got, want) {
				break
			}
		}
		return got
	}
	const yes, no = true, false
	if got := inUse(no, yes, yes, yes, yes, yes, yes, yes); prove.Count(got) != 7 {
		prove.Unable(t, "the kernel does not count pages as in use that were read thrice: %v", got)
	}
	advise(t, f, 2*pageSize-1, 4*pageSize, mmapio.AdviceCold)
	if got := inUse(no, yes, no, no, no, yes, yes, yes); prove.Count(got) != 4 || !got[1] {
		t.Errorf("in use: %v, but 2 to 4 are cold", got)
	}
}
