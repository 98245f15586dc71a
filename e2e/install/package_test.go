package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

func TestPackageIsCleanForLintian(t *testing.T) {
	lintian := rig.Need(t, "lintian", "lintian")
	out := run(t, lintian, "--allow-root", "--fail-on=error", deb(t, release(t)))
	if out != "" {
		t.Logf("lintian:\n%s", out)
	}
}

// The same commit gives the same bytes: from a clone and from a work tree elsewhere, at another time,
// for somebody with another umask, time zone and language, who has set what the toolchain listens to.
func TestTwoBuildsGiveTheSameBytes(t *testing.T) {
	clone := filepath.Join(t.TempDir(), "here")
	run(t, "git", "clone", "--quiet", "--no-hardlinks", rig.Root(), clone)
	tree := filepath.Join(t.TempDir(), "some", "where", "else")
	run(t, "git", "-C", clone, "worktree", "add", "--quiet", "--detach", tree)
	var sums []string
	for _, b := range []struct {
		repository string
		env        []string
	}{
		{clone, nil},
		{tree, []string{"UMASK=077", "TZ=Pacific/Kiritimati", "LC_ALL=C", "GOFLAGS=-v", "GOAMD64=v3", "GOARM64=v9.0", "GODEBUG=asynctimerchan=1"}},
	} {
		dist := packagesWith(t, b.env, b.repository, "1.2.3")
		list, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		// The list says what the files are.
		for line := range strings.Lines(string(list)) {
			sum, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
			b, err := os.ReadFile(filepath.Join(dist, file))
			if err != nil {
				t.Fatal(err)
			}
			if got := sha256.Sum256(b); sum != hex.EncodeToString(got[:]) {
				t.Errorf("SHA256SUMS says %s of %s", sum, file)
			}
		}
		sums = append(sums, string(list))
	}
	if strings.Count(sums[0], "\n") != 3 {
		t.Errorf("a target gives a package, a tarball and a bill of materials; got\n%s", sums[0])
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
}

func TestTarballAndBillOfMaterials(t *testing.T) {
	dist := release(t)
	base := "gateway-1.2.3-linux-" + runtime.GOARCH
	list := run(t, "tar", "-tvzf", filepath.Join(dist, base+".tar.gz"))
	for _, want := range []string{
		`-rwxr-xr-x 0/0 .* ` + base + `/gateway\n`,
		`/LICENSE\n`, `/README.md\n`, `/THIRD-PARTY-LICENSES\n`, `/gateway\.1\n`,
		`/docs/install-raspberry-pi\.md\n`, `/examples/minimal\.toml\n`,
	} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("the tarball lacks %s:\n%s", want, list)
		}
	}
	b, err := os.ReadFile(filepath.Join(dist, base+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(b, &bom); err != nil || bom.Format != "CycloneDX" {
		t.Fatalf("the bill of materials: %q, %v", bom.Format, err)
	}
	parts := map[string]string{}
	for _, c := range bom.Components {
		parts[c.Name] = c.Version
	}
	if parts["std"] != runtime.Version() || parts["github.com/BurntSushi/toml"] == "" || len(parts) < 3 {
		t.Errorf("the bill of materials names %v", parts)
	}
}
