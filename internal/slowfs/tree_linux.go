//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"maps"
	"path"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or a directory.
type node struct {
	id           uint64 // the kernel's name for it; a new one after each power cut, so that old requests cannot hit it
	parent       *node
	name         string
	mode         uint32
	uid, gid     uint32
	mtime, ctime time.Time
	lookups      uint64 // how often the kernel was told the id and has not forgotten it
	gone         bool   // unlinked

	*data                       // regular files
	entries    map[string]*node // directories
	durEntries map[string]*node // the names that survive

	durParent *node // where this node has such a name: it has one at most
	durName   string
}

func (n *node) isDir() bool { return n.entries != nil }

// tree is all nodes. Its owner locks.
type tree struct {
	root     *node
	nodes    map[uint64]*node
	last     uint64
	capacity int64 // bytes; 0: no limit
	used     int64 // blocks
}

func newTree(capacity int64) *tree {
	t := &tree{nodes: map[uint64]*node{}, capacity: capacity}
	t.root = t.add(newDir(unix.S_IFDIR | 0o755))
	return t
}

func newDir(mode uint32) *node {
	return &node{mode: mode, entries: map[string]*node{}, durEntries: map[string]*node{}, mtime: time.Now(), ctime: time.Now()}
}

func newFile(mode uint32, size int64, fill Fill) *node {
	return &node{mode: mode, data: newData(size, fill), mtime: time.Now(), ctime: time.Now()}
}

// add gives a node an id: the first, the root, gets 1 as FUSE wants.
func (t *tree) add(n *node) *node {
	t.last++
	n.id = t.last
	t.nodes[n.id] = n
	if n.data != nil {
		t.used += n.data.used
	}
	return n
}

func (t *tree) link(dir *node, name string, n *node) {
	dir.entries[name] = n
	n.parent, n.name, n.gone = dir, name, false
	dir.mtime = time.Now()
}

func (t *tree) unlink(n *node) {
	delete(n.parent.entries, n.name)
	n.parent.mtime = time.Now()
	n.gone = true
	t.forget(n, 0)
}

// forget frees what has neither a name nor anyone in the kernel that knows it. That is as on a disk: the space of an
// unlinked file comes back when it is closed.
func (t *tree) forget(n *node, lookups uint64) {
	n.lookups -= min(lookups, n.lookups)
	if n.gone && n.lookups == 0 && t.nodes[n.id] == n {
		delete(t.nodes, n.id)
		if n.data != nil {
			t.used -= n.data.used
		}
	}
}

func (t *tree) path(n *node) string {
	if n == nil {
		return ""
	}
	if n == t.root {
		return "."
	}
	return path.Join(t.path(n.parent), n.name)
}

// walk finds a path, in what is live or what is durable.
func (t *tree) walk(p string, durable bool) *node {
	n := t.root
	for _, name := range split(p) {
		if n == nil || !n.isDir() {
			return nil
		}
		if durable {
			n = n.durEntries[name]
		} else {
			n = n.entries[name]
		}
	}
	return n
}

func split(p string) []string {
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// addFile puts a durable file there.
func (t *tree) addFile(p string, size int64, fill Fill, bytes []byte) bool {
	names := split(p)
	if len(names) == 0 {
		return false
	}
	dir := t.root
	for _, name := range names[:len(names)-1] {
		next := dir.entries[name]
		if next == nil {
			next = t.add(newDir(unix.S_IFDIR | 0o755))
			t.link(dir, name, next)
			next.survive(dir, name)
		}
		if !next.isDir() {
			return false
		}
		dir = next
	}
	name := names[len(names)-1]
	if old := dir.entries[name]; old != nil {
		if old.isDir() {
			return false
		}
		t.unlink(old)
	}
	n := newFile(unix.S_IFREG|0o644, size, fill)
	if len(bytes) > 0 {
		n.write(bytes, 0)
		n.keep(n.snapshot())
	}
	t.link(dir, name, t.add(n))
	n.survive(dir, name)
	return true
}

// survive gives a node a durable name, in place of the one that it had: a rename that became durable in the new
// directory only must not leave two.
func (n *node) survive(dir *node, name string) {
	if p := n.durParent; p != nil && p.durEntries[n.durName] == n {
		delete(p.durEntries, n.durName)
	}
	dir.durEntries[name] = n
	n.durParent, n.durName = dir, name
}

// commit makes the names in a directory what they were when its FSYNCDIR came.
func (n *node) commit(names map[string]*node) {
	n.durEntries = map[string]*node{}
	for name, c := range names {
		c.survive(n, name)
	}
}

// room reports whether a file may occupy [off, off+n).
func (t *tree) room(n *node, off, length int64) bool {
	lacking := n.lacking(off/blockSize, blocks(off+length))
	return t.capacity == 0 || lacking == 0 || t.used+lacking <= t.capacity/blockSize
}

// change runs something that may change how much space a file takes.
func (t *tree) change(n *node, fn func()) {
	before := n.data.used
	fn()
	t.used += n.data.used - before
	n.mtime = time.Now()
	n.ctime = n.mtime
}

// commitNames makes all names durable, as the journal of ext4 does with any fsync.
func (t *tree) commitNames() {
	var each func(n *node)
	each = func(n *node) {
		n.commit(n.entries)
		for _, c := range n.entries {
			if c.isDir() {
				each(c)
			}
		}
	}
	each(t.root)
}

// restart makes what is durable the whole file system.
func (t *tree) restart() {
	t.nodes, t.used = map[uint64]*node{t.root.id: t.root}, 0
	var each func(n *node)
	each = func(n *node) {
		n.entries = maps.Clone(n.durEntries)
		for name, c := range n.entries {
			c.parent, c.name, c.gone, c.lookups = n, name, false, 0 // the kernel knows it by an id that is no more
			if c.isDir() {
				t.add(c)
				each(c)
				continue
			}
			c.restart()
			t.add(c)
		}
	}
	each(t.root)
}

func (n *node) attr(a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.id, Mode: n.mode, Nlink: 1, Owner: fuse.Owner{Uid: n.uid, Gid: n.gid}, Blksize: blockSize}
	if n.gone {
		a.Nlink = 0
	}
	if n.data != nil {
		a.Size = uint64(n.live.size)
		a.Blocks = uint64(n.data.used) * blockSize / 512
	}
	a.SetTimes(nil, &n.mtime, &n.ctime)
}
