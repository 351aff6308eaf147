//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"maps"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// child finds a name in a directory. The caller locks.
func (s *server) child(dirID uint64, name string) (dir, n *node, st fuse.Status) {
	dir, st = s.node(dirID)
	if !st.Ok() {
		return nil, nil, st
	}
	if !dir.isDir() {
		return nil, nil, fuse.ENOTDIR
	}
	return dir, dir.entries[name], fuse.OK
}

// tell gives the kernel a node. The caller locks.
func (s *server) tell(n *node, out *fuse.EntryOut) fuse.Status {
	n.lookups++
	out.NodeId, out.Generation, out.AttrValid = n.id, 1, attrSeconds
	n.attr(&out.Attr)
	return fuse.OK
}

func (s *server) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, n, st := s.child(in.NodeId, name)
	if !st.Ok() {
		return st
	}
	if n == nil {
		return fuse.ENOENT
	}
	return s.tell(n, out)
}

func (s *server) Forget(id, lookups uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.tree.nodes[id]; n != nil {
		s.tree.forget(n, lookups)
	}
}

func (s *server) make(op Op, in *fuse.InHeader, name string, fresh *node, out *fuse.EntryOut) fuse.Status {
	return s.locked(Entry{Op: op, Path: s.pathOf(in.NodeId, name)}, 0, func() fuse.Status {
		dir, n, st := s.child(in.NodeId, name)
		switch {
		case !st.Ok():
			return st
		case n != nil:
			return fuse.Status(unix.EEXIST)
		case len(name) > 255:
			return fuse.Status(unix.ENAMETOOLONG)
		}
		fresh.uid, fresh.gid = in.Uid, in.Gid
		s.tree.link(dir, name, s.tree.add(fresh))
		return s.tell(fresh, out)
	})
}

func (s *server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s.opened(&out.OpenOut)
	return s.make(OpCreate, &in.InHeader, name, newFile(unix.S_IFREG|in.Mode&0o7777, 0, Zeros), &out.EntryOut)
}

func (s *server) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT != unix.S_IFREG {
		return fuse.EPERM
	}
	return s.make(OpCreate, &in.InHeader, name, newFile(in.Mode, 0, Zeros), out)
}

func (s *server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.make(OpMkdir, &in.InHeader, name, newDir(unix.S_IFDIR|in.Mode&0o7777), out)
}

func (s *server) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.locked(Entry{Op: OpUnlink, Path: s.pathOf(in.NodeId, name)}, 0, func() fuse.Status {
		_, n, st := s.child(in.NodeId, name)
		switch {
		case !st.Ok():
			return st
		case n == nil:
			return fuse.ENOENT
		case n.isDir():
			return fuse.Status(unix.EISDIR)
		}
		s.tree.unlink(n)
		return fuse.OK
	})
}

func (s *server) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.locked(Entry{Op: OpRmdir, Path: s.pathOf(in.NodeId, name)}, 0, func() fuse.Status {
		_, n, st := s.child(in.NodeId, name)
		switch {
		case !st.Ok():
			return st
		case n == nil:
			return fuse.ENOENT
		case !n.isDir():
			return fuse.ENOTDIR
		case len(n.entries) > 0:
			return fuse.Status(unix.ENOTEMPTY)
		}
		s.tree.unlink(n)
		return fuse.OK
	})
}

func (s *server) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	e := Entry{Op: OpRename, Path: s.pathOf(in.NodeId, oldName), To: s.pathOf(in.Newdir, newName)}
	return s.locked(e, 0, func() fuse.Status {
		from, n, st := s.child(in.NodeId, oldName)
		if !st.Ok() {
			return st
		}
		to, old, st := s.child(in.Newdir, newName)
		switch {
		case !st.Ok():
			return st
		case n == nil:
			return fuse.ENOENT
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return fuse.EINVAL
		case old != nil && in.Flags != 0:
			return fuse.Status(unix.EEXIST)
		case old == n:
			return fuse.OK
		case old != nil && len(old.entries) > 0:
			return fuse.Status(unix.ENOTEMPTY)
		}
		if old != nil {
			s.tree.unlink(old)
		}
		delete(from.entries, oldName)
		s.tree.link(to, newName, n)
		return fuse.OK
	})
}

func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, st := s.node(in.NodeId)
	if !st.Ok() {
		return st
	}
	var list []fuse.DirEntry
	for i, name := range slices.Sorted(maps.Keys(n.entries)) {
		c := n.entries[name]
		list = append(list, fuse.DirEntry{Name: name, Ino: c.id, Mode: c.mode, Off: uint64(i + 1)})
	}
	s.handles++
	out.Fh = s.handles
	s.dirs[out.Fh] = list
	return fuse.OK
}

func (s *server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.dead {
		return fuse.EIO
	}
	list := s.dirs[in.Fh]
	for _, e := range list[min(in.Offset, uint64(len(list))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dirs, in.Fh)
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	total := int64(1) << 40 / blockSize // no limit has to look like something
	if s.tree.capacity > 0 {
		total = s.tree.capacity / blockSize
	}
	free := uint64(max(total-s.tree.used, 0))
	*out = fuse.StatfsOut{Blocks: uint64(total), Bfree: free, Bavail: free, Bsize: blockSize, Frsize: blockSize, NameLen: 255}
	return fuse.OK
}
