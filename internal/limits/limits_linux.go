package limits

import "os"

// system reads the machine's own files.
func system() root { return root{os.DirFS("/")} }

func readMemlock() (Memlock, error)           { return system().memlock() }
func cgroups() ([]Cgroup, error)              { return system().cgroups() }
func mapCount() (inUse, limit int64, e error) { return system().mapCount() }
func maxMapCount() (int64, error)             { return system().maxMapCount() }
func available() (int64, error)               { return system().available() }
