package install

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/adapters/decode"
	"gateway/adapters/sim"
	"gateway/e2e/rig"
)

// Data directories that earlier versions left behind are kept in testdata, one for each version of a
// format. This flag makes the next one, with the program as it is now:
//
//	go test ./install -run TestAKeptDataDirectory -keep testdata/kept-2.tar.gz
var keep = flag.String("keep", "", "keep a data directory of this program in the `file` first")

// kept is what is known of a kept data directory.
type kept struct {
	Delivered uint64    // the last sequence that the subscriber had
	Last      uint64    // the last sequence in the queue
	Letters   int       // samples that were set aside
	Until     time.Time // when it was left behind
}

// makeKept fills a data directory as a life does, and keeps it: samples delivered, others refused and
// set aside, an outage with samples that wait, a session of the local broker's for which a message
// waits, a retained message, and kill -9.
func makeKept(t *testing.T, file string) {
	rules := rig.Write(t, t.TempDir(), "acl", "topic readwrite #\ntopic deny kept/secret\n")
	// Without a bound, which is 0, Mosquitto 2.0 drops the connection at a publish that it refuses.
	upstream := rig.NewMosquitto(t, "max_queued_messages 100000\nacl_file "+rules)
	sub := upstream.Subscribe(t, "first", "kept/counter")
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	local := rig.FreePort(t)
	g := rig.Gateway(t, settings(data, upstream.URL(), local)+counters(t))

	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", local), rig.Patience)
	rig.SubscribeTo(t, local, "sleeper", "late").Kill()
	for _, m := range [][]string{{"-t", "late", "-m", "for the sleeper"}, {"-t", "keepsake", "-m", "kept", "-r"}} {
		run(t, "mosquitto_pub", append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(local), "-q", "1"}, m...)...)
	}
	sub.Await(t, rig.Patience, "20 samples", func(lines []string) bool { return len(rig.Samples(t, lines, "kept/counter")) >= 20 })
	rig.Eventually(t, rig.Patience, "refused samples that were set aside, and the account of them", func() bool {
		account, err := os.ReadFile(filepath.Join(data, "account"))
		return err == nil && strings.Contains(string(account), "set aside")
	})
	upstream.Stop()
	var k kept
	had := rig.Samples(t, sub.Lines(), "kept/counter")
	k.Delivered = had[len(had)-1].Seq
	rig.Eventually(t, rig.Patience, "100 samples that wait", func() bool { return lastOf(t, data) > k.Delivered+100 })
	g.Kill()
	k.Last = lastOf(t, data)
	k.Letters = letters(t, data)
	k.Until = time.Now()

	about, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kept.json"), about, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", dir, "--sparse", "-czf", file, "data", "kept.json")
}

// counters is the configuration of two devices that count tenths of seconds: one whose samples are
// taken, and one whose samples the broker upstream refuses.
func counters(t *testing.T) string {
	typ, err := decode.ParseType("uint16")
	if err != nil {
		t.Fatal(err)
	}
	field, err := decode.New(decode.Spec{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	line := sim.NewModbus()
	line.Unit(1).Move(sim.HoldingRegisters, 0, field, func(d time.Duration) float64 { return math.Floor(d.Seconds() * 10) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- line.ServeTCP(l) }()
	t.Cleanup(func() { l.Close(); <-ended })
	return fmt.Sprintf(`
[[modbus]]
name = "line"
address = %q

  [[modbus.device]]
  name = "counter"
  unit = 1
  interval = "50ms"
  points = [ { name = "tenths", holding = 0 } ]

  [[modbus.device]]
  name = "secret"
  unit = 1
  interval = "1s"
  points = [ { name = "tenths", holding = 0 } ]
`, l.Addr())
}

// lastOf returns the sequence of the counter's last sample in a queue.
func lastOf(t *testing.T, data string) (last uint64) {
	t.Helper()
	out, err := exec.Command(rig.Binary(t), "queue", "export", "--data", data).Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
		var s struct {
			Device string
			Seq    uint64
		}
		if err := json.Unmarshal([]byte(l), &s); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if s.Device == "counter" {
			last = s.Seq
		}
	}
	return last
}

// letters counts the samples that were set aside.
func letters(t *testing.T, data string) int {
	t.Helper()
	return strings.Count(run(t, rig.Binary(t), "queue", "letters", "--data", data), "\ncloud ")
}

func settings(data, upstream string, local int) string {
	return fmt.Sprintf(`
[gateway]
id = "kept"
data = %q
clock = "trust"

[queue]
max_bytes = "64 MiB"

[broker]
listen = ["127.0.0.1:%d"]

[[destination]]
name = "cloud"
url = %q
`, data, local, upstream)
}

// unpack puts a kept data directory into a directory of the test's.
func unpack(t *testing.T, file string) (data string, k kept) {
	t.Helper()
	dir := t.TempDir()
	run(t, "tar", "-C", dir, "-xzf", file)
	about, err := os.ReadFile(filepath.Join(dir, "kept.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(about, &k); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data"), k
}

func allKept(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/kept-*.tar.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("kept data directories: %v, %v", files, err)
	}
	return files
}
