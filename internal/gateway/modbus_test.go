package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/config"
)

// problemsOf checks a configuration of Modbus buses and returns what is wrong with it.
func problemsOf(t *testing.T, profiles, toml string) string {
	t.Helper()
	cfg, problems := config.Parse("gateway.toml", "[broker]\nenabled = true\n[gateway]\nprofiles = '"+profiles+"'\n"+toml)
	if cfg != nil && !problems.Failed() {
		Check(cfg, "gateway.toml")
	}
	return problems.String()
}

// modbusTable is a bus with one device with one point.
func modbusTable(bus, dev, point string) string {
	return "[[modbus]]\nname = \"b\"\n" + bus + "\n[[modbus.device]]\nname = \"d\"\n" + dev + "\npoints = [\n" + point + "\n]\n"
}

const tcp = `address = "127.0.0.1"`

func TestBadModbusConfigurationsAreAnsweredWithPlaceAndMend(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("round", "title = 'a'\nsource = 'x'\nextends = 'trip'\n")
	write("trip", "title = 'b'\nsource = 'x'\nextends = 'round'\n")
	write("broken", "title = 'c'\nsource = 'x'\npoints = [{ name = 'p', holding = 70000 }]\n")
	for _, c := range []struct{ name, toml, want string }{
		{"impossible address", modbusTable(tcp, "unit = 1", `{ name = "pump", coil = 70000 }`), `gateway.toml:12: modbus "b", device "d", point "pump": coil 70000: an address is 0 to 65535`},
		{"no address", modbusTable(tcp, "unit = 1", `{ name = "x" }`), "where is it? Add holding = 0"},
		{"two addresses", modbusTable(tcp, "unit = 1", `{ name = "x", coil = 1, holding = 2 }`), "keep one"},
		{"odd notation", modbusTable(tcp, "unit = 1", `{ name = "x", address = 20001 }`), "not of the form 40001"},
		{"type that does not fit its registers", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 65535, type = "float32" }`), "goes beyond the last address"},
		{"no such type", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "unit16" }`), `did you mean "uint16"`},
		{"half a register", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "uint8" }`), "uint8_low or uint8_high"},
		{"number in a coil", modbusTable(tcp, "unit = 1", `{ name = "x", coil = 1, type = "uint16" }`), "a coil is a bit: its type is bool"},
		{"no such bit", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "bit", bit = 16 }`), "bit = 15 the highest"},
		{"bits beyond the register", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, bits = "10-16" }`), "has the bits 0 to 15"},
		{"text without length", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "string" }`), "length = 16"},
		{"scale 0", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, scale = 0 }`), "scale 0 makes every value 0"},
		{"empty range", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, min = 2, max = 1 }`), "the valid range is empty"},
		{"no such order", modbusTable(tcp, "unit = 1\norder = \"ABDC\"", `{ name = "x", holding = 1 }`), "no byte order"},
		{"bits with more behind", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, bits = "4-6zzz" }`), "write the lowest and the highest"},
		{"sentinel too low", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "int16", sentinels = [-99999] }`), "sentinel -99999 does not fit into a int16"},
		{"sentinel of a text", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "string", length = 4, sentinels = [0] }`), "a string has none"},
		{"sentinel too wide", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, sentinels = [0x10000] }`), "does not fit into a uint16"},
		{"label of no number", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, values = { a = "b" } }`), `"a" is not a number`},
		{"array beyond the end", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 65530, count = 10 }`), "beyond the last address"},
		{"one name for two", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1 }, { name = "x", holding = 2 }`), "taken already"},
		{"overlapping points", modbusTable(tcp, "unit = 1", `{ name = "x", input = 100, type = "int32" }, { name = "y", input = 101 }`), `points "x" (input 100 to 101) and "y" (input 101) overlap`},
		{"the same coil twice", modbusTable(tcp, "unit = 1", `{ name = "x", coil = 3 }, { name = "y", coil = 3 }`), `points "x" (coil 3) and "y" (coil 3) overlap`},
		{"overlapping writable points", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "float32", writable = true }, { name = "y", holding = 2, writable = true }`), `writable points "x" and "y" overlap`},
		{"label that cannot be", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, values = { 70000 = "b" } }`), `a uint16 never is 70000`},
		{"bit of a coil", modbusTable(tcp, "unit = 1", `{ name = "x", coil = 1, bit = 3 }`), "bit is for registers; a coil is a bit itself"},
		{"text in a coil", modbusTable(tcp, "unit = 1", `{ name = "x", coil = 1, type = "string" }`), "its type is bool, not string"},
		{"decimals", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, decimals = -3 }`), "0 to 15 are possible"},
		{"function of what is not written", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, function = 6 }`), "add writable = true"},
		{"no such SunSpec model", modbusTable(tcp, "unit = 1\nsunspec = [70000]", `{ name = "x", holding = 1 }`), "1 to 65534 are possible"},
		{"writable input", modbusTable(tcp, "unit = 1", `{ name = "x", input = 1, writable = true }`), "input registers cannot be written"},
		{"function that cannot write it", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, type = "float32", writable = true, function = 6 }`), "function 6 cannot write"},
		{"unit id out of range", modbusTable(`port = "/dev/null"`, "unit = 248", `{ name = "x", holding = 1 }`), "unit 248: 1 to 247 are possible"},
		{"broadcast as a device", modbusTable(`port = "/dev/null"`, "unit = 0", `{ name = "x", holding = 1 }`), "unit 0: 1 to 247"},
		{"no unit", modbusTable(`port = "/dev/null"`, "", `{ name = "x", holding = 1 }`), "has no unit id"},
		{"no place", modbusTable("", "unit = 1", `{ name = "x", holding = 1 }`), "where is it?"},
		{"two places", modbusTable(tcp+"\nport = \"/dev/null\"", "unit = 1", `{ name = "x", holding = 1 }`), "keep one"},
		{"framing", modbusTable(tcp+"\nframing = \"tpc\"", "unit = 1", `{ name = "x", holding = 1 }`), `did you mean "tcp"`},
		{"framing without its port", modbusTable(tcp+"\nframing = \"rtu\"", "unit = 1", `{ name = "x", holding = 1 }`), "rtu-over-tcp"},
		{"parity over the network", modbusTable(tcp+"\nparity = \"even\"", "unit = 1", `{ name = "x", holding = 1 }`), "parity is for serial ports"},
		{"no such parity", modbusTable(`port = "/dev/null"`+"\nparity = \"evn\"", "unit = 1", `{ name = "x", holding = 1 }`), `:8: modbus "b": parity "evn": none, odd, even, mark or space`},
		{"seven bits for RTU", modbusTable(`port = "/dev/null"`+"\ndata_bits = 7", "unit = 1", `{ name = "x", holding = 1 }`), "RTU needs all 8"},
		{"no such profile", modbusTable(tcp, "unit = 1\nprofile = \"eastron-smd630\"", ""), `did you mean "eastron-sdm630"`},
		{"cyclic profile", modbusTable(tcp, "unit = 1\nprofile = \"round\"", ""), "extends itself: round → trip → round"},
		{"broken profile", modbusTable(tcp, "unit = 1\nprofile = \"broken\"", ""), "an address is 0 to 65535"},
		{"profile as a path", modbusTable(tcp, "unit = 1\nprofile = \"../x\"", ""), "named without its directory"},
		{"no such point of the profile", modbusTable(tcp, "unit = 1\nprofile = \"eastron-sdm630\"\nwithout = [\"voltage_11\"]", ""), `did you mean "voltage_l1"`},
		{"no points", "[[modbus]]\nname = \"b\"\n" + tcp + "\n[[modbus.device]]\nname = \"d\"\n", "has no points"},
		{"interval", modbusTable(tcp, "unit = 1\ninterval = \"1ms\"", `{ name = "x", holding = 1 }`), "must be at least 10ms"},
		{"too many registers", modbusTable(tcp, "unit = 1\nmax_registers = 200", `{ name = "x", holding = 1 }`), "a request has 1 to 125"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := problemsOf(t, dir, c.toml); !strings.Contains(got, c.want) || strings.Contains(got, "warning") && !strings.Contains(got, "\n") {
				t.Errorf("%q has no %q", got, c.want)
			}
		})
	}
}

// thingsboard-gateway#905, device-modbus-go#685: two masters collide on one RTU port.
func TestTwoBusesOnOnePortAreFoundOutThroughSymbolicLinks(t *testing.T) {
	dir := t.TempDir()
	real, link1, link2 := filepath.Join(dir, "ttyUSB0"), filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{link1, link2} {
		if err := os.Symlink(real, l); err != nil {
			t.Fatal(err)
		}
	}
	bus := func(name, port string) string {
		return "[[modbus]]\nname = \"" + name + "\"\nport = \"" + port + "\"\n[[modbus.device]]\nname = \"d" + name + "\"\nunit = 1\npoints = [{ name = \"x\", holding = 0 }]\n"
	}
	if got := problemsOf(t, "", bus("one", link1)+bus("two", link2)); !strings.Contains(got, `bus "one" is at the same place`) {
		t.Errorf("%q", got)
	}
	if got := problemsOf(t, "", bus("one", link1)); got != "" {
		t.Errorf("one bus alone: %q", got)
	}
}

// A host by two of its names is one: two tables for it are two connections to one device.
func TestTwoBusesAtOneAddressAreFoundOutByWhateverName(t *testing.T) {
	bus := func(name, address string) string {
		return "[[modbus]]\nname = \"" + name + "\"\naddress = \"" + address + "\"\n[[modbus.device]]\nname = \"d" + name + "\"\npoints = [{ name = \"x\", holding = 0 }]\n"
	}
	for _, c := range [][2]string{{"localhost", "127.0.0.1:502"}, {"PLC.example:502", "plc.example"}, {"[2001:db8::1]:502", "[2001:DB8:0::1]"}} {
		if got := problemsOf(t, "", bus("one", c[0])+bus("two", c[1])); !strings.Contains(got, `bus "one" has the same address`) {
			t.Errorf("%v: %q", c, got)
		}
	}
	if got := problemsOf(t, "", bus("one", "localhost:502")+bus("two", "127.0.0.1:503")); got != "" {
		t.Errorf("two ports: %q", got)
	}
}

// What config has said of a point that is nowhere is not said again in other words.
func TestAPointThatIsNowhereIsReportedOnce(t *testing.T) {
	if got := problemsOf(t, "", modbusTable(tcp, "unit = 1", `{ name = "x" }`)); strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
}

func TestABusThatIsAskedForTooMuchIsAWarning(t *testing.T) {
	toml := "[[modbus]]\nname = \"b\"\nport = \"/dev/null\"\nbaud = 2400\n"
	for _, d := range []string{"1", "2", "3", "4"} {
		toml += "[[modbus.device]]\nname = \"d" + d + "\"\nunit = " + d + "\ninterval = \"1s\"\nprofile = \"eastron-sdm630\"\n"
	}
	got := problemsOf(t, "", toml)
	if !strings.Contains(got, "warning") || !strings.Contains(got, "more than it can carry") {
		t.Errorf("%q", got)
	}
}

// deviceOf returns what the adapter is given for the first device.
func deviceOf(t *testing.T, toml string) modbus.Device {
	t.Helper()
	cfg, problems := config.Parse("gateway.toml", "[broker]\nenabled = true\n"+toml)
	if problems.Failed() {
		t.Fatal(problems)
	}
	if Check(cfg, "gateway.toml"); problems.Failed() {
		t.Fatal(problems)
	}
	o, err := modbusOptions(&cfg.Modbus[0])
	if err != nil {
		t.Fatal(err)
	}
	return o.Devices[0]
}

func find(t *testing.T, d modbus.Device, name string) modbus.Point {
	t.Helper()
	for _, p := range d.Points {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no point %s", name)
	return modbus.Point{}
}

func TestPointsBecomeWhatTheAdapterReads(t *testing.T) {
	d := deviceOf(t, modbusTable(tcp, "unit = 7\norder = \"CDAB\"\ninterval = \"5s\"", `
	{ name = "a", address = 40108, type = "float32" },
	{ name = "b", address = "000003" },
	{ name = "c", input = 4, bits = "4-6" },
	{ name = "d", holding = 10, type = "string", length = 7 },
	{ name = "e", holding = 20, type = "int32", count = 3, scale = 0.1, order = "ABCD" },
	{ name = "f", input = 9, type = "bit", bit = 15 },
	{ name = "g", holding = 30, type = "int16", scale_from = 33, sentinels = [-32768] },`))
	if d.Unit != 7 || len(d.Points) != 9 {
		t.Fatalf("%+v", d)
	}
	if p := find(t, d, "a"); p.Kind != modbus.Holding || p.Address != 107 || p.Field.Order() != decode.WordsSwapped {
		t.Errorf("a: %+v", p)
	}
	if p := find(t, d, "b"); p.Kind != modbus.Coil || p.Address != 2 {
		t.Errorf("b: %+v", p)
	}
	if p := find(t, d, "c"); p.Field.Type() != (decode.Type{Kind: decode.Uint, Bits: 3, Shift: 4, Bytes: 2}) {
		t.Errorf("c: %+v", p.Field.Type())
	}
	if p := find(t, d, "d"); p.Field.Size() != 8 || p.Field.Order() != decode.BigEndian {
		t.Errorf("d: %+v", p.Field)
	}
	if p := find(t, d, "e_2"); p.Address != 24 || p.Decimals != 1 || p.Field.Order() != decode.BigEndian {
		t.Errorf("e_2: %+v", p)
	}
	if p := find(t, d, "f"); p.Field.Type().Shift != 15 {
		t.Errorf("f: %+v", p)
	}
	if p := find(t, d, "g"); p.Factor == nil || p.Factor.Address != 33 {
		t.Errorf("g: %+v", p)
	} else if _, reason := p.Field.Decode([]byte{0x80, 0}); reason != "sentinel" {
		t.Errorf("g of 0x8000: %q", reason)
	}
}

func TestADeviceOverridesItsProfile(t *testing.T) {
	d := deviceOf(t, "[[modbus]]\nname = \"b\"\nport = \"/dev/null\"\n[[modbus.device]]\nname = \"d\"\nunit = 3\nprofile = \"eastron-sdm630\"\nwithout = [\"neutral_current\"]\nmax_registers = 40\n"+
		`points = [{ name = "voltage_l1", unit = "kV", scale = 0.001 }, { name = "frequency", holding = 3 }, { name = "extra", input = 900 }]`)
	if p := find(t, d, "voltage_l1"); p.Unit != "kV" || p.Kind != modbus.Input || p.Address != 0 || p.Field.Size() != 4 {
		t.Errorf("voltage_l1: %+v", p)
	}
	if p := find(t, d, "frequency"); p.Kind != modbus.Holding || p.Address != 3 {
		t.Errorf("frequency: %+v", p)
	}
	find(t, d, "extra")
	for _, p := range d.Points {
		if p.Name == "neutral_current" {
			t.Error("a point that was left out is there")
		}
	}
	if d.MaxRegisters != 40 || d.Hole != 24 {
		t.Errorf("max %d, hole %d", d.MaxRegisters, d.Hole)
	}
}
