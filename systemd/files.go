package systemd

import _ "embed"

// Where binary, configuration and state are in the files as they are written.
const (
	UnitBinary = "/usr/bin/gateway"
	UnitConfig = "/etc/gateway/gateway.toml"
	UnitData   = "/var/lib/gateway"
)

// The files that make the gateway a service, for the packages and for `gateway service install`.
var (
	//go:embed gateway.service
	unit string
	//go:embed gateway.sysusers
	sysusers string
	//go:embed gateway.tmpfiles
	tmpfiles string
	//go:embed gateway.modules-load
	modulesLoad string
	//go:embed gateway.rules
	udevRules string
)

// A File is one of them, with the place below /usr/lib (of a package) or /etc (of the administrator).
type File struct {
	Name    string // below the directory, with slashes: systemd/system/gateway.service
	Content string
}

// Files returns the unit and its companions.
func Files() []File {
	return []File{
		{"systemd/system/gateway.service", unit},
		{"sysusers.d/gateway.conf", sysusers},
		{"tmpfiles.d/gateway.conf", tmpfiles},
		{"modules-load.d/gateway.conf", modulesLoad},
		{"udev/rules.d/70-gateway.rules", udevRules},
	}
}
