package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// RabbitMQ is Debian's broker with its MQTT plugin, which speaks 3.1.1, on loopback ports of its own.
type RabbitMQ struct {
	Port int
	t    testing.TB
	dir  string
	env  []string
	proc *Process
}

// NewRabbitMQ starts a broker that takes anonymous clients and keeps sessions and messages over a Kill.
func NewRabbitMQ(t testing.TB) *RabbitMQ {
	t.Helper()
	r := &RabbitMQ{Port: FreePort(t), t: t, dir: t.TempDir()}
	conf := Write(t, r.dir, "rabbitmq.conf", fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nmqtt.listeners.tcp.1 = 127.0.0.1:%d\nmqtt.allow_anonymous = true\n", FreePort(t), r.Port))
	plugins := Write(t, r.dir, "plugins", "[rabbitmq_mqtt].\n")
	dist, epmd := strconv.Itoa(FreePort(t)), strconv.Itoa(FreePort(t))
	r.env = append(os.Environ(), "HOME="+r.dir, "RABBITMQ_NODENAME=gateway@localhost", "RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE="+conf,
		"RABBITMQ_ENABLED_PLUGINS_FILE="+plugins, "RABBITMQ_MNESIA_BASE="+filepath.Join(r.dir, "mnesia"), "RABBITMQ_LOG_BASE="+r.dir,
		"RABBITMQ_DIST_PORT="+dist, "ERL_EPMD_PORT="+epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -erl_epmd_port "+dist+" -kernel inet_dist_use_interface {127,0,0,1}")
	// The broker starts it, as a daemon, and leaves it when it is killed.
	t.Cleanup(func() { _ = exec.Command("epmd", "-port", epmd, "-kill").Run() })
	r.Start()
	return r
}

// URL returns the broker's address as the gateway's configuration writes it.
func (r *RabbitMQ) URL() string { return fmt.Sprintf("mqtt://127.0.0.1:%d", r.Port) }

// Start starts the broker again after a Kill.
func (r *RabbitMQ) Start() {
	r.t.Helper()
	Need(r.t, "rabbitmq-server", "rabbitmq-server")
	cmd := exec.Command("/usr/lib/rabbitmq/bin/rabbitmq-server") // the one in the path changes to a user of its own
	cmd.Env, cmd.Dir = r.env, r.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.proc = StartCmd(r.t, cmd)
	r.t.Cleanup(r.Kill)
	AwaitTCP(r.t, fmt.Sprintf("127.0.0.1:%d", r.Port), Patience)
}

// Kill ends the broker at once. What was started is a script that waits for it, so the whole group goes.
func (r *RabbitMQ) Kill() {
	select {
	case <-r.proc.Exited():
	default:
		_ = syscall.Kill(-r.proc.PID(), syscall.SIGKILL)
		<-r.proc.Exited()
	}
}
