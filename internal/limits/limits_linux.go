package limits

import (
	"io/fs"
	"math"
	"os"
	"sync"
	"syscall"
	"time"
)

// system reads the machine's own files.
func system() root { return root{machine{os.DirFS("/")}} }

// A machine reads files of the kernel's without package os, which would have each
// of them watched by the poller and take three times as long.
type machine struct{ fs.FS }

// ReadFile makes it an [fs.ReadFileFS].
func (m machine) ReadFile(name string) ([]byte, error) {
	fd, err := open(name)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd) //nolint:errcheck // only read
	return readAll(name, 4096, false, func(b []byte, _ int) (int, error) { return syscall.Read(fd, b) })
}

func open(name string) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = syscall.Open("/"+name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// readAll reads a file from its start, with at least so much room. One that the
// kernel writes as a whole has ended with what does not fill it.
func readAll(name string, room int, whole bool, read func(b []byte, off int) (int, error)) ([]byte, error) {
	b := make([]byte, 0, room)
	for {
		n := 0
		err := again(func() (err error) {
			n, err = read(b[len(b):cap(b)], len(b))
			return err
		})
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		b = b[:len(b)+max(n, 0)]
		full := len(b) == cap(b)
		if n <= 0 || whole && !full {
			return b, nil
		}
		if full {
			b = append(b, 0)[:len(b)]
		}
	}
}

// ReadLink makes it an [fs.ReadLinkFS].
func (m machine) ReadLink(name string) (string, error) { return fs.ReadLink(m.FS, name) }

// Lstat is part of that.
func (m machine) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(m.FS, name) }

// Stat makes it an [fs.StatFS].
func (m machine) Stat(name string) (fs.FileInfo, error) { return fs.Stat(m.FS, name) }

func again(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR { //nolint:errorlint // bare errno
			return err
		}
	}
}

func readMemlock() (Memlock, error)           { return system().memlock() }
func cgroups() ([]Cgroup, error)              { return system().cgroups() }
func limited() (bool, error)                  { return places.limited(system()) }
func mapCount() (inUse, limit int64, e error) { return system().mapCount() }
func maxMapCount() (int64, error)             { return system().maxMapCount() }
func readMemory() (Memory, error)             { return system().memory() }

func addressSpace() (int64, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &r); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	if r.Cur >= math.MaxInt64 { // RLIM_INFINITY is the highest value, signed or not
		return None, nil
	}
	return int64(r.Cur), nil
}

func freeMemory() (int64, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0, os.NewSyscallError("sysinfo", err)
	}
	return int64(info.Freeram) * int64(info.Unit), nil
}

// places remembers for a second where the cgroups are, since the table of mounts
// can be long. A process that is moved is noticed at once.
var places placeCache

type placeCache struct {
	mu    sync.Mutex
	own   string // what /proc/self/cgroup said
	at    time.Time
	v     version
	chain []string
	top   bool
	files keptFiles
}

func (p *placeCache) limited(r root) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files.FS = r
	kept := root{&p.files}
	own, err := kept.read("proc/self/cgroup")
	if err != nil || own != p.own || time.Since(p.at) > time.Second {
		p.files.close()
		v, chain, err := r.chain()
		if err != nil {
			p.own = ""
			return false, err
		}
		p.own, p.at, p.v, p.chain = own, time.Now(), v, chain
		p.top = r.isTop(chain)
	}
	limited, err := kept.limitedIn(p.v, p.chain, p.top)
	if err != nil {
		p.own = "" // one may be gone
	}
	return limited, err
}

// keptFiles leaves files that it has read open, to read them again in a quarter of
// the time. What the kernel says in them is that of the moment all the same.
type keptFiles struct {
	fs.FS
	fds map[string]int
}

// ReadFile makes it an [fs.ReadFileFS].
func (k *keptFiles) ReadFile(name string) ([]byte, error) {
	fd, ok := k.fds[name]
	if !ok {
		var err error
		if fd, err = open(name); err != nil {
			return nil, err
		}
		if k.fds == nil {
			k.fds = make(map[string]int)
		}
		k.fds[name] = fd
	}
	return readAll(name, 512, true, func(b []byte, off int) (int, error) { return syscall.Pread(fd, b, int64(off)) })
}

func (k *keptFiles) close() {
	for _, fd := range k.fds {
		syscall.Close(fd) //nolint:errcheck // only read
	}
	clear(k.fds)
}
