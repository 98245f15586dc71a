package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/config"
)

// newModbus makes the bus that a table [[modbus]] asks for.
func newModbus(cfg *config.Modbus, env busEnv) (bus, error) {
	o, err := modbusOptions(cfg)
	if err != nil {
		return nil, err
	}
	o.Sink, o.Clock, o.Logger = env.Sink, env.Clock, env.Log.With("bus", cfg.Name)
	return modbus.New(o)
}

// PlanModbus tells what a bus will be asked for.
func PlanModbus(cfg *config.Modbus) (*modbus.Forecast, error) {
	o, err := modbusOptions(cfg)
	if err != nil {
		return nil, err
	}
	return modbus.Plan(o)
}

// ModbusLine returns what it takes to talk on a bus by hand: its options without its devices.
func ModbusLine(cfg *config.Modbus) (modbus.Options, error) {
	line := *cfg
	line.Devices = nil
	return modbusOptions(&line)
}

// ProfilePoints returns the points of a profile as the adapter takes them.
func ProfilePoints(p *config.Profile) ([]modbus.Point, error) {
	var all []modbus.Point
	fields := fields{}
	for i := range p.Points {
		points, err := fields.points(&p.Points[i], p.Order)
		if err != nil {
			return nil, fmt.Errorf("profile %s, point %s: %w", p.ID, p.Points[i].Name, err)
		}
		all = append(all, points...)
	}
	return all, nil
}

// modbusOptions turns a table into the options of the adapter.
func modbusOptions(cfg *config.Modbus) (modbus.Options, error) {
	o := modbus.Options{
		Name: cfg.Name, Address: cfg.Address, Connect: cfg.ConnectTimeout,
		Pauses: modbus.Pauses{Connect: cfg.ConnectPause, Request: cfg.RequestPause, Unit: cfg.UnitPause},
		Baud:   cfg.Baud,
	}
	switch cfg.Framing {
	case "tcp":
		o.Framing = modbus.TCP
	case "udp":
		o.Framing = modbus.UDP
	case "rtu-over-tcp":
		o.Framing = modbus.RTUOverTCP
	case "rtu":
		o.Framing = modbus.RTU
	case "ascii":
		o.Framing = modbus.ASCII
	}
	if cfg.Serial() {
		o.Port = modbusPort(cfg)
		if r := cfg.RS485; r != nil && r.By == "program" {
			o.RTS = &modbus.RTS{Invert: r.Invert, Before: r.Before, After: r.After}
		}
	}
	for i := range cfg.Devices {
		d, errs := modbusDevice(&cfg.Devices[i])
		if len(errs) > 0 {
			return o, errs[0]
		}
		o.Devices = append(o.Devices, d)
	}
	return o, nil
}

// modbusPort is the serial port of a bus that has one.
func modbusPort(cfg *config.Modbus) port.Config {
	p := port.Config{Name: cfg.Port, Baud: cfg.Baud, DataBits: cfg.DataBits, Parity: port.Parity(cfg.Parity), StopBits: cfg.StopBits}
	if u := cfg.USB; u != nil {
		p.USB = port.USB{Vendor: u.Vendor, Product: u.Product, Serial: u.Serial, Interface: u.Interface}
	}
	if r := cfg.RS485; r != nil && r.By != "program" {
		p.RS485 = &port.RS485{Invert: r.Invert, Before: r.Before, After: r.After}
	}
	return p
}

// modbusDevice turns a device's table into the adapter's device, and returns all that is wrong.
func modbusDevice(cfg *config.ModbusDevice) (modbus.Device, []error) {
	d := modbus.Device{
		Name: cfg.Name, Labels: sortedLabels(cfg.Labels), Unit: byte(cfg.Unit), Interval: cfg.Interval,
		Timeout: cfg.Timeout, Retries: cfg.Retries, Patience: cfg.Patience,
		MaxRegisters: cfg.MaxRegisters, MaxBits: cfg.MaxBits,
		Backoff: adapters.Backoff{Min: max(cfg.Timeout, cfg.MaxBackoff/64), Max: cfg.MaxBackoff},
	}
	for _, model := range cfg.SunSpec {
		d.SunSpec = append(d.SunSpec, uint16(model))
	}
	if cfg.Hole != nil {
		if d.Hole = *cfg.Hole; d.Hole == 0 {
			d.Hole = -1
		}
	}
	var errs []error
	n := 0
	for i := range cfg.Points {
		n += max(cfg.Points[i].Count, 1)
	}
	d.Points = make([]modbus.Point, 0, min(n, 1<<16)) // a count may be anything yet
	fields := fields{}
	for i := range cfg.Points {
		points, err := fields.points(&cfg.Points[i], cfg.Order)
		if err != nil {
			errs = append(errs, err)
		}
		d.Points = append(d.Points, points...)
	}
	return d, errs
}

// fields are the fields of a device's points. Most of them are alike, and then they are one.
type fields map[plainSpec]*decode.Field

// A plainSpec is a spec that has nothing else to say.
type plainSpec struct {
	typ           decode.Type
	order         decode.Order
	scale, offset float64
}

func (f fields) field(s decode.Spec) (*decode.Field, error) {
	if s.Min != nil || s.Max != nil || s.Sentinels != nil || s.Zero || s.Labels != nil || s.Flags != nil || s.Decimals != nil {
		return decode.New(s)
	}
	key := plainSpec{s.Type, s.Order, s.Scale, s.Offset}
	if known, ok := f[key]; ok {
		return known, nil
	}
	field, err := decode.New(s)
	if err == nil {
		f[key] = field
	}
	return field, err
}

// points turns a point's table into points of the adapter: one, or as many as an array has.
func (f fields) points(cfg *config.ModbusPoint, order string) ([]modbus.Point, error) {
	fail := func(key string, err error) ([]modbus.Point, error) {
		return nil, &placeError{cfg.At, key, trim(err)}
	}
	p := modbus.Point{
		Point:    adapters.Point{Name: cfg.Name, Unit: cfg.Unit, Labels: sortedLabels(cfg.Labels)},
		Interval: cfg.Interval, Writable: cfg.Writable, Function: byte(cfg.Function),
	}
	var err error
	if p.Kind, p.Address, err = modbusAddress(cfg); err != nil {
		return fail("address", err)
	}
	spec := decode.Spec{Scale: cfg.Scale, Offset: cfg.Offset, Min: cfg.Min, Max: cfg.Max, Decimals: cfg.Decimals}
	if key, err := modbusType(cfg, p.Kind, order, &spec); err != nil {
		return fail(key, err)
	}
	if spec.Labels, err = numbered(cfg.Values); err != nil {
		return fail("values", err)
	}
	flags, err := numbered(cfg.Flags)
	if err != nil {
		return fail("flags", err)
	}
	for bit, label := range flags {
		if spec.Flags == nil {
			spec.Flags = map[int]string{}
		}
		spec.Flags[int(bit)] = label
	}
	for _, s := range cfg.Sentinels {
		raw, bits := uint64(s), spec.Type.Bits
		switch {
		case spec.Type.Text():
			return fail("sentinels", fmt.Errorf("a %v has none: sentinels are raw numbers", spec.Type))
		case s < 0 && bits < 64 && s < -1<<(bits-1):
			return fail("sentinels", fmt.Errorf("sentinel %d does not fit into a %v", s, spec.Type))
		case s < 0:
			raw &= 1<<bits - 1
		}
		spec.Sentinels = append(spec.Sentinels, raw)
	}
	if p.Field, err = f.field(spec); err != nil {
		return fail("type", err)
	}
	p.Decimals = p.Field.Decimals()
	if cfg.ScaleFrom != nil {
		p.Factor = &modbus.Register{Kind: p.Kind, Address: uint16(*cfg.ScaleFrom)}
		p.Decimals = -1
	}
	if cfg.Function < 0 || cfg.Function > 255 {
		return fail("function", fmt.Errorf("function %d: 5, 6, 15, 16, 22 and 23 write", cfg.Function))
	}
	if err := p.Check(); err != nil {
		return fail("type", err)
	}
	width := 1
	if !p.Kind.Bits() {
		width = (p.Field.Size() + 1) / 2
	}
	count := max(cfg.Count, 1)
	if count > 1 && int(p.Address)+count*width > 1<<16 {
		return fail("count", fmt.Errorf("%d of them go beyond the last address, 65535", count))
	}
	points := make([]modbus.Point, count)
	for k := range points {
		points[k] = p
		points[k].Name = cfg.ElementName(k)
		points[k].Address += uint16(k * width)
	}
	return points, nil
}

// Addresses says where the Modbus points of a configuration that has passed Check are, on the wire and
// in the classic notation: a line for each that the file writes in the classic one, or for all.
func Addresses(cfg *config.Config, all bool) (lines []string) {
	for _, bus := range cfg.Modbus {
		for _, device := range bus.Devices {
			for i := range device.Points {
				p := &device.Points[i]
				if p.Address == "" && !all {
					continue
				}
				if kind, address, err := modbusAddress(p); err == nil {
					lines = append(lines, fmt.Sprintf("%v: %v %d on the wire, %s in the classic notation", p.At, kind, address, kind.Notation(address)))
				}
			}
		}
	}
	return lines
}

// errNowhere is what is wrong with a point that says nothing of where it is; config reports it.
var errNowhere = errors.New("the point does not say where it is")

// modbusAddress returns where a point is.
func modbusAddress(cfg *config.ModbusPoint) (modbus.Kind, uint16, error) {
	switch {
	case cfg.Coil != nil:
		return modbus.Coil, uint16(*cfg.Coil), nil
	case cfg.Discrete != nil:
		return modbus.Discrete, uint16(*cfg.Discrete), nil
	case cfg.Input != nil:
		return modbus.Input, uint16(*cfg.Input), nil
	case cfg.Holding != nil:
		return modbus.Holding, uint16(*cfg.Holding), nil
	case cfg.Address == "":
		return 0, 0, errNowhere
	}
	return modbus.ParseNotation(string(cfg.Address))
}

// modbusType fills in type and order of a point; the key is the one at fault.
func modbusType(cfg *config.ModbusPoint, k modbus.Kind, order string, spec *decode.Spec) (key string, err error) {
	name := cfg.Type
	switch {
	case name == "" && k.Bits():
		name = "bool"
	case name == "" && cfg.Bit != nil:
		name = "bit"
	case name == "":
		name = "uint16"
	}
	t, err := decode.ParseType(name)
	if err != nil {
		return "type", err
	}
	if k.Bits() {
		if t.Kind != decode.Bool {
			return "type", fmt.Errorf("a %s is a bit: its type is bool, not %s", k.Element(), name)
		}
		spec.Type = t
		return "", nil
	}
	if t.Text() {
		if t.Bytes = cfg.Length; t.Bytes < 1 || t.Bytes > 250 {
			return "length", fmt.Errorf("a %s needs its length in bytes, 1 to 250: length = 16", name)
		}
	} else if cfg.Length != 0 {
		return "length", fmt.Errorf("length is for texts; a %s has its own", name)
	}
	if t, err = t.InRegisters(); err != nil {
		return "type", err
	}
	if name == "bit" {
		if cfg.Bit == nil || *cfg.Bit < 0 || *cfg.Bit > 15 {
			return "bit", errors.New("which bit of the register? bit = 0 is the lowest, bit = 15 the highest")
		}
		t.Shift = *cfg.Bit
	} else if cfg.Bit != nil {
		return "bit", fmt.Errorf(`bit goes with type = "bit", not with %q`, name)
	}
	if cfg.Bits != "" {
		from, to, _ := strings.Cut(cfg.Bits, "-")
		lo, err1 := strconv.Atoi(strings.TrimSpace(from))
		hi, err2 := strconv.Atoi(strings.TrimSpace(to))
		if err1 != nil || err2 != nil {
			return "bits", fmt.Errorf(`bits %q: write the lowest and the highest, as in "4-6"`, cfg.Bits)
		}
		if t, err = t.Part(lo, hi); err != nil {
			return "bits", err
		}
	}
	spec.Type = t
	if cfg.Order != "" {
		order = cfg.Order
	} else if t.Text() {
		order = "" // the order of numbers says nothing about texts
	}
	if order != "" {
		if spec.Order, err = decode.ParseOrder(order); err != nil {
			return "order", err
		}
	}
	return "", nil
}

// numbered reads the keys of a TOML table as numbers: 3 = "alarm".
func numbered(table map[string]string) (map[int64]string, error) {
	if len(table) == 0 {
		return nil, nil
	}
	m := make(map[int64]string, len(table))
	for key, label := range table {
		n, err := strconv.ParseInt(key, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", key)
		}
		m[n] = label
	}
	return m, nil
}

// trim takes the package prefix off an error that is shown beside the line that it is about.
func trim(err error) error {
	text := err.Error()
	for _, prefix := range []string{"decode: ", "modbus: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
