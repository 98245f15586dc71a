package i2c

import (
	"fmt"
	"time"

	"gateway/adapters"
)

// Maxim DS3231 (datasheet 19-5170): the temperature of its oscillator, and its clock. The kernel's
// own driver may use the chip at the same time: reading disturbs nothing.

const (
	ds3231Temperature = iota
	ds3231Time
	ds3231Stopped
)

func ds3231Chips() []Chip {
	return []Chip{{
		Name: "ds3231", Aliases: []string{"ds3232"},
		About:     "Maxim clock with a thermometer",
		Addresses: []uint16{0x68},
		Quantities: []Quantity{
			ds3231Temperature: {Name: "temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 85},
			ds3231Time:        {Name: "time"},
			ds3231Stopped:     {Name: "oscillator_stopped"},
		},
		make: func(settings) driver { return ds3231{} },
	}}
}

type ds3231 struct{}

func (ds3231) setup(*conn) error { return nil }

func (ds3231) measure(c *conn, r *results) error {
	// One burst of the whole register file, so that the time does not roll over in between (figure 1).
	var b [19]byte
	if err := c.readReg(0, b[:]); err != nil {
		return err
	}
	stopped := b[0x0F]&0x80 != 0 // OSF
	r.float(ds3231Temperature, float64(int16(uint16(b[0x11])<<8|uint16(b[0x12]))>>6)*0.25)
	r.put(ds3231Stopped, adapters.BoolValue(stopped))
	t, err := ds3231Clock(b[:7])
	switch {
	case err != nil:
		r.fail(ds3231Time, adapters.ReasonParse)
	case stopped:
		r.fail(ds3231Time, adapters.ReasonNotReady) // the clock has stood still at some time
	default:
		r.put(ds3231Time, adapters.StringValue(t.Format(time.RFC3339)))
	}
	return nil
}

// ds3231Clock reads the packed decimals of registers 0 to 6.
func ds3231Clock(b []byte) (time.Time, error) {
	ok := true
	bcd := func(v byte) int {
		if v>>4 > 9 || v&0x0F > 9 {
			ok = false
		}
		return int(v>>4)*10 + int(v&0x0F)
	}
	second, minute, day := bcd(b[0]), bcd(b[1]), bcd(b[4])
	month, year := bcd(b[5]&0x1F), 2000+bcd(b[6])
	if b[5]&0x80 != 0 { // century
		year += 100
	}
	hour := 0
	if b[2]&0x40 == 0 {
		hour = bcd(b[2] & 0x3F)
	} else {
		hour = bcd(b[2]&0x1F) % 12
		if b[2]&0x20 != 0 {
			hour += 12
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if !ok || t.Day() != day || t.Month() != time.Month(month) || t.Hour() != hour || t.Minute() != minute || t.Second() != second {
		return t, fmt.Errorf("i2c: % x is no date and time", b)
	}
	return t, nil
}
