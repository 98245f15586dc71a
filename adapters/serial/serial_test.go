package serial_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/serial"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// A rig is a bus on an in-memory line in a synctest bubble. Lines that are opened come out of ends: the
// device's end of each.
type rig struct {
	t       *testing.T
	bus     *serial.Bus
	ends    chan net.Conn
	mu      sync.Mutex
	absent  error
	samples []adapters.Sample
	stop    func()
}

func start(t *testing.T, o serial.Options, absent ...error) *rig {
	t.Helper()
	r := &rig{t: t, ends: make(chan net.Conn, 10), absent: errors.Join(absent...)}
	began := time.Now()
	o.Name = "line"
	o.Clock = func() adapters.Instant { return adapters.Instant(time.Since(began)) }
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Sink = adapters.SinkFunc(func(s adapters.Sample) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.samples = append(r.samples, s)
		return true
	})
	o.Open = func(context.Context) (serial.Conn, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.absent != nil {
			return nil, r.absent
		}
		ours, theirs := net.Pipe()
		r.ends <- theirs
		return ours, nil
	}
	bus, err := serial.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.bus = bus
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- bus.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return r
}

func (r *rig) setAbsent(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.absent = err
}

// write sends what a device says. The line must have been quiet for a while.
func (r *rig) write(end net.Conn, s string) {
	r.t.Helper()
	if _, err := end.Write([]byte(s)); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// got returns the samples since it was last called, each as its device, time and readings.
func (r *rig) got() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, s := range r.samples {
		text := fmt.Sprintf("%s@%v", s.Schema.Device, time.Duration(s.Time))
		for i, x := range s.Readings {
			if i > 0 && s.Readings[i-1].Point >= x.Point {
				r.t.Errorf("readings are not in the order of the points: %+v", s.Readings)
			}
			text += " " + s.Schema.Points[x.Point].Name + "="
			switch x.Quality {
			case adapters.Good:
				text += x.Value.String()
			case adapters.Stale:
				text += x.Value.String() + "(stale " + string(x.Reason) + ")"
			default:
				text += "(" + string(x.Reason) + ")"
			}
		}
		all = append(all, text)
	}
	r.samples = nil
	return strings.Join(all, "; ")
}

func (r *rig) want(want string) {
	r.t.Helper()
	if got := r.got(); got != want {
		r.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// answer answers requests, each up to a carriage return, until the line is closed. An empty answer is
// silence.
func answer(end net.Conn, f func(request string) string) {
	var buf []byte
	b := make([]byte, 64)
	for {
		n, err := end.Read(b)
		if err != nil {
			return
		}
		buf = append(buf, b[:n]...)
		if request, rest, ok := strings.Cut(string(buf), "\r"); ok {
			buf = []byte(rest)
			if a := f(request); a != "" {
				if _, err := io.WriteString(end, a); err != nil {
					return
				}
			}
		}
	}
}

var lines = frame.Spec{Kind: frame.Line, Delimiter: []byte("\n")}

// device is one with the points of a pattern's groups.
func device(name, pattern string) serial.Device {
	d := serial.Device{Name: name}
	m := serial.Message{Parse: parse.Spec{Format: parse.Regex, Match: pattern}}
	for i, g := range regexp.MustCompile(pattern).SubexpNames()[1:] {
		d.Points = append(d.Points, serial.Point{Point: adapters.Point{Name: g}})
		m.Points = append(m.Points, i)
		m.Parse.Fields = append(m.Parse.Fields, parse.Field{Name: g})
	}
	d.Messages = []serial.Message{m}
	return d
}

// polled is a device that is asked, with one message for each pair of request and pattern.
func polled(name string, interval, timeout time.Duration, pairs ...string) serial.Device {
	d := serial.Device{Name: name, Interval: interval, Timeout: timeout}
	for i := 0; i < len(pairs); i += 2 {
		one := device(name, pairs[i+1])
		m := one.Messages[0]
		m.Send = []byte(pairs[i])
		for k := range m.Points {
			m.Points[k] += len(d.Points)
		}
		d.Points = append(d.Points, one.Points...)
		d.Messages = append(d.Messages, m)
	}
	return d
}

const scale = `^ST,GS,\s*(?P<weight>[-+0-9.]+)kg`

func TestADeviceThatTalksGivesASampleForEachLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{device("scale", scale)}})
		defer r.stop()
		end := <-r.ends
		time.Sleep(time.Second)
		r.write(end, "ST,GS,  12.5kg\r\nUS,GS,  99.9kg\r\nST,GS,  12")
		r.want("scale@1s weight=12.5")
		time.Sleep(time.Second)
		r.write(end, ".7kg\r\n")
		r.want("scale@2s weight=12.7")
		if s := r.bus.Stats(); s.Frames != 3 || s.Unclaimed != 1 {
			t.Errorf("%+v", s)
		}
		st := r.bus.Status()
		if !st.Open || st.Devices[0].State != adapters.Online || st.Devices[0].Polls != 2 {
			t.Errorf("%+v", st)
		}
	})
}

func TestHalfALineAfterOpeningIsNoValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{device("d", `^(?P<x>\d+)$`)}})
		defer r.stop()
		end := <-r.ends
		r.write(end, "45\n12345\n") // the 123 before was missed
		r.want("d@0s x=12345")
	})
}

func TestSeveralDevicesOnOneLineAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{
			device("north", `^1,(?P<t>[-0-9.]+)`), device("south", `^2,(?P<t>[-0-9.]+)`),
		}})
		defer r.stop()
		end := <-r.ends
		time.Sleep(time.Second)
		r.write(end, "1,20.5\n2,21.5\n3,0\n")
		r.want("north@1s t=20.5; south@1s t=21.5")
	})
}

func TestAnIntervalGathersTheLatestAndTellsWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := device("d", `^(?:T(?P<t>\d+)|H(?P<h>\d+))$`)
		d.Interval, d.Timeout = 10*time.Second, 25*time.Second
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		end := <-r.ends
		time.Sleep(time.Second)
		r.write(end, "T1\nT2\n")
		time.Sleep(10 * time.Second)
		r.want("d@1s t=2 h=(timeout)")
		r.write(end, "H5\n")
		time.Sleep(9 * time.Second)
		r.want("d@11s t=2(stale timeout) h=5")
		time.Sleep(15 * time.Second)
		r.want("") // nothing came, nothing is told ...
		time.Sleep(5 * time.Second)
		r.want("d@36s t=(timeout) h=(timeout)") // ... until the timeout, 25 s after the last
		if st := r.bus.Status().Devices[0]; st.State != adapters.Offline || st.Failures != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(100 * time.Second)
		r.want("") // and that once
	})
}

func TestAPointMayHaveALongerIntervalThanItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := device("d", `^(?P<fast>\d+) (?P<slow>\d+)$`)
		d.Points[1].Interval = 3 * time.Second
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		end := <-r.ends
		for i := 1; i <= 5; i++ {
			time.Sleep(time.Second)
			r.write(end, fmt.Sprintf("%d %d\n", i, i))
		}
		r.want("d@1s fast=1 slow=1; d@2s fast=2; d@3s fast=3; d@4s fast=4 slow=4; d@5s fast=5")
	})
}

func TestAPolledDeviceIsAskedAndEachPointHasItsQuality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := polled("probe", 10*time.Second, time.Second, "T\r", `^T=(?P<t>.*)$`, "H\r", `^H=(?P<h>.*)$`)
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		go answer(<-r.ends, func(request string) string {
			return map[string]string{"T": "T\nT=20.5\n", "H": "H=OL\n"}[request] // with an echo before
		})
		time.Sleep(time.Second)
		r.want("probe@1ms t=20.5 h=(parse)")
		time.Sleep(10 * time.Second)
		if got := r.got(); !strings.HasPrefix(got, "probe@10.00") {
			t.Error(got)
		}
	})
}

// A slow line is spared: what none of its points wants is not asked.
func TestAMessageIsAskedWhenOneOfItsPointsIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := polled("probe", 10*time.Second, time.Second, "T\r", `^T=(?P<t>.*)$`, "S\r", `^S=(?P<serial>.*)$`)
		d.Points[1].Interval = time.Minute
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		var mu sync.Mutex
		asked := map[string]int{}
		go answer(<-r.ends, func(request string) string {
			mu.Lock()
			defer mu.Unlock()
			asked[request]++
			return request + "=1\n"
		})
		time.Sleep(125 * time.Second)
		if got := r.got(); strings.Count(got, "serial=1") != 3 || strings.Count(got, "t=1") != 13 {
			t.Error(got)
		}
		mu.Lock()
		defer mu.Unlock()
		if asked["T"] != 13 || asked["S"] != 3 {
			t.Errorf("%v", asked)
		}
	})
}

func TestADeadDeviceCostsItsNeighbourOneTimeoutAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{
			polled("dead", time.Second, 500*time.Millisecond, "1\r", `^1=(?P<x>.*)$`, "1b\r", `^1b=(?P<y>.*)$`),
			polled("live", time.Second, 500*time.Millisecond, "2\r", `^2=(?P<x>.*)$`),
		}})
		defer r.stop()
		asked := map[string]int{}
		go answer(<-r.ends, func(request string) string {
			asked[request]++
			if request == "2" {
				return "2=7\n"
			}
			return ""
		})
		time.Sleep(600 * time.Millisecond)
		got := r.got()
		if !strings.HasPrefix(got, "dead@501ms x=(timeout) y=(timeout); live@") {
			t.Error(got)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if asked["1b"] != 0 {
			t.Errorf("the second request was sent %d times after the first had no answer", asked["1b"])
		}
		if n := asked["1"]; n < 8 || n > 30 {
			t.Errorf("the dead device was asked %d times in ten minutes", n)
		}
		if n := asked["2"]; n < 570 {
			t.Errorf("the live one was asked %d times in ten minutes", n)
		}
		st := r.bus.Status()
		if st.Devices[0].State != adapters.Offline || st.Devices[1].State != adapters.Online || !strings.Contains(st.Devices[0].Err, "no answer within 500ms") {
			t.Errorf("%+v", st.Devices)
		}
	})
}

func TestWhyAnAnswerIsNone(t *testing.T) {
	sum := lines
	sum.Check = frame.Check{Sum: frame.Sum8, Coding: frame.Hex}
	good := func(s string) string {
		b, err := sum.Check.Append([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	for answered, want := range map[string]string{
		"":                      "(timeout)",
		"T=5zz\n":               "(checksum)",
		good("?9"):              "(refused)",
		good("X=5"):             "(parse)",
		good("T=5"):             "5",
		"T=9zz\n" + good("T=5"): "5", // a damaged one before it
	} {
		synctest.Test(t, func(t *testing.T) {
			d := polled("d", 10*time.Second, time.Second, "T\r", `^T=(?P<t>\d)$`)
			d.Messages[0].Refused = regexp.MustCompile(`^\?`)
			r := start(t, serial.Options{Frame: sum, Devices: []serial.Device{d}})
			defer r.stop()
			go answer(<-r.ends, func(string) string { return answered })
			time.Sleep(5 * time.Second)
			if got := r.got(); !strings.HasSuffix(got, "t="+want) {
				t.Errorf("%q: %s, want %s", answered, got, want)
			}
		})
	}
}

func TestALateAnswerIsNotTakenForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := polled("d", 2*time.Second, time.Second, "T\r", `^(?P<t>\d+)$`)
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		n := 0
		end := <-r.ends
		go answer(end, func(string) string {
			n++
			if n == 1 {
				go func() {
					time.Sleep(1500 * time.Millisecond)
					io.WriteString(end, "1\n")
				}()
				return ""
			}
			return fmt.Sprintf("%d\n", n)
		})
		time.Sleep(10 * time.Second)
		if got := r.got(); !strings.HasPrefix(got, "d@1.001s t=(timeout); d@4.001s t=2;") {
			t.Error(got)
		}
	})
}

func TestAMeasurementTakesItsTime(t *testing.T) {
	// SDI-12 1.4, 4.4.8: 0M! answers atttn (5 seconds, 2 values), 0D0! fetches them.
	synctest.Test(t, func(t *testing.T) {
		d := polled("soil", time.Minute, time.Second, "0D0!\r", `^0(?P<moisture>[+-][0-9.]+)(?P<temperature>[+-][0-9.]+)$`)
		d.Messages = append([]serial.Message{{Send: []byte("0M!\r"), Parse: parse.Spec{Match: `^0\d{4}$`}, Wait: 5 * time.Second}}, d.Messages...)
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d}})
		defer r.stop()
		asked := time.Time{}
		go answer(<-r.ends, func(request string) string {
			switch {
			case request == "0M!":
				asked = time.Now()
				return "00052\r\n"
			case time.Since(asked) < 5*time.Second:
				return "0\r\n" // not ready
			}
			return "0+23.4-1.5\r\n"
		})
		time.Sleep(30 * time.Second)
		if got := r.got(); !strings.HasSuffix(got, "moisture=23.4 temperature=-1.5") {
			t.Error(got)
		}
	})
}

func TestAPortThatVanishesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{device("d", `^(?P<x>\d+)$`)}})
		defer r.stop()
		end := <-r.ends
		time.Sleep(time.Second)
		r.write(end, "1\n")
		r.setAbsent(errors.New("port: not there"))
		end.Close()
		time.Sleep(time.Minute)
		r.want("d@1s x=1; d@1s x=(absent)")
		st := r.bus.Status()
		if st.Open || !strings.Contains(st.Err, "not there") || st.Devices[0].State != adapters.Offline {
			t.Errorf("%+v", st)
		}
		r.setAbsent(nil)
		end = <-r.ends
		time.Sleep(time.Second)
		r.write(end, "2\n")
		if got := r.got(); !strings.HasSuffix(got, " x=2") {
			t.Error(got)
		}
		if st := r.bus.Status(); !st.Open || st.Err != "" || st.Devices[0].State != adapters.Online {
			t.Errorf("%+v", st)
		}
	})
}

func TestAPortThatIsAbsentAtTheStartIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serial.Options{Frame: lines, Devices: []serial.Device{device("d", `^(?P<x>\d+)$`)}}
		r := start(t, o, errors.New("no permission"))
		defer r.stop()
		time.Sleep(time.Hour)
		r.want("d@0s x=(absent)")
	})
}

func TestAPortThatOpensOnlyToCloseIsBackedOffFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{device("d", `^(?P<x>\d+)$`)}})
		defer r.stop()
		end := time.After(10 * time.Minute)
		for opened := 0; ; opened++ {
			select {
			case far := <-r.ends:
				far.Close()
				continue
			case <-end:
			}
			if opened < 100 || opened > 170 {
				t.Errorf("opened %d times in ten minutes", opened)
			}
			return
		}
	})
}

func TestTheLoopShowsThatItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := polled("slow", time.Hour, 40*time.Second, "T\r", `^(?P<t>\d+)$`)
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{d, device("silent", `^(?P<x>x)$`)}})
		defer r.stop()
		go answer(<-r.ends, func(string) string { return "" })
		before := r.bus.Status().Beat
		for range 30 {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if now := r.bus.Status().Beat; now == before {
				t.Fatalf("no beat at %v", now)
			} else {
				before = now
			}
		}
	})
}

func TestImpossibleDevicesAreNamed(t *testing.T) {
	fixed := frame.Spec{Kind: frame.Fixed, Size: 4}
	mixed := polled("d", time.Second, time.Second, "T\r", `^(?P<t>\d+)$`)
	mixed.Messages = append(mixed.Messages, device("", `^(?P<x>x)$`).Messages...)
	lost := device("d", `^(?P<t>\d+)$`)
	lost.Points = append(lost.Points, serial.Point{Point: adapters.Point{Name: "extra"}})
	for want, o := range map[string]serial.Options{
		"need a delimiter":          {Frame: frame.Spec{}},
		"cannot be found again":     {Frame: fixed, Devices: []serial.Device{device("d", `(?P<t>.)`)}},
		"has no points":             {Frame: lines, Devices: []serial.Device{{Name: "d"}}},
		"make it two devices":       {Frame: lines, Devices: []serial.Device{mixed}},
		"how often to ask":          {Frame: lines, Devices: []serial.Device{polled("d", 0, time.Second, "T", `(?P<t>.)`)}},
		"how long to wait":          {Frame: lines, Devices: []serial.Device{polled("d", time.Second, 0, "T", `(?P<t>.)`)}},
		`"extra" is in no message`:  {Frame: lines, Devices: []serial.Device{lost}},
		`two points are called "t"`: {Frame: lines, Devices: []serial.Device{polled("d", time.Second, time.Second, "T", `(?P<t>.)`, "U", `(?P<t>.)`)}},
	} {
		if _, err := serial.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
