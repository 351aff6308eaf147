package sys

const lockHint = "; the system limits wired memory: sysctl vm.max_user_wired, security.bsd.unprivileged_mlock"

const raiseHint = "memorylocked in login.conf(5)"
