package decode

import (
	"fmt"
	"strconv"
	"strings"

	"gateway/adapters/hint"
)

// Kind is how the bits of a Type are understood.
type Kind uint8

const (
	Bool       Kind = iota // any bit set is true
	Uint                   // unsigned binary
	Int                    // two's complement, of any width
	Float                  // IEEE 754 of 16, 32 or 64 bits
	BCD                    // packed decimal, one digit per four bits
	String                 // text, one byte per character, padded with NUL or space
	StringLow              // text in the low byte of each 16-bit register
	StringHigh             // text in the high byte of each 16-bit register
	Hex                    // bytes shown as hexadecimal digits
)

// A Type is a Kind of Bits bits, Shift bits above the lowest bit of a big-endian container of Bytes
// bytes. For text and Hex only Kind and Bytes count.
type Type struct {
	Kind  Kind
	Bits  int // 1 to 64
	Shift int // 0 is the least significant bit
	Bytes int // numbers: 1 to 8; text: the length, 0 while it is unknown
}

// Text tells whether the type is one of those that have a length and no bits.
func (t Type) Text() bool { return t.Kind >= String }

// Whole tells whether the value fills its container, so that writing it needs nothing read before.
func (t Type) Whole() bool {
	return t.Text() && t.Kind != StringLow && t.Kind != StringHigh || t.Bits == 8*t.Bytes
}

// fixed are the names that do not follow the pattern of kind and width.
var fixed = []struct {
	name string
	Type
}{
	{"bool", Type{Bool, 8, 0, 1}},
	{"bit", Type{Bool, 1, 0, 2}},
	{"int8_low", Type{Int, 8, 0, 2}},
	{"int8_high", Type{Int, 8, 8, 2}},
	{"uint8_low", Type{Uint, 8, 0, 2}},
	{"uint8_high", Type{Uint, 8, 8, 2}},
	{"string", Type{Kind: String}},
	{"string_low", Type{Kind: StringLow}},
	{"string_high", Type{Kind: StringHigh}},
	{"hex", Type{Kind: Hex}},
}

// widths are the patterns of kind and width.
var widths = []struct {
	prefix string
	kind   Kind
	valid  func(bits int) bool
	common []int // offered when a name is close to one of them
}{
	{"int", Int, func(n int) bool { return n <= 64 }, []int{8, 16, 24, 32, 48, 64}},
	{"uint", Uint, func(n int) bool { return n <= 64 }, []int{8, 16, 24, 32, 48, 64}},
	{"float", Float, func(n int) bool { return n == 16 || n == 32 || n == 64 }, []int{16, 32, 64}},
	{"bcd", BCD, func(n int) bool { return n%4 == 0 && n <= 64 }, []int{8, 16, 32, 64}},
}

// ParseType reads the name of a type:
//
//	bool, bit                   any bit set; one bit of a 16-bit register (Shift says which)
//	int8 … int64, uint8 …       any width from 1 to 64 bits, in the fewest bytes that hold it
//	int8_low, uint8_high, …     one half of a 16-bit register
//	float16, float32, float64   IEEE 754
//	bcd8, bcd16, bcd32, bcd64   packed decimal digits
//	string, string_low, string_high, hex   text; Bytes is 0 until the length is known
func ParseType(name string) (Type, error) {
	for _, f := range fixed {
		if f.name == name {
			return f.Type, nil
		}
	}
	for _, w := range widths {
		digits, ok := strings.CutPrefix(name, w.prefix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 8)
		if err != nil || n == 0 || !w.valid(int(n)) || digits[0] == '0' {
			continue
		}
		return Type{Kind: w.kind, Bits: int(n), Bytes: (int(n) + 7) / 8}, nil
	}
	var names []string
	for _, f := range fixed {
		names = append(names, f.name)
	}
	for _, w := range widths {
		for _, n := range w.common {
			names = append(names, w.prefix+strconv.Itoa(n))
		}
	}
	if near := hint.DidYouMean(name, names); near != "" {
		return Type{}, fmt.Errorf("decode: no type %q%s", name, near)
	}
	return Type{}, fmt.Errorf("decode: no type %q; there are bool, bit, int16, uint16, int32, uint32, int64, uint64, float16, float32, float64, bcd16, bcd32, int8_low, uint8_high, string, hex and others", name)
}

// String returns the name that ParseType reads, with the bits named where the type is a part of a
// larger container.
func (t Type) String() string {
	for _, f := range fixed {
		if f.Type == t || t.Text() && f.Kind == t.Kind {
			return f.name
		}
	}
	if t.Kind == Bool {
		if t.Bits == 1 {
			return fmt.Sprintf("bit %d", t.Shift)
		}
		return "bool"
	}
	for _, w := range widths {
		if w.kind != t.Kind {
			continue
		}
		name := w.prefix + strconv.Itoa(t.Bits)
		if t.Shift != 0 || t.Bytes != (t.Bits+7)/8 {
			name += fmt.Sprintf(" (bits %d-%d of %d bytes)", t.Shift, t.Shift+t.Bits-1, t.Bytes)
		}
		return name
	}
	return "invalid"
}

// Part returns the type of bits lo to hi (both included, 0 the lowest) of t's container.
func (t Type) Part(lo, hi int) (Type, error) {
	if t.Kind != Int && t.Kind != Uint && t.Kind != Bool && t.Kind != BCD {
		return Type{}, fmt.Errorf("decode: bits of a %v cannot be picked out; use an integer type", t)
	}
	if lo < 0 || hi < lo || hi >= 8*t.Bytes {
		return Type{}, fmt.Errorf("decode: bits %d-%d: %v has the bits 0 to %d", lo, hi, t, 8*t.Bytes-1)
	}
	t.Shift, t.Bits = lo, hi-lo+1
	return t, nil
}

// InRegisters returns the type as 16-bit registers carry it: the container is widened to whole
// registers, a bool is a register that is not zero.
func (t Type) InRegisters() (Type, error) {
	if t.Text() {
		t.Bytes += t.Bytes % 2
		return t, nil
	}
	if t.Bytes == 1 {
		switch t.Kind {
		case Bool:
			return Type{Kind: Bool, Bits: 16, Bytes: 2}, nil
		case Int, Uint:
			if t.Bits == 8 {
				return Type{}, fmt.Errorf("decode: a register has two bytes: say %v_low or %v_high", t, t)
			}
		}
	}
	t.Bytes += t.Bytes % 2
	return t, nil
}

func (t Type) check() error {
	if t.Text() {
		if t.Bytes <= 0 {
			return fmt.Errorf("decode: a %v needs a length", t)
		}
		if t.Bytes%2 != 0 && t.Kind != String && t.Kind != Hex {
			return fmt.Errorf("decode: a %v fills whole registers; %d bytes do not", t, t.Bytes)
		}
		return nil
	}
	if t.Bytes < 1 || t.Bytes > 8 {
		return fmt.Errorf("decode: %v in %d bytes: a number has 1 to 8", t, t.Bytes)
	}
	if t.Bits < 1 || t.Shift < 0 || t.Shift > 63 || t.Shift+t.Bits > 8*t.Bytes {
		return fmt.Errorf("decode: bits %d-%d do not fit into %d bytes", t.Shift, t.Shift+t.Bits-1, t.Bytes)
	}
	if t.Kind == Float && t.Bits != 16 && t.Bits != 32 && t.Bits != 64 {
		return fmt.Errorf("decode: there is no float of %d bits", t.Bits)
	}
	if t.Kind == BCD && t.Bits%4 != 0 {
		return fmt.Errorf("decode: decimal digits take four bits each, %d is no multiple", t.Bits)
	}
	return nil
}

// mask returns the bits of the value, right-aligned.
func (t Type) mask() uint64 { return ^uint64(0) >> (64 - t.Bits) }
