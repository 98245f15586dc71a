package frame

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"gateway/adapters/hint"
)

// Sum is a checksum algorithm.
type Sum string

// The checksums. CRCs have the names and parameters of the catalogue of parametrised CRC algorithms
// (reveng.sourceforge.io/crc-catalogue); check values are those for "123456789".
const (
	NoSum     Sum = ""
	XOR       Sum = "xor"          // of all bytes: NMEA, IEC 62056-21's BCC
	Sum8      Sum = "sum"          // of all bytes, the low 8 bits
	Sum16     Sum = "sum16"        // of all bytes, the low 16 bits
	LRC       Sum = "lrc"          // two's complement of sum: Modbus ASCII
	CRC8      Sum = "crc8"         // CRC-8/SMBUS: poly 07, check F4
	CRC8Maxim Sum = "crc8-maxim"   // CRC-8/MAXIM-DOW: poly 31 reflected, check A1
	CRC16ARC  Sum = "crc16-arc"    // poly 8005 reflected: DSMR P1, SDI-12; check BB3D
	CRC16MB   Sum = "crc16-modbus" // CRC-16/MODBUS: as ARC, starting from FFFF; check 4B37
	CRC16CCIT Sum = "crc16-ccitt"  // CRC-16/IBM-3740 (CCITT-FALSE): poly 1021 from FFFF, check 29B1
	CRC16XM   Sum = "crc16-xmodem" // poly 1021 from 0, check 31C3
	CRC16KERM Sum = "crc16-kermit" // poly 1021 reflected from 0, check 2189
	CRC16X25  Sum = "crc16-x25"    // poly 1021 reflected from FFFF, inverted: HDLC; check 906E
	CRC32     Sum = "crc32"        // CRC-32/ISO-HDLC: Ethernet, zip; check CBF43926
	NMEA      Sum = "nmea"         // XOR between $ or ! and *, then * and two hexadecimal digits
)

// Sums lists the algorithms.
func Sums() []Sum {
	return []Sum{XOR, Sum8, Sum16, LRC, CRC8, CRC8Maxim, CRC16ARC, CRC16MB, CRC16CCIT, CRC16XM, CRC16KERM, CRC16X25, CRC32, NMEA}
}

// Coding is how the checksum is written.
type Coding uint8

const (
	Binary Coding = iota
	Hex           // hexadecimal digits, most significant first; both cases are taken, upper case is sent
	SDI12         // three characters of six bits each (SDI-12 1.4, 4.4.12.2), for 16-bit sums
)

// Order is the byte order of a binary checksum.
type Order uint8

const (
	Natural Order = iota // little for reflected CRCs, as they travel on a wire, big for all others
	Big
	Little
)

// A Check says what checksum a frame has, over what, and how it is written. Unless AfterEnd is set
// the checksum is the last part of the frame's data.
type Check struct {
	Sum    Sum
	Coding Coding
	Order  Order
	From   int // the first byte that is covered, counted from the frame's first

	// For frames between markers.
	AfterEnd  bool // the checksum follows the end marker
	WithStart bool // the start marker is covered
	WithEnd   bool // the end marker is covered
}

// A sum computes one kind of checksum.
type sum struct {
	check     Check
	bytes     int // width of the checksum itself
	init, out uint32
	reflected bool
	table     []uint32 // of a CRC other than CRC-32
}

type crcParams struct {
	bytes     int
	poly      uint32
	init, out uint32
	reflected bool
}

func (k Check) sum() (*sum, error) {
	s := &sum{check: k}
	switch k.Sum {
	case NoSum, NMEA:
	case XOR, Sum8, LRC:
		s.bytes = 1
	case Sum16:
		s.bytes = 2
	case CRC32:
		s.bytes, s.reflected = 4, true
	default:
		p, ok := crcs(k.Sum)
		if !ok {
			return nil, fmt.Errorf("frame: checksum %q is unknown%s", k.Sum, hint.OneOf(k.Sum, Sums()))
		}
		s.bytes, s.init, s.out, s.reflected = p.bytes, p.init, p.out, p.reflected
		s.table = crcTable(p)
	}
	switch {
	case k.From < 0:
		return nil, fmt.Errorf("frame: checksum from byte %d: the first is 0", k.From)
	case k.Coding > SDI12 || k.Order > Little:
		return nil, errors.New("frame: unknown coding or order of the checksum")
	case k.Coding == SDI12 && s.bytes != 2:
		return nil, errors.New("frame: SDI-12 writes checksums of 16 bits only")
	case k.Sum == NMEA && k != (Check{Sum: NMEA}):
		return nil, errors.New("frame: the checksum nmea has its own form; leave the rest out")
	}
	return s, nil
}

func crcs(name Sum) (crcParams, bool) {
	switch name {
	case CRC8:
		return crcParams{bytes: 1, poly: 0x07}, true
	case CRC8Maxim:
		return crcParams{bytes: 1, poly: 0x8C, reflected: true}, true
	case CRC16ARC:
		return crcParams{bytes: 2, poly: 0xA001, reflected: true}, true
	case CRC16MB:
		return crcParams{bytes: 2, poly: 0xA001, init: 0xFFFF, reflected: true}, true
	case CRC16CCIT:
		return crcParams{bytes: 2, poly: 0x1021, init: 0xFFFF}, true
	case CRC16XM:
		return crcParams{bytes: 2, poly: 0x1021}, true
	case CRC16KERM:
		return crcParams{bytes: 2, poly: 0x8408, reflected: true}, true
	case CRC16X25:
		return crcParams{bytes: 2, poly: 0x8408, init: 0xFFFF, out: 0xFFFF, reflected: true}, true
	}
	return crcParams{}, false
}

// crcTable is the table of the bytewise algorithm. The register of an unreflected CRC is kept in the
// upper bits of 32, so that all widths shift the same way.
func crcTable(p crcParams) []uint32 {
	t := make([]uint32, 256)
	for i := range t {
		r := uint32(i)
		if !p.reflected {
			r <<= 24
		}
		for range 8 {
			if p.reflected {
				r = r>>1 ^ p.poly*(r&1)
			} else {
				r = r<<1 ^ (p.poly<<(32-8*p.bytes))*(r>>31)
			}
		}
		t[i] = r
	}
	return t
}

func (s *sum) start() uint32 {
	if s.table != nil && !s.reflected {
		return s.init << (32 - 8*s.bytes)
	}
	return s.init
}

func (s *sum) add(h uint32, b []byte) uint32 {
	switch {
	case s.table != nil && s.reflected:
		t := (*[256]uint32)(s.table)
		for _, x := range b {
			h = h>>8 ^ t[byte(h)^x]
		}
	case s.table != nil:
		t := (*[256]uint32)(s.table)
		for _, x := range b {
			h = h<<8 ^ t[byte(h>>24)^x]
		}
	case s.check.Sum == XOR:
		h ^= uint32(xorBytes(b))
	case s.check.Sum == CRC32:
		h = crc32.Update(h, crc32.IEEETable, b)
	default:
		for _, x := range b {
			h += uint32(x)
		}
	}
	return h
}

func xorBytes(b []byte) (x byte) {
	for _, y := range b {
		x ^= y
	}
	return x
}

// finish turns the register into the checksum.
func (s *sum) finish(h uint32) uint32 {
	if s.table != nil && !s.reflected {
		h >>= 32 - 8*s.bytes
	}
	switch {
	case s.check.Sum == LRC:
		h = -h
	}
	return (h ^ s.out) & uint32(uint64(1)<<(8*s.bytes)-1)
}

// width is how many bytes the checksum takes as it is written.
func (s *sum) width() int {
	switch s.check.Coding {
	case Hex:
		return 2 * s.bytes
	case SDI12:
		return 3
	}
	return s.bytes
}

// after returns how many of the bytes b behind an end marker are the checksum, and whether all of it
// has come. Some meters write a CRC without its leading zeros; what is no digit ends it then.
func (s *sum) after(b []byte) (n int, all bool) {
	for w := s.width(); n < w; n++ {
		if n == len(b) {
			return n, false
		}
		if _, digit := hexDigit(b[n]); n > 0 && !digit && s.check.Coding == Hex {
			break
		}
	}
	return n, true
}

// verify checks the checksum at the end of cover and returns data without it. data and cover end
// together.
func (s *sum) verify(data, cover []byte) ([]byte, bool) {
	switch s.check.Sum {
	case NoSum:
		return data, true
	case NMEA:
		return verifyNMEA(data)
	}
	w := s.width()
	if len(data) < w {
		return nil, false
	}
	n := len(cover) - w
	if !s.matches(cover[:n], cover[n:]) {
		return nil, false
	}
	return data[: len(data)-w : len(data)-w], true
}

// matches tells whether written is the checksum of b.
func (s *sum) matches(b, written []byte) bool {
	if s.check.Sum == NoSum {
		return true
	}
	if s.check.From > len(b) {
		return false
	}
	return s.equal(s.add(s.start(), b[s.check.From:]), written)
}

// equal tells whether written is the checksum that the register h stands for.
func (s *sum) equal(h uint32, written []byte) bool {
	if s.check.Sum == NoSum {
		return true
	}
	want := s.finish(h)
	var got uint32
	switch s.check.Coding {
	case Hex:
		for _, c := range written {
			d, ok := hexDigit(c)
			if !ok {
				return false
			}
			got = got<<4 | uint32(d)
		}
	case SDI12:
		for _, c := range written {
			if c&0xC0 != 0x40 {
				return false
			}
			got = got<<6 | uint32(c&0x3F)
		}
	default:
		for i := range written {
			c := written[i]
			if s.little() {
				c = written[len(written)-1-i]
			}
			got = got<<8 | uint32(c)
		}
	}
	return got == want
}

func (s *sum) little() bool {
	return s.check.Order == Little || s.check.Order == Natural && s.reflected
}

// Append appends the checksum of b to it, for a request that is to be sent.
func (k Check) Append(b []byte) ([]byte, error) {
	s, err := k.sum()
	if err != nil {
		return nil, err
	}
	switch {
	case k.Sum == NoSum:
		return b, nil
	case k.Sum == NMEA:
		body := b
		if len(body) > 0 && (body[0] == '$' || body[0] == '!') {
			body = body[1:]
		}
		return fmt.Appendf(b, "*%02X", xorBytes(body)), nil
	case k.From > len(b):
		return nil, fmt.Errorf("frame: checksum from byte %d of %d", k.From, len(b))
	}
	v := s.finish(s.add(s.start(), b[k.From:]))
	switch k.Coding {
	case Hex:
		return fmt.Appendf(b, "%0*X", 2*s.bytes, v), nil
	case SDI12:
		return append(b, 0x40|byte(v>>12), 0x40|byte(v>>6&0x3F), 0x40|byte(v&0x3F)), nil
	}
	at := len(b)
	for i := s.bytes - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	if s.little() {
		slices.Reverse(b[at:])
	}
	return b, nil
}

// verifyNMEA checks a sentence of NMEA 0183 and returns it from its $ or ! to before its *. What
// stands before that is the tail of a sentence whose end was lost.
func verifyNMEA(b []byte) ([]byte, bool) {
	n := len(b) - 3
	if n < 1 || b[n] != '*' {
		return nil, false
	}
	hi, ok1 := hexDigit(b[n+1])
	lo, ok2 := hexDigit(b[n+2])
	if !ok1 || !ok2 {
		return nil, false
	}
	// One pass from the end: the XOR, and the last start of a sentence.
	var x byte
	for i := n - 1; i >= 0; i-- {
		if b[i] == '$' || b[i] == '!' {
			return b[i:n:n], x == hi<<4|lo
		}
		x ^= b[i]
	}
	return nil, false
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
