package port

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// A system is what Linux adds: a second descriptor of the same terminal, opened before the library
// opens its own. It is non-blocking, so that the runtime's poller gives Read and Write deadlines and
// Close ends a Read that waits; it carries the lock that holds for root; and it answers what the
// library cannot be asked.
type system struct {
	file *os.File
}

// maxFD is the highest descriptor that the library's select can hold, less the three that it opens.
const maxFD = 1024 - 4

func (s *system) before(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = control(file, func(fd int) error {
		if fd >= maxFD {
			return fmt.Errorf("%w: too many open files: descriptor %d, a serial port must be below %d", ErrUnsupported, fd, maxFD)
		}
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return fmt.Errorf("%w: not a serial port: %w", ErrUnsupported, err)
		}
		// The kernel's exclusive mode lets root in; this lock does not.
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return unix.EBUSY
		}
		// Nor may we be the root that breaks into another program's exclusive mode. On a
		// pseudo-terminal the mode outlives a program that was killed, so there it says nothing.
		if exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL); err == nil && exclusive != 0 && !pseudo(file) {
			return unix.EBUSY
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	s.file = file
	return nil
}

// after releases what before took.
func (s *system) after() error { return s.file.Close() }

func (s *system) opened(serial.Port) error { return nil }

func (s *system) close(lib serial.Port) error { return lib.Close() }

func (s *system) read(_ serial.Port, b []byte) (int, error) {
	n, err := s.file.Read(b)
	return n, s.vanished(err)
}

func (s *system) write(_ serial.Port, b []byte) (int, error) {
	n, err := s.file.Write(b)
	return n, s.vanished(err)
}

// vanished tells a port that is gone from a deadline or a Close.
func (s *system) vanished(err error) error {
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
		return err
	case err == io.EOF:
		return fmt.Errorf("port: %s: %w", s.file.Name(), ErrGone)
	}
	return fmt.Errorf("port: %s: %w", s.file.Name(), explainErrno(s.file.Name(), err))
}

func (s *system) setReadDeadline(t time.Time) error  { return s.file.SetReadDeadline(t) }
func (s *system) setWriteDeadline(t time.Time) error { return s.file.SetWriteDeadline(t) }

func (s *system) termios(f func(*unix.Termios) (changed bool)) error {
	return control(s.file, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil || !f(t) {
			return err
		}
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

func (s *system) setFlow(flow Flow) error {
	if flow == "" || flow == FlowNone {
		return nil // the library cleared it
	}
	set := func(t *unix.Termios) bool {
		if flow == FlowRTSCTS {
			t.Cflag |= unix.CRTSCTS
		} else {
			t.Iflag |= unix.IXON | unix.IXOFF
			t.Cc[unix.VSTART], t.Cc[unix.VSTOP] = 0x11, 0x13
		}
		return true
	}
	return s.termios(set)
}

func (s *system) setRS485(r *RS485) error {
	if r == nil {
		return nil
	}
	return control(s.file, func(fd int) error { return setRS485(fd, r) })
}

// verify compares what was asked for with what the driver made of it: drivers drop what they cannot,
// without an error. A pseudo-terminal has no characters on a wire, so there nothing is amiss.
func (s *system) verify(m *serial.Mode) error {
	if pseudo(s.file) {
		return nil
	}
	var got unix.Termios
	if err := s.termios(func(t *unix.Termios) bool { got = *t; return false }); err != nil {
		return err
	}
	bits := map[int]uint32{5: unix.CS5, 6: unix.CS6, 7: unix.CS7, 8: unix.CS8}
	if got.Cflag&unix.CSIZE != bits[m.DataBits] {
		return fmt.Errorf("%w: the driver does not take %d data bits", ErrUnsupported, m.DataBits)
	}
	if (got.Cflag&unix.PARENB != 0) != (m.Parity != serial.NoParity) ||
		(got.Cflag&unix.CMSPAR != 0) != (m.Parity == serial.MarkParity || m.Parity == serial.SpaceParity) {
		return fmt.Errorf("%w: the driver does not take this parity", ErrUnsupported)
	}
	if (got.Cflag&unix.CSTOPB != 0) != (m.StopBits == serial.TwoStopBits) {
		return fmt.Errorf("%w: the driver does not take these stop bits", ErrUnsupported)
	}
	return s.verifyBaud(m.BaudRate)
}

// verifyBaud allows the 5 % that a divisor may be off; beyond that the driver has chosen a rate of
// its own (drivers fall back to 9600 or to what was set before).
func (s *system) verifyBaud(want int) error {
	return control(s.file, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err != nil {
			return nil // an architecture without it: believe the driver
		}
		if got := int(t.Ospeed); got*20 < want*19 || got*20 > want*21 {
			return fmt.Errorf("%w: the driver does not take %d baud, it would use %d", ErrUnsupported, want, got)
		}
		return nil
	})
}

// pseudo tells whether the terminal is a pseudo-terminal (major numbers 136 to 143).
func pseudo(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	major := unix.Major(uint64(st.Rdev))
	return major >= 136 && major <= 143
}

func (s *system) counts() (Counts, error) {
	var c icounter
	if err := control(s.file, func(fd int) error { return getICount(fd, &c) }); err != nil {
		return Counts{}, fmt.Errorf("%w by the driver: %w", ErrUnsupported, err)
	}
	return Counts{
		Received: int(c.rx), Sent: int(c.tx), Framing: int(c.frame), Parity: int(c.parity),
		Break: int(c.brk), Overrun: int(c.overrun), BufferOverrun: int(c.bufOverrun),
	}, nil
}

// control runs f on the descriptor of file, which stays open meanwhile.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func explainErrno(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return ErrAbsent
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %s", ErrBusy, holders(name))
	case errors.Is(err, fs.ErrPermission):
		return permission(name)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// permission says whose permission it takes.
func permission(name string) error {
	group := ""
	if info, err := os.Stat(name); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			group = strconv.Itoa(int(st.Gid))
			if g, err := user.LookupGroupId(group); err == nil {
				group = g.Name
			}
			if info.Mode().Perm()&0o060 != 0o060 {
				return fmt.Errorf("%w: not even its group %q may read and write it: see the udev rules", ErrPermission, group)
			}
		}
	}
	who := "the gateway's user"
	if u, err := user.Current(); err == nil {
		who = "user " + u.Username
	}
	if group == "" {
		group = "dialout"
	}
	return fmt.Errorf("%w: add %s to the group %q (usermod -aG %s USER), then start anew", ErrPermission, who, group, group)
}
