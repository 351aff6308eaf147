package limits

import (
	"io/fs"
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
func (m machine) ReadFile(name string) ([]byte, error) { return readFile(name, 4096, false) }

// readFile reads a file with at least so much room. One that the kernel writes as
// a whole has ended with what does not fill it.
func readFile(name string, room int, whole bool) ([]byte, error) {
	var fd int
	err := again(func() (err error) {
		fd, err = syscall.Open("/"+name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd) //nolint:errcheck // only read
	b := make([]byte, 0, room)
	for {
		n := 0
		err := again(func() (err error) {
			n, err = syscall.Read(fd, b[len(b):cap(b)])
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

// A groupReader is a machine of which only files of cgroups are read.
type groupReader struct{ machine }

func (groupReader) ReadFile(name string) ([]byte, error) { return readFile(name, 512, true) }

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
func available() (int64, error)               { return system().available() }

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
}

func (p *placeCache) limited(r root) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	groups := root{groupReader{machine(r)}}
	own, err := groups.read("proc/self/cgroup")
	if err != nil || own != p.own || time.Since(p.at) > time.Second {
		v, chain, err := r.chain()
		if err != nil {
			p.own = ""
			return false, err
		}
		p.own, p.at, p.v, p.chain = own, time.Now(), v, chain
		p.top = r.isTop(chain)
	}
	return groups.limitedIn(p.v, p.chain, p.top)
}
