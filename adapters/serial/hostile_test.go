package serial_test

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters/serial"
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
