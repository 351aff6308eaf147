//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// init turns the test binary into the server if it was started as one. It runs before the init functions of the
// packages under test, none of which have any business in the server.
func init() {
	conf, ok := os.LookupEnv(environ)
	if !ok {
		return
	}
	// A Ctrl-C reaches the whole process group; the end of the control pipe is what ends the server.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	if err := serve(conf); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(conf string) error {
	in, out := os.NewFile(3, "control"), os.NewFile(4, "answers")
	enc, dec := json.NewEncoder(out), json.NewDecoder(in)
	var c config
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	s := newServer(c.Options)
	kernel, err := fuse.NewServer(s, c.Dir, mountOptions(c.Options))
	if err != nil {
		var no syscall.Errno
		errors.As(err, &no)
		return enc.Encode(reply{Err: err.Error(), Errno: int(no)})
	}
	go kernel.Serve()
	go watch(c)
	if err := enc.Encode(reply{}); err != nil {
		return errors.Join(err, leave(c.Dir))
	}
	for {
		var q request
		if err := dec.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, leave(c.Dir))
		}
		r, err := s.answer(q)
		if err != nil {
			r.Err = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return errors.Join(err, leave(c.Dir))
		}
	}
}

// watch looks whether the parent is dying. One that is killed while it has dirty pages of ours mapped does not close
// its end of the control pipe: the kernel takes its memory apart before its descriptors, writes those pages and waits
// for an answer that a held or failing request may never get. Neither a pidfd nor a death signal comes sooner.
func watch(c config) {
	for !dying(c.Parent) {
		time.Sleep(200 * time.Millisecond)
	}
	if err := leave(c.Dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(0)
}

// dying reports whether a process is no more or has begun to exit.
func dying(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	const exiting = 4 // PF_EXITING
	var state string
	var skip, flags int64
	rest := stat[bytes.LastIndexByte(stat, ')')+1:] // the name before it may hold anything
	if _, err := fmt.Sscan(string(rest), &state, &skip, &skip, &skip, &skip, &skip, &flags); err != nil {
		return false
	}
	return state == "Z" || state == "X" || flags&exiting != 0
}

// leave unmounts in place of a parent that died. A parent that did not has done it already.
func leave(dir string) error {
	err := unmount(dir)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		DirectMountStrict:  true, // no fusermount needed
		AllowOther:         true, // tests drop privileges …
		Options:            []string{"default_permissions"},
		FsName:             "slowfs",
		Name:               "slowfs",
		MaxBackground:      o.MaxBackground,
		MaxWrite:           o.MaxRequest,
		DisableXAttrs:      true,
		DisableSplice:      true,
		DisableReadDirPlus: true,
		// Otherwise a new mtime, the effect of the kernel's own write-back, throws the file's pages out of the cache.
		ExplicitDataCacheControl: true,
	}
	if m.MaxBackground == 0 {
		m.MaxBackground = 1024 // go-fuse's 12 would be the queue depth of the disk
	}
	m.CongestionThreshold = m.MaxBackground
	if o.WritebackCache {
		m.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	return m
}

// answer does what a method of FS asks for.
func (s *server) answer(q request) (r reply, err error) {
	switch q.Do {
	case "readdelay":
		s.delays.read.Store(int64(q.Dur))
	case "writedelay":
		s.delays.write.Store(int64(q.Dur))
	case "fsyncdelay":
		s.delays.fsync.Store(int64(q.Dur))
	case "add":
		r.N = s.rec.add(*q.Rule, q.Errno)
	case "remove":
		s.rec.remove(q.Len)
	case "removeall":
		s.rec.remove(0)
	case "log":
		var ok bool
		if r.Log, ok = s.rec.entries(q.Ops); !ok {
			err = fmt.Errorf("more than %d requests: reset the log in between, or use Stats", maxLog)
		}
	case "resetlog":
		s.rec.reset()
	case "stats":
		st := s.rec.snapshot()
		r.Stats = &st
	case "dropcache":
		err = s.dropCache(q.Path, q.Off, q.Len)
	case "truncate":
		err = s.truncate(q.Path, q.Len)
	default:
		return s.power(q)
	}
	return r, err
}

// power answers what concerns the images as a whole.
func (s *server) power(q request) (r reply, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch q.Do {
	case "capacity":
		s.tree.capacity = q.Len
	case "used":
		r.N = s.tree.used * blockSize
	case "addfile":
		if s.dead || !s.tree.addFile(q.Path, q.Len, q.Fill, q.Data) {
			err = errors.New("cannot be put there")
		}
	case "cut":
		if s.dead {
			return r, errors.New("the power is off already")
		}
		s.dead = true
		s.epoch++
		s.rec.powerCut()
	case "poweron":
		if !s.dead {
			return r, errors.New("the power is on")
		}
		s.tree.restart()
		s.dead = false
		s.rec.powerOn()
	case "durable":
		n := s.tree.walk(q.Path, true)
		if n == nil || n.isDir() {
			break
		}
		r.Found, r.N = true, n.dur.size
		r.Data = make([]byte, min(q.Len, max(n.dur.size-q.Off, 0)))
		n.dur.readAt(r.Data, q.Off)
	default:
		err = errors.New("unknown request")
	}
	return r, err
}

func (s *server) truncate(path string, size int64) error {
	s.mu.Lock()
	n := s.tree.walk(path, false)
	if n == nil || n.isDir() || s.dead {
		s.mu.Unlock()
		return unix.ENOENT
	}
	s.tree.change(n, func() { n.truncate(size) })
	id := n.id
	s.mu.Unlock()
	return notified(s.kernel.InodeNotify(id, -1, 0)) // a negative offset: attributes only
}

func (s *server) dropCache(path string, off, length int64) error {
	s.mu.RLock()
	n := s.tree.walk(path, false)
	s.mu.RUnlock()
	if n == nil {
		return unix.ENOENT
	}
	// Not under the lock: the kernel writes dirty pages first.
	return notified(s.kernel.InodeNotify(n.id, off, length))
}

// notified ignores that the kernel does not know the file (any more).
func notified(st fuse.Status) error {
	if st.Ok() || st == fuse.ENOENT {
		return nil
	}
	return syscall.Errno(st)
}
