package limits

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// root is a file system laid out as a Linux machine's, with proc and sys
// below it: the machine itself, or a tree made up for a test.
type root struct{ fs.FS }

// capIPCLock is the bit of CAP_IPC_LOCK in the CapEff mask.
const capIPCLock = 14

// initialUserNS is what the link /proc/PID/ns/user reads in the initial user
// namespace: the kernel gives it this number on every machine.
const initialUserNS = "user:[4026531837]"

// errFormat reports a kernel file that does not look as documented.
type errFormat struct{ name, want string }

func (e *errFormat) Error() string { return "/" + e.name + ": no " + e.want }

func (r root) read(name string) (string, error) {
	b, err := fs.ReadFile(r.FS, name)
	if err != nil {
		return "", absolute(err)
	}
	return string(b), nil
}

// absolute makes the path in an error of an [fs.FS] the one that can be typed.
func absolute(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && !strings.HasPrefix(pe.Path, "/") {
		return &fs.PathError{Op: pe.Op, Path: "/" + pe.Path, Err: pe.Err}
	}
	return err
}

func (r root) memlock() (Memlock, error) {
	const limitsFile, statusFile = "proc/self/limits", "proc/self/status"
	var m Memlock
	text, err := r.read(limitsFile)
	if err != nil {
		return Memlock{}, err
	}
	var ok bool
	if m.Soft, m.Hard, ok = parseMemlock(text); !ok {
		return Memlock{}, &errFormat{limitsFile, "Max locked memory"}
	}
	if text, err = r.read(statusFile); err != nil {
		return Memlock{}, err
	}
	if m.InUse, ok = parseKB(text, "VmLck"); !ok {
		return Memlock{}, &errFormat{statusFile, "VmLck"}
	}
	capEff, ok := field(text, "CapEff")
	mask, perr := strconv.ParseUint(capEff, 16, 64)
	if !ok || perr != nil {
		return Memlock{}, &errFormat{statusFile, "CapEff"}
	}
	m.Unlimited = mask>>capIPCLock&1 == 1 && r.initialUserNS()
	return m, nil
}

// initialUserNS reports whether this process is in the user namespace that
// the kernel's check of CAP_IPC_LOCK is about. A kernel without user
// namespaces has no link, and one namespace.
func (r root) initialUserNS() bool {
	link, err := fs.ReadLink(r.FS, "proc/self/ns/user")
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return link == initialUserNS
}

// parseMemlock finds the two limits in /proc/PID/limits.
func parseMemlock(text string) (soft, hard int64, ok bool) {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "Max locked memory ")
		if !found {
			continue
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			return 0, 0, false
		}
		soft, ok1 := parseLimit(f[0], "unlimited")
		hard, ok2 := parseLimit(f[1], "unlimited")
		return soft, hard, ok1 && ok2
	}
	return 0, 0, false
}

// parseLimit reads a number of bytes; none is the word for no limit. Numbers
// that no memory can reach, which is how v1 cgroups spell it, mean the same.
func parseLimit(s, none string) (int64, bool) {
	if strings.TrimSpace(s) == none {
		return None, true
	}
	v, ok := parseSize(s)
	if v >= 1<<62 {
		return None, ok
	}
	return v, ok
}

// parseSize reads a number of bytes, the greatest one if it is even greater.
func parseSize(s string) (int64, bool) {
	v, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0, false
	}
	return int64(min(v, math.MaxInt64)), true
}

// field returns what follows "key:" at the start of a line.
func field(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if rest, ok = strings.CutPrefix(rest, ":"); ok {
				return strings.TrimSpace(rest), true
			}
		}
	}
	return "", false
}

// parseKB returns a field such as "VmLck:	  12 kB" in bytes.
func parseKB(text, key string) (int64, bool) {
	s, ok := field(text, key)
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, " kB")
	v, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if !ok || err != nil || v < 0 || v > math.MaxInt64/1024 {
		return 0, false
	}
	return v * 1024, true
}

func (r root) memory() (m Memory, err error) {
	const name = "proc/meminfo"
	text, err := r.read(name)
	if err != nil {
		return Memory{}, err
	}
	var active int64
	for key, to := range map[string]*int64{
		"MemTotal": &m.Total, "MemAvailable": &m.Available, "SwapFree": &m.SwapFree,
		"Active(file)": &active, "Inactive(file)": &m.Files,
	} {
		v, ok := parseKB(text, key)
		if !ok && strings.HasPrefix(key, "Mem") {
			return Memory{}, &errFormat{name, key}
		}
		*to = min(v, math.MaxInt64/4) // sums stay in range
	}
	m.Files += active
	return m, nil
}

func (r root) maxMapCount() (int64, error) {
	const name = "proc/sys/vm/max_map_count"
	text, err := r.read(name)
	if err != nil {
		return 0, err
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, &errFormat{name, "number"}
	}
	return limit, nil
}

func (r root) mapCount() (inUse, limit int64, err error) {
	if limit, err = r.maxMapCount(); err != nil {
		return 0, 0, err
	}
	f, err := r.Open("proc/self/maps")
	if err != nil {
		return 0, 0, absolute(err)
	}
	defer f.Close()
	if inUse, err = countLines(f); err != nil {
		return 0, 0, fmt.Errorf("reading /proc/self/maps: %w", err)
	}
	return inUse, limit, nil
}

// countLines counts in a buffer of fixed size: a process at the limit has
// megabytes of maps, and reading them whole would need new mappings itself.
func countLines(r io.Reader) (int64, error) {
	var buf [16 << 10]byte
	var n int64
	for {
		k, err := r.Read(buf[:])
		for _, b := range buf[:k] {
			if b == '\n' {
				n++
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
