// Package systemd is the gateway's side of the service manager: the states and the status text that
// it tells systemd (sd_notify(3)), the watchdog, and the unit and its companions, which the packages
// and `gateway service install` lay down.
//
// Where no service manager listens, on other systems and in a terminal, everything here does nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Notifier tells the service manager how the service fares. The zero value tells nobody.
type Notifier struct {
	addr     *net.UnixAddr // nil: nobody listens
	watchdog time.Duration // 0: the manager expects no signs of life
}

// NewNotifier reads the service manager's wishes from the environment: NOTIFY_SOCKET, WATCHDOG_USEC
// and WATCHDOG_PID as sd_notify(3) and sd_watchdog_enabled(3) have them. getenv is os.Getenv outside
// of tests.
func NewNotifier(getenv func(string) string) (*Notifier, error) {
	n := new(Notifier)
	socket := getenv("NOTIFY_SOCKET")
	if socket == "" {
		return n, nil
	}
	// A leading @ stands for the NUL byte of Linux's abstract sockets; package net reads it the same way.
	if socket[0] != '/' && socket[0] != '@' || len(socket) < 2 {
		return n, fmt.Errorf("systemd: NOTIFY_SOCKET %q is neither a path nor an abstract socket; the service manager hears nothing", socket)
	}
	n.addr = &net.UnixAddr{Name: socket, Net: "unixgram"}

	usec := getenv("WATCHDOG_USEC")
	if usec == "" {
		return n, nil
	}
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil // meant for another process, whose environment we inherited
	}
	v, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || v <= 0 || v > int64(1<<63-1)/1000 {
		return n, fmt.Errorf("systemd: WATCHDOG_USEC %q is not a number of microseconds; the watchdog is not served", usec)
	}
	n.watchdog = time.Duration(v) * time.Microsecond
	return n, nil
}

// Ready says that the service has started; status as for Status.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", statusField(status)) }

// Stopping says that the service has begun to stop; status as for Status.
func (n *Notifier) Stopping(status string) error { return n.send("STOPPING=1", statusField(status)) }

// Status sets the line of text that `systemctl status` shows. An empty one changes nothing.
func (n *Notifier) Status(status string) error { return n.send(statusField(status)) }

// Alive is one sign of life for the watchdog. Watch sends them as long as the service is healthy.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// statusField makes one line of a text: a line break would begin another field.
func statusField(s string) string {
	if s == "" {
		return ""
	}
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// send sends one datagram with the fields that are not empty.
func (n *Notifier) send(fields ...string) error {
	var b strings.Builder
	for _, f := range fields {
		if f != "" {
			b.WriteString(f)
			b.WriteByte('\n')
		}
	}
	if n.addr == nil || b.Len() == 0 {
		return nil
	}
	// A connection for each message, as the protocol's reference has it: the manager may be replaced
	// (daemon-reexec) while the service runs.
	conn, err := net.DialUnix(n.addr.Net, nil, n.addr)
	if err != nil {
		return fmt.Errorf("systemd: telling the service manager: %w", err)
	}
	defer conn.Close()
	// A manager that does not read must not stall the service.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("systemd: telling the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return fmt.Errorf("systemd: telling the service manager: %w", err)
	}
	return nil
}
