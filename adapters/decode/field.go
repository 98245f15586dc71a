package decode

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"gateway/adapters"
)

// A Spec is what is known of a quantity in bytes. The zero values of the optional parts mean that
// there is nothing to do.
type Spec struct {
	Type  Type
	Order Order

	Scale     float64 // value = number*Scale + Offset; 0: 1
	Offset    float64
	Min, Max  *float64 // valid range of the scaled value, both ends included
	Sentinels []uint64 // raw bits by which the device says that it has no value
	Zero      bool     // text: an empty string is no value

	Labels map[int64]string // an enumeration: the value is the label, unknown numbers stay digits
	Flags  map[int]string   // a bit field: the value is the labels of the bits set, joined by commas

	Decimals *int // digits worth showing; nil: derived from the scale
}

// A Field decodes and encodes one quantity. It is immutable and safe for concurrent use.
type Field struct {
	spec   Spec
	round  float64 // the power of ten by which a scaled value is rounded; 0: not at all
	digits int8
}

// New checks the spec and returns its field.
func New(s Spec) (*Field, error) {
	if err := s.Type.check(); err != nil {
		return nil, err
	}
	if s.Scale == 0 {
		s.Scale = 1
	}
	if math.IsNaN(s.Scale) || math.IsInf(s.Scale, 0) || math.IsNaN(s.Offset) || math.IsInf(s.Offset, 0) {
		return nil, errors.New("decode: scale and offset must be finite")
	}
	scaled := s.Scale != 1 || s.Offset != 0
	if s.Type.Kind == Bool || s.Type.Text() {
		if scaled || s.Min != nil || s.Max != nil || s.Flags != nil {
			return nil, fmt.Errorf("decode: a %v is no number: scale, offset, range and flags do not apply", s.Type)
		}
		if s.Type.Text() && s.Labels != nil {
			return nil, fmt.Errorf("decode: a %v is no number: labels do not apply", s.Type)
		}
	}
	if s.Min != nil && s.Max != nil && *s.Min > *s.Max {
		return nil, fmt.Errorf("decode: the valid range is empty: min %v is above max %v", *s.Min, *s.Max)
	}
	if s.Labels != nil && s.Flags != nil {
		return nil, errors.New("decode: a field has labels for its values or flags for its bits, not both")
	}
	if (s.Labels != nil || s.Flags != nil) && (scaled || s.Type.Kind == Float) {
		return nil, errors.New("decode: labels and flags name whole numbers: no scale, no offset, no float")
	}
	labels := make(map[string]int64, len(s.Labels))
	for n, l := range s.Labels {
		if was, twice := labels[l]; twice {
			return nil, fmt.Errorf("decode: the label %q stands for %d and for %d", l, min(n, was), max(n, was))
		}
		labels[l] = n
	}
	for bit := range s.Flags {
		if bit < 0 || bit >= s.Type.Bits {
			return nil, fmt.Errorf("decode: flag of bit %d: a %v has the bits 0 to %d", bit, s.Type, s.Type.Bits-1)
		}
	}
	for _, v := range s.Sentinels {
		if !s.Type.Text() && v > s.Type.mask() {
			return nil, fmt.Errorf("decode: sentinel %#x does not fit into a %v", v, s.Type)
		}
	}
	f := &Field{spec: s, digits: -1}
	ds, ok1 := decimals(s.Scale)
	do, ok2 := decimals(s.Offset)
	if ok1 && ok2 && s.Type.Kind != Float {
		f.digits = int8(max(ds, do))
		if scaled {
			f.round = math.Pow10(int(f.digits))
		}
	}
	for n := range s.Labels {
		if !f.holds(n) {
			return nil, fmt.Errorf("decode: label %q of %d: a %v never is %d", s.Labels[n], n, s.Type, n)
		}
	}
	if s.Decimals != nil {
		f.digits = int8(max(0, min(*s.Decimals, 30)))
	}
	return f, nil
}

// holds tells whether the field's number can be n.
func (f *Field) holds(n int64) bool {
	if f.spec.Type.Kind == Bool {
		return n == 0 || n == 1
	}
	_, err := f.fromInt(n)
	return err == nil
}

// Size returns how many bytes the field takes.
func (f *Field) Size() int { return f.spec.Type.Bytes }

// Type returns the type of the field.
func (f *Field) Type() Type { return f.spec.Type }

// Order returns the byte order of the field.
func (f *Field) Order() Order { return f.spec.Order }

// Decimals returns the digits after the point that are worth showing, negative for as many as
// needed: what the spec says, else what the scale implies.
func (f *Field) Decimals() int8 { return f.digits }

// Decode returns the value in the first Size bytes of b, or why it is bad. A slice that is too short
// is ReasonParse.
func (f *Field) Decode(b []byte) (adapters.Value, adapters.Reason) { return f.DecodeExp(b, 0) }

// DecodeExp is Decode with the number multiplied by ten to the power of exp before the scale: for
// devices that keep the scale in a register of its own (SunSpec's "sunssf").
func (f *Field) DecodeExp(b []byte, exp int) (adapters.Value, adapters.Reason) {
	t := f.spec.Type
	if len(b) < t.Bytes {
		return adapters.Value{}, adapters.ReasonParse
	}
	b = b[:t.Bytes]
	if t.Text() {
		return f.text(b)
	}
	raw := f.Raw(b)
	for _, s := range f.spec.Sentinels {
		if raw == s {
			return adapters.Value{}, adapters.ReasonSentinel
		}
	}
	plain := exp == 0 && f.spec.Scale == 1 && f.spec.Offset == 0
	switch t.Kind {
	case Bool:
		if f.spec.Labels != nil {
			return f.label(min(int64(raw), 1)), ""
		}
		return adapters.BoolValue(raw != 0), ""
	case Float:
		return f.float(raw, exp)
	case Int:
		n := signed(raw, t.Bits)
		if plain {
			return f.whole(float64(n), n, adapters.IntValue(n))
		}
		return f.scaled(float64(n), exp)
	case BCD:
		var ok bool
		if raw, ok = fromBCD(raw); !ok {
			return adapters.Value{}, adapters.ReasonParse
		}
	}
	if plain {
		return f.whole(float64(raw), int64(raw), adapters.UintValue(raw))
	}
	return f.scaled(float64(raw), exp)
}

// Raw returns the field's bits in b, at least Size bytes, right-aligned and before any
// interpretation. It is 0 for text.
func (f *Field) Raw(b []byte) uint64 {
	t := f.spec.Type
	if t.Text() {
		return 0
	}
	return f.spec.Order.load(b[:t.Bytes]) >> t.Shift & t.mask()
}

// whole finishes an integer without scale.
func (f *Field) whole(x float64, n int64, v adapters.Value) (adapters.Value, adapters.Reason) {
	if r := f.inRange(x); r != "" {
		return adapters.Value{}, r
	}
	switch {
	case f.spec.Labels != nil:
		return f.label(n), ""
	case f.spec.Flags != nil:
		return f.flags(uint64(n)), ""
	}
	return v, ""
}

// scaled finishes an integer with scale. Where scale and offset are short decimals the result is the
// double nearest to the decimal that was meant: 712 × 0.1 is 71.2.
func (f *Field) scaled(n float64, exp int) (adapters.Value, adapters.Reason) {
	x := n
	if exp < 0 {
		x /= math.Pow10(-exp)
	} else if exp > 0 {
		x *= math.Pow10(exp)
	}
	x = x*f.spec.Scale + f.spec.Offset
	if f.round != 0 && exp >= 0 {
		if y := x * f.round; math.Abs(y) < 1<<53 {
			x = math.Round(y) / f.round
		}
	}
	return f.finish(x)
}

func (f *Field) float(raw uint64, exp int) (adapters.Value, adapters.Reason) {
	var x float64
	switch f.spec.Type.Bits {
	case 16:
		x = float16(uint16(raw))
	case 32:
		x = float64(math.Float32frombits(uint32(raw)))
	default:
		x = math.Float64frombits(raw)
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return adapters.Value{}, adapters.ReasonNotFinite
	}
	scale := f.spec.Scale * math.Pow10(exp)
	x = x*scale + f.spec.Offset
	if f.spec.Type.Bits == 64 {
		return f.finish(x)
	}
	return f.finish(shortest(x, func(y float64) bool {
		y = (y - f.spec.Offset) / scale
		if f.spec.Type.Bits == 16 {
			return toFloat16(y) == uint16(raw)
		}
		return math.Float32bits(float32(y)) == uint32(raw)
	}))
}

func (f *Field) finish(x float64) (adapters.Value, adapters.Reason) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return adapters.Value{}, adapters.ReasonNotFinite
	}
	if r := f.inRange(x); r != "" {
		return adapters.Value{}, r
	}
	return adapters.FloatValue(x), ""
}

func (f *Field) inRange(x float64) adapters.Reason {
	if f.spec.Min != nil && x < *f.spec.Min || f.spec.Max != nil && x > *f.spec.Max {
		return adapters.ReasonRange
	}
	return ""
}

func (f *Field) label(n int64) adapters.Value {
	if l, ok := f.spec.Labels[n]; ok {
		return adapters.StringValue(l)
	}
	return adapters.StringValue(strconv.FormatInt(n, 10))
}

// flags joins the labels of the bits that are set, lowest first; a bit without a label is "bit 5".
func (f *Field) flags(bits uint64) adapters.Value {
	var b []byte
	for i := range f.spec.Type.Bits {
		if bits>>i&1 == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		if l, ok := f.spec.Flags[i]; ok {
			b = append(b, l...)
		} else {
			b = strconv.AppendInt(append(b, "bit "...), int64(i), 10)
		}
	}
	return adapters.StringValue(string(b))
}

func (f *Field) text(b []byte) (adapters.Value, adapters.Reason) {
	var s string
	switch f.spec.Type.Kind {
	case Hex:
		s = hex.EncodeToString(b)
	case String:
		c := append([]byte(nil), b...)
		if f.spec.Order&SwapBytes != 0 {
			for i := 0; i+1 < len(c); i += 2 {
				c[i], c[i+1] = c[i+1], c[i]
			}
		}
		s = clean(c)
	default:
		c := make([]byte, 0, len(b)/2)
		for i := half(f.spec.Type.Kind); i < len(b); i += 2 {
			c = append(c, b[i])
		}
		s = clean(c)
	}
	if s == "" && f.spec.Zero {
		return adapters.Value{}, adapters.ReasonSentinel
	}
	return adapters.StringValue(s), ""
}

// half is which byte of a register carries the character.
func half(k Kind) int {
	if k == StringLow {
		return 1
	}
	return 0
}

// clean ends the text at the first NUL, trims the padding, and reads what is not UTF-8 as Latin-1,
// for values must be UTF-8. Control characters become spaces.
func clean(b []byte) string {
	s := string(b)
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	if !utf8.ValidString(s) {
		r := make([]rune, len(s))
		for i := range len(s) {
			r[i] = rune(s[i])
		}
		s = string(r)
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s))
}

// signed extends the sign of a two's complement number of n bits.
func signed(raw uint64, n int) int64 { return int64(raw<<(64-n)) >> (64 - n) }

func fromBCD(raw uint64) (uint64, bool) {
	var n uint64
	for i := 60; i >= 0; i -= 4 {
		d := raw >> i & 0xf
		if d > 9 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func toBCD(n uint64) uint64 {
	var raw uint64
	for i := 0; n > 0 && i < 64; i += 4 {
		raw |= n % 10 << i
		n /= 10
	}
	return raw
}
