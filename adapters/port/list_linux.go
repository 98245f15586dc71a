package port

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// List returns the serial ports that have hardware behind them, without opening any: some devices
// take the opening of their port for a reset.
func List() ([]Info, error) {
	list, err := listIn("/")
	for i := range list {
		list[i].Holders = openedBy(list[i].Name)
	}
	return list, err
}

// ports is List without the holders, for whom all processes must be looked at.
func ports() ([]Info, error) { return listIn("/") }

// listIn is List for a machine whose root is at root.
func listIn(root string) ([]Info, error) {
	class := filepath.Join(root, "sys/class/tty")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("port: list: %w", err)
	}
	aliases := aliasesIn(root)
	var list []Info
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil {
			continue // a console or a pseudo-terminal: nothing behind it
		}
		driver := driverOf(device)
		if driver == "" {
			continue
		}
		// The placeholders ttyS0 to ttyS3 of a PC that has no such UART are of type 0.
		if attr(dir, "type") == "0" {
			continue
		}
		info := Info{Name: "/dev/" + e.Name(), Driver: driver}
		info.Aliases = aliases[info.Name]
		info.usb(root, device)
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Info) int { return compareNames(a.Name, b.Name) })
	return list, nil
}

// driverOf returns the driver of a port's device. Since Linux 6.5 a UART's port stands below its
// controller, with drivers of their own that say nothing ("port", "ctrl").
func driverOf(device string) string {
	for range 3 {
		link, err := filepath.EvalSymlinks(filepath.Join(device, "driver"))
		if err != nil {
			return ""
		}
		if name := filepath.Base(link); name != "port" && name != "ctrl" {
			return name
		}
		device = filepath.Dir(device)
	}
	return ""
}

// usb looks for a USB device above the port's. The one just below it is its interface.
func (i *Info) usb(root, device string) {
	for dir := device; len(dir) > len(filepath.Join(root, "sys")); dir = filepath.Dir(dir) {
		if n := attr(dir, "bInterfaceNumber"); n != "" {
			i.USB.Interface = n
		}
		if v := attr(dir, "idVendor"); v != "" {
			i.USB.Vendor, i.USB.Product, i.USB.Serial = v, attr(dir, "idProduct"), attr(dir, "serial")
			i.Maker, i.Product = attr(dir, "manufacturer"), attr(dir, "product")
			return
		}
	}
	i.USB = USB{}
}

func attr(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// aliasesIn maps device paths to the links that udev made for them.
func aliasesIn(root string) map[string][]string {
	m := map[string][]string{}
	for _, pattern := range []string{"dev/serial/by-id/*", "dev/serial/by-path/*", "dev/serial[0-9]*"} {
		links, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(link), target)
			}
			name := "/dev/" + filepath.Base(target)
			alias, _ := filepath.Rel(root, link)
			m[name] = append(m[name], "/"+alias)
		}
	}
	return m
}

// compareNames sorts ttyUSB2 before ttyUSB10.
func compareNames(a, b string) int {
	head := func(s string) (string, int) {
		t := strings.TrimRight(s, "0123456789")
		n, _ := strconv.Atoi(s[len(t):])
		return t, n
	}
	ah, an := head(a)
	bh, bn := head(b)
	if c := strings.Compare(ah, bh); c != 0 {
		return c
	}
	return an - bn
}

// openedBy returns the processes that have the device open, as far as this user may see.
func openedBy(name string) []string {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var who []string
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != real {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid := filepath.Base(dir)
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		w := fmt.Sprintf("%s (pid %s)", attr(dir, "comm"), pid)
		if !slices.Contains(who, w) {
			who = append(who, w)
		}
	}
	return who
}

// holders says who keeps us from opening the port.
func holders(name string) string {
	if who := openedBy(name); len(who) > 0 {
		return "held by " + strings.Join(who, ", ")
	}
	return "another program or another bus of this configuration has it"
}
