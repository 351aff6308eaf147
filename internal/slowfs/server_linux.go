//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The kernel may believe attributes for long, because nothing changes them but its own requests (Truncate tells it).
// Names it has to ask for each time: after a power cut the same name is another node.
const attrSeconds = 3600

// server answers the kernel.
type server struct {
	fuse.RawFileSystem // what is not supported
	opts               Options
	kernel             *fuse.Server
	rec                *recorder
	delays             struct{ read, write, fsync atomic.Int64 }

	mu      sync.RWMutex
	tree    *tree
	dead    bool // between Cut and PowerOn
	epoch   int  // counts power cuts
	dirs    map[uint64][]fuse.DirEntry
	handles uint64
}

func newServer(o Options) *server {
	s := &server{RawFileSystem: fuse.NewDefaultRawFileSystem(), opts: o, rec: newRecorder(), tree: newTree(o.Capacity), dirs: map[uint64][]fuse.DirEntry{}}
	s.delays.read.Store(int64(o.ReadDelay))
	s.delays.write.Store(int64(o.WriteDelay))
	s.delays.fsync.Store(int64(o.FsyncDelay))
	return s
}

func (s *server) String() string { return "slowfs" }

func (s *server) Init(k *fuse.Server) { s.kernel = k }

// node finds what the kernel speaks of. The caller locks.
func (s *server) node(id uint64) (*node, fuse.Status) {
	if s.dead {
		return nil, fuse.EIO
	}
	n := s.tree.nodes[id]
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	return n, fuse.OK
}

// file is node for what has data.
func (s *server) file(id uint64) (*node, fuse.Status) {
	n, st := s.node(id)
	if st.Ok() && n.isDir() {
		return nil, fuse.Status(unix.EISDIR)
	}
	return n, st
}

func (s *server) pathOf(id uint64, names ...string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.tree.nodes[id]
	if n == nil {
		return ""
	}
	p := s.tree.path(n)
	for _, name := range names {
		if p == "." {
			p = name
		} else {
			p += "/" + name
		}
	}
	return p
}

// serve logs a request, lets its time pass and, if no rule forbids it, carries it out.
func (s *server) serve(e Entry, delay int64, do func() fuse.Status) fuse.Status {
	entry := s.rec.begin(e)
	st := fuse.Status(s.rec.wait(entry, time.Duration(delay)))
	if st.Ok() {
		st = do()
	}
	s.rec.end(entry, int(st))
	return st
}

// locked is serve for what changes files or names.
func (s *server) locked(e Entry, delay int64, do func() fuse.Status) fuse.Status {
	return s.serve(e, delay, func() fuse.Status {
		s.mu.Lock()
		defer s.mu.Unlock()
		return do()
	})
}

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, st := s.node(in.NodeId)
	if st.Ok() {
		out.AttrValid = attrSeconds
		n.attr(&out.Attr)
	}
	return st
}

func (s *server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	size, sized := in.GetSize()
	e := Entry{Op: OpSetattr, Path: s.pathOf(in.NodeId), Len: -1}
	if sized {
		e.Len = int64(size)
	}
	return s.locked(e, 0, func() fuse.Status {
		n, st := s.node(in.NodeId)
		if !st.Ok() {
			return st
		}
		if sized {
			if n.isDir() {
				return fuse.Status(unix.EISDIR)
			}
			s.tree.change(n, func() { n.truncate(int64(size)) })
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&unix.S_IFMT | mode
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if t, ok := in.GetMTime(); ok {
			n.mtime = t
		}
		out.AttrValid = attrSeconds
		n.attr(&out.Attr)
		return fuse.OK
	})
}

func (s *server) opened(out *fuse.OpenOut) {
	// Without KEEP_CACHE each open would throw away the pages that others have mapped.
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if s.opts.NoFlush {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH
	}
	if s.opts.DirectIO {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	}
}

func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return s.locked(Entry{Op: OpOpen, Path: s.pathOf(in.NodeId)}, 0, func() fuse.Status {
		s.opened(out)
		_, st := s.file(in.NodeId)
		return st
	})
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := int64(in.Offset)
	buf = buf[:min(len(buf), int(in.Size))]
	e := Entry{Op: OpRead, Path: s.pathOf(in.NodeId), Off: off, Len: int64(in.Size)}
	st := s.serve(e, s.delays.read.Load(), func() fuse.Status {
		s.mu.RLock()
		defer s.mu.RUnlock()
		n, st := s.file(in.NodeId)
		if !st.Ok() {
			return st
		}
		buf = buf[:min(int64(len(buf)), max(n.live.size-off, 0))]
		n.live.readAt(buf, off)
		return fuse.OK
	})
	if !st.Ok() {
		return nil, st
	}
	return fuse.ReadResultData(buf), st
}

func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	off := int64(in.Offset)
	e := Entry{Op: OpWrite, Path: s.pathOf(in.NodeId), Off: off, Len: int64(len(p))}
	st := s.locked(e, s.delays.write.Load(), func() fuse.Status {
		n, st := s.file(in.NodeId)
		if !st.Ok() {
			return st
		}
		if !s.tree.room(n, off, int64(len(p))) {
			return fuse.Status(unix.ENOSPC)
		}
		s.tree.change(n, func() { n.write(p, off) })
		return fuse.OK
	})
	if !st.Ok() {
		return 0, st
	}
	return uint32(len(p)), st
}

func (s *server) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	off, length := int64(in.Offset), int64(in.Length)
	e := Entry{Op: OpFallocate, Path: s.pathOf(in.NodeId), Off: off, Len: length, Mode: in.Mode}
	return s.locked(e, 0, func() fuse.Status {
		n, st := s.file(in.NodeId)
		if !st.Ok() {
			return st
		}
		const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
		switch in.Mode {
		case keep | punch:
			s.tree.change(n, func() {
				n.zero(off, off+length)
				n.free(blocks(off), (off+length)/blockSize)
			})
			return fuse.OK
		case 0, keep, zero, zero | keep:
		default:
			return fuse.Status(unix.EOPNOTSUPP)
		}
		if !s.tree.room(n, off, length) {
			return fuse.Status(unix.ENOSPC)
		}
		s.tree.change(n, func() {
			if in.Mode&zero != 0 {
				n.zero(off, off+length)
			}
			n.occupy(off/blockSize, blocks(off+length))
			if in.Mode&keep == 0 {
				n.live.size = max(n.live.size, off+length)
			}
		})
		return fuse.OK
	})
}

// durably is how FSYNC and FSYNCDIR go: look at what there is, let the time pass, then do one of two things.
func (s *server) durably(e Entry, id uint64, look func(*node) (keep, drop func())) fuse.Status {
	entry := s.rec.begin(e)
	s.mu.Lock()
	epoch := s.epoch
	n, st := s.node(id)
	var keep, drop func()
	if st.Ok() {
		keep, drop = look(n)
	}
	s.mu.Unlock()

	if st.Ok() {
		st = fuse.Status(s.rec.wait(entry, time.Duration(s.delays.fsync.Load())))
		s.mu.Lock()
		switch {
		case s.epoch != epoch || s.dead: // the power was cut meanwhile
			st = fuse.EIO
		case st.Ok():
			keep()
		default:
			drop()
		}
		s.mu.Unlock()
	}
	s.rec.end(entry, int(st))
	return st
}

func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	e := Entry{Op: OpFsync, Path: s.pathOf(in.NodeId), Datasync: in.FsyncFlags&1 != 0}
	return s.durably(e, in.NodeId, func(n *node) (keep, drop func()) {
		if n.isDir() {
			return func() {}, func() {}
		}
		snap := n.snapshot()
		keep = func() {
			n.keep(snap)
			if s.opts.FsyncCommitsNames {
				s.tree.commitNames()
			}
		}
		return keep, func() { n.drop(snap) }
	})
}

func (s *server) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	e := Entry{Op: OpFsyncDir, Path: s.pathOf(in.NodeId)}
	return s.durably(e, in.NodeId, func(n *node) (keep, drop func()) {
		names := maps.Clone(n.entries)
		return func() { n.commit(names) }, func() {}
	})
}

func (s *server) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return s.serve(Entry{Op: OpFlush, Path: s.pathOf(in.NodeId)}, 0, func() fuse.Status { return fuse.OK })
}

func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	s.serve(Entry{Op: OpRelease, Path: s.pathOf(in.NodeId)}, 0, func() fuse.Status { return fuse.OK })
}
