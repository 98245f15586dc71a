#!/sbin/openrc-run
# The sensor gateway under OpenRC (Alpine, Gentoo), watched by supervise-daemon.

name="gateway"
description="Sensor gateway: Modbus, serial and I2C to MQTT"
supervisor="supervise-daemon"
command="/usr/local/bin/gateway"
config="/etc/gateway/gateway.toml"
data="/var/lib/gateway"
command_args="run --config $config"
command_user="gateway:gateway"
umask="0077"
output_log="/var/log/gateway.log"
error_log="/var/log/gateway.log"
respawn_delay=2
respawn_max=0
# Draining, syncing, writing the cursors and telling the brokers goodbye.
retry="SIGTERM/30/SIGKILL/5"

depend() {
	# Nothing is waited for but the disk; the network may come later.
	need localmount
	after bootmisc modules net
}

start_pre() {
	modprobe -qa i2c-dev usbserial cdc-acm 2>/dev/null
	checkpath --directory --mode 0750 --owner gateway:gateway "$data"
	checkpath --file --mode 0640 --owner gateway:gateway "$error_log"
	# Said here, for a configuration that cannot be used would be tried again for ever.
	"$command" check --config "$config"
}
