// Package config reads the gateway's one TOML file: plain data with its defaults, loaded strictly,
// all problems reported at once with their line. It knows nobody but the leaves; the wiring turns
// what it holds into the options of the parts.
//
// Each room of the gateway has a file here: its tables as structs, setDefaults for their defaults,
// and a check method for what can be said without asking an adapter or the machine.
package config

import (
	"os"
	"regexp"
	"strings"
)

// Config is the whole file.
type Config struct {
	At           Place
	Gateway      Gateway       `toml:"gateway"`
	Queue        Queue         `toml:"queue"`
	Broker       Broker        `toml:"broker"`
	Local        Local         `toml:"local"`
	Destinations []Destination `toml:"destination"`
	Modbus       []Modbus      `toml:"modbus"`
	Serial       []Serial      `toml:"serial"`
	I2C          []I2C         `toml:"i2c"`
	Reports      []ReportRule  `toml:"report"`
}

// Gateway is the table [gateway].
type Gateway struct {
	At   Place
	ID   string `toml:"id"`   // first level of every topic, and the MQTT client id; default: the host's name
	Data string `toml:"data"` // directory of the queue and all other state
	// Clock is "system": times are marked where the kernel says that nobody had set the clock; or
	// "trust": it is right, whatever the kernel says, as on a box with a battery and no time service.
	Clock string `toml:"clock"`

	Profiles string `toml:"profiles"` // directory of the user's own device profiles
}

func (g *Gateway) setDefaults() {
	g.ID = HostID()
	g.Data = "/var/lib/gateway"
	g.Clock = "system"
	g.Profiles = "/etc/gateway/profiles"
}

// HostID returns the host's name as a gateway id: what cannot stand in a topic level is a dash.
func HostID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "gateway"
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/+#\x00 ", r) {
			return '-'
		}
		return r
	}, host)
}

// ReservedDevice is the device under whose name the gateway speaks of itself.
const ReservedDevice = "gateway"

func (c *Config) setDefaults() {
	// Tables that the file leaves out still have their defaults.
	c.Gateway.setDefaults()
	c.Queue.setDefaults()
	c.Broker.setDefaults()
	c.Local.setDefaults()
}

// advice tells where what is told of one device belongs.
func (c *Config) advice(key string) string {
	switch key {
	case "device":
		return "a device stands below its bus, as [[modbus.device]], [[serial.device]] or [[i2c.device]]"
	case "points", "point":
		return "points stand in their device"
	case "rule":
		return "a rule stands below its destination, as [[destination.rule]]"
	}
	return ""
}

func (c *Config) check() {
	checkName(c.Gateway.At, "id", c.Gateway.ID)
	if c.Gateway.Data == "" {
		c.Gateway.At.Errorf("data", "data is empty; name a directory, such as /var/lib/gateway")
	}
	if c.Gateway.Clock != "system" && c.Gateway.Clock != "trust" {
		c.Gateway.At.Errorf("clock", `clock %q: use "system" or "trust"`, c.Gateway.Clock)
	}
	c.Queue.check()
	c.Broker.check()
	c.Local.Publishing.check(c.Local.At)
	c.checkReports()

	buses := unique{what: "bus"}
	devices := unique{what: "device"}
	devices.seen = map[string]int{ReservedDevice: 0}
	profiles := profileStore{c.Gateway.Profiles}
	for i := range c.Modbus {
		c.Modbus[i].check(&buses, &devices, &profiles)
	}
	for i := range c.Serial {
		c.Serial[i].check(&buses, &devices)
	}
	for i := range c.I2C {
		c.I2C[i].check(&buses, &devices)
	}
	destinations := unique{what: "destination", seen: map[string]int{}}
	if c.Broker.Enabled {
		destinations.seen[LocalDestination] = 0
	}
	for i := range c.Destinations {
		c.Destinations[i].check(&destinations)
	}
	if len(c.Destinations) == 0 && !c.Broker.Enabled {
		c.At.Errorf("", "there is no destination: set [broker] enabled = true, or add a [[destination]] with a url")
	}
}

// unique finds names that are given twice.
type unique struct {
	what string
	seen map[string]int // line of the first
}

// add checks the name of a table and that it is the only one of its kind.
func (u *unique) add(at Place, name string) {
	if name == "" {
		at.Errorf("", "has no name; add name = \"...\"")
		return
	}
	if !checkName(at, "name", name) {
		return
	}
	if u.seen == nil {
		u.seen = map[string]int{}
	}
	line, twice := u.seen[name]
	switch {
	case twice && line == 0:
		at.Errorf("name", "the %s name %q is the gateway's own; choose another", u.what, name)
	case twice:
		where := "in the whole file"
		if u.what == "point" {
			where = "within a device"
		}
		at.Errorf("name", "the %s name %q is taken already in line %d; %s names are unique %s", u.what, name, line, u.what, where)
	default:
		u.seen[name] = at.Line("name")
	}
}

var badName = regexp.MustCompile(`[/+#\x00-\x20]|^\$`)

// checkName reports a name that cannot be a level of a topic.
func checkName(at Place, key, name string) bool {
	if name == "" || len(name) > 200 || badName.MatchString(name) {
		at.Errorf(key, "%s %q cannot be a level of a topic: use letters, digits, dashes, dots and underscores", key, name)
		return false
	}
	return true
}
