module github.com/mmapio/mmapio/benchmarks

go 1.26.0

require (
	github.com/mmapio/mmapio v0.0.0
	golang.org/x/sys v0.47.0
)

require (
	github.com/google/btree v1.1.3 // indirect
	golang.org/x/exp v0.0.0-20261014143641-f0251eb4aa3e
)

replace github.com/mmapio/mmapio => ../
