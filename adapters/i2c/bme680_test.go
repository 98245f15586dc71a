package i2c

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// A trimming of the size that chips have, constructed: T1 26041, T2 26469, T3 3; P1 36673, P2 -10515,
// P3 88, P4 7310, P5 -128, P6 30, P7 46, P8 -3177, P9 -2379, P10 30; H1 795, H2 1023, H3 0, H4 45,
// H5 20, H6 120, H7 -100; G1 -29, G2 -5969, G3 18; heater range 1, value 46; range error -1.
func bme680Trimming() (a, b, heat []byte) {
	a, b = make([]byte, 0xA2-0x89), make([]byte, 0xF1-0xE1)
	put := func(block []byte, base, reg int, values ...int) {
		copy(block[reg-base:], le16(values...))
	}
	put(a, 0x89, 0x8A, 26469)
	a[0x8C-0x89] = 3
	put(a, 0x89, 0x8E, 36673, -10515)
	a[0x92-0x89] = 88
	put(a, 0x89, 0x94, 7310, -128)
	a[0x98-0x89], a[0x99-0x89] = 46, 30
	put(a, 0x89, 0x9C, -3177, -2379)
	a[0xA0-0x89] = 30
	b[0], b[1], b[2] = 1023>>4, 1023&0x0F<<4|795&0x0F, 795>>4
	signed := func(v int) byte { return byte(v) }
	copy(b[3:], []byte{0, 45, 20, 120, signed(-100)})
	put(b, 0xE1, 0xE9, 26041, -5969)
	b[0xED-0xE1], b[0xEE-0xE1] = signed(-29), 18
	return a, b, []byte{46, 0, 0x10, 0, 0xF0}
}

func bme680Example() (k bme680Calibration) {
	a, b, h := bme680Trimming()
	k.parse(a, b, h[0], h[2], h[4])
	return k
}

func TestBME680Trimming(t *testing.T) {
	want := bme680Calibration{
		t1: 26041, t2: 26469, t3: 3, p1: 36673, p2: -10515, p3: 88, p4: 7310, p5: -128, p6: 30, p7: 46, p8: -3177, p9: -2379, p10: 30,
		h1: 795, h2: 1023, h4: 45, h5: 20, h6: 120, h7: -100, g1: -29, g2: -5969, g3: 18, heatRange: 1, heatVal: 46, rangeSw: -1,
	}
	if got := bme680Example(); got != want {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func TestBME680(t *testing.T) {
	a, b, heat := bme680Trimming()
	setup := []i2ctest.IO{
		{W: []byte{0xD0}, R: []byte{0x61}}, {W: []byte{0x89}, R: a}, {W: []byte{0xE1}, R: b}, {W: []byte{0x00}, R: heat},
	}
	k := bme680Example()
	command := []byte{0x5A, k.heat(320, 25), 0x64, 0x66, 0x71, 0x10, 0x72, 0x02, 0x74, 0x8D}
	// Raw values: pressure 0x5A000, temperature 0x77000, humidity 0x5800; gas 512 in range 8.
	data := []byte{0x80, 0, 0x5A, 0x00, 0x00, 0x77, 0x00, 0x00, 0x58, 0x00, 0, 0, 0, 0x80, 0x38, 0, 0}
	running := append([]byte{0x20}, data[1:]...)
	_, fine := k.temperature(0x77000)
	refT, refFine := refTemperature680(k, 0x77000)
	exchange{
		chip: "bme680", setup: setup,
		measure: []i2ctest.IO{{W: command}, {W: []byte{0x1D}, R: running}, {W: []byte{0x1D}, R: data}},
		values: map[string]any{
			"temperature":    float64(refT) / 100,
			"pressure":       k.pressure(0x5A000, fine) / 100,
			"humidity":       float64(refHumidity680(k, 0x5800, refFine)) / 1000,
			"gas_resistance": k.gas(512, 8),
		},
		within: 0.02,
		busy:   150 * time.Millisecond,
	}.run(t)
	cold := append([]byte(nil), data...)
	cold[14] = 0x28 // the heater did not reach its target
	exchange{
		chip: "bme680", setup: setup, want: []string{"gas_resistance"},
		measure: []i2ctest.IO{{W: command}, {W: []byte{0x1D}, R: cold}},
		values: map[string]any{
			"temperature": float64(refT) / 100, "pressure": k.pressure(0x5A000, fine) / 100,
			"humidity": float64(refHumidity680(k, 0x5800, refFine)) / 1000, "gas_resistance": adapters.ReasonNotReady,
		},
		within: 0.02,
	}.run(t)
	exchange{chip: "bme680", setup: []i2ctest.IO{{W: []byte{0xD0}, R: []byte{0x60}}}, err: "not that of a BME680"}.run(t)
}

// Figure "heater duration": 0x59 is 100 ms; a code is at most 63 times its factor.
func TestBME680HeatingTime(t *testing.T) {
	for ms, code := range map[int]byte{1: 0x01, 63: 0x3F, 64: 0x50, 100: 0x59, 4032: 0xFF} {
		if got := bme680Wait(ms); got != code {
			t.Errorf("%d ms: 0x%02x, want 0x%02x", ms, got, code)
		}
	}
}

// The formulas in floating point must agree with the integer ones of Bosch's own driver (BME68x
// sensor API, calc_* without BME68X_USE_FPU; datasheet 3.3), written down below for reference.
func TestBME680FloatAgreesWithTheIntegerReference(t *testing.T) {
	k := bme680Example()
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		rawT, rawP, rawH := 400000+r.Uint32N(180000), 300000+r.Uint32N(200000), uint16(15000+r.IntN(15000))
		celsius, _ := k.temperature(rawT)
		if celsius < -30 || celsius > 80 {
			continue
		}
		refT, fine := refTemperature680(k, int32(rawT))
		if math.Abs(celsius-float64(refT)/100) > 0.02 {
			t.Fatalf("adc_T %d: %v °C, reference %d", rawT, celsius, refT)
		}
		// Above some 1060 hPa the reference's 32 bits overflow with this trimming ((p>>8)^3 * P10).
		p, ref := k.pressure(rawP, float64(fine)), float64(refPressure680(k, rawP, fine))
		if p < 106000 && math.Abs(p-ref) > 12 { // 32 bits are that coarse
			t.Fatalf("adc_P %d: %v Pa, reference %v", rawP, p, ref)
		}
		if h, ref := k.relative(rawH, float64(fine)), float64(refHumidity680(k, int32(rawH), fine))/1000; math.Abs(h-ref) > 0.1 {
			t.Fatalf("adc_H %d at %v °C: %v %%, reference %v", rawH, celsius, h, ref)
		}
		rawG, rng := uint16(r.IntN(1024)), byte(r.IntN(16))
		if g, ref := k.gas(rawG, rng), refGas680(k, rawG, rng); math.Abs(g-ref) > 0.002*ref+1 {
			t.Fatalf("adc_G %d in range %d: %v Ω, reference %v", rawG, rng, g, ref)
		}
	}
}

func refTemperature680(k bme680Calibration, adc int32) (centi, fine int32) {
	v1 := int64(adc>>3) - int64(k.t1)<<1
	v2 := v1 * int64(k.t2) >> 11
	v3 := (v1 >> 1) * (v1 >> 1) >> 12 * (int64(k.t3) << 4) >> 14
	fine = int32(v2 + v3)
	return (fine*5 + 128) >> 8, fine
}

func refPressure680(k bme680Calibration, adc uint32, fine int32) int32 {
	v1 := fine>>1 - 64000
	v2 := ((v1 >> 2) * (v1 >> 2) >> 11) * int32(k.p6) >> 2
	v2 += v1 * int32(k.p5) << 1
	v2 = v2>>2 + int32(k.p4)<<16
	v1 = ((v1>>2)*(v1>>2)>>13)*(int32(k.p3)<<5)>>3 + int32(k.p2)*v1>>1
	v1 = (32768 + v1>>18) * int32(k.p1) >> 15
	p := uint32(1048576-int32(adc)-v2>>12) * 3125
	if p >= 0x40000000 {
		p = p / uint32(v1) << 1
	} else {
		p = p << 1 / uint32(v1)
	}
	q := int32(p)
	v1 = int32(k.p9) * ((q >> 3) * (q >> 3) >> 13) >> 12
	v2 = (q >> 2) * int32(k.p8) >> 13
	v3 := (q >> 8) * (q >> 8) * (q >> 8) * int32(k.p10) >> 17
	return q + (v1+v2+v3+int32(k.p7)<<7)>>4
}

func refHumidity680(k bme680Calibration, adc, fine int32) int32 {
	t := (fine*5 + 128) >> 8
	v1 := adc - int32(k.h1)*16 - (t*int32(k.h3)/100)>>1
	v2 := int32(k.h2) * (t*int32(k.h4)/100 + (t*(t*int32(k.h5)/100)>>6)/100 + 1<<14) >> 10
	v3 := v1 * v2
	v4 := (int32(k.h6)<<7 + t*int32(k.h7)/100) >> 4
	v5 := (v3 >> 14) * (v3 >> 14) >> 10
	return min(max(int32((int64(v3)+int64(v4*v5>>1))>>10*1000>>12), 0), 100000)
}

func refGas680(k bme680Calibration, adc uint16, rng byte) float64 {
	k1 := [16]int64{
		2147483647, 2147483647, 2147483647, 2147483647, 2147483647, 2126008810, 2147483647, 2130303777,
		2147483647, 2147483647, 2143188679, 2136746228, 2147483647, 2126008810, 2147483647, 2147483647,
	}
	k2 := [16]int64{
		4096000000, 2048000000, 1024000000, 512000000, 255744255, 127110228, 64000000, 32258064,
		16016016, 8000000, 4000000, 2000000, 1000000, 500000, 250000, 125000,
	}
	v1 := (1340 + 5*int64(k.rangeSw)) * k1[rng] >> 16
	v2 := int64(adc)<<15 - 16777216 + v1
	v3 := k2[rng] * v1 >> 9
	return float64((v3 + v2>>1) / v2)
}
