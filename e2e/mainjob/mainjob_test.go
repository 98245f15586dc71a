// Package mainjob tests the main job from end to end with parts that we did not write: Modbus
// servers on libmodbus over TCP and a pseudo-terminal, Mosquitto as the broker upstream and as an
// external local one, mosquitto_sub and paho as subscribers.
package mainjob

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// counters starts libmodbus servers whose registers count the polls: three living units and a dead
// one over TCP, one more unit over a serial line. It returns the TCP port and the serial port's path.
func counters(t *testing.T) (tcp int, serial string) {
	t.Helper()
	dir := t.TempDir()
	server := filepath.Join(dir, "counting_server")
	flags, err := exec.Command(rig.Need(t, "pkg-config", "pkg-config"), "--cflags", "--libs", "libmodbus").Output()
	if err != nil {
		t.Fatalf("libmodbus is missing; apt-get install libmodbus-dev: %v", err)
	}
	args := append([]string{"-O1", "-Wall", "-o", server, "testdata/counting_server.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command(rig.Need(t, "gcc", "gcc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}

	tcp = rig.FreePort(t)
	rig.Start(t, server, "tcp", fmt.Sprint(tcp)).Await(t, rig.Patience, "listener", rig.HasLine("ready"))

	serial = filepath.Join(dir, "ttyGateway")
	device := filepath.Join(dir, "ttyDevice")
	rig.Start(t, rig.Need(t, "socat", "socat"), "pty,raw,echo=0,link="+serial, "pty,raw,echo=0,link="+device)
	rig.Eventually(t, rig.Patience, "pair of pseudo-terminals", func() bool {
		links, _ := filepath.Glob(filepath.Join(dir, "tty*"))
		return len(links) == 2
	})
	rig.Start(t, server, "rtu", device, "115200", "5").Await(t, rig.Patience, "open line", rig.HasLine("ready"))
	return tcp, serial
}

// sensors is the configuration of what counters starts. The living have counted what they answered, so it is waited for
// long: on a machine that stands still for as long as a timeout is otherwise, an answer that is there would be given up.
func sensors(tcp int, serial string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
[[modbus]]
name = "plc"
address = "127.0.0.1:%d"
`, tcp)
	for unit, name := range map[int]string{1: "one", 2: "two", 3: "three", 9: "dead"} {
		timeout := "20s"
		if name == "dead" {
			timeout = "300ms"
		}
		fmt.Fprintf(&b, `
  [[modbus.device]]
  name = %q
  unit = %d
  interval = "100ms"
  timeout = %q
  points = [ { name = "count", input = 0, type = "uint32" }, { name = "again", input = 2, type = "uint32" } ]
`, name, unit, timeout)
	}
	fmt.Fprintf(&b, `
[[modbus]]
name = "line"
port = %q
baud = 115200
parity = "none"

  [[modbus.device]]
  name = "five"
  unit = 5
  interval = "200ms"
  timeout = "20s"
  points = [ { name = "count", input = 0, type = "uint32" } ]
`, serial)
	return b.String()
}

var living = []string{"plant/one", "plant/two", "plant/three", "plant/five"}

// outage runs the main job through an outage of the upstream, with a kill -9 of the gateway in it,
// and checks what two subscribers got. local is the configuration of the local broker, localPort
// where a subscriber finds it.
func outage(t *testing.T, local string, localPort int) {
	tcp, serial := counters(t)
	upstream := rig.NewMosquitto(t, "")
	config := fmt.Sprintf(`
[gateway]
id = "plant"
data = %q

[[destination]]
name = "cloud"
url = %q
`, rig.DataDir(t), upstream.URL()) + local + sensors(tcp, serial)

	gateway := rig.Gateway(t, config)
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", localPort), rig.Patience)
	above := upstream.Subscribe(t, "above", "plant/#")
	paho := rig.Start(t, rig.Python(t), "testdata/subscriber.py", fmt.Sprint(upstream.Port), "paho", "plant/#")
	paho.Await(t, rig.Patience, "SUBACK", rig.HasLine("received SUBACK"))
	beside := rig.SubscribeTo(t, localPort, "beside", "plant/#")

	arrived := func(p *rig.Process, n int) func([]string) bool {
		return func(lines []string) bool { return len(samples(t, lines)) >= n }
	}
	above.Await(t, rig.Patience, "200 samples upstream", arrived(above, 200))

	upstream.Stop()
	before := len(samples(t, beside.Lines()))
	beside.Await(t, rig.Patience, "samples for 8 s of outage", arrived(beside, before+8*30))
	gateway.Kill()
	gateway = rig.Gateway(t, config)
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", localPort), rig.Patience)
	before = len(samples(t, beside.Lines()))
	beside.Await(t, rig.Patience, "samples for 12 s more of outage", arrived(beside, before+12*30))

	upstream.Start()
	// The subscribers did not begin at the same moment, so what they have is told by the newest
	// sample and not by the number.
	newest := func(p *rig.Process) (seq uint64) {
		for _, m := range samples(t, p.Lines()) {
			seq = max(seq, m.Seq)
		}
		return seq
	}
	behind, level := newest(above), newest(beside)
	rig.Eventually(t, rig.Patience, "upstream that has caught up", func() bool {
		return newest(above) >= level && newest(paho) >= level
	})
	t.Logf("drained %d samples after the outage", level-behind)
	if code := gateway.Stop(t, rig.Patience); code != 0 {
		t.Errorf("the gateway ended with exit code %d", code)
	}

	for name, subscriber := range map[string]*rig.Process{"mosquitto_sub upstream": above, "paho upstream": paho, "mosquitto_sub local": beside} {
		seen := streams(samples(t, subscriber.Lines()))
		for _, topic := range living {
			s := seen[topic]
			if s == nil {
				t.Errorf("%s: nothing on %s", name, topic)
				continue
			}
			for _, fault := range s.faults {
				t.Errorf("%s: %s: %s", name, topic, fault)
			}
			missed := s.missed(t, "count")
			t.Logf("%s: %s: %d samples, %d duplicates, %d polls missed around the kill", name, topic, len(s.first), s.duplicates, missed)
			// What the device had answered and the killed process had not yet queued.
			if missed > 2 {
				t.Errorf("%s: %s: %d polls are missing; a kill may cost 2", name, topic, missed)
			}
		}
		// The dead device costs nobody anything, and says so itself.
		dead := seen["plant/dead"]
		if dead == nil || dead.first[0].Bad["count"] != "timeout" || len(dead.first[0].Values) != 0 {
			t.Errorf("%s: the dead device is not published as bad with its reason: %+v", name, dead)
		}
	}
}

func TestOutageWithKillEmbeddedLocalBroker(t *testing.T) {
	port := rig.FreePort(t)
	outage(t, fmt.Sprintf("\n[broker]\nlisten = [\"127.0.0.1:%d\"]\npersistence = true\n", port), port)
}

func TestOutageWithKillExternalLocalBroker(t *testing.T) {
	local := rig.NewMosquitto(t, "")
	outage(t, fmt.Sprintf("\n[broker]\nenabled = false\n\n[[destination]]\nname = \"local\"\nurl = %q\n", local.URL()), local.Port)
}
