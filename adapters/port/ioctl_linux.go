package port

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// icounter is struct serial_icounter_struct of linux/serial.h, which TIOCGICOUNT fills.
type icounter struct {
	cts, dsr, rng, dcd                              int32
	rx, tx, frame, overrun, parity, brk, bufOverrun int32
	reserved                                        [9]int32
}

// rs485 is struct serial_rs485 of linux/serial.h.
type rs485 struct {
	flags         uint32
	before, after uint32 // delay of RTS before and after sending, ms
	reserved      [5]uint32
}

const (
	rs485Enabled      = 1 << 0
	rs485RTSOnSend    = 1 << 1
	rs485RTSAfterSend = 1 << 2
)

func getICount(fd int, c *icounter) error {
	return ioctl(fd, unix.TIOCGICOUNT, unsafe.Pointer(c))
}

func setRS485(fd int, r *RS485) error {
	raw := rs485{
		flags:  rs485Enabled | rs485RTSOnSend,
		before: uint32(r.Before.Milliseconds()),
		after:  uint32(r.After.Milliseconds()),
	}
	if r.Invert {
		raw.flags = rs485Enabled | rs485RTSAfterSend
	}
	if err := ioctl(fd, unix.TIOCSRS485, unsafe.Pointer(&raw)); err != nil {
		return fmt.Errorf("rs485: %w by the driver (adapters that switch by themselves need no setting): %w", ErrUnsupported, err)
	}
	return nil
}

func ioctl(fd int, request uint, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}
