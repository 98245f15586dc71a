package port

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// machine lays out the sysfs and /dev of a box with an on-board UART, two placeholders, a console,
// two FTDI sticks and a CDC-ACM device, as the kernel does.
func machine(t *testing.T) string {
	root := t.TempDir()
	file := func(name, content string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		name, target = filepath.Join(root, name), filepath.Join(root, target)
		for _, dir := range []string{filepath.Dir(name), target} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	tty := func(name, device, driver, kind string) {
		file("sys/class/tty/"+name+"/type", kind)
		link("sys/class/tty/"+name+"/device", device)
		link(device+"/driver", "sys/bus/drivers/"+driver)
	}
	usb := func(dir, vendor, product, serial, maker, name string) {
		file(dir+"/idVendor", vendor+"\n")
		file(dir+"/idProduct", product+"\n")
		file(dir+"/serial", serial+"\n")
		file(dir+"/manufacturer", maker+"\n")
		file(dir+"/product", name+"\n")
	}
	file("sys/class/tty/console/active", "tty0")
	tty("ttyS0", "sys/devices/platform/soc/uart", "of_serial", "4")
	tty("ttyS1", "sys/devices/platform/serial8250", "serial8250", "0")
	// A UART of Linux 6.5 and later: controller and port between it and the terminal.
	tty("ttyS2", "sys/devices/platform/uart2/ctrl/port", "port", "4")
	link("sys/devices/platform/uart2/ctrl/driver", "sys/bus/drivers/ctrl")
	link("sys/devices/platform/uart2/driver", "sys/bus/drivers/dw-apb-uart")
	for i, stick := range []string{"A10KZP45", "A10KZP46"} {
		dir := "sys/devices/usb1/1-" + string(rune('1'+i))
		usb(dir, "0403", "6001", stick, "FTDI", "USB-RS485 Cable")
		file(dir+"/if/bInterfaceNumber", "00\n")
		name := []string{"ttyUSB10", "ttyUSB2"}[i]
		tty(name, dir+"/if/"+name, "ftdi_sio", "")
		file("dev/"+name, "")
		id := "dev/serial/by-id/usb-FTDI_USB-RS485_Cable_" + stick + "-if00-port0"
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(id)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../"+name, filepath.Join(root, id)); err != nil {
			t.Fatal(err)
		}
	}
	usb("sys/devices/usb1/1-3", "1546", "01a7", "", "u-blox AG", "u-blox 7")
	file("sys/devices/usb1/1-3/acm/bInterfaceNumber", "00\n")
	tty("ttyACM0", "sys/devices/usb1/1-3/acm", "cdc_acm", "")
	return root
}

func TestPortsAreListedWithTheirIdentity(t *testing.T) {
	got, err := listIn(machine(t))
	if err != nil {
		t.Fatal(err)
	}
	cable := func(name, serial string) Info {
		return Info{
			Name: name, Driver: "ftdi_sio", Maker: "FTDI", Product: "USB-RS485 Cable",
			Aliases: []string{"/dev/serial/by-id/usb-FTDI_USB-RS485_Cable_" + serial + "-if00-port0"},
			USB:     USB{Vendor: "0403", Product: "6001", Serial: serial, Interface: "00"},
		}
	}
	want := []Info{
		{Name: "/dev/ttyACM0", Driver: "cdc_acm", Maker: "u-blox AG", Product: "u-blox 7", USB: USB{Vendor: "1546", Product: "01a7", Interface: "00"}},
		{Name: "/dev/ttyS0", Driver: "of_serial"},
		{Name: "/dev/ttyS2", Driver: "dw-apb-uart"},
		cable("/dev/ttyUSB2", "A10KZP46"),
		cable("/dev/ttyUSB10", "A10KZP45"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAPortIsChosenByItsUSBIdentity(t *testing.T) {
	all, err := listIn(machine(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (USB{Vendor: "0403", Serial: "A10KZP45"}).pick(all); err != nil || got.Name != "/dev/ttyUSB10" {
		t.Errorf("by serial number: %s, %v", got.Name, err)
	}
	if got, err := (USB{Vendor: "1546", Product: "01A7"}).pick(all); err != nil || got.Name != "/dev/ttyACM0" {
		t.Errorf("by vendor and product: %s, %v", got.Name, err)
	}
	if _, err := (USB{Vendor: "0403", Product: "6001"}).pick(all); !errors.Is(err, errAmbiguous) || !strings.Contains(err.Error(), "/dev/ttyUSB2, /dev/ttyUSB10") {
		t.Errorf("two of a kind: %v", err)
	}
	if _, err := (USB{Vendor: "ffff"}).pick(all); !errors.Is(err, ErrAbsent) {
		t.Errorf("none: %v", err)
	}
}

func TestAMissingPermissionNamesTheGroupToJoin(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ttyUSB0")
	if err := os.WriteFile(name, nil, 0o660); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o660); err != nil { // whatever the umask
		t.Fatal(err)
	}
	err := explain(name, os.ErrPermission)
	if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "usermod -aG ") {
		t.Error(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := explain(name, os.ErrPermission); !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "udev") {
		t.Error(err)
	}
}
