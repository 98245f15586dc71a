package sim

import (
	"encoding/binary"
	"math"
	"sort"
	"time"

	"gateway/adapters/i2c"
)

// BME280 models Bosch's sensor: its trimming is that of the datasheet's worked example, its raw
// values are those whose compensation gives the waves' values. It knows forced mode only.
type BME280 struct {
	registers
	start                           time.Time
	now                             func() time.Time
	Temperature, Pressure, Humidity Wave // °C, Pa, %RH
}

// NewBME280 returns a sensor on a roof: days of 24 minutes, so that a demo sees them pass.
func NewBME280(now func() time.Time) *BME280 {
	c := &BME280{
		start: now(), now: now,
		Temperature: Wave{18, 6, 24 * time.Minute},
		Pressure:    Wave{101325, 600, 90 * time.Minute},
		Humidity:    Wave{55, 15, 31 * time.Minute},
	}
	c.mem[0xD0] = 0x60
	// BMP280 datasheet, 3.12 (T1 to P9); humidity words as chips have them.
	for i, v := range []int{27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000} {
		binary.LittleEndian.PutUint16(c.mem[0x88+2*i:], uint16(v))
	}
	c.mem[0xA1] = 75
	copy(c.mem[0xE1:], []byte{0x6A, 0x01, 0x00, 0x13, 0x2F, 0x03, 0x1E})
	return c
}

// Tx serves the register file; writing forced mode to ctrl_meas measures.
func (c *BME280) Tx(w, r []byte) error {
	// The BME280 takes pairs of register and value, not runs.
	for len(w) > 2 {
		c.tx(w[:2], nil, c.written)
		w = w[2:]
	}
	c.tx(w, r, c.written)
	return nil
}

func (c *BME280) written(reg, v byte) {
	if reg != 0xF4 || v&3 != 1 {
		return
	}
	c.mem[0xF4] = v &^ 3
	t := c.now().Sub(c.start)
	rawT := search20(true, func(raw uint32) float64 { return c.celsius(raw) / 5120 }, c.Temperature.At(t))
	fine := c.celsius(rawT)
	rawP := search20(false, func(raw uint32) float64 { return c.pascals(raw, fine) }, c.Pressure.At(t))
	rawH := uint16(sort.Search(0xFFFF, func(raw int) bool { return c.percent(float64(raw), fine) >= c.Humidity.At(t) }))
	put := func(reg byte, raw uint32) {
		c.mem[reg], c.mem[reg+1], c.mem[reg+2] = byte(raw>>12), byte(raw>>4), byte(raw<<4)
	}
	put(0xF7, rawP)
	put(0xFA, rawT)
	binary.BigEndian.PutUint16(c.mem[0xFD:], rawH)
}

// search20 finds the raw value of 20 bits for which the monotonic f gives want.
func search20(rising bool, f func(uint32) float64, want float64) uint32 {
	return uint32(sort.Search(1<<20-1, func(raw int) bool {
		if rising {
			return f(uint32(raw)) >= want
		}
		return f(uint32(raw)) <= want
	}))
}

// The chip's physics are the inverse of the datasheet's compensation (BME280 datasheet, 8.1), with
// the trimming above.
func (c *BME280) celsius(raw uint32) float64 {
	a := float64(raw)
	d := a/131072 - 27504.0/8192
	return (a/16384-27504.0/1024)*26435 - d*d*1000
}

func (c *BME280) pascals(raw uint32, fine float64) float64 {
	x := fine/2 - 64000
	y := (x*x*-7/32768+x*280)/4 + 2855*65536
	x = (1 + (3024*x*x/524288-10685*x)/524288/32768) * 36477
	p := (1048576 - float64(raw) - y/4096) * 6250 / x
	return p + (6000*p*p/2147483648-p*14600/32768+15500)/16
}

func (c *BME280) percent(raw, fine float64) float64 {
	h := fine - 76800
	h = (raw - (319*64 + 50.0/16384*h)) * (362.0 / 65536 * (1 + 30.0/67108864*h))
	return h * (1 - 75*h/524288)
}

// SHT3x models Sensirion's sensor: single shots without clock stretching, and the status register.
type SHT3x struct {
	start                 time.Time
	now                   func() time.Time
	ready                 time.Time // when the measurement under way ends
	measuring             bool
	status                bool // the status register has been asked for
	Temperature, Humidity Wave
}

// NewSHT3x returns a sensor in a cellar.
func NewSHT3x(now func() time.Time) *SHT3x {
	return &SHT3x{start: now(), now: now, Temperature: Wave{12, 1.5, 40 * time.Minute}, Humidity: Wave{72, 6, 27 * time.Minute}}
}

// Tx takes a command of 16 bits, or gives the answer to the one before.
func (c *SHT3x) Tx(w, r []byte) error {
	if len(w) >= 2 {
		switch command := binary.BigEndian.Uint16(w); {
		case command>>8 == 0x24:
			c.measuring, c.ready = true, c.now().Add(12*time.Millisecond)
		case command == 0xF32D:
			c.status = true
		case command == 0x30A2, command == 0x3093, command == 0x3041:
			c.measuring, c.status = false, false
		default:
			return ErrNoAck
		}
	}
	if len(r) == 0 {
		return nil
	}
	switch {
	case c.status:
		c.status = false
		sensirion(r, 0x0010)
	case c.measuring && !c.now().Before(c.ready):
		c.measuring = false
		t := c.now().Sub(c.start)
		sensirion(r, word((c.Temperature.At(t)+45)/175), word(c.Humidity.At(t)/100))
	default:
		return ErrNoAck
	}
	return nil
}

// word is a fraction of full scale as 16 bits.
func word(x float64) uint16 { return uint16(math.Round(min(max(x, 0), 1) * 65535)) }

// sensirion fills b with words, each followed by its CRC.
func sensirion(b []byte, words ...uint16) {
	crc := i2c.CRC8{Poly: 0x31, Init: 0xFF}
	var full []byte
	for _, w := range words {
		p := []byte{byte(w >> 8), byte(w)}
		full = append(full, p[0], p[1], crc.Sum(p...))
	}
	copy(b, full)
}
