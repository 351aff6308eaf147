package prove

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// whatIsLeft names what of ours the machine still has. Another test run beside this one may have something too, so
// only what this process or the given path is about counts.
func whatIsLeft(t *testing.T, about ...string) string {
	t.Helper()
	var left []string
	note := func(where, text string) {
		for _, a := range about {
			if a != "" && strings.Contains(text, a) {
				left = append(left, where+" has "+a)
			}
		}
	}
	for _, name := range []string{"/proc/swaps", "/proc/self/mounts"} {
		text, _ := os.ReadFile(name)
		note(name, string(text))
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range backing {
		text, _ := os.ReadFile(name)
		note(name, string(text))
	}
	for _, a := range about {
		if _, err := os.Lstat(a); err == nil {
			left = append(left, a+" exists")
		}
	}
	names, _ := filepath.Glob(filepath.Join(ledgerDir, "*.json"))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		note(name, string(text))
	}
	return strings.Join(left, "; ")
}

func sysctl(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(sysctlFile(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// A parameter that does nothing while there is no swap under pressure.
const harmless = "vm.stat_interval"

func TestConditionsAreUndone(t *testing.T) {
	NeedE2E(t, SwapFile, MemCgroup, TmpfsMount, LoopDevice, SysctlRW, Ext4)
	LeakCheck(t)
	old := sysctl(t, harmless)
	var about []string
	t.Run("made", func(t *testing.T) {
		swap := Swap(t, 1<<20)
		if text, _ := os.ReadFile("/proc/swaps"); !strings.Contains(string(text), swap) {
			t.Errorf("no %s in\n%s", swap, text)
		}
		loop := LoopFS(t, "ext4", 8<<20)
		small := SmallTmpfs(t, 64<<10)
		c := MemoryCgroup(t, 32<<20)
		if c.Limit(t) != 32<<20 {
			t.Error(c.Limit(t))
		}
		c.SetLimit(t, 16<<20)
		if c.Limit(t) != 16<<20 || c.Usage(t) > 16<<20 {
			t.Error(c.Limit(t), c.Usage(t))
		}
		Sysctl(t, harmless, "7")
		Sysctl(t, harmless, "8") // the same test may change its mind
		if got := sysctl(t, harmless); got != "8" {
			t.Errorf("%s is %s", harmless, got)
		}
		for _, dir := range []string{loop.Dir, small} {
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile(filepath.Join(small, "g"), make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("128 KiB on a tmpfs of 64: %v", err)
		}
		syscall.Sync()
		again := MountImage(t, "ext4", loop.Image)
		if text, err := os.ReadFile(filepath.Join(again.Dir, "f")); string(text) != "x" {
			t.Error(text, err)
		}
		about = []string{filepath.Dir(swap), filepath.Dir(loop.Dir), filepath.Dir(small), filepath.Dir(again.Dir), c.Dir}
		if whatIsLeft(t, about...) == "" {
			t.Error("nothing is seen of the conditions while they hold")
		}
	})
	if left := whatIsLeft(t, about...); left != "" {
		t.Error(left)
	}
	if got := sysctl(t, harmless); got != old {
		t.Errorf("%s is %s, was %s", harmless, got, old)
	}
}

func TestBusyMountIsSaidAndGoes(t *testing.T) {
	NeedE2E(t, TmpfsMount)
	base, err := newMount()
	if err != nil {
		t.Fatal(err)
	}
	undo, err := record(entry{Kind: "mount", Path: base})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("mmapio-prove", filepath.Join(base, "mnt"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(base, "mnt", "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := undoMount(entry{Path: base}); err == nil || !strings.Contains(err.Error(), "still uses it") {
		t.Errorf("a mount with an open file: %v", err)
	}
	_ = f.Close()
	if err := undo(); err != nil { // undoing again is fine
		t.Error(err)
	}
	if left := whatIsLeft(t, base); left != "" {
		t.Error(left)
	}
}

var crashBody = Register("crash", func([]string) int {
	t := T()
	c := MemoryCgroup(t, 32<<20)
	for _, path := range []string{Swap(t, 1<<20), LoopFS(t, "ext4", 8<<20).Dir, SmallTmpfs(t, 64<<10)} {
		fmt.Println("made", filepath.Dir(path))
	}
	fmt.Println("made", c.Dir)
	Sysctl(t, harmless, "9")
	c.Join(t, 0)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
})

func TestNextRunUndoesWhatACrashLeft(t *testing.T) {
	NeedE2E(t, SwapFile, MemCgroup, TmpfsMount, LoopDevice, SysctlRW, Ext4)
	old := sysctl(t, harmless)
	p := crashBody.Start(t)
	res := p.Wait()
	if res.Signal != syscall.SIGKILL {
		t.Fatal(res)
	}
	var about []string
	for line := range strings.Lines(res.Output) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "made "); ok {
			about = append(about, dir)
		}
	}
	if len(about) != 4 {
		t.Fatal(res)
	}
	sweep()
	if left := whatIsLeft(t, about...); left != "" {
		t.Error(left)
	}
	if got := sysctl(t, harmless); got != old {
		t.Errorf("%s is %s, was %s", harmless, got, old)
	}
}

func TestOtherFileSystems(t *testing.T) {
	NeedE2E(t, LoopDevice)
	for fs, size := range map[string]int64{"xfs": 320 << 20, "btrfs": 128 << 20} {
		t.Run(fs, func(t *testing.T) {
			Need(t, map[string]Feature{"xfs": XFS, "btrfs": Btrfs}[fs])
			l := LoopFS(t, fs, size)
			NewFile(t, l.Dir, "f", 1<<20)
			if l.Device == "" || l.FS != fs {
				t.Error(l)
			}
		})
	}
	fails(t, `no file system "ext9"`, func(t testing.TB) { LoopFS(t, "ext9", 1) })
}
