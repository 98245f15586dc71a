// Package board is an ARM board without the board: qemu's i.MX6UL evaluation kit with Debian's own
// kernel, and with it the kernel's real drivers for I2C (i2c-imx, i2c-dev), serial ports (imx-uart)
// and Ethernet (fec). Sensors that qemu emulates hang on its I2C bus, a socket of the test is the far
// end of its second serial port, and its network reaches the test's loopback as 10.0.2.2.
//
// It is a Cortex-A7 at a tenth of the speed of the real one, more or less; what it cannot show is
// electrical: parity and framing errors, RS-485 direction, clock stretching.
package board

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// Patience is how long a board may take for anything: one that is up after ten seconds takes two minutes where others have
// the processor.
const Patience = 5 * time.Minute

// Options say what is on the board and what runs on it.
type Options struct {
	// Files are put into its file system, which is in memory: from the place on the board to the file
	// of the host.
	Files map[string]string
	// Script is what its shell (busybox) runs once the devices are there. When it ends the board is
	// switched off.
	Script string
	// Devices are qemu's: "tmp105,id=roof,bus=i2c-bus.0,address=0x48". The board's I2C buses are
	// i2c-bus.0 (/dev/i2c-0) and i2c-bus.1.
	Devices []string
}

// Board is a board that runs.
type Board struct {
	// UART is the far end of the board's /dev/ttymxc1.
	UART net.Conn
	// Console is the output of the script and of the kernel, line by line.
	Console *rig.Process

	qmp     net.Conn
	replies *bufio.Reader
}

// Start switches a board on and returns while it boots. The test's end switches it off.
func Start(t testing.TB, o Options) *Board {
	t.Helper()
	qemu := rig.Need(t, "qemu-system-arm", "qemu-system-arm")
	k := kernel(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "initramfs")
	if err := k.initramfs(image, o); err != nil {
		t.Fatal(err)
	}
	uart := listen(t, filepath.Join(dir, "uart"))
	control := listen(t, filepath.Join(dir, "qmp"))
	args := []string{
		"-machine", "mcimx6ul-evk", "-m", "256", "-display", "none", "-no-reboot", "-monitor", "none",
		"-kernel", k.image, "-dtb", k.deviceTree, "-initrd", image,
		"-append", "console=ttymxc0 quiet loglevel=3 panic=-1",
		"-serial", "stdio", "-serial", "unix:" + uart.Addr().String(), "-qmp", "unix:" + control.Addr().String(),
		// The machine has two network interfaces, and wants both plugged.
		"-nic", "user", "-nic", "user",
	}
	for _, d := range o.Devices {
		args = append(args, "-device", d)
	}
	b := &Board{Console: rig.Start(t, qemu, args...)}
	b.UART = accept(t, uart)
	b.qmp = accept(t, control)
	b.replies = bufio.NewReader(b.qmp)
	if err := b.qmp.SetDeadline(time.Now().Add(5 * Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.replies.ReadString('\n'); err != nil { // its greeting
		t.Fatal(err)
	}
	b.command(t, "qmp_capabilities", map[string]any{})
	return b
}

func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t testing.TB, l *net.UnixListener) net.Conn {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(rig.Patience)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("qemu did not connect: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Set sets a property of a device: what a sensor feels. A tmp105's temperature is in thousandths of
// a degree.
func (b *Board) Set(t testing.TB, id, property string, value any) {
	t.Helper()
	b.command(t, "qom-set", map[string]any{"path": "/machine/peripheral/" + id, "property": property, "value": value})
}

// command is a command of the QEMU Machine Protocol.
func (b *Board) command(t testing.TB, name string, arguments map[string]any) {
	t.Helper()
	if err := json.NewEncoder(b.qmp).Encode(map[string]any{"execute": name, "arguments": arguments}); err != nil {
		t.Fatalf("qemu: %s: %v", name, err)
	}
	for {
		line, err := b.replies.ReadBytes('\n')
		if err != nil {
			t.Fatalf("qemu: %s: %v", name, err)
		}
		var reply struct {
			Event  string
			Error  struct{ Desc string }
			Return json.RawMessage
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			t.Fatalf("qemu: %s: %v", name, err)
		}
		switch {
		case reply.Event != "":
		case reply.Error.Desc != "":
			t.Fatalf("qemu: %s: %s", name, reply.Error.Desc)
		default:
			return
		}
	}
}

// files are where Debian's kernel and what goes with it lie on this machine.
type files struct {
	image, deviceTree, modules, busybox string
}

// kernel returns Debian's kernel for ARMv7 boards and its busybox, fetched once from where this
// machine has its Debian packages from.
func kernel(t testing.TB) files {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "gateway-e2e", "board")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	if _, err := os.Stat(tree); err != nil {
		if err := fetch(dir, tree); err != nil {
			t.Fatal(err)
		}
	}
	one := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s in %s: %v, %v; take the directory away and it is fetched anew", pattern, tree, found, err)
		}
		return found[0]
	}
	return files{
		image:      one("boot/vmlinuz-*"),
		deviceTree: one("usr/lib/linux-image-*/imx6ul-14x14-evk.dtb"),
		modules:    one("lib/modules/*/kernel"),
		busybox:    one("bin/busybox"),
	}
}

// fetch unpacks the packages for armhf into tree. apt works in a state of its own: this machine's
// architecture stays what it is.
func fetch(dir, tree string) error {
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, "apt", d), 0o755); err != nil {
			return err
		}
	}
	conf := filepath.Join(dir, "apt", "apt.conf")
	text := fmt.Sprintf("Dir::State %q;\nDir::State::status \"/dev/null\";\nDir::Cache %q;\nAPT::Architecture \"armhf\";\nAPT::Architectures { \"armhf\"; };\nAPT::Sandbox::User \"root\";\nAcquire::Retries \"5\";\n",
		filepath.Join(dir, "apt"), filepath.Join(dir, "apt"))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	part := tree + ".part"
	// The newest kernel is what the package without a version depends on.
	script := `set -eu
apt-get -qq update || true # one list of several that cannot be had shows below, if it matters
image=$(apt-cache depends linux-image-armmp | sed -n 's/^ *Depends: //p' | head -n 1)
rm -rf ` + part + ` *.deb
apt-get -qq download "$image" busybox-static
for deb in *.deb; do dpkg-deb -x "$deb" ` + part + `; done
rm -f *.deb
mv ` + part + ` ` + tree
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetching a kernel for the board: %w\n%s", err, out)
	}
	return nil
}
