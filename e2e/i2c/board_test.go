// Package i2c runs the gateway's I2C commands on an emulated ARM board: Debian's kernel, its i2c-imx
// and i2c-dev drivers, and chips that qemu models. What it shows that nothing else here can is the
// ioctl on a 32-bit kernel, repeated starts, a real multiplexer model and a real kernel's errors.
//
//	cd e2e && go test ./i2c
package i2c

import (
	"path/filepath"
	"testing"

	"gateway/e2e/board"
	"gateway/e2e/rig"
)

// A chip that the catalogue does not have, by its registers: SMSC EMC1413. Its id registers are asked
// first; internal and external temperature have 11 bits, in two registers each.
const config = `
[[i2c]]
name = "header"
bus = 0

  [[i2c.device]]
  name = "cpu"
  chip = "registers"
  address = 0x4c
  init = [
    { write = [0xFE], bytes = 1, expect = [0x5D] },
    { write = [0xFD], bytes = 1, expect = [0x21] },
  ]
  read = [{ write = [0x00], bytes = 1 }, { write = [0x01], bytes = 1 }]
  points = [
    { name = "internal", type = "int8", unit = "°C" },
    { name = "external", step = 2, byte = 0, type = "int8", unit = "°C" },
  ]

  [[i2c.device]]
  name = "impostor"
  chip = "registers"
  address = 0x48
  init = [{ write = [0x00], bytes = 2, expect = [0x5D] }]
  read = [{ write = [0x00], bytes = 2 }]
  points = [{ name = "temperature", type = "int12", shift = 4, scale = 0.0625 }]
`

var steps = []board.Step{
	{Name: "scan", Command: "scan 0 --first 0x48 --last 0x4c", Want: []string{"40:                         48 -- -- -- 4c", "0x48  may be ", "exit 0"}},
	{Name: "read", Command: "read tmp75 --bus 0 --address 0x48", Want: []string{"temperature  21.5000 °C", "exit 0"}},
	{Name: "mux0", Command: "read tmp75 --bus 0 --address 0x4a --mux 0x70:0", Want: []string{"temperature  -40.0000 °C", "exit 0"}},
	{Name: "mux5", Command: "read tmp75 --bus 0 --address 0x4a --mux 0x70:5", Want: []string{"temperature  99.9375 °C", "exit 0"}},
	{Name: "registers", Command: "read --config /etc/gateway.toml cpu", Want: []string{"internal  20 °C", "external  33 °C", "exit 0"}},
	{Name: "another chip", Command: "read --config /etc/gateway.toml impostor", Want: []string{"the chip answers 15, expected is 5d", "exit 1"}},
	{Name: "absent", Command: "read sht3x --bus 0 --address 0x45", Want: []string{"bad: ", "exit 1"}},
	{Name: "another bus", Command: "read tmp75 --bus 7", Want: []string{"/dev/i2c-7 is not there", "exit 1"}},
}

func TestI2COnAnARMBoard(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "gateway")
	if err := rig.BuildTo(binary, "arm", "7"); err != nil {
		t.Fatal(err)
	}
	b := board.Start(t, board.Options{
		Files: map[string]string{"/bin/gateway": binary, "/etc/gateway.toml": rig.Write(t, t.TempDir(), "gateway.toml", config)},
		Devices: []string{
			"tmp105,id=roof,bus=i2c-bus.0,address=0x48",
			"emc1413,id=cpu,bus=i2c-bus.0,address=0x4c",
			"pca9548,id=mux,bus=i2c-bus.0,address=0x70",
			"tmp105,id=cold,bus=i2c.0,address=0x4a",
			"tmp105,id=hot,bus=i2c.5,address=0x4a",
		},
		Script: board.Script("i2c", steps),
	})
	b.Set(t, "roof", "temperature", 21500)
	b.Set(t, "cold", "temperature", -40000)
	b.Set(t, "hot", "temperature", 99940)
	b.Set(t, "cpu", "temperature0", 20000)
	b.Set(t, "cpu", "temperature1", 33000)
	b.Check(t, "i2c", steps)
}
