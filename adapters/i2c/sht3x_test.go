package i2c

import (
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

var (
	sht3xSetup   = []i2ctest.IO{{W: []byte{0x30, 0x93}}, {W: []byte{0x30, 0xA2}}}
	sht3xTrigger = i2ctest.IO{W: []byte{0x24, 0x00}}
)

// withCRC makes an answer of words as Sensirion's chips give it.
func withCRC(words ...uint16) (b []byte) {
	for _, w := range words {
		p := []byte{byte(w >> 8), byte(w)}
		b = append(b, p[0], p[1], crcSensirion.Sum(p...))
	}
	return b
}

func TestSHT3x(t *testing.T) {
	exchange{
		chip:  "sht3x",
		setup: sht3xSetup,
		// 0x6666 is 2/5 of full scale: -45+175*0.4 °C; 0x8000 is 50 %RH.
		measure: []i2ctest.IO{sht3xTrigger, {R: withCRC(0x6666, 0x8000)}},
		values:  map[string]any{"temperature": 25.0, "humidity": 50.00076295109483},
		within:  1e-12,
		busy:    15500 * time.Microsecond,
	}.run(t)
	exchange{
		chip: "sht3x", addr: 0x45,
		setup:   sht3xSetup,
		measure: []i2ctest.IO{sht3xTrigger, {R: withCRC(0, 0xFFFF)}},
		values:  map[string]any{"temperature": -45.0, "humidity": 100.0},
	}.run(t)
}

func TestSHT3xDamagedAnswer(t *testing.T) {
	bad := withCRC(0x6666, 0x8000)
	bad[3] ^= 0x10
	exchange{chip: "sht3x", setup: sht3xSetup, measure: []i2ctest.IO{sht3xTrigger, {R: bad}}, err: "checksum"}.run(t)
}

// "Measurement ... not finished: the read header is not acknowledged": controllers have three words for that.
func TestAnSHTThatStillConvertsIsReadOnceMore(t *testing.T) {
	for fault, want := range map[Fault]bool{FaultNoAck: true, FaultRemote: true, FaultOther: true, FaultTimeout: false} {
		reads := 0
		bus := &fakeBus{chips: map[uint16]func(w, r []byte) error{}}
		bus.chips[0x44] = func(w, r []byte) error {
			if len(w) == 0 {
				if reads++; reads == 1 {
					return bus.fault(0x44, fault)
				}
			}
			return sht3xAt(w, r)
		}
		out := newResults(2)
		err := sht3x{}.measure(testConn(bus, 0x44), out)
		if (err == nil) != want {
			t.Errorf("%v: %v", fault, err)
		}
	}
}

func TestSHT4x(t *testing.T) {
	reset, trigger := i2ctest.IO{W: []byte{0x94}}, i2ctest.IO{W: []byte{0xFD}}
	exchange{
		chip:    "sht4x",
		setup:   []i2ctest.IO{reset},
		measure: []i2ctest.IO{trigger, {R: withCRC(0x6666, 0x6666)}},
		values:  map[string]any{"temperature": 25.0, "humidity": 44.0},
		busy:    8300 * time.Microsecond,
	}.run(t)
	// The formula's -6 and 119 %RH are cropped.
	for word, want := range map[uint16]float64{0: 0, 0xFFFF: 100} {
		exchange{
			chip:    "sht4x",
			setup:   []i2ctest.IO{reset},
			measure: []i2ctest.IO{trigger, {R: withCRC(0x6666, word)}},
			values:  map[string]any{"temperature": 25.0, "humidity": want},
		}.run(t)
	}
}
