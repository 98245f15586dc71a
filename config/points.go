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

func (c *Config) checkReports() {
	for i := range c.Reports {
		c.Reports[i].check(c.Reports[i].At)
	}
	for i := range c.Modbus {
		m := &c.Modbus[i]
		m.Report.check(m.At)
		for k := range m.Devices {
			d := &m.Devices[k]
			d.Report.check(d.At)
			for n := range d.Points {
				d.Points[n].Report.check(d.Points[n].At)
			}
		}
	}
	for i := range c.Serial {
		s := &c.Serial[i]
		s.Report.check(s.At)
		for k := range s.Devices {
			d := &s.Devices[k]
			d.Report.check(d.At)
			for _, m := range d.All() {
				for n := range m.Points {
					m.Points[n].Report.check(m.Points[n].At)
				}
			}
		}
	}
	for i := range c.I2C {
		b := &c.I2C[i]
		b.Report.check(b.At)
		for k := range b.Devices {
			d := &b.Devices[k]
			d.Report.check(d.At)
			for n := range d.Points {
				d.Points[n].Report.check(d.Points[n].At)
			}
		}
	}
}

// Reporting tells whether anything at all is said of what is worth reporting.
func (c *Config) Reporting() bool {
	says := func(r *Report) bool {
		return r.OnChange != nil || r.Deadband != nil || r.Heartbeat != nil || r.MinInterval != nil || r.Window != nil
	}
	for i := range c.Modbus {
		for k := range c.Modbus[i].Devices {
			d := &c.Modbus[i].Devices[k]
			if says(&c.Modbus[i].Report) || says(&d.Report) || slices.ContainsFunc(d.Points, func(p ModbusPoint) bool { return says(&p.Report) }) {
				return true
			}
		}
	}
	for i := range c.Serial {
		for k := range c.Serial[i].Devices {
			d := &c.Serial[i].Devices[k]
			if says(&c.Serial[i].Report) || says(&d.Report) {
				return true
			}
			for _, m := range d.All() {
				if slices.ContainsFunc(m.Points, func(p SerialPoint) bool { return says(&p.Report) }) {
					return true
				}
			}
		}
	}
	for i := range c.I2C {
		for k := range c.I2C[i].Devices {
			d := &c.I2C[i].Devices[k]
			if says(&c.I2C[i].Report) || says(&d.Report) || slices.ContainsFunc(d.Points, func(p I2CPoint) bool { return says(&p.Report) }) {
				return true
			}
		}
	}
	return len(c.Reports) > 0
}

// ReportOf returns what is worth reporting of a point. match tells whether a name fits a pattern.
func (c *Config) ReportOf(device, point string, match func(pattern, name string) bool) Report {
	r := c.ownReport(device, point)
	for i := range c.Reports {
		rule := &c.Reports[i]
		if matchAny(rule.Devices, device, match) && matchAny(rule.Points, point, match) {
			r = rule.Report.over(r)
		}
	}
	return r
}

func matchAny(patterns []string, name string, match func(pattern, name string) bool) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

// ownReport returns what the tables of the point, its device and its bus say.
func (c *Config) ownReport(device, point string) Report {
	for i := range c.Modbus {
		for k := range c.Modbus[i].Devices {
			d := &c.Modbus[i].Devices[k]
			if d.Name != device {
				continue
			}
			r := d.Report.over(c.Modbus[i].Report)
			for n := range d.Points {
				// The elements of an array are points of their own.
				if p := &d.Points[n]; p.Name == point || p.Count > 1 && strings.HasPrefix(point, p.Name+"_") {
					return p.Report.over(r)
				}
			}
			return r
		}
	}
	for i := range c.Serial {
		for k := range c.Serial[i].Devices {
			d := &c.Serial[i].Devices[k]
			if d.Name != device {
				continue
			}
			r := d.Report.over(c.Serial[i].Report)
			for _, m := range d.All() {
				for n := range m.Points {
					if m.Points[n].Name == point {
						return m.Points[n].Report.over(r)
					}
				}
			}
			return r
		}
	}
	for i := range c.I2C {
		for k := range c.I2C[i].Devices {
			d := &c.I2C[i].Devices[k]
			if d.Name != device {
				continue
			}
			r := d.Report.over(c.I2C[i].Report)
			for n := range d.Points {
				if d.Points[n].Name == point {
					return d.Points[n].Report.over(r)
				}
			}
			return r
		}
	}
	return Report{}
}
