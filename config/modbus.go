package config

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/adapters/hint"
)

// Modbus is a table [[modbus]]: one bus, which is a serial port or a network address, and the devices
// on it.
type Modbus struct {
	At   Place
	Name string `toml:"name"`

	Address string     `toml:"address"` // host:port; without a port it is 502
	Port    string     `toml:"port"`    // the path of a serial port
	USB     *SerialUSB `toml:"usb"`     // a serial port by its USB identity, whichever path it has
	Framing string     `toml:"framing"` // tcp, rtu, ascii, rtu-over-tcp, udp; default: tcp with an address, rtu with a port

	Baud     int          `toml:"baud"`
	Parity   string       `toml:"parity"`
	DataBits int          `toml:"data_bits"` // default: 8, 7 for ascii
	StopBits float64      `toml:"stop_bits"`
	RS485    *ModbusRS485 `toml:"rs485"`

	ConnectTimeout time.Duration `toml:"connect_timeout"`
	ConnectPause   time.Duration `toml:"connect_pause"` // after connecting
	RequestPause   time.Duration `toml:"request_pause"` // between an answer and the next request
	UnitPause      time.Duration `toml:"unit_pause"`    // the same where the next request is another unit's

	Report
	Devices []ModbusDevice `toml:"device"`
}

// ModbusRS485 switches the direction of an RS-485 transceiver by RTS.
type ModbusRS485 struct {
	By     string        `toml:"by"`     // who: "driver" (the kernel), or "program" where the driver cannot
	Invert bool          `toml:"invert"` // RTS is low while sending
	Before time.Duration `toml:"before"`
	After  time.Duration `toml:"after"`
}

// ModbusDevice is a table [[modbus.device]].
type ModbusDevice struct {
	At     Place
	Name   string            `toml:"name"`
	Labels map[string]string `toml:"labels"`
	Unit   int               `toml:"unit"`

	Profile string   `toml:"profile"` // points and settings of a known device
	Only    []string `toml:"only"`    // which of the profile's points; none: all
	Without []string `toml:"without"` // which of them not

	ModbusDefaults
	Interval   time.Duration `toml:"interval"`
	Retries    int           `toml:"retries"` // after a timeout, within the cycle
	MaxBackoff time.Duration `toml:"max_backoff"`

	Report
	Points []ModbusPoint `toml:"points"`
}

// ModbusDefaults is what a profile may say of its device beside the points.
type ModbusDefaults struct {
	Timeout      time.Duration `toml:"timeout"`
	Patience     time.Duration `toml:"patience"` // how long a busy device is asked again; 0: timeout
	Order        string        `toml:"order"`    // of bytes, for points that do not say
	MaxRegisters int           `toml:"max_registers"`
	MaxBits      int           `toml:"max_bits"`
	Hole         *int          `toml:"hole"` // unwanted registers that may be read along; default 16
	// SunSpec are model numbers: the points lie in the first of them that the device turns out to
	// have, and their addresses count from the model's first register.
	SunSpec []int `toml:"sunspec"`
}

// ModbusPoint is one quantity of a device.
type ModbusPoint struct {
	At       Place
	Name     string            `toml:"name"`
	Unit     string            `toml:"unit"`
	Decimals *int              `toml:"decimals"`
	Labels   map[string]string `toml:"labels"`

	// Exactly one of these says where the point is, counted from 0; Address is the 1-based notation.
	Coil     *int          `toml:"coil"`
	Discrete *int          `toml:"discrete"`
	Input    *int          `toml:"input"`
	Holding  *int          `toml:"holding"`
	Address  ModbusAddress `toml:"address"`

	Type      string            `toml:"type"`   // default: bool for bits, uint16 for registers
	Bit       *int              `toml:"bit"`    // type = "bit": which of the register's
	Bits      string            `toml:"bits"`   // "4-6": a part of an integer
	Length    int               `toml:"length"` // of text: bytes
	Count     int               `toml:"count"`  // an array: that many in a row, named name_0, name_1, …
	Order     string            `toml:"order"`
	Scale     float64           `toml:"scale"`
	Offset    float64           `toml:"offset"`
	ScaleFrom *int              `toml:"scale_from"` // register of the same table with the exponent of ten
	Min       *float64          `toml:"min"`
	Max       *float64          `toml:"max"`
	Sentinels []int64           `toml:"sentinels"` // raw numbers by which the device says that it has no value
	Values    map[string]string `toml:"values"`    // an enumeration: 0 = "off"
	Flags     map[string]string `toml:"flags"`     // a bit field: 3 = "alarm"

	Interval time.Duration `toml:"interval"` // default: the device's
	Overlap  bool          `toml:"overlap"`  // it may share registers with another point
	Writable bool          `toml:"writable"`
	Function int           `toml:"function"` // the function code that writes

	Report
}

// ModbusAddress is an address in the classic notation, 40001 or "000001".
type ModbusAddress string

func (a *ModbusAddress) fromTOML(value any) error {
	switch v := value.(type) {
	case int64:
		*a = ModbusAddress(strconv.FormatInt(v, 10))
		return nil
	case string:
		*a = ModbusAddress(v)
		return nil
	}
	return fmt.Errorf("%v is not an address such as 40001", value)
}

func (r *ModbusRS485) setDefaults() { r.By = "driver" }

func (m *Modbus) setDefaults() {
	m.Baud, m.Parity, m.StopBits = 9600, "none", 1
	m.ConnectTimeout = 5 * time.Second
}

func (d *ModbusDevice) setDefaults() {
	d.Unit = -1
	d.Interval = 10 * time.Second
	d.MaxBackoff = time.Minute
	d.Timeout = time.Second
	d.MaxRegisters, d.MaxBits = 125, 2000
}

func (p *ModbusPoint) setDefaults() { p.Scale, p.Count = 1, 1 }

// maxWait is how long a bus may wait for one thing: the watchdog takes a loop that shows no life for
// 30 s for one that hangs.
const maxWait = 20 * time.Second

// Framings are what framing may be.
var modbusFramings = []string{"tcp", "rtu", "ascii", "rtu-over-tcp", "udp"}

// Serial tells whether the bus is a serial port.
func (m *Modbus) Serial() bool { return m.Framing == "rtu" || m.Framing == "ascii" }

// onPort tells whether the table names a serial port, right or wrong.
func (m *Modbus) onPort() bool { return m.Port != "" || m.USB != nil }

func (m *Modbus) check(buses, devices *unique, profiles *profileStore) {
	buses.add(m.At, m.Name)
	m.checkWhere()
	for key, d := range map[string]time.Duration{"connect_pause": m.ConnectPause, "request_pause": m.RequestPause, "unit_pause": m.UnitPause} {
		if d < 0 || d > 10*time.Second {
			m.At.Errorf(key, "%s %v: must be from 0s to 10s", key, d)
		}
	}
	if m.ConnectTimeout < 10*time.Millisecond || m.ConnectTimeout > maxWait {
		m.At.Errorf("connect_timeout", "connect_timeout %v: must be from 10ms to %v", m.ConnectTimeout, maxWait)
	}
	if len(m.Devices) == 0 {
		m.At.Errorf("", "has no device; add a [[modbus.device]]")
	}
	for i := range m.Devices {
		d := &m.Devices[i]
		devices.add(d.At, d.Name)
		if d.Profile != "" && !profiles.apply(d) {
			// What the profile would have said of the unit and the points is not known; the rest is checked.
			if !d.At.Has("unit") {
				d.Unit = 1
			}
			d.Points = nil
		}
		d.check(m)
	}
}

// checkWhere checks what says where the bus is.
func (m *Modbus) checkWhere() {
	switch {
	case m.Address == "" && !m.onPort():
		m.At.Errorf("", `where is it? Add port = "/dev/ttyUSB0" for a serial line, or address = "192.168.1.20:502"`)
		return
	case m.Address != "" && m.onPort(), m.Port != "" && m.USB != nil:
		m.At.Errorf("", "address, port and usb each say where it is; keep one")
		return
	case m.USB != nil && *m.USB == (SerialUSB{At: m.USB.At}):
		m.At.Errorf("usb", "usb says nothing; add vendor, product, serial or interface ('gateway serial list' shows them)")
	}
	if m.Framing == "" {
		m.Framing = "tcp"
		if m.onPort() {
			m.Framing = "rtu"
		}
	}
	if !slices.Contains(modbusFramings, m.Framing) {
		m.At.Errorf("framing", "framing %q is unknown%s", m.Framing, hint.OneOf(m.Framing, modbusFramings))
		return
	}
	if m.Serial() != m.onPort() {
		if m.Serial() {
			m.At.Errorf("framing", "framing %q needs a serial port; over the network it is rtu-over-tcp", m.Framing)
		} else {
			m.At.Errorf("framing", "framing %q needs an address, not a port", m.Framing)
		}
	}
	if !m.Serial() {
		m.checkAddress()
		return
	}
	if m.Baud < 50 || m.Baud > 4_000_000 {
		m.At.Errorf("baud", "%d baud: 50 to 4000000 are possible", m.Baud)
	}
	if m.DataBits == 0 {
		m.DataBits = 8
		if m.Framing == "ascii" {
			m.DataBits = 7
		}
	}
	if r := m.RS485; r != nil {
		if r.By != "driver" && r.By != "program" {
			m.At.Errorf("rs485.by", `rs485: by = "driver" or by = "program", not %q`, r.By)
		}
		if r.Before < 0 || r.After < 0 || r.Before > time.Second || r.After > time.Second {
			m.At.Errorf("rs485", "rs485: before and after must be from 0s to 1s")
		}
	}
	if m.Framing == "rtu" && m.DataBits != 8 {
		m.At.Errorf("data_bits", "%d data bits: RTU needs all 8", m.DataBits)
	}
}

func (m *Modbus) checkAddress() {
	for _, key := range []string{"parity", "data_bits", "stop_bits", "rs485"} {
		if m.At.Has(key) {
			m.At.Errorf(key, "%s is for serial ports; this bus is at a network address", key)
		}
	}
	if m.Framing != "rtu-over-tcp" && m.At.Has("baud") {
		m.At.Errorf("baud", "baud is for serial lines; this bus is at a network address")
	} else if !m.At.Has("baud") {
		m.Baud = 0
	}
	if _, _, err := net.SplitHostPort(m.Address); err != nil && !strings.Contains(strings.Trim(m.Address, "[]"), "]") {
		if m.Framing == "rtu-over-tcp" {
			m.At.Errorf("address", "address %q: the port of the serial server is missing, as in 192.168.1.20:4196", m.Address)
			return
		}
		m.Address = net.JoinHostPort(strings.Trim(m.Address, "[]"), "502")
	}
	if err := checkHostPort(m.Address); err != nil {
		m.At.Errorf("address", "address %q: %v", m.Address, err)
	}
}

func (d *ModbusDevice) check(m *Modbus) {
	if d.Unit == -1 && !d.At.Has("unit") {
		if m.Framing == "tcp" || m.Framing == "udp" {
			d.Unit = 255 // "not used" of the specification for devices that are on the network themselves
		} else {
			d.At.Errorf("", "has no unit id; add unit = 1 (1 to 247)")
			d.Unit = 1
		}
	}
	most, least := 247, 1
	if !m.Serial() && m.Framing != "rtu-over-tcp" {
		most, least = 255, 0
	}
	if d.Unit < least || d.Unit > most {
		d.At.Errorf("unit", "unit %d: %d to %d are possible", d.Unit, least, most)
	}
	if d.Interval < 10*time.Millisecond {
		d.At.Errorf("interval", "interval %v: must be at least 10ms", d.Interval)
	}
	if d.Timeout < time.Millisecond || d.Timeout > maxWait {
		d.At.Errorf("timeout", "timeout %v: must be from 1ms to %v", d.Timeout, maxWait)
	}
	if d.Patience < 0 || d.Patience > time.Minute {
		d.At.Errorf("patience", "patience %v: must be from 0s to 1m", d.Patience)
	}
	if d.MaxBackoff < time.Second {
		d.At.Errorf("max_backoff", "max_backoff %v: must be at least 1s", d.MaxBackoff)
	}
	if d.Retries < 0 || d.Retries > 10 {
		d.At.Errorf("retries", "%d retries: 0 to 10 are possible", d.Retries)
	}
	if d.MaxRegisters < 1 || d.MaxRegisters > 125 {
		d.At.Errorf("max_registers", "max_registers %d: a request has 1 to 125", d.MaxRegisters)
	}
	if d.MaxBits < 1 || d.MaxBits > 2000 {
		d.At.Errorf("max_bits", "max_bits %d: a request has 1 to 2000", d.MaxBits)
	}
	for _, model := range d.SunSpec {
		if model < 1 || model > 65534 {
			d.At.Errorf("sunspec", "sunspec model %d: 1 to 65534 are possible", model)
		}
	}
	if d.Hole != nil && (*d.Hole < 0 || *d.Hole > 124) {
		d.At.Errorf("hole", "hole %d: 0 to 124 are possible", *d.Hole)
	}
	if d.Profile == "" && len(d.Points) == 0 {
		d.At.Errorf("", "has no points; add points = [...] or a profile ('gateway modbus profiles' lists them)")
	}
	points := unique{what: "point"}
	for i := range d.Points {
		p := &d.Points[i]
		points.add(p.At, p.Name)
		p.check()
	}
}

// ElementName is what the k-th of the points that the table gives is called: the elements of an array
// are points of their own, name_0, name_1 and so on.
func (p *ModbusPoint) ElementName(k int) string {
	if p.Count <= 1 {
		return p.Name
	}
	return p.Name + "_" + strconv.Itoa(k)
}

// Gives tells whether the table gives the point of this name: its own, or an element of the array.
func (p *ModbusPoint) Gives(point string) bool {
	if p.Count <= 1 {
		return point == p.Name
	}
	index, ok := strings.CutPrefix(point, p.Name+"_")
	k, err := strconv.Atoi(index)
	return ok && err == nil && k >= 0 && k < p.Count && point == p.ElementName(k)
}

// tables are the keys that say where a point is.
func (p *ModbusPoint) tables() map[string]*int {
	return map[string]*int{"coil": p.Coil, "discrete": p.Discrete, "input": p.Input, "holding": p.Holding}
}

func (p *ModbusPoint) check() {
	var given []string
	for _, key := range []string{"coil", "discrete", "input", "holding"} {
		v := p.tables()[key]
		if v == nil {
			continue
		}
		given = append(given, key)
		if *v < 0 || *v > 65535 {
			p.At.Errorf(key, "%s %d: an address is 0 to 65535", key, *v)
		}
	}
	if p.Address != "" {
		given = append(given, "address")
	}
	switch {
	case len(given) == 0:
		p.At.Errorf("", "where is it? Add holding = 0, input = 0, coil = 0 or discrete = 0 (counted from 0), or address = 40001")
	case len(given) > 1:
		p.At.Errorf(given[1], "%s both say where it is; keep one", strings.Join(given, " and "))
	}
	if p.Coil != nil || p.Discrete != nil {
		for _, key := range []string{"bit", "bits", "length", "order"} {
			if p.At.Has(key) {
				p.At.Errorf(key, "%s is for registers; a %s is a bit itself", key, given[0])
			}
		}
	}
	if p.Decimals != nil && (*p.Decimals < 0 || *p.Decimals > 15) {
		p.At.Errorf("decimals", "decimals %d: 0 to 15 are possible", *p.Decimals)
	}
	if p.Function != 0 && !p.Writable {
		p.At.Errorf("function", "function %d says how the point is written, but it is not writable; add writable = true", p.Function)
	}
	if p.At.Has("scale") && p.Scale == 0 {
		p.At.Errorf("scale", "scale 0 makes every value 0; leave it out for none")
	}
	if p.ScaleFrom != nil && (*p.ScaleFrom < 0 || *p.ScaleFrom > 65535) {
		p.At.Errorf("scale_from", "scale_from %d: an address is 0 to 65535", *p.ScaleFrom)
	}
	if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
		p.At.Errorf("min", "the valid range is empty: min %v is above max %v", *p.Min, *p.Max)
	}
	if p.Count < 1 || p.Count > 2000 {
		p.At.Errorf("count", "count %d: 1 to 2000 are possible", p.Count)
	}
	if p.Interval != 0 && p.Interval < 10*time.Millisecond {
		p.At.Errorf("interval", "interval %v: must be at least 10ms", p.Interval)
	}
}
