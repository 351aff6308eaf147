package prove

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func missing(f Feature) string {
	switch f {
	case Linux:
		return emulated()
	case Root:
		if uid := os.Geteuid(); uid != 0 {
			return fmt.Sprintf("runs as uid %d", uid)
		}
		return ""
	case Pagemap:
		if pretended > 0 {
			return pretends
		}
		if why := Missing(Advice); why != "" {
			return why + ", so pages are not brought in that should be"
		}
		return tryPagemap()
	case Disk:
		_, why := diskRoot()
		return why
	case SwapFile:
		return asRoot(trySwap)
	case MemCgroup:
		return asRoot(tryCgroup)
	case LoopDevice:
		return asRoot(tryLoop)
	case TmpfsMount:
		return asRoot(tryTmpfs)
	case CacheDrop:
		return asRoot(func() string { return tryWrite("/proc/sys/vm/drop_caches") })
	case SysctlRW:
		return asRoot(func() string { return tryWrite("/proc/sys/vm/swappiness") })
	case FUSE:
		return tryFUSE()
	case Ext4:
		return tryMkfs("ext4", "e2fsprogs")
	case XFS:
		return tryMkfs("xfs", "xfsprogs")
	case Btrfs:
		return tryMkfs("btrfs", "btrfs-progs")
	case RaiseHard:
		return asRoot(tryRaise)
	case FaultAddress:
		return tryFaultAddress()
	case BusAddress:
		return tryBusAddress()
	case Advice:
		return tryAdvice()
	case LockCharge:
		return tryLockCharge()
	case Recycling:
		return tryRecycling()
	case Children:
		return tryChildren()
	case Maps:
		return tryMaps()
	case Verify:
		return tryVerify()
	case Scan:
		return tryScan()
	case Cachestat:
		return tryCachestat()
	case Collapse:
		return tryNoMemory(unix.MADV_COLLAPSE)
	case Populating:
		return tryNoMemory(unix.MADV_POPULATE_READ)
	case MapQuery:
		return tryIoctl("/proc/self/maps", 0xC0686611)
	case AddressLimit:
		return tryAddressLimit()
	case Namespaces:
		return tryNamespaces()
	case Filters:
		return tryFilters()
	case FileEnd:
		if pretended > 0 {
			return pretends
		}
		return ""
	}
	return "unknown feature"
}

func asRoot(try func() string) string {
	if why := Missing(Root); why != "" {
		return why
	}
	return try()
}

// tryWrite opens a file of /proc/sys for writing: in a container the open fails, not the write.
func tryWrite(path string) string {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err.Error()
	}
	_ = f.Close()
	return ""
}

// tryRaise looks at the capability: root of a container or of a small virtual machine often lacks it.
func tryRaise() string {
	const sysResource = 24
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return err.Error()
	}
	if caps>>sysResource&1 == 0 {
		return "root without CAP_SYS_RESOURCE"
	}
	return ""
}

func tryFUSE() string {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	_ = f.Close()
	if os.Geteuid() == 0 {
		return ""
	}
	for _, tool := range []string{"fusermount3", "fusermount"} {
		if _, err := exec.LookPath(tool); err == nil {
			return ""
		}
	}
	return "no fusermount3 for a user who is not root: Debian package fuse3"
}

func tryMkfs(fs, pkg string) string {
	if why := Missing(LoopDevice); why != "" {
		return why
	}
	if _, err := findTool("mkfs." + fs); err != nil {
		return fmt.Sprintf("no mkfs.%s: Debian package %s", fs, pkg)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err == nil && strings.Contains(string(known), "\t"+fs+"\n") {
		return ""
	}
	// Not loaded yet is not the same as not there: mount would load it.
	if out, err := exec.Command("modprobe", fs).CombinedOutput(); err != nil {
		return fmt.Sprintf("the kernel has no %s: %v %s", fs, err, strings.TrimSpace(string(out)))
	}
	return ""
}

// findTool also looks where Debian puts tools that an ordinary PATH leaves out.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

var machines = map[string]elf.Machine{
	"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64, "loong64": elf.EM_LOONGARCH,
	"mips": elf.EM_MIPS, "mipsle": elf.EM_MIPS, "mips64": elf.EM_MIPS, "mips64le": elf.EM_MIPS,
	"ppc64": elf.EM_PPC64, "ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
}

// emulated says so if this process runs under qemu-user, whose kernel would answer about the emulator's memory.
// qemu fakes uname, /proc/self/exe and, for some machines, /proc/cpuinfo, but not /proc/thread-self/exe, which the
// kernel resolves to the program that it really started: the emulator, built for another machine.
func emulated() string {
	if os.Getenv(EmulatedEnv) == "1" {
		return EmulatedEnv + "=1: the kernel's answers would be about the emulator"
	}
	f, err := os.Open("/proc/thread-self/exe")
	if err != nil {
		return "" // a binary deleted or unreadable; nothing points to an emulator
	}
	defer func() { _ = f.Close() }()
	exe, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	want, known := machines[runtime.GOARCH]
	if known && exe.Machine != want {
		return fmt.Sprintf("runs under an emulator: built for %s, started as %v, and the kernel would answer about the emulator",
			runtime.GOARCH, exe.Machine)
	}
	return ""
}

// statfsType is the magic of the file system that holds a path.
func statfsType(path string) (uint32, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	return uint32(st.Type), nil //nolint:gosec,unconvert // signed and of other widths elsewhere; every magic has 32 bits
}
