#!/bin/sh /etc/rc.common
# The sensor gateway under procd (OpenWrt), started again whenever it ends.

USE_PROCD=1
START=95
STOP=10

PROGRAM=/usr/local/bin/gateway
CONFIG=/etc/gateway/gateway.toml

start_service() {
	modprobe -qa i2c-dev usbserial cdc-acm 2>/dev/null
	# Said here, for a configuration that cannot be used would be tried again for ever.
	"$PROGRAM" check --config "$CONFIG" || return 1
	procd_open_instance
	procd_set_param command "$PROGRAM" run --config "$CONFIG"
	procd_set_param respawn 3600 2 0
	# Draining, syncing, writing the cursors and telling the brokers goodbye.
	procd_set_param term_timeout 30
	procd_set_param stdout 1
	procd_set_param stderr 1
	procd_set_param file "$CONFIG"
	procd_close_instance
}
