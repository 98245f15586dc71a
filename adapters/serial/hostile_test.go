package serial_test

import (
	"bytes"
	"context"
	"log/slog"
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

// On a connection to a port server what came before a request is read away: on a line that never falls
// silent that must end, and must not be kept.
func TestALineThatNeverFallsSilentIsAskedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, serial.Options{Frame: lines, Devices: []serial.Device{{
			Name: "scale", Interval: time.Second, Timeout: 200 * time.Millisecond,
			Points:   device("scale", "(?P<x>[0-9]+)").Points,
			Messages: []serial.Message{{Send: []byte("W\r"), Points: []int{0}, Parse: parse.Spec{Format: parse.Regex, Match: "^W(?P<x>[0-9]+)$", Fields: []parse.Field{{Name: "x"}}}}},
		}}})
		var talking sync.WaitGroup
		defer talking.Wait() // the fake clock stands still once this goroutine has ended
		defer r.stop()
		end := <-r.ends
		asked := make(chan struct{}, 100)
		go answer(end, func(string) string { asked <- struct{}{}; return "\nW42\n" })
		talking.Go(func() {
			noise := bytes.Repeat([]byte("x"), 1000)
			for {
				time.Sleep(500 * time.Microsecond)
				if _, err := end.Write(noise); err != nil {
					return
				}
			}
		})
		time.Sleep(10*time.Second + 500*time.Millisecond)
		if len(asked) < 9 {
			t.Errorf("asked %d times in ten seconds", len(asked))
		}
		if beat := r.bus.Status().Beat; beat < 100 {
			t.Errorf("%d beats", beat)
		}
	})
}

// What ends at a silence is passed over up to that silence, and no further: the rest of a message at the
// opening, one above the limit, half a line.
func TestWhatIsPassedOverEndsAtTheSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gap := frame.Spec{Kind: frame.Gap, Silence: 50 * time.Millisecond, Max: 8}
		r := start(t, serial.Options{Frame: gap, Devices: []serial.Device{device("probe", `^T(?P<t>\d+)$`)}})
		defer func() { r.stop() }()
		end := <-r.ends
		for _, message := range []string{"T1", "T2", "T3, and much more than the limit", "T4"} {
			r.write(end, message)
			time.Sleep(time.Second)
		}
		r.want("probe@1s t=2; probe@3s t=4")

		r.stop()
		half := frame.Spec{Kind: frame.Line, Delimiter: []byte("\n"), Silence: 50 * time.Millisecond, Max: 8}
		r = start(t, serial.Options{Frame: half, Devices: []serial.Device{device("probe", `^T(?P<t>\d+)$`)}})
		end = <-r.ends
		time.Sleep(time.Second)
		r.write(end, "T3, and much more than the limit")
		time.Sleep(time.Second)
		r.write(end, "T4\n")
		r.want("probe@2s t=4")
	})
}

// A port server whose host takes no connection and refuses none, as behind a firewall: the loop must not wait as
// long as TCP does, or the watchdog ends the whole gateway.
func TestAnOpeningThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		o := serial.Options{
			Name: "line", Frame: lines, Devices: []serial.Device{device("scale", scale)},
			Open: func(ctx context.Context) (serial.Conn, error) {
				opened++
				<-ctx.Done()
				return nil, ctx.Err()
			},
			Sink:  adapters.SinkFunc(func(adapters.Sample) bool { return true }),
			Clock: func() adapters.Instant { return 1 }, Logger: slog.New(slog.DiscardHandler),
		}
		bus, err := serial.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- bus.Run(ctx) }()
		for range 6 {
			before := bus.Status().Beat
			time.Sleep(10 * time.Second)
			if bus.Status().Beat == before {
				t.Error("no beat for ten seconds")
			}
		}
		cancel()
		if err := <-done; err != nil || opened < 5 {
			t.Errorf("%v after %d openings", err, opened)
		}
	})
}

// A device that is not understood is told from one that says nothing.
func TestSilenceSaysWhatCameInstead(t *testing.T) {
	for stream, want := range map[string]string{
		"":                      "no byte came",
		"$HEHDT,123.4,T*00\r\n": "1 frames came with a wrong checksum",
		"$HEROT,1.5,A*2F\r\n":   "1 frames came, none of which it takes",
		"\xF0\xFE\x80":          "3 bytes came and made no frame",
	} {
		synctest.Test(t, func(t *testing.T) {
			compass := serial.Device{
				Name: "compass", Timeout: 10 * time.Second, Points: []serial.Point{{Point: adapters.Point{Name: "heading"}}},
				Messages: []serial.Message{{Points: []int{0}, Parse: parse.Spec{Format: parse.NMEA, Fields: []parse.Field{{Name: "HDT.heading"}}}}},
			}
			r := start(t, serial.Options{Frame: frame.NMEASpec(), Devices: []serial.Device{compass}})
			defer r.stop()
			end := <-r.ends
			time.Sleep(time.Second)
			if stream != "" {
				r.write(end, stream)
			}
			time.Sleep(10 * time.Second)
			r.want("compass@10s heading=(timeout)")
			if err := r.bus.Status().Devices[0].Err; !strings.Contains(err, "nothing heard for 10s: "+want) {
				t.Errorf("%q: %s, want %q", stream, err, want)
			}
		})
	}
}
