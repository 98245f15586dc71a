package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)

func TestVersions(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for _, c := range []struct {
		tag   string
		exact bool
		want  string
	}{
		{"v1.2.3", true, "1.2.3"},
		{"v1.2.3-rc1", true, "1.2.3~rc1"},
		{"v1.2.3", false, "1.2.3+git20261123160000.0123456789ab"},
		{"", false, "0.0.0+git20261123160000.0123456789ab"},
	} {
		if got := versionOf(c.tag, c.exact, at, commit); got != c.want {
			t.Errorf("tag %q, exact %t: %s, want %s", c.tag, c.exact, got, c.want)
		}
	}
	for version, good := range map[string]bool{
		"1.2.3": true, "1.2.3~rc1": true, "0.0.0+git2026.ab": true,
		"": false, "v1.2.3": false, "1.2.3-1": false, "1 2": false, "1/2": false,
	} {
		if debianVersion.MatchString(version) != good {
			t.Errorf("%q: taken for a version: %t", version, !good)
		}
	}
}

// Where dpkg is, it agrees on the order.
func TestVersionsRise(t *testing.T) {
	rising := []string{
		versionOf("", false, at, "ffffffffffffffff"),
		versionOf("v1.0.0-rc1", true, at, ""),
		versionOf("v1.0.0", true, at, ""),
		versionOf("v1.0.0", false, at, "ffffffffffffffff"),
		versionOf("v1.0.0", false, at.Add(time.Second), "0000000000000000"),
		versionOf("v1.0.1", true, at, ""),
	}
	dpkg, err := exec.LookPath("dpkg")
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("no dpkg on this machine; CI has it")
		return
	}
	for i := range rising[1:] {
		if err := exec.Command(dpkg, "--compare-versions", rising[i], "lt", rising[i+1]).Run(); err != nil {
			t.Errorf("%s does not come before %s", rising[i], rising[i+1])
		}
	}
}

func TestChooseTargets(t *testing.T) {
	if got, err := choose(""); err != nil || len(got) != len(targets) {
		t.Errorf("all: %v, %v", got, err)
	}
	if got, err := choose("linux-riscv64,linux-armv6"); err != nil || names(got) != "linux-riscv64, linux-armv6" {
		t.Errorf("two: %v, %v", got, err)
	}
	if _, err := choose("linux-armv6,vax"); err == nil || !strings.Contains(err.Error(), "linux-riscv64") {
		t.Errorf("an unknown one: %v", err)
	}
	var debian []string
	for _, t := range targets {
		if t.debian != "" {
			debian = append(debian, t.debian)
		}
	}
	if !slices.Equal(debian, []string{"armhf", "arm64", "amd64", "riscv64"}) {
		t.Errorf("packages for %v", debian)
	}
}

func TestTarballIsAnyonesAndOfTheCommit(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &release{version: "1.2.3", time: at}
	docs := []document{{"LICENSE", []byte("l")}, {"README.md", []byte("r")}, {"install.md", []byte("i")}, {"examples/a.toml", []byte("a")}}
	file := filepath.Join(dir, "x.tar.gz")
	if err := r.tarball(file, "gateway-1.2.3", binary, docs); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for a := tar.NewReader(z); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(at) {
			t.Errorf("%s is of %d:%d %q, %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name)
	}
	want := []string{
		"drwxr-xr-x gateway-1.2.3/",
		"-rwxr-xr-x gateway-1.2.3/gateway",
		"-rw-r--r-- gateway-1.2.3/LICENSE",
		"-rw-r--r-- gateway-1.2.3/README.md",
		"drwxr-xr-x gateway-1.2.3/docs/",
		"-rw-r--r-- gateway-1.2.3/docs/install.md",
		"drwxr-xr-x gateway-1.2.3/examples/",
		"-rw-r--r-- gateway-1.2.3/examples/a.toml",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestManualEscapesAndLists(t *testing.T) {
	help := "gateway reads\n\nUsage: gateway COMMAND\n\n  run             Run it.\n  check           Check it.\n\nEach command\n"
	if got := commandsIn([]byte(help)); !slices.Equal(got, []string{"run", "check"}) {
		t.Errorf("commands: %q", got)
	}
	for in, want := range map[string]string{".x": `\&.x`, "'x": `\&'x`, `a\b-c`: `a\eb\-c`} {
		if got := roff(in); got != want {
			t.Errorf("roff(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestOriginNamesTheCommitAndWhatItLacks(t *testing.T) {
	r := &release{version: "1.2.3", commit: "0123456789abcdef", time: at}
	if got := r.origin(); got != "1.2.3 commit 0123456789ab of 2026-11-23T16:00:00Z" {
		t.Error(got)
	}
	r.changed = true
	if got := r.origin(); got != "1.2.3 commit 0123456789ab with changes of 2026-11-23T16:00:00Z" {
		t.Error(got)
	}
}

func TestABillOfMaterialsIsNamedByItsBinary(t *testing.T) {
	got := serial(strings.Repeat("0123456789abcdef", 4))
	if got != "urn:uuid:01234567-89ab-8def-8123-456789abcdef" {
		t.Error(got)
	}
}

func TestAModuleWithoutALicenceIsNotReleased(t *testing.T) {
	if err := appendLicense(nil, "example.com/m", "v1.0.0", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no licence") {
		t.Errorf("%v", err)
	}
}

func TestABinaryAboveItsBudgetIsNotReleased(t *testing.T) {
	r := &release{root: filepath.Join("..", "..")}
	small := target{"linux-amd64", []string{"GOARCH=amd64"}, "amd64", 1 << 10}
	if err := r.compile(small, filepath.Join(t.TempDir(), "gateway")); err == nil || !strings.Contains(err.Error(), "budget of 1024") {
		t.Errorf("%v", err)
	}
}
