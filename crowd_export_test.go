package mmapio

// Crowd has the reads of the process wait beside n others.
func Crowd(n int64) (leave func()) {
	waiting.Add(n)
	return func() { waiting.Add(-n) }
}

// Waiting is how many reads may be waiting.
func Waiting() int64 { return waiting.Load() }
