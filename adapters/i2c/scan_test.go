package i2c

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestAnAdapterIsFoundByItsName(t *testing.T) {
	names := map[string]string{
		"/dev/i2c-1": "bcm2835 (i2c@7e804000)", "/dev/i2c-2": "bcm2835 (i2c@7e805000)", "/dev/i2c-7": "CP2112 SMBus Bridge on hidraw0",
	}
	buses := []string{"/dev/i2c-1", "/dev/i2c-2", "/dev/i2c-7"}
	nameOf := func(path string) string { return names[path] }
	for _, c := range []struct{ name, path, err string }{
		{"cp2112", "/dev/i2c-7", ""},
		{"7e805000", "/dev/i2c-2", ""},
		{"bcm2835", "", "it fits /dev/i2c-1 and /dev/i2c-2"},
		{"MCP2221", "", `no adapter "MCP2221" among /dev/i2c-1 (bcm2835`},
	} {
		path, err := findAdapter(c.name, buses, nameOf)
		if path != c.path || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.name, path, err)
		}
	}
	if _, err := findAdapter("x", nil, nameOf); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
