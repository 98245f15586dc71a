package gateway

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/hint"
	"gateway/adapters/i2c"
	"gateway/config"
)

// newI2C makes the bus that a table [[i2c]] asks for. What is wrong with it has been reported through
// the places of its tables when it returns an error.
func newI2C(cfg *config.I2C, env busEnv) (bus, error) {
	o := i2c.Options{
		Name: cfg.Name, Path: cfg.Device(), Timeout: cfg.Timeout,
		Sink: env.Sink, Clock: env.Clock, Logger: env.Log,
	}
	switch {
	case env.OpenI2C != nil:
		o.Open = func() (periph.BusCloser, error) { return env.OpenI2C(cfg.Device()) }
	case cfg.Adapter != "":
		// Looked up at each opening: a USB adapter that was pulled out comes back with another number.
		o.Open = func() (periph.BusCloser, error) {
			path, err := i2c.FindAdapter(cfg.Adapter)
			if err != nil {
				return nil, err
			}
			return i2c.OpenLinux(path, cfg.Timeout)
		}
	}
	for i := range cfg.Devices {
		d, err := i2cDevice(&cfg.Devices[i])
		if err != nil {
			return nil, err
		}
		o.Devices = append(o.Devices, d)
	}
	return i2c.New(o)
}

// checkI2C reports what newI2C would refuse, and what of the machine is not as the table says.
func checkI2C(cfg *config.I2C) {
	broken := false
	o := i2c.Options{
		Name: cfg.Name, Path: cfg.Device(),
		Sink:  adapters.SinkFunc(func(adapters.Sample) bool { return false }),
		Clock: func() adapters.Instant { return 0 },
	}
	for i := range cfg.Devices {
		d, err := i2cDevice(&cfg.Devices[i])
		if err != nil {
			broken = true
			tell(cfg.Devices[i].At, err)
		}
		o.Devices = append(o.Devices, d)
	}
	if broken {
		return
	}
	_, err := i2c.New(o)
	for _, err := range adapters.Joined(err) {
		var de *i2c.DeviceError
		if errors.As(err, &de) {
			at, key := i2cKey(&cfg.Devices[de.Index], de.Err)
			at.Errorf(key, "%s", strings.TrimPrefix(de.Err.Error(), "i2c: "))
		} else {
			cfg.At.Errorf("", "%v", err)
		}
	}
	if cfg.Adapter != "" {
		if _, err := i2c.FindAdapter(cfg.Adapter); err != nil {
			cfg.At.Warnf("adapter", "%v; the gateway waits for it", err)
		}
	} else if _, err := os.Stat(cfg.Device()); err != nil {
		cfg.At.Warnf("bus", "%s is not there today; the gateway waits for it", cfg.Device())
	}
}

// I2CDevice returns the device of that name and its bus, for tools that look at one alone.
func I2CDevice(cfg *config.Config, name string) (path string, d i2c.Device, err error) {
	var names []string
	for i := range cfg.I2C {
		for j := range cfg.I2C[i].Devices {
			if cfg.I2C[i].Devices[j].Name == name {
				if d, err = i2cDevice(&cfg.I2C[i].Devices[j]); err != nil || cfg.I2C[i].Adapter == "" {
					return cfg.I2C[i].Device(), d, err
				}
				path, err = i2c.FindAdapter(cfg.I2C[i].Adapter)
				return path, d, err
			}
			names = append(names, cfg.I2C[i].Devices[j].Name)
		}
	}
	return "", d, fmt.Errorf("the configuration has no I2C device %q%s", name, hint.DidYouMean(name, names))
}

// i2cKey returns the place and key of the table that an error of i2c.New is about.
func i2cKey(d *config.I2CDevice, err error) (config.Place, string) {
	var f *i2c.FieldError
	if !errors.As(err, &f) {
		return d.At, ""
	}
	if f.Point >= 0 && f.Point < len(d.Points) {
		return d.Points[f.Point].At, f.Key
	}
	return d.At, f.Key
}

// A placeError is an error with the table and key that it is about.
type placeError struct {
	at  config.Place
	key string
	err error
}

func (e *placeError) Error() string { return fmt.Sprintf("%v: %v", e.at, e.err) }
func (e *placeError) Unwrap() error { return e.err }

// tell reports an error at its place, where it knows one, else at the table that it is about.
func tell(table config.Place, err error) {
	var at *placeError
	if errors.As(err, &at) {
		at.at.Errorf(at.key, "%v", at.err)
	} else {
		table.Errorf("", "%v", err)
	}
}

// i2cDevice turns a table into the options of the adapter.
func i2cDevice(cfg *config.I2CDevice) (i2c.Device, error) {
	d := i2c.Device{
		Name: cfg.Name, Labels: sortedLabels(cfg.Labels), Chip: cfg.Chip, Address: cfg.Address, PEC: cfg.PEC,
		Interval: cfg.Interval, Settings: cfg.Settings,
	}
	if cfg.Mux != nil {
		d.Mux = &i2c.Mux{Address: cfg.Mux.Address, Channel: cfg.Mux.Channel}
	}
	generic := i2c.IsGeneric(cfg.Chip)
	if !generic && (len(cfg.Init) > 0 || len(cfg.Read) > 0) {
		return d, &placeError{cfg.At, "chip", fmt.Errorf("init and read are for chip = %q; a chip of the catalogue knows its own", i2c.GenericChip)}
	}
	if generic {
		d.Registers = &i2c.Registers{Init: i2cSteps(cfg.Init), Read: i2cSteps(cfg.Read)}
	}
	for i := range cfg.Points {
		p := &cfg.Points[i]
		point := i2c.Point{Name: p.Name, Unit: p.Unit, Decimals: p.Decimals, Labels: sortedLabels(p.Labels), Interval: p.Interval}
		if generic {
			f, err := i2cField(p)
			if err != nil {
				return d, err
			}
			d.Registers.Fields = append(d.Registers.Fields, f)
		} else {
			for _, key := range []string{"type", "byte", "step", "order", "length", "shift", "mask", "sentinels", "values", "flags"} {
				if p.At.Has(key) {
					return d, &placeError{p.At, key, fmt.Errorf("%s is for chip = %q; the %s knows where its values are", key, i2c.GenericChip, cfg.Chip)}
				}
			}
			point.From, point.Scale, point.Offset, point.Min, point.Max = p.From, p.Scale, p.Offset, p.Min, p.Max
		}
		d.Points = append(d.Points, point)
	}
	return d, nil
}

func i2cSteps(cfg []config.I2CStep) (steps []i2c.Step) {
	for _, s := range cfg {
		step := i2c.Step{Write: s.Write, Wait: s.Wait, Bytes: s.Bytes, Expect: s.Expect, Mask: s.Mask, Tries: s.Tries}
		if s.CRC != nil {
			step.CRC, step.Every = &i2c.CRC8{Poly: s.CRC.Poly, Init: s.CRC.Init}, s.CRC.Every
		}
		steps = append(steps, step)
	}
	return steps
}

// i2cField turns a point of a device described by registers into a field.
func i2cField(p *config.I2CPoint) (i2c.Field, error) {
	f := i2c.Field{Name: p.Name, Unit: p.Unit, Step: p.Step - 1, At: p.Byte}
	fail := func(key string, err error) (i2c.Field, error) { return f, &placeError{p.At, key, err} }
	if p.Type == "" {
		return fail("", errors.New(`has no type; add type = "uint16" or another`))
	}
	if p.From != "" {
		return fail("from", fmt.Errorf("from is for chips of the catalogue; here byte and type say where the value is"))
	}
	t, err := decode.ParseType(p.Type)
	if err != nil {
		return fail("type", err)
	}
	switch {
	case t.Text():
		t.Bytes = p.Length
		if p.Length == 0 {
			return fail("type", fmt.Errorf("a %s needs its length", p.Type))
		}
	default:
		if p.Length != 0 {
			t.Bytes = p.Length
		}
		if p.Shift != 0 {
			t.Shift = p.Shift
			if p.Length == 0 {
				t.Bytes = (t.Bits + t.Shift + 7) / 8
			}
		}
		if p.Mask != 0 {
			lo := bits.TrailingZeros64(p.Mask)
			width := bits.Len64(p.Mask >> lo)
			if p.Mask>>lo != 1<<width-1 {
				return fail("mask", fmt.Errorf("mask %#x is not one run of ones", p.Mask))
			}
			if t, err = t.Part(lo, lo+width-1); err != nil {
				return fail("mask", err)
			}
		}
	}
	f.Spec = decode.Spec{Type: t, Scale: p.Scale, Offset: p.Offset, Min: p.Min, Max: p.Max, Sentinels: p.Sentinels}
	if p.Order != "" {
		if f.Spec.Order, err = decode.ParseOrder(p.Order); err != nil {
			return fail("order", err)
		}
	}
	if len(p.Values) > 0 {
		f.Spec.Labels = map[int64]string{}
		for n, text := range p.Values {
			v, err := strconv.ParseInt(n, 0, 64)
			if err != nil {
				return fail("values", fmt.Errorf("%q is not a whole number", n))
			}
			f.Spec.Labels[v] = text
		}
	}
	if len(p.Flags) > 0 {
		f.Spec.Flags = map[int]string{}
		for n, text := range p.Flags {
			v, err := strconv.Atoi(n)
			if err != nil {
				return fail("flags", fmt.Errorf("%q is not the number of a bit", n))
			}
			f.Spec.Flags[v] = text
		}
	}
	return f, nil
}

// sortedLabels returns the labels of a table in the order of their names.
func sortedLabels(m map[string]string) []adapters.Label {
	var all []adapters.Label
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, adapters.Label{Name: name, Value: m[name]})
	}
	return all
}
