package mqttbroker

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// Another Mosquitto bridges to our broker, both ways, with its defaults: before 5.0 it then says by a bit in its version
// that it is a bridge. What goes over the bridge does not come back over it, and what is published to be retained is
// retained on the other side, also when it comes while the bridge is there.
func TestMosquittoBridge(t *testing.T) {
	for _, v := range []string{"mqttv31", "mqttv311", "mqttv50"} {
		t.Run(v, func(t *testing.T) {
			b := newBroker(t)
			b.pub("-t", "x/before", "-q", "1", "-r", "-m", "kept here")
			far := rig.NewMosquitto(t, fmt.Sprintf(`connection up
address %s
bridge_protocol_version %s
restart_timeout 1
topic x/# both 1
`, b.addr(), v))
			rig.Eventually(t, patience, "the bridge is connected", func() bool {
				return strings.Count(b.proc.Stderr(), "client connected") > 1 // mosquitto_pub was the first
			})
			farPub := func(args ...string) {
				t.Helper()
				args = append([]string{"-p", fmt.Sprint(far.Port), "-q", "1"}, args...)
				if out, err := exec.Command(rig.Need(t, "mosquitto_pub", "mosquitto-clients"), args...).CombinedOutput(); err != nil {
					t.Fatalf("mosquitto_pub: %v\n%s", err, out)
				}
			}
			near := b.sub("-t", "x/#", "-q", "1", "-F", "%r %t %p")
			far1 := rig.Start(t, rig.Need(t, "mosquitto_sub", "mosquitto-clients"), "-p", fmt.Sprint(far.Port), "-t", "x/#", "-q", "1", "-F", "%r %t %p")
			far1.Await(t, patience, "what was retained here", func(lines []string) bool {
				return slices.Contains(lines, "1 x/before kept here") || slices.Contains(lines, "0 x/before kept here")
			})
			farPub("-t", "x/far", "-r", "-m", "from afar")
			near.Await(t, patience, "what was published at the other broker", rig.HasLine("0 x/far from afar"))
			b.pub("-t", "x/near", "-q", "1", "-r", "-m", "from here")
			far1.Await(t, patience, "what was published here", rig.HasLine("0 x/near from here"))

			// Retained on the other side; and by then whatever came back would be there.
			farLater := rig.Start(t, rig.Need(t, "mosquitto_sub", "mosquitto-clients"), "-p", fmt.Sprint(far.Port), "-t", "x/near", "-C", "1", "-F", "%r %t %p")
			farLater.Await(t, patience, "what was retained there", rig.HasLine("1 x/near from here"))
			nearLater := b.sub("-t", "x/far", "-C", "1", "-F", "%r %t %p")
			nearLater.Await(t, patience, "what was retained here", rig.HasLine("1 x/far from afar"))
			for side, lines := range map[string][]string{"here": near.Lines(), "there": far1.Lines()} {
				slices.Sort(lines)
				if len(slices.Compact(slices.Clone(lines))) != len(lines) || len(lines) != 3 {
					t.Errorf("%s: %q, want each message once", side, lines)
				}
			}
		})
	}
}
