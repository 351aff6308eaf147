//go:build !linux

package sys

func canPopulate() bool { return false }

func locksOnFault() bool { return false }

const locksStay = true

func (s *Space) populate(at, n int, store bool) error { return ErrUnsupported }
