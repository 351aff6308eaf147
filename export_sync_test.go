package mmapio

// Asked counts the syncs of the whole file that were begun or waited for.
func Asked(f *File) uint64 { return f.syncer.asked.Load() }

// Covered says up to which of them all is done.
func Covered(f *File) uint64 {
	f.syncer.mu.Lock()
	defer f.syncer.mu.Unlock()
	return f.syncer.covered
}

// Armed says whether a tick of the policy's timer is to come.
func Armed(f *File) bool { return f.policy.armed.Load() }

// Quiet says whether no tick is under way, and none to come while nobody stores.
func Quiet(f *File) bool {
	if Armed(f) {
		return false
	}
	f.policy.ticks.Wait() // it may have begun, and not have asked yet
	return !Armed(f)
}

// SyncFailed says whether a sync has failed, in the background perhaps.
func SyncFailed(f *File) bool { return f.syncer.failed.Load() != nil }

// Tick is what the policy's timer does.
func Tick(f *File) { f.policy.tick() }

// EntryIn is the directory that is synced where the system does not tell in which
// one the File is.
func EntryIn(f *File) string { return f.syncer.dir }
