//go:build freebsd || linux || windows

package sys

import (
	"sync"
	"sync/atomic"
)

// onceKnown is [sync.OnceValue] for what is found out by trying: an error of try
// is no answer, and the next call tries again. Else what was short for a moment,
// descriptors or memory, would be missing for the life of the process.
func onceKnown[T any](try func() (T, error)) func() (T, error) {
	var (
		mu    sync.Mutex
		known atomic.Pointer[T]
	)
	return func() (T, error) {
		if v := known.Load(); v != nil {
			return *v, nil
		}
		mu.Lock()
		defer mu.Unlock()
		if v := known.Load(); v != nil {
			return *v, nil
		}
		v, err := try()
		if err == nil {
			known.Store(&v)
		}
		return v, err
	}
}
