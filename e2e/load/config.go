package load

import (
	"fmt"
	"strings"
)

// Config returns a gateway's configuration: devices d1, d2, … on one Modbus TCP connection,
// each with that many readings once an interval, and a time after which no answer is waited for any more. More is added
// at its end.
func Config(id, data, meter string, devices, readings int, interval, timeout, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[gateway]\nid = %q\ndata = %q\nclock = \"trust\"\n\n", id, data)
	fmt.Fprintf(&b, "[[modbus]]\nname = \"plc\"\naddress = %q\n\n", meter)
	for i := 1; i <= devices; i++ {
		fmt.Fprintf(&b, "  [[modbus.device]]\n  name = \"d%d\"\n  unit = %d\n  interval = %q\n  timeout = %q\n  points = [\n", i, i, interval, timeout)
		b.WriteString("    { name = \"n\", holding = 0, type = \"uint32\" },\n")
		for r := 2; r <= readings; r++ {
			fmt.Fprintf(&b, "    { name = \"r%d\", holding = %d },\n", r, r)
		}
		b.WriteString("  ]\n\n")
	}
	return b.String() + more
}
