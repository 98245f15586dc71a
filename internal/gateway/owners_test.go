package gateway

import (
	"strings"
	"testing"
)

func TestALineHasOneOwnerHoweverItIsNamed(t *testing.T) {
	modbus := func(where string) string {
		return "[[modbus]]\nname = \"m\"\n" + where + "\n[[modbus.device]]\nname = \"d\"\nunit = 1\npoints = [{ name = \"x\", holding = 1 }]\n"
	}
	serial := func(where string) string {
		return "[[serial]]\nname = \"s\"\n" + where + "\n[[serial.device]]\nname = \"e\"\nmatch = '(?P<y>.)'\n"
	}
	for _, c := range []struct{ modbus, serial string }{
		{`port = "/dev/absent"`, `port = "/dev/absent"`},
		{`port = "/dev/absent"`, `port = "/dev/serial/../absent"`},
		{`usb = { vendor = "0403", serial = "A1" }`, `usb = { vendor = "0403", serial = "A1" }`},
		{"address = \"10.0.0.7:4196\"\nframing = \"rtu-over-tcp\"", `address = "10.0.0.7:4196"`},
	} {
		if got := problemsOf(t, "", modbus(c.modbus)+serial(c.serial)); !strings.Contains(got, "two owners of one line disturb each other") {
			t.Errorf("%s and %s: %q", c.modbus, c.serial, got)
		}
	}
	i2c := func(name, where string) string {
		return "[[i2c]]\nname = \"" + name + "\"\n" + where + "\n[[i2c.device]]\nname = \"d" + name + "\"\nchip = \"bme280\"\n"
	}
	if got := problemsOf(t, "", i2c("one", "bus = 7")+i2c("two", `path = "/dev/i2c-7"`)); !strings.Contains(got, `i2c "two": it is at the same place`) {
		t.Error(got)
	}
	zero := strings.Replace(serial(`port = "/dev/absent"`), "match = '(?P<y>.)'", "match = '(?P<y>.)'\npoints = [{ name = \"y\", scale = 0 }]", 1)
	if got := problemsOf(t, "", zero); !strings.Contains(got, "scale 0 makes every value 0") {
		t.Error(got)
	}
	if got := problemsOf(t, "", modbus(`port = "/dev/absent1"`)+serial(`port = "/dev/absent2"`)); strings.Contains(got, "owners") {
		t.Error(got)
	}
}
