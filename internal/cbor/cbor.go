// Package cbor writes and reads the part of CBOR (RFC 8949) that the gateway's formats use.
//
// What is written has the shortest form that holds it (preferred serialization, section 4.1); lengths are
// definite where the caller knows them.
package cbor

import (
	"encoding/binary"
	"math"
	"strings"
)

// Major types (section 3.1), in the place where a head has them.
const (
	unsigned = 0 << 5
	negative = 1 << 5
	bytes    = 2 << 5
	text     = 3 << 5
	array    = 4 << 5
	mapping  = 5 << 5
	simple   = 7 << 5
)

// What has no argument: simple values (3.3), and the ends of what has no length (3.2.1).
const (
	False = simple | 20
	True  = simple | 21
	Null  = simple | 22

	OpenArray = array | 31 // an array until Break
	OpenMap   = mapping | 31
	Break     = simple | 31

	half   = simple | 25
	single = simple | 26
	double = simple | 27
)

// head appends a major type with its argument (section 3).
func head(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// AppendUint appends an unsigned integer.
func AppendUint(b []byte, n uint64) []byte { return head(b, unsigned, n) }

// UintLen returns how many bytes AppendUint appends.
func UintLen(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	case n <= math.MaxUint32:
		return 5
	}
	return 9
}

// AppendInt appends an integer.
func AppendInt(b []byte, i int64) []byte {
	if i < 0 {
		return head(b, negative, uint64(^i))
	}
	return head(b, unsigned, uint64(i))
}

// AppendBytes appends a byte string.
func AppendBytes(b, s []byte) []byte { return append(head(b, bytes, uint64(len(s))), s...) }

// AppendText appends a text string. What is not UTF-8 in its parts becomes U+FFFD.
func AppendText(b []byte, parts ...string) []byte {
	n := 0
	for i, s := range parts {
		parts[i] = strings.ToValidUTF8(s, "\ufffd")
		n += len(parts[i])
	}
	b = head(b, text, uint64(n))
	for _, s := range parts {
		b = append(b, s...)
	}
	return b
}

// AppendArray begins an array of n items, which are appended next.
func AppendArray(b []byte, n int) []byte { return head(b, array, uint64(n)) }

// AppendMap begins a map of n pairs, each a key and its value, which are appended next.
func AppendMap(b []byte, n int) []byte { return head(b, mapping, uint64(n)) }

// AppendBool appends true or false.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, True)
	}
	return append(b, False)
}

// AppendNumber appends f as an integer where it is one that a double holds with all its neighbours, and
// otherwise in half, single or double precision, whichever is the first to hold it exactly.
func AppendNumber(b []byte, f float64) []byte {
	const exact = 1 << 53
	if f == math.Trunc(f) && f <= exact && f >= -exact && (f != 0 || !math.Signbit(f)) {
		return AppendInt(b, int64(f))
	}
	f32 := float32(f)
	if float64(f32) != f {
		return binary.BigEndian.AppendUint64(append(b, double), math.Float64bits(f))
	}
	if h, ok := toHalf(f32); ok {
		return binary.BigEndian.AppendUint16(append(b, half), h)
	}
	return binary.BigEndian.AppendUint32(append(b, single), math.Float32bits(f32))
}

// toHalf returns f in half precision, and whether that is exact. Infinities and NaN are not tried.
func toHalf(f float32) (h uint16, exact bool) {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exp, man := int(bits>>23&0xff)-127, bits&(1<<23-1)
	switch {
	case bits<<1 == 0:
		return sign, true
	case exp >= -14 && exp <= 15:
		return sign | uint16(exp+15)<<10 | uint16(man>>13), man<<19 == 0
	case exp >= -24 && exp < -14: // subnormal in half precision: a multiple of 2^-24
		man |= 1 << 23
		drop := -1 - exp
		return sign | uint16(man>>drop), man&(1<<drop-1) == 0
	}
	return 0, false
}

func fromHalf(h uint16) float64 {
	exp, man := int(h>>10&31), float64(h&(1<<10-1))
	var f float64
	switch exp {
	case 0:
		f = math.Ldexp(man, -24)
	case 31:
		if f = math.Inf(1); man != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(man+1<<10, exp-25)
	}
	return math.Copysign(f, 1-2*float64(h>>15))
}
