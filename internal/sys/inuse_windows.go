package sys

import "golang.org/x/sys/windows"

const errInUse = windows.ERROR_USER_MAPPED_FILE
