// Package port opens serial ports for the adapters that talk over them. It rests on go.bug.st/serial
// and adds what a program that runs for years needs: deadlines on reading and writing, a lock that
// holds for root, too, errors that say what to do, flow control, the driver's error counters, and
// the choice of a port by its USB identity.
//
// Where the platform has no means for something, Open refuses it with ErrUnsupported instead of
// leaving it out silently.
package port

import (
	"errors"
	"fmt"
	"time"

	"go.bug.st/serial"
)

// What is wrong with a port. Open's errors wrap one of them, or say what the driver said.
var (
	ErrAbsent      = errors.New("not there")     // no such port, now: it may come
	ErrBusy        = errors.New("in use")        // another program has it
	ErrPermission  = errors.New("no permission") // the user is not in the port's group
	ErrUnsupported = errors.New("not supported") // the driver, the library or the platform cannot
	ErrGone        = errors.New("port vanished") // it was open, and is not there any more
)

// Parity is the parity bit of a character.
type Parity string

// The parities. Mark and space are not to be had on macOS.
const (
	ParityNone  Parity = "none"
	ParityOdd   Parity = "odd"
	ParityEven  Parity = "even"
	ParityMark  Parity = "mark"
	ParitySpace Parity = "space"
)

// Flow is how sender and receiver pause each other.
type Flow string

// The kinds of flow control. Anything but none needs Linux.
const (
	FlowNone    Flow = "none"
	FlowRTSCTS  Flow = "rts/cts"
	FlowXONXOFF Flow = "xon/xoff"
)

// A Config says which port, and how to set it up. The zero values of the format are 9600 baud, 8
// data bits, no parity, one stop bit, no flow control.
type Config struct {
	Name     string // the device's path, /dev/serial/by-id/... or COM3; empty: the port is chosen by USB
	USB      USB
	Baud     int // any that the driver takes
	DataBits int // 5 to 8
	Parity   Parity
	StopBits float64 // 1, 1.5 (Windows only) or 2
	Flow     Flow
	RTS, DTR *bool // the level to hold from the opening on; nil leaves it to the driver, which raises both
	RS485    *RS485
}

// RS485 has the driver switch the direction of an RS-485 transceiver by RTS. It needs Linux and a
// UART whose driver can; adapters on USB switch by themselves.
type RS485 struct {
	Invert        bool          // RTS low while sending
	Before, After time.Duration // RTS leads and trails what is sent by as much, in whole milliseconds
}

// String names the port as the configuration does.
func (c *Config) String() string {
	if c.Name != "" {
		return c.Name
	}
	return c.USB.String()
}

// A SettingError is what is wrong with one setting of a port.
type SettingError struct {
	Key string // baud, data_bits, parity, stop_bits, flow, rts; "": the port as a whole
	Err error
}

func (e *SettingError) Error() string { return "port: " + e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// Check says what is impossible about c, without looking at the machine: a SettingError for each
// setting, joined.
func (c *Config) Check() error {
	_, err := c.mode()
	switch {
	case c.Name == "" && c.USB == (USB{}):
		err = errors.Join(err, &SettingError{"", errors.New("neither a path nor a USB identity")})
	case c.Name != "" && c.USB != (USB{}):
		err = errors.Join(err, &SettingError{"", errors.New("both a path and a USB identity; give one")})
	}
	return err
}

func (c *Config) mode() (*serial.Mode, error) {
	m := &serial.Mode{BaudRate: c.Baud, DataBits: c.DataBits}
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, &SettingError{key, fmt.Errorf(format, args...)})
	}
	if m.BaudRate == 0 {
		m.BaudRate = 9600
	}
	if m.BaudRate < 0 {
		wrong("baud", "%d baud: a rate is positive", m.BaudRate)
	}
	if m.DataBits == 0 {
		m.DataBits = 8
	}
	if m.DataBits < 5 || m.DataBits > 8 {
		wrong("data_bits", "%d data bits: 5 to 8 are possible", m.DataBits)
	}
	switch c.Parity {
	case "", ParityNone:
		m.Parity = serial.NoParity
	case ParityOdd:
		m.Parity = serial.OddParity
	case ParityEven:
		m.Parity = serial.EvenParity
	case ParityMark:
		m.Parity = serial.MarkParity
	case ParitySpace:
		m.Parity = serial.SpaceParity
	default:
		wrong("parity", "parity %q: none, odd, even, mark or space", c.Parity)
	}
	switch c.StopBits {
	case 0, 1:
		m.StopBits = serial.OneStopBit
	case 1.5:
		m.StopBits = serial.OnePointFiveStopBits
	case 2:
		m.StopBits = serial.TwoStopBits
	default:
		wrong("stop_bits", "%v stop bits: 1, 1.5 or 2", c.StopBits)
	}
	switch c.Flow {
	case "", FlowNone, FlowRTSCTS, FlowXONXOFF:
	default:
		wrong("flow", "flow control %q: none, rts/cts or xon/xoff", c.Flow)
	}
	if c.Flow == FlowRTSCTS && c.RTS != nil {
		wrong("rts", "RTS cannot be held at a level while flow control moves it")
	}
	return m, errors.Join(errs...)
}

// Counts are what the driver counted since it knows the port.
type Counts struct {
	Received, Sent int
	Framing        int // characters without a stop bit where one was due: the wrong baud rate, or noise
	Parity         int
	Break          int
	Overrun        int // characters lost in the hardware
	BufferOverrun  int // characters lost in the driver
}

// Sub returns the difference to an earlier count.
func (c Counts) Sub(b Counts) Counts {
	return Counts{
		c.Received - b.Received, c.Sent - b.Sent, c.Framing - b.Framing, c.Parity - b.Parity,
		c.Break - b.Break, c.Overrun - b.Overrun, c.BufferOverrun - b.BufferOverrun,
	}
}

// A Port is an open serial port. One goroutine reads and writes; Close and the deadline methods may
// be called by others and end a Read that is waiting.
type Port struct {
	name string // the path that was opened
	mode serial.Mode
	lib  serial.Port
	sys  system
}

// Open opens the port, takes it for this process alone and sets it up. Input that waited in the
// driver is thrown away: nobody knows how old it is.
func Open(c Config) (*Port, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	name := c.Name
	if name == "" {
		info, err := c.USB.find()
		if err != nil {
			return nil, err
		}
		name = info.Name
	}
	mode, err := c.mode()
	if err != nil {
		return nil, err
	}
	p := &Port{name: name, mode: *mode}
	if err := p.open(&c); err != nil {
		return nil, fmt.Errorf("port: %s: %w", c.String(), err)
	}
	return p, nil
}

func (p *Port) open(c *Config) (err error) {
	if err := p.sys.before(p.name); err != nil {
		return explain(p.name, err)
	}
	defer func() {
		if err != nil {
			err = explain(p.name, err)
			p.sys.after()
		}
	}()
	// Not Mode.InitialStatusBits: Open would fail on terminals without modem lines even when the
	// configuration wants nothing of them.
	if p.lib, err = serial.Open(p.name, &p.mode); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.lib.Close()
		}
	}()
	if err := p.sys.setFlow(c.Flow); err != nil {
		return err
	}
	if err := p.sys.setRS485(c.RS485); err != nil {
		return err
	}
	if err := p.sys.verify(&p.mode); err != nil {
		return err
	}
	if c.RTS != nil {
		if err := p.lib.SetRTS(*c.RTS); err != nil {
			return fmt.Errorf("rts: %w: %w", ErrUnsupported, err)
		}
	}
	if c.DTR != nil {
		if err := p.lib.SetDTR(*c.DTR); err != nil {
			return fmt.Errorf("dtr: %w: %w", ErrUnsupported, err)
		}
	}
	if err := p.lib.ResetInputBuffer(); err != nil {
		return err
	}
	return p.sys.opened(p.lib)
}

// Name returns the path of the device that was opened.
func (p *Port) Name() string { return p.name }

// Baud returns the rate that is set.
func (p *Port) Baud() int { return p.mode.BaudRate }

// Read reads at least one byte. It fails with os.ErrDeadlineExceeded when the read deadline passes,
// and with ErrGone when the port has vanished.
func (p *Port) Read(b []byte) (int, error) { return p.sys.read(p.lib, b) }

// Write hands all of b to the driver, by the write deadline.
func (p *Port) Write(b []byte) (int, error) { return p.sys.write(p.lib, b) }

// SetReadDeadline is as net.Conn's: it also holds for a Read that is waiting. The zero time is no
// deadline.
func (p *Port) SetReadDeadline(t time.Time) error { return p.sys.setReadDeadline(t) }

// SetWriteDeadline is as net.Conn's. Where the platform has no means for it (anything but Linux) a
// Write is bounded by the driver alone.
func (p *Port) SetWriteDeadline(t time.Time) error { return p.sys.setWriteDeadline(t) }

// Discard throws away what was received and not read.
func (p *Port) Discard() error { return p.gone(p.lib.ResetInputBuffer()) }

// Unsend throws away what was written and has not left: what flow control holds back would leave at
// some time, long after anybody waits for an answer.
func (p *Port) Unsend() error { return p.gone(p.lib.ResetOutputBuffer()) }

// Drain waits until what was written has left.
func (p *Port) Drain() error { return p.gone(p.lib.Drain()) }

// SetBaud changes the rate from now on. What was written should have been drained.
func (p *Port) SetBaud(baud int) error {
	mode := p.mode
	mode.BaudRate = baud
	if err := p.lib.SetMode(&mode); err != nil {
		return fmt.Errorf("port: %s: %d baud: %w", p.name, baud, explain(p.name, err))
	}
	p.mode = mode
	return nil
}

// SetRTS raises or lowers RTS.
func (p *Port) SetRTS(high bool) error { return p.gone(p.lib.SetRTS(high)) }

// Break holds the line in the spacing state for d. It blocks for as long.
func (p *Port) Break(d time.Duration) error { return p.gone(p.lib.Break(d)) }

// Counts returns the driver's counters, or ErrUnsupported where there are none.
func (p *Port) Counts() (Counts, error) {
	c, err := p.sys.counts()
	if err != nil {
		return c, fmt.Errorf("port: %s: counters: %w", p.name, err)
	}
	return c, nil
}

// Close gives the port back. A Read that is waiting ends. What was written and has not left is thrown
// away: a driver would wait half a minute for a line that flow control holds.
func (p *Port) Close() error {
	p.lib.ResetOutputBuffer() // of a port that is gone: it fails, and there is nothing to throw away
	return errors.Join(p.sys.close(p.lib), p.sys.after())
}

func (p *Port) gone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("port: %s: %w", p.name, explain(p.name, err))
}

// explain turns what the library and the kernel say into one of this package's errors.
func explain(name string, err error) error {
	var pe *serial.PortError
	if errors.As(err, &pe) {
		switch pe.Code() {
		case serial.PortBusy:
			return fmt.Errorf("%w: %s", ErrBusy, holders(name))
		case serial.PortNotFound:
			return ErrAbsent
		case serial.PermissionDenied:
			return permission(name)
		case serial.PortClosed:
			return ErrGone
		case serial.InvalidSpeed, serial.InvalidDataBits, serial.InvalidParity, serial.InvalidStopBits, serial.FunctionNotImplemented:
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return explainErrno(name, err)
}
