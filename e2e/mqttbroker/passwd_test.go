package mqttbroker

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"gateway/e2e/rig"
)

// Whoever moves here from Mosquitto takes the password file along, and goes on with gateway passwd.
func TestPasswordFileOfMosquitto(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "passwords")
	passwd := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(rig.Need(t, "mosquitto_passwd", "mosquitto"), args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
	}
	passwd("-b", "-c", file, "alice", "wonderland")
	passwd("-b", "-H", "sha512", file, "bob", "the builder")
	passwd("-b", file, "carol", "ü€ and a space")
	b := &broker{port: rig.FreePort(t), t: t}
	config := rig.Write(t, dir, "broker.toml", fmt.Sprintf("[broker]\nlisten = [%q]\nanonymous = \"never\"\npersistence = false\npassword_file = %q\n", b.addr(), file))
	b.proc = rig.Start(t, rig.Binary(t), "broker", "--config", config)
	rig.AwaitTCP(t, b.addr(), patience)
	allowed := func(user, password string) bool {
		out, err := exec.Command(rig.Need(t, "mosquitto_pub", "mosquitto-clients"),
			"-h", "127.0.0.1", "-p", fmt.Sprint(b.port), "-t", "x", "-n", "-u", user, "-P", password).CombinedOutput()
		t.Logf("%s: %s%v", user, out, err)
		return err == nil
	}
	for user, password := range map[string]string{"alice": "wonderland", "bob": "the builder", "carol": "ü€ and a space"} {
		if !allowed(user, password) || allowed(user, password+".") {
			t.Errorf("%s is not let in with the password, or with another", user)
		}
	}
}
