package prove

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A VMA is one mapping as smaps describes it. Sizes are in bytes.
type VMA struct {
	Start, End   uint64
	Perms        string // rwxp or rwxs
	Offset       int64
	Inode        uint64
	Path         string // without " (deleted)"; "" for anonymous memory
	Deleted      bool
	Rss          int64 // in memory and mapped in, zero page apart
	Pss          int64
	Anonymous    int64
	PrivateDirty int64
	SharedDirty  int64
	Swap         int64
	AnonHuge     int64 // mapped by huge pages; the next two the same, of files in memory and on disks
	ShmemHuge    int64
	FileHuge     int64
	Locked       int64    // a proportional share: halves when a second process locks the same pages
	VmFlags      []string //nolint:revive // smaps' own name
}

// Has says whether VmFlags has the flag.
func (v VMA) Has(flag string) bool { return slices.Contains(v.VmFlags, flag) }

// IsLocked says whether the kernel keeps the pages of the mapping: mlocked, or hugetlbfs, which is never paged out and
// never gets the flag.
func (v VMA) IsLocked() bool { return v.Has("lo") || v.Has("ht") }

// Size is the length of the mapping.
func (v VMA) Size() int64 { return int64(v.End - v.Start) }

func (v VMA) String() string {
	return fmt.Sprintf("%x-%x %s %q rss %d swap %d flags %s", v.Start, v.End, v.Perms, v.Path, v.Rss, v.Swap, strings.Join(v.VmFlags, " "))
}

func list(all []VMA) string {
	if len(all) == 0 {
		return "  no mapping\n"
	}
	var out strings.Builder
	for _, v := range all {
		fmt.Fprintf(&out, "  %v\n", v)
	}
	return out.String()
}

// Mappings are the mappings of this process that hold a byte of b, in order.
func Mappings(t testing.TB, b []byte) []VMA {
	t.Helper()
	Need(t, Pagemap)
	s := spanOf(b)
	var out []VMA
	for _, v := range readVMAs(t, 0, true) {
		if v.Start < s.end() && s.start < v.End {
			out = append(out, v)
		}
	}
	return out
}

// Mapping is the one mapping that holds all of b; the test fails if there is none or if there are several. Private
// anonymous memory merges with neighbours of its kind, the Go heap among them: then the figures are about more than b.
// PresentPages and SwappedPages never are.
func Mapping(t testing.TB, b []byte) VMA {
	t.Helper()
	s := spanOf(b)
	all := Mappings(t, b)
	if len(all) != 1 || all[0].Start > s.start || all[0].End < s.end() {
		t.Fatalf("%d bytes at %#x are not in one mapping but in\n%s", len(b), s.start, list(all))
	}
	return all[0]
}

// MappingsOf are the mappings of a process (0 is this one) of the file at path, or of files below it.
func MappingsOf(t testing.TB, pid int, path string) []VMA {
	t.Helper()
	Need(t, Pagemap)
	var out []VMA
	for _, v := range readVMAs(t, pid, true) {
		if under(v.Path, path) {
			out = append(out, v)
		}
	}
	return out
}

// MappedFiles counts the mappings of this process of the file at path or of files below it, and all its mappings.
func MappedFiles(t testing.TB, path string) (below, total int) {
	t.Helper()
	Need(t, Maps)
	all := readVMAs(t, 0, false)
	for _, v := range all {
		if under(v.Path, path) {
			below++
		}
	}
	return below, len(all)
}

// under says whether name is path or lies below it. The kernel names files by their real path.
func under(name, path string) bool {
	if name == "" || path == "" {
		return false
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if contains(path, name) {
		return true
	}
	physical, err := filepath.EvalSymlinks(path)
	return err == nil && contains(physical, name)
}

func contains(path, name string) bool {
	return name == path || strings.HasPrefix(name, strings.TrimSuffix(path, "/")+"/")
}

// parseVMAs reads the format of /proc/PID/maps and of /proc/PID/smaps.
func parseVMAs(r io.Reader) ([]VMA, error) {
	var out []VMA
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		key, value, field := strings.Cut(line, ":")
		if field && !strings.Contains(key, " ") {
			if len(out) == 0 {
				return nil, fmt.Errorf("smaps begins with %q", line)
			}
			out[len(out)-1].set(key, value)
			continue
		}
		v, err := parseHeader(line)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, lines.Err()
}

// parseHeader reads "start-end perms offset dev inode   path", the path having any blanks.
func parseHeader(line string) (VMA, error) {
	rest := line
	var fields [5]string
	for i := range fields {
		fields[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	offset, err3 := strconv.ParseUint(fields[2], 16, 64)
	inode, err4 := strconv.ParseUint(fields[4], 10, 64)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return VMA{}, fmt.Errorf("line of maps %q: %w", line, err)
		}
	}
	path := strings.ReplaceAll(strings.TrimLeft(rest, " "), `\012`, "\n") // the one character that maps escapes
	path, deleted := strings.CutSuffix(path, " (deleted)")
	return VMA{Start: start, End: end, Perms: fields[1], Offset: int64(offset), Inode: inode, Path: path, Deleted: deleted}, nil
}

func (v *VMA) set(key, value string) {
	if key == "VmFlags" {
		v.VmFlags = strings.Fields(value)
		return
	}
	to := map[string]*int64{
		"Rss": &v.Rss, "Pss": &v.Pss, "Anonymous": &v.Anonymous, "Private_Dirty": &v.PrivateDirty,
		"Shared_Dirty": &v.SharedDirty, "Swap": &v.Swap, "Locked": &v.Locked,
		"AnonHugePages": &v.AnonHuge, "ShmemPmdMapped": &v.ShmemHuge, "FilePmdMapped": &v.FileHuge,
	}[key]
	if to == nil {
		return
	}
	if kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64); err == nil {
		*to = kb << 10
	}
}
