// Package serial runs the gateway with serial lines made of parts that are not ours: socat's
// pseudo-terminals and sockets with captured streams of real devices on them, Mosquitto's subscriber
// at the other end, and the kernel's UART driver on an emulated ARM board.
//
//	cd e2e && go test ./serial
package serial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// A cable is a serial line made by socat: what is written to the far end comes out at the near one.
type cable struct {
	near, far string
	process   *rig.Process
}

func newCable(t *testing.T) *cable {
	dir := t.TempDir()
	c := &cable{near: filepath.Join(dir, "ttyGateway"), far: filepath.Join(dir, "ttyDevice")}
	c.plug(t)
	return c
}

func (c *cable) plug(t *testing.T) {
	t.Helper()
	for _, link := range []string{c.near, c.far} { // of a cable that was pulled, and may name somebody else's line by now
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	c.process = rig.Start(t, rig.Need(t, "socat", "socat"), "pty,raw,echo=0,link="+c.near, "pty,raw,echo=0,link="+c.far)
	rig.Eventually(t, rig.Patience, "pair of pseudo-terminals", func() bool {
		_, err1 := os.Stat(c.near)
		_, err2 := os.Stat(c.far)
		return err1 == nil && err2 == nil
	})
}

// say repeats what a device says, every 200 ms, until the test or the cable ends.
func (c *cable) say(t *testing.T, stream []byte) {
	t.Helper()
	file, err := os.OpenFile(c.far, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	repeat(t, c.process.Exited(), func() error { _, err := file.Write(stream); return err }, func() { file.Close() })
}

// repeat calls f every 200 ms until gone, an error or the end of the test, when end lets a call of f
// return that still waits.
func repeat(t *testing.T, gone <-chan struct{}, f func() error, end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for f() == nil {
			select {
			case <-tick.C:
			case <-gone:
				return
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); end(); <-done })
}

// captured returns a captured stream; its source stands in testdata/README.md there.
func captured(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rig.Root(), "adapters/serial/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gatewayWith is a configuration with a broker on a port and the given buses.
func gatewayWith(t *testing.T, port int, data, buses string) string {
	t.Helper()
	return fmt.Sprintf(`
[gateway]
id = "plant"
data = %q

[broker]
listen = ["127.0.0.1:%d"]
%s`, data, port, buses)
}

// says waits for a line that has all of the words.
func says(t *testing.T, p *rig.Process, words ...string) {
	t.Helper()
	p.Await(t, rig.Patience, strings.Join(words, " … "), func(lines []string) bool {
		for _, l := range lines {
			all := true
			for _, w := range words {
				all = all && strings.Contains(l, w)
			}
			if all {
				return true
			}
		}
		return false
	})
}

func TestCapturedStreamsReachASubscriber(t *testing.T) {
	gps, meter, heat := newCable(t), newCable(t), rig.FreePort(t)
	gps.say(t, captured(t, "gps-bu353s4.nmea"))
	meter.say(t, captured(t, "p1-dsmr5.txt"))
	// A port server on the network: socat passes on what it reads from its standard input.
	d0 := filepath.Join(rig.Root(), "adapters/serial/testdata/d0-easymeter.txt")
	rig.Start(t, "socat", fmt.Sprintf("tcp-listen:%d,bind=127.0.0.1,reuseaddr,fork", heat), fmt.Sprintf("system:while cat %s; do sleep 0.2; done", d0))
	port := rig.FreePort(t)
	gateway := rig.Gateway(t, gatewayWith(t, port, rig.DataDir(t), fmt.Sprintf(`
[[serial]]
name = "gps-port"
port = %q
baud = 4800

  [[serial.device]]
  name = "gps"
  format = "nmea"
  interval = "1s"
  points = [
    { name = "latitude", field = "RMC.latitude" },
    { name = "longitude", field = "RMC.longitude" },
    { name = "satellites", field = "GGA.satellites", type = "int" },
  ]

[[serial]]
name = "p1"
port = %q
baud = 115200

  [[serial.device]]
  name = "meter"
  format = "obis"
  points = [
    { name = "power", field = "1-0:1.7.0", unit = "kW" },
    { name = "gas", field = "0-1:24.2.1", unit = "m3" },
    { name = "id", field = "0-0:96.1.1", type = "hextext" },
  ]

[[serial]]
name = "d0"
address = "127.0.0.1:%d"
frame = { preset = "dsmr2" }

  [[serial.device]]
  name = "house"
  format = "obis"
  points = [{ name = "energy", field = "1-0:1.8.0*255", unit = "kWh" }]
`, gps.near, meter.near, heat)))
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", port), rig.Patience)
	sub := rig.SubscribeTo(t, port, "watch", "plant/#")
	says(t, sub, "plant/gps", `"latitude":-37.78479333`, `"longitude":175.31489`, `"satellites":8`)
	says(t, sub, "plant/meter", `"power":0.244`, `"gas":0.107`, `"id":"K8EG004046395507"`)
	says(t, sub, "plant/house", `"energy":52185.7825309`)
	if code := gateway.Stop(t, rig.Patience); code != 0 {
		t.Errorf("exit %d: %s", code, gateway.Stderr())
	}
}

func TestAPortThatIsPulledComesBackAndSoDoesAGatewayThatWasKilled(t *testing.T) {
	c := newCable(t)
	c.say(t, []byte("T=20.5\r\n"))
	port, data := rig.FreePort(t), rig.DataDir(t)
	config := gatewayWith(t, port, data, fmt.Sprintf(`
[[serial]]
name = "line"
port = %q

  [[serial.device]]
  name = "probe"
  match = '^T=(?P<t>[-0-9.]+)$'
  interval = "500ms"
`, c.near))
	gateway := rig.Gateway(t, config)
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", port), rig.Patience)
	says(t, rig.SubscribeTo(t, port, "first", "plant/probe"), `"t":20.5`)

	sub := rig.SubscribeTo(t, port, "second", "plant/probe")
	c.process.Kill()
	<-c.process.Exited()
	says(t, sub, `"bad":{"t":"absent"}`)
	c.plug(t)
	c.say(t, []byte("T=21.5\r\n"))
	says(t, sub, `"t":21.5`)

	gateway.Kill()
	<-gateway.Exited()
	again := rig.Gateway(t, config)
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", port), rig.Patience)
	says(t, rig.SubscribeTo(t, port, "third", "plant/probe"), `"t":21.5`)
	if code := again.Stop(t, rig.Patience); code != 0 {
		t.Errorf("exit %d: %s", code, again.Stderr())
	}
}
