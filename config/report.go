package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report says which readings of a point are worth reporting. It stands in the tables of buses, of
// devices and of points: each overrides the one above, key by key.
type Report struct {
	OnChange    *bool          `toml:"on_change"`
	Deadband    *Deadband      `toml:"deadband"`  // reported when it moved so far; implies on_change
	Heartbeat   *time.Duration `toml:"heartbeat"` // reported anyway so often
	MinInterval *time.Duration `toml:"min_interval"`
	Window      *time.Duration `toml:"aggregate_over"`
	Aggregate   []string       `toml:"aggregate"` // min, max, mean, last, count
}

// Deadband is a distance: a number in the point's unit, or a part of the last value reported, "2%".
type Deadband struct {
	Absolute, Percent float64
}

func (d *Deadband) fromTOML(value any) error {
	switch v := value.(type) {
	case int64:
		d.Absolute = float64(v)
	case float64:
		d.Absolute = v
	case string:
		number, ok := strings.CutSuffix(strings.TrimSpace(v), "%")
		p, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if !ok || err != nil {
			return fmt.Errorf(`%q is not a deadband; write a number in the point's unit, or "2%%"`, v)
		}
		d.Percent = p
	default:
		return fmt.Errorf(`%v is not a deadband; write a number in the point's unit, or "2%%"`, value)
	}
	if !(d.Absolute >= 0 && d.Percent >= 0 && d.Absolute <= 1e300 && d.Percent <= 1e300) {
		return fmt.Errorf("%v: a deadband cannot be negative or infinite", value)
	}
	return nil
}

var aggregates = []string{"min", "max", "mean", "last", "count"}

// over returns r where it says something, and else what base says.
func (r Report) over(base Report) Report {
	if r.OnChange == nil {
		r.OnChange = base.OnChange
	}
	if r.Deadband == nil {
		r.Deadband = base.Deadband
	}
	if r.Heartbeat == nil {
		r.Heartbeat = base.Heartbeat
	}
	if r.MinInterval == nil {
		r.MinInterval = base.MinInterval
	}
	if r.Window == nil {
		r.Window = base.Window
	}
	if r.Aggregate == nil {
		r.Aggregate = base.Aggregate
	}
	return r
}

// silent tells whether r says nothing.
func (r *Report) silent() bool {
	return r.OnChange == nil && r.Deadband == nil && r.Heartbeat == nil && r.MinInterval == nil && r.Window == nil && r.Aggregate == nil
}

func (r *Report) check(at Place) {
	for key, d := range map[string]*time.Duration{"heartbeat": r.Heartbeat, "min_interval": r.MinInterval, "aggregate_over": r.Window} {
		if d != nil && *d < 0 {
			at.Errorf(key, "%s %v cannot be negative; 0 turns it off", key, *d)
		}
	}
	for _, a := range r.Aggregate {
		if !slices.Contains(aggregates, a) {
			at.Errorf("aggregate", "aggregate %q is not known; use %s", a, strings.Join(aggregates, ", "))
		}
	}
	if len(r.Aggregate) > 0 && r.Window == nil {
		at.Errorf("aggregate", `aggregate needs aggregate_over = "1m" beside it`)
	}
}

// ReportRule is a table [[report]]: what is worth reporting of the points that it names, whatever
// adapter they come from. A later one overrides an earlier one, and all of them what stands in the
// tables of buses, devices and points.
type ReportRule struct {
	At      Place
	Devices []string `toml:"devices"` // patterns with *
	Points  []string `toml:"points"`
	Report
}

// A reporter is a device of any bus as far as reports are concerned.
type reporter struct {
	name     string
	bus, own reportTable
	points   []reportTable
}

// A reportTable is a table in which the keys of a Report may stand.
type reportTable struct {
	at    Place
	says  *Report
	names func(point string) bool // of a point's table: whether it is about this point
}

// reporters returns all devices.
func (c *Config) reporters() (all []reporter) {
	add := func(name string, busAt, at Place, bus, own *Report) *reporter {
		all = append(all, reporter{name: name, bus: reportTable{at: busAt, says: bus}, own: reportTable{at: at, says: own}})
		return &all[len(all)-1]
	}
	called := func(name string) func(string) bool { return func(point string) bool { return point == name } }
	for i := range c.Modbus {
		b := &c.Modbus[i]
		for k := range b.Devices {
			d := &b.Devices[k]
			r := add(d.Name, b.At, d.At, &b.Report, &d.Report)
			for n := range d.Points {
				p := &d.Points[n]
				r.points = append(r.points, reportTable{p.At, &p.Report, p.Gives})
			}
		}
	}
	for i := range c.Serial {
		b := &c.Serial[i]
		for k := range b.Devices {
			d := &b.Devices[k]
			r := add(d.Name, b.At, d.At, &b.Report, &d.Report)
			for _, m := range d.All() {
				for n := range m.Points {
					p := &m.Points[n]
					r.points = append(r.points, reportTable{p.At, &p.Report, called(p.Name)})
				}
			}
		}
	}
	for i := range c.I2C {
		b := &c.I2C[i]
		for k := range b.Devices {
			d := &b.Devices[k]
			r := add(d.Name, b.At, d.At, &b.Report, &d.Report)
			for n := range d.Points {
				p := &d.Points[n]
				r.points = append(r.points, reportTable{p.At, &p.Report, called(p.Name)})
			}
		}
	}
	return all
}

// DeviceNames returns the names of all devices, in the order of the file's tables.
func (c *Config) DeviceNames() (names []string) {
	for _, d := range c.reporters() {
		names = append(names, d.name)
	}
	return names
}

func (c *Config) checkReports() {
	for i := range c.Reports {
		c.Reports[i].check(c.Reports[i].At)
	}
	for _, d := range c.reporters() {
		for _, t := range append([]reportTable{d.bus, d.own}, d.points...) {
			t.says.check(t.at)
		}
	}
}

// Reporting is what a configuration says of what is worth reporting, without the rest of it.
type Reporting struct {
	devices map[string]reported
	rules   []ReportRule
}

// reported is what one device's tables say.
type reported struct {
	says   Report // those of the device and its bus
	points []reportTable
}

// Reporting returns what is worth reporting, nil where nothing is said of it: everything is then.
func (c *Config) Reporting() *Reporting {
	r := &Reporting{devices: map[string]reported{}, rules: c.Reports}
	for _, d := range c.reporters() {
		own := reported{says: d.own.says.over(*d.bus.says)}
		for _, p := range d.points {
			if !p.says.silent() {
				own.points = append(own.points, p)
			}
		}
		if !own.says.silent() || len(own.points) > 0 {
			r.devices[d.name] = own
		}
	}
	if len(r.devices) == 0 && len(r.rules) == 0 {
		return nil
	}
	return r
}

// Of returns what is worth reporting of a point. match tells whether a name fits a pattern.
func (r *Reporting) Of(device, point string, match func(pattern, name string) bool) Report {
	d := r.devices[device]
	says := d.says
	if i := slices.IndexFunc(d.points, func(p reportTable) bool { return p.names(point) }); i >= 0 {
		says = d.points[i].says.over(says)
	}
	for i := range r.rules {
		rule := &r.rules[i]
		if matchAny(rule.Devices, device, match) && matchAny(rule.Points, point, match) {
			says = rule.Report.over(says)
		}
	}
	return says
}

func matchAny(patterns []string, name string, match func(pattern, name string) bool) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}
