package board

import (
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// drivers are the kernel's modules that the board needs; the rest is built in.
var drivers = []string{"gpio-mxc", "i2c-imx", "i2c-dev", "micrel", "fec"}

// initramfs writes the board's file system: busybox, the drivers, the files, and an init that starts
// the script.
func (k files) initramfs(image string, o Options) (err error) {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	a := &archive{w: z, made: map[string]bool{}}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "run", "etc", "var/lib/gateway"} {
		a.dir(d)
	}
	a.file("bin/busybox", k.busybox, 0o755)
	modules, err := k.load(drivers)
	if err != nil {
		return err
	}
	var load strings.Builder
	for _, m := range modules {
		place := "modules/" + filepath.Base(m)
		a.file(place, m, 0o644)
		fmt.Fprintf(&load, "insmod /%s\n", place)
	}
	for place, host := range o.Files {
		a.file(strings.TrimPrefix(place, "/"), host, 0o755)
	}
	a.text("init", fmt.Sprintf(initScript, load.String(), o.Script), 0o755)
	err = errors.Join(a.end(), z.Close(), f.Close())
	return err
}

const initScript = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
%s
tries=0
until [ -e /sys/class/net/eth0 ] && [ -e /dev/i2c-0 ]; do
	tries=$((tries + 1))
	[ $tries -lt 200 ] || { echo "the board's devices did not appear"; ls /dev /sys/class/net; dmesg | tail -n 50; poweroff -f; }
	usleep 50000
done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
echo "the board is up"
%s
poweroff -f
`

// load returns the files of modules and of what they depend on, in the order to load them in.
func (k files) load(names []string) ([]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(k.modules, func(p string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok {
			all[strings.ReplaceAll(name, "-", "_")] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(name string) error
	add = func(name string) error {
		p, ok := all[strings.ReplaceAll(name, "-", "_")]
		if !ok {
			return fmt.Errorf("the kernel has no module %s in %s", name, k.modules)
		}
		if slices.Contains(order, p) {
			return nil
		}
		needs, err := dependencies(p)
		if err != nil {
			return err
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		order = append(order, p)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// dependencies returns what a module says of itself: depends=a,b in its section .modinfo.
func dependencies(module string) ([]string, error) {
	f, err := elf.Open(module)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", module, err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("%s says nothing of what it depends on", module)
	}
	b, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", module, err)
	}
	for entry := range strings.SplitSeq(string(b), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// An archive is a cpio archive in the kernel's format ("newc", Documentation/driver-api/
// early-userspace/buffer-format.rst). The first error stays.
type archive struct {
	w     io.Writer
	inode int
	made  map[string]bool
	err   error
}

func (a *archive) entry(name string, mode uint32, content []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	_, a.err = io.WriteString(a.w, pad(header+name+"\x00")+pad(string(content)))
}

// pad fills up to the next multiple of four.
func pad(s string) string { return s + "\x00\x00\x00"[:(4-len(s)%4)%4] }

func (a *archive) dir(name string) {
	if name == "." || a.made[name] {
		return
	}
	a.made[name] = true
	a.dir(path.Dir(name))
	a.entry(name, 0o040755, nil)
}

func (a *archive) text(name, content string, mode uint32) {
	a.dir(path.Dir(name))
	a.entry(name, 0o100000|mode, []byte(content))
}

func (a *archive) file(name, host string, mode uint32) {
	b, err := os.ReadFile(host)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.text(name, string(b), mode)
}

func (a *archive) end() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}
