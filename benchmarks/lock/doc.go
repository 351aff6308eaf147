// Package lock measures how long it takes to lock a file, beside mlock(2) and
// others, both sides in turn, and compares medians:
//
//	go test -tags figures -v -timeout 30m -run 'Figures/cold' ./lock
//
// It needs Linux, for the slow disk root and FUSE, and a machine that does
// nothing else. A figure that misses its bound fails.
package lock
