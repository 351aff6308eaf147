package sys

// FreeBSD's mmap(2) has no such flag: it never charges in advance.
const mapNoReserve = 0
