package decode

import "math"

// float16 returns the double of an IEEE 754 binary16.
func float16(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	exp, frac := int(h>>10&0x1f), float64(h&0x3ff)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 0x1f:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// toFloat16 rounds to the nearest binary16, ties to even; what is too large becomes an infinity.
func toFloat16(f float64) uint16 {
	var sign uint16
	if math.Signbit(f) {
		sign = 0x8000
		f = -f
	}
	switch {
	case math.IsNaN(f):
		return sign | 0x7e00
	case f >= 65520: // half way between the largest, 65504, and the next
		return sign | 0x7c00
	case f < 0x1p-14: // subnormal: multiples of 2^-24
		return sign | uint16(math.RoundToEven(f*0x1p24))
	}
	frac, exp := math.Frexp(f) // frac in [0.5, 1)
	m := uint16(math.RoundToEven(frac * 2048))
	// m is 1024 to 2048; adding it with its leading one carries into the exponent as it should.
	return sign | (uint16(exp+13)<<10 + m)
}

// shortest returns the double with the fewest decimals that the device would have sent as the same
// float, so that a float32 of 230.1 is published as 230.1 and not as 230.10000610351562.
func shortest(x float64, same func(float64) bool) float64 {
	if x == 0 || math.Abs(x) >= 1e9 || math.Abs(x) < 1e-6 {
		return x
	}
	p := 1.0
	for range 13 {
		if s := math.Round(x*p) / p; same(s) {
			return s
		}
		p *= 10
	}
	return x
}

// decimals returns how many digits after the point it takes to write f, and false when more than
// nine.
func decimals(f float64) (int, bool) {
	f = math.Abs(f)
	p := 1.0
	for n := range 10 {
		// The double nearest to a short decimal is what dividing two exact integers gives.
		if r := math.Round(f * p); r < 1<<53 && r/p == f {
			return n, true
		}
		p *= 10
	}
	return 0, false
}
