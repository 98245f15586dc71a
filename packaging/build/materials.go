package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// materials returns the licences of everything that a binary was made of, and its bill of materials
// (CycloneDX 1.5), both from what the toolchain wrote into the binary.
func (r *release) materials(t target, binary string) (licenses, bom []byte, err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, nil, err
	}
	sum, err := sumOf(binary)
	if err != nil {
		return nil, nil, err
	}
	if licenses, err = r.licenses(info); err != nil {
		return nil, nil, err
	}
	bom, err = json.MarshalIndent(r.billOfMaterials(t, info, sum), "", "  ")
	return licenses, append(bom, '\n'), err
}

// licenses returns the licence texts of the Go runtime and of each module in the binary.
func (r *release) licenses(info *buildinfo.BuildInfo) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What the gateway's binary is made of beside the gateway itself, and its licences.\n")
	goroot, err := r.output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := appendLicense(&b, "The Go runtime and standard library", info.GoVersion, strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	for _, m := range info.Deps {
		m = used(m)
		dir, err := r.output("go", "list", "-m", "-f", "{{.Dir}}", m.Path)
		if err != nil {
			return nil, err
		}
		if err := appendLicense(&b, m.Path, m.Version, strings.TrimSpace(string(dir))); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// used returns the module that was built: the replacement where there is one.
func used(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func appendLicense(b *bytes.Buffer, name, version, dir string) error {
	found := false
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "../LICENSE"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if pattern == "../LICENSE" && found { // Debian's Go keeps it above GOROOT
				continue
			}
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			found = true
			fmt.Fprintf(b, "\n%s\n%s %s (%s)\n\n%s", strings.Repeat("=", 80), name, version, filepath.Base(p), text)
		}
	}
	if !found {
		return fmt.Errorf("%s %s carries no licence in %s; it must not be released", name, version, dir)
	}
	return nil
}

// A component of a bill of materials: https://cyclonedx.org/docs/1.5/json/.
type component struct {
	Type    string  `json:"type"`
	Ref     string  `json:"bom-ref,omitempty"`
	Name    string  `json:"name"`
	Version string  `json:"version"`
	PURL    string  `json:"purl,omitempty"`
	Hashes  []sha   `json:"hashes,omitempty"`
	Notes   []named `json:"properties,omitempty"`
}

type sha struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type named struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

type entity struct {
	Name string `json:"name"`
}

type bill struct {
	Format      string `json:"bomFormat"`
	SpecVersion string `json:"specVersion"`
	Serial      string `json:"serialNumber"`
	Version     int    `json:"version"`
	Metadata    struct {
		Timestamp string `json:"timestamp"`
		Tools     struct {
			Components []component `json:"components"`
		} `json:"tools"`
		Authors   []entity  `json:"authors"`
		Component component `json:"component"`
		Supplier  entity    `json:"supplier"`
	} `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

// serial names a bill by the sum of the binary that it is of, so that the same binary has the same
// bill: a UUID of version 8 (RFC 9562, 5.8).
func serial(sum string) string {
	return fmt.Sprintf("urn:uuid:%s-%s-8%s-8%s-%s", sum[:8], sum[8:12], sum[13:16], sum[17:20], sum[20:32])
}

func (r *release) billOfMaterials(t target, info *buildinfo.BuildInfo, sum string) bill {
	b := bill{Format: "CycloneDX", SpecVersion: "1.5", Serial: serial(sum), Version: 1}
	b.Metadata.Timestamp = r.time.Format(time.RFC3339)
	b.Metadata.Tools.Components = []component{{Type: "application", Name: "gateway/packaging/build", Version: r.version}}
	b.Metadata.Authors = []entity{{authors}}
	b.Metadata.Supplier = entity{authors}
	self := component{Type: "application", Ref: "gateway", Name: "gateway", Version: r.version, Hashes: []sha{{"SHA-256", sum}}}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "GOARM", "GOARM64", "GOAMD64", "GORISCV64", "GOMIPS", "GO386", "CGO_ENABLED", "-trimpath":
			self.Notes = append(self.Notes, named{"go:build:" + s.Key, s.Value})
		}
	}
	self.Notes = append(self.Notes, named{"vcs:revision", r.commit}, named{"vcs:modified", strconv.FormatBool(r.changed)})
	b.Metadata.Component = self
	on := dependency{Ref: self.Ref}
	add := func(c component) {
		c.Ref = c.PURL
		on.On = append(on.On, c.Ref)
		b.Components = append(b.Components, c)
	}
	add(component{Type: "library", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")})
	for _, m := range info.Deps {
		m = used(m)
		c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
		if m.Sum != "" {
			c.Notes = []named{{"go:sum", m.Sum}}
		}
		add(c)
	}
	b.Dependencies = []dependency{on}
	return b
}
