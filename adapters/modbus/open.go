package modbus

import (
	"context"
	"net"
	"time"

	"gateway/adapters/port"
)

// openNetwork returns what opens a connection to address.
func openNetwork(dial func(ctx context.Context, network, address string) (net.Conn, error), framing Framing, address string, timeout time.Duration) func(context.Context) (Line, error) {
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	network := "tcp"
	if framing == UDP {
		network = "udp"
	}
	return func(ctx context.Context) (Line, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return dial(ctx, network, address)
	}
}

// openSerial returns what opens a serial port.
func openSerial(open func(port.Config) (Line, error), cfg port.Config) func(context.Context) (Line, error) {
	if open == nil {
		open = func(c port.Config) (Line, error) { return port.Open(c) }
	}
	return func(context.Context) (Line, error) { return open(cfg) }
}
