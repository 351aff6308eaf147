package slowfs

import (
	"encoding/binary"
	"testing"
)

func TestFillIsTheSameFromEverywhere(t *testing.T) {
	whole := make([]byte, 64)
	Offsets.Bytes(whole, 1<<40)
	for i := 0; i < len(whole); i += 8 {
		if got := binary.LittleEndian.Uint64(whole[i:]); got != 1<<40+uint64(i) {
			t.Fatalf("word at %d is %#x", i, got)
		}
	}
	for off := range whole {
		for end := off; end <= len(whole); end++ {
			part := make([]byte, end-off)
			Offsets.Bytes(part, 1<<40+int64(off))
			if string(part) != string(whole[off:end]) {
				t.Fatalf("[%d, %d) is %x, want %x", off, end, part, whole[off:end])
			}
		}
	}
}

func TestStartSkipsOrServes(t *testing.T) {
	fs := Start(t, Options{})
	if fs.Dir() == "" || fs.PID() == 0 {
		t.Fatal(fs)
	}
}
