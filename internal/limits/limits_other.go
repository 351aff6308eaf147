//go:build !linux

package limits

import "errors"

func readMemlock() (Memlock, error)             { return Memlock{}, errors.ErrUnsupported }
func cgroups() ([]Cgroup, error)                { return nil, errors.ErrUnsupported }
func limited() (bool, error)                    { return false, errors.ErrUnsupported }
func mapCount() (inUse, limit int64, err error) { return 0, 0, errors.ErrUnsupported }
func maxMapCount() (int64, error)               { return 0, errors.ErrUnsupported }
func addressSpace() (int64, error)              { return 0, errors.ErrUnsupported }
func readMemory() (Memory, error)               { return Memory{}, errors.ErrUnsupported }
func freeMemory() (int64, error)                { return 0, errors.ErrUnsupported }
