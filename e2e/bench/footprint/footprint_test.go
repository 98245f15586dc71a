package footprint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/e2e/rig"
)

const (
	warm     = 10 * time.Second // segments are laid out, caches filled
	measured = 60 * time.Second
)

// disk mounts an ext4 of its own, so that the kernel counts what reaches it, and returns the
// directory and the counter.
func disk(b *testing.B) (dir string, written func() float64) {
	b.Helper()
	image := filepath.Join(b.TempDir(), "disk")
	dir = filepath.Join(b.TempDir(), "mnt")
	sh := func(script string) string {
		out, err := exec.Command("sh", "-euc", script).CombinedOutput()
		if err != nil {
			b.Fatalf("a disk to count on takes root, losetup and mkfs.ext4: %v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	loop := sh(fmt.Sprintf(`truncate -s 2G %[1]s; mkfs.ext4 -q %[1]s; mkdir %[2]s; loop=$(losetup --find --show %[1]s); mount -o noatime $loop %[2]s; echo $loop`, image, dir))
	b.Cleanup(func() { sh(fmt.Sprintf("umount %s; losetup --detach %s", dir, loop)) })
	return dir, func() float64 {
		// Documentation/block/stat.rst: the seventh field is sectors written, of 512 bytes.
		f := strings.Fields(read(b, "/sys/block/"+filepath.Base(loop)+"/stat"))
		n, err := strconv.ParseFloat(f[6], 64)
		if err != nil {
			b.Fatal(err)
		}
		return n * 512
	}
}

func read(b *testing.B, path string) string {
	b.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// status returns a field of /proc/PID/status in MB.
func status(b *testing.B, pid int, field string) float64 {
	b.Helper()
	for line := range strings.Lines(read(b, fmt.Sprintf("/proc/%d/status", pid))) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kB, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kB * 1024 / 1e6
		}
	}
	b.Fatalf("no %s", field)
	return 0
}

// processor returns the seconds that a process has used, at the kernel's usual 100 ticks a second.
func processor(b *testing.B, pid int) float64 {
	b.Helper()
	stat := read(b, fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, err := strconv.ParseFloat(f[11], 64)
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.ParseFloat(f[12], 64)
	if err != nil {
		b.Fatal(err)
	}
	return (user + system) / 100
}

// BenchmarkFootprint runs the main job with the queue on disk, the local broker and one upstream: with a
// new queue, which zeroes space before it is used for the first time, and with one that has files which
// were segments before, as it has after some hours. A run takes 70 s whatever b.N is; ns/op says nothing.
func BenchmarkFootprint(b *testing.B) {
	b.Run("new", func(b *testing.B) { footprint(b, 0) })
	b.Run("used", func(b *testing.B) { footprint(b, 2) })
}

func footprint(b *testing.B, spares int) {
	dir, written := disk(b)
	queue := filepath.Join(dir, "data", "queue")
	if err := os.MkdirAll(queue, 0o750); err != nil {
		b.Fatal(err)
	}
	for i := range spares {
		if err := os.WriteFile(filepath.Join(queue, fmt.Sprintf("spare-%016x", i+1)), make([]byte, 8<<20), 0o640); err != nil {
			b.Fatal(err)
		}
	}
	syscall.Sync() // that is not to be counted
	upstream := rig.NewMosquitto(b, "")
	sub := upstream.Subscribe(b, "watcher", "plant/+")
	modbus := fmt.Sprintf("127.0.0.1:%d", Plant(b))
	config := Configuration("plant", filepath.Join(dir, "data"), modbus, upstream.URL())
	binary := rig.Binary(b) // built before the clock runs
	file := rig.Write(b, b.TempDir(), "gateway.toml", config)

	start := time.Now()
	g := rig.Start(b, binary, "run", "--config", file)
	sub.Await(b, rig.Patience, "a first reading", func(lines []string) bool { return countOf(lines) > 0 })
	first := time.Since(start)

	<-time.After(warm)
	cpu, bytes, readings := processor(b, g.PID()), written(), countOf(sub.Lines())*Registers
	<-time.After(measured)
	cpu, bytes = processor(b, g.PID())-cpu, written()-bytes
	n := float64(countOf(sub.Lines())*Registers - readings)

	b.ReportMetric(first.Seconds(), "s-to-first-reading")
	b.ReportMetric(status(b, g.PID(), "VmRSS"), "MB-RSS")
	b.ReportMetric(status(b, g.PID(), "VmHWM"), "MB-RSS-peak")
	b.ReportMetric(cpu*1e6/n, "cpu-ms/1000-readings")
	b.ReportMetric(bytes/n, "disk-B/reading")
	b.ReportMetric(n/measured.Seconds(), "readings/s")
	info, err := os.Stat(binary)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB-binary")
}

// countOf counts the samples of the plant's devices.
func countOf(lines []string) (n int) {
	for _, l := range lines {
		if strings.HasPrefix(l, "plant/d") {
			n++
		}
	}
	return n
}
