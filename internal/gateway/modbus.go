package gateway

import (
	"errors"
	"fmt"
	"os"
	"slices"
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
	for i := range p.Points {
		points, err := modbusPoints(&p.Points[i], p.Order)
		if err != nil {
			return nil, fmt.Errorf("profile %s, point %s: %w", p.ID, p.Points[i].Name, err)
		}
		all = append(all, points...)
	}
	return all, nil
}

// checkModbus reports what newModbus would refuse, what of the machine is not as the tables say, and
// a bus that is asked for more than it can carry.
func checkModbus(buses []config.Modbus) {
	users := map[string]string{}
	for i := range buses {
		cfg := &buses[i]
		if at := modbusPlace(cfg); at != "" {
			if other, twice := users[at]; twice && (cfg.Framing == "tcp" || cfg.Framing == "udp") {
				cfg.At.Warnf("address", "bus %q has the same address (%s): under one [[modbus]] the devices share one connection", other, cfg.Address)
			} else if twice {
				cfg.At.Errorf("", "bus %q is at the same place (%s): two masters on one line disturb each other; put all devices under one [[modbus]]", other, at)
			}
			users[at] = cfg.Name
		}
		broken := false
		for k := range cfg.Devices {
			d := &cfg.Devices[k]
			for _, err := range checkModbusDevice(cfg, d) {
				broken = true
				var at *placeError
				if errors.As(err, &at) {
					at.at.Errorf(at.key, "%v", at.err)
				} else {
					d.At.Errorf("", "%v", err)
				}
			}
		}
		if broken {
			continue
		}
		o, err := modbusOptions(cfg)
		if err == nil {
			_, err = modbus.New(o)
		}
		if err != nil {
			cfg.At.Errorf("", "%v", err)
			continue
		}
		if f, err := modbus.Plan(o); err == nil && f.Wire > 0.8 {
			what := "leaves little time for the devices to answer"
			if f.Wire > 1 {
				what = "is more than it can carry"
			}
			cfg.At.Warnf("", "%d baud: the bus is asked for %.0f %% of what fits on the wire, which %s; longer intervals or fewer points help ('gateway plan' shows the requests)", cfg.Baud, 100*f.Wire, what)
		}
		if cfg.Port != "" {
			if _, err := os.Stat(cfg.Port); err != nil {
				cfg.At.Warnf("port", "%s is not there today; the gateway waits for it", cfg.Port)
			}
		}
	}
}

// modbusPlace returns where a bus is, with symbolic links resolved, so that two names of one port
// are seen to be one.
func modbusPlace(cfg *config.Modbus) string {
	if cfg.Address != "" {
		return cfg.Framing + " " + cfg.Address
	}
	if u := cfg.USB; u != nil {
		return fmt.Sprintf("usb %s %s %s %s", u.Vendor, u.Product, u.Serial, u.Interface)
	}
	return realPath(cfg.Port)
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
		o.Port = port.Config{
			Name: cfg.Port, Baud: cfg.Baud, DataBits: cfg.DataBits, Parity: port.Parity(cfg.Parity), StopBits: cfg.StopBits,
		}
		if u := cfg.USB; u != nil {
			o.Port.USB = port.USB{Vendor: u.Vendor, Product: u.Product, Serial: u.Serial, Interface: u.Interface}
		}
		if r := cfg.RS485; r != nil && r.By == "program" {
			o.RTS = &modbus.RTS{Invert: r.Invert, Before: r.Before, After: r.After}
		} else if r != nil {
			o.Port.RS485 = &port.RS485{Invert: r.Invert, Before: r.Before, After: r.After}
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
	for i := range cfg.Points {
		points, err := modbusPoints(&cfg.Points[i], cfg.Order)
		if err != nil {
			errs = append(errs, err)
		}
		d.Points = append(d.Points, points...)
	}
	return d, errs
}

// checkModbusDevice returns all that is wrong with the points of a device.
func checkModbusDevice(bus *config.Modbus, cfg *config.ModbusDevice) []error {
	d, errs := modbusDevice(cfg)
	if cfg.Order != "" {
		if _, err := decode.ParseOrder(cfg.Order); err != nil {
			return []error{&placeError{cfg.At, "order", trim(err)}}
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return append(arrayNames(cfg), overlapping(cfg, d.Points)...)
}

// arrayNames reports elements of arrays that are named like another point; points that are called the
// same in the file have been reported by config.
func arrayNames(cfg *config.ModbusDevice) (errs []error) {
	tables := map[string]string{} // by the adapter's name of a point: the table's
	for i := range cfg.Points {
		p := &cfg.Points[i]
		for k := range max(p.Count, 1) {
			name := p.ElementName(k)
			if other, twice := tables[name]; twice && other != p.Name {
				errs = append(errs, &placeError{p.At, "name", fmt.Errorf("the point %q is also an element of an array: %q and %q make one name; rename one", name, other, p.Name)})
			}
			tables[name] = p.Name
		}
	}
	return errs
}

// overlapping reports points that share bits of a register: of two writable ones each would change
// the other, and two that are read are mostly a slip of the address. Meant are the parts of a register
// beside the whole, and an enumeration or flags beside the number.
func overlapping(cfg *config.ModbusDevice, points []modbus.Point) []error {
	var errs []error
	owner := map[[2]int]int{} // table and bit: the first point that has it
	lenient := make([]bool, len(points))
	for i := range points {
		p := &points[i]
		mask := make([]byte, p.Field.Size()+p.Field.Size()%2)
		p.Field.Mask(mask)
		if p.Kind.Bits() {
			mask = []byte{1}
		}
		c := modbusPointTable(cfg, p.Name)
		part := !p.Kind.Bits() && slices.ContainsFunc(mask, func(b byte) bool { return b != 0xff })
		lenient[i] = part || c != nil && (c.Overlap || len(c.Flags) > 0 || len(c.Values) > 0)
		clash := -1
		for at, b := range mask {
			for bit := range 8 {
				if b>>bit&1 == 0 {
					continue
				}
				key := [2]int{int(p.Kind), 16*int(p.Address) + 8*at + bit}
				if other, taken := owner[key]; taken {
					clash = other
				} else {
					owner[key] = i
				}
			}
		}
		if clash < 0 {
			continue
		}
		other := &points[clash]
		switch {
		case p.Writable && other.Writable:
			errs = append(errs, &placeError{modbusPointPlace(cfg, p.Name), "", fmt.Errorf("writable points %q and %q overlap: writing one changes the other", other.Name, p.Name)})
		case !lenient[i] && !lenient[clash]:
			errs = append(errs, &placeError{modbusPointPlace(cfg, p.Name), "", fmt.Errorf("points %q (%v %s) and %q (%v %s) overlap; mend the address or the type of one, or set overlap = true where both are meant",
				other.Name, other.Kind, span(other), p.Name, p.Kind, span(p))})
		}
	}
	return errs
}

// span writes which elements of its table a point takes: 100, or 100 to 101.
func span(p *modbus.Point) string {
	last := int(p.Address)
	if !p.Kind.Bits() {
		last += (p.Field.Size()+1)/2 - 1
	}
	if last == int(p.Address) {
		return strconv.Itoa(last)
	}
	return fmt.Sprintf("%d to %d", p.Address, last)
}

// modbusPointPlace returns the place of the table that a point of the adapter came from.
func modbusPointPlace(cfg *config.ModbusDevice, name string) config.Place {
	if p := modbusPointTable(cfg, name); p != nil {
		return p.At
	}
	return cfg.At
}

// modbusPointTable returns the table that a point of the adapter came from, nil if it is of a profile.
func modbusPointTable(cfg *config.ModbusDevice, name string) *config.ModbusPoint {
	for i := range cfg.Points {
		if cfg.Points[i].Gives(name) {
			return &cfg.Points[i]
		}
	}
	return nil
}

// modbusPoints turns a point's table into points of the adapter: one, or as many as an array has.
func modbusPoints(cfg *config.ModbusPoint, order string) ([]modbus.Point, error) {
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
	if p.Field, err = decode.New(spec); err != nil {
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
	return errors.New(text)
}
