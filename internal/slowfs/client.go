package slowfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// FS is a mounted file system. Its methods may be called by any goroutine and end the test when the server is gone.
type FS struct {
	t   testing.TB
	dir string
	pid int

	mu   sync.Mutex // one question at a time: no goroutine has to sort the answers
	in   *os.File
	out  *os.File
	enc  *json.Encoder
	dec  *json.Decoder
	stop func()
}

type request struct {
	Do    string
	Path  string        `json:",omitempty"`
	Off   int64         `json:",omitempty"`
	Len   int64         `json:",omitempty"`
	Dur   time.Duration `json:",omitempty"`
	Fill  Fill          `json:",omitempty"`
	Data  []byte        `json:",omitempty"`
	Rule  *Rule         `json:",omitempty"`
	Errno int           `json:",omitempty"` // of the rule
	Ops   []Op          `json:",omitempty"`
}

type reply struct {
	Err   string  `json:",omitempty"`
	Errno int     `json:",omitempty"`
	Found bool    `json:",omitempty"`
	N     int64   `json:",omitempty"`
	Data  []byte  `json:",omitempty"`
	Log   []Entry `json:",omitempty"`
	Stats *Stats  `json:",omitempty"`
}

// controlTimeout is generous, since the machine may be busy; a server that is silent so long is broken.
const controlTimeout = 60 * time.Second

func (fs *FS) ask(q request) (reply, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if err := fs.in.SetReadDeadline(time.Now().Add(controlTimeout)); err != nil {
		return reply{}, err
	}
	if err := fs.enc.Encode(q); err != nil {
		return reply{}, err
	}
	return fs.receive()
}

func (fs *FS) receive() (reply, error) {
	var r reply
	if err := fs.dec.Decode(&r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

func (fs *FS) must(q request) reply {
	fs.t.Helper()
	r, err := fs.ask(q)
	if err != nil {
		fs.t.Fatalf("slowfs: %s %s: %v", q.Do, q.Path, err)
	}
	return r
}

// Dir is the mount point.
func (fs *FS) Dir() string { return fs.dir }

// Path is where the named file is found.
func (fs *FS) Path(name string) string { return filepath.Join(fs.dir, name) }

// PID is the process that serves.
func (fs *FS) PID() int { return fs.pid }

// Stop ends the service before the test does. Whoever waits for a request gets an error, mappings that are still
// there get SIGBUS. The second call does nothing.
func (fs *FS) Stop() { fs.stop() }

// SetReadDelay changes how long a READ takes, from the next one on.
func (fs *FS) SetReadDelay(d time.Duration) { fs.t.Helper(); fs.must(request{Do: "readdelay", Dur: d}) }

// SetWriteDelay changes how long a WRITE takes.
func (fs *FS) SetWriteDelay(d time.Duration) {
	fs.t.Helper()
	fs.must(request{Do: "writedelay", Dur: d})
}

// SetFsyncDelay changes how long FSYNC and FSYNCDIR take.
func (fs *FS) SetFsyncDelay(d time.Duration) {
	fs.t.Helper()
	fs.must(request{Do: "fsyncdelay", Dur: d})
}

// SetCapacity changes how much fits; 0 means no limit. Less than is used already is a full file system.
func (fs *FS) SetCapacity(n int64) { fs.t.Helper(); fs.must(request{Do: "capacity", Len: n}) }

// Used is the space that is occupied or reserved, in bytes.
func (fs *FS) Used() int64 { fs.t.Helper(); return fs.must(request{Do: "used"}).N }

// Add puts a rule into force until remove is called.
func (fs *FS) Add(r Rule) (remove func()) {
	fs.t.Helper()
	no, ok := errnoOf(r.Err)
	if !ok {
		fs.t.Fatalf("slowfs: the error of a rule has to be a syscall.Errno, not %v", r.Err)
	}
	id := fs.must(request{Do: "add", Rule: &r, Errno: no}).N
	return func() {
		fs.t.Helper()
		fs.must(request{Do: "remove", Len: id})
	}
}

// FailReads makes every READ that touches [off, off+n) of a file fail; n == 0 means to the end.
func (fs *FS) FailReads(path string, off, n int64, err error) (remove func()) {
	fs.t.Helper()
	return fs.Add(Rule{Op: OpRead, Path: path, Off: off, Len: n, Err: err})
}

// FailWrites is the same for WRITE, which is where write-back errors come from.
func (fs *FS) FailWrites(path string, off, n int64, err error) (remove func()) {
	fs.t.Helper()
	return fs.Add(Rule{Op: OpWrite, Path: path, Off: off, Len: n, Err: err})
}

// FailFsync makes the next FSYNCs fail, of any file; times == 0 means until it is removed.
func (fs *FS) FailFsync(err error, times int) (remove func()) {
	fs.t.Helper()
	return fs.Add(Rule{Op: OpFsync, Err: err, Times: times})
}

// Hold stops requests of one kind, of one file or all (""), until release is called. It takes the place of sleeping:
// hold, start what is to be stopped, WaitHeld, look, release.
func (fs *FS) Hold(op Op, path string) (release func()) {
	fs.t.Helper()
	return fs.Add(Rule{Op: op, Path: path, Hold: true})
}

// WaitHeld waits until n requests are held.
func (fs *FS) WaitHeld(n int) {
	fs.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		held := fs.Stats().Held
		if held >= n {
			return
		}
		if time.Now().After(end) {
			fs.t.Fatalf("slowfs: %d requests are held, want %d", held, n)
		}
	}
}

// RemoveRules lifts all rules; requests that were held go on.
func (fs *FS) RemoveRules() { fs.t.Helper(); fs.must(request{Do: "removeall"}) }

// AddFile puts a file there, durable, not in the page cache and without memory for its bytes. A file of that name
// is replaced, not overwritten. Directories on the way are made.
func (fs *FS) AddFile(path string, size int64, fill Fill) {
	fs.t.Helper()
	fs.must(request{Do: "addfile", Path: path, Len: size, Fill: fill})
}

// AddData is AddFile with the bytes given.
func (fs *FS) AddData(path string, data []byte) {
	fs.t.Helper()
	fs.must(request{Do: "addfile", Path: path, Len: int64(len(data)), Data: data})
}

// Truncate changes a file's length behind the kernel's back, as another machine on a network file system does, and
// has the kernel look. To have another process of the same machine do it use os.Truncate. With WritebackCache the
// kernel believes its own length and this has no effect on it.
func (fs *FS) Truncate(path string, size int64) {
	fs.t.Helper()
	fs.must(request{Do: "truncate", Path: path, Len: size})
	if _, err := os.Stat(fs.Path(path)); err != nil {
		fs.t.Fatalf("slowfs: truncate: %v", err)
	}
}

// DropCache throws a file's pages out of the page cache, dirty ones after a WRITE, and unmaps them even where they
// are mapped or locked: with it a test makes pages leave that should be in RAM. n == 0 means to the end.
func (fs *FS) DropCache(path string, off, n int64) {
	fs.t.Helper()
	fs.must(request{Do: "dropcache", Path: path, Off: off, Len: n})
}

// Log returns the requests since the start or ResetLog, of all kinds or those given. Too many (a quarter of a
// million) end the test: use Stats.
func (fs *FS) Log(ops ...Op) []Entry { fs.t.Helper(); return fs.must(request{Do: "log", Ops: ops}).Log }

// ResetLog empties the log and the counters.
func (fs *FS) ResetLog() { fs.t.Helper(); fs.must(request{Do: "resetlog"}) }

// Stats returns the counters.
func (fs *FS) Stats() Stats { fs.t.Helper(); return *fs.must(request{Do: "stats"}).Stats }

// Count is the number of requests of one kind since the start or ResetLog.
func (fs *FS) Count(op Op) int { fs.t.Helper(); return fs.Stats().Count[op] }

// Cut is the power cut: what is not durable is gone, and until PowerOn every request fails with EIO, also those that
// are being served. The kernel's page cache is still there and stands for nothing: read what is left with Durable,
// or after PowerOn.
func (fs *FS) Cut() { fs.t.Helper(); fs.must(request{Do: "cut"}) }

// PowerOn serves what was durable, as new files. What was open or mapped before stays dead (ESTALE), so nothing that
// the kernel still has to write can reach the new files.
func (fs *FS) PowerOn() { fs.t.Helper(); fs.must(request{Do: "poweron"}) }

// Durable returns what a power cut now would leave, or has left, of a file, and whether there would be such a file.
func (fs *FS) Durable(path string) ([]byte, bool) {
	fs.t.Helper()
	size, ok := fs.DurableSize(path)
	if !ok {
		return nil, false
	}
	if size > 1<<28 {
		fs.t.Fatalf("slowfs: Durable(%s) would be %d bytes: use DurableAt", path, size)
	}
	p := make([]byte, size)
	n := fs.DurableAt(path, p, 0)
	return p[:n], true
}

// DurableSize is the length that Durable's answer would have.
func (fs *FS) DurableSize(path string) (int64, bool) {
	fs.t.Helper()
	r := fs.must(request{Do: "durable", Path: path})
	return r.N, r.Found
}

// DurableAt fills p from off of what is durable and returns how much there was.
func (fs *FS) DurableAt(path string, p []byte, off int64) int {
	fs.t.Helper()
	const step = 1 << 20 // an answer is a line of text: not all of it at once
	done := 0
	for done < len(p) {
		r := fs.must(request{Do: "durable", Path: path, Off: off + int64(done), Len: min(step, int64(len(p)-done))})
		if len(r.Data) == 0 {
			break
		}
		done += copy(p[done:], r.Data)
	}
	return done
}

// String names the mount in failure messages.
func (fs *FS) String() string { return fmt.Sprintf("slowfs %s (pid %d)", fs.dir, fs.pid) }
