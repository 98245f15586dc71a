package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"gateway/adapters/hint"
	"gateway/internal/service"
)

var serviceCommand = command{
	name:    "service",
	usage:   "install | uninstall | show [flags]",
	summary: "Make the gateway a service of a machine that has only this binary (systemd, OpenRC, procd).",
	run:     runService,
}

func runService(ctx context.Context, c call) error {
	f := c.flags(`
install copies this binary, writes what the machine's init needs and a configuration where there is
none, makes the user, and starts the service. Installed again it is an upgrade: the binary and the
init's files are renewed, the configuration is left alone.

uninstall stops the service and takes away what install wrote, but for configuration, credentials and
state. show says what install would do, and does nothing.

Where the gateway came as a package, the package has done all this.`)
	root := f.String("root", "/", "the system's root `directory`; another one is only written to")
	init := f.String("init", "", "the `init` of this system: systemd, openrc or procd; found out when left out")
	binary := f.String("binary", "/usr/local/bin/gateway", "where the `program` goes")
	config := f.String("config", defaultConfig, "where the configuration `file` is, or goes when there is none")
	data := f.String("data", "", "the `directory` of the queue, in a new configuration; by default /var/lib/gateway, under procd /srv/gateway")
	what := ""
	if len(c.args) > 0 && len(c.args[0]) > 0 && c.args[0][0] != '-' {
		what, c.args = c.args[0], c.args[1:]
	}
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	if runtime.GOOS != "linux" && *root == "/" {
		return fmt.Errorf("there is neither systemd nor OpenRC nor procd on %s; start 'gateway run' from what your system starts its services with", runtime.GOOS)
	}
	o := service.Options{Init: service.Init(*init), Root: *root, Binary: *binary, Config: *config, Data: *data}
	switch o.Init {
	case service.Systemd, service.OpenRC, service.Procd:
	case "":
		var err error
		if o.Init, err = service.Detect(*root); err != nil {
			return err
		}
	default:
		return usagef("--init %q: it is systemd, openrc or procd", *init)
	}
	if o.Data == "" {
		o.Data = service.DefaultData(o.Init)
	}
	var err error
	if o.Program, err = os.Executable(); err != nil {
		return err
	}
	if o.Program, err = filepath.EvalSymlinks(o.Program); err != nil {
		return err
	}
	switch what {
	case "install":
		return service.Apply(ctx, c.out, *root, service.Live(o.Init, *root), o.Install())
	case "uninstall":
		return service.Apply(ctx, c.out, *root, service.Live(o.Init, *root), o.Uninstall())
	case "show":
		for _, s := range o.Install() {
			fmt.Fprintln(c.out, s)
			if s.Content != nil {
				fmt.Fprintf(c.out, "\n%s\n", s.Content)
			}
		}
		return nil
	case "":
		return usagef("say what to do: install, uninstall or show")
	}
	return usagef("there is no %q%s", what, hint.OneOf(what, []string{"install", "uninstall", "show"}))
}
