package limits

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// mount is one place where a cgroup hierarchy can be seen: the directory
// point shows the cgroup root of it, and what lies below. Like the paths in
// /proc/self/cgroup, root counts from the cgroup namespace's root and starts
// with /.. where it lies outside.
type mount struct{ root, point string }

// version is what differs between the two layouts of the memory controller.
type version struct {
	limit, usage         string // file names
	none                 string // the word for no limit; v1 has a huge number instead
	inactive, active     string // keys of memory.stat, this cgroup and all below
	hierarchicalLimitKey string // of memory.stat: the least limit up to the system's root
	limitMayBeMissing    bool   // at the root, and where the controller is not enabled
}

var (
	v1 = version{
		limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", none: "-1",
		inactive: "total_inactive_file", active: "total_active_file",
		hierarchicalLimitKey: "hierarchical_memory_limit",
	}
	v2 = version{
		limit: "memory.max", usage: "memory.current", none: "max",
		inactive: "inactive_file", active: "active_file",
		limitMayBeMissing: true,
	}
)

func (r root) cgroups() ([]Cgroup, error) {
	v, chain, err := r.chain()
	if err != nil || chain == nil {
		return nil, err
	}
	return r.readChain(v, chain)
}

// chain returns the directories of this process's cgroup and its ancestors,
// innermost first; none if the kernel has no memory cgroups.
func (r root) chain() (v version, chain []string, err error) {
	text, err := r.read("proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil, nil // a kernel without cgroups
	}
	if err != nil {
		return v, nil, err
	}
	onV1, onV2 := parseProcCgroup(text)
	// In a hybrid layout both lines exist, and the controller is where it is
	// named: a controller cannot be in two hierarchies.
	v, own := v1, onV1
	if own == "" {
		v, own = v2, onV2
	}
	if own == "" {
		return v, nil, nil
	}
	if text, err = r.read("proc/self/mountinfo"); err != nil {
		return v, nil, err
	}
	mountsV1, mountsV2 := parseMountinfo(text)
	mounts := mountsV1
	if v == v2 {
		mounts = mountsV2
	}
	chain, ok := r.locate(mounts, own)
	if !ok {
		return v, nil, &fs.PathError{Op: "find memory cgroup", Path: own, Err: fs.ErrNotExist}
	}
	return v, chain, nil
}

func (r root) limited() (bool, error) {
	v, chain, err := r.chain()
	if err != nil {
		return false, err
	}
	return r.limitedIn(v, chain, r.isTop(chain))
}

// limitedIn reads of each cgroup no more than the limit, and so much only until
// it finds one. With top there is nothing above the chain.
func (r root) limitedIn(v version, chain []string, top bool) (bool, error) {
	for _, dir := range chain {
		text, err := r.read(inFS(path.Join(dir, v.limit)))
		if v.limitMayBeMissing && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if limit, ok := parseLimit(text, v.none); !ok || limit != None {
			return true, nil
		}
	}
	if len(chain) == 0 || top || v.hierarchicalLimitKey == "" {
		return false, nil
	}
	// Limits out of sight show in the statistics alone.
	text, err := r.read(inFS(path.Join(chain[len(chain)-1], "memory.stat")))
	if err != nil {
		return false, err
	}
	limit, ok := parseLimit(statField(text, v.hierarchicalLimitKey), v.none)
	return ok && limit != None, nil
}

// isTop reports whether the last of a chain is the root of the system's v1
// hierarchy, which alone has this file.
func (r root) isTop(chain []string) bool {
	if len(chain) == 0 {
		return false
	}
	_, err := fs.Stat(r.FS, inFS(path.Join(chain[len(chain)-1], "release_agent")))
	return err == nil
}

// locate returns the directories of the cgroup own and of every ancestor in
// sight, innermost first. Of several mounts it takes the one that shows most:
// in a container that can see the host's hierarchy too, the host's.
func (r root) locate(mounts []mount, own string) (chain []string, ok bool) {
	// The last mount hides earlier ones at the same place.
	for i := len(mounts) - 1; i >= 0; i-- {
		m := mounts[i]
		names, hidden, below := relative(m.root, own)
		switch {
		case !below:
			continue
		case hidden > 0:
			names, below = r.search(m.point, hidden, names)
		default:
			below = r.isDir(path.Join(append([]string{m.point}, names...)...))
		}
		if below && len(names) >= len(chain) {
			chain, ok = ancestors(m.point, names), true
		}
	}
	if ok {
		return chain, true
	}
	// Some containers show a path that belongs to another view than the
	// mount. What the mount shows is still ours if it lists this process.
	for i := len(mounts) - 1; i >= 0; i-- {
		if r.lists(mounts[i].point) {
			return []string{mounts[i].point}, true
		}
	}
	return nil, false
}

func ancestors(point string, names []string) []string {
	chain := make([]string, 0, len(names)+1)
	for i := len(names); i >= 0; i-- {
		chain = append(chain, path.Join(append([]string{point}, names[:i]...)...))
	}
	return chain
}

// relative says where the cgroup own lies below a mount's root: names from
// the root down, after as many more levels as hidden says whose names cannot
// be known here, because they lie above the cgroup namespace's root.
func relative(mountRoot, own string) (names []string, hidden int, ok bool) {
	rootUps, rootNames := climb(mountRoot)
	ownUps, ownNames := climb(own)
	switch {
	case ownUps > rootUps:
		return nil, 0, false
	case ownUps < rootUps:
		// The kernel writes the shortest way, so after going up further
		// than own does, every name leads away from it.
		return ownNames, rootUps - ownUps, len(rootNames) == 0
	case len(rootNames) > len(ownNames):
		return nil, 0, false
	}
	for i, name := range rootNames {
		if ownNames[i] != name {
			return nil, 0, false
		}
	}
	return ownNames[len(rootNames):], 0, true
}

// climb splits a path such as /../../a/b into 2 and [a b].
func climb(p string) (ups int, names []string) {
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "" || name == ".":
		case name != "..":
			names = append(names, name)
		case len(names) > 0:
			names = names[:len(names)-1]
		default:
			ups++
		}
	}
	return ups, names
}

// search looks for the cgroup of this process that many levels of unknown
// name below point, and then the names.
func (r root) search(point string, hidden int, names []string) ([]string, bool) {
	escape := strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)
	pattern := escape.Replace(inFS(point)) + strings.Repeat("/*", hidden)
	for _, name := range names {
		pattern += "/" + escape.Replace(name)
	}
	found, err := fs.Glob(r.FS, pattern)
	if err != nil {
		return nil, false
	}
	for _, dir := range found {
		if r.lists("/" + dir) {
			rest := strings.TrimPrefix("/"+dir, path.Clean(point))
			_, names := climb(rest)
			return names, true
		}
	}
	return nil, false
}

// lists reports whether this process is in the cgroup dir itself.
func (r root) lists(dir string) bool {
	self, err := fs.ReadLink(r.FS, "proc/self")
	if err != nil {
		return false
	}
	text, err := r.read(inFS(path.Join(dir, "cgroup.procs")))
	if err != nil {
		return false
	}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == self {
			return true
		}
	}
	return false
}

func (r root) isDir(dir string) bool {
	fi, err := fs.Stat(r.FS, inFS(dir))
	return err == nil && fi.IsDir()
}

// inFS turns an absolute path into the name that an [fs.FS] wants.
func inFS(p string) string {
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p != "" {
		return p
	}
	return "."
}

func (r root) readChain(v version, chain []string) ([]Cgroup, error) {
	groups := make([]Cgroup, 0, len(chain))
	var last string
	for i, dir := range chain {
		// Before Linux 5.11 a v1 cgroup could stand outside its parent's account.
		if flag, err := r.read(inFS(path.Join(dir, "memory.use_hierarchy"))); i > 0 && err == nil && strings.TrimSpace(flag) == "0" {
			break
		}
		c, stat, err := r.readGroup(v, dir)
		if v.limitMayBeMissing && errors.Is(err, fs.ErrNotExist) {
			continue // no account is kept at this level
		}
		if err != nil {
			return nil, err
		}
		groups, last = append(groups, c), stat
	}
	if len(groups) > 0 && v.hierarchicalLimitKey != "" {
		top := &groups[len(groups)-1]
		limit, ok := parseLimit(statField(last, v.hierarchicalLimitKey), v.none)
		if ok && limit != None && (top.Limit == None || limit < top.Limit) {
			top.Limit = limit
		}
	}
	return groups, nil
}

// readGroup reads one cgroup, and returns its memory.stat as well. The error
// is [fs.ErrNotExist] if the directory keeps no memory account at all.
func (r root) readGroup(v version, dir string) (c Cgroup, stat string, err error) {
	c = Cgroup{Path: dir, Limit: None, Usage: -1}
	if stat, err = r.read(inFS(path.Join(dir, "memory.stat"))); err != nil {
		return c, "", err
	}
	var ok bool
	if c.InactiveFile, ok = parseSize(statField(stat, v.inactive)); !ok {
		return c, "", &errFormat{inFS(path.Join(dir, "memory.stat")), v.inactive}
	}
	if c.ActiveFile, ok = parseSize(statField(stat, v.active)); !ok {
		return c, "", &errFormat{inFS(path.Join(dir, "memory.stat")), v.active}
	}
	// The root of v2 has statistics but neither a limit nor a sum.
	for _, f := range []struct {
		name  string
		parse func(string) (int64, bool)
		to    *int64
	}{
		{v.limit, func(s string) (int64, bool) { return parseLimit(s, v.none) }, &c.Limit},
		{v.usage, parseSize, &c.Usage},
	} {
		name := inFS(path.Join(dir, f.name))
		text, err := r.read(name)
		if v.limitMayBeMissing && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, "", err
		}
		if *f.to, ok = f.parse(text); !ok {
			return c, "", &errFormat{name, "number"}
		}
	}
	return c, stat, nil
}

// statField returns a value of memory.stat, whose lines are "key value".
func statField(text, key string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// parseProcCgroup reads /proc/PID/cgroup: the path in the v1 hierarchy that
// has the memory controller, and the path in v2; empty where there is none.
func parseProcCgroup(text string) (onV1, onV2 string) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "":
			onV2 = f[2]
		case hasWord(f[1], "memory"):
			onV1 = f[2]
		}
	}
	return onV1, onV2
}

// parseMountinfo finds the mounts of the v1 memory hierarchy and of v2 in
// /proc/PID/mountinfo, in its order.
func parseMountinfo(text string) (onV1, onV2 []mount) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		m := mount{unescape(f[3]), unescape(f[4])}
		switch {
		case !strings.HasPrefix(m.point, "/"):
		case g[0] == "cgroup2":
			onV2 = append(onV2, m)
		case g[0] == "cgroup" && hasWord(g[2], "memory"):
			onV1 = append(onV1, m)
		}
	}
	return onV1, onV2
}

func hasWord(list, word string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == word {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of mountinfo: space is \040.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
