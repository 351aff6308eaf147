//go:build netbsd || openbsd

package sys

const lockHint = "; the system limits wired memory as a whole: mlock(2)"

const raiseHint = "memorylocked in login.conf(5)"
