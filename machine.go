package mmapio

import (
	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
)

// A machineError says that pages would not fit into memory.
type machineError struct {
	need int64
	has  limits.Memory
}

func (e *machineError) Error() string { return "no room in memory" }

// roomInMachine refuses what all of memory and swap have no room for: the kernel
// would kill one process after another. It refuses only what is certain.
func (f *File) roomInMachine(g *generation, missing []lockset.Run, bytes int64) error {
	if free, err := limits.FreeMemory(); err != nil || bytes <= free {
		return nil //nolint:nilerr // the system does not tell
	}
	m, err := limits.ReadMemory()
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	need, known := room{fresh: bytes}, true
	if need.lack(m) > m.Total {
		// There cannot be so much of it in memory already.
		return &machineError{bytes, m}
	}
	if need.lack(m) > 0 {
		need = f.needCounted(g, missing, bytes)
	}
	if need.lack(m) > 0 {
		need, known = f.needSearched(g, missing, bytes, need)
	}
	if lack := need.lack(m); lack > 0 && known {
		return &machineError{lack + m.Room(), m}
	}
	return nil
}

// lack returns how much is lacking to bring something in. What is cached is a part
// of the room, and no longer once it is locked.
func (r room) lack(m limits.Memory) int64 { return r.fresh + min(r.cached, m.Files) - m.Room() }
