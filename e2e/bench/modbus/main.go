// Command modbus measures whether the Modbus adapter keeps its schedule: so many TCP devices of so
// many registers each, polled at an interval, and what becomes of it when some accept connections and
// never answer, beside a run without those. The devices are simulated in a process of their own.
//
//	go run ./bench/modbus                                  100 devices × 100 registers a second
//	go run ./bench/modbus -devices 10 -silent 1            one of ten devices is silent
//	go run ./bench/modbus -devices 10 -silent 1 -shared    the same, all behind one connection
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/sim"
)

type settings struct {
	devices, registers, silent int
	interval, length           time.Duration
	shared                     bool
}

func main() {
	var s settings
	serve := flag.Bool("serve", false, "be the devices (used by the program itself)")
	flag.IntVar(&s.devices, "devices", 100, "how many devices")
	flag.IntVar(&s.registers, "registers", 100, "registers of each")
	flag.IntVar(&s.silent, "silent", 0, "how many of them never answer")
	flag.DurationVar(&s.interval, "interval", time.Second, "between polls of a device")
	flag.DurationVar(&s.length, "length", 20*time.Second, "how long to measure")
	flag.BoolVar(&s.shared, "shared", false, "all devices behind one address")
	flag.Parse()
	run := compare
	if *serve {
		run = serveDevices
	}
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveDevices prints the addresses of the devices as JSON and serves them until its input ends.
func serveDevices(s settings) error {
	var addresses []string
	var wg sync.WaitGroup
	var listeners []net.Listener
	lines := s.devices
	if s.shared {
		lines = 1
	}
	for i := range lines {
		m := sim.NewModbus()
		for unit := range s.devices {
			if !s.shared && unit > 0 {
				break
			}
			n := i + unit
			u := m.Unit(byte(unit + 1))
			u.Set(sim.HoldingRegisters, 0, make([]uint16, s.registers)...)
			if n < s.silent {
				u.Always(&sim.ModbusFault{Silent: true})
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses = append(addresses, l.Addr().String())
		listeners = append(listeners, l)
		wg.Go(func() { _ = m.ServeTCP(l) })
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		return err
	}
	bufio.NewReader(os.Stdin).ReadByte()
	for _, l := range listeners {
		l.Close()
	}
	wg.Wait()
	return nil
}

// A tally collects what the samples tell.
type tally struct {
	mu       sync.Mutex
	begin    time.Time
	interval time.Duration
	late     []time.Duration          // of good samples
	turn     map[string]time.Duration // when the device's next turn is
	readings int
}

func (t *tally) Offer(s adapters.Sample) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Readings[0].Quality == adapters.Good {
		// A turn that was put off is late, one that was skipped is missing.
		at, due := time.Duration(s.Time), t.turn[s.Schema.Device]
		if at-due >= 2*t.interval {
			due = at - at%t.interval
		}
		t.late = append(t.late, at-due)
		t.turn[s.Schema.Device] = due + t.interval
		t.readings += len(s.Readings)
	}
	return true
}

// compare measures, and where devices are silent, also without that: the lateness of the others is to be
// the same.
func compare(s settings) error {
	if s.silent > 0 {
		without := s
		without.silent = 0
		if err := measure(without); err != nil {
			return err
		}
	}
	return measure(s)
}

func measure(s settings) error {
	args := []string{"-serve", fmt.Sprint("-devices=", s.devices), fmt.Sprint("-registers=", s.registers), fmt.Sprint("-silent=", s.silent), fmt.Sprint("-shared=", s.shared)}
	devices := exec.Command(os.Args[0], args...)
	devices.Stderr = os.Stderr
	in, err := devices.StdinPipe()
	if err != nil {
		return err
	}
	out, err := devices.StdoutPipe()
	if err != nil {
		return err
	}
	if err := devices.Start(); err != nil {
		return err
	}
	defer func() {
		in.Close()
		devices.Wait()
	}()
	var addresses []string
	if err := json.NewDecoder(out).Decode(&addresses); err != nil {
		return err
	}
	t := &tally{interval: s.interval, turn: map[string]time.Duration{}}
	buses, err := makeBuses(s, addresses, t)
	if err != nil {
		return err
	}
	cpu := cpuTime()
	ctx, cancel := context.WithTimeout(context.Background(), s.length-s.interval/10)
	defer cancel()
	t.begin = time.Now()
	var wg sync.WaitGroup
	for _, b := range buses {
		wg.Go(func() { _ = b.Run(ctx) })
	}
	wg.Wait()
	report(s, t, buses, cpuTime()-cpu)
	return nil
}

func makeBuses(s settings, addresses []string, t *tally) ([]*modbus.Bus, error) {
	ty, err := decode.ParseType("uint16")
	if err != nil {
		return nil, err
	}
	field, err := decode.New(decode.Spec{Type: ty, Scale: 0.1})
	if err != nil {
		return nil, err
	}
	var points []modbus.Point
	for i := range s.registers {
		points = append(points, modbus.Point{Point: adapters.Point{Name: fmt.Sprint("r", i)}, Kind: modbus.Holding, Address: uint16(i), Field: field})
	}
	options := make([]modbus.Options, len(addresses))
	for n := range s.devices {
		o := &options[n%len(addresses)]
		o.Name, o.Framing, o.Address, o.Sink = fmt.Sprint("bus", n%len(addresses)), modbus.TCP, addresses[n%len(addresses)], t
		o.Clock = func() adapters.Instant { return adapters.Instant(time.Since(t.begin)) }
		unit := byte(1)
		if s.shared {
			unit = byte(n + 1)
		}
		o.Devices = append(o.Devices, modbus.Device{Name: fmt.Sprint("dev", n), Unit: unit, Interval: s.interval, Points: points})
	}
	var buses []*modbus.Bus
	for _, o := range options {
		b, err := modbus.New(o)
		if err != nil {
			return nil, err
		}
		buses = append(buses, b)
	}
	return buses, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(s settings, t *tally, buses []*modbus.Bus, cpu time.Duration) {
	slices.Sort(t.late)
	at := func(q float64) time.Duration {
		if len(t.late) == 0 {
			return 0
		}
		return t.late[int(q*float64(len(t.late)-1))].Round(10 * time.Microsecond)
	}
	due := int(s.length / s.interval) // a poll at the start, and one after each interval
	want := due * (s.devices - s.silent)
	var overruns uint64
	for _, b := range buses {
		for _, d := range b.Status().Devices {
			overruns += d.Overruns
		}
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	fmt.Printf("%d devices × %d registers every %v, %d silent, shared %t, %v, GOMAXPROCS %d\n", s.devices, s.registers, s.interval, s.silent, s.shared, s.length, runtime.GOMAXPROCS(0))
	fmt.Printf("  good samples      %d of %d (%.2f %%), overruns %d\n", len(t.late), want, 100*float64(len(t.late))/float64(want), overruns)
	fmt.Printf("  lateness          p50 %v, p99 %v, max %v\n", at(0.5), at(0.99), at(1))
	fmt.Printf("  CPU               %.2f ms per 1,000 readings, %.1f %% of one core\n", 1e3*cpu.Seconds()/float64(max(1, t.readings))*1e3, 100*cpu.Seconds()/s.length.Seconds())
	fmt.Printf("  heap in use       %.1f MB, from the system %.1f MB\n", float64(mem.HeapInuse)/1e6, float64(mem.Sys)/1e6)
	for _, p := range peers {
		if p.devices == s.devices && p.registers == s.registers && p.silent == s.silent && p.shared == s.shared && s.interval == time.Second {
			fmt.Printf("  beside it         %s\n", p.figure)
		}
	}
}

// peers are figures of others on the same work, measured beforehand on a machine of two cores. Theirs
// include the way to an MQTT broker, which ours here do not (see bench/gateway): read them as ratios.
var peers = []struct {
	devices, registers, silent int
	shared                     bool
	figure                     string
}{
	{100, 100, 0, false, "Telegraf 1.39.3 with MQTT QoS 1: 4.3 ms of CPU per 1,000 readings, schedule kept, 38 MB resident"},
	{10, 100, 1, true, "Telegraf 1.39.3 makes 50 % of the good polls, Node-RED 4.1.15 31 %"},
	{10, 100, 1, false, "Telegraf 1.39.3 and Node-RED 4.1.15 make nearly all of the good polls"},
}
