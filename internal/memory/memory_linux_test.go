package memory

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// resident returns how much of the program's file is counted as this process's memory, in kB.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the kernel does not tell RssFile")
	return 0
}

// touch reads a byte of each page.
func touch(from, to uintptr) (sum int) {
	start := *(*unsafe.Pointer)(unsafe.Pointer(&from)) // an address of the program's file, no Go pointer
	pages := unsafe.Slice((*byte)(start), to-from)
	for i := 0; i < len(pages); i += 4096 {
		sum += int(pages[i])
	}
	return sum
}

func TestTrimGivesBackWhatTheStartTouched(t *testing.T) {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if relocated() {
		t.Fatal("this test's program may run at any address")
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// All of the code and the constants is touched; what it says is what the file says, also afterwards.
	read := func() (sum int) {
		for line := range strings.Lines(string(maps)) {
			if from, to, ok := constant(line, name); ok {
				sum += touch(from, to)
			}
		}
		return sum
	}
	before := read()
	full := resident(t)
	if err := Trim(); err != nil {
		t.Fatal(err)
	}
	if left := resident(t); left >= full {
		t.Errorf("of %d kB of a file of %d kB %d are left", full, len(exe)/1024, left)
	}
	if after := read(); after != before {
		t.Error("the program is not what it was")
	}
}

func TestOnlyConstantsOfTheProgramAreGivenBack(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00a39000 r-xp 00000000 08:01 42 /usr/bin/gateway\n":           true,
		"00a39000-01087000 r--p 00639000 08:01 42 /usr/bin/gateway\n":           true,
		"01087000-01105000 rw-p 00c87000 08:01 42 /usr/bin/gateway\n":           false, // variables
		"01087000-01105000 r--s 00c87000 08:01 42 /usr/bin/gateway\n":           false,
		"00400000-00a39000 r-xp 00000000 08:01 42 /usr/bin/gateway (deleted)\n": false,
		"7f000000-7f001000 r--p 00000000 08:01 43 /etc/localtime\n":             false,
		"01105000-0314f000 rw-p 00000000 00:00 0\n":                             false,
	} {
		from, to, ok := constant(line, "/usr/bin/gateway")
		if ok != want || ok && from >= to {
			t.Errorf("%s: %x-%x, %t", line, from, to, ok)
		}
	}
}
