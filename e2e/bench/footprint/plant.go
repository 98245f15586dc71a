// Package footprint measures what the gateway takes of a small machine: memory, processor, flash, and
// the time until the first reading is out. Run it alone:
//
//	cd e2e && go test ./bench/footprint -run '^$' -bench . -benchtime 1x
package footprint

import (
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"gateway/adapters/decode"
	"gateway/adapters/sim"
)

// What the plant has.
const (
	Devices   = 10
	Registers = 20
)

// Plant serves the devices on a loopback port, each with registers that move as measurements do, and
// returns the port.
func Plant(b testing.TB) int {
	b.Helper()
	p, err := decode.ParseType("int16")
	if err != nil {
		b.Fatal(err)
	}
	field, err := decode.New(decode.Spec{Type: p})
	if err != nil {
		b.Fatal(err)
	}
	line := sim.NewModbus()
	for d := range Devices {
		u := line.Unit(byte(d + 1))
		for r := range Registers {
			phase := float64(d*Registers + r)
			u.Move(sim.HoldingRegisters, uint16(r), field, func(t time.Duration) float64 {
				return math.Round(500 + 300*math.Sin(t.Seconds()/7+phase))
			})
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- line.ServeTCP(l) }()
	b.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).Port
}

// Configuration is 10 devices of 20 registers each, once a second: 200 readings a second.
func Configuration(id, data, modbus, upstream string) string {
	var c strings.Builder
	fmt.Fprintf(&c, "[gateway]\nid = %q\ndata = %q\n[broker]\nlisten = [\"127.0.0.1:0\"]\n", id, data)
	fmt.Fprintf(&c, "[[destination]]\nname = \"up\"\nurl = %q\n[[modbus]]\nname = \"plant\"\naddress = %q\n", upstream, modbus)
	for d := range Devices {
		fmt.Fprintf(&c, "[[modbus.device]]\nname = \"d%d\"\nunit = %d\ninterval = \"1s\"\npoints = [\n", d, d+1)
		for r := range Registers {
			fmt.Fprintf(&c, "{ name = \"r%d\", holding = %d, type = \"int16\", scale = 0.1 },\n", r, r)
		}
		c.WriteString("]\n")
	}
	return c.String()
}
