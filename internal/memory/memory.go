// Package memory gives back what the start of the program took and its running does not need.
package memory

import "runtime/debug"

// Trim returns to the system the heap that is free and the pages of the program's own file. The
// start runs through most of the program, and what it touched would count as this process's memory for
// ever after; the pages that are needed again come back from the page cache one by one.
func Trim() error {
	debug.FreeOSMemory()
	return trimProgram()
}
