package broker

import "syscall"

// pause gives everybody else gatherTime, and keeps no processor busy. The runtime's own timers are too
// coarse for it: a process that has nothing else to do sleeps for a millisecond at least.
func pause() {
	t := syscall.NsecToTimespec(int64(gatherTime))
	syscall.Nanosleep(&t, nil) // a signal may end it early, which does no harm
}

const canPause = true
