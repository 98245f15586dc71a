// Package sample is the compact encoding of samples and schemas in queue records.
//
// A record holds one sample. What all samples of a device share stands in its schema, which the
// queue keeps as immutable side information under the hash of its content; a record holds only
// what changes from cycle to cycle:
//
//	record  = head boot time [prev] count reading...
//	head    = 1 byte: version (high 4 bits, now 1), bit 0: prev is there,
//	          bit 1: the readings are those of the points 0 to count-1, in order
//	boot    = uvarint, number of the boot in the clock's table
//	time    = uvarint, nanoseconds of CLOCK_BOOTTIME in that boot
//	prev    = uvarint, sequence of the same device's sample before
//	count   = uvarint
//	reading = [skip] tag [reason] value
//	skip    = uvarint, points left out since the last reading; absent where bit 1 of head is set
//	tag     = 1 byte: value code (low 4 bits), quality (bits 4 and 5), other bits 0
//	reason  = only where the quality is not good: uvarint, number of a shared reason,
//	          or 0 and then a string
//	value   = by code
//	             0  none: nothing
//	             1  false, 2 true: nothing
//	             3  signed integer: zigzag uvarint
//	             4  unsigned integer: uvarint
//	             5  float: 8 bytes, little endian IEEE 754
//	             6  float that fits single precision: 4 bytes, little endian IEEE 754
//	             7  string
//	          8-15  float that is an integer divided by 10^(code-8): zigzag uvarint
//	string  = uvarint length, bytes
//
//	schema  = version (1 byte, now 1) bus device labels count point...
//	labels  = uvarint count, then that many pairs of strings: name, value
//	point   = name unit decimals (zigzag uvarint) labels
//
// What registers give is mostly a small integer scaled by a power of ten, which so takes two to
// four bytes and reads back to the very same double. The queue adds length and CRC-32C.
package sample

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"gateway/adapters"
)

const (
	version = 1

	headPrev  = 1 << 0
	headDense = 1 << 1
)

// Value codes.
const (
	codeNone = iota
	codeFalse
	codeTrue
	codeInt
	codeUint
	codeFloat64
	codeFloat32
	codeString
	codeDecimal // and the seven after it
)

// ErrVersion says that a record or schema was written by a later version of the gateway.
var ErrVersion = errors.New("sample: written by a later version")

var errCorrupt = errors.New("sample: malformed record")

// A Record is a sample and what only the queue knows of it.
type Record struct {
	Sample  adapters.Sample
	Boot    uint32 // number of the boot that Sample.Time counts in
	Prev    uint64 // sequence of the device's sample before
	HasPrev bool   // false for a device's first
}

// reasons are numbered by their place, from 1. The list only ever grows at its end.
var reasons = [...]adapters.Reason{
	adapters.ReasonTimeout, adapters.ReasonNoAck, adapters.ReasonAbsent, adapters.ReasonChecksum,
	adapters.ReasonProtocol, adapters.ReasonBusy, adapters.ReasonRefused, adapters.ReasonRange,
	adapters.ReasonSentinel, adapters.ReasonNotFinite, adapters.ReasonParse, adapters.ReasonNotReady,
	adapters.ReasonBackoff, adapters.ReasonOverrange, adapters.ReasonUnsupported,
}

var pow10 = [8]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7}

// Append appends the encoding of r to b. It panics on nothing and cannot fail: whatever a sample
// can hold can be written.
func Append(b []byte, r *Record) []byte {
	s := &r.Sample
	head := byte(version << 4)
	if r.HasPrev {
		head |= headPrev
	}
	dense := true
	for i := range s.Readings {
		if s.Readings[i].Point != i {
			dense = false
			break
		}
	}
	if dense {
		head |= headDense
	}
	b = append(b, head)
	b = binary.AppendUvarint(b, uint64(r.Boot))
	b = binary.AppendUvarint(b, uint64(s.Time))
	if r.HasPrev {
		b = binary.AppendUvarint(b, r.Prev)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Readings)))
	next := 0
	for i := range s.Readings {
		rd := &s.Readings[i]
		if !dense {
			b = binary.AppendUvarint(b, uint64(rd.Point-next))
			next = rd.Point + 1
		}
		b = appendReading(b, rd)
	}
	return b
}

// appendReading writes a reading. One that claims a value and has none, as a float that is not
// finite leaves it, is bad: readers of records need not ask.
func appendReading(b []byte, r *adapters.Reading) []byte {
	if r.Quality != adapters.Bad && r.Value.Kind() == adapters.None {
		r = &adapters.Reading{Point: r.Point, Quality: adapters.Bad, Reason: adapters.ReasonNotFinite}
	} else if r.Quality == adapters.Bad && r.Value.Kind() != adapters.None {
		r = &adapters.Reading{Point: r.Point, Quality: adapters.Bad, Reason: r.Reason}
	}
	at := len(b)
	b = append(b, byte(r.Quality&3)<<4)
	if r.Quality != adapters.Good {
		b = appendReason(b, r.Reason)
	}
	code := byte(codeNone)
	switch v := r.Value; v.Kind() {
	case adapters.Bool:
		code = codeFalse
		if v.Bool() {
			code = codeTrue
		}
	case adapters.Int:
		code = codeInt
		b = binary.AppendVarint(b, v.Int())
	case adapters.Uint:
		code = codeUint
		b = binary.AppendUvarint(b, v.Uint())
	case adapters.Float:
		f, _ := v.Number()
		code, b = appendFloat(b, f)
	case adapters.String:
		code = codeString
		b = appendString(b, v.Str())
	}
	b[at] |= code
	return b
}

// appendFloat writes f in the shortest of the three ways that read back to the same bits.
func appendFloat(b []byte, f float64) (byte, []byte) {
	const limit = 1 << 34 // a zigzag uvarint of five bytes: no longer than single precision and its use
	if abs := math.Abs(f); abs < limit && (f != 0 || !math.Signbit(f)) {
		for k, p := range pow10 {
			m := math.Round(f * p)
			if m >= limit || m <= -limit {
				break
			}
			if m/p == f {
				return byte(codeDecimal + k), binary.AppendVarint(b, int64(m))
			}
		}
	}
	if f32 := float32(f); float64(f32) == f {
		return codeFloat32, binary.LittleEndian.AppendUint32(b, math.Float32bits(f32))
	}
	return codeFloat64, binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

func appendReason(b []byte, r adapters.Reason) []byte {
	for i := range reasons {
		if reasons[i] == r {
			return binary.AppendUvarint(b, uint64(i+1))
		}
	}
	return appendString(append(b, 0), string(r))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Decode reads one record of a device with the given schema into r, whose Readings are reused.
// Whatever the bytes are, it returns a well-formed sample or an error.
func Decode(data []byte, schema *adapters.Schema, r *Record) error {
	d := decoder{b: data}
	head := d.byte()
	if d.bad {
		return errCorrupt
	}
	if head>>4 != version {
		return fmt.Errorf("%w: record version %d, this one reads %d", ErrVersion, head>>4, version)
	}
	if head&0x0f&^(headPrev|headDense) != 0 {
		return errCorrupt
	}
	boot := d.uvarint()
	t := d.uvarint()
	r.Prev, r.HasPrev = 0, head&headPrev != 0
	if r.HasPrev {
		r.Prev = d.uvarint()
	}
	n := d.uvarint()
	if d.bad || boot > math.MaxUint32 || t > math.MaxInt64 || n > uint64(len(schema.Points)) {
		return errCorrupt
	}
	r.Boot = uint32(boot)
	r.Sample.Schema = schema
	r.Sample.Time = adapters.Instant(t)
	r.Sample.Readings = r.Sample.Readings[:0]
	next := uint64(0)
	for range n {
		if head&headDense == 0 {
			skip := d.uvarint()
			if skip >= uint64(len(schema.Points)) {
				return errCorrupt
			}
			next += skip
		}
		if next >= uint64(len(schema.Points)) {
			return errCorrupt
		}
		rd := adapters.Reading{Point: int(next)}
		d.reading(&rd)
		if d.bad {
			return errCorrupt
		}
		r.Sample.Readings = append(r.Sample.Readings, rd)
		next++
	}
	if len(d.b) != 0 {
		return errCorrupt
	}
	return nil
}

// A decoder takes apart b; once something was wrong bad stays set and every result is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) fixed(n int) []byte {
	if len(d.b) < n {
		d.fail()
		return make([]byte, n)
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) reading(r *adapters.Reading) {
	tag := d.byte()
	if tag&0xc0 != 0 || tag>>4 > byte(adapters.Bad) || (tag>>4 == byte(adapters.Bad)) != (tag&0x0f == codeNone) {
		d.fail()
		return
	}
	r.Quality = adapters.Quality(tag >> 4)
	if r.Quality != adapters.Good {
		switch n := d.uvarint(); {
		case n == 0:
			r.Reason = adapters.Reason(d.bytes())
		case n <= uint64(len(reasons)):
			r.Reason = reasons[n-1]
		default:
			d.fail()
			return
		}
	}
	switch code := tag & 0x0f; code {
	case codeNone:
	case codeFalse, codeTrue:
		r.Value = adapters.BoolValue(code == codeTrue)
	case codeInt:
		r.Value = adapters.IntValue(d.varint())
	case codeUint:
		r.Value = adapters.UintValue(d.uvarint())
	case codeFloat64:
		d.float(r, math.Float64frombits(binary.LittleEndian.Uint64(d.fixed(8))))
	case codeFloat32:
		d.float(r, float64(math.Float32frombits(binary.LittleEndian.Uint32(d.fixed(4)))))
	case codeString:
		r.Value = adapters.StringValue(string(d.bytes()))
	default:
		d.float(r, float64(d.varint())/pow10[code-codeDecimal])
	}
}

// float takes no NaN and no infinity: no encoder wrote them.
func (d *decoder) float(r *adapters.Reading, f float64) {
	if r.Value = adapters.FloatValue(f); r.Value.Kind() == adapters.None {
		d.fail()
	}
}
