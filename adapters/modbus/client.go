package modbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
)

// A Client asks the devices of one bus by hand, for commissioning, while no Bus runs on it. It is used
// by one goroutine.
type Client struct {
	Timeout time.Duration // from the end of a request to the first byte of the answer
	link    link
	framing Framing
	units   map[byte]*device
}

// NewClient returns a client for the port or address in o, of which the devices do not matter. It
// opens the line with the first request.
func NewClient(o Options) (*Client, error) {
	o.Devices = nil
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &Client{Timeout: time.Second, framing: o.Framing, units: map[byte]*device{}}
	c.link.linkConfig = o.linkConfig()
	return c, nil
}

// Close closes the line.
func (c *Client) Close() error { return c.link.close() }

// unit returns what asks one unit.
func (c *Client) unit(ctx context.Context, unit byte) *device {
	c.link.ctx, c.link.timeout = ctx, c.Timeout
	d := c.units[unit]
	if d == nil {
		d = &device{Device: Device{Unit: unit}.withDefaults(), packager: packager(c.framing, unit)}
		d.client = gb.NewClient2(d.packager, &c.link)
		c.units[unit] = d
	}
	return d
}

// Read reads elements of a table. The result is as it came over the wire: two bytes for each register,
// or bits from the lowest of the first byte on. It is valid until the next request.
func (c *Client) Read(ctx context.Context, unit byte, k Kind, address uint16, count int) ([]byte, error) {
	d := c.unit(ctx, unit)
	return d.patiently(ctx, d.Patience, func() ([]byte, error) { return d.read(k, address, count) })
}

// Write writes a point and reads it back. On a serial line unit 0 is all devices at once: none of
// them answers, so there nothing is read back, and the value returned is the one written.
func (c *Client) Write(ctx context.Context, unit byte, p Point, v adapters.Value) (adapters.Value, error) {
	p.Writable = true
	if err := p.Check(); err != nil {
		return adapters.Value{}, fmt.Errorf("modbus: %w", err)
	}
	d := c.unit(ctx, unit)
	if c.link.broadcast(unit) {
		raw := make([]byte, p.Field.Size())
		if !p.Field.Type().Whole() {
			return adapters.Value{}, errors.New("modbus: a part of a register cannot be broadcast")
		}
		if err := p.Field.Encode(raw, v); err != nil {
			return adapters.Value{}, err
		}
		return v, d.send(&p, raw, true)
	}
	if err := d.introduce(&c.link, &p); err != nil {
		return adapters.Value{}, err
	}
	got, _, err := d.put(ctx, &p, v)
	return got, err
}

// Models returns the chain of SunSpec models that a unit has, ErrNoModel where it has none.
func (c *Client) Models(ctx context.Context, unit byte) ([]Model, error) {
	return findModels(0, func(address uint16, count int) ([]byte, error) {
		return c.Read(ctx, unit, Holding, address, count)
	})
}

// Do carries out any request: function code and data. The answer is valid until the next request; an
// exception is a *goburrow.ModbusError.
func (c *Client) Do(ctx context.Context, unit byte, pdu []byte) ([]byte, error) {
	return c.unit(ctx, unit).do(&c.link, pdu)
}

// do carries out a request that goburrow's Client has no method for.
func (d *device) do(l *link, pdu []byte) ([]byte, error) {
	req, err := d.packager.Encode(&gb.ProtocolDataUnit{FunctionCode: pdu[0], Data: pdu[1:]})
	if err != nil {
		return nil, err
	}
	resp, err := l.Send(req)
	if err != nil {
		return nil, err
	}
	if err := d.packager.Verify(req, resp); err != nil {
		return nil, protocolError("%v", err)
	}
	got, err := d.packager.Decode(resp)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChecksum, err)
	}
	if got.FunctionCode != pdu[0] {
		return nil, &gb.ModbusError{FunctionCode: got.FunctionCode, ExceptionCode: got.Data[0]}
	}
	return got.Data, nil
}

// Identification is what a device says of itself (function 43/14, [AP 6.21]): objects by their
// number. 0 is the vendor's name, 1 the product code, 2 the revision; the others are optional.
type Identification map[byte]string

// Names of the objects that the specification defines.
var objectNames = [...]string{"vendor", "product code", "revision", "vendor url", "product name", "model", "application"}

// ObjectName returns what an object is called.
func ObjectName(id byte) string {
	if int(id) < len(objectNames) {
		return objectNames[id]
	}
	return fmt.Sprintf("object %d", id)
}

// Identify reads the device identification: the basic objects, and the regular ones where the device
// has them. A device that knows no such function answers exception 1.
func (c *Client) Identify(ctx context.Context, unit byte) (Identification, error) {
	id := Identification{}
	for code := byte(1); code <= 2; code++ {
		if err := c.identify(ctx, unit, code, id); err != nil {
			if code > 1 {
				break // the basic objects are all there is
			}
			return nil, err
		}
	}
	return id, nil
}

func (c *Client) identify(ctx context.Context, unit, code byte, id Identification) error {
	next := byte(0)
	for range 256 {
		data, err := c.Do(ctx, unit, []byte{fnEncapsulated, 14, code, next})
		if err != nil {
			return err
		}
		// data: MEI type, code, conformity, more follows, next object, number of objects, objects
		if len(data) < 6 || data[0] != 14 {
			return protocolError("a device identification of %d bytes", len(data))
		}
		rest := data[6:]
		for range data[5] {
			if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
				return protocolError("a device identification that is cut off")
			}
			id[rest[0]] = printable(rest[2 : 2+int(rest[1])])
			rest = rest[2+int(rest[1]):]
		}
		if data[3] != 0xff || data[4] <= next {
			return nil
		}
		next = data[4]
	}
	return nil
}

// printable keeps what a terminal can show.
func printable(b []byte) string {
	s := make([]byte, 0, len(b))
	for _, c := range b {
		if c >= ' ' && c < 0x7f {
			s = append(s, c)
		}
	}
	return string(s)
}
