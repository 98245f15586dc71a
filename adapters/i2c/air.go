package i2c

import (
	"math"
	"time"

	"gateway/adapters"
)

// Air quality: Sensirion SCD40, SCD41 (datasheet SCD4x), Sensirion SGP30 (datasheet SGP30) and
// ScioSense CCS811 (datasheet DS000459).

func airChips() []Chip {
	return []Chip{{
		Name: "scd4x", Aliases: []string{"scd40", "scd41", "scd43"},
		About:     "Sensirion CO₂, temperature and humidity",
		Addresses: []uint16{0x62},
		Quantities: []Quantity{
			{Name: "co2", Unit: "ppm", Min: 0, Max: 40000},
			{Name: "temperature", Unit: "°C", Decimals: 2, Min: -10, Max: 60},
			{Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
		},
		Settings: []Setting{
			{Name: "altitude", Default: 0.0, Unit: "m", Min: 0, Max: 3000, About: "of the sensor above the sea"},
			{Name: "temperature_offset", Default: 4.0, Unit: "K", Min: 0, Max: 20, About: "by which the sensor warms itself"},
			{Name: "low_power", Default: false, About: "a measurement each 30 s instead of each 5 s"},
			{Name: "self_calibration", Default: true, About: "takes the least CO₂ of a week for fresh air"},
		},
		identify: identifySCD4x,
		command:  true,
		make: func(s settings) driver {
			return scd4x{altitude: s.num("altitude"), offset: s.num("temperature_offset"), lowPower: s.flag("low_power"), asc: s.flag("self_calibration")}
		},
	}, {
		Name: "sgp30", About: "Sensirion volatile organic compounds",
		Addresses: []uint16{0x58},
		Quantities: []Quantity{
			{Name: "tvoc", Unit: "ppb", Min: 0, Max: 60000},
			{Name: "eco2", Unit: "ppm", Min: 400, Max: 60000},
			{Name: "baseline_tvoc", Extra: true},
			{Name: "baseline_eco2", Extra: true},
		},
		Settings: []Setting{
			{Name: "humidity", Default: 0.0, Unit: "g/m³", Min: 0, Max: 255, About: "absolute, for which the chip corrects; 0: it does not"},
			{Name: "baseline_tvoc", Default: 0.0, Min: 0, Max: 65535, About: "to start from, as read from this chip before; 0: it learns anew, for 12 hours"},
			{Name: "baseline_eco2", Default: 0.0, Min: 0, Max: 65535, About: "likewise"},
		},
		Pace:     time.Second, // its baseline algorithm wants one measurement a second
		identify: identifySGP30,
		command:  true,
		make: func(s settings) driver {
			return &sgp30{humidity: s.num("humidity"), baseline: [2]uint16{uint16(s.int("baseline_eco2")), uint16(s.int("baseline_tvoc"))}}
		},
	}, {
		Name: "ccs811", About: "ScioSense volatile organic compounds",
		Addresses: []uint16{0x5A, 0x5B},
		Quantities: []Quantity{
			{Name: "tvoc", Unit: "ppb", Min: 0, Max: 32768},
			{Name: "eco2", Unit: "ppm", Min: 400, Max: 32768},
		},
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0x20)
			return id == 0x81, err
		},
		make: func(settings) driver { return ccs811{} },
	}}
}

// commandRead sends a command of 16 bits and, after its execution time, reads words.
func commandRead(c *conn, command uint16, execution time.Duration, w []uint16) error {
	if err := c.command(command); err != nil {
		return err
	}
	if err := c.wait(execution); err != nil {
		return err
	}
	b := make([]byte, 3*len(w))
	if err := c.read(b); err != nil {
		return err
	}
	return crcSensirion.words(b, w)
}

// commandWords sends a command with arguments.
func commandWords(c *conn, command uint16, args ...uint16) error {
	b := []byte{byte(command >> 8), byte(command)}
	for _, arg := range args {
		p := [2]byte{byte(arg >> 8), byte(arg)}
		b = append(b, p[0], p[1], crcSensirion.Sum(p[:]...))
	}
	return c.write(b...)
}

type scd4x struct {
	altitude, offset float64
	lowPower, asc    bool
}

func identifySCD4x(c *conn) (bool, error) {
	// The serial number can be read in idle mode only; the data-ready status always.
	var w [1]uint16
	err := commandRead(c, 0xE4B8, time.Millisecond, w[:])
	if err == errChecksum {
		return false, nil
	}
	return err == nil, err
}

func (d scd4x) setup(c *conn) error {
	// It may be measuring, and then takes no settings: stop, 500 ms. A chip that has just been
	// powered wants 30 ms before it acknowledges (datasheet 2.2 "Timing").
	if err := c.command(0x3F86); err != nil {
		return err
	}
	if err := c.wait(500 * time.Millisecond); err != nil {
		return err
	}
	asc := uint16(0)
	if d.asc {
		asc = 1
	}
	for _, s := range []struct{ command, arg uint16 }{
		{0x241D, uint16(math.Round(d.offset * 65535 / 175))},
		{0x2427, uint16(d.altitude)},
		{0x2416, asc},
	} {
		if err := commandWords(c, s.command, s.arg); err != nil {
			return err
		}
		if err := c.wait(time.Millisecond); err != nil {
			return err
		}
	}
	start := uint16(0x21B1)
	if d.lowPower {
		start = 0x21AC
	}
	return c.command(start)
}

func (d scd4x) measure(c *conn, r *results) error {
	var ready [1]uint16
	if err := commandRead(c, 0xE4B8, time.Millisecond, ready[:]); err != nil {
		return err
	}
	if ready[0]&0x07FF == 0 {
		return errNotReady
	}
	var w [3]uint16
	if err := commandRead(c, 0xEC05, time.Millisecond, w[:]); err != nil {
		return err
	}
	if w[0] == 0 {
		r.fail(0, adapters.ReasonNotReady) // the first seconds after the start
	} else {
		r.put(0, adapters.UintValue(uint64(w[0])))
	}
	r.float(1, -45+175*float64(w[1])/65535)
	r.float(2, 100*float64(w[2])/65535)
	return nil
}

type sgp30 struct {
	humidity float64   // g/m³; 0: not corrected for
	baseline [2]uint16 // of eCO₂ and TVOC, what the chip has learned; 0: nothing yet
	since    int       // measurements since the start, one a second
}

func identifySGP30(c *conn) (bool, error) {
	var w [1]uint16
	err := commandRead(c, 0x202F, 10*time.Millisecond, w[:]) // get_feature_set_version
	if err == errChecksum {
		return false, nil
	}
	return err == nil && w[0]>>12 == 0, err
}

func (d *sgp30) setup(c *conn) error {
	d.since = 0
	if err := c.command(0x2003); err != nil { // init_air_quality
		return err
	}
	if err := c.wait(10 * time.Millisecond); err != nil {
		return err
	}
	if d.baseline[0] != 0 && d.baseline[1] != 0 {
		// set_baseline takes the words in the other order than get_baseline gives them.
		if err := commandWords(c, 0x201E, d.baseline[1], d.baseline[0]); err != nil {
			return err
		}
		if err := c.wait(10 * time.Millisecond); err != nil {
			return err
		}
	}
	if d.humidity == 0 {
		return nil
	}
	// set_humidity: 8.8 fixed point; 0 would turn the correction off.
	if err := commandWords(c, 0x2061, max(1, uint16(math.Round(d.humidity*256)))); err != nil {
		return err
	}
	return c.wait(10 * time.Millisecond)
}

// The chip learns for 12 hours before what it has learned is worth keeping; then it is to be kept
// each hour (datasheet, "Set and Get Baseline").
const (
	sgp30Learns = 12 * 3600
	sgp30Keeps  = 3600
)

func (d *sgp30) measure(c *conn, r *results) error {
	var w [2]uint16
	if err := commandRead(c, 0x2008, 12*time.Millisecond, w[:]); err != nil { // measure_air_quality
		return err
	}
	// For 15 s after the start it gives 400 ppm and 0 ppb, which are no measurements (datasheet,
	// "Air Quality Signals").
	if d.since++; d.since <= 15 {
		return errNotReady
	}
	r.put(0, adapters.UintValue(uint64(w[1])))
	r.put(1, adapters.UintValue(uint64(w[0])))
	learned := d.since >= sgp30Learns || d.baseline[0] != 0
	keep := learned && d.since%sgp30Keeps == 0
	if !keep && !r.wants(2) && !r.wants(3) {
		return nil
	}
	if !learned {
		r.fail(2, adapters.ReasonNotReady)
		r.fail(3, adapters.ReasonNotReady)
		return nil
	}
	if err := commandRead(c, 0x2015, 10*time.Millisecond, w[:]); err != nil { // get_baseline
		return err
	}
	d.baseline = w
	r.put(2, adapters.UintValue(uint64(w[1])))
	r.put(3, adapters.UintValue(uint64(w[0])))
	return nil
}

type ccs811 struct{}

func (ccs811) setup(c *conn) error {
	id, err := c.reg8(0x20)
	if err != nil {
		return err
	}
	if id != 0x81 {
		return chipErrorf(adapters.ReasonProtocol, "hardware id 0x%02x is not that of a CCS811 (0x81)", id)
	}
	status, err := c.reg8(0x00)
	if err != nil {
		return err
	}
	if status&0x10 == 0 {
		return chipErrorf(adapters.ReasonProtocol, "the chip has no valid application firmware")
	}
	if status&0x80 == 0 { // in boot mode
		if err := c.write(0xF4); err != nil { // APP_START
			return err
		}
		if err := c.wait(2 * time.Millisecond); err != nil {
			return err
		}
	}
	return c.write(0x01, 0x10) // mode 1: a measurement each second
}

func (ccs811) measure(c *conn, r *results) error {
	var b [6]byte
	if err := c.readReg(0x02, b[:]); err != nil { // ALG_RESULT_DATA with status and error
		return err
	}
	status := b[4]
	switch {
	case status&0x01 != 0:
		return chipErrorf(adapters.ReasonRefused, "the chip reports error 0x%02x", b[5])
	case status&0x80 == 0:
		return chipErrorf(adapters.ReasonNotReady, "the chip is in boot mode: it has lost its power")
	case status&0x08 == 0:
		return errNotReady
	}
	eco2, tvoc := uint16(b[0])<<8|uint16(b[1]), uint16(b[2])<<8|uint16(b[3])
	if eco2 < 400 {
		return errNotReady // the first measurements after the start
	}
	r.put(0, adapters.UintValue(uint64(tvoc)))
	r.put(1, adapters.UintValue(uint64(eco2)))
	return nil
}
