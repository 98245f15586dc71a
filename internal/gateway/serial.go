package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/adapters/port"
	"gateway/adapters/serial"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
	"gateway/config"
)

// newSerial makes the line that a table [[serial]] asks for.
func newSerial(cfg *config.Serial, env busEnv) (bus, error) {
	o, err := serialOptions(cfg)
	if err != nil {
		return nil, err
	}
	o.Sink, o.Clock, o.Logger = env.Sink, env.Clock, env.Log
	return serial.New(o)
}

// SerialOptions are what a table [[serial]] asks for, but for Sink, Clock and Logger, for the monitor.
func SerialOptions(cfg *config.Serial) (serial.Options, error) { return serialOptions(cfg) }

// checkSerial reports what newSerial would refuse, and what of the machine is not as the table says.
func checkSerial(cfg *config.Serial) {
	line, err := serialLine(cfg)
	reportSerial(cfg, nil, err)
	if _, bad := frame.New(line.Frame); bad != nil {
		line.Frame = frame.Spec{Kind: frame.Line, Delimiter: []byte("\n")} // reported; look at the devices all the same
	}
	for i := range cfg.Devices {
		d, err := serialDevice(&cfg.Devices[i])
		if err == nil {
			line.Devices = []serial.Device{d}
			_, err = serial.New(line)
		}
		reportSerial(cfg, &cfg.Devices[i], err)
	}
	if cfg.Port != "" {
		if _, err := os.Stat(cfg.Port); err != nil {
			cfg.At.Warnf("port", "%s is not there today; the gateway waits for it", cfg.Port)
		}
	}
}

// reportSerial reports errors of serialLine, or of serialDevice and serial.New for one device.
func reportSerial(cfg *config.Serial, d *config.SerialDevice, err error) {
	for _, err := range adapters.Joined(err) {
		var at *placeError
		var de *serial.DeviceError
		switch {
		case errors.As(err, &at):
			at.at.Errorf(at.key, "%v", at.err)
		case errors.As(err, &de):
			at, key := serialPlace(d, de)
			at.Errorf(key, "%v", plain(de.Err))
		default:
			cfg.At.Errorf("", "%v", plain(err))
		}
	}
}

// checkOwners reports ports and buses that two tables want: two owners of one line disturb each other.
func checkOwners(cfg *config.Config) {
	users := map[string]string{}
	for i := range cfg.Modbus {
		m := &cfg.Modbus[i]
		where := "at " + samePlace(m.Address)
		switch {
		case m.Port != "":
			where = realPath(m.Port)
		case m.USB != nil:
			where = port.USB{Vendor: m.USB.Vendor, Product: m.USB.Product, Serial: m.USB.Serial, Interface: m.USB.Interface}.String()
		}
		users[where] = "modbus " + strconv.Quote(m.Name)
	}
	for i := range cfg.Serial {
		s := &cfg.Serial[i]
		where := "at " + samePlace(s.Address)
		switch {
		case s.Port != "":
			where = realPath(s.Port)
		case s.USB != nil:
			where = serialPort(s).USB.String()
		}
		if other, twice := users[where]; twice {
			s.At.Errorf("", "it is at the same place (%s) as %s: two owners of one line disturb each other; put all devices under one table", where, other)
			continue
		}
		users[where] = "serial " + strconv.Quote(s.Name)
	}
	for i := range cfg.I2C {
		b := &cfg.I2C[i]
		where := realPath(b.Device())
		if other, twice := users[where]; twice {
			b.At.Errorf("", "it is at the same place (%s) as %s; put all chips under one table, for one owner opens the channels of multiplexers", where, other)
			continue
		}
		users[where] = "i2c " + strconv.Quote(b.Name)
	}
}

// realPath resolves symbolic links, so that two names of one port are seen to be one.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// plain takes the package prefixes off an error that is shown with its place in the file.
func plain(err error) string {
	s := err.Error()
	for _, prefix := range []string{"serial: ", "parse: ", "frame: "} {
		s = strings.ReplaceAll(s, prefix, "")
	}
	if i := strings.Index(s, `device "`); i == 0 {
		if _, rest, ok := strings.Cut(s, `": `); ok {
			s = rest
		}
	}
	return s
}

// serialPlace returns the table that an error of serial.New is about.
func serialPlace(d *config.SerialDevice, e *serial.DeviceError) (config.Place, string) {
	all := d.All()
	if e.Message < 0 || e.Message >= len(all) {
		return d.At, ""
	}
	m := all[e.Message]
	var fe *parse.FieldError
	if !errors.As(e.Err, &fe) {
		key := ""
		if strings.Contains(e.Err.Error(), "regexp") || strings.Contains(e.Err.Error(), "(?:...)") {
			key = "match"
		}
		return m.At, key
	}
	if fe.Field < len(m.Points) {
		return m.Points[fe.Field].At, ""
	}
	if w := fe.Field - len(m.Points); len(m.Points) > 0 && w < len(m.Where) {
		return m.Where[w].At, ""
	}
	return m.At, ""
}

func serialOptions(cfg *config.Serial) (serial.Options, error) {
	o, err := serialLine(cfg)
	errs := []error{err}
	for i := range cfg.Devices {
		d, err := serialDevice(&cfg.Devices[i])
		errs = append(errs, err)
		o.Devices = append(o.Devices, d)
	}
	return o, errors.Join(errs...)
}

// serialLine turns all of a table but its devices into options.
func serialLine(cfg *config.Serial) (serial.Options, error) {
	o := serial.Options{Name: cfg.Name, Pause: cfg.Pause, Settle: cfg.Settle}
	var errs []error
	o.Open = func(ctx context.Context) (serial.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", cfg.Address)
	}
	if cfg.Address == "" {
		p := serialPort(cfg)
		errs = append(errs, portErrors(cfg.At, p.Check())...)
		o.Open = func(context.Context) (serial.Conn, error) {
			open, err := port.Open(p)
			if err != nil {
				return nil, err // not a nil *port.Port in an interface
			}
			return open, nil
		}
	}
	spec, err := serialFrame(cfg.Frame)
	if cfg.Frame == nil {
		spec = impliedFrame(cfg)
	}
	if err != nil {
		errs = append(errs, err)
	}
	o.Frame = spec
	return o, errors.Join(errs...)
}

func serialPort(cfg *config.Serial) port.Config {
	p := port.Config{
		Name: cfg.Port, Baud: cfg.Baud, DataBits: cfg.DataBits, Parity: port.Parity(cfg.Parity), StopBits: cfg.StopBits,
		Flow: port.Flow(cfg.Flow), RTS: cfg.RTS, DTR: cfg.DTR,
	}
	if u := cfg.USB; u != nil {
		p.USB = port.USB{Vendor: u.Vendor, Product: u.Product, Serial: u.Serial, Interface: u.Interface}
	}
	if r := cfg.RS485; r != nil {
		p.RS485 = &port.RS485{Invert: r.Invert, Before: r.Before, After: r.After}
	}
	return p
}

// portErrors puts what is wrong with a port's settings beside their lines.
func portErrors(at config.Place, err error) (errs []error) {
	for _, err := range adapters.Joined(err) {
		key := ""
		if e := new(port.SettingError); errors.As(err, &e) {
			key, err = e.Key, e.Err
		}
		errs = append(errs, &placeError{at, key, err})
	}
	return errs
}
