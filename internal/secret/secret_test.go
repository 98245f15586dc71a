package secret

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"errors"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// An error names the file: where it is must not depend on where its reader stands.
func TestASecretOfARelativeConfigurationHasAWholePath(t *testing.T) {
	if got := Path("cloud.password", "gateway.toml", func(string) string { return "" }); !filepath.IsAbs(got) {
		t.Error(got)
	}
}

func TestWhereASecretIsLookedFor(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "etc", "gateway.toml")
	loaded := filepath.Join(dir, "run")
	write(t, filepath.Join(loaded, "credentials_cloud.password"), "loaded")
	write(t, filepath.Join(loaded, "single.key"), "loaded singly")
	absolute := filepath.Join(dir, "elsewhere")
	getenv := func(key string) string {
		if key == "CREDENTIALS_DIRECTORY" {
			return loaded
		}
		return ""
	}
	none := func(string) string { return "" }
	for _, c := range []struct {
		name   string
		getenv func(string) string
		want   string
	}{
		{"cloud.password", getenv, filepath.Join(loaded, "credentials_cloud.password")},
		{"single.key", getenv, filepath.Join(loaded, "single.key")},
		{"not-loaded", getenv, filepath.Join(dir, "etc", "credentials", "not-loaded")},
		{"cloud.password", none, filepath.Join(dir, "etc", "credentials", "cloud.password")},
		{filepath.Join("tls", "ca.pem"), getenv, filepath.Join(dir, "etc", "tls", "ca.pem")},
		{absolute, getenv, absolute},
		{"", getenv, ""},
	} {
		if got := Path(c.name, conf, c.getenv); got != c.want {
			t.Errorf("%q: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "gateway.toml")
	none := func(string) string { return "" }
	for content, want := range map[string]string{
		"pass": "pass", "pass\n": "pass", "pass\r\n": "pass", "pass\n\n": "pass\n", " pass ": " pass ", "": "",
	} {
		write(t, filepath.Join(dir, "credentials", "p"), content)
		if got, err := Read("p", conf, none); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, want %q", content, got, err, want)
		}
	}
	if _, err := Read("absent", conf, none); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "secret: ") {
		t.Errorf("an absent file: %v", err)
	}
	write(t, filepath.Join(dir, "credentials", "big"), strings.Repeat("x", maxSize+1))
	if _, err := Read("big", conf, none); err == nil || strings.Contains(err.Error(), "xx") {
		t.Errorf("a file that is no secret: %v", err)
	}
}

func TestASecretOfTheEnvironment(t *testing.T) {
	env := map[string]string{"PASSWORD": "s3cret\n", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, set := env[name]; return v, set }
	if b, err := Variable("PASSWORD", lookup); err != nil || string(b) != "s3cret\n" {
		t.Errorf("%q, %v: a variable is taken as it is", b, err)
	}
	for name, want := range map[string]string{
		"MISSING": "secret: the environment has no variable MISSING; set it for the process, or use a file",
		"EMPTY":   "secret: the variable EMPTY of the environment is empty",
	} {
		if _, err := Variable(name, lookup); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
