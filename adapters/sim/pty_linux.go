package sim

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A ptyEnd is one pseudo-terminal. Both ends are opened non-blocking, so that the runtime's poller
// waits for them and Close ends a pending Read.
type ptyEnd struct {
	master *os.File
	// The other end is held open here, too: otherwise reads of the master would fail between two
	// opens by the gateway.
	held *os.File
	name string
}

func openPTYEnd() (*ptyEnd, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("sim: pseudo-terminal: %w", err)
	}
	e := &ptyEnd{master: master}
	if err := e.setup(); err != nil {
		return nil, errors.Join(fmt.Errorf("sim: pseudo-terminal: %w", err), e.Close())
	}
	return e, nil
}

func (e *ptyEnd) setup() error {
	var number int
	err := control(e.master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return err
	}
	e.name = fmt.Sprintf("/dev/pts/%d", number)
	if e.held, err = os.OpenFile(e.name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	// Raw from the start: a new terminal echoes and edits lines.
	return control(e.held, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

func (e *ptyEnd) slave() string { return e.name }

func (e *ptyEnd) Read(b []byte) (int, error) { return e.master.Read(b) }

// write sends b. A line that takes nothing for a tenth of a second has nobody who reads it: what it
// holds is thrown away.
func (e *ptyEnd) write(b []byte) error {
	for len(b) > 0 {
		if err := e.master.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		n, err := e.master.Write(b)
		b = b[n:]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = control(e.held, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *ptyEnd) Close() error {
	err := e.master.Close()
	if e.held != nil {
		err = errors.Join(err, e.held.Close())
	}
	return err
}

// control runs f on the descriptor of file.
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
