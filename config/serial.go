package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Serial is a table [[serial]]: one line and the devices that talk on it. Exactly one of Port, USB and
// Address says where it is.
type Serial struct {
	At      Place
	Name    string     `toml:"name"`
	Port    string     `toml:"port"`    // path of the device, or COM3
	USB     *SerialUSB `toml:"usb"`     // the port by its USB identity
	Address string     `toml:"address"` // host:port of a port server that passes bytes through

	Baud     int          `toml:"baud"`
	DataBits int          `toml:"data_bits"`
	Parity   string       `toml:"parity"`
	StopBits float64      `toml:"stop_bits"`
	Flow     string       `toml:"flow"` // none, rts/cts, xon/xoff
	RTS      *bool        `toml:"rts"`  // levels to hold; none: as the driver has them
	DTR      *bool        `toml:"dtr"`
	RS485    *ModbusRS485 `toml:"rs485"`

	Frame  *SerialFrame  `toml:"frame"`  // none: what the devices' format implies, else lines
	Pause  time.Duration `toml:"pause"`  // silence before a request
	Settle time.Duration `toml:"settle"` // after opening, before the first request

	Report
	Devices []SerialDevice `toml:"device"`
}

// SerialUSB is the USB identity of a port; empty fields match any.
type SerialUSB struct {
	At        Place
	Vendor    string `toml:"vendor"`
	Product   string `toml:"product"`
	Serial    string `toml:"serial"`
	Interface string `toml:"interface"`
}

// SerialFrame is how frames are cut. One of Preset, Line, Fixed, Length, End and Silence alone says
// how.
type SerialFrame struct {
	At     Place
	Preset string `toml:"preset"` // nmea, dsmr, dsmr2, iec62056, slip, hdlc

	Line  Bytes         `toml:"line"`  // the delimiter
	Fixed int           `toml:"fixed"` // bytes
	Start Bytes         `toml:"start"` // what frames start with; with end: the start marker
	End   Bytes         `toml:"end"`   // the end marker
	Field *SerialLength `toml:"length"`

	Escape     string        `toml:"escape"` // literal, masked, slip, doubled
	EscapeByte Bytes         `toml:"escape_byte"`
	EscapeMask uint8         `toml:"escape_mask"`
	Silence    time.Duration `toml:"silence"` // alone: ends a frame; else: drops half a frame
	Max        Size          `toml:"max"`

	Checksum        *SerialChecksum `toml:"checksum"`
	ChecksumAfter   bool            `toml:"checksum_after_end"`
	ChecksumOfStart bool            `toml:"checksum_of_start"`
	ChecksumOfEnd   bool            `toml:"checksum_of_end"`
}

// SerialLength is the field of a frame that tells its length.
type SerialLength struct {
	At    Place
	Pos   int    `toml:"at"`    // first byte, from 0
	Size  int    `toml:"size"`  // bytes
	Order string `toml:"order"` // big or little
	Add   int    `toml:"add"`   // what to add for the length of the whole frame
}

func (l *SerialLength) setDefaults() { l.Size, l.Order = 1, "big" }

// SerialDevice is a table [[serial.device]]. What it sends stands in the table itself, or, if there are
// several messages, in tables [[serial.device.message]].
type SerialDevice struct {
	At      Place
	Name    string            `toml:"name"`
	Labels  map[string]string `toml:"labels"`
	Address string            `toml:"address"` // takes the place of {address} in send, match and where

	// Asked: default 10s. Talking by itself: none, a sample for each message.
	Interval time.Duration `toml:"interval"`
	// Asked: for an answer, default 1s. Talking by itself: after which silence it is offline; default
	// three intervals or 5m; 0s: never.
	Timeout time.Duration `toml:"timeout"`

	Report
	SerialMessage
	Messages []SerialMessage `toml:"message"`
}

// SerialMessage is a frame from a device, how to ask for it and what to take from it.
type SerialMessage struct {
	At Place

	Send         Bytes           `toml:"send"`
	SendChecksum *SerialChecksum `toml:"send_checksum"`
	SendEnd      Bytes           `toml:"send_end"` // after the checksum
	Answer       bool            `toml:"answer"`
	AnswerWithin time.Duration   `toml:"answer_within"` // default: the device's timeout
	Refused      string          `toml:"refused"`       // pattern of an answer by which the device refuses
	Break        time.Duration   `toml:"break"`
	Baud         int             `toml:"baud"`
	ThenBaud     int             `toml:"then_baud"`
	Wait         time.Duration   `toml:"wait"`
	Frame        *SerialFrame    `toml:"frame"`

	Format       string        `toml:"format"`
	Match        string        `toml:"match"`
	Separator    string        `toml:"separator"`
	Assign       string        `toml:"assign"`
	Columns      []string      `toml:"columns"`
	HexText      bool          `toml:"hex_text"`
	DecimalComma bool          `toml:"decimal_comma"`
	Where        []SerialWhere `toml:"where"`
	Points       []SerialPoint `toml:"points"`
}

func (m *SerialMessage) setDefaults() { m.Answer = true }

// SerialPlace is where a value stands in a frame and what it means.
type SerialPlace struct {
	Field  string  `toml:"field"` // group, column, key, path, sentence and field, code; default: the name
	Pos    int     `toml:"at"`    // columns, binary: from the frame's first byte
	Length int     `toml:"length"`
	Type   string  `toml:"type"`
	Order  string  `toml:"order"` // binary
	Scale  float64 `toml:"scale"`
	Offset float64 `toml:"offset"`
	Suffix string  `toml:"suffix"` // what follows the number and is passed over
}

func (p *SerialPlace) setDefaults() { p.Scale = 1 }

// SerialWhere is a condition that a frame must fulfil: a value in it, as text.
type SerialWhere struct {
	At Place
	SerialPlace
	Is string `toml:"is"`
}

// SerialPoint is one quantity of a device.
type SerialPoint struct {
	At       Place
	Name     string            `toml:"name"`
	Unit     string            `toml:"unit"`
	Decimals *int8             `toml:"decimals"`
	Labels   map[string]string `toml:"labels"`
	SerialPlace
	Min       *float64          `toml:"min"`
	Max       *float64          `toml:"max"`
	Sentinels Words             `toml:"sentinels"` // by which the device says that it has no value
	Overrange Words             `toml:"overrange"` // by which it says that the sensor is saturated
	True      Words             `toml:"true"`
	False     Words             `toml:"false"`
	Values    map[string]string `toml:"values"` // an enumeration: 0 = "off"
	Flags     map[string]string `toml:"flags"`  // binary: a bit field: 3 = "alarm"
	Interval  time.Duration     `toml:"interval"`
	Report
}

func (s *Serial) setDefaults() {
	s.Baud, s.DataBits, s.Parity, s.StopBits, s.Flow = 9600, 8, "none", 1, "none"
}

// Asked tells whether the device is polled.
func (d *SerialDevice) Asked() bool {
	if len(d.Send) > 0 {
		return true
	}
	for i := range d.Messages {
		if len(d.Messages[i].Send) > 0 {
			return true
		}
	}
	return false
}

// All returns the device's messages, the one in the table itself first.
func (d *SerialDevice) All() []*SerialMessage {
	var all []*SerialMessage
	if m := &d.SerialMessage; len(d.Messages) == 0 || len(m.Send) > 0 || m.Format != "" || m.Match != "" || len(m.Points) > 0 {
		all = append(all, m)
	}
	for i := range d.Messages {
		all = append(all, &d.Messages[i])
	}
	return all
}

func (s *Serial) check(buses, devices *unique) {
	buses.add(s.At, s.Name)
	s.checkWhere()
	if len(s.Devices) == 0 {
		s.At.Errorf("", "has no device; add a [[serial.device]]")
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		devices.add(d.At, d.Name)
		d.check()
	}
}

func (s *Serial) checkWhere() {
	given := 0
	for _, is := range []bool{s.Port != "", s.USB != nil, s.Address != ""} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		s.At.Errorf("", `where is it? Add port = "/dev/ttyUSB0"; 'gateway serial list' lists the ports`)
	case given > 1:
		s.At.Errorf("", "port, usb and address each say where it is; keep one")
	case s.USB != nil && *s.USB == (SerialUSB{At: s.USB.At}):
		s.At.Errorf("usb", `usb is empty; add vendor = "0403" and what else 'gateway serial list' shows`)
	case s.Address != "":
		if err := checkHostPort(s.Address); err != nil {
			s.At.Errorf("address", "address %q: %v; write it as host:port", s.Address, err)
		}
		for _, key := range []string{"baud", "data_bits", "parity", "stop_bits", "flow", "rts", "dtr", "rs485"} {
			if s.At.Has(key) {
				s.At.Errorf(key, "%s is the port server's affair when address is set; set it there", key)
			}
		}
	}
	for _, p := range []struct {
		key string
		d   time.Duration
	}{{"pause", s.Pause}, {"settle", s.Settle}} {
		if p.d < 0 || p.d > time.Minute {
			s.At.Errorf(p.key, "%s %v: must be from 0s to 1m", p.key, p.d)
		}
	}
}

// checkHostPort says what keeps an address from being dialled.
func checkHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	var wrong *net.AddrError
	switch {
	case errors.As(err, &wrong):
		return errors.New(wrong.Err)
	case err != nil:
		return err
	case host == "":
		return errors.New("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q: 1 to 65535 are possible", port)
	}
	return nil
}

func (d *SerialDevice) check() {
	asked := d.Asked()
	switch {
	case !d.At.Has("interval") && asked:
		d.Interval = 10 * time.Second
	case d.At.Has("interval") && d.Interval < 10*time.Millisecond:
		d.At.Errorf("interval", "interval %v: must be at least 10ms", d.Interval)
	}
	switch {
	case d.At.Has("timeout") && (d.Timeout < 0 || asked && d.Timeout == 0):
		d.At.Errorf("timeout", "timeout %v: must be positive", d.Timeout)
	case d.At.Has("timeout"):
	case asked:
		d.Timeout = time.Second
	case d.Interval > 0:
		d.Timeout = 3 * d.Interval
	default:
		d.Timeout = 5 * time.Minute
	}
	points := unique{what: "point"}
	for _, m := range d.All() {
		m.check(&points)
		if !strings.Contains(d.uses(m), "{address}") && d.Address != "" && len(d.Messages) == 0 {
			d.At.Warnf("address", "nothing in this table uses the address; write {address} in send, match or where")
		}
	}
}

// uses returns all texts in which {address} may stand.
func (d *SerialDevice) uses(m *SerialMessage) string {
	all := string(m.Send) + m.Match + m.Refused
	for _, w := range m.Where {
		all += w.Is
	}
	return all
}

func (m *SerialMessage) check(points *unique) {
	if len(m.Send) == 0 {
		for _, key := range []string{"send_checksum", "send_end", "answer", "answer_within", "refused", "break", "baud", "then_baud", "wait"} {
			if m.At.Has(key) {
				m.At.Errorf(key, "%s is for a device that is asked; add send, or leave it out", key)
			}
		}
	}
	for _, p := range []struct {
		key string
		d   time.Duration
		max time.Duration
	}{{"break", m.Break, time.Second}, {"answer_within", m.AnswerWithin, 20 * time.Minute}, {"wait", m.Wait, 20 * time.Minute}} {
		if p.d < 0 || p.d > p.max {
			m.At.Errorf(p.key, "%s %v: must be from 0s to %v", p.key, p.d, p.max)
		}
	}
	for i := range m.Points {
		p := &m.Points[i]
		points.add(p.At, p.Name)
		if p.Field == "" {
			p.Field = p.Name
		}
		if p.At.Has("scale") && p.Scale == 0 {
			p.At.Errorf("scale", "scale 0 makes every value 0; leave it out for none")
		}
		if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
			p.At.Errorf("min", "the valid range is empty: min %v is above max %v", *p.Min, *p.Max)
		}
		if p.Interval < 0 {
			p.At.Errorf("interval", "interval %v is negative", p.Interval)
		}
	}
}
