package sim

import (
	"errors"
	"os"
	"sync"
)

// A PTY is a serial line without hardware: a pseudo-terminal whose one end the gateway opens by a
// path, as it would /dev/ttyUSB0, while the simulated device reads and writes this value. Unplug
// and Return do what pulling a USB stick and putting it back does: the gateway's read fails at
// once, the path is gone, and later the same path leads to a new terminal.
//
// What a pseudo-terminal cannot show: it has no pace (any baud rate is as fast as memory), no
// parity or framing errors, no modem lines. Bytes that nobody reads are lost, as on a UART that
// nobody has opened, but only after a few kilobytes.
//
// A PTY is safe for concurrent use by one reader, one writer and one that pulls the plug.
type PTY struct {
	link string // what Path returns: a symbolic link to the terminal of the moment

	mu     sync.Mutex
	end    *ptyEnd       // nil while unplugged
	back   chan struct{} // closed when end is set again; replaced at Unplug
	closed bool
}

// OpenPTY makes a serial line that can be opened at path, where nothing may be yet; the folder must
// exist. Only Linux has it.
func OpenPTY(path string) (*PTY, error) {
	p := &PTY{link: path, back: make(chan struct{})}
	if err := p.Return(); err != nil {
		return nil, err
	}
	return p, nil
}

// Path is what the gateway's configuration names as its port.
func (p *PTY) Path() string { return p.link }

// Read reads what the gateway wrote. While the line is unplugged it waits for its return; after
// Close it gives os.ErrClosed.
func (p *PTY) Read(b []byte) (int, error) {
	for {
		end, err := p.plugged()
		if err != nil {
			return 0, err
		}
		n, err := end.Read(b)
		if err == nil || !p.pulled(end) {
			return n, err
		}
	}
}

// Write sends b to the gateway. What is written to an unplugged line, or to one whose buffer is full
// because nobody reads, is lost without an error: so it is on a wire.
func (p *PTY) Write(b []byte) (int, error) {
	p.mu.Lock()
	end, closed := p.end, p.closed
	p.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	if end != nil {
		if err := end.write(b); err != nil && !p.pulled(end) {
			return 0, err
		}
	}
	return len(b), nil
}

// Unplug takes the line away. It does nothing to a line that is away.
func (p *PTY) Unplug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unplug()
}

func (p *PTY) unplug() error {
	if p.end == nil {
		return nil
	}
	err := errors.Join(os.Remove(p.link), p.end.Close())
	p.end = nil
	return err
}

// Return puts the line back, at the same path. It does nothing to a line that is there.
func (p *PTY) Return() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	if p.end != nil {
		return nil
	}
	end, err := openPTYEnd()
	if err != nil {
		return err
	}
	if err := os.Symlink(end.slave(), p.link); err != nil {
		return errors.Join(err, end.Close())
	}
	p.end = end
	close(p.back)
	p.back = make(chan struct{})
	return nil
}

// Close ends the line for good; a pending Read returns.
func (p *PTY) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.unplug()
	close(p.back)
	return err
}

// plugged waits until the line is there.
func (p *PTY) plugged() (*ptyEnd, error) {
	for {
		p.mu.Lock()
		end, back, closed := p.end, p.back, p.closed
		p.mu.Unlock()
		if closed {
			return nil, os.ErrClosed
		}
		if end != nil {
			return end, nil
		}
		<-back
	}
}

// pulled tells whether end failed because it is no longer the line's.
func (p *PTY) pulled(end *ptyEnd) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end != end
}
