# Functions that the scripts share; sourced, not run.
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# tool NAME builds scripts/NAME for this machine and prints the binary's path.
# The scripts build it before they set GOOS and the like.
tool() {
	local dir=${MMAPIO_TOOLS:-}
	if [ -z "$dir" ]; then
		dir=${TMPDIR:-/tmp}/mmapio-tools-$(id -u)
		# In a directory that anyone may write to, take none that another made.
		mkdir -p -m 700 "$dir"
		[ -O "$dir" ] || { echo "$dir belongs to someone else; set MMAPIO_TOOLS" >&2; return 1; }
	fi
	env -u GOOS -u GOARCH -u GOFLAGS CGO_ENABLED=0 go build -o "$dir/$1" "./scripts/$1"
	echo "$dir/$1"
}

# report NAME sums up the go test -json on its standard input, and keeps the
# reasons to skip for the end of the run if MMAPIO_SKIPS names a file.
report() {
	local testreport name=$1
	shift
	testreport=$(tool testreport)
	"$testreport" -name "$name" ${MMAPIO_SKIPS:+-skips "$MMAPIO_SKIPS"} "$@"
}

# skipped REASON… says why something is not done, and keeps it for the end.
skipped() {
	echo "SKIP: $*"
	if [ -n "${MMAPIO_SKIPS:-}" ]; then
		echo "$*" >>"$MMAPIO_SKIPS"
	fi
}
