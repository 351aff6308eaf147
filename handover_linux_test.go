package mmapio_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// handing makes a locked File larger and smaller until its input ends, with a
// limit that has room for the growth alone.
var handing = prove.Register("handing", func(args []string) int {
	t, path := prove.T(), args[0]
	reserve, err := strconv.ParseInt(args[1], 10, 64)
	check(t, err)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockNow, Reserve: reserve})
	size := f.Size()
	mmapio.SetFailpoint(func(step string) error {
		if step == "lock" {
			time.Sleep(50 * time.Microsecond) // a hand-over is what there is to see
		}
		return nil
	})
	var held []*mmapio.Region
	fmt.Println("ready")
	end := make(chan bool)
	go func() {
		var line string
		fmt.Scanln(&line) //nolint:errcheck // its end is what counts
		close(end)
	}()
	for round := 0; ; round++ {
		select {
		case <-end:
			fmt.Println("rounds", round)
			return 0
		default:
		}
		if args[2] == "held" {
			held = append(held, mustRegion(t, f, 0, 1))
		}
		for i := range int64(2) {
			mustResize(t, f, size+(i+1)*pageSize)
		}
		for _, r := range held {
			r.Release()
		}
		held = held[:0]
		mustResize(t, f, size)
	}
})

// While locks are handed over there is no moment at which a page is not
// locked in some mapping, and the limit need not have room for two of them.
func TestProofHandOverWatched(t *testing.T) {
	prove.NeedE2E(t, prove.Pagemap)
	const pages = 64
	limit := uint64((pages + 2) * pageSize)
	for _, c := range []struct {
		reserve int64
		holders string
	}{{0, "free"}, {0, "held"}, {200 * pageSize, "free"}, {200 * pageSize, "held"}} {
		t.Run(fmt.Sprint(c.reserve, c.holders), func(t *testing.T) {
			dir := prove.PublicDir(t)
			path := prove.NewFile(t, dir, "f", pages*pageSize)
			check(t, os.Chmod(path, 0o666))
			p := handing.Start(t, asUser(prove.Args(path, strconv.FormatInt(c.reserve, 10), c.holders), prove.Memlock(limit))...)
			p.Expect("ready")
			both := 0
			for range 150 {
				time.Sleep(rand.N(3 * time.Millisecond)) // to meet it anywhere
				locked, mappings := snapshot(t, p.PID(), path, pages)
				if n := prove.Count(locked); n != pages {
					t.Errorf("%d of %d pages are locked at a moment: %v", n, pages, mappings)
					break
				}
				where := map[uint64]bool{}
				for _, v := range mappings {
					if v.IsLocked() {
						where[v.Start-uint64(v.Offset)] = true
					}
				}
				if len(where) > 1 {
					both++
				}
			}
			t.Logf("%d of 150 snapshots were taken in the middle of a hand-over", both)
			if (both == 0) == (c.reserve == 0) {
				t.Errorf("%d hand-overs were seen", both)
			}
			p.CloseStdin()
			if r := p.Wait(); r.Code != 0 {
				t.Error(r)
			}
		})
	}
}

// snapshot stops a process, so that smaps shows one moment, and says which of
// the first pages of a file are locked in any of its mappings.
func snapshot(t testing.TB, pid int, path string, pages int) (locked []bool, mappings []prove.VMA) {
	t.Helper()
	check(t, unix.Kill(pid, unix.SIGSTOP))
	defer unix.Kill(pid, unix.SIGCONT) //nolint:errcheck // it is there, or the test has failed
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		check(t, err)
		var name string
		var state byte
		if _, err := fmt.Sscanf(string(stat), "%d %s %c", new(int), &name, &state); err == nil && state == 'T' {
			break
		}
	}
	mappings = prove.MappingsOf(t, pid, path)
	locked = make([]bool, pages)
	for _, v := range mappings {
		for i := range locked {
			at := int64(i) * pageSize
			if v.IsLocked() && v.Offset <= at && at < v.Offset+v.Size() {
				locked[i] = true
			}
		}
	}
	return locked, mappings
}
