// Package service makes the gateway a service of a machine that has only its binary: it lays down
// what a package would, for systemd, OpenRC or procd.
package service

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gateway/systemd"
)

// Config is the configuration that is installed where there is none: no sensors, the broker on the
// loopback, and what to do next.
//
//go:embed gateway.toml
var Config string

// ByHand is that configuration for a gateway that no service manager starts: a file at path, the state in the directory
// data, both absolute.
func ByHand(path, data string) string {
	quoted := strconv.Quote(data)
	return strings.NewReplacer(
		systemdData, quoted[1:len(quoted)-1],
		filepath.Dir(systemd.UnitConfig)+"/credentials", filepath.Join(filepath.Dir(path), "credentials"),
		"gateway check\n", "gateway check --config "+path+"\n",
		"systemctl restart gateway\n", "gateway run --config "+path+"\n",
		"/usr/share/doc/gateway/configuration.md, with examples beside it", "docs/configuration.md of the source, and examples/ is beside docs/",
	).Replace(Config)
}

var (
	//go:embed openrc.sh
	openrcScript string
	//go:embed procd.sh
	procdScript string
)

// Init is what starts a machine's services.
type Init string

// The kinds that are served.
const (
	Systemd Init = "systemd"
	OpenRC  Init = "openrc"
	Procd   Init = "procd"
)

// Inits are all kinds.
var Inits = []Init{Systemd, OpenRC, Procd}

// Detect tells what starts the services of the system below root.
func Detect(root string) (Init, error) {
	for _, mark := range []struct {
		path string
		init Init
	}{
		{"run/systemd/system", Systemd}, // sd_booted(3)
		{"sbin/procd", Procd},
		{"sbin/openrc-run", OpenRC},
		{"usr/sbin/openrc-run", OpenRC},
		{"lib/systemd/systemd", Systemd}, // a tree that is not running
		{"usr/lib/systemd/systemd", Systemd},
	} {
		if _, err := os.Stat(filepath.Join(root, mark.path)); err == nil {
			return mark.init, nil
		}
	}
	return "", errors.New("service: neither systemd nor OpenRC nor procd was found; start 'gateway run' from what your system starts its services with")
}

// directoryCredentials tells whether the systemd below root takes a directory for a credential, as it
// does since 251 (its NEWS). One that cannot be found is taken for a new one.
func directoryCredentials(root string) bool {
	for _, dir := range []string{"lib/systemd", "usr/lib/systemd", "usr/lib/*/systemd", "usr/lib64/systemd"} {
		found, _ := filepath.Glob(filepath.Join(root, dir, "libsystemd-shared-*.so")) // the pattern is well-formed
		for _, path := range found {
			var version int
			if _, err := fmt.Sscanf(filepath.Base(path), "libsystemd-shared-%d", &version); err == nil {
				return version >= 251
			}
		}
	}
	return true
}

// Live tells whether the services of the system below root can be started and stopped: it is this
// machine's own, and no image or container in which no init runs.
func Live(init Init, root string) bool {
	if !ours(root) {
		return false
	}
	mark, ok := map[Init]string{Systemd: "/run/systemd/system", OpenRC: "/run/openrc"}[init]
	if !ok {
		return true
	}
	_, err := os.Stat(mark)
	return err == nil
}

// Options say what is installed where.
type Options struct {
	Init    Init
	Root    string // the system's root directory; another one than / is only written to, nothing is started in it
	Program string // the binary that is copied
	Binary  string // where it is copied to, below Root
	Config  string // where the configuration is, below Root; written only when it is not there
	Data    string // the directory of the queue and all other state, in a configuration that is written
}

// DefaultData is where the state goes unless it is said otherwise. On OpenWrt, whose init is procd,
// /var is in memory.
func DefaultData(init Init) string {
	if init == Procd {
		return "/srv/gateway"
	}
	return "/var/lib/gateway"
}

// A Step is one thing that is done: a file, a directory or a command.
type Step struct {
	Path    string // of a file or, when nothing says what is in it, of a directory; below the root
	Mode    fs.FileMode
	Content []byte
	Copy    string // the file whose content it gets
	Link    string // where it leads to, being a symbolic link
	Keep    bool   // left alone when it is there already
	Remove  bool   // taken away instead

	Command  []string // run on the machine itself
	Tolerate bool     // its failure is said and changes nothing
	Offline  bool     // it takes no init that runs
}

// String says what the step does.
func (s Step) String() string {
	switch {
	case s.Command != nil:
		return "run     " + strings.Join(s.Command, " ")
	case s.Remove:
		return "remove  " + s.Path
	case s.Keep:
		return "write   " + s.Path + ", unless it is there"
	case s.Copy != "":
		return "copy    " + s.Path
	case s.Link != "":
		return "link    " + s.Path
	case s.Content == nil:
		return "make    " + s.Path + "/"
	}
	return "write   " + s.Path
}

// Install returns the steps that make the gateway a service and start it.
func (o Options) Install() []Step {
	var steps []Step
	if o.Program != o.Binary {
		steps = append(steps, Step{Path: o.Binary, Mode: 0o755, Copy: o.Program})
	}
	config := strings.Replace(Config, systemdData, o.Data, 1)
	steps = append(steps,
		Step{Path: o.Config, Mode: 0o644, Content: []byte(config), Keep: true},
		Step{Path: path.Join(path.Dir(o.Config), "credentials"), Mode: 0o700},
	)
	steps = append(steps, o.files()...)
	run := func(tolerate bool, args ...string) {
		steps = append(steps, Step{Command: args, Tolerate: tolerate})
	}
	switch o.Init {
	case Systemd:
		offline := func(args ...string) { steps = append(steps, Step{Command: args, Offline: true}) }
		offline("systemd-sysusers", "/etc/sysusers.d/gateway.conf")
		offline("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/gateway.conf")
		run(true, "modprobe", "-qa", "i2c-dev", "usbserial", "cdc-acm")
		run(true, "udevadm", "control", "--reload")
		run(true, "udevadm", "trigger", "--subsystem-match=tty", "--subsystem-match=i2c-dev")
		run(false, "systemctl", "daemon-reload")
		run(false, "systemctl", "restart", "gateway.service")
	case OpenRC:
		// Each fails where it was done before.
		run(true, "addgroup", "-S", "gateway")
		run(true, "adduser", "-S", "-D", "-H", "-h", o.Data, "-s", "/sbin/nologin", "-G", "gateway", "gateway")
		run(true, "addgroup", "gateway", "dialout")
		run(true, "addgroup", "-S", "i2c")
		run(true, "addgroup", "gateway", "i2c")
		run(true, "chown", "-R", "root:gateway", path.Join(path.Dir(o.Config), "credentials"))
		run(true, "chmod", "0750", path.Join(path.Dir(o.Config), "credentials"))
		run(false, "rc-update", "add", "gateway", "default")
		run(false, "rc-service", "gateway", "restart")
	case Procd:
		run(false, "/etc/init.d/gateway", "enable")
		run(false, "/etc/init.d/gateway", "restart")
	}
	return steps
}

// Uninstall returns the steps that undo Install. Configuration, credentials and state stay.
func (o Options) Uninstall() []Step {
	var steps []Step
	run := func(args ...string) { steps = append(steps, Step{Command: args, Tolerate: true}) }
	switch o.Init {
	case Systemd:
		run("systemctl", "stop", "gateway.service")
	case OpenRC:
		run("rc-service", "gateway", "stop")
		run("rc-update", "del", "gateway", "default")
	case Procd:
		run("/etc/init.d/gateway", "stop")
		run("/etc/init.d/gateway", "disable")
	}
	for _, s := range o.files() {
		steps = append(steps, Step{Path: s.Path, Remove: true})
	}
	if o.Init == Systemd {
		run("systemctl", "daemon-reload")
	}
	return append(steps, Step{Path: o.Binary, Remove: true})
}

// What stands in the files as they are written, for the places of a package.
const (
	systemdData  = systemd.UnitData
	scriptBinary = "/usr/local/bin/gateway"
)

// loadCredential is the line of the unit by which systemd hands the credentials over.
var loadCredential = regexp.MustCompile(`(?m)^LoadCredential=.*\n`)

// files returns what tells the init of the service.
func (o Options) files() []Step {
	place := func(text, binary string) []byte {
		return []byte(strings.NewReplacer(binary, o.Binary, systemd.UnitConfig, o.Config,
			path.Dir(systemd.UnitConfig)+"/credentials", path.Dir(o.Config)+"/credentials",
			systemdData, o.Data).Replace(text))
	}
	switch o.Init {
	case OpenRC:
		return []Step{{Path: "/etc/init.d/gateway", Mode: 0o755, Content: place(openrcScript, scriptBinary)}}
	case Procd:
		return []Step{{Path: "/etc/init.d/gateway", Mode: 0o755, Content: place(procdScript, scriptBinary)}}
	}
	var steps []Step
	handed := directoryCredentials(o.Root)
	for _, f := range systemd.Files() {
		text := place(f.Content, systemd.UnitBinary)
		if !handed { // the service reads them itself
			text = loadCredential.ReplaceAll(text, nil)
			text = bytes.Replace(text, []byte("/credentials 0700 root    root "), []byte("/credentials 0750 root    gateway "), 1)
		}
		if strings.HasSuffix(f.Name, ".service") && o.Data != systemdData {
			text = []byte(strings.Replace(string(text), "StateDirectoryMode=0750\n", "StateDirectoryMode=0750\nReadWritePaths=-"+o.Data+"\n", 1))
		}
		steps = append(steps, Step{Path: "/etc/" + f.Name, Mode: 0o644, Content: text})
	}
	// As systemctl enable does it, which a tree that is not running has nobody to do.
	return append(steps, Step{Path: "/etc/systemd/system/multi-user.target.wants/gateway.service", Link: "/etc/systemd/system/gateway.service"})
}
