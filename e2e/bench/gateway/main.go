// Command gateway measures the whole gateway from register to subscriber: a Modbus TCP device whose
// registers count its polls, the gateway with its queue on disk and its local broker, a proxy that
// counts the bytes of the link, Mosquitto upstream, and a subscriber that counts what arrives.
//
//	go run ./bench/gateway            # both loads of the table
//	go run ./bench/gateway -for 60s -load 100x100
//	go run ./bench/gateway -load 10x20 -silent 1   # one of the ten does not answer
//	go run ./bench/gateway -load 10x20 -as json,gzip,batch,cbor   # what the link carries
//	go run ./bench/gateway -load 100x100 -as value           # one topic per register: 10,000 messages a second
//	go run ./bench/gateway -load 10x20,100x100 -kill 10      # kill -9, ten times: what is missed, lost and sent twice
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gateway/e2e/load"
	"gateway/e2e/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	length := flag.Duration("for", 30*time.Second, "how `long` each load is measured, after five seconds of warming up")
	loads := flag.String("load", "10x20,100x100", "devices x readings a second, comma-separated")
	silent := flag.Int("silent", 0, "how many of the devices, which share a connection, do not answer")
	as := flag.String("as", "json", "what is sent, comma-separated: "+strings.Join(slices.Sorted(maps.Keys(shapes)), ", "))
	kills := flag.Int("kill", 0, "how often the gateway is killed (SIGKILL) and started again, every four seconds, instead of the other measurements")
	more := flag.String("destination", "", "further lines of the destination's table, separated by ;")
	flag.Parse()
	if err := run(ctx, *length, strings.Split(*loads, ","), strings.Split(*as, ","), *silent, *kills, strings.ReplaceAll(*more, ";", "\n")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// shapes are what the messages of a destination may look like: lines of its table.
var shapes = map[string]string{
	"json":  "", // the default: a device's sample in a message
	"gzip":  `compression = "gzip"`,
	"cbor":  `format = "cbor"`,
	"batch": "compression = \"zstd\"\nbatch = { samples = 5, wait = \"5s\" }",
	"value": `format = "value"`,
}

func run(ctx context.Context, length time.Duration, loads, as []string, silent, kills int, more string) error {
	dir, err := os.MkdirTemp("", "bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "gateway")
	if err := rig.BuildTo(binary, "", ""); err != nil {
		return err
	}
	header := "load             CPU ms/1000  RSS MB  peak   p50 ms   p99 ms   link B/reading (acks)  disk B/reading (from the start)  first s  polls  %      lost  twice"
	if kills > 0 {
		header = killHeader
	}
	fmt.Println(header)
	for _, l := range loads {
		for _, shape := range as {
			name := l + " " + shape
			lines, ok := shapes[shape]
			if !ok {
				return fmt.Errorf("%s: there is no such shape", name)
			}
			r := result{silent: silent, length: length}
			if r.devices, r.readings, err = parseLoad(l); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			p, err := newPlant(ctx, dir, binary, &r, lines+"\n"+more)
			if err == nil {
				if kills > 0 {
					err = p.kill(ctx, name, kills)
				} else {
					err = p.measure(ctx)
				}
				p.close()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if kills > 0 {
				continue
			}
			r.print(name)
		}
	}
	return nil
}

func parseLoad(s string) (devices, readings int, err error) {
	a, b, ok := strings.Cut(s, "x")
	devices, e1 := strconv.Atoi(a)
	readings, e2 := strconv.Atoi(b)
	if !ok || e1 != nil || e2 != nil || devices < 1 || devices > 247 || readings < 1 || readings > 120 {
		return 0, 0, fmt.Errorf("a load is 1 to 247 devices x 1 to 120 readings, such as 10x20")
	}
	return devices, readings, nil
}

type result struct {
	devices, readings int
	silent            int // of the devices
	length            time.Duration
	cpu               time.Duration
	rss, peak         int64
	up, down          int64
	disk              int64
	diskAll           float64 // a reading, since the gateway was started
	first             time.Duration
	polls             int // within the measured time
	lost, twice       int

	mu        sync.Mutex
	measuring bool
	latency   []time.Duration
}

// measure lets the gateway run, and stops it.
func (p *plant) measure(ctx context.Context) error {
	r := p.r
	gateway, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer gateway.kill()
	first, _ := p.sub.Span()
	r.first = first.Sub(gateway.began)
	if err := pause(ctx, gateway.ended, 5*time.Second); err != nil {
		return err
	}

	a, err := usage(gateway.Process.Pid)
	if err != nil {
		return err
	}
	up, down := p.proxy.Bytes()
	polls := r.sum(p.meter)
	r.record(true)
	if err := pause(ctx, gateway.ended, r.length); err != nil {
		return err
	}
	b, err := usage(gateway.Process.Pid)
	if err != nil {
		return err
	}
	r.record(false)
	up2, down2 := p.proxy.Bytes()
	all := r.sum(p.meter)
	r.polls = all - polls
	r.diskAll = float64(b.written) / float64(all*r.readings)
	r.cpu, r.disk, r.rss, r.peak = b.cpu-a.cpu, b.written-a.written, b.rss, b.peak
	r.up, r.down = up2-up, down2-down
	if err := gateway.stop(); err != nil {
		return err
	}
	p.settle(ctx)
	return nil
}

func (r *result) record(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measuring = on
}

func (r *result) sum(m *load.Meter) (n int) {
	for i := 1; i <= r.devices; i++ {
		n += m.Polls(byte(i))
	}
	return n
}

func (r *result) print(name string) {
	n := float64(r.polls * r.readings)
	slices.Sort(r.latency)
	quantile := func(q float64) float64 {
		if len(r.latency) == 0 {
			return 0
		}
		return float64(r.latency[int(q*float64(len(r.latency)-1))]) / 1e6
	}
	fmt.Printf("%-16s %-12.2f %-7.1f %-6.1f %-8.2f %-8.2f %-6.2f (%.2f)          %-5.1f (%.1f)                   %-8.2f %-6d %-6.1f %-5d %d\n", name,
		float64(r.cpu.Microseconds())/n, float64(r.rss)/1e6, float64(r.peak)/1e6, quantile(0.5), quantile(0.99),
		float64(r.up)/n, float64(r.down)/n, float64(r.disk)/n, r.diskAll, r.first.Seconds(), r.polls,
		100*float64(r.polls)/(float64(r.devices-r.silent)*r.length.Seconds()), r.lost, r.twice)
}

var errTimeout = errors.New("timeout")

// wait asks ok every 5 ms until it is true, d is over, or the gateway has ended.
func wait(ctx context.Context, ended <-chan error, d time.Duration, ok func() bool) error {
	limit := time.After(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			return errTimeout
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return fmt.Errorf("the gateway ended: %w", err)
		}
	}
	return nil
}

func pause(ctx context.Context, ended <-chan error, d time.Duration) error {
	if err := wait(ctx, ended, d, func() bool { return false }); !errors.Is(err, errTimeout) {
		return err
	}
	return nil
}

// A used is what a process has used so far.
type used struct {
	cpu       time.Duration
	rss, peak int64
	written   int64 // bytes to storage
}

// usage reads /proc: proc(5).
func usage(pid int) (u used, err error) {
	read := func(name string) string {
		b, e := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		err = errors.Join(err, e)
		return string(b)
	}
	stat := read("stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) > 12 {
		for _, f := range fields[11:13] { // utime and stime, in ticks of 10 ms
			n, _ := strconv.ParseInt(f, 10, 64)
			u.cpu += time.Duration(n) * 10 * time.Millisecond
		}
	}
	number := func(text, key string) int64 {
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, key); ok {
				n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				return n
			}
		}
		return 0
	}
	status := read("status")
	u.rss, u.peak = number(status, "VmRSS:")*1024, number(status, "VmHWM:")*1024
	u.written = number(read("io"), "write_bytes:")
	return u, err
}
