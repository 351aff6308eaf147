package sys

const lockHint = "; the system lets only the super-user lock memory, and limits wired memory as a whole: mlock(2)"

const raiseHint = "memorylocked in login.conf(5)"
