package i2c

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// The trimming of the worked example: BMP280 datasheet (BST-BMP280-DS001), 3.12 "Calculating
// pressure and temperature".
func exampleTrimming() []byte {
	b := make([]byte, 26)
	for i, v := range []int{27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000} {
		binary.LittleEndian.PutUint16(b[2*i:], uint16(v))
	}
	b[25] = 75 // H1, where a BME280 has it
	return b
}

// A humidity trimming as chips have it, with H4 and H5 sharing 0xE5: H2 362, H3 0, H4 319, H5 50,
// H6 30.
var humidityTrimming = []byte{0x6A, 0x01, 0x00, 0x13, 0x2F, 0x03, 0x1E}

// ... and its raw values, as registers 0xF7 to 0xFC hold them: adc_P 415148, adc_T 519888.
var exampleData = []byte{415148 >> 12, 415148 >> 4 & 0xFF, 415148 & 0xF << 4, 519888 >> 12, 519888 >> 4 & 0xFF, 519888 & 0xF << 4}

func bmp280Setup(id byte) []i2ctest.IO {
	return []i2ctest.IO{
		{W: []byte{0xD0}, R: []byte{id}},
		{W: []byte{0xF3}, R: []byte{0}},
		{W: []byte{0x88}, R: exampleTrimming()},
	}
}

func bme280Setup() []i2ctest.IO {
	return append(bmp280Setup(0x60), i2ctest.IO{W: []byte{0xE1}, R: humidityTrimming})
}

// The datasheet's result is 25.08 °C and 100653.27 Pa.
func TestBMP280WorkedExampleOfTheDatasheet(t *testing.T) {
	exchange{
		chip:  "bmp280",
		setup: bmp280Setup(0x58),
		measure: []i2ctest.IO{
			{W: []byte{0xF5, 0x00, 0xF4, 0x25}},
			{W: []byte{0xF3}, R: []byte{0x08}}, // still measuring
			{W: []byte{0xF3}, R: []byte{0x00}},
			{W: []byte{0xF7}, R: exampleData},
		},
		values: map[string]any{"temperature": 25.08, "pressure": 1006.5327},
		within: 0.003,
		busy:   6400 * time.Microsecond,
	}.run(t)
}

func TestBME280(t *testing.T) {
	exchange{
		chip: "bme280", addr: 0x77,
		settings: map[string]any{"temperature_oversampling": int64(2), "pressure_oversampling": int64(16), "humidity_oversampling": int64(1), "filter": int64(16)},
		setup:    bme280Setup(),
		measure: []i2ctest.IO{
			{W: []byte{0xF2, 0x01, 0xF5, 0x10, 0xF4, 0x55}},
			{W: []byte{0xF3}, R: []byte{0x00}},
			{W: []byte{0xF7}, R: append(append([]byte(nil), exampleData...), 0x6E, 0xD0)},
		},
		values: map[string]any{"temperature": 25.08, "pressure": 1006.5327, "humidity": float64(referenceHumidity(exampleCalibration(), 0x6ED0, 128422)) / 1024},
		within: 0.005, // the integer reference is that coarse
		busy:   (1250 + 2300*2 + 2300*16 + 575 + 2300 + 575) * time.Microsecond,
	}.run(t)
}

// A real chip's trimming and data, published in periph's tests (periph.io/x/devices v3.7.4,
// bmxx80/bmx280_test.go, TestI2CSenseBME280_success), with what their integer arithmetic makes of it.
func TestBME280PublishedCapture(t *testing.T) {
	exchange{
		chip:     "bme280",
		settings: map[string]any{"temperature_oversampling": 4.0, "pressure_oversampling": 4.0, "humidity_oversampling": 4.0},
		setup: []i2ctest.IO{
			{W: []byte{0xD0}, R: []byte{0x60}},
			{W: []byte{0xF3}, R: []byte{0}},
			{W: []byte{0x88}, R: []byte{0x10, 0x6E, 0x6C, 0x66, 0x32, 0x00, 0x5D, 0x95, 0xB8, 0xD5, 0xD0, 0x0B, 0x77, 0x1E, 0x9D, 0xFF, 0xF9, 0xFF, 0xAC, 0x26, 0x0A, 0xD8, 0xBD, 0x10, 0x00, 0x4B}},
			{W: []byte{0xE1}, R: []byte{0x6E, 0x01, 0x00, 0x13, 0x05, 0x00, 0x1E}},
		},
		measure: []i2ctest.IO{
			{W: []byte{0xF2, 0x03, 0xF5, 0x00, 0xF4, 0x6D}},
			{W: []byte{0xF3}, R: []byte{8}}, {W: []byte{0xF3}, R: []byte{0}},
			{W: []byte{0xF7}, R: []byte{0x4A, 0x52, 0xC0, 0x80, 0x96, 0xC0, 0x7A, 0x76}},
		},
		values: map[string]any{"temperature": 23.72, "pressure": 1009.426953, "humidity": 65.3056},
		within: 0.01,
	}.run(t)
}

func exampleCalibration() (k bmxCalibration) {
	k.parse(exampleTrimming(), humidityTrimming)
	return k
}

func TestBME280ValuesThatWereNotMeasuredAreNotReady(t *testing.T) {
	skipped := []byte{0x80, 0, 0, exampleData[3], exampleData[4], exampleData[5], 0x80, 0}
	exchange{
		chip:  "bme280",
		setup: bme280Setup(),
		measure: []i2ctest.IO{
			{W: []byte{0xF2, 0x01, 0xF5, 0x00, 0xF4, 0x25}},
			{W: []byte{0xF3}, R: []byte{0x00}},
			{W: []byte{0xF7}, R: skipped},
		},
		values: map[string]any{"temperature": 25.08, "pressure": adapters.ReasonNotReady, "humidity": adapters.ReasonNotReady},
		within: 0.003,
	}.run(t)
}

func TestBME280OtherChipsAreRefusedByName(t *testing.T) {
	exchange{chip: "bme280", setup: bmp280Setup(0x58)[:1], err: `set chip = "bmp280"`}.run(t)
	exchange{chip: "bme280", setup: bmp280Setup(0x55)[:1], err: "chip id 0x55 is neither"}.run(t)
	empty := bmp280Setup(0x58)
	empty[2].R = make([]byte, 26)
	exchange{chip: "bmp280", setup: empty, err: "trimming is empty"}.run(t)
}

// Some drivers (periph's bmxx80 v3.7.4 among them) read H5 without its sign.
func TestBME280SignOfH4AndH5(t *testing.T) {
	var k bmxCalibration
	k.parse(exampleTrimming(), []byte{0, 0, 0, 0xFE, 0x3C, 0xF0, 0x80})
	if k.h4 != -20 || k.h5 != -253 || k.h6 != -128 {
		t.Errorf("H4 %d, H5 %d, H6 %d; want -20, -253, -128", k.h4, k.h5, k.h6)
	}
}

// The floating-point formulas must agree with the integer ones of the same datasheet (BME280, 4.2.3),
// written down here for reference, over the whole range.
func TestBME280FloatAgreesWithTheIntegerReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	k := exampleCalibration()
	for range 20000 {
		rawT := 400000 + r.Uint32N(250000)
		rawP := 250000 + r.Uint32N(400000)
		rawH := uint16(20000 + r.Uint32N(30000))
		celsius, fine := k.temperature(rawT)
		centi, refFine := referenceTemperature(k, int32(rawT))
		if celsius < -40 || celsius > 85 {
			continue
		}
		if math.Abs(celsius*100-float64(centi)) > 1.1 || math.Abs(fine-float64(refFine)) > 16 {
			t.Fatalf("adc_T %d: %v °C (fine %v), reference %d (%d)", rawT, celsius, fine, centi, refFine)
		}
		p, ref := k.pressure(rawP, float64(refFine)), float64(referencePressure(k, int64(rawP), int64(refFine)))/256
		if math.Abs(p-ref) > 0.5 {
			t.Fatalf("adc_P %d at %d: %v Pa, reference %v", rawP, refFine, p, ref)
		}
		h, refH := k.relative(rawH, float64(refFine)), float64(referenceHumidity(k, int32(rawH), refFine))/1024
		if math.Abs(h-refH) > 0.02 {
			t.Fatalf("adc_H %d at %d: %v %%, reference %v", rawH, refFine, h, refH)
		}
	}
}

func referenceTemperature(k bmxCalibration, adc int32) (centi, fine int32) {
	v1 := ((adc>>3 - int32(k.t1)<<1) * int32(k.t2)) >> 11
	d := adc>>4 - int32(k.t1)
	v2 := ((d * d >> 12) * int32(k.t3)) >> 14
	fine = v1 + v2
	return (fine*5 + 128) >> 8, fine
}

// referencePressure returns 1/256 Pa.
func referencePressure(k bmxCalibration, adc, fine int64) int64 {
	v1 := fine - 128000
	v2 := v1*v1*int64(k.p6) + v1*int64(k.p5)<<17 + int64(k.p4)<<35
	v1 = v1*v1*int64(k.p3)>>8 + v1*int64(k.p2)<<12
	v1 = (int64(1)<<47 + v1) * int64(k.p1) >> 33
	if v1 == 0 {
		return 0
	}
	p := ((1048576-adc)<<31 - v2) * 3125 / v1
	v1 = int64(k.p9) * (p >> 13) * (p >> 13) >> 25
	v2 = int64(k.p8) * p >> 19
	return (p+v1+v2)>>8 + int64(k.p7)<<4
}

// referenceHumidity returns 1/1024 %RH.
func referenceHumidity(k bmxCalibration, adc, fine int32) int32 {
	v := fine - 76800
	a := (adc<<14 - int32(k.h4)<<20 - int32(k.h5)*v + 16384) >> 15
	b := ((v*int32(k.h6)>>10)*((v*int32(k.h3)>>11)+32768)>>10 + 2097152) * int32(k.h2)
	v = a * ((b + 8192) >> 14)
	v -= ((v >> 15) * (v >> 15) >> 7) * int32(k.h1) >> 4
	return min(max(v, 0), 419430400) >> 12
}
