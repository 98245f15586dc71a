package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	debian "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// Who made the gateway, as in the copyright, and who answers for the packages.
const (
	authors    = "the gateway authors"
	maintainer = "Gateway maintainers <maintainers@gateway.example>"
)

// deb writes the Debian package of a target.
func (r *release) deb(file string, t target, binary string, docs []document) error {
	stage, err := os.MkdirTemp(filepath.Dir(binary), "deb-")
	if err != nil {
		return err
	}
	p := &debPackage{release: r, stage: stage}
	p.file("/usr/bin/gateway", binary, 0o755, "")
	p.file("/etc/gateway/gateway.toml", filepath.Join(r.root, "internal/service/gateway.toml"), 0o644, files.TypeConfigNoReplace)
	for source, place := range map[string]string{
		"gateway.service":      "/usr/lib/systemd/system/gateway.service",
		"gateway.sysusers":     "/usr/lib/sysusers.d/gateway.conf",
		"gateway.tmpfiles":     "/usr/lib/tmpfiles.d/gateway.conf",
		"gateway.modules-load": "/usr/lib/modules-load.d/gateway.conf",
		"gateway.rules":        "/usr/lib/udev/rules.d/70-gateway.rules",
	} {
		p.file(place, filepath.Join(r.root, "systemd", source), 0o644, "")
	}
	p.dir("/etc/gateway", 0o755)
	p.dir("/etc/gateway/credentials", 0o700) // systemd does not start a unit whose credentials' source is absent

	doc := "/usr/share/doc/gateway/"
	p.file(doc+"copyright", filepath.Join(r.root, "packaging/deb/copyright"), 0o644, "")
	p.file("/usr/share/lintian/overrides/gateway", filepath.Join(r.root, "packaging/deb/lintian-overrides"), 0o644, "")
	p.zipped(doc+"changelog.gz", r.changelog())
	for _, d := range docs {
		switch {
		case d.name == "LICENSE": // in copyright
		case path.Ext(d.name) == ".1":
			p.zipped("/usr/share/man/man1/"+d.name+".gz", d.text)
		case d.name == "THIRD-PARTY-LICENSES":
			p.zipped(doc+d.name+".gz", d.text)
		default:
			p.text(doc+d.name, d.text)
		}
	}
	if p.err != nil {
		return p.err
	}
	info := &nfpm.Info{
		Name:          "gateway",
		Arch:          t.debian,
		Platform:      "linux",
		Version:       r.version,
		VersionSchema: "none",
		Section:       "net",
		Priority:      "optional",
		Maintainer:    maintainer,
		Description: "Sensor gateway: Modbus, serial and I2C to MQTT\n" +
			"Reads sensors over Modbus (RTU, ASCII, TCP), serial lines and I2C, writes every\n" +
			"reading to a queue on disk, and publishes from there over MQTT at QoS 1: to a\n" +
			"broker of its own on this machine and to any number of brokers upstream.\n" +
			"Dropped lines, crashes and power cuts cost no reading that was synced.",
		License: "Apache-2.0",
		MTime:   r.time,
		// Globs in names of files are taken literally.
		DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: p.contents,
			// The user is made from sysusers.d, by systemd or, where another init runs, by its stand-in. From
			// 251 on systemd takes a whole directory for a credential, as the unit has it.
			Depends:  []string{"init-system-helpers (>= 1.54)", "systemd (>= 251) | systemd-standalone-sysusers | systemd-sysusers"},
			Suggests: []string{"mosquitto-clients", "i2c-tools"},
			Scripts: nfpm.Scripts{
				PostInstall: filepath.Join(r.root, "packaging/deb/postinst"),
				PreRemove:   filepath.Join(r.root, "packaging/deb/prerm"),
				PostRemove:  filepath.Join(r.root, "packaging/deb/postrm"),
			},
			Deb: nfpm.Deb{Compression: "xz"},
		},
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := debian.Default.Package(info, out); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// changelog is the package's own, with one entry: this version.
func (r *release) changelog() []byte {
	return fmt.Appendf(nil, "gateway (%s) stable; urgency=medium\n\n  * Release %s.\n\n -- %s  %s\n",
		r.version, r.version, maintainer, r.time.Format("Mon, 02 Jan 2006 15:04:05 +0000"))
}

// A debPackage gathers what goes into a package; the first error stays.
type debPackage struct {
	*release
	stage    string
	contents files.Contents
	err      error
}

func (p *debPackage) add(place, source, kind string, mode fs.FileMode) {
	p.contents = append(p.contents, &files.Content{
		Source: source, Destination: place, Type: kind,
		FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: p.time},
	})
}

func (p *debPackage) file(place, source string, mode fs.FileMode, kind string) {
	p.add(place, source, kind, mode)
}

func (p *debPackage) dir(place string, mode fs.FileMode) { p.add(place, "", files.TypeDir, mode) }

func (p *debPackage) text(place string, text []byte) {
	source := filepath.Join(p.stage, strconv.Itoa(len(p.contents)))
	if err := os.WriteFile(source, text, 0o644); err != nil && p.err == nil {
		p.err = err
	}
	p.add(place, source, "", 0o644)
}

// zipped is text compressed as Debian's policy asks (12.1): by gzip -9n.
func (p *debPackage) zipped(place string, text []byte) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(text)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%s: %w", strings.TrimPrefix(place, "/"), err)
	}
	p.text(place, b.Bytes())
}
