//go:build !windows

package sys

import "os"

func setAside(int) (Room, error) { return Room{}, nil }

func (r *Room) free() {}

func mapFileIn(r *Room, f *os.File, off int64, n int, a Access) (*Space, error) {
	return mapFile(f, off, n, a)
}

func allowHoles(*os.File) {}

func readAt(f *os.File, b []byte, off int64) (int, error) { return f.ReadAt(b, off) }
