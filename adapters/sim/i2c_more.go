package sim

import (
	"encoding/binary"
	"math"
	"time"
)

// words is a register file of words of 16 bits, high byte first, with a pointer that stays.
type words struct {
	mem     [256]uint16
	pointer byte
}

// tx writes the pointer and perhaps a word, and reads the word at the pointer over and over.
func (m *words) tx(w, r []byte) (wrote bool) {
	if len(w) > 0 {
		m.pointer = w[0]
	}
	if len(w) >= 3 {
		m.mem[m.pointer] = binary.BigEndian.Uint16(w[1:])
		wrote = true
	}
	for i := range r {
		r[i] = byte(m.mem[m.pointer] >> (8 * (1 - i%2)))
	}
	return wrote
}

// clip16 brings a number into 16 bits of two's complement, as a converter at its limit does.
func clip16(x float64) uint16 {
	return uint16(int16(math.Round(min(max(x, -32768), 32767))))
}

// INA219 models TI's power monitor, always converting, with a shunt of 0.1 Ω.
type INA219 struct {
	words
	start            time.Time
	now              func() time.Time
	Voltage, Current Wave // V, A
}

// NewINA219 returns a monitor of a 12 V battery that feeds the box.
func NewINA219(now func() time.Time) *INA219 {
	return &INA219{start: now(), now: now, Voltage: Wave{12.6, 0.4, 20 * time.Minute}, Current: Wave{0.35, 0.25, 3 * time.Minute}}
}

// Tx serves the registers; shunt and bus voltage are those of the moment.
func (c *INA219) Tx(w, r []byte) error {
	t := c.now().Sub(c.start)
	c.mem[1] = clip16(c.Current.At(t) * 0.1 / 10e-6)
	c.mem[2] = uint16(math.Round(c.Voltage.At(t)/4e-3))<<3 | 2 // CNVR: a conversion is there
	c.tx(w, r)
	return nil
}

// ADS1115 models TI's converter in single-shot mode. Inputs are in volts.
type ADS1115 struct {
	words
	start  time.Time
	now    func() time.Time
	done   time.Time
	Inputs [4]Wave
}

// NewADS1115 returns a converter with four slow voltages.
func NewADS1115(now func() time.Time) *ADS1115 {
	c := &ADS1115{start: now(), now: now, Inputs: [4]Wave{
		{1.2, 0.6, 7 * time.Minute}, {2.5, 0.1, 11 * time.Minute}, {0.4, 0.3, 5 * time.Minute}, {3.3, 0.01, time.Hour},
	}}
	c.mem[1] = 0x8583
	return c
}

// Tx serves the registers; writing the configuration with OS starts a conversion.
func (c *ADS1115) Tx(w, r []byte) error {
	if c.mem[1]&0x8000 == 0 && !c.now().Before(c.done) {
		c.mem[1] |= 0x8000
		c.mem[0] = c.convert()
	}
	if c.tx(w, r) && c.pointer == 1 && c.mem[1]&0x8000 != 0 {
		c.mem[1] &^= 0x8000
		rate := [8]float64{8, 16, 32, 64, 128, 250, 475, 860}[c.mem[1]>>5&7]
		c.done = c.now().Add(time.Duration(float64(time.Second) / rate))
	}
	return nil
}

// convert measures what MUX says at the range that PGA says (datasheet SBAS444, 8.6.3).
func (c *ADS1115) convert() uint16 {
	t := c.now().Sub(c.start)
	in := func(i int) float64 { return c.Inputs[i].At(t) }
	full := [8]float64{6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256}[c.mem[1]>>9&7]
	pairs := [8][2]int{{0, 1}, {0, 3}, {1, 3}, {2, 3}, {0, -1}, {1, -1}, {2, -1}, {3, -1}}
	pair := pairs[c.mem[1]>>12&7]
	v := in(pair[0])
	if pair[1] >= 0 {
		v -= in(pair[1])
	}
	return clip16(v / full * 32768)
}

// SCD41 models Sensirion's CO₂ sensor in periodic measurement: a new measurement each 5 s.
type SCD41 struct {
	start                      time.Time
	now                        func() time.Time
	periodic                   bool
	next                       time.Time // when the next measurement is there
	answer                     []uint16
	CO2, Temperature, Humidity Wave // ppm, °C, %RH
}

// NewSCD41 returns a sensor in a room with people.
func NewSCD41(now func() time.Time) *SCD41 {
	return &SCD41{start: now(), now: now, CO2: Wave{900, 350, 25 * time.Minute}, Temperature: Wave{22, 1, 33 * time.Minute}, Humidity: Wave{45, 6, 41 * time.Minute}}
}

// Tx takes a command, or gives the answer to the one before. While it measures it takes no others
// than those that the datasheet allows (table "SCD4x command overview").
func (c *SCD41) Tx(w, r []byte) error {
	if len(w) >= 2 {
		command := binary.BigEndian.Uint16(w)
		c.answer = nil
		switch {
		case command == 0x3F86:
			c.periodic = false
		case command == 0xE4B8:
			c.answer = []uint16{0x8000}
			if c.periodic && !c.now().Before(c.next) {
				c.answer[0] = 0x8006
			}
		case command == 0xEC05 && c.periodic && !c.now().Before(c.next):
			t := c.now().Sub(c.start)
			c.answer = []uint16{uint16(c.CO2.At(t)), word((c.Temperature.At(t) + 45) / 175), word(c.Humidity.At(t) / 100)}
			for !c.next.After(c.now()) {
				c.next = c.next.Add(5 * time.Second)
			}
		case c.periodic:
			return ErrNoAck
		case command == 0x21B1:
			c.periodic, c.next = true, c.now().Add(5*time.Second)
		case command == 0x241D, command == 0x2427, command == 0x2416:
		default:
			return ErrNoAck
		}
	}
	if len(r) == 0 {
		return nil
	}
	if len(r) > 3*len(c.answer) {
		return ErrNoAck
	}
	sensirion(r, c.answer...)
	return nil
}

// TCA9548A models TI's multiplexer: its channels are more of the same bus, as its control register
// has them open.
type TCA9548A struct {
	control  byte
	Channels [8]map[uint16]I2CChip
}

// Tx reads or writes the control register.
func (c *TCA9548A) Tx(w, r []byte) error {
	if len(w) > 0 {
		c.control = w[len(w)-1]
	}
	for i := range r {
		r[i] = c.control
	}
	return nil
}

// at returns the chips that hear the address through open channels.
func (c *TCA9548A) at(addr uint16) (found []I2CChip) {
	for i, chips := range c.Channels {
		if chip, ok := chips[addr]; ok && c.control>>i&1 != 0 {
			found = append(found, chip)
		}
	}
	return found
}
