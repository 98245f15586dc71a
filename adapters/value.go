package adapters

import (
	"math"
	"strconv"
)

// Kind is the type of a Value.
type Kind uint8

const (
	None Kind = iota // no value
	Bool
	Int    // signed, 64 bits
	Uint   // unsigned, 64 bits
	Float  // IEEE 754 double; never NaN or infinite
	String // UTF-8 text
)

// A Value is what a point measured. The zero Value is no value. Values compare with ==.
type Value struct {
	kind Kind
	bits uint64
	str  string
}

// BoolValue returns a Bool.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, bits: 1}
	}
	return Value{kind: Bool}
}

// IntValue returns an Int.
func IntValue(i int64) Value { return Value{kind: Int, bits: uint64(i)} }

// UintValue returns a Uint.
func UintValue(u uint64) Value { return Value{kind: Uint, bits: u} }

// FloatValue returns a Float, or no value where f is NaN or infinite: such a reading is bad with
// ReasonNotFinite, and a Value must not be able to say otherwise.
func FloatValue(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: Float, bits: math.Float64bits(f)}
}

// StringValue returns a String.
func StringValue(s string) Value { return Value{kind: String, str: s} }

// Kind returns the value's type, None for no value.
func (v Value) Kind() Kind { return v.kind }

// Bool returns the value of a Bool.
func (v Value) Bool() bool { return v.kind == Bool && v.bits != 0 }

// Int returns the value of an Int.
func (v Value) Int() int64 { return int64(v.bits) }

// Uint returns the value of a Uint.
func (v Value) Uint() uint64 { return v.bits }

// Str returns the text of a String, empty for other kinds.
func (v Value) Str() string { return v.str }

// Number returns the value as a double and whether it is a number (Int, Uint or Float). Integers
// beyond 2^53 lose precision.
func (v Value) Number() (float64, bool) {
	switch v.kind {
	case Int:
		return float64(int64(v.bits)), true
	case Uint:
		return float64(v.bits), true
	case Float:
		return math.Float64frombits(v.bits), true
	}
	return 0, false
}

// AppendText appends the value as plain text: true, -12, 71.2, or the string itself. Floats have the
// shortest form that reads back to the same double, never with an exponent below 1e21.
func (v Value) AppendText(b []byte) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(b, v.bits != 0)
	case Int:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case Uint:
		return strconv.AppendUint(b, v.bits, 10)
	case Float:
		f := math.Float64frombits(v.bits)
		format := byte('f')
		if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
			format = 'e'
		}
		return strconv.AppendFloat(b, f, format, -1, 64)
	case String:
		return append(b, v.str...)
	}
	return b
}

// String returns the value as AppendText writes it.
func (v Value) String() string { return string(v.AppendText(nil)) }
