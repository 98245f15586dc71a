package mqttbroker

import (
	"fmt"
	"os/exec"
	"testing"

	"gateway/e2e/rig"
)

// Another Mosquitto bridges to our broker, with its defaults: it then says by a bit in its version that it is a
// bridge, until it is told that there is no such version.
func TestMosquittoBridge(t *testing.T) {
	for _, v := range []string{"mqttv311", "mqttv50"} {
		t.Run(v, func(t *testing.T) {
			b := newBroker(t)
			b.pub("-t", "down/x", "-q", "1", "-r", "-m", "from here")
			far := rig.NewMosquitto(t, fmt.Sprintf(`connection up
address %s
bridge_protocol_version %s
restart_timeout 1
topic up/# out 1
topic down/# in 1
`, b.addr(), v))
			rig.Eventually(t, patience, "the bridge is connected", func() bool { return b.subscriptions() > 1 })
			sub := b.sub("-t", "up/#", "-q", "1", "-C", "1", "-v")
			farPub := exec.Command(rig.Need(t, "mosquitto_pub", "mosquitto-clients"), "-p", fmt.Sprint(far.Port), "-t", "up/x", "-q", "1", "-m", "from afar")
			if out, err := farPub.CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub: %v\n%s", err, out)
			}
			sub.Await(t, patience, "what was published at the other broker", rig.HasLine("up/x from afar"))

			farSub := rig.Start(t, rig.Need(t, "mosquitto_sub", "mosquitto-clients"), "-p", fmt.Sprint(far.Port), "-t", "down/#", "-q", "1", "-v")
			farSub.Await(t, 2*patience, "what was published here", rig.HasLine("down/x from here"))
		})
	}
}
