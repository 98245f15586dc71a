package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"gateway/adapters"
)

// What can be wrong with a command, besides what the device says.
var (
	ErrNoPoint     = errors.New("modbus: no such point")
	ErrNotWritable = errors.New("modbus: the point is not writable")
	ErrStopped     = errors.New("modbus: the bus is not running")
	ErrReadBack    = errors.New("modbus: the device holds another value than was written")
)

// A write is a command on its way to the bus.
type write struct {
	ctx   context.Context
	dev   *device
	point int
	value adapters.Value
	done  chan written
}

type written struct {
	value adapters.Value
	err   error
}

// Write sets a point of a device, in front of all polls that wait, reads it back and returns what
// the device holds then. It also offers that value as a sample. The bus must be running.
func (b *Bus) Write(ctx context.Context, device, point string, v adapters.Value) (adapters.Value, error) {
	d := b.byName[device]
	if d == nil {
		return adapters.Value{}, fmt.Errorf("%w: device %q", ErrNoPoint, device)
	}
	n := slices.IndexFunc(d.schema.Points, func(p adapters.Point) bool { return p.Name == point })
	if n < 0 {
		return adapters.Value{}, fmt.Errorf("%w: %q of device %q", ErrNoPoint, point, device)
	}
	if !d.access[n].writable {
		return adapters.Value{}, fmt.Errorf("%w: %q of device %q; set writable = true", ErrNotWritable, point, device)
	}
	w := &write{ctx, d, n, v, make(chan written, 1)}
	select {
	case b.writes <- w:
	case <-ctx.Done():
		return adapters.Value{}, ctx.Err()
	case <-b.running:
		return adapters.Value{}, ErrStopped
	}
	select {
	case r := <-w.done:
		return r.value, r.err
	case <-b.running:
		return adapters.Value{}, ErrStopped
	}
}

// serveWrites carries out the commands that wait.
func (b *Bus) serveWrites(ctx context.Context) {
	for {
		select {
		case w := <-b.writes:
			b.write(ctx, w)
		default:
			return
		}
	}
}

func (b *Bus) write(ctx context.Context, w *write) {
	var r written
	if r.err = w.ctx.Err(); r.err == nil {
		b.link.ctx, b.link.timeout = ctx, w.dev.Timeout
		reading := adapters.Reading{Quality: adapters.Bad}
		if len(w.dev.SunSpec) > 0 && !w.dev.located {
			c := cycle{bus: b, dev: w.dev, ctx: ctx}
			r.err = c.locate()
		}
		p := w.dev.at(w.point)
		if r.err == nil {
			r.err = w.dev.introduce(&b.link, &p)
		}
		if r.err == nil {
			r.value, reading, r.err = w.dev.put(ctx, &p, w.value)
		}
		if reading.Quality != adapters.Bad || reading.Reason != "" {
			// What was read back is news, for all.
			reading.Point = w.point
			b.Sink.Offer(adapters.Sample{Schema: &w.dev.schema, Time: b.Clock(), Readings: []adapters.Reading{reading}})
		}
		if r.err != nil {
			r.err = fmt.Errorf("modbus: write %q of %q: %w", p.Name, w.dev.Name, r.err)
		}
	}
	w.done <- r
}

// introduce reads the point that is to be written, where nothing has been read on a serial line since it
// was opened: only a read tells whether the line gives back what is sent, for the echo of a write looks
// just like its answer. What the device makes of the read does not matter; some know only writes.
func (d *device) introduce(l *link, p *Point) error {
	if l.framing == TCP || l.framing == UDP || l.line != nil && l.reused {
		return nil
	}
	if _, err := d.read(p.Kind, p.Address, p.registers()); disconnected(err) || l.ctx.Err() != nil {
		return err
	}
	return nil
}

// put writes one point, reads it back and returns what it holds then; the reading is that of a sample,
// bad without a reason where nothing was read.
func (d *device) put(ctx context.Context, p *Point, v adapters.Value) (adapters.Value, adapters.Reading, error) {
	none := adapters.Reading{Quality: adapters.Bad}
	exp := 0
	if f := p.Factor; f != nil {
		data, err := d.read(f.Kind, f.Address, 1)
		if err != nil {
			return adapters.Value{}, none, err
		}
		if exp, err = exponent(data); err != nil {
			return adapters.Value{}, none, err
		}
	}
	raw := make([]byte, max(2, p.Field.Size()))[:p.Field.Size()]
	whole := p.Kind == Coil || p.Field.Type().Whole()
	if !whole && (p.Function != 0 && p.Function != 22 || p.registers() > 1 || d.noMask) {
		// The other bits stay what they are.
		data, err := d.read(p.Kind, p.Address, p.registers())
		if err != nil {
			return adapters.Value{}, none, err
		}
		copy(raw, data)
		whole = true
	}
	if err := p.Field.EncodeExp(raw, v, exp); err != nil {
		return adapters.Value{}, none, err
	}
	if _, err := d.patiently(ctx, d.Patience, func() ([]byte, error) { return nil, d.send(p, raw, whole) }); err != nil {
		if exception(err) == 1 && !whole && p.Function == 0 && !d.noMask {
			d.noMask = true
			return d.put(ctx, p, v)
		}
		return adapters.Value{}, none, err
	}
	return d.readBack(p, raw, exp)
}

// send carries out the write request of a point. Where raw is not the whole of a register, function
// 22 sets its bits.
func (d *device) send(p *Point, raw []byte, whole bool) error {
	n := uint16(p.registers())
	var err error
	switch f := p.Function; {
	case p.Kind == Coil && f == 15:
		_, err = d.client.WriteMultipleCoils(p.Address, 1, []byte{raw[0] & 1})
	case p.Kind == Coil:
		state := uint16(0)
		if raw[0]&1 != 0 {
			state = 0xff00
		}
		_, err = d.client.WriteSingleCoil(p.Address, state)
	case !whole || f == 22:
		var own [2]byte
		p.Field.Mask(own[:])
		and := ^binary.BigEndian.Uint16(own[:])
		_, err = d.client.MaskWriteRegister(p.Address, and, binary.BigEndian.Uint16(raw)&^and)
	case f == 23:
		_, err = d.client.ReadWriteMultipleRegisters(p.Address, n, p.Address, n, raw)
	case n == 1 && f != 16:
		_, err = d.client.WriteSingleRegister(p.Address, binary.BigEndian.Uint16(raw))
	default:
		_, err = d.client.WriteMultipleRegisters(p.Address, n, raw)
	}
	return err
}

// readBack reads what a point holds after it was written.
func (d *device) readBack(p *Point, raw []byte, exp int) (adapters.Value, adapters.Reading, error) {
	want, _ := p.decode(raw, exp)
	data, err := d.read(p.Kind, p.Address, p.registers())
	if err != nil {
		return adapters.Value{}, adapters.Reading{Quality: adapters.Bad}, fmt.Errorf("written, but not read back: %w", err)
	}
	if p.Kind.Bits() {
		data = []byte{data[0] & 1}
	}
	got, reason := p.decode(data, exp)
	r := adapters.Reading{Value: got}
	if reason != "" {
		r = adapters.Reading{Quality: adapters.Bad, Reason: reason}
	}
	if got != want {
		return got, r, fmt.Errorf("%w: %v, not %v", ErrReadBack, got, want)
	}
	return got, r, nil
}
