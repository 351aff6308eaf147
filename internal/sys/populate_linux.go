package sys

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A way to bring pages into a mapping by a system call.
type wayIn int

const (
	noWayIn  wayIn = iota
	byAdvice       // madvise(2) with MADV_POPULATE_READ and _WRITE: Linux 5.14
	byTouch        // calls that load or store themselves, page by page
)

// in is the way that works here. While that cannot be found out it is to touch
// the pages, which unlike advice never claims to have done what it did not. If
// it were none, locks would be left to mlock(2), which spins on what cannot be
// read.
var in = func() wayIn {
	way, err := findWayIn()
	if err != nil {
		return byTouch
	}
	return way
}

// findWayIn tries: emulators (qemu-user) take any advice and do nothing,
// containers may refuse calls.
var findWayIn = onceKnown(func() (wayIn, error) {
	switch works, err := bringsIn((*Space).advisePopulate); {
	case err != nil:
		return noWayIn, err
	case works:
		return byAdvice, nil
	}
	switch works, err := bringsIn((*Space).touch); {
	case err != nil:
		return noWayIn, err
	case works:
		return byTouch, nil
	}
	return noWayIn, nil
})

// bringsIn reports whether a way works for memory, and fails where there is none.
// An error means that it could not be tried.
func bringsIn(populate func(s *Space, at, n int, store bool) error) (bool, error) {
	p, err := mapAnon(pageSize())
	if err != nil {
		return false, passing(err)
	}
	defer p.Free() //nolint:errcheck // a page of our own
	for _, store := range []bool{false, true} {
		if err := populate(p, 0, pageSize(), store); err != nil {
			return false, passing(err)
		}
	}
	if err := p.clear(0, pageSize()); err != nil {
		return false, passing(err)
	}
	return populate(p, 0, pageSize(), false) != nil && populate(p, 0, pageSize(), true) != nil, nil
}

func canPopulate() bool { return in() != noWayIn }

// Lock must bring pages in by itself where Populate cannot do it before, and
// where there is no lock that leaves them alone (mlock2(2), Linux 4.4).
func locksOnFault() bool { return canPopulate() && hasMlock2() }

// Of nothing, it does nothing.
var hasMlock2 = sync.OnceValue(func() bool {
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, 0, 0, mlockOnFault)
	return errno != unix.ENOSYS
})

func (s *Space) populate(at, n int, store bool) error {
	how := (*Space).advisePopulate
	switch in() {
	case noWayIn:
		return ErrUnsupported
	case byTouch:
		how = (*Space).touch
	}
	err := everyPage(at, n, func(at, n int) error { return how(s, at, n, store) })
	switch err { //nolint:errorlint // bare errnos
	case unix.EINVAL, unix.ENOSYS, unix.EPERM: //nolint:errorlint // bare errnos
		// Memory of a device; or to touch is refused, and in could not try.
		return ErrUnsupported
	}
	return err
}

func (s *Space) advisePopulate(at, n int, store bool) error {
	advice := unix.MADV_POPULATE_READ
	if store {
		advice = unix.MADV_POPULATE_WRITE
	}
	return s.madviseExactly(at, n, advice)
}

// touch brings pages in as MADV_POPULATE does: the call waits for the disk, and
// fails with EFAULT where an instruction would fault. It maps them for as much
// as they are touched for, so that a load copies no private page.
func (s *Space) touch(at, n int, store bool) error {
	if store {
		return s.touchToStore(at, n)
	}
	return s.touchToLoad(at, n)
}

// touchStep is how many pages one call loads from: as many as it takes (UIO_MAXIOV).
const touchStep = 1024

// touches is what process_vm_readv(2) reads from, a byte a page, and to.
type touches struct {
	from [touchStep]unix.RemoteIovec
	to   [touchStep]byte
}

var touchPool = sync.Pool{New: func() any { return new(touches) }}

// A process may always read its own memory so. What is read before the first
// page that cannot be had is counted.
//
// process_vm_readv(2), Linux 3.2.
func (s *Space) touchToLoad(at, n int) error {
	t := touchPool.Get().(*touches)
	defer touchPool.Put(t)
	small := unix.Getpagesize() // the kernel's, whatever this build believes
	for end := at + n; at < end; {
		k := 0
		for ; k < touchStep && at < end; k++ {
			t.from[k] = unix.RemoteIovec{Base: s.addr + uintptr(at), Len: 1}
			at += small
		}
		to := [1]unix.Iovec{{Base: &t.to[0]}}
		to[0].SetLen(k)
		var got int
		err := retry(func() (err error) {
			got, err = unix.ProcessVMReadv(os.Getpid(), to[:], t.from[:k], 0)
			return err
		})
		if err == nil && got < k {
			err = unix.EFAULT
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A bitwise or with nothing, which is atomic, so that no store of others is
// lost, and makes the page one that can be stored to. No one waits on the word;
// who did would be woken once too often, as may happen to whoever waits there.
//
// futex(2) with FUTEX_WAKE_OP.
func (s *Space) touchToStore(at, n int) error {
	const (
		wakeOp    = 5 | 128       // FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG of linux/futex.h
		orNothing = 2<<28 | 0<<12 // FUTEX_OP_OR
	)
	small := unix.Getpagesize()
	for end := at + n; at < end; at += small {
		word := uintptr(unsafe.Pointer(&s.bytes(at, 4)[0]))
		err := retry(func() error {
			_, _, errno := unix.Syscall6(unix.SYS_FUTEX, word, wakeOp, 0, 0, word, orNothing)
			return errnoErr(errno)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
