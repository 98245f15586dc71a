package modbus

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/port"
)

// Options are what a Bus is made of. The zero values of the optional parts are sensible.
type Options struct {
	Name    string
	Framing Framing
	Address string      // host:port, for the framings over the network
	Port    port.Config // for RTU and ASCII
	RTS     *RTS        // RTU and ASCII: direction control by this program; nil: none
	Baud    int         // RTU over TCP: the speed of the line behind the serial server, if known
	Pauses  Pauses
	Connect time.Duration    // how long a connection may take to be made; 0: 5 s
	Backoff adapters.Backoff // between attempts to open the bus; zero: 500 ms to 30 s
	Devices []Device

	Sink   adapters.Sink
	Clock  adapters.Clock
	Logger *slog.Logger

	// Dial and Open replace the making of connections and the opening of ports; nil: the real ones.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Open func(port.Config) (Line, error)
}

// A Device is one unit on the bus.
type Device struct {
	Name     string
	Labels   []adapters.Label
	Unit     byte          // 0 to 255; on serial lines 1 to 247, 0 is broadcast
	Interval time.Duration // between cycles
	Timeout  time.Duration // from the end of a request to the first byte of its answer; 0: 1 s
	Retries  int           // how often a request is repeated within the cycle after a timeout
	Patience time.Duration // how long a device that is busy (exceptions 5 and 6) is asked again; 0: Timeout
	Backoff  adapters.Backoff
	// Limits of one request; 0: 125 registers, 2000 bits.
	MaxRegisters, MaxBits int
	// Hole is how many registers that nobody wants may be read along; negative: none, 0: 16.
	Hole int
	// SunSpec are model numbers: the points lie in the first of them that the device has, and their
	// addresses count from the model's first register. Empty: addresses are the device's.
	SunSpec []uint16
	Points  []Point
}

// A Point is one quantity.
type Point struct {
	adapters.Point
	Kind     Kind
	Address  uint16 // 0-based
	Field    *decode.Field
	Interval time.Duration // 0: the device's
	// Factor is where the exponent of ten is that the number is multiplied by: a register with a
	// signed 16-bit number, as in SunSpec's models. nil: none.
	Factor   *Register
	Writable bool // takes commands
	// Function is the function code that writes; 0: 5 or 6 for one element, 16 for several registers,
	// 22 for a part of a register. Some devices know only 15 and 16; 23 writes and reads back at once.
	Function byte
}

// A Register names one element of a table.
type Register struct {
	Kind    Kind
	Address uint16
}

// registers is how many elements of its table the point takes.
func (p *Point) registers() int {
	if p.Kind.Bits() {
		return 1
	}
	return (p.Field.Size() + 1) / 2
}

// RTS switches the direction of an RS-485 transceiver that neither the adapter nor the driver
// switches: RTS is raised before a request and lowered once its last character has left. A program
// is not as punctual as a driver; port.Config.RS485 is better where the driver can.
type RTS struct {
	Invert        bool          // RTS is low while sending
	Before, After time.Duration // RTS leads and trails the request by as much
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	if o.Connect == 0 {
		o.Connect = 5 * time.Second
	}
	if o.Backoff.Min == 0 {
		o.Backoff.Min = 500 * time.Millisecond
	}
	if o.Backoff.Max == 0 {
		o.Backoff.Max = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	devices := make([]Device, len(o.Devices))
	for i, d := range o.Devices {
		devices[i] = d.withDefaults()
	}
	o.Devices = devices
	return o
}

func (d Device) withDefaults() Device {
	if d.Timeout == 0 {
		d.Timeout = time.Second
	}
	if d.Patience == 0 {
		d.Patience = d.Timeout
	}
	if d.Interval == 0 {
		d.Interval = time.Second
	}
	if d.Backoff.Min == 0 {
		d.Backoff.Min = time.Second
	}
	if d.Backoff.Max == 0 {
		d.Backoff.Max = time.Minute
	}
	if d.MaxRegisters == 0 {
		d.MaxRegisters = Input.limit()
	}
	if d.MaxBits == 0 {
		d.MaxBits = Coil.limit()
	}
	switch {
	case d.Hole == 0:
		d.Hole = 16
	case d.Hole < 0:
		d.Hole = 0
	}
	return d
}

// check says what is impossible.
func (o *Options) check() error {
	if o.Framing.serial() {
		if err := o.Port.Check(); err != nil {
			return fmt.Errorf("modbus: bus %q: %w", o.Name, err)
		}
	} else if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return fmt.Errorf("modbus: bus %q: address %q: %w", o.Name, o.Address, err)
	}
	for i := range o.Devices {
		d := &o.Devices[i]
		if err := d.check(o.Framing); err != nil {
			return fmt.Errorf("modbus: bus %q, device %q: %w", o.Name, d.Name, err)
		}
	}
	return nil
}

func (d *Device) check(f Framing) error {
	if f != TCP && f != UDP && (d.Unit == 0 || d.Unit > 247) {
		return fmt.Errorf("unit %d: 1 to 247 are possible on a serial line", d.Unit)
	}
	if d.Interval < 0 || d.Timeout < 0 {
		return fmt.Errorf("a negative interval or timeout")
	}
	if d.MaxRegisters < 1 || d.MaxRegisters > Input.limit() || d.MaxBits < 1 || d.MaxBits > Coil.limit() {
		return fmt.Errorf("at most %d registers and %d bits can be asked for at once", Input.limit(), Coil.limit())
	}
	for i := range d.Points {
		if err := d.Points[i].Check(); err != nil {
			return fmt.Errorf("point %q: %w", d.Points[i].Name, err)
		}
		if n := d.Points[i].registers(); n > d.MaxRegisters {
			return fmt.Errorf("point %q: has %d registers, but at most %d are asked for at once", d.Points[i].Name, n, d.MaxRegisters)
		}
	}
	return nil
}

// Check says what is impossible about a point.
func (p *Point) Check() error {
	if p.Field == nil {
		return fmt.Errorf("has no type")
	}
	t := p.Field.Type()
	if p.Kind.Bits() {
		if t.Kind != decode.Bool {
			return fmt.Errorf("a %s is a bit: its type is bool, not %v", p.Kind.Element(), t)
		}
	} else if p.Field.Size()%2 != 0 {
		return fmt.Errorf("a %v does not fill whole registers", t)
	}
	if end := int(p.Address) + p.registers(); end > 1<<16 {
		return fmt.Errorf("%s %d (%s): a %v of %d registers goes beyond the last address, 65535", p.Kind, p.Address, p.Kind.Notation(p.Address), t, p.registers())
	}
	if p.Writable && !p.Kind.Writable() {
		return fmt.Errorf("%ss cannot be written, coils and holding registers can", p.Kind.Element())
	}
	if p.Writable {
		if err := p.checkFunction(); err != nil {
			return err
		}
	}
	if p.Factor != nil && p.Kind.Bits() {
		return fmt.Errorf("a %s has no scale factor", p.Kind.Element())
	}
	return nil
}

// checkFunction says whether the point can be written with its function.
func (p *Point) checkFunction() error {
	ok := false
	switch p.Function {
	case 0:
		ok = true
	case 5, 15:
		ok = p.Kind == Coil
	case 6:
		ok = p.Kind == Holding && p.registers() == 1
	case 16, 23:
		ok = p.Kind == Holding
	case 22:
		ok = p.Kind == Holding && p.registers() == 1
	}
	if !ok {
		return fmt.Errorf("function %d cannot write %d of a %s", p.Function, p.registers(), p.Kind.Element())
	}
	return nil
}
