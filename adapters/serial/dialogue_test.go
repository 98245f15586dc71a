package serial_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/port"
	"gateway/adapters/serial"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// A wire is an in-memory line with a rate, breaks and a driver's counters.
type wire struct {
	net.Conn
	mu     sync.Mutex
	baud   int
	breaks []time.Duration
	broke  time.Time // when the last ended
	counts port.Counts
}

func (w *wire) Baud() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.baud
}

func (w *wire) SetBaud(baud int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.baud = baud
	return nil
}

func (w *wire) Break(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaks, w.broke = append(w.breaks, d), time.Now()
	return nil
}

func (w *wire) Counts() (port.Counts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts, nil
}

// runOn runs a bus on the wire and returns what it gives, and a function that ends it.
func runOn(t *testing.T, w *wire, o serial.Options) (r *rig, bus *serial.Bus) {
	r = &rig{t: t}
	began := time.Now()
	o.Name, o.Logger = "line", slog.New(slog.DiscardHandler)
	o.Clock = func() adapters.Instant { return adapters.Instant(time.Since(began)) }
	o.Sink = adapters.SinkFunc(func(s adapters.Sample) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.samples = append(r.samples, s)
		return true
	})
	o.Open = func(context.Context) (serial.Conn, error) { return w, nil }
	bus, err := serial.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- bus.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r, bus
}

// IEC 62056-21, 6.4.3: sign-on at 300 baud, identification, option select, then the data message at the
// agreed rate, with its block check character.
func TestAMeterIsAskedInModeC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		w := &wire{Conn: ours, baud: 300}
		data := "0.0(12345678)\r\n6.8(0012.345*MWh)\r\n!\r\n\x03"
		var bcc byte
		for i := range len(data) {
			bcc ^= data[i]
		}
		asked := 0
		go answer(theirs, func(request string) string {
			request = strings.TrimPrefix(request, "\n")
			switch {
			case request == "/?!" && w.Baud() == 300:
				asked++
				return "/LGZ5ZMD1204407.B32\r\n"
			case request == "\x06050":
				time.Sleep(300 * time.Millisecond)
				if w.Baud() == 9600 {
					return "\x02" + data + string(bcc)
				}
			}
			return ""
		})
		block := frame.IEC62056Spec()
		energy := adapters.Point{Name: "energy"}
		r, _ := runOn(t, w, serial.Options{Frame: lines, Devices: []serial.Device{{
			Name: "heat", Interval: time.Minute, Timeout: 2 * time.Second, Points: []serial.Point{{Point: energy}},
			Messages: []serial.Message{
				{Send: []byte("/?!\r\n"), Baud: 300, Parse: parse.Spec{Match: "^/"}},
				{Send: []byte("\x06050\r\n"), ThenBaud: 9600, Frame: &block, Points: []int{0},
					Parse: parse.Spec{Format: parse.OBIS, Fields: []parse.Field{{Name: "6.8"}}}},
			},
		}}})
		defer r.stop()
		time.Sleep(3 * time.Minute)
		got := r.got()
		if strings.Count(got, "energy=12.345") != asked || asked < 3 || strings.Contains(got, "(") {
			t.Errorf("asked %d times: %s", asked, got)
		}
	})
}

// A rate that a message agreed upon is its device's alone.
func TestAChangedRateIsNotTheNextDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		w := &wire{Conn: ours, baud: 300}
		go answer(theirs, func(request string) string {
			time.Sleep(300 * time.Millisecond) // the request, at 300 baud, and the time to think
			return fmt.Sprintf("%s=%d\n", request, w.Baud())
		})
		fast := polled("fast", time.Minute, time.Second, "A\r", `^A=(?P<rate>\d+)$`)
		fast.Messages[0].ThenBaud = 9600
		plain := polled("plain", time.Minute, time.Second, "B\r", `^B=(?P<rate>\d+)$`)
		r, _ := runOn(t, w, serial.Options{Frame: lines, Devices: []serial.Device{fast, plain}})
		defer r.stop()
		time.Sleep(90 * time.Second)
		got := r.got()
		for device, rate := range map[string]string{"fast": "9600", "plain": "300"} {
			if cycles := regexp.MustCompile(device+`@\S+ rate=`+rate+`\b`).FindAllString(got, -1); len(cycles) != 2 {
				t.Errorf("%s was asked %d times at %s baud: %s", device, len(cycles), rate, got)
			}
		}
	})
}

// Optical heads hear what they send: the sign-on must not pass for the identification, which it looks like. A
// device that acknowledges by repeating the request looks the same and is understood, too.
func TestAnEchoIsNoAnswerUnlessNothingElseComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var early, asked atomic.Int32
		var dead atomic.Bool
		identified := false
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{polled("heat", 10*time.Second, time.Second, "/?!\r\n", "^/", "\x06050\r\n", `^E=(?P<x>\d+)`)}})
		go answer(<-r.ends, func(request string) string {
			switch request = strings.TrimPrefix(request, "\n"); {
			case dead.Load():
				return request + "\r\n"
			case request == "/?!":
				asked.Add(1)
				identified = true
				time.Sleep(200 * time.Millisecond)
				return "/?!\r\n/LUGCUH50\r\n"
			case !identified:
				early.Add(1)
			}
			identified = false
			return "\x06050\r\nE=7\r\n"
		})
		time.Sleep(35 * time.Second)
		if got := r.got(); strings.Count(got, "x=7") != 4 || asked.Load() != 4 || early.Load() != 0 {
			t.Errorf("asked %d times, %d times before the identification: %s", asked.Load(), early.Load(), got)
		}
		dead.Store(true)
		time.Sleep(10 * time.Second)
		r.want("heat@41.001s x=(timeout)")
		r.stop()

		r = start(t, serial.Options{Frame: lines, Devices: []serial.Device{polled("lamp", 10*time.Second, time.Second, "L1\r\n", `^L(?P<on>\d)$`)}})
		defer func() { r.stop() }()
		go answer(<-r.ends, func(request string) string { return strings.TrimPrefix(request, "\n") + "\r\n" })
		time.Sleep(5 * time.Second)
		r.want("lamp@1ms on=1")
	})
}

// SDI-12 1.4, 4.2.1: a break of at least 12 ms wakes the sensors, then the line is marking for at least 8.33 ms.
func TestABreakComesBeforeTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		w := &wire{Conn: ours, baud: 1200}
		var marking time.Duration
		go answer(theirs, func(string) string {
			w.mu.Lock()
			defer w.mu.Unlock()
			marking = time.Since(w.broke)
			return "0+1.5\r\n"
		})
		d := polled("soil", time.Minute, time.Second, "0D0!\r", `^0(?P<x>[+-][0-9.]+)$`)
		d.Messages[0].Break = 12 * time.Millisecond
		r, _ := runOn(t, w, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		time.Sleep(90 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.breaks) != 2 || w.breaks[0] != 12*time.Millisecond {
			t.Errorf("%v", w.breaks)
		}
		if marking < 8330*time.Microsecond || marking > 100*time.Millisecond {
			t.Errorf("the line was marking for %v after the break", marking)
		}
	})
}

func TestWhatTheConnectionCannotDoIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		d := polled("d", time.Minute, time.Second, "x\r", `(?P<x>.)`)
		d.Messages[0].Break = time.Millisecond
		r := &rig{t: t}
		o := serial.Options{Name: "line", Frame: lines, Devices: []serial.Device{d}, Logger: slog.New(slog.DiscardHandler), Clock: func() adapters.Instant { return 1 }}
		o.Sink = adapters.SinkFunc(func(s adapters.Sample) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.samples = append(r.samples, s)
			return true
		})
		o.Open = func(context.Context) (serial.Conn, error) { return ours, nil } // no Break
		bus, err := serial.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := bus.Run(ctx); err != nil {
			t.Error(err)
		}
		r.want("d@1ns x=(unsupported)")
	})
}

func TestErrorsOnTheLineAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		w := &wire{Conn: ours, counts: port.Counts{Framing: 100, Received: 5}}
		r, bus := runOn(t, w, serial.Options{Frame: lines})
		time.Sleep(time.Second)
		w.mu.Lock()
		w.counts.Framing, w.counts.Break, w.counts.Overrun, w.counts.Received = 103, 1, 2, 25
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got, want := bus.Stats().Line, (port.Counts{Framing: 3, Break: 1, Overrun: 2, Received: 20}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		r.stop()
	})
}

// What a device was asked for counts for it as told, and was read in vain when nobody listens.
func TestTheExchangeUnderWayAtTheEndIsFinished(t *testing.T) {
	for name, c := range map[string]struct {
		delay time.Duration // of the answer
		takes time.Duration
		want  string
	}{
		"the device answers":      {200 * time.Millisecond, 100 * time.Millisecond, "meter@201ms v=7"},
		"the device takes longer": {5 * time.Second, adapters.Grace, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{polled("meter", 10*time.Second, 10*time.Second, "V?\n", `^(?P<v>\d+)$`)}})
				end := <-r.ends
				asked := make([]byte, 3)
				if _, err := io.ReadFull(end, asked); err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(c.delay)
					end.Write([]byte("7\n")) // there may be nobody any more
				}()
				time.Sleep(100 * time.Millisecond)
				begin := time.Now()
				r.stop()
				if took := time.Since(begin); took != c.takes {
					t.Errorf("the end took %v, want %v", took, c.takes)
				}
				r.want(c.want)
				end.Close()
				time.Sleep(c.delay)
			})
		})
	}
}
