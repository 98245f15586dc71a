package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A service manager that starts the program again would not mend a missing password file.
func TestABrokerFileThatCannotBeUsedIsAFaultOfTheConfiguration(t *testing.T) {
	for key, want := range map[string]string{
		`password_file = "absent"`: "absent",
		`acl_file = "./acl"`:       "acl: line 1",
		"certificate_file = \"./acl\"\nkey_file = \"./acl\"\nlisten = [\"mqtts://127.0.0.1:0\"]": "acl",
	} {
		dir := t.TempDir()
		config := filepath.Join(dir, "gateway.toml")
		text := fmt.Sprintf("[gateway]\ndata = %q\n[broker]\n%s\n", filepath.Join(dir, "data"), key)
		for name, content := range map[string]string{config: text, filepath.Join(dir, "acl"): "nonsense"} {
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, command := range []string{"run", "broker"} {
			if _, errs, code := gatewayCommand(t, command, "--config", config); code != exitConfig || !strings.Contains(errs, want) {
				t.Errorf("%s with %s: exit %d, %s", command, key, code, errs)
			}
		}
	}
}
