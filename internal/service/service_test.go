package service

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func options(t *testing.T, init Init) Options {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gateway")
	if err := os.WriteFile(program, []byte("the program"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Options{Init: init, Root: t.TempDir(), Program: program, Binary: "/usr/local/bin/gateway",
		Config: "/etc/gateway/gateway.toml", Data: DefaultData(init)}
}

func apply(t *testing.T, o Options, steps []Step) string {
	t.Helper()
	var said bytes.Buffer
	if err := Apply(context.Background(), &said, o.Root, false, steps); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return said.String()
}

func content(t *testing.T, o Options, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(o.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree returns the files below a root.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestInstallLaysDownWhatEachInitNeeds(t *testing.T) {
	for _, c := range []struct {
		init      Init
		files     []string
		starts    string // the file that starts the program
		contains  []string
		lastOfAll string
	}{
		{Systemd, []string{
			"etc/gateway/gateway.toml",
			"etc/modules-load.d/gateway.conf",
			"etc/systemd/system/gateway.service",
			"etc/systemd/system/multi-user.target.wants/gateway.service",
			"etc/sysusers.d/gateway.conf",
			"etc/tmpfiles.d/gateway.conf",
			"etc/udev/rules.d/70-gateway.rules",
			"usr/local/bin/gateway",
		}, "etc/systemd/system/gateway.service", []string{
			"ExecStart=/usr/local/bin/gateway run --config /etc/gateway/gateway.toml\n", "Type=notify\n", "WatchdogSec=",
			"RestartPreventExitStatus=64 78\n",
		}, "systemctl restart gateway.service"},
		{OpenRC, []string{"etc/gateway/gateway.toml", "etc/init.d/gateway", "usr/local/bin/gateway"},
			"etc/init.d/gateway", []string{"#!/sbin/openrc-run\n", "command=\"/usr/local/bin/gateway\"\n"}, "rc-service gateway restart"},
		{Procd, []string{"etc/gateway/gateway.toml", "etc/init.d/gateway", "usr/local/bin/gateway"},
			"etc/init.d/gateway", []string{"#!/bin/sh /etc/rc.common\n", "PROGRAM=/usr/local/bin/gateway\n"}, "/etc/init.d/gateway restart"},
	} {
		t.Run(string(c.init), func(t *testing.T) {
			o := options(t, c.init)
			said := apply(t, o, o.Install())
			if got := tree(t, o.Root); !slices.Equal(got, c.files) {
				t.Errorf("written: %q\nwant     %q", got, c.files)
			}
			starts := content(t, o, c.starts)
			for _, want := range c.contains {
				if !strings.Contains(starts, want) {
					t.Errorf("%s lacks %q:\n%s", c.starts, want, starts)
				}
			}
			if got := content(t, o, "usr/local/bin/gateway"); got != "the program" {
				t.Errorf("the program is %q", got)
			}
			if !strings.Contains(content(t, o, "etc/gateway/gateway.toml"), `data = "`+o.Data+`"`) {
				t.Error("the configuration names another directory of state")
			}
			if !strings.HasSuffix(strings.TrimSpace(said), "later: run     "+c.lastOfAll) {
				t.Errorf("it says\n%s", said)
			}
			if info, err := os.Stat(filepath.Join(o.Root, "etc/gateway/credentials")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
				t.Errorf("credentials: %v, %v", info, err)
			}
		})
	}
}

func TestInstallIsAlsoTheUpgradeAndUninstallKeepsWhatIsTheUsers(t *testing.T) {
	for _, init := range Inits {
		o := options(t, init)
		apply(t, o, o.Install())
		config := filepath.Join(o.Root, o.Config)
		if err := os.WriteFile(config, []byte("# edited"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.Program, []byte("the next program"), 0o700); err != nil {
			t.Fatal(err)
		}
		apply(t, o, o.Install())
		if got := content(t, o, "usr/local/bin/gateway"); got != "the next program" {
			t.Errorf("%s: the program is %q after the upgrade", init, got)
		}
		apply(t, o, o.Uninstall())
		if got := tree(t, o.Root); !slices.Equal(got, []string{"etc/gateway/gateway.toml"}) {
			t.Errorf("%s: left over: %q", init, got)
		}
		if got := content(t, o, o.Config); got != "# edited" {
			t.Errorf("%s: the configuration is %q", init, got)
		}
		apply(t, o, o.Uninstall()) // once more is no fault
	}
}

func TestPlacesOfOnesOwn(t *testing.T) {
	o := options(t, Systemd)
	o.Binary, o.Config, o.Data = "/opt/gw/gateway", "/opt/gw/etc/gateway.toml", "/data/gw"
	apply(t, o, o.Install())
	unit := content(t, o, "etc/systemd/system/gateway.service")
	for _, want := range []string{
		"ExecStart=/opt/gw/gateway run --config /opt/gw/etc/gateway.toml\n",
		"LoadCredential=credentials:/opt/gw/etc/credentials\n", "ReadWritePaths=-/data/gw\n",
	} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %q", want)
		}
	}
	if got := content(t, o, "etc/tmpfiles.d/gateway.conf"); !strings.Contains(got, "d /data/gw ") {
		t.Errorf("tmpfiles:\n%s", got)
	}
	// A program that is where it is to be is not copied onto itself.
	o.Program = o.Binary
	for _, s := range o.Install() {
		if s.Copy != "" {
			t.Errorf("%v", s)
		}
	}
}

func TestDetect(t *testing.T) {
	for mark, want := range map[string]Init{
		"run/systemd/system": Systemd, "usr/lib/systemd/systemd": Systemd, "sbin/openrc-run": OpenRC, "sbin/procd": Procd,
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, mark), 0o755); err != nil {
			t.Fatal(err)
		}
		if got, err := Detect(root); err != nil || got != want {
			t.Errorf("%s: %q, %v", mark, got, err)
		}
	}
	if _, err := Detect(t.TempDir()); err == nil {
		t.Error("an empty tree has an init")
	}
}

func TestAStepThatFailsStopsUnlessItIsTolerated(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no /bin/false here, and no init that is served")
		return
	}
	var said bytes.Buffer
	ctx := context.Background()
	if err := Apply(ctx, &said, "/", true, []Step{{Command: []string{"false"}, Tolerate: true}, {Command: []string{"true"}}}); err != nil {
		t.Errorf("a tolerated failure: %v", err)
	}
	err := Apply(ctx, &said, "/", true, []Step{{Command: []string{"false"}}, {Command: []string{"never"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "service: run     false") {
		t.Errorf("a failure: %v", err)
	}
}

// A systemd before 251 does not take a directory for a credential, and would not start the unit.
func TestAnOldSystemdHandsOverNoDirectory(t *testing.T) {
	for version, handed := range map[string]bool{"": true, "247": false, "250": false, "251": true, "252.39-1~deb12u2": true} {
		o := options(t, Systemd)
		if version != "" {
			dir := filepath.Join(o.Root, "usr/lib/arm-linux-gnueabihf/systemd")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "libsystemd-shared-"+version+".so"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		apply(t, o, o.Install())
		if got := strings.Contains(content(t, o, "etc/systemd/system/gateway.service"), "\nLoadCredential="); got != handed {
			t.Errorf("systemd %q is asked to hand over a directory: %t", version, got)
		}
		mode := "d /etc/gateway/credentials 0700 root    root "
		if !handed {
			mode = "d /etc/gateway/credentials 0750 root    gateway "
		}
		if got := content(t, o, "etc/tmpfiles.d/gateway.conf"); !strings.Contains(got, mode) {
			t.Errorf("systemd %q: tmpfiles:\n%s", version, got)
		}
	}
}

// In a chroot nothing runs that could be started, but the user and the directories can be made.
func TestAChrootGetsWhatNeedsNoInit(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no /bin/false here, and no init that is served")
		return
	}
	for root, made := range map[string]bool{"/": true, t.TempDir(): false} {
		var said bytes.Buffer
		err := Apply(context.Background(), &said, root, false, []Step{{Command: []string{"never"}}, {Command: []string{"false"}, Offline: true}})
		if (err != nil) != made || !strings.HasPrefix(said.String(), "later: run     never\n") {
			t.Errorf("%s: %v\n%s", root, err, said.String())
		}
	}
}

// The scripts are read by the shells of small boxes: what dash takes, ash takes.
func TestScriptsAreShell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no sh here, and no init that is served")
		return
	}
	for name, script := range map[string]string{"openrc": openrcScript, "procd": procdScript} {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(script, "[[") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// Nothing in it speaks of a service, and what it replaces in the installed one is there to be replaced.
func TestTheConfigurationByHand(t *testing.T) {
	got := ByHand("/home/pi/plant/gateway.toml", `/home/pi/the "data"`)
	for _, want := range []string{
		`data = "/home/pi/the \"data\""`, "/home/pi/plant/credentials/cloud.password",
		"gateway check --config /home/pi/plant/gateway.toml\n", "gateway run --config /home/pi/plant/gateway.toml\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	for _, not := range []string{"/etc/", "/var/", "/usr/", "systemctl"} {
		if strings.Contains(got, not) {
			t.Errorf("%q is in\n%s", not, got)
		}
	}
}
