package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"gateway/adapters/hint"
	"gateway/adapters/modbus"
	"gateway/config"
	"gateway/internal/gateway"
)

var planCommand = command{
	name:    "plan",
	usage:   "--config FILE [BUS]",
	summary: "Print the requests that the Modbus buses will carry, their time on the wire, and how full each bus is.",
	run:     runPlan,
}

func runPlan(_ context.Context, c call) error {
	f := c.flags(`
Nothing is opened. A request covers as many points as it can; "+3" says that it reads three registers
along that nobody wants, which takes less time than a second request. "model + 2" counts from the first
register of a SunSpec model, which is looked for when the device is first asked. The time on the wire
is that of both frames and of the silences that the protocol asks for; the device's own time to answer,
usually some milliseconds, comes on top of it.`)
	path := f.String("config", defaultConfig, "the configuration `file`")
	if err := c.parse(f, 0, 1); err != nil {
		return err
	}
	cfg, err := loadConfig(c, *path)
	if err != nil {
		return err
	}
	found := false
	var names []string
	for i := range cfg.Modbus {
		b := &cfg.Modbus[i]
		names = append(names, b.Name)
		if f.NArg() > 0 && b.Name != f.Arg(0) {
			continue
		}
		if found {
			fmt.Fprintln(c.out)
		}
		found = true
		forecast, err := gateway.PlanModbus(b)
		if err != nil {
			return err
		}
		printPlan(c, b, forecast)
	}
	if !found {
		if f.NArg() > 0 {
			return fmt.Errorf("%s has no Modbus bus %q%s", *path, f.Arg(0), hint.DidYouMean(f.Arg(0), names))
		}
		fmt.Fprintf(c.out, "%s has no Modbus bus\n", *path)
	}
	return nil
}

func printPlan(c call, b *config.Modbus, f *modbus.Forecast) {
	where := b.Address
	if b.Serial() {
		if where = b.Port; where == "" {
			where = "USB"
		}
		where = fmt.Sprintf("%s at %d baud", where, b.Baud)
	}
	fmt.Fprintf(c.out, "%s: %s, %s\n", b.Name, b.Framing, where)
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "device\tunit\tread\tfrom\tnotation\tcount\tevery\ton the wire\tpoints")
	moving := map[string]bool{}
	for i := range b.Devices {
		moving[b.Devices[i].Name] = len(b.Devices[i].SunSpec) > 0
	}
	for _, r := range f.Requests {
		from, notation := fmt.Sprint(r.Address), r.Kind.Notation(r.Address)
		if moving[r.Device] {
			from, notation = fmt.Sprintf("model + %d", r.Address), "-"
		}
		count := fmt.Sprint(r.Count)
		if r.Unused > 0 {
			count += fmt.Sprintf(" (+%d)", r.Unused)
		}
		wire := fmt.Sprintf("%d bytes", r.Bytes)
		if r.Wire > 0 {
			wire = fmt.Sprintf("%.1f ms", 1000*r.Wire.Seconds())
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%v\t%s\t%s\n", r.Device, r.Unit, r.Kind, from, notation, count, r.Interval, wire, shorten(r.Points))
	}
	w.Flush()
	fmt.Fprintf(c.out, "%.3g requests a second, %.3g bytes a second", f.Exchanges, f.Bytes)
	if f.Wire > 0 {
		fmt.Fprintf(c.out, "; the wire is taken for %.1f %% of the time", 100*f.Wire)
		if f.Exchanges > 0 && f.Wire < 1 {
			each := time.Duration((1 - f.Wire) / f.Exchanges * float64(time.Second))
			fmt.Fprintf(c.out, ", which leaves %v for each answer", each.Round(100*time.Microsecond))
		}
	}
	fmt.Fprintln(c.out)
}

// shorten names a few of many points.
func shorten(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s, … (%d)", strings.Join(names[:most-1], ", "), len(names))
}
