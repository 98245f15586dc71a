package decode

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/adapters/hint"
)

// Encode puts v into the first Size bytes of b: the reverse of Decode. Only the field's own bits
// change, so for a type that is not Whole b must hold what the container held before. A text is taken
// for the label, number or truth value that it spells. What does not fit, or lies outside of the
// valid range, is an error that says what would.
func (f *Field) Encode(b []byte, v adapters.Value) error { return f.EncodeExp(b, v, 0) }

// EncodeExp is the reverse of DecodeExp.
func (f *Field) EncodeExp(b []byte, v adapters.Value, exp int) error {
	t := f.spec.Type
	if len(b) < t.Bytes {
		return fmt.Errorf("decode: a %v needs %d bytes, there are %d", t, t.Bytes, len(b))
	}
	b = b[:t.Bytes]
	if t.Text() {
		return f.encodeText(b, v)
	}
	raw, err := f.encodeNumber(v, exp)
	if err != nil {
		return err
	}
	mask := t.mask() << t.Shift
	f.spec.Order.store(b, f.spec.Order.load(b)&^mask|raw<<t.Shift&mask)
	return nil
}

// Mask sets the field's own bits in b, at least Size bytes, and clears the others.
func (f *Field) Mask(b []byte) {
	t := f.spec.Type
	if !t.Text() {
		f.spec.Order.store(b[:t.Bytes], t.mask()<<t.Shift)
		return
	}
	for i := range t.Bytes {
		b[i] = 0xff
		if t.Kind == StringLow && i%2 == 0 || t.Kind == StringHigh && i%2 == 1 {
			b[i] = 0
		}
	}
}

func (f *Field) encodeNumber(v adapters.Value, exp int) (uint64, error) {
	t := f.spec.Type
	if v.Kind() == adapters.String {
		var err error
		if v, err = f.parse(v.Str()); err != nil {
			return 0, err
		}
	}
	if t.Kind == Bool {
		return f.encodeBool(v)
	}
	x, isNumber := v.Number()
	if v.Kind() == adapters.Bool {
		isNumber = true
		v = adapters.UintValue(0)
		if x = 0; v.Bool() {
			x = 1
		}
	}
	if !isNumber {
		return 0, fmt.Errorf("decode: there is no value to encode as a %v", t)
	}
	if f.inRange(x) != "" {
		return 0, fmt.Errorf("decode: %v is outside of the valid range %s", v, f.validRange())
	}
	if t.Kind != Float && exp == 0 && f.spec.Scale == 1 && f.spec.Offset == 0 && v.Kind() != adapters.Float {
		if v.Kind() == adapters.Int {
			return f.fromInt(v.Int())
		}
		return f.fromUint(v.Uint(), v)
	}
	x = (x - f.spec.Offset) / f.spec.Scale / math.Pow10(exp)
	if t.Kind == Float {
		return f.fromFloat(x, v)
	}
	n := math.Round(x)
	switch {
	case n >= -1<<63 && n < 1<<63:
		return f.fromInt(int64(n))
	case n >= 1<<63 && n < 1<<64:
		return f.fromUint(uint64(n), v)
	}
	return 0, f.tooLarge(v)
}

func (f *Field) encodeBool(v adapters.Value) (uint64, error) {
	if v.Kind() == adapters.Bool {
		if v.Bool() {
			return 1, nil
		}
		return 0, nil
	}
	if x, ok := v.Number(); ok && (x == 0 || x == 1) {
		return uint64(x), nil
	}
	return 0, fmt.Errorf("decode: %v is neither true nor false, 1 nor 0", v)
}

func (f *Field) fromInt(n int64) (uint64, error) {
	t := f.spec.Type
	if t.Kind != Int {
		if n < 0 {
			return 0, f.tooLarge(adapters.IntValue(n))
		}
		return f.fromUint(uint64(n), adapters.IntValue(n))
	}
	if signed(uint64(n)&t.mask(), t.Bits) != n {
		return 0, f.tooLarge(adapters.IntValue(n))
	}
	return uint64(n) & t.mask(), nil
}

func (f *Field) fromUint(n uint64, v adapters.Value) (uint64, error) {
	t := f.spec.Type
	if t.Kind == Int {
		if n > math.MaxInt64 {
			return 0, f.tooLarge(v)
		}
		return f.fromInt(int64(n))
	}
	if t.Kind == BCD {
		if t.Bits < 64 && n >= uint64(math.Pow10(t.Bits/4)) || n > 9999999999999999 {
			return 0, f.tooLarge(v)
		}
		return toBCD(n), nil
	}
	if bits.Len64(n) > t.Bits {
		return 0, f.tooLarge(v)
	}
	return n, nil
}

func (f *Field) fromFloat(x float64, v adapters.Value) (uint64, error) {
	var raw uint64
	var back float64
	switch f.spec.Type.Bits {
	case 16:
		raw = uint64(toFloat16(x))
		back = float16(uint16(raw))
	case 32:
		raw = uint64(math.Float32bits(float32(x)))
		back = float64(float32(x))
	default:
		raw = math.Float64bits(x)
		back = x
	}
	if math.IsInf(back, 0) || math.IsNaN(back) {
		return 0, f.tooLarge(v)
	}
	return raw, nil
}

// parse reads a text as what the field holds.
func (f *Field) parse(s string) (adapters.Value, error) {
	s = strings.TrimSpace(s)
	for n, l := range f.spec.Labels {
		if l == s {
			return adapters.IntValue(n), nil
		}
	}
	if f.spec.Flags != nil {
		if v, ok := f.parseFlags(s); ok {
			return v, nil
		}
	}
	switch strings.ToLower(s) {
	case "true", "on":
		return adapters.BoolValue(true), nil
	case "false", "off":
		return adapters.BoolValue(false), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return adapters.IntValue(n), nil
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return adapters.UintValue(n), nil
	}
	if x, err := strconv.ParseFloat(s, 64); err == nil {
		if v := adapters.FloatValue(x); v.Kind() == adapters.Float {
			return v, nil
		}
	}
	if f.spec.Labels != nil {
		labels := make([]string, 0, len(f.spec.Labels))
		for _, l := range f.spec.Labels {
			labels = append(labels, l)
		}
		if near := hint.DidYouMean(s, labels); near != "" {
			return adapters.Value{}, fmt.Errorf("decode: no label %q%s", s, near)
		}
	}
	return adapters.Value{}, fmt.Errorf("decode: %q is not a %v", s, f.spec.Type)
}

func (f *Field) parseFlags(s string) (adapters.Value, bool) {
	var n uint64
	if s == "" {
		return adapters.UintValue(0), true
	}
next:
	for part := range strings.SplitSeq(s, ",") {
		for bit, l := range f.spec.Flags {
			if l == part {
				n |= 1 << bit
				continue next
			}
		}
		var bit int
		if _, err := fmt.Sscanf(part, "bit %d", &bit); err != nil || bit < 0 || bit >= f.spec.Type.Bits {
			return adapters.Value{}, false
		}
		n |= 1 << bit
	}
	return adapters.UintValue(n), true
}

func (f *Field) encodeText(b []byte, v adapters.Value) error {
	s := v.Str()
	if v.Kind() != adapters.String {
		return fmt.Errorf("decode: %v is not a text", v)
	}
	room := len(b)
	step, at := 1, 0
	switch f.spec.Type.Kind {
	case Hex:
		raw, err := hex.DecodeString(s)
		if err != nil || len(raw) != len(b) {
			return fmt.Errorf("decode: %q is not %d bytes in hexadecimal", s, len(b))
		}
		copy(b, raw)
		return nil
	case StringLow, StringHigh:
		room, step, at = len(b)/2, 2, half(f.spec.Type.Kind)
	}
	if len(s) > room {
		return fmt.Errorf("decode: %q has %d bytes, there is room for %d", s, len(s), room)
	}
	for i := range room {
		c := byte(0)
		if i < len(s) {
			c = s[i]
		}
		p := at + step*i
		if f.spec.Type.Kind == String && f.spec.Order&SwapBytes != 0 && p^1 < len(b) {
			p ^= 1
		}
		b[p] = c
	}
	return nil
}

func (f *Field) tooLarge(v adapters.Value) error {
	t := f.spec.Type
	var lo, hi float64
	switch t.Kind {
	case Int:
		lo, hi = -math.Ldexp(1, t.Bits-1), math.Ldexp(1, t.Bits-1)-1
	case BCD:
		hi = math.Pow10(t.Bits/4) - 1
	case Float:
		hi = map[int]float64{16: 65504, 32: math.MaxFloat32, 64: math.MaxFloat64}[t.Bits]
		lo = -hi
	default:
		hi = math.Ldexp(1, t.Bits) - 1
	}
	lo, hi = lo*f.spec.Scale+f.spec.Offset, hi*f.spec.Scale+f.spec.Offset
	return fmt.Errorf("decode: %v does not fit: a %v with this scale holds %v to %v", v, t, min(lo, hi), max(lo, hi))
}

func (f *Field) validRange() string {
	switch {
	case f.spec.Min == nil:
		return fmt.Sprintf("up to %v", *f.spec.Max)
	case f.spec.Max == nil:
		return fmt.Sprintf("from %v", *f.spec.Min)
	}
	return fmt.Sprintf("%v to %v", *f.spec.Min, *f.spec.Max)
}
