package mmapio

// SetFailpoint has tests fail the steps of a change one by one. It returns
// what puts the old state back.
func SetFailpoint(step func(step string) error) (restore func()) {
	old := failpoint
	failpoint = step
	return func() { failpoint = old }
}

// SetZeroed shows tests memory that was just zeroed. It returns what puts the
// old state back.
func SetZeroed(show func(b []byte)) (restore func()) {
	old := zeroed
	zeroed = show
	return func() { zeroed = old }
}

// Excludes reports whether a Resize keeps long calls out, so that it waits for
// those that are inside or is about to.
func Excludes(f *File) bool {
	pass, ok := f.cur.Load().mem.calls.Enter()
	if ok {
		pass.Leave()
	}
	return !ok
}

// InCall reports whether a long call is in the File's memory. The answer lasts only
// while a Resize keeps others out.
func InCall(f *File) bool { return !f.cur.Load().mem.calls.Empty() }

// Old is how many mappings the File remembers that it had before.
func Old(f *File) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.old)
}

// Memory is what the File maps, without a touch: to lend it brings pages in,
// and then whoever looks which pages are there finds all.
func Memory(f *File) []byte { return f.cur.Load().data }

// Slack is the memory from the end of the File to the end of its last page:
// what no slice of the API reaches, but a store that was under way while the
// File was cut does, and another process.
func Slack(f *File) []byte {
	g := f.cur.Load()
	n := int(g.mem.mapped.Load()) - g.mem.delta - len(g.data)
	if n <= 0 {
		return nil
	}
	return g.mem.space.Bytes(g.mem.base+g.mem.delta+len(g.data), n)
}

// StopShrink has a shrink stop where the file is shorter already and the File is not.
func StopShrink(f *File) (goOn func()) {
	f.locks.mu.Lock()
	return f.locks.mu.Unlock
}

// Closing reports whether Close was called, which may have to wait.
func Closing(f *File) bool { return f.closing.Load() }
