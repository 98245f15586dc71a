package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// nextVersion returns a repository of what comes next: another configuration is packaged.
func nextVersion(t *testing.T) string {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "next")
	run(t, "git", "clone", "--quiet", rig.Root(), clone)
	config, err := os.OpenFile(filepath.Join(clone, "internal", "service", "gateway.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Close()
	if _, err := config.WriteString("\n# New in this version.\n"); err != nil {
		t.Fatal(err)
	}
	return clone
}

// The life of an installation, in the order in which it happens; each step stands on the one before.
func TestInstallRunUpgradeRemovePurge(t *testing.T) {
	t.Parallel() // with what waits as much as this does
	root := newTree(t)
	first := copyInto(t, root, deb(t, release(t)))
	second := copyInto(t, root, deb(t, packages(t, nextVersion(t), "1.2.4")))

	if !t.Run("apt installs it into a tree where nothing runs", func(t *testing.T) {
		run(t, "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--private-network",
			"--directory="+root, "apt-get", "install", "--yes", first)
		inTree := func(args ...string) string {
			return strings.TrimSpace(run(t, "chroot", append([]string{root}, args...)...))
		}
		if got := inTree("id", "-nG", "gateway"); got != "gateway dialout i2c" {
			t.Errorf("the user gateway is in the groups %q", got)
		}
		if got := inTree("getent", "passwd", "gateway"); !strings.HasSuffix(got, ":Sensor gateway:/var/lib/gateway:/usr/sbin/nologin") {
			t.Errorf("the user gateway: %s", got)
		}
		for path, want := range map[string]string{
			"/usr/bin/gateway":                        "755 root root",
			"/etc/gateway":                            "755 root root",
			"/etc/gateway/gateway.toml":               "644 root root",
			"/etc/gateway/credentials":                "700 root root",
			"/var/lib/gateway":                        "750 gateway gateway",
			"/usr/lib/systemd/system/gateway.service": "644 root root",
		} {
			if got := inTree("stat", "--format=%a %U %G", path); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		if got := inTree("systemctl", "is-enabled", "gateway.service"); got != "enabled" {
			t.Errorf("the unit is %s", got)
		}
		if got := inTree("gateway", "check"); !strings.Contains(got, "0 devices") {
			t.Errorf("gateway check of the packaged configuration: %s", got)
		}
		if got := run(t, "sh", "-c", "zcat "+filepath.Join(root, "/usr/share/man/man1/gateway.1.gz")); !strings.Contains(got, ".SS gateway run\n") {
			t.Errorf("the manual page does not tell of gateway run:\n%s", got)
		}
	}) {
		return
	}

	m := boot(t, root)
	m.write("/etc/gateway/credentials/cloud.password", "secret\n")

	m.step(t, "it runs from boot, with no network, no clock service and nothing configured", func(t *testing.T, m *machine) {
		m.up()
		if got := m.property("StatusText"); got == "" {
			t.Error("it says nothing of how it fares")
		}
		if got := m.property("WatchdogUSec"); got != "1min" {
			t.Errorf("the watchdog's interval: %s", got)
		}
		// The local broker serves this machine.
		m.run("mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-r", "-t", "kept", "-m", "before")
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "60", "-t", "kept"); got != "before" {
			t.Errorf("the broker keeps %q", got)
		}
		pid := m.property("MainPID")
		if got := m.run("stat", "--format=%U", "/proc/"+pid); got != "gateway" {
			t.Errorf("it runs as %s", got)
		}
		if got := m.run("sed", "-n", "s/^CapBnd:\t//p", "/proc/"+pid+"/status"); got != "0000000000000000" {
			t.Errorf("it could be given the capabilities %s", got)
		}
	})

	m.step(t, "udev reads the rules", func(t *testing.T, m *machine) {
		out, err := m.try("udevadm", "test", "/devices/virtual/mem/null")
		if err != nil || !strings.Contains(out, "70-gateway.rules") {
			t.Fatalf("udevadm test: %v\n%s", err, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "70-gateway.rules:") { // a complaint names the line
				t.Error(line)
			}
		}
	})

	m.step(t, "killed, it is back", func(t *testing.T, m *machine) {
		pid := m.property("MainPID")
		m.run("sh", "-c", "kill -KILL "+pid)
		rig.Eventually(t, rig.Patience, "another process", func() bool {
			now := m.property("MainPID")
			return now != pid && now != "0"
		})
		m.up()
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "60", "-t", "kept"); got != "before" {
			t.Errorf("the broker kept %q", got)
		}
	})

	m.step(t, "standing still, it is ended by the watchdog, and is back", func(t *testing.T, m *machine) {
		m.run("mkdir", "-p", "/run/systemd/system/gateway.service.d")
		m.write("/run/systemd/system/gateway.service.d/soon.conf", "[Service]\nWatchdogSec=5s\n")
		m.run("systemctl", "daemon-reload")
		m.run("systemctl", "restart", "gateway.service")
		pid := m.property("MainPID")
		m.run("sh", "-c", "kill -STOP "+pid)
		rig.Eventually(t, rig.Patience, "another process", func() bool {
			now := m.property("MainPID")
			return now != pid && now != "0"
		})
		m.await("ActiveState", "active")
		if out := m.run("journalctl", "--no-pager", "-u", "gateway.service"); !strings.Contains(out, "Watchdog timeout") {
			t.Errorf("the journal does not tell of the watchdog:\n%s", out)
		}
		m.run("rm", "-r", "/run/systemd/system/gateway.service.d")
		m.run("systemctl", "daemon-reload")
		m.run("systemctl", "restart", "gateway.service")
	})

	m.step(t, "a configuration that cannot be used is said once, and not tried again", func(t *testing.T, m *machine) {
		good := m.run("cat", "/etc/gateway/gateway.toml")
		m.write("/etc/gateway/gateway.toml", good+"\n[gatway]\n")
		m.try("systemctl", "restart", "gateway.service")
		m.await("ActiveState", "failed")
		if got := m.property("ExecMainStatus"); got != "78" {
			t.Errorf("it ended with %s, want 78", got)
		}
		if got := m.property("NRestarts"); got != "0" {
			t.Errorf("it was tried again %s times", got)
		}
		if out := m.run("journalctl", "--no-pager", "-u", "gateway.service", "-n", "20"); !strings.Contains(out, "gateway.toml:") || !strings.Contains(out, "gatway") {
			t.Errorf("the journal does not name the line:\n%s", out)
		}
		m.write("/etc/gateway/gateway.toml", good)
		m.run("systemctl", "restart", "gateway.service")
		m.await("ActiveState", "active")
	})

	m.step(t, "an upgrade keeps the configuration, the credentials and the state, and restarts", func(t *testing.T, m *machine) {
		m.write("/etc/gateway/gateway.toml", m.run("cat", "/etc/gateway/gateway.toml")+"\n# edited\n")
		pid := m.property("MainPID")
		m.run("apt-get", "install", "--yes", "-o", "Dpkg::Options::=--force-confold", second)
		m.up()
		if offered := m.run("tail", "-n", "1", "/etc/gateway/gateway.toml.dpkg-dist"); offered != "# New in this version." {
			t.Errorf("the new configuration, for whoever wants it, ends with %q", offered)
		}
		if now := m.property("MainPID"); now == pid {
			t.Error("the old program still runs")
		}
		if got := m.run("dpkg-query", "--show", "--showformat=${Version}", "gateway"); got != "1.2.4" {
			t.Errorf("installed is %s", got)
		}
		if got := m.run("gateway", "version"); !strings.HasPrefix(got, "gateway 1.2.4 ") {
			t.Errorf("gateway version: %s", got)
		}
		if got := m.run("tail", "-n", "1", "/etc/gateway/gateway.toml"); got != "# edited" {
			t.Errorf("the configuration ends with %q", got)
		}
		if got := m.run("cat", "/etc/gateway/credentials/cloud.password"); got != "secret" {
			t.Errorf("the credential is %q", got)
		}
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "60", "-t", "kept"); got != "before" {
			t.Errorf("the broker kept %q", got)
		}
	})

	m.step(t, "another broker that holds its port does not keep it from starting", func(t *testing.T, m *machine) {
		m.run("systemctl", "stop", "gateway.service")
		m.run("systemctl", "unmask", "mosquitto.service")
		m.run("systemctl", "start", "mosquitto.service")
		m.run("systemctl", "start", "gateway.service")
		m.await("ActiveState", "active")
		rig.Eventually(t, rig.Patience, "a line that names the port", func() bool {
			return strings.Contains(m.run("journalctl", "--no-pager", "-u", "gateway.service", "-n", "20"), "1883")
		})
		rig.Eventually(t, rig.Patience, "a status that names it too", func() bool {
			return strings.Contains(m.property("StatusText"), "127.0.0.1:1883: ")
		})
		m.run("systemctl", "stop", "mosquitto.service")
		rig.Eventually(t, rig.Patience, "the gateway's own broker, now that the port is free", func() bool {
			out, _ := m.try("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "1", "-t", "kept")
			return out == "before"
		})
	})

	m.step(t, "a name server that does not answer and a port that is absent do not keep it from starting", func(t *testing.T, m *machine) {
		good := m.run("cat", "/etc/gateway/gateway.toml")
		m.write("/etc/gateway/gateway.toml", good+`
[[destination]]
name = "cloud"
url = "mqtts://broker.example.com:8883"
username = "u"
password_file = "cloud.password"

[[serial]]
name = "scale-port"
port = "/dev/ttyUSB7"
frame = { line = "\r\n" }

  [[serial.device]]
  name = "scale"
  match = '^(?P<weight>[-+0-9.]+)kg'
`)
		m.run("systemctl", "restart", "gateway.service")
		m.await("ActiveState", "active")
		rig.Eventually(t, rig.Patience, "what it waits for, in the journal", func() bool {
			out := m.run("journalctl", "--no-pager", "-u", "gateway.service", "-n", "30")
			return strings.Contains(out, "broker.example.com") && strings.Contains(out, "/dev/ttyUSB7")
		})
		rig.Eventually(t, rig.Patience, "what it waits for, in the status", func() bool {
			status := m.property("StatusText")
			return strings.Contains(status, "broker.example.com") && strings.Contains(status, "/dev/ttyUSB7")
		})
		m.write("/etc/gateway/gateway.toml", good)
		m.run("systemctl", "restart", "gateway.service")
	})

	m.step(t, "a password from the credentials opens the door of another broker", func(t *testing.T, m *machine) {
		good := m.run("cat", "/etc/gateway/gateway.toml")
		m.run("mosquitto_passwd", "-b", "-c", "/etc/mosquitto/users", "boiler-room", "secret")
		m.run("chown", "mosquitto:", "/etc/mosquitto/users")
		m.write("/etc/mosquitto/conf.d/test.conf", "listener 1884 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/users\n")
		m.run("systemctl", "start", "mosquitto.service")
		if got := m.run("stat", "--format=%a %U", "/etc/gateway/credentials"); got != "700 root" {
			t.Errorf("the credentials are open to others: %s", got)
		}
		m.write("/etc/gateway/gateway.toml", good+`
[[destination]]
name = "neighbour"
url = "mqtt://127.0.0.1:1884"
username = "boiler-room"
password_file = "cloud.password"
`)
		m.run("systemctl", "restart", "gateway.service")
		host := m.run("hostname")
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-p", "1884", "-u", "boiler-room", "-P", "secret",
			"-C", "1", "-W", "60", "-t", host+"/gateway/state"); got != "online" {
			t.Errorf("at the other broker the gateway is %q", got)
		}
		m.run("systemctl", "stop", "mosquitto.service")
		m.write("/etc/gateway/gateway.toml", good)
		m.run("systemctl", "restart", "gateway.service")
		m.await("ActiveState", "active")
	})

	m.step(t, "the local broker is opened to the network with a password, as the documents say", func(t *testing.T, m *machine) {
		good := m.run("cat", "/etc/gateway/gateway.toml")
		m.run("install", "-m", "640", "-g", "gateway", "/dev/null", "/etc/gateway/passwords")
		m.run("sh", "-c", "echo secret | gateway passwd /etc/gateway/passwords homeassistant")
		m.write("/etc/gateway/gateway.toml", strings.Replace(good, "listen = [\"127.0.0.1:1883\"]",
			"listen = [\"0.0.0.0:1883\"]\npassword_file = \"/etc/gateway/passwords\"\nanonymous = \"loopback\"", 1))
		m.run("systemctl", "restart", "gateway.service")
		m.up()
		m.run("mosquitto_pub", "-h", "127.0.0.1", "-u", "homeassistant", "-P", "secret", "-t", "t", "-m", "x")
		if _, err := m.try("mosquitto_pub", "-h", "127.0.0.1", "-u", "homeassistant", "-P", "wrong", "-t", "t", "-m", "x"); err == nil {
			t.Error("a wrong password opens the door")
		}
		m.write("/etc/gateway/gateway.toml", good)
		m.run("rm", "/etc/gateway/passwords")
		m.run("systemctl", "restart", "gateway.service")
		m.await("ActiveState", "active")
	})

	m.step(t, "a disk that cannot be written to does not keep it from starting", func(t *testing.T, m *machine) {
		m.run("systemctl", "stop", "gateway.service")
		m.run("mount", "--bind", "/var/lib/gateway", "/var/lib/gateway")
		m.run("mount", "-o", "remount,bind,ro", "/var/lib/gateway")
		m.run("systemctl", "start", "gateway.service")
		m.up()
		rig.Eventually(t, rig.Patience, "a status that says so", func() bool {
			return strings.Contains(m.property("StatusText"), "the disk takes nothing")
		})
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "60", "-t", "kept"); got != "before" {
			t.Errorf("the broker kept %q", got)
		}
		m.run("systemctl", "stop", "gateway.service")
		m.run("umount", "/var/lib/gateway")
		m.run("systemctl", "start", "gateway.service")
		m.await("ActiveState", "active")
	})

	m.step(t, "removed, it leaves configuration and state", func(t *testing.T, m *machine) {
		m.run("apt-get", "remove", "--yes", "gateway")
		if _, err := m.try("systemctl", "is-active", "--quiet", "gateway.service"); err == nil {
			t.Error("it still runs")
		}
		for _, path := range []string{"/etc/gateway/gateway.toml", "/etc/gateway/credentials/cloud.password", "/var/lib/gateway"} {
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("removal took %s", path)
			}
		}
		if _, err := os.Stat(filepath.Join(root, "/usr/bin/gateway")); err == nil {
			t.Error("the program is still there")
		}
	})

	m.step(t, "installed again it starts with what was left", func(t *testing.T, m *machine) {
		m.run("apt-get", "install", "--yes", second)
		m.up()
		if got := m.run("mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "60", "-t", "kept"); got != "before" {
			t.Errorf("the broker kept %q", got)
		}
	})

	m.step(t, "purged, it leaves nothing but a locked user", func(t *testing.T, m *machine) {
		m.run("apt-get", "purge", "--yes", "gateway")
		out, _ := m.try("find", "/etc", "/var/lib", "/usr", "/run", "-xdev", "-path", "/usr/share/doc", "-prune", "-o", "-iname", "*gateway*", "-print")
		if out != "" {
			t.Errorf("left over:\n%s", out)
		}
		if got := m.run("passwd", "--status", "gateway"); !strings.HasPrefix(got, "gateway L") {
			t.Errorf("the user: %s", got)
		}
	})

	m.step(t, "a box that has only the binary", func(t *testing.T, m *machine) {
		m.run(copyInto(t, root, rig.Binary(t)), "service", "install", "--data", "/srv/readings")
		m.await("ActiveState", "active")
		if got := m.run("stat", "--format=%a %U %G", "/srv/readings", "/srv/readings/queue/cursors"); got != "750 gateway gateway\n600 gateway gateway" {
			t.Errorf("its data directory and what is in it:\n%s", got)
		}
		if got := m.run("readlink", "/proc/"+m.property("MainPID")+"/exe"); got != "/usr/local/bin/gateway" {
			t.Errorf("%s runs", got)
		}
		m.run("gateway", "service", "uninstall")
		if _, err := m.try("systemctl", "is-active", "--quiet", "gateway.service"); err == nil {
			t.Error("it still runs")
		}
		if _, err := os.Stat(filepath.Join(root, "/etc/gateway/gateway.toml")); err != nil {
			t.Error("uninstalling took the configuration")
		}
	})
}
