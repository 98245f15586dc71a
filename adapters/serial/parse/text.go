package parse

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"gateway/adapters"
	"gateway/adapters/hint"
)

// Type is what a text stands for.
type Type string

// The types of values in text.
const (
	Number  Type = "number"  // a decimal number; the default
	Integer Type = "int"     // a whole number of up to 64 bits, exactly
	HexInt  Type = "hex"     // a whole number in hexadecimal digits
	Bool    Type = "bool"    // see Text.True and Text.False
	String  Type = "text"    // the text itself, without blanks around it
	HexText Type = "hextext" // text, two hexadecimal digits a byte: equipment identifiers in P1 telegrams
)

// Types lists the types.
func Types() []Type { return []Type{Number, Integer, HexInt, Bool, String, HexText} }

// Text says how a text becomes a value. The zero Text is a number as it stands.
type Text struct {
	Type          Type
	Scale, Offset float64  // value = number*Scale + Offset; Scale 0: 1
	Min, Max      *float64 // valid range of the value, both ends included; nil: none
	DecimalComma  bool     // 23,5
	Unit          string   // what may follow the number, and is passed over: kg, *kWh
	True, False   []string // Bool: default 1, true, on, yes and 0, false, off, no
	Sentinels     []string // by which the device says that it has no value
	Overrange     []string // by which the device says that the sensor is saturated: OL
	Labels        map[string]string

	scaled bool
}

func (t *Text) prepare() error {
	if t.Type == "" {
		t.Type = Number
	}
	if !slices.Contains(Types(), t.Type) {
		return fmt.Errorf("type %q is unknown%s", t.Type, hint.OneOf(t.Type, Types()))
	}
	for _, x := range []float64{t.Scale, t.Offset} {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return errors.New("scale and offset must be finite")
		}
	}
	t.scaled = t.Scale != 0 && t.Scale != 1 || t.Offset != 0
	numeric := t.Type == Number || t.Type == Integer || t.Type == HexInt
	switch {
	case !numeric && (t.scaled || t.Min != nil || t.Max != nil):
		return fmt.Errorf("%s is no number: scale, offset and range do not apply", t.Type)
	case t.Min != nil && t.Max != nil && *t.Min > *t.Max:
		return fmt.Errorf("the valid range is empty: min %v is above max %v", *t.Min, *t.Max)
	case t.Type != Bool && len(t.True)+len(t.False) > 0:
		return fmt.Errorf("words for true and false do not apply to the type %s", t.Type)
	case len(t.Labels) > 0 && (t.scaled || t.Min != nil || t.Max != nil):
		return errors.New("a point has labels or is a number with scale and range, not both")
	}
	if t.Scale == 0 {
		t.Scale = 1
	}
	return nil
}

var noValue = Result{Reason: adapters.ReasonSentinel}

// convert understands the text of a field.
func (t *Text) convert(b []byte) Result {
	b = bytes.TrimSpace(b)
	if t.Unit != "" {
		b = bytes.TrimSpace(bytes.TrimSuffix(b, unsafeBytes(t.Unit)))
	}
	switch {
	case len(b) == 0 && t.Type != String, has(t.Sentinels, b):
		return noValue
	case has(t.Overrange, b):
		return Result{Reason: adapters.ReasonOverrange}
	}
	if t.Labels != nil {
		if l, ok := t.Labels[string(b)]; ok {
			return Result{Value: adapters.StringValue(l)}
		}
		return Result{Value: adapters.StringValue(printable(b))}
	}
	switch t.Type {
	case Number:
		x, ok := t.number(b)
		if !ok {
			return Result{Reason: adapters.ReasonParse}
		}
		if !t.scaled {
			return t.inRange(x)
		}
		return t.scaleDecimal(x, b)
	case Integer:
		return t.integer(b, 10)
	case HexInt:
		return t.integer(bytes.TrimPrefix(bytes.TrimPrefix(b, []byte("0x")), []byte("0X")), 16)
	case Bool:
		return t.truth(b)
	case HexText:
		raw, ok := appendHex(nil, b)
		if !ok {
			return Result{Reason: adapters.ReasonParse}
		}
		return Result{Value: adapters.StringValue(printable(raw))}
	}
	return Result{Value: adapters.StringValue(printable(b))}
}

// number reads a decimal number without blanks around it. Scales put blanks between sign and digits;
// some devices write a comma for the point.
func (t *Text) number(b []byte) (float64, bool) {
	var buf [40]byte
	if len(b) > len(buf) {
		return 0, false
	}
	clean := len(b) > 0
	for _, c := range b {
		if c == ' ' || c == ',' && t.DecimalComma {
			clean = false
		}
		// strconv would take hexadecimal, underscores and words, too.
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != ' ' && c != ',' && c != 'e' && c != 'E' {
			return t.notFinite(b)
		}
	}
	if !clean {
		n := 0
		for _, c := range b {
			if c == ' ' {
				if n == 1 && (buf[0] == '+' || buf[0] == '-') {
					continue
				}
				return 0, false
			}
			if c == ',' && t.DecimalComma {
				c = '.'
			}
			buf[n] = c
			n++
		}
		b = buf[:n]
	}
	x, err := strconv.ParseFloat(unsafeString(b), 64)
	if err != nil && !math.IsInf(x, 0) {
		return 0, false
	}
	return x, true
}

// notFinite takes the words for what is no number, so that they are told from garbage.
func (t *Text) notFinite(b []byte) (float64, bool) {
	switch strings.ToLower(strings.TrimLeft(string(b), "+-")) {
	case "nan", "inf", "infinity":
		return math.NaN(), true
	}
	return 0, false
}

// scaleDecimal scales a decimal number of which the digits are known. Where scale and offset are
// short decimals the result is the double nearest to the decimal that was meant: 712 × 0.1 is 71.2.
func (t *Text) scaleDecimal(x float64, b []byte) Result {
	digits := 0
	if i := bytes.LastIndexAny(b, ".,"); i >= 0 {
		digits = len(b) - i - 1
	}
	if bytes.ContainsAny(b, "eE") {
		return t.inRange(x*t.Scale + t.Offset)
	}
	return t.inRange(roundTo(x*t.Scale+t.Offset, digits, t.Scale, t.Offset))
}

// roundTo rounds x to as many decimals as it can have: those of the number plus those of the scale,
// or those of the offset.
func roundTo(x float64, digits int, scale, offset float64) float64 {
	d, ok1 := decimals(scale)
	o, ok2 := decimals(offset)
	digits = max(digits+d, o)
	if !ok1 || !ok2 || digits > 15 {
		return x
	}
	p := math.Pow10(digits)
	if y := x * p; math.Abs(y) < 1<<53 {
		return math.Round(y) / p
	}
	return x
}

// decimals returns how many digits after the point x has, if they are at most nine.
func decimals(x float64) (int, bool) {
	for d := range 10 {
		y := x * math.Pow10(d)
		if math.Abs(y) >= 1<<53 {
			return 0, false
		}
		if r := math.Round(y); math.Abs(y-r) <= 1e-9*math.Max(1, math.Abs(y)) && r/math.Pow10(d) == x {
			return d, true
		}
	}
	return 0, false
}

// scale finishes a number that a format gives as a number.
func (t *Text) scale(x float64) Result {
	if t.Type != Number {
		return Result{Reason: adapters.ReasonParse}
	}
	return t.inRange(x*t.Scale + t.Offset)
}

func (t *Text) inRange(x float64) Result {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return Result{Reason: adapters.ReasonNotFinite}
	case t.Min != nil && x < *t.Min || t.Max != nil && x > *t.Max:
		return Result{Reason: adapters.ReasonRange}
	}
	return Result{Value: adapters.FloatValue(x)}
}

func (t *Text) integer(b []byte, base int) Result {
	if len(b) > 1 && b[0] == '+' {
		b = b[1:]
	}
	s := unsafeString(b)
	n, err := strconv.ParseInt(s, base, 64)
	if err == nil {
		if t.scaled {
			return t.inRange(roundTo(float64(n)*t.Scale+t.Offset, 0, t.Scale, t.Offset))
		}
		if r := t.inRange(float64(n)); r.Reason != "" {
			return r
		}
		return Result{Value: adapters.IntValue(n)}
	}
	if u, err := strconv.ParseUint(s, base, 64); err == nil {
		if r := t.inRange(float64(u)*t.Scale + t.Offset); r.Reason != "" || t.scaled {
			return r
		}
		return Result{Value: adapters.UintValue(u)}
	}
	return Result{Reason: adapters.ReasonParse}
}

func (t *Text) truth(b []byte) Result {
	is := func(words []string, usual ...string) bool {
		if words == nil {
			words = usual
		}
		return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, unsafeString(b)) })
	}
	switch {
	case is(t.True, "1", "true", "on", "yes"):
		return Result{Value: adapters.BoolValue(true)}
	case is(t.False, "0", "false", "off", "no"):
		return Result{Value: adapters.BoolValue(false)}
	}
	return Result{Reason: adapters.ReasonParse}
}

func has(words []string, b []byte) bool {
	for _, w := range words {
		if w == string(b) {
			return true
		}
	}
	return false
}

// printable makes UTF-8 of what a device sent: what is not is read as Latin-1, control characters
// become blanks.
func printable(b []byte) string {
	s := string(b)
	if !utf8.Valid(b) {
		r := make([]rune, len(b))
		for i, c := range b {
			r[i] = rune(c)
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

// unsafeString lets the standard library read b without a copy. What it is given to keeps nothing.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// unsafeBytes is the reverse, for reading only.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
