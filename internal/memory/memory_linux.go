package memory

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// trimProgram lets go of the pages of the executable that are mapped and never written to: code and
// constants.
func trimProgram() error {
	if relocated() {
		return nil
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps") // proc_pid_maps(5)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		from, to, ok := constant(line, exe)
		if !ok {
			continue
		}
		// Private, backed by the file and never written to: what is dropped is read again as it was.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("memory: madvise: %w", errno)
		}
	}
	return nil
}

// relocated tells whether the loader may have written to what is read-only now, as it does in a
// program that runs at any address.
func relocated() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return true
	}
	for _, s := range info.Settings {
		if s.Key == "-buildmode" {
			return s.Value != "exe"
		}
	}
	return true
}

// constant returns the addresses of a line of /proc/self/maps that is a private, read-only mapping
// of a file.
func constant(line, file string) (from, to uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) != 6 || f[5] != file || f[1] != "r-xp" && f[1] != "r--p" {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(f[0], "%x-%x", &from, &to)
	return from, to, n == 2 && err == nil
}
