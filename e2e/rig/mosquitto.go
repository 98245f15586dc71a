package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Mosquitto is Debian's broker on a loopback port of its own. It keeps its sessions over a Stop and
// a Start, but not over a Kill, as its users know it.
type Mosquitto struct {
	Port int
	t    testing.TB
	conf string
	proc *Process
}

// NewMosquitto starts a broker that takes anonymous clients; more is added to its configuration.
func NewMosquitto(t testing.TB, more string) *Mosquitto {
	t.Helper()
	m := &Mosquitto{Port: FreePort(t), t: t}
	dir := t.TempDir()
	// As root it would drop to a user of its own, who could not write into the test's directory.
	m.conf = Write(t, dir, "mosquitto.conf", fmt.Sprintf(`
listener %d 127.0.0.1
allow_anonymous true
persistence true
persistence_location %s/
user root
max_queued_messages 0
log_type error
log_type warning
log_type notice
%s
`, m.Port, dir, more))
	m.Start()
	return m
}

// URL returns the broker's address as the gateway's configuration writes it.
func (m *Mosquitto) URL() string { return fmt.Sprintf("mqtt://127.0.0.1:%d", m.Port) }

// Start starts the broker again after a Stop or a Kill.
func (m *Mosquitto) Start() {
	m.t.Helper()
	m.proc = Start(m.t, Need(m.t, "mosquitto", "mosquitto"), "-c", m.conf)
	AwaitTCP(m.t, fmt.Sprintf("127.0.0.1:%d", m.Port), Patience)
}

// Stop ends the broker in order; it writes its sessions to disk.
func (m *Mosquitto) Stop() {
	m.t.Helper()
	m.proc.Stop(m.t, Patience)
}

// Kill ends the broker at once.
func (m *Mosquitto) Kill() { m.proc.Kill() }

// Process returns the running broker.
func (m *Mosquitto) Process() *Process { return m.proc }

// Subscribe starts mosquitto_sub with a session that outlives its connections; every line is a topic,
// a space and a payload.
func (m *Mosquitto) Subscribe(t testing.TB, id string, filters ...string) *Process {
	t.Helper()
	return SubscribeTo(t, m.Port, id, filters...)
}

// SubscribeTo is Subscribe for any broker on a loopback port. It returns once the broker has
// confirmed the subscription.
func SubscribeTo(t testing.TB, port int, id string, filters ...string) *Process {
	t.Helper()
	args := []string{"-h", "127.0.0.1", "-p", fmt.Sprint(port), "-i", id, "-c", "-q", "1", "-v", "-d"}
	for _, f := range filters {
		args = append(args, "-t", f)
	}
	// Into a pipe it would write by the block, and the first messages may be long in coming.
	args = append([]string{"-oL", Need(t, "mosquitto_sub", "mosquitto-clients")}, args...)
	p := Start(t, Need(t, "stdbuf", "coreutils"), args...)
	p.Await(t, Patience, "SUBACK", HasLine("received SUBACK"))
	return p
}

// Gateway runs the gateway with a configuration; data is its data directory, kept from one run to
// the next.
func Gateway(t testing.TB, config string) *Process {
	t.Helper()
	path := Write(t, t.TempDir(), "gateway.toml", config)
	return Start(t, Binary(t), "run", "--config", path)
}

// DataDir returns a directory for a gateway's state.
func DataDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
