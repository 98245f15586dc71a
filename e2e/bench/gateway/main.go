// Command gateway measures the whole gateway from register to subscriber: a Modbus TCP device whose
// registers count its polls, the gateway with its queue on disk and its local broker, a proxy that
// counts the bytes of the link, Mosquitto upstream, and a subscriber that counts what arrives.
//
//	go run ./bench/gateway            # both loads of the table
//	go run ./bench/gateway -for 60s -load 100x100
//	go run ./bench/gateway -load 10x20 -silent 1   # one of the ten does not answer
//	go run ./bench/gateway -load 10x20 -as json,gzip,batch   # what the link carries
//	go run ./bench/gateway -load 100x100 -as value           # one topic per register: 10,000 messages a second
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
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
	more := flag.String("destination", "", "further lines of the destination's table, separated by ;")
	flag.Parse()
	if err := run(ctx, *length, strings.Split(*loads, ","), strings.Split(*as, ","), *silent, strings.ReplaceAll(*more, ";", "\n")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// shapes are what the messages of a destination may look like: lines of its table.
var shapes = map[string]string{
	"json":  "", // the default: a device's sample in a message
	"gzip":  `compression = "gzip"`,
	"batch": "compression = \"zstd\"\nbatch = { samples = 5, wait = \"5s\" }",
	"value": `format = "value"`,
}

func run(ctx context.Context, length time.Duration, loads, as []string, silent int, more string) error {
	dir, err := os.MkdirTemp("", "bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "gateway")
	if err := rig.BuildTo(binary, "", ""); err != nil {
		return err
	}
	fmt.Println("load             CPU ms/1000  RSS MB  peak   p50 ms   p99 ms   link B/reading (acks)  disk B/reading (from the start)  first s  polls  %      lost  twice")
	for _, l := range loads {
		for _, shape := range as {
			name := l + " " + shape
			lines, ok := shapes[shape]
			if !ok {
				return fmt.Errorf("%s: there is no such shape", name)
			}
			var r result
			r.devices, r.readings, err = parseLoad(l)
			if err == nil {
				r.silent, r.length = silent, length
				err = r.measure(ctx, dir, binary, length, lines+"\n"+more)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
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

func (r *result) measure(ctx context.Context, dir, binary string, length time.Duration, more string) error {
	meter, err := load.NewMeter()
	if err != nil {
		return err
	}
	defer meter.Close()
	for i := range r.silent {
		meter.Mute(byte(r.devices - i))
	}
	mosquitto, url, err := startMosquitto(ctx, dir)
	if err != nil {
		return err
	}
	defer mosquitto()
	proxy, err := load.NewProxy(strings.TrimPrefix(url, "mqtt://"))
	if err != nil {
		return err
	}
	defer proxy.Close()
	sub, err := load.NewSubscriber(url, "counter", "plant", func(device string, n int, at time.Time) {
		unit, _ := strconv.Atoi(strings.TrimPrefix(device, "d"))
		r.mu.Lock()
		defer r.mu.Unlock()
		if answered, ok := meter.Answered(byte(unit), n); ok && r.measuring {
			r.latency = append(r.latency, at.Sub(answered))
		}
	})
	if err != nil {
		return err
	}
	defer sub.Close()

	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return err
	}
	local, err := freePort()
	if err != nil {
		return err
	}
	conf := filepath.Join(data, "gateway.toml")
	text := load.Config("plant", data, meter.Addr(), r.devices, r.readings, "1s",
		fmt.Sprintf("[broker]\nlisten = [\"127.0.0.1:%d\"]\n\n[[destination]]\nname = \"cloud\"\nurl = %q\n%s\n", local, proxy.URL(), more))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	began := time.Now()
	gateway := exec.Command(binary, "run", "--config", conf, "--log", "warn")
	gateway.Stderr = os.Stderr
	if err := gateway.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- gateway.Wait() }()
	defer func() {
		gateway.Process.Kill()
		<-ended
	}()
	if err := wait(ctx, ended, 10*time.Second, func() bool { return sub.Came() > 0 }); err != nil {
		return fmt.Errorf("no reading came: %w", err)
	}
	first, _ := sub.Span()
	r.first = first.Sub(began)
	if err := pause(ctx, ended, 5*time.Second); err != nil {
		return err
	}

	a, err := usage(gateway.Process.Pid)
	if err != nil {
		return err
	}
	up, down := proxy.Bytes()
	polls := r.sum(meter)
	r.record(true)
	if err := pause(ctx, ended, length); err != nil {
		return err
	}
	b, err := usage(gateway.Process.Pid)
	if err != nil {
		return err
	}
	r.record(false)
	up2, down2 := proxy.Bytes()
	all := r.sum(meter)
	r.polls = all - polls
	r.diskAll = float64(b.written) / float64(all*r.readings)
	r.cpu, r.disk, r.rss, r.peak = b.cpu-a.cpu, b.written-a.written, b.rss, b.peak
	r.up, r.down = up2-up, down2-down

	gateway.Process.Signal(os.Interrupt)
	select {
	case err := <-ended:
		ended <- err
	case <-time.After(20 * time.Second):
		return errors.New("the gateway did not stop")
	}
	total := r.sum(meter)
	_ = wait(ctx, nil, 3*time.Second, func() bool { return sub.Came() >= total }) // what has not come is counted below
	for i := 1; i <= r.devices; i++ {
		n := meter.Polls(byte(i))
		came, again := sub.Tally(fmt.Sprintf("d%d", i), n)
		r.lost += n - came
		r.twice += again
	}
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

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startMosquitto starts Debian's broker and returns how to end it.
func startMosquitto(ctx context.Context, dir string) (stop func(), url string, err error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	conf := filepath.Join(dir, fmt.Sprintf("mosquitto-%d.conf", port))
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser root\nlog_type none\nmax_queued_messages 0\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, "mosquitto", "-c", conf)
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("apt-get install mosquitto: %w", err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return stop, "mqtt://" + addr, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	return nil, "", errors.New("mosquitto does not listen")
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
