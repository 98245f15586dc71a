package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gateway/adapters/hint"
)

// A SunSpec device begins somewhere with "SunS", followed by a chain of models, each with its number
// and its length, up to the number 0xFFFF (SunSpec Device Information Model Specification, 6.2).

// ErrNoModel says that a device has none of the SunSpec models that its points are in.
var ErrNoModel = errors.New("modbus: no such SunSpec model")

// sunSpecBases are where the specification has the chain begin.
var sunSpecBases = [...]uint16{40000, 50000, 0}

const (
	sunSpecMark = 0x53756e53 // "SunS"
	sunSpecEnd  = 0xffff
	// maxModels bounds the chain: a device whose lengths make no sense must not keep the bus.
	maxModels = 64
)

// A Model is one link of the chain.
type Model struct {
	ID      uint16
	Address uint16 // of its first register, the one with its number
	Length  int    // registers, those of number and length not counted
}

// findModels walks the chain with a function that reads holding registers. It looks for it at the base
// numbered first, then at the others.
func findModels(first int, read func(address uint16, count int) ([]byte, error)) ([]Model, error) {
	for i := range sunSpecBases {
		base := sunSpecBases[(first+i)%len(sunSpecBases)]
		b, err := read(base, 2)
		if exception(err) != 0 && !silent(err) {
			continue // not here
		} else if err != nil {
			return nil, err
		}
		if binary.BigEndian.Uint32(b) != sunSpecMark {
			continue
		}
		var chain []Model
		at := int(base) + 2
		for range maxModels {
			if at > 0xfffe {
				break
			}
			b, err := read(uint16(at), 2)
			if err != nil {
				return chain, err
			}
			m := Model{binary.BigEndian.Uint16(b), uint16(at), int(binary.BigEndian.Uint16(b[2:]))}
			if m.ID == sunSpecEnd {
				return chain, nil
			}
			chain = append(chain, m)
			at += 2 + m.Length
		}
		return chain, protocolError("a chain of SunSpec models without end")
	}
	return nil, fmt.Errorf("%w: there is no SunSpec map at 40000, 50000 or 0", ErrNoModel)
}

// locate finds the model in which the points of a SunSpec device are, and moves them there. It has to
// be done once, and again after the device was away: it may have come back with other firmware.
func (c *cycle) locate() error {
	d := c.dev
	chain, err := findModels(d.chain, func(address uint16, count int) ([]byte, error) {
		return c.ask(&block{kind: Holding, address: address, count: count})
	})
	if silent(err) {
		d.chain++ // some devices do not answer for addresses that they do not have
	}
	if err != nil {
		return err
	}
	for _, wanted := range d.SunSpec {
		i := slices.IndexFunc(chain, func(m Model) bool { return m.ID == wanted })
		if i < 0 {
			continue
		}
		if at := int(chain[i].Address); at+d.reach() > 1<<16 {
			return fmt.Errorf("%w: model %d at %d: its points would lie beyond the last address, 65535", ErrNoModel, wanted, at)
		}
		d.move(chain[i].Address)
		d.located = true
		return nil
	}
	have, want := make([]string, len(chain)), make([]string, len(d.SunSpec))
	for i, m := range chain {
		have[i] = fmt.Sprint(m.ID)
	}
	for i, id := range d.SunSpec {
		want[i] = fmt.Sprint(id)
	}
	return fmt.Errorf("%w: the points are in model %s, the device has %s", ErrNoModel, strings.Join(want, " or "), hint.List(have))
}

// reach is how many registers the points need from the model's first on.
func (d *device) reach() int {
	n := 0
	for i := range d.items {
		n = max(n, int(d.items[i].address-d.base)+d.items[i].count)
	}
	return n
}

// move lets all addresses of the device count from base.
func (d *device) move(base uint16) {
	for n := range d.items {
		d.items[n].address += base - d.base
	}
	d.base = base
	d.plans = nil
}

// at returns a point where it is on the device.
func (d *device) at(point int) Point {
	it, a := &d.items[point], &d.access[point]
	p := Point{Point: d.schema.Points[point], Kind: it.kind, Address: it.address, Field: a.field, Writable: a.writable, Function: a.function}
	if n := d.factor(point); n >= 0 {
		p.Factor = &Register{d.items[n].kind, d.items[n].address}
	}
	return p
}
