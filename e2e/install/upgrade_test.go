package install

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// A sample as the gateway publishes it by default.
type sample struct {
	Epoch  string
	Seq    uint64
	Prev   *uint64
	Values map[string]any
}

func samples(t *testing.T, lines []string) (all []sample) {
	t.Helper()
	for _, l := range lines {
		payload, ok := strings.CutPrefix(l, "kept/counter ")
		if !ok {
			continue
		}
		var s sample
		if err := json.Unmarshal([]byte(payload), &s); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		all = append(all, s)
	}
	return all
}

// kept is what is known of a kept data directory.
type kept struct {
	Delivered uint64 // the last sequence that the subscriber had
	Last      uint64 // the last sequence in the queue
}

// makeKept fills a data directory as a life does, and keeps it: samples delivered, an outage with
// samples that wait, and kill -9.
func makeKept(t *testing.T, file string) {
	upstream := rig.NewMosquitto(t, "")
	sub := upstream.Subscribe(t, "first", "kept/counter")
	dir := t.TempDir()
	data := filepath.Join(dir, "data")

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

	g := rig.Gateway(t, settings(data, upstream.URL())+fmt.Sprintf(`
[[modbus]]
name = "line"
address = %q
  [[modbus.device]]
  name = "counter"
  unit = 1
  interval = "50ms"
  points = [ { name = "tenths", holding = 0 } ]
`, l.Addr()))
	sub.Await(t, 30*time.Second, "20 samples", func(lines []string) bool { return len(samples(t, lines)) >= 20 })
	upstream.Stop()
	var k kept
	had := samples(t, sub.Lines())
	k.Delivered = had[len(had)-1].Seq
	export := func() (all []sample) {
		out, err := exec.Command(rig.Binary(t), "queue", "export", "--data", data).Output()
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(out)) {
			var s struct {
				Device string
				sample
			}
			if err := json.Unmarshal([]byte(l), &s); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			if s.Device == "counter" {
				all = append(all, s.sample)
			}
		}
		return all
	}
	rig.Eventually(t, 30*time.Second, "100 samples that wait", func() bool {
		all := export()
		return len(all) > 0 && all[len(all)-1].Seq > k.Delivered+100
	})
	g.Kill()
	all := export()
	k.Last = all[len(all)-1].Seq

	about, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kept.json"), about, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", dir, "--sparse", "-czf", file, "data", "kept.json")
}

func settings(data, upstream string) string {
	return fmt.Sprintf("[gateway]\nid = \"kept\"\ndata = %q\n[queue]\nmax_bytes = \"64 MiB\"\n[broker]\nenabled = false\n[[destination]]\nname = \"cloud\"\nurl = %q\n", data, upstream)
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

// This program delivers what an earlier one left in its queue: everything that was not acknowledged,
// in order, and little of what was.
func TestAKeptDataDirectoryIsDelivered(t *testing.T) {
	if *keep != "" {
		makeKept(t, *keep)
	}
	for _, file := range allKept(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, k := unpack(t, file)
			upstream := rig.NewMosquitto(t, "")
			sub := upstream.Subscribe(t, "second", "kept/counter")
			g := rig.Gateway(t, settings(data, upstream.URL()))
			sub.Await(t, 30*time.Second, "the last sample", func(lines []string) bool {
				return slices.ContainsFunc(samples(t, lines), func(s sample) bool { return s.Seq == k.Last })
			})
			got := samples(t, sub.Lines())
			// A kill -9 forgets acknowledgements of the last seconds: at most the cursor's 5 s at 20 a second.
			if first := got[0].Seq; first > k.Delivered+1 || k.Delivered+1-first > 200 {
				t.Errorf("the first is %d; %d was delivered before", first, k.Delivered)
			}
			for i, s := range got[1:] {
				if s.Prev == nil || *s.Prev != got[i].Seq {
					t.Errorf("after %d came %d, which says that %v was before it", got[i].Seq, s.Seq, s.Prev)
				}
				was, _ := got[i].Values["tenths"].(float64)
				if now, ok := s.Values["tenths"].(float64); !ok || now < was {
					t.Errorf("after %v tenths came %v", was, s.Values["tenths"])
				}
			}
			if code := g.Stop(t, 15*time.Second); code != 0 {
				t.Errorf("it ended with %d: %s", code, g.Stderr())
			}
		})
	}
}

// A queue that a newer program wrote is refused, with words that say so, and nothing in it is touched.
func TestANewerQueueIsRefusedAndLeftUntouched(t *testing.T) {
	data, _ := unpack(t, allKept(t)[0])
	segments, err := filepath.Glob(filepath.Join(data, "queue", "*[0-9a-f].seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	// What a later format would begin with: the same magic, another version, a header that is intact.
	newest := segments[len(segments)-1]
	b, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	header := b[:64]
	binary.LittleEndian.PutUint32(header[8:], binary.LittleEndian.Uint32(header[8:])+1)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(header[12:], crc32.Update(crc32.Checksum(header[:12], table), table, header[16:]))
	if err := os.WriteFile(newest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := content(t, filepath.Join(data, "queue"))
	g := rig.Gateway(t, settings(data, "mqtt://127.0.0.1:1"))
	if code := g.Wait(t, 15*time.Second); code != 78 {
		t.Errorf("it ended with %d, want 78: to start it again mends nothing", code)
	}
	if said := g.Stderr(); !strings.Contains(said, "version") || !strings.Contains(said, filepath.Base(newest)) {
		t.Errorf("it said:\n%s", said)
	}
	after := content(t, filepath.Join(data, "queue"))
	delete(after, "lock") // whose it was
	delete(before, "lock")
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

// content returns the files below a directory.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
