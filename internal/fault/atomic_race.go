//go:build race

package fault

// In a build with the race detector, package sync/atomic does its work in C,
// on the scheduler's stack: a fault there ends the program, whatever guards
// there are. All systems that have the detector have 64 bits, and each of these
// is one access there.

//go:norace
//go:noinline
func load32(p *uint32) uint32 { return *p }

//go:norace
//go:noinline
func load64(p *uint64) uint64 { return *p }

//go:norace
//go:noinline
func store32(p *uint32, v uint32) { *p = v }

//go:norace
//go:noinline
func store64(p *uint64, v uint64) { *p = v }
