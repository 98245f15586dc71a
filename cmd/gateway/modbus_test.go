package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/adapters/sim"
)

// run carries out a command line and returns what it printed.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(context.Background(), streams{strings.NewReader(""), &out, &err}, args)
	return code, out.String(), err.String()
}

// modbusServer serves simulated devices on the loopback.
func modbusServer(t *testing.T, m *sim.Modbus) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ServeTCP(l) }()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestModbusReadShowsEverySensibleMeaning(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(1).Set(sim.HoldingRegisters, 0, 0x4366, 0x199a, 0xfff6, 0x4142).Set(sim.Coils, 0, 1, 0)
	addr := modbusServer(t, m)
	code, out, stderr := run(t, "modbus", "read", "--address", addr, "holding", "0", "4")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{
		"40001", "230.1", "-10", "AB",
		`{ name = "holding_0", holding = 0, type = "float32" },`,
		`{ name = "holding_2", holding = 2, type = "int16" },`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, `holding = 1, type = "float32" }`) {
		t.Errorf("a float that makes no sense is offered:\n%s", out)
	}
	if code, out, _ = run(t, "modbus", "read", "--address", addr, "000001", "2"); code != 0 || !strings.Contains(out, "on ") || !strings.Contains(out, "{ name = \"coil_1\", coil = 1 }") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

func TestModbusReadShowsWhatThereIsOfARange(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(1).Set(sim.HoldingRegisters, 100, 0x4142, 0x4344, 0x4500, 0x1234).Set(sim.HoldingRegisters, 106, 0, 0).
		Set(sim.HoldingRegisters, 108, 0x0000, 0x0000, 0x0000, 0xf03f).Set(sim.Coils, 3, 1)
	addr := modbusServer(t, m)
	code, out, stderr := run(t, "modbus", "read", "--address", addr, "--toml", "holding", "98", "14")
	if code != 0 || !strings.Contains(stderr, "exception 2: it has no such address") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{
		"98 40099 -", "100 40101 4142 AB 16706 16706", "104 40105 -", "107 40108 0000",
		`{ name = "holding_100", holding = 100, type = "string", length = 4 }, # ABCD`,
		`{ name = "holding_103", holding = 103, type = "bcd16" }, # 1234`,
		`{ name = "holding_108", holding = 108, type = "float64", order = "HGFEDCBA" }, # 1`,
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code, out, _ = run(t, "modbus", "read", "--address", addr, "coil", "2", "3"); code != 0 || !strings.Contains(out, "00003   -\n") || !strings.Contains(out, "on   {") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	code, _, stderr = run(t, "modbus", "read", "--address", addr, "input", "0", "3")
	if code != exitFailure || !strings.Contains(stderr, "answers function 4 with exception 2") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestModbusWriteReadsBack(t *testing.T) {
	m := sim.NewModbus()
	u := m.Unit(3).Set(sim.HoldingRegisters, 0, 0, 0).Set(sim.Coils, 0, 0)
	addr := modbusServer(t, m)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"coil", "0", "on"}, "coil 0 (00001) of unit 3: true\n"},
		{[]string{"40001", "-12"}, "holding 0 (40001) of unit 3: -12\n"},
		{[]string{"--type", "float32", "--order", "CDAB", "holding", "0", "21.5"}, "holding 0 (40001) of unit 3: 21.5\n"},
	} {
		code, out, stderr := run(t, append([]string{"modbus", "write", "--address", addr, "--unit", "3"}, c.args...)...)
		if code != 0 || out != c.want {
			t.Errorf("%v: exit %d, %q, %s", c.args, code, out, stderr)
		}
	}
	if got := u.Get(sim.HoldingRegisters, 1); got != 0x41ac {
		t.Errorf("the high word is in the second register: %04x", got)
	}
	code, _, stderr := run(t, "modbus", "write", "--address", addr, "holding", "0", "70000")
	if code != exitUsage || !strings.Contains(stderr, "0 to 65535") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestModbusScanFindsDevicesAndProposesProfiles(t *testing.T) {
	t.Parallel() // it waits for devices that are not there
	m := sim.NewModbus()
	m.Unit(2).Set(sim.InputRegisters, 0, 1).Identify(0, "ACME").Identify(1, "M-1").Identify(2, "1.0")
	sdm := m.Unit(5)
	sdm.Set(sim.InputRegisters, 0, make([]uint16, 80)...).Set(sim.InputRegisters, 342, 0, 0, 0, 0)
	sdm.Set(sim.InputRegisters, 0, 0x4366, 0x199a).Set(sim.InputRegisters, 70, 0x4248, 0)
	pv := m.Unit(11)
	pv.Set(sim.HoldingRegisters, 0, 0).Set(sim.HoldingRegisters, 40000, 0x5375, 0x6e53, 1, 2, 0, 0, 103, 50)
	pv.Set(sim.HoldingRegisters, 40008, make([]uint16, 50)...).Set(sim.HoldingRegisters, 40058, 0xffff, 0)
	m.Unit(9).Always(&sim.ModbusFault{Exception: 1})
	addr := modbusServer(t, m)
	code, out, stderr := run(t, "modbus", "scan", "--address", addr, "--units", "1-3,5,9,11", "--timeout", "1s", "--profiles", t.TempDir())
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{`unit 2 answers: vendor "ACME"`, "unit 5 answers", "unit 9 answers", `profile = "eastron-sdm120"`, "frequency 50 Hz",
		"SunSpec models: 1 at 40002, 103 at 40006", `profile = "sunspec-inverter"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "unit 1 ") || strings.Contains(out, "unit 3 ") {
		t.Errorf("devices that are not there:\n%s", out)
	}
}

func TestModbusToolsSayWhatIsWrongWithTheCall(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"which line?", []string{"read", "holding", "0"}},
		{`did you mean "holding"`, []string{"read", "--address", "h", "holdign", "0"}},
		{"did you mean", []string{"reed"}},
		{"keep one", []string{"read", "--address", "h", "--port", "p", "holding", "0"}},
		{"0 to 65535", []string{"read", "--address", "h", "holding", "65536"}},
		{"ranges such as 1-20", []string{"scan", "--address", "h", "--units", "9-1"}},
		{"there are tcp, rtu", []string{"read", "--address", "h", "--framing", "rut", "holding", "0"}},
	} {
		code, _, stderr := run(t, append([]string{"modbus"}, c.args...)...)
		if code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, stderr)
		}
	}
}

func TestModbusReadOfASilentDeviceSaysWhatToLookAt(t *testing.T) {
	t.Parallel() // it waits for devices that are not there
	code, _, stderr := run(t, "modbus", "read", "--address", modbusServer(t, sim.NewModbus()), "--timeout", "1s", "holding", "0")
	if code != exitFailure || !strings.Contains(stderr, "is the unit id right") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestPlanPrintsRequestsAndUtilisation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.toml")
	err := os.WriteFile(path, []byte(`
[broker]
enabled = true
[[modbus]]
name = "meters"
port = "/dev/ttyUSB9"
baud = 9600
parity = "even"
[[modbus.device]]
name = "feed"
unit = 1
profile = "eastron-sdm120"
interval = "1s"
[[modbus.device]]
name = "roof"
unit = 2
profile = "sunspec-inverter"
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	code, out, stderr := run(t, "plan", "--config", path)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"meters: rtu, /dev/ttyUSB9 at 9600 baud", "feed", "input", "30001", "total_energy", "ms", "% of the time", "model + 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestProfilesAreListedAndShown(t *testing.T) {
	code, out, _ := run(t, "modbus", "profiles")
	if code != 0 || !strings.Contains(out, "eastron-sdm120") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	code, out, _ = run(t, "modbus", "profiles", "eastron-sdm120")
	if code != 0 || !strings.Contains(out, "source: ") || !strings.Contains(out, "30001") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if code, _, stderr := run(t, "modbus", "profiles", "eastorn-sdm120"); code != exitFailure || !strings.Contains(stderr, `did you mean "eastron-sdm120"`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
