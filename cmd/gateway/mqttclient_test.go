package main

import (
	"testing"
)

// The address is a URL, or host and port as mosquitto_pub and mosquitto_sub take them.
func TestAddressOfTheBroker(t *testing.T) {
	for _, c := range []struct {
		flags clientFlags
		want  string
	}{
		{clientFlags{}, "mqtt://127.0.0.1"},
		{clientFlags{url: "ws://x/mqtt"}, "ws://x/mqtt"},
		{clientFlags{host: "broker.example.com"}, "mqtt://broker.example.com"},
		{clientFlags{port: "1884"}, "mqtt://127.0.0.1:1884"},
		{clientFlags{host: "x", port: "8883"}, "mqtts://x:8883"},
		{clientFlags{host: "x", caFile: "ca.pem"}, "mqtts://x"},
		{clientFlags{host: "::1"}, "mqtt://[::1]"},
		{clientFlags{host: "fe80::1%eth0", port: "1883"}, "mqtt://[fe80::1%25eth0]:1883"},
	} {
		if got := c.flags.address(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
}
