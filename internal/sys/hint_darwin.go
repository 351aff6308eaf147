package sys

const lockHint = "; the system limits wired memory: sysctl vm.user_wire_limit, vm.global_user_wire_limit"

const raiseHint = "launchctl limit memlock"
