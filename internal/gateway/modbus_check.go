package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/config"
)

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
				if !errors.Is(err, errNowhere) {
					tell(d.At, err)
				}
			}
		}
		if cfg.Serial() {
			p := modbusPort(cfg)
			for _, err := range portErrors(cfg.At, p.Check()) {
				broken = true
				tell(cfg.At, err)
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
		return cfg.Framing + " " + samePlace(cfg.Address)
	}
	if u := cfg.USB; u != nil {
		return fmt.Sprintf("usb %s %s %s %s", u.Vendor, u.Product, u.Serial, u.Interface)
	}
	return realPath(cfg.Port)
}

// samePlace writes a host and port, so that the two usual names of this machine, and the ways to write a
// host's name or an IPv6 address, are seen to be one. Names are not looked up: a check asks no network.
func samePlace(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
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
