package mmapio_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// An answer is what a child learnt about a file.
type answer struct {
	Residency mmapio.Residency
	Ranges    []mmapio.Range
	Err       string // of ResidentRanges
	NotTold   bool   // … and it is ErrUnsupported
}

// resident prints an answer for each file that it is given.
var resident = prove.Register("resident", func(args []string) int {
	t := prove.T()
	for _, path := range args {
		f, err := mmapio.OpenFile(path, &mmapio.Options{DropFD: os.Getenv("DROPFD") != ""})
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		if a.Residency, err = f.Residency(0, f.Size()); err != nil {
			t.Fatal(err)
		}
		if a.Ranges, err = f.ResidentRanges(0, f.Size()); err != nil {
			a.Err, a.NotTold = err.Error(), errors.Is(err, errors.ErrUnsupported)
		}
		f.Close()
		text, _ := json.Marshal(a)
		fmt.Println(string(text))
	}
	return 0
})

func askChild(t *testing.T, path string, opts ...prove.Option) (a answer) {
	t.Helper()
	res := resident.Run(t, append(opts, prove.Args(path))...)
	if err := json.Unmarshal([]byte(res.Output), &a); res.Code != 0 || err != nil {
		t.Fatalf("%v (%v)", res, err)
	}
	return a
}

// spots makes a file of 64 pages of which those given are in RAM: the others
// are holes that nobody has looked at.
func spots(t testing.TB, path string, pages ...int64) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(64 * pageSize)
	}
	for _, p := range pages {
		if err == nil {
			_, err = f.WriteAt(pattern(pageSize, p), p*pageSize)
		}
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mountOverlay(t *testing.T, lower string) (merged string) {
	t.Helper()
	dir := prove.DiskDir(t)
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	merged = filepath.Join(dir, "merged")
	options := "lowerdir=" + lower + ",upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		prove.Unable(t, "no overlayfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	return merged
}

// What is in RAM is told exactly or not at all, whoever asks, of whichever file
// system, and whatever calls there are.
func TestResidencyTruth(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Root, prove.Ext4, prove.TmpfsMount)
	prove.Quiet(t)
	ext4, tmpfs := prove.LoopFS(t, "ext4", 64<<20).Dir, prove.SmallTmpfs(t, 8<<20)
	overlay := mountOverlay(t, ext4)
	want := []mmapio.Range{{8 * pageSize, 2 * pageSize}, {40 * pageSize, pageSize}}
	for _, dir := range []string{ext4, tmpfs} {
		for name, owner := range map[string]int{"theirs": 0, "own": 65534} {
			path := filepath.Join(dir, name)
			spots(t, path, 8, 9, 40)
			if err := errors.Join(os.Chmod(path, 0o644), os.Chown(path, owner, owner)); err != nil {
				t.Fatal(err)
			}
			if _, n := prove.Resident(t, path); n != 3 {
				t.Fatalf("%s: %d pages in RAM", path, n)
			}
		}
	}
	const all, no = 0, -1 // dirty pages: none, as the files are synced; not known
	cachestat := uintptr(unix.SYS_CACHESTAT)
	for _, test := range []struct {
		name    string
		dir     string
		file    string
		nobody  bool
		refuse  syscall.Errno
		known   bool
		perhaps bool // before Linux 6.12 cachestat tells everybody
		dirty   int64
	}{
		{"ext4", ext4, "own", false, 0, true, false, all},
		{"tmpfs", tmpfs, "own", false, 0, true, false, all},
		{"overlay", overlay, "own", false, 0, true, false, no},
		{"ext4 without cachestat", ext4, "own", false, syscall.ENOSYS, true, false, no},
		{"tmpfs without cachestat", tmpfs, "own", false, syscall.ENOSYS, true, false, no},
		{"overlay without cachestat", overlay, "own", false, syscall.ENOSYS, true, false, no},
		{"ext4 forbidden", ext4, "own", false, syscall.EPERM, false, false, no},
		{"overlay forbidden", overlay, "own", false, syscall.EPERM, false, false, no},
		{"owner", ext4, "own", true, 0, true, false, all},
		{"owner without cachestat", ext4, "own", true, syscall.ENOSYS, true, false, no},
		{"owner on overlay", overlay, "own", true, 0, true, false, no},
		{"another's", ext4, "theirs", true, 0, false, true, no},
		{"another's on tmpfs", tmpfs, "theirs", true, 0, false, true, no},
		{"another's on overlay", overlay, "theirs", true, 0, false, false, no},
		{"another's without cachestat", ext4, "theirs", true, syscall.ENOSYS, false, false, no},
		{"another's on tmpfs without cachestat", tmpfs, "theirs", true, syscall.ENOSYS, false, false, no},
		{"another's on overlay without cachestat", overlay, "theirs", true, syscall.ENOSYS, false, false, no},
	} {
		t.Run(test.name, func(t *testing.T) {
			var opts []prove.Option
			if test.nobody {
				opts = append(opts, prove.AsNobody())
			}
			if test.refuse != 0 {
				opts = append(opts, prove.Refuse(cachestat, int(test.refuse)))
			}
			a := askChild(t, filepath.Join(test.dir, test.file), opts...)
			r := a.Residency
			if r.Pages != 64 || int64(r.PageSize) != pageSize {
				t.Errorf("%+v", r)
			}
			if test.perhaps && r.Known() {
				test.known, test.dirty = true, all
			}
			if prove.Missing(prove.Cachestat) != "" {
				test.dirty = no
			}
			switch {
			case test.known:
				if r.Resident != 3 || r.Dirty != test.dirty || r.Writeback != test.dirty || !slices.Equal(a.Ranges, want) || a.Err != "" {
					t.Errorf("known to be 3: got %+v", a)
				}
			case r.Known() || r.Resident != -1 || r.Dirty != -1 || r.Writeback != -1 || a.Ranges != nil || !a.NotTold:
				t.Errorf("not to be known: got %+v", a)
			}
		})
	}
	// Without a descriptor there is mincore alone.
	drop := prove.Env("DROPFD=1")
	for _, file := range []string{"own", "theirs"} {
		for _, dir := range []string{ext4, tmpfs, overlay} {
			path := filepath.Join(dir, file)
			if a := askChild(t, path, drop); a.Residency.Resident != 3 || a.Residency.Dirty != -1 || !slices.Equal(a.Ranges, want) {
				t.Errorf("DropFD, root, %s: %+v", path, a)
			}
			known := file == "own"
			if a := askChild(t, path, drop, prove.AsNobody()); a.Residency.Known() != known || known != slices.Equal(a.Ranges, want) {
				t.Errorf("DropFD, nobody, %s: %+v", path, a)
			}
		}
	}
}

// TestResidencyWithoutStatx: Linux before 4.11 has mincore alone.
func TestResidencyWithoutStatx(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Filters)
	prove.Quiet(t)
	path := filepath.Join(t.TempDir(), "file")
	spots(t, path, 8, 9, 40)
	refuse := []prove.Option{
		prove.Refuse(unix.SYS_STATX, int(syscall.ENOSYS)), prove.Refuse(unix.SYS_CACHESTAT, int(syscall.ENOSYS)),
	}
	for _, drop := range []string{"", "1"} {
		a := askChild(t, path, append(refuse, prove.Env("DROPFD="+drop))...)
		// Some file systems cache more of a file than what was written.
		if r := a.Residency; r.Resident < 3 || r.Resident == 64 || len(a.Ranges) == 0 || a.Err != "" {
			t.Errorf("DropFD %q: %+v", drop, a)
		}
	}
}

// Files on hugetlbfs are in RAM in a way of their own.
func TestResidencyHugetlbfs(t *testing.T) {
	path, _ := hugetlbFile(t, "2")
	for _, drop := range []string{"", "1"} {
		for _, refuse := range []prove.Option{prove.Env(), prove.Refuse(unix.SYS_CACHESTAT, int(syscall.ENOSYS))} {
			if a := askChild(t, path, refuse, prove.Env("DROPFD="+drop)); a.Residency.Resident != -1 || !a.NotTold {
				t.Errorf("DropFD %q: %+v", drop, a)
			}
		}
	}
}

// tebi makes a file of 1 TiB with a byte in four places.
func tebi(t *testing.T) (path string, pages []int64) {
	t.Helper()
	dir := prove.LoopFS(t, "ext4", 64<<20).Dir
	path = filepath.Join(dir, "tebi")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(1 << 40)
	}
	last := int64(1<<40)/pageSize - 1
	pages = []int64{0, 77, 1 << 27, last}
	for _, p := range pages {
		if err == nil {
			_, err = f.WriteAt([]byte{1}, p*pageSize)
		}
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, pages
}

// It is cachestat that a large file is looked at with, at once and then in
// halves, and never mincore, which asks about every page.
func TestResidencyTebibyte(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip(runtime.GOARCH + ": 1 TiB does not fit into 32 bits")
	}
	prove.Need(t, prove.Pagemap, prove.Cachestat)
	prove.Need(t, prove.Root, prove.Ext4)
	prove.Quiet(t)
	path, pages := tebi(t)
	a := askChild(t, path, prove.Refuse(unix.SYS_MINCORE, int(syscall.ENOSYS)))
	if a.Residency.Resident != 4 || a.Residency.Pages != 1<<40/pageSize || a.Residency.Huge != 0 {
		t.Errorf("got %+v", a.Residency)
	}
	var want []mmapio.Range
	for _, p := range pages {
		want = append(want, mmapio.Range{Off: p * pageSize, Len: pageSize})
	}
	if !slices.Equal(a.Ranges, want) {
		t.Errorf("got %v, want %v", a.Ranges, want)
	}
}

// Dirty pages are counted until they are written.
func TestResidencyDirty(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Cachestat)
	prove.Need(t, prove.Root, prove.Ext4)
	prove.Quiet(t)
	path := filepath.Join(prove.LoopFS(t, "ext4", 64<<20).Dir, "file")
	spots(t, path, 1, 2, 3)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	defer f.Close()
	if _, err := f.WriteAt([]byte("dirt"), 2*pageSize); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Residency(0, 4*pageSize); err != nil || r.Resident != 3 || r.Dirty+r.Writeback != 1 {
		t.Errorf("stored to one page: %+v, %v", r, err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Residency(0, 4*pageSize); err != nil || r.Resident != 3 || r.Dirty != 0 || r.Writeback != 0 {
		t.Errorf("after Sync: %+v, %v", r, err)
	}
}

// Copies of a CopyOnWrite File are in RAM also when the file's pages are not,
// and the other way round.
func TestResidencyCopies(t *testing.T) {
	prove.Need(t, prove.Root, prove.Ext4, prove.Cachestat)
	path := filepath.Join(prove.LoopFS(t, "ext4", 64<<20).Dir, "file")
	spots(t, path, 1, 2, 3, 20)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite, Offset: 100})
	defer f.Close()
	for _, p := range []int64{3, 10} {
		if _, err := f.WriteAt([]byte("mine"), p*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	prove.DropCaches(t) // but for pages 3 and 10, and what the kernel mapped round them
	if _, err := os.ReadFile("/proc/self/maps"); err != nil {
		t.Fatal(err)
	}
	ranges, err := f.ResidentRanges(0, f.Size())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ranges, mmapio.Range{Off: 10*pageSize - 100, Len: pageSize}) {
		t.Errorf("not page 10, which was stored to: %v", ranges)
	}
	_, cached := prove.Resident(t, path)
	r, err := f.Residency(0, f.Size())
	if err != nil || r.Resident != int64(cached)+2 || r.Dirty != 0 {
		t.Errorf("%d pages of the file and 2 copies: %+v, %v", cached, r, err)
	}
}

// Anonymous memory is in RAM where it was stored to.
func TestResidencyAnonymous(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	f := opened(t)(mmapio.Anonymous(64*pageSize, &mmapio.Options{Reserve: 128 * pageSize, Prefault: -1}))
	for _, p := range []int64{5, 6, 30} {
		if _, err := f.WriteAt([]byte{1}, p*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 8), 50*pageSize); err != nil { // the page of zeroes
		t.Fatal(err)
	}
	b := memoryOf(t, f)
	// Some kernels give memory to a page that is only read.
	present := int64(prove.Count(prove.PresentPages(t, b)))
	if present < 3 || present > 4 {
		t.Fatalf("the oracle counts %d", present)
	}
	r, err := f.Residency(0, f.Size())
	want := mmapio.Residency{PageSize: int(pageSize), Pages: 64, Resident: present}
	if prove.Missing(prove.Scan) != "" {
		want.Huge = -1
		if r.Resident == 4 { // the page of zeroes is not told from others
			want.Resident = 4
		}
	}
	if err != nil || r != want {
		t.Errorf("got %+v, %v; want %+v", r, err, want)
	}
	ranges, err := f.ResidentRanges(6*pageSize, 25*pageSize)
	if want := []mmapio.Range{{6 * pageSize, pageSize}, {30 * pageSize, pageSize}}; err != nil || !slices.Equal(ranges, want) {
		t.Errorf("got %v, %v; want %v", ranges, err, want)
	}
}
